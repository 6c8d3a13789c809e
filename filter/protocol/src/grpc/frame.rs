//! HTTP/2 frames: the nine-byte head, the kinds and flags, and the small frames that both
//! legs write.
//!
//! ```text
//! offset 0  length   u24, of the payload alone
//!        3  kind     u8
//!        4  flags    u8
//!        5  stream   u32, the highest bit reserved
//!        9  payload
//! ```
//!
//! Numbers are big-endian. Source: RFC 9113 section 4.1 and section 6.

use std::ops::Range;

use super::reason::ErrorCode;

/// The length of a frame's head, in bytes.
pub const HEAD_LENGTH: usize = 9;

/// The largest payload until SETTINGS_MAX_FRAME_SIZE says otherwise, and the smallest maximum
/// that a peer may announce (RFC 9113 section 6.5.2).
pub const DEFAULT_MAX_FRAME_SIZE: u32 = 16_384;

/// What a client sends before its first frame (RFC 9113 section 3.4).
pub const CLIENT_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest stream identifier: 31 bits.
pub const MAX_STREAM: u32 = 0x7fff_ffff;

/// The flags that this product reads or writes. Their meaning depends on the kind.
pub mod flag {
    /// DATA, HEADERS: the sender is done with the stream.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: an answer.
    pub const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION: the header block ends here.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS: the payload begins with the length of its padding.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: five bytes of (deprecated) priority follow.
    pub const PRIORITY: u8 = 0x20;
}

/// The kind of a frame (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension: to be ignored (RFC 9113 section 5.5).
    Unknown(u8),
}

impl Kind {
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::ResetStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }

    pub const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::ResetStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown(number) => number,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload, below 2^24.
    pub length: u32,
    pub kind: Kind,
    pub flags: u8,
    /// 0 for the connection itself; the reserved bit is already dropped.
    pub stream: u32,
}

impl Head {
    pub const fn parse(bytes: &[u8; HEAD_LENGTH]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: Kind::from_number(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_STREAM,
        }
    }

    pub const fn bytes(self) -> [u8; HEAD_LENGTH] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind.number(), self.flags, s0, s1, s2, s3]
    }

    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the length is one that RFC 9113 section 6 allows for the kind.
    pub const fn has_right_length(&self) -> bool {
        match self.kind {
            Kind::Priority => self.length == 5,
            Kind::ResetStream | Kind::WindowUpdate => self.length == 4,
            Kind::Ping => self.length == 8,
            Kind::GoAway => self.length >= 8,
            Kind::Settings if self.has(flag::ACK) => self.length == 0,
            Kind::Settings => self.length.is_multiple_of(6),
            _ => true,
        }
    }
}

/// Writes a head. `length` is the payload's and must be below 2^24, which every maximum frame
/// size is.
pub fn write_head(kind: Kind, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&Head { length, kind, flags, stream }.bytes());
}

/// Sets the length of the frame whose head was written at `at`, within the bound of
/// [`write_head`].
pub fn set_length(at: usize, length: usize, out: &mut [u8]) {
    let [_, bytes @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(at..).and_then(|head| head.first_chunk_mut()) {
        *place = bytes;
    }
}

/// An empty SETTINGS frame with ACK: the peer's settings are applied.
pub fn write_settings_ack(out: &mut Vec<u8>) {
    write_head(Kind::Settings, flag::ACK, 0, 0, out);
}

/// The answer to a PING, with the same eight bytes.
pub fn write_ping_ack(opaque: &[u8], out: &mut Vec<u8>) {
    write_head(Kind::Ping, flag::ACK, 0, opaque.len(), out);
    out.extend_from_slice(opaque);
}

/// Ends a stream at once, in both directions.
pub fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    write_head(Kind::ResetStream, 0, stream, 4, out);
    out.extend_from_slice(&code.number().to_be_bytes());
}

/// Lets the peer send `increment` more bytes of DATA; stream 0 is the connection.
pub fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    write_head(Kind::WindowUpdate, 0, stream, 4, out);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Says that the connection ends and which of the peer's streams were looked at.
pub fn write_go_away(last_stream: u32, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
    write_head(Kind::GoAway, 0, 0, debug.len().saturating_add(8), out);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.number().to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// A `u32` at the front of a payload, with the highest bit dropped where it is reserved.
pub fn leading_u32(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = payload.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Where the header block lies in the payload of a HEADERS frame: after the length of the
/// padding and the priority, before the padding. `None` if the padding does not fit (RFC 9113
/// section 6.2: PROTOCOL_ERROR).
pub fn header_block(head: &Head, payload: &[u8]) -> Option<Range<usize>> {
    let mut start = 0usize;
    let mut padding = 0usize;
    if head.has(flag::PADDED) {
        padding = usize::from(*payload.first()?);
        start = 1;
    }
    if head.has(flag::PRIORITY) {
        start = start.saturating_add(5);
    }
    let end = payload.len().checked_sub(padding)?;
    (start <= end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_round_trip() {
        for number in 0..=u8::MAX {
            let head = Head {
                length: 0x00ab_cdef,
                kind: Kind::from_number(number),
                flags: 0x2d,
                stream: 0x7ace_babe,
            };
            assert_eq!(head.kind.number(), number);
            assert_eq!(Head::parse(&head.bytes()), head);
        }
    }

    #[test]
    fn the_reserved_bit_of_a_stream_is_dropped() {
        assert_eq!(Head::parse(&[0, 0, 0, 0, 0, 0x80, 0, 0, 3]).stream, 3);
    }

    #[test]
    fn padding_and_priority_are_cut_off_a_header_block() {
        let head = |flags| Head { length: 0, kind: Kind::Headers, flags, stream: 1 };
        assert_eq!(header_block(&head(0), b"abc"), Some(0..3));
        assert_eq!(header_block(&head(flag::PADDED), b"\x02abc__"), Some(1..4));
        assert_eq!(header_block(&head(flag::PRIORITY), b"ppppwabc"), Some(5..8));
        let both = head(flag::PADDED | flag::PRIORITY);
        assert_eq!(header_block(&both, b"\x01ppppwabc_"), Some(6..9));
        assert_eq!(header_block(&both, b"\x01ppppw_"), Some(6..6));
    }

    #[test]
    fn padding_longer_than_the_payload_is_refused() {
        let head = |flags| Head { length: 0, kind: Kind::Headers, flags, stream: 1 };
        assert_eq!(header_block(&head(flag::PADDED), b""), None);
        assert_eq!(header_block(&head(flag::PADDED), b"\x01"), None);
        assert_eq!(header_block(&head(flag::PADDED), b"\x05abcd"), None);
        assert_eq!(header_block(&head(flag::PRIORITY), b"ppp"), None);
        assert_eq!(header_block(&head(flag::PADDED | flag::PRIORITY), b"\x01ppppw"), None);
    }
}
