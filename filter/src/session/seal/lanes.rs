//! Four 32-bit words side by side, one of each of four ChaCha20 blocks.
//!
//! On wasm32 they are one 128-bit vector; elsewhere an array, which compilers vectorise well
//! enough for tests and clients. Vectors halve what a sealed kilobyte costs inside V8.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use portable::Lanes;
#[cfg(target_arch = "wasm32")]
pub(super) use simd128::Lanes;

#[cfg(target_arch = "wasm32")]
mod simd128 {
    use core::arch::wasm32::{
        i8x16_shuffle, i32x4_add, i32x4_shuffle, i64x2_shuffle, u32x4, u32x4_shl, u32x4_shr,
        u32x4_splat, u64x2, u64x2_extract_lane, v128, v128_or, v128_xor,
    };

    #[derive(Clone, Copy)]
    pub struct Lanes(v128);

    impl Lanes {
        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn splat(word: u32) -> Self {
            Self(u32x4_splat(word))
        }

        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn new([a, b, c, d]: [u32; 4]) -> Self {
            Self(u32x4(a, b, c, d))
        }

        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn add(self, other: Self) -> Self {
            Self(i32x4_add(self.0, other.0))
        }

        /// `(self ^ other)` with each word rotated left. Whole bytes move by one shuffle.
        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn xor_rotated<const LEFT: u32>(self, other: Self) -> Self {
            let x = v128_xor(self.0, other.0);
            Self(match LEFT {
                16 => i8x16_shuffle::<2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13>(x, x),
                8 => i8x16_shuffle::<3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14>(x, x),
                _ => v128_or(u32x4_shl(x, LEFT), u32x4_shr(x, 32_u32.wrapping_sub(LEFT))),
            })
        }

        /// Four words of four blocks become, of each block, the four words.
        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn transposed([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a.0, b.0);
            let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a.0, b.0);
            let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c.0, d.0);
            let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c.0, d.0);
            [
                Self(i64x2_shuffle::<0, 2>(ab_low, cd_low)),
                Self(i64x2_shuffle::<1, 3>(ab_low, cd_low)),
                Self(i64x2_shuffle::<0, 2>(ab_high, cd_high)),
                Self(i64x2_shuffle::<1, 3>(ab_high, cd_high)),
            ]
        }

        /// The words in order, each little-endian.
        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn bytes(self) -> [u8; 16] {
            let low = u64x2_extract_lane::<0>(self.0);
            let high = u64x2_extract_lane::<1>(self.0);
            ((u128::from(high) << 64) | u128::from(low)).to_le_bytes()
        }

        /// `text ^= bytes`
        #[target_feature(enable = "simd128")]
        #[inline]
        pub fn apply(self, text: &mut [u8; 16]) {
            let whole = u128::from_le_bytes(*text);
            let (low, high) = (whole as u64, (whole >> 64) as u64);
            *text = Self(v128_xor(u64x2(low, high), self.0)).bytes();
        }
    }
}

/// The same, of words in an array. Each function means what its twin above says.
#[cfg(not(target_arch = "wasm32"))]
mod portable {
    #[derive(Clone, Copy)]
    pub struct Lanes([u32; 4]);

    impl Lanes {
        #[inline]
        pub const fn splat(word: u32) -> Self {
            Self([word; 4])
        }

        #[inline]
        pub const fn new(words: [u32; 4]) -> Self {
            Self(words)
        }

        #[inline]
        pub fn add(self, other: Self) -> Self {
            self.with(other, u32::wrapping_add)
        }

        #[inline]
        pub fn xor_rotated<const LEFT: u32>(self, other: Self) -> Self {
            self.with(other, |own, other| (own ^ other).rotate_left(LEFT))
        }

        #[inline]
        pub const fn transposed([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
            let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.0, d.0);
            [
                Self([a0, b0, c0, d0]),
                Self([a1, b1, c1, d1]),
                Self([a2, b2, c2, d2]),
                Self([a3, b3, c3, d3]),
            ]
        }

        #[inline]
        pub fn bytes(self) -> [u8; 16] {
            let [a, b, c, d] = self.0.map(u128::from);
            (a | b << 32 | c << 64 | d << 96).to_le_bytes()
        }

        #[inline]
        pub fn apply(self, text: &mut [u8; 16]) {
            let key_stream = u128::from_le_bytes(self.bytes());
            *text = (u128::from_le_bytes(*text) ^ key_stream).to_le_bytes();
        }

        #[inline]
        fn with(self, other: Self, join: impl Fn(u32, u32) -> u32) -> Self {
            let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
            Self([join(a, e), join(b, f), join(c, g), join(d, h)])
        }
    }
}
