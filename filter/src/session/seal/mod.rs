//! Sealed frames: encryption and authentication of what follows a login that agreed on keys.
//!
//! Of a sealed frame the header (and the trailer, if the layout has one) stays readable and is
//! authenticated; the body is encrypted and is followed by the tag:
//!
//! ```text
//!   header | ciphertext (as long as the plaintext) | tag (16) | trailer
//! ```
//!
//! Associated data, in this order:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 1 | direction: 0 client to server, 1 server to client |
//! | 1 | 8 | the frame's number in its direction, from 0, little-endian |
//! | 9 | header | the header as on the wire, checksum fields zeroed |
//! | 9 + header | trailer | the trailer as on the wire, checksum fields zeroed |
//!
//! The frame's number is also the nonce and is not on the wire: a frame that is lost, repeated or
//! out of order does not open, nor does anything after it.

mod chacha20;
mod chacha_poly;
mod key;
mod lanes;

use std::fmt;

use crate::protocol::layout::{FrameSeal, SealError};

use chacha_poly::ChaChaPoly;
pub use chacha_poly::TAG_LEN;
pub use key::{KEY_LEN, TrafficKey, TrafficKeys};

/// Which way a frame goes. The number is part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    ClientToServer = 0,
    ServerToClient = 1,
}

/// Why a frame does not open. The peer's fault, or that of someone in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Tampered with, repeated, lost or reordered, or sealed with another key.
    Forged,
    /// Shorter than a tag.
    Short,
    /// The direction's last number is used up.
    Exhausted,
    /// No sealed frame can come now. The caller's mistake.
    Unexpected,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forged => "the seal is not genuine",
            Self::Short => "the frame is too short to be sealed",
            Self::Exhausted => "the sealing counter is used up",
            Self::Unexpected => "no sealed frame can come now",
        })
    }
}

impl std::error::Error for OpenError {}

/// Seals the frames of one direction.
pub struct Sealer(Stream);

/// Opens the frames of one direction. One that does not open is the last that it looks at.
pub struct Opener {
    stream: Stream,
    broken: bool,
}

/// What both ends of a direction have in common: the cipher, and the next frame's number.
struct Stream {
    /// Other schemes (a MAC alone, a legacy cipher) become further variants.
    scheme: Scheme,
    direction: Direction,
    counter: u64,
    /// Associated data in one piece, kept so that a frame costs no allocation.
    associated: Vec<u8>,
}

enum Scheme {
    ChaChaPoly(ChaChaPoly),
}

/// The server's halves of a session's two directions.
pub fn server_side(keys: &TrafficKeys) -> (Sealer, Opener) {
    (
        Sealer::new(&keys.server_to_client, Direction::ServerToClient),
        Opener::new(&keys.client_to_server, Direction::ClientToServer),
    )
}

/// The client's halves of a session's two directions.
pub fn client_side(keys: &TrafficKeys) -> (Sealer, Opener) {
    (
        Sealer::new(&keys.client_to_server, Direction::ClientToServer),
        Opener::new(&keys.server_to_client, Direction::ServerToClient),
    )
}

impl Sealer {
    pub fn new(key: &TrafficKey, direction: Direction) -> Self {
        Self(Stream::new(key, direction))
    }
}

impl FrameSeal for Sealer {
    fn overhead(&self) -> usize {
        self.0.overhead()
    }

    /// Takes the next number if it succeeds. A body that is too short for its tag or too long
    /// for the cipher takes none.
    fn seal(&mut self, associated: &[&[u8]], body: &mut [u8]) -> Result<(), SealError> {
        let stream = &mut self.0;
        let counter = stream.counter;
        let next = counter.checked_add(1).ok_or(SealError::CounterExhausted)?;
        stream.associate(associated);
        let Scheme::ChaChaPoly(cipher) = &stream.scheme;
        let (text, room) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(SealError::Cipher)?;
        *room = cipher.encrypt(counter, &stream.associated, text).ok_or(SealError::Cipher)?;
        stream.counter = next;
        Ok(())
    }
}

impl Opener {
    pub fn new(key: &TrafficKey, direction: Direction) -> Self {
        Self { stream: Stream::new(key, direction), broken: false }
    }

    /// How many bytes a sealed body is longer than the plain one.
    pub const fn overhead(&self) -> usize {
        self.stream.overhead()
    }

    /// Opens `body` in place and returns the plaintext. `associated` is the header and the
    /// trailer as on the wire, checksum fields zeroed, in as many pieces as the caller has.
    ///
    /// After an error the connection cannot go on: nothing that follows opens, not even the
    /// frame that was expected, so that nobody can try until one fits.
    pub fn open<'b>(
        &mut self,
        associated: &[&[u8]],
        body: &'b mut [u8],
    ) -> Result<&'b mut [u8], OpenError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(OpenError::Forged);
        }
        let stream = &mut self.stream;
        let counter = stream.counter;
        let next = counter.checked_add(1).ok_or(OpenError::Exhausted)?;
        stream.associate(associated);
        let Scheme::ChaChaPoly(cipher) = &stream.scheme;
        let (text, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::Short)?;
        if !cipher.decrypt(counter, &stream.associated, text, tag) {
            return Err(OpenError::Forged);
        }
        stream.counter = next;
        self.broken = false;
        Ok(text)
    }
}

impl Stream {
    fn new(key: &TrafficKey, direction: Direction) -> Self {
        Self {
            scheme: Scheme::ChaChaPoly(ChaChaPoly::new(key)),
            direction,
            counter: 0,
            associated: Vec::new(),
        }
    }

    const fn overhead(&self) -> usize {
        match self.scheme {
            Scheme::ChaChaPoly(_) => TAG_LEN,
        }
    }

    /// Puts the associated data of the next frame together.
    fn associate(&mut self, pieces: &[&[u8]]) {
        self.associated.clear();
        self.associated.push(self.direction as u8);
        self.associated.extend_from_slice(&self.counter.to_le_bytes());
        for piece in pieces {
            self.associated.extend_from_slice(piece);
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("direction", &self.direction)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.0).finish()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("stream", &self.stream)
            .field("broken", &self.broken)
            .finish()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
