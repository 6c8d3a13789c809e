//! The ChaCha20 stream cipher (RFC 8439, section 2.4), four blocks at a time.
//!
//! Written out here because the crates of the field have vectors for x86 and ARM only: in Wasm
//! they work word by word and take two and a half times as long. It has no table and no branch
//! on key or text. The tests hold it against RFC 8439 and against crate `chacha20poly1305`.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::lanes::Lanes;

/// "expand 32-byte k" as four words.
const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A key, as the words of the initial state. It is wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct ChaCha20 {
    key: [u32; 8],
}

/// Four blocks of key stream: block 0 in the first four vectors, and so on, in order of bytes.
pub(super) struct KeyStream([Lanes; 16]);

impl ChaCha20 {
    pub fn new(key: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { key: words }
    }

    /// The blocks numbered `first` to `first` + 3, wrapping.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    #[inline]
    pub fn key_stream(&self, nonce: [u32; 3], first: u32) -> KeyStream {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        let [s0, s1, s2, s3] = SIGMA;
        let [n0, n1, n2] = nonce;
        let counter = Lanes::new([
            first,
            first.wrapping_add(1),
            first.wrapping_add(2),
            first.wrapping_add(3),
        ]);

        let (mut a0, mut a1) = (Lanes::splat(s0), Lanes::splat(s1));
        let (mut a2, mut a3) = (Lanes::splat(s2), Lanes::splat(s3));
        let (mut b0, mut b1) = (Lanes::splat(k0), Lanes::splat(k1));
        let (mut b2, mut b3) = (Lanes::splat(k2), Lanes::splat(k3));
        let (mut c0, mut c1) = (Lanes::splat(k4), Lanes::splat(k5));
        let (mut c2, mut c3) = (Lanes::splat(k6), Lanes::splat(k7));
        let (mut d0, mut d1) = (counter, Lanes::splat(n0));
        let (mut d2, mut d3) = (Lanes::splat(n1), Lanes::splat(n2));
        for _ in 0..10 {
            quarter_round(&mut a0, &mut b0, &mut c0, &mut d0);
            quarter_round(&mut a1, &mut b1, &mut c1, &mut d1);
            quarter_round(&mut a2, &mut b2, &mut c2, &mut d2);
            quarter_round(&mut a3, &mut b3, &mut c3, &mut d3);
            quarter_round(&mut a0, &mut b1, &mut c2, &mut d3);
            quarter_round(&mut a1, &mut b2, &mut c3, &mut d0);
            quarter_round(&mut a2, &mut b3, &mut c0, &mut d1);
            quarter_round(&mut a3, &mut b0, &mut c1, &mut d2);
        }

        let [p0, p1, p2, p3] = Lanes::transposed([
            a0.add(Lanes::splat(s0)),
            a1.add(Lanes::splat(s1)),
            a2.add(Lanes::splat(s2)),
            a3.add(Lanes::splat(s3)),
        ]);
        let [q0, q1, q2, q3] = Lanes::transposed([
            b0.add(Lanes::splat(k0)),
            b1.add(Lanes::splat(k1)),
            b2.add(Lanes::splat(k2)),
            b3.add(Lanes::splat(k3)),
        ]);
        let [r0, r1, r2, r3] = Lanes::transposed([
            c0.add(Lanes::splat(k4)),
            c1.add(Lanes::splat(k5)),
            c2.add(Lanes::splat(k6)),
            c3.add(Lanes::splat(k7)),
        ]);
        let [t0, t1, t2, t3] = Lanes::transposed([
            d0.add(counter),
            d1.add(Lanes::splat(n0)),
            d2.add(Lanes::splat(n1)),
            d3.add(Lanes::splat(n2)),
        ]);
        KeyStream([p0, q0, r0, t0, p1, q1, r1, t1, p2, q2, r2, t2, p3, q3, r3, t3])
    }

    /// Encrypts or decrypts `text` with the key stream from block `first` on.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    pub fn apply(&self, nonce: [u32; 3], mut first: u32, text: &mut [u8]) {
        for text in text.chunks_mut(4 * 64) {
            self.key_stream(nonce, first).apply_from(0, text);
            first = first.wrapping_add(4);
        }
    }
}

impl KeyStream {
    /// The first 32 bytes: Poly1305's key, if this begins with block 0.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    #[inline]
    pub fn mac_key(&self) -> [u8; 32] {
        let [first, second, ..] = self.0;
        let mut key = [0; 32];
        for (half, lanes) in key.as_chunks_mut::<16>().0.iter_mut().zip([first, second]) {
            *half = lanes.bytes();
        }
        key
    }

    /// `text ^= key stream`, from its block number `skip` (of 4) on, for as long as it lasts.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    #[inline]
    pub fn apply_from(&self, skip: usize, text: &mut [u8]) {
        let mut lanes = self.0.iter().skip(skip.saturating_mul(4));
        let (whole, rest) = text.as_chunks_mut::<16>();
        for (text, lanes) in whole.iter_mut().zip(&mut lanes) {
            lanes.apply(text);
        }
        if let Some(lanes) = lanes.next() {
            for (byte, key) in rest.iter_mut().zip(lanes.bytes()) {
                *byte ^= key;
            }
        }
    }
}

#[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
#[inline]
fn quarter_round(a: &mut Lanes, b: &mut Lanes, c: &mut Lanes, d: &mut Lanes) {
    *a = a.add(*b);
    *d = d.xor_rotated::<16>(*a);
    *c = c.add(*d);
    *b = b.xor_rotated::<12>(*c);
    *a = a.add(*b);
    *d = d.xor_rotated::<8>(*a);
    *c = c.add(*d);
    *b = b.xor_rotated::<7>(*c);
}
