//! What a server leg has to say.

use std::time::Duration;

use super::streams::StreamKey;
use crate::call::Code;

/// What [`poll`](super::ServerLeg::poll) found. It borrows the input where it can, the leg's own
/// buffers otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A gRPC request begins: to be accepted, or finished, at once.
    Begin {
        stream: StreamKey,
        /// `/package.Service/Method`, as the caller wrote it.
        path: &'a [u8],
        /// The caller's `grpc-timeout`.
        timeout: Option<Duration>,
        metadata: Metadata<'a>,
    },
    /// The request of a call that was accepted is complete: its one message, without gRPC's
    /// five-byte prefix.
    Request { stream: StreamKey, token: u32, message: &'a [u8] },
    /// A call that was accepted is over without our doing: the caller gave it up (CANCELLED), or
    /// its request was wrong in a way that the leg has answered already, with this code.
    Over { stream: StreamKey, token: u32, code: Code },
}

/// The fields of a request that [`Limits::metadata`](super::Limits::metadata) names, in the order
/// of the request.
///
/// ```text
/// for each: place in `Limits::metadata` u8, length u32 little-endian, value
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Metadata<'a> {
    bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// From the bytes that [`Self::bytes`] gave.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// To be kept for later.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The value of the first field of this place in `Limits::metadata`.
    pub fn value(self, place: usize) -> Option<&'a [u8]> {
        self.find(|found, _| usize::from(found) == place)
    }

    fn find(self, mut wanted: impl FnMut(u8, &[u8]) -> bool) -> Option<&'a [u8]> {
        let mut left = self.bytes;
        while let Some((&[place, l0, l1, l2, l3], rest)) = left.split_first_chunk::<5>() {
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let (value, rest) = rest.split_at_checked(length)?;
            if wanted(place, value) {
                return Some(value);
            }
            left = rest;
        }
        None
    }

    /// Adds a field to `bytes`.
    pub(super) fn push(place: u8, value: &[u8], bytes: &mut Vec<u8>) {
        bytes.push(place);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_place_and_the_first_counts() {
        let mut bytes = Vec::new();
        Metadata::push(2, b"two", &mut bytes);
        Metadata::push(0, b"", &mut bytes);
        Metadata::push(2, b"again", &mut bytes);
        let metadata = Metadata::new(&bytes);
        assert_eq!(metadata.value(2), Some(&b"two"[..]));
        assert_eq!(metadata.value(0), Some(&b""[..]));
        assert_eq!(metadata.value(1), None);
        assert_eq!(Metadata::new(&bytes[..6]).value(2), None, "cut short");
    }
}
