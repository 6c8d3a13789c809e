//! Integers that begin in the low bits of a byte (RFC 7541 section 5.1).

use super::HpackError;

/// Continuation bytes that a `u32` can need: 5 × 7 bits hold 32.
const MAX_CONTINUATION: u32 = 5;

/// Reads an integer whose first `bits` (1 to 8) are the low ones of the first byte.
pub fn decode(input: &mut &[u8], bits: u32) -> Result<u32, HpackError> {
    let (&first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let mask = low_bits(bits);
    let mut value = u64::from(first & mask);
    if value == u64::from(mask) {
        let mut shift = 0u32;
        loop {
            if shift >= MAX_CONTINUATION.saturating_mul(7) {
                return Err(HpackError::IntegerTooLarge);
            }
            let (&byte, after) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = after;
            // At most 7 bits shifted by 28: far below 2^64.
            value = value.saturating_add(u64::from(byte & 0x7f) << shift);
            shift = shift.saturating_add(7);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *input = rest;
    u32::try_from(value).map_err(|_| HpackError::IntegerTooLarge)
}

/// Writes `value` with its first `bits` (1 to 8) below the pattern `high` of the first byte.
pub fn encode(value: usize, bits: u32, high: u8, out: &mut Vec<u8>) {
    let mask = low_bits(bits);
    match u8::try_from(value) {
        Ok(small) if small < mask => out.push(high | small),
        _ => {
            out.push(high | mask);
            let mut left = value.saturating_sub(usize::from(mask));
            while left >= 0x80 {
                out.push(0x80 | (left & 0x7f) as u8);
                left >>= 7;
            }
            out.push(left as u8);
        }
    }
}

const fn low_bits(bits: u32) -> u8 {
    match 0xffu8.checked_shr(8u32.saturating_sub(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: usize, bits: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, bits, 0, &mut out);
        out
    }

    /// RFC 7541 appendix C.1.
    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(encoded(10, 5), [0b01010]);
        assert_eq!(encoded(1337, 5), [0b11111, 0b1001_1010, 0b0000_1010]);
        assert_eq!(encoded(42, 8), [0b0010_1010]);
        assert_eq!(decode(&mut &[0b1110_1010][..], 5), Ok(10));
        assert_eq!(decode(&mut &[0b0001_1111, 0b1001_1010, 0b0000_1010][..], 5), Ok(1337));
    }

    #[test]
    fn what_is_encoded_is_decoded_and_the_rest_is_left() {
        for bits in 4..=8 {
            for value in (0..600).chain([65_535, 1 << 24, u32::MAX as usize]) {
                let mut bytes = encoded(value, bits);
                bytes.push(0xee);
                let mut input = &bytes[..];
                assert_eq!(decode(&mut input, bits), Ok(value as u32));
                assert_eq!(input, [0xee]);
            }
        }
    }

    #[test]
    fn an_unfinished_integer_is_truncated_and_an_endless_one_refused() {
        assert_eq!(decode(&mut &[][..], 7), Err(HpackError::Truncated));
        assert_eq!(decode(&mut &[0x7f][..], 7), Err(HpackError::Truncated));
        assert_eq!(decode(&mut &[0x7f, 0x80, 0x80][..], 7), Err(HpackError::Truncated));
        assert_eq!(
            decode(&mut &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..], 7),
            Err(HpackError::IntegerTooLarge)
        );
        assert_eq!(
            decode(&mut &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 7),
            Err(HpackError::IntegerTooLarge)
        );
    }
}
