//! ChaCha20-Poly1305 (RFC 8439, section 2.8) under the counter nonces of the Noise Protocol
//! Framework.

use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Block, Poly1305};

use super::chacha20::{ChaCha20, KeyStream};
use super::key::TrafficKey;

/// The length of the authentication tag that follows the ciphertext.
pub const TAG_LEN: usize = 16;

/// The longest text, in bytes: the cipher numbers its blocks of 64 bytes with 32 bits.
const MAX_TEXT: u64 = 64 * (u32::MAX as u64 - 8);
/// What is left of the first four blocks of key stream after the one that keys the MAC.
const FIRST_TEXT: usize = 3 * 64;

/// The cipher of one direction. Its key is wiped when it is dropped.
pub(super) struct ChaChaPoly(ChaCha20);

impl ChaChaPoly {
    pub fn new(key: &TrafficKey) -> Self {
        Self(ChaCha20::new(key.bytes()))
    }

    /// Encrypts `text` in place and returns the tag. `None` if it is longer than the cipher can
    /// do.
    #[must_use]
    pub fn encrypt(
        &self,
        counter: u64,
        associated: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        let fits = u64::try_from(text.len()).is_ok_and(|len| len <= MAX_TEXT);
        fits.then(|| {
            let nonce = nonce(counter);
            let start = self.0.key_stream(nonce, 0);
            self.apply(nonce, &start, text);
            tag(&start, associated, text).finalize().into()
        })
    }

    /// Decrypts `text` in place if `expected` is its tag; leaves it as it is otherwise.
    #[must_use]
    pub fn decrypt(
        &self,
        counter: u64,
        associated: &[u8],
        text: &mut [u8],
        expected: &[u8; TAG_LEN],
    ) -> bool {
        let nonce = nonce(counter);
        let start = self.0.key_stream(nonce, 0);
        // The comparison takes the same time wherever the tags differ.
        let genuine = tag(&start, associated, text).verify(expected.into()).is_ok();
        if genuine {
            self.apply(nonce, &start, text);
        }
        genuine
    }

    /// `start` begins with block 0; the text's key stream begins with block 1.
    fn apply(&self, nonce: [u32; 3], start: &KeyStream, text: &mut [u8]) {
        let (first, rest) = text.split_at_mut(text.len().min(FIRST_TEXT));
        start.apply_from(1, first);
        if !rest.is_empty() {
            self.0.apply(nonce, 4, rest);
        }
    }
}

/// The MAC over `associated` and `text`, each padded to 16 bytes, and both lengths.
fn tag(start: &KeyStream, associated: &[u8], text: &[u8]) -> Poly1305 {
    let mut mac = Poly1305::new(&start.mac_key().into());
    mac.update_padded(associated);
    mac.update_padded(text);
    let lengths = (text.len() as u128) << 64 | associated.len() as u128;
    mac.update(&[Block::from(lengths.to_le_bytes())]);
    mac
}

/// Four zero bytes, then the counter, little-endian (Noise, section 12.3), as words.
const fn nonce(counter: u64) -> [u32; 3] {
    [0, counter as u32, (counter >> 32) as u32]
}
