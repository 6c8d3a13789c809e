//! As much of HTTP/2 (RFC 9113) and HPACK (RFC 7541) as generator and server need: frames with
//! their headers, and header blocks that are written, never read.

/// The client's first bytes (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before a frame's payload.
pub const FRAME_HEADER: usize = 9;
/// The longest payload that both sides take (the default, RFC 9113, 6.5.2).
pub const MAX_PAYLOAD: usize = 16_384;

/// Frame types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
}

pub const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
pub const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
pub const DEFAULT_TABLE: u32 = 4096;
pub const DEFAULT_WINDOW: i64 = 65_535;
pub const MAX_WINDOW: u32 = 0x7fff_ffff;
/// A connection's window is topped up after so many bytes: seldom, and in time.
pub const TOP_UP: u32 = 1 << 30;

/// One frame; the payload of DATA is without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
    /// Bytes on the wire.
    pub size: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `input`; `None` as long as it is not whole.
    #[inline]
    pub fn parse(input: &'a [u8]) -> Option<Self> {
        let head = input.first_chunk::<FRAME_HEADER>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let size = FRAME_HEADER + length;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & MAX_WINDOW;
        let mut payload = input.get(FRAME_HEADER..size)?;
        if kind == kind::DATA && flags & flag::PADDED != 0 {
            let padding = usize::from(*payload.first()?);
            payload = payload.get(1..payload.len().checked_sub(padding)?)?;
        }
        Some(Self { kind, flags, stream, payload, size })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number in a WINDOW_UPDATE.
    pub fn increment(&self) -> i64 {
        self.payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes)))
    }

    /// The value that a SETTINGS frame gives to `setting`.
    pub fn setting(&self, setting: u16) -> Option<u32> {
        let pairs = self.payload.chunks_exact(6);
        pairs
            .filter(|pair| pair[..2] == setting.to_be_bytes())
            .map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
            .next_back()
    }
}

/// Appends a frame's header.
#[inline]
pub fn frame_header(kind: u8, flags: u8, stream: u32, length: usize, output: &mut Vec<u8>) {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    output.extend_from_slice(&[
        high, middle, low, kind, flags, stream[0], stream[1], stream[2], stream[3],
    ]);
}

/// Appends SETTINGS with the largest stream window, and opens the connection's as far.
pub fn open_windows(output: &mut Vec<u8>) {
    frame_header(kind::SETTINGS, 0, 0, 6, output);
    output.extend_from_slice(&SETTINGS_INITIAL_WINDOW_SIZE.to_be_bytes());
    output.extend_from_slice(&MAX_WINDOW.to_be_bytes());
    window_update(MAX_WINDOW - DEFAULT_WINDOW as u32, output);
}

/// Appends a WINDOW_UPDATE for the connection.
pub fn window_update(increment: u32, output: &mut Vec<u8>) {
    frame_header(kind::WINDOW_UPDATE, 0, 0, 4, output);
    output.extend_from_slice(&increment.to_be_bytes());
}

/// Answers SETTINGS and PING, the frames that want an answer of any peer. `false`: some other.
pub fn acknowledge(frame: &Frame<'_>, output: &mut Vec<u8>) -> bool {
    match frame.kind {
        kind::SETTINGS | kind::PING if frame.has(flag::ACK) => {}
        kind::SETTINGS => frame_header(kind::SETTINGS, flag::ACK, 0, 0, output),
        kind::PING => {
            frame_header(kind::PING, flag::ACK, 0, frame.payload.len(), output);
            output.extend_from_slice(frame.payload);
        }
        _ => return false,
    }
    true
}

/// Appends a literal field to a header block: `first` is the representation's first byte, which
/// holds the index of a static name, or none and then the name follows (RFC 7541, 6.2).
pub fn literal(first: u8, name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(first);
    for text in [name, value].iter().filter(|text| !text.is_empty()) {
        // Lengths from 127 on take more bytes (RFC 7541, 5.1).
        let length = text.len();
        if length < 127 {
            block.push(length as u8);
        } else {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_parsed_when_they_are_whole() {
        let mut bytes = Vec::new();
        frame_header(kind::HEADERS, flag::END_HEADERS, 5, 3, &mut bytes);
        bytes.extend_from_slice(b"abcmore");
        for cut in 0..12 {
            assert_eq!(Frame::parse(&bytes[..cut]), None);
        }
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!((frame.kind, frame.stream, frame.payload, frame.size), (1, 5, &b"abc"[..], 12));
    }

    #[test]
    fn padding_is_no_payload() {
        let mut bytes = Vec::new();
        frame_header(kind::DATA, flag::PADDED, 1, 6, &mut bytes);
        bytes.extend_from_slice(b"\x02abc\0\0");
        assert_eq!(Frame::parse(&bytes).unwrap().payload, b"abc");
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let mut block = Vec::new();
        literal(0x04, "", &"x".repeat(127 + 300), &mut block);
        // RFC 7541, C.1.2 has the same form: 300 = 172 - 128 + 2 * 128.
        assert_eq!(block[..4], [0x04, 127, 172, 2]);
    }
}
