//! The frame of layout `game`: a 20-byte header, big-endian, and a body.
//!
//! ```text
//!  0  u16  magic 0x4D47, "MG"
//!  2  u8   version 1
//!  3  u8   flags
//!  4  u32  length of the whole frame
//!  8  u32  command
//! 12  u32  sequence, the same in the reply
//! 16  u16  status; 0 is success
//! 18  u16  reserved, 0
//! 20       body
//! ```

use bytes::{Buf, BufMut, BytesMut};
use miniz_oxide::{deflate, inflate};

/// Bytes before the body.
pub const HEADER: usize = 20;
/// The longest frame that this client takes or sends.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

const MAGIC: u16 = 0x4D47;
const VERSION: u8 = 1;

/// Commands that mean something to the client itself.
pub mod command {
    pub const LOGIN: u32 = 1;
    /// Server to client, unasked: the connection ends, the body is a text for people.
    pub const GOODBYE: u32 = 2;
}

/// The bits of the byte at offset 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const REPLY: Self = Self(1);
    pub const ONE_WAY: Self = Self(2);
    pub const PUSH: Self = Self(4);
    pub const ERROR: Self = Self(8);
    pub const COMPRESSED: Self = Self(16);
    pub const SEALED: Self = Self(32);

    pub fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    #[must_use]
    pub fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    #[must_use]
    pub fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }
}

/// One frame. The body is plain: sealing happens on the way out, opening on the way in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    pub flags: Flags,
    pub command: u32,
    pub sequence: u32,
    pub status: u16,
    pub body: Vec<u8>,
}

impl Frame {
    /// A request as an ordinary client sends it.
    pub fn request(command: u32, sequence: u32, body: impl Into<Vec<u8>>) -> Self {
        Self { command, sequence, body: body.into(), ..Self::default() }
    }

    /// The header as it goes over the wire with a body of `body` bytes.
    pub fn header(&self, body: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let mut fields = &mut header[..];
        fields.put_u16(MAGIC);
        fields.put_u8(VERSION);
        fields.put_u8(self.flags.0);
        fields.put_u32(u32::try_from(HEADER + body).unwrap_or(u32::MAX));
        fields.put_u32(self.command);
        fields.put_u32(self.sequence);
        fields.put_u16(self.status);
        fields.put_u16(0);
        header
    }

    /// The frame as bytes, unsealed.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header(self.body.len()).to_vec();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Takes the first frame off `input`; `None` as long as it is not whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, &'static str> {
        let Some(mut fields) = input.first_chunk::<HEADER>().map(|header| &header[..]) else {
            return Ok(None);
        };
        if fields.get_u16() != MAGIC {
            return Err("wrong magic");
        }
        if fields.get_u8() != VERSION {
            return Err("wrong version");
        }
        let flags = Flags(fields.get_u8());
        let length = fields.get_u32() as usize;
        if !(HEADER..=MAX_FRAME).contains(&length) {
            return Err("wrong length");
        }
        let (command, sequence) = (fields.get_u32(), fields.get_u32());
        let status = fields.get_u16();
        if fields.get_u16() != 0 {
            return Err("wrong reserved field");
        }
        if input.len() < length {
            return Ok(None);
        }
        let body = input.split_to(length)[HEADER..].to_vec();
        Ok(Some(Self { flags, command, sequence, status, body }))
    }

    /// Compresses the body (zlib) and sets the flag.
    #[must_use]
    pub fn compress(mut self) -> Self {
        self.body = deflate::compress_to_vec_zlib(&self.body, 6);
        self.flags = self.flags.with(Flags::COMPRESSED);
        self
    }

    /// The body as the server meant it. `None`: it says that it is compressed and is not, or
    /// would be longer than [`MAX_FRAME`].
    pub fn into_body(self) -> Option<Vec<u8>> {
        if !self.flags.has(Flags::COMPRESSED) {
            return Some(self.body);
        }
        inflate::decompress_to_vec_zlib_with_limit(&self.body, MAX_FRAME).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_layout() {
        let flags = Flags::REPLY.with(Flags::ERROR);
        let frame = Frame { flags, command: 1001, sequence: 7, status: 5, body: b"hello".to_vec() };
        assert_eq!(
            frame.encode(),
            b"MG\x01\x09\x00\x00\x00\x19\x00\x00\x03\xe9\x00\x00\x00\x07\x00\x05\x00\x00hello"
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (at, byte) in [(0, 0), (2, 9), (7, 19), (4, 0xff), (19, 1)] {
            let mut bytes = Frame::request(1, 1, *b"").encode();
            bytes[at] = byte;
            assert!(Frame::decode(&mut BytesMut::from(&bytes[..])).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_compressed_body_comes_out_again() {
        let frame = Frame::request(1, 1, vec![b'x'; 5000]).compress();
        assert!(frame.flags.has(Flags::COMPRESSED) && frame.body.len() < 100);
        assert_eq!(frame.into_body(), Some(vec![b'x'; 5000]));
        let broken = Frame { flags: Flags::COMPRESSED, ..Frame::request(1, 1, *b"no zlib") };
        assert_eq!(broken.into_body(), None);
    }

    proptest! {
        #[test]
        fn frames_survive_every_split(
            (flags, command, sequence, status) in any::<(u8, u32, u32, u16)>(),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let frame = Frame { flags: Flags(flags), command, sequence, status, body };
            let bytes = frame.encode();
            for cut in 0..bytes.len() {
                let mut input = BytesMut::from(&bytes[..cut]);
                prop_assert_eq!(Frame::decode(&mut input), Ok(None));
                input.extend_from_slice(&bytes[cut..]);
                input.extend_from_slice(b"next");
                prop_assert_eq!(Frame::decode(&mut input), Ok(Some(frame.clone())));
                prop_assert_eq!(&input[..], b"next");
            }
        }
    }
}
