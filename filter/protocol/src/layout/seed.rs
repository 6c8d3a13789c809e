//! What must be kept of a request to write its reply.

/// How many bytes of text command, echoed fields and extension fit without the heap.
const INLINE: usize = 38;

/// The little of a request that its reply's header is made from. Belongs to the layout that
/// made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplySeed {
    /// The request's command if it is an integer.
    pub(super) command: u64,
    pub(super) sequence: u64,
    pub(super) version: u64,
    /// How many of `bytes` are the command, if it is text.
    pub(super) text: u16,
    /// The text command, the echoed fields in the order of the wire, the echoed extension.
    pub(super) bytes: Bytes,
}

impl ReplySeed {
    /// The request's sequence number.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slice().split_at_checked(usize::from(self.text)).unwrap_or_default()
    }
}

/// A short run of bytes, inline if it fits.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Vec<u8>),
}

impl Bytes {
    pub(super) const fn new() -> Self {
        Self::Inline { len: 0, bytes: [0; INLINE] }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Heap(bytes) => bytes,
        }
    }

    pub(super) fn extend(&mut self, more: &[u8]) {
        match self {
            Self::Inline { len, bytes } => {
                let start = usize::from(*len);
                let end = start.saturating_add(more.len());
                if let (Some(room), Ok(end)) = (bytes.get_mut(start..end), u8::try_from(end)) {
                    room.copy_from_slice(more);
                    *len = end;
                } else {
                    let joined = [self.as_slice(), more].concat();
                    *self = Self::Heap(joined);
                }
            }
            Self::Heap(bytes) => bytes.extend_from_slice(more),
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_move_to_the_heap_only_when_they_must() {
        let mut bytes = Bytes::new();
        bytes.extend(&[1; INLINE - 1]);
        bytes.extend(&[2]);
        assert!(matches!(bytes, Bytes::Inline { .. }));
        bytes.extend(&[3, 4]);
        assert!(matches!(bytes, Bytes::Heap(_)));
        bytes.extend(&[5]);
        let mut expected = vec![1; INLINE - 1];
        expected.extend([2, 3, 4, 5]);
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn a_seed_is_small() {
        assert!(std::mem::size_of::<ReplySeed>() <= 72);
    }
}
