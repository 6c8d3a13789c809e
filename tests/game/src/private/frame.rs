//! The frame of layout `game`, big-endian.
//!
//! ```text
//!  0  u16  magic 0x4D47, "MG"
//!  2  u8   version 1
//!  3  u8   flags: 1 reply, 2 one-way, 4 push, 8 error, 16 compressed (zlib), 32 sealed
//!  4  u32  length of the whole frame
//!  8  u32  command
//! 12  u32  sequence, the same in the reply
//! 16  u16  status, a gRPC status code; 0 in requests
//! 18  u16  reserved, 0
//! 20       body
//! ```

/// Bytes before the body.
pub const HEADER: usize = 20;
/// The longest frame that the server takes.
pub const MAX_FRAME: usize = 1024 * 1024;

/// The commands of the game.
pub mod command {
    pub const LOGIN: u32 = 1;
    /// Server to client, unasked: the connection ends, the body is a text for people.
    pub const GOODBYE: u32 = 2;
    /// Comes back at once.
    pub const HEARTBEAT: u32 = 3;
    /// One-way: the caller waits no longer for the reply of this sequence.
    pub const CANCEL: u32 = 4;
    pub const HALL_ENTER: u32 = 1001;
    pub const HALL_MOVE: u32 = 1002;
    /// One-way.
    pub const HALL_SAY: u32 = 1003;
    pub const HALL_LOOK: u32 = 1004;
    pub const HALL_LEAVE: u32 = 1005;
    /// The body is an `EchoRequest`, the reply's an `EchoReply`.
    pub const ECHO: u32 = 1100;
    /// The body is any bytes, and comes back.
    pub const ECHO_BYTES: u32 = 1101;
    pub const SLOW: u32 = 1102;
    pub const FAIL: u32 = 1103;
    pub const WHOAMI: u32 = 1104;
}

/// The flag bits at offset 3.
pub struct Flags;

impl Flags {
    pub const REPLY: u8 = 1;
    pub const ONE_WAY: u8 = 2;
    pub const PUSH: u8 = 4;
    pub const ERROR: u8 = 8;
    pub const COMPRESSED: u8 = 16;
    pub const SEALED: u8 = 32;
}

/// A header whose magic, version and length are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flags: u8,
    /// Of the whole frame: `HEADER` to `MAX_FRAME`.
    pub length: usize,
    pub command: u32,
    pub sequence: u32,
    pub status: u16,
}

/// The bytes are no frame of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFrame;

impl Header {
    /// `None`: fewer than [`HEADER`] bytes so far.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, NotAFrame> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let u32_at = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = u32_at(4) as usize;
        let right = header[..3] == *b"MG\x01" && (HEADER..=MAX_FRAME).contains(&length);
        right.then_some(()).ok_or(NotAFrame)?;
        Ok(Some(Self {
            flags: header[3],
            length,
            command: u32_at(8),
            sequence: u32_at(12),
            status: u16::from_be_bytes([header[16], header[17]]),
        }))
    }

    /// Appends a frame with this header; the length is that of `body`, whatever `length` says.
    pub fn write(&self, body: &[u8], output: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        output.extend_from_slice(b"MG\x01");
        output.push(self.flags);
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(&self.command.to_be_bytes());
        output.extend_from_slice(&self.sequence.to_be_bytes());
        output.extend_from_slice(&self.status.to_be_bytes());
        output.extend_from_slice(&[0, 0]);
        output.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header { flags: 9, length: 25, command: 1001, sequence: 7, status: 5 };
        let mut bytes = Vec::new();
        header.write(b"hello", &mut bytes);
        assert_eq!(
            bytes,
            b"MG\x01\x09\x00\x00\x00\x19\x00\x00\x03\xe9\x00\x00\x00\x07\x00\x05\x00\x00hello"
        );
        assert_eq!(Header::parse(&bytes), Ok(Some(header)));
        for cut in 0..HEADER {
            assert_eq!(Header::parse(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut good = Vec::new();
        Header { flags: 0, length: 0, command: 1, sequence: 1, status: 0 }.write(b"", &mut good);
        for (at, byte) in [(0, b'X'), (2, 2), (7, 19), (4, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Header::parse(&bad), Err(NotAFrame), "byte {at} = {byte}");
        }
    }
}
