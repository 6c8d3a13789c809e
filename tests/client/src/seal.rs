//! Sealed frames: ChaCha20-Poly1305 with counters for nonces.
//!
//! The header stays readable and is authenticated, the body is encrypted and followed by its
//! tag, and the length in the header counts the tag. For the n-th sealed frame of a direction,
//! counted from 0:
//!
//! ```text
//! nonce  4 zero bytes | n as u64, little-endian
//! AAD    direction u8 | n as u64, little-endian | the 20 header bytes, flag "sealed" set
//! ```

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

use crate::frame::{Flags, Frame, HEADER};

/// Bytes that sealing adds to a body.
pub const TAG: usize = 16;

/// Who speaks; the number is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ClientToServer = 0,
    ServerToClient = 1,
}

/// One direction of a sealed connection, at either end of it.
pub struct Seal {
    cipher: ChaCha20Poly1305,
    direction: Direction,
    counter: u64,
}

impl Seal {
    pub fn new(key: &[u8; 32], direction: Direction) -> Self {
        Self { cipher: ChaCha20Poly1305::new(&Key::from(*key)), direction, counter: 0 }
    }

    /// The frame as bytes, sealed.
    pub fn seal(&mut self, frame: &Frame) -> Vec<u8> {
        let flags = frame.flags.with(Flags::SEALED);
        let head = Frame { flags, body: Vec::new(), ..*frame };
        let header = head.header(frame.body.len() + TAG);
        let (nonce, aad) = self.next(&header);
        let payload = Payload { msg: &frame.body, aad: &aad };
        // Fails for bodies of 256 GiB alone.
        let sealed = self.cipher.encrypt(&nonce, payload).unwrap_or_default();
        [&header[..], &sealed].concat()
    }

    /// Opens a frame as it was received.
    pub fn open(&mut self, frame: Frame) -> Result<Frame, &'static str> {
        if !frame.flags.has(Flags::SEALED) {
            return Err("it is not sealed");
        }
        let (nonce, aad) = self.next(&frame.header(frame.body.len()));
        let payload = Payload { msg: &frame.body, aad: &aad };
        let body = self.cipher.decrypt(&nonce, payload).map_err(|_| "its seal is not genuine")?;
        Ok(Frame { flags: frame.flags.without(Flags::SEALED), body, ..frame })
    }

    fn next(&mut self, header: &[u8; HEADER]) -> (Nonce, [u8; 9 + HEADER]) {
        let counter = self.counter.to_le_bytes();
        self.counter += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter);
        let mut aad = [0; 9 + HEADER];
        aad[0] = self.direction as u8;
        aad[1..9].copy_from_slice(&counter);
        aad[9..].copy_from_slice(header);
        (nonce.into(), aad)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn pair() -> (Seal, Seal) {
        let end = || Seal::new(&[7; 32], Direction::ClientToServer);
        (end(), end())
    }

    fn received(bytes: &[u8]) -> Frame {
        Frame::decode(&mut BytesMut::from(bytes)).unwrap().unwrap()
    }

    #[test]
    fn frames_open_in_order() {
        let (mut client, mut server) = pair();
        for sequence in 0..3 {
            let frame = Frame::request(1100, sequence, *b"hello");
            let bytes = client.seal(&frame);
            assert_eq!(bytes.len(), HEADER + 5 + TAG);
            assert_eq!(server.open(received(&bytes)), Ok(frame));
        }
    }

    #[test]
    fn every_bit_is_protected() {
        let bytes = pair().0.seal(&Frame::request(1100, 1, *b"hello"));
        for bit in 0..bytes.len() * 8 {
            let mut tampered = bytes.clone();
            tampered[bit / 8] ^= 1 << (bit % 8);
            let Ok(Some(frame)) = Frame::decode(&mut BytesMut::from(&tampered[..])) else {
                continue;
            };
            assert!(pair().1.open(frame).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn replayed_reordered_and_reflected_frames_do_not_open() {
        let (mut client, mut server) = pair();
        let first = client.seal(&Frame::request(1100, 1, *b"one"));
        let second = client.seal(&Frame::request(1100, 2, *b"two"));
        assert!(pair().1.open(received(&second)).is_err());
        assert!(server.open(received(&first)).is_ok());
        assert!(server.open(received(&first)).is_err());
        let mut other = Seal::new(&[7; 32], Direction::ServerToClient);
        assert!(other.open(received(&first)).is_err());
    }

    #[test]
    fn an_unsealed_frame_does_not_open() {
        assert!(pair().1.open(Frame::request(1100, 1, *b"hello")).is_err());
    }

    /// The vectors that the protocol's document names, made by OpenSSL.
    #[test]
    fn frames_are_those_of_the_vectors() {
        let vectors = include_str!("../../vectors/session/sealing.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let text =
            |vector: &serde_json::Value, name: &str| vector[name].as_str().unwrap().to_owned();
        let bytes = |vector: &serde_json::Value, name: &str| -> Vec<u8> {
            let hex = text(vector, name);
            let at = (0..hex.len()).step_by(2);
            at.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let frames = vectors["frames"].as_array().unwrap();
        let frames: Vec<_> = frames.iter().filter(|frame| frame["layout"] == "game").collect();
        assert!(!frames.is_empty());
        for vector in frames {
            let direction = match &*text(vector, "direction") {
                "client_to_server" => Direction::ClientToServer,
                _ => Direction::ServerToClient,
            };
            let key = bytes(vector, "key").try_into().unwrap();
            let counter = text(vector, "number").parse().unwrap();
            let mut reader = Seal { counter, ..Seal::new(&key, direction) };
            let mut writer = Seal { counter, ..Seal::new(&key, direction) };
            let frame = reader.open(received(&bytes(vector, "frame"))).unwrap();
            assert_eq!(frame.body, bytes(vector, "plaintext"));
            assert_eq!(writer.seal(&frame), bytes(vector, "frame"));
        }
    }
}
