//! The Huffman code of HPACK, decoded.
//!
//! The code is canonical: shorter codes come first, codes of the same length in the order of
//! their symbols. So the lengths of RFC 7541 appendix B say everything, and the tables below are
//! made of them when the crate is compiled. Nearly all characters of real header fields have
//! codes of at most eight bits; one look-up decodes those.

use super::HpackError;

/// The longest code, in bits.
const LONGEST: usize = 30;

/// The length of each byte's code, in bits (RFC 7541 appendix B).
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// What to know of the codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// One past the last code of this length, left-aligned in 32 bits: whatever is below it, and
    /// not below an earlier row's, has this length.
    limit: u64,
    /// The first code of this length.
    first: u32,
    /// Where its symbol is in `SYMBOLS`.
    index: u32,
}

/// The symbols in the order of their codes.
const SYMBOLS: [u8; 256] = symbols();
/// By length in bits.
const ROWS: [Row; LONGEST + 1] = rows();
/// By the next eight bits: symbol and length of a code of at most eight bits, or length 0.
static SHORT: [(u8, u8); 256] = short();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time only")]
const fn symbols() -> [u8; 256] {
    let mut sorted = [0u8; 256];
    let mut filled = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                sorted[filled] = symbol as u8;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
}

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time only")]
const fn rows() -> [Row; LONGEST + 1] {
    let mut rows = [Row { limit: 0, first: 0, index: 0 }; LONGEST + 1];
    let mut code = 0u32;
    let mut index = 0u32;
    let mut length = 1;
    while length <= LONGEST {
        code <<= 1;
        let mut count = 0;
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        rows[length] = Row { limit: ((code + count) as u64) << (32 - length), first: code, index };
        code += count;
        index += count;
        length += 1;
    }
    rows
}

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time only")]
const fn short() -> [(u8, u8); 256] {
    let mut table = [(0u8, 0u8); 256];
    let mut length = 5;
    while length <= 8 {
        let row = ROWS[length];
        let end = (row.limit >> (32 - length)) as u32;
        let mut code = row.first;
        while code < end {
            let symbol = SYMBOLS[(row.index + code - row.first) as usize];
            let mut low = 0;
            while low < 1 << (8 - length) {
                table[((code as usize) << (8 - length)) | low] = (symbol, length as u8);
                low += 1;
            }
            code += 1;
        }
        length += 1;
    }
    table
}

/// Appends what `input` stands for to `out`: at most 8/5 of its length.
///
/// The last byte must be filled with up to seven one bits, and the end-of-string symbol must not
/// occur (RFC 7541 section 5.2).
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.reserve(input.len().saturating_mul(8).div_ceil(5));
    let mut bytes = input.iter();
    // The undecoded bits, left-aligned.
    let mut window = 0u64;
    let mut held = 0u32;
    loop {
        while held <= 56 {
            let Some(&byte) = bytes.next() else { break };
            window |= u64::from(byte) << 56u32.saturating_sub(held);
            held = held.saturating_add(8);
        }
        let next = (window >> 56) as u8;
        let (mut symbol, short) = SHORT.get(usize::from(next)).copied().unwrap_or_default();
        let mut length = u32::from(short);
        if length == 0 {
            (symbol, length) = long((window >> 32) as u32).unwrap_or((0, u32::MAX));
        }
        if length > held {
            // No whole code is left: what remains is padding, or wrong.
            let padding_is_ones = held == 0 || (!window >> 64u32.saturating_sub(held)) == 0;
            let padded = held < 8 && padding_is_ones;
            return if padded { Ok(()) } else { Err(HpackError::BadHuffman) };
        }
        out.push(symbol);
        window <<= length;
        held = held.saturating_sub(length);
    }
}

/// The symbol and length of the code, longer than eight bits, at the front of `bits`. `None` is
/// the end-of-string symbol, whose thirty one bits no row covers.
fn long(bits: u32) -> Option<(u8, u32)> {
    let (length, row) =
        ROWS.iter().enumerate().skip(9).find(|(_, row)| u64::from(bits) < row.limit)?;
    let length = u32::try_from(length).ok()?;
    let code = bits.checked_shr(32u32.checked_sub(length)?)?;
    let index = row.index.checked_add(code.checked_sub(row.first)?)?;
    Some((*SYMBOLS.get(usize::try_from(index).ok()?)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain way round, from the same lengths: enough to try every symbol.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for symbol in text {
            let rank = SYMBOLS.iter().position(|s| s == symbol).unwrap() as u32;
            let length = usize::from(LENGTHS[usize::from(*symbol)]);
            let code = ROWS[length].first + rank - ROWS[length].index;
            bits.push_str(&format!("{code:0length$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |chunk: &[u8]| u8::from_str_radix(str::from_utf8(chunk).unwrap(), 2).unwrap();
        bits.as_bytes().chunks(8).map(byte).collect()
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_complete() {
        // The last code of 30 bits is the end of string: all ones, left out of the table.
        assert_eq!(ROWS[LONGEST].limit, ((1u64 << 30) - 1) << 2);
        assert_eq!(ROWS[LONGEST].index + 3, 256);
    }

    /// RFC 7541 appendices C.4.1, C.4.2 and C.6.1.
    #[test]
    fn the_strings_of_the_rfc() {
        let text = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&text).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(decoded(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap(), b"private");
    }

    #[test]
    fn every_symbol_is_decoded_alone_and_among_others() {
        for symbol in 0..=u8::MAX {
            let text = [symbol];
            assert_eq!(decoded(&encode(&text)).unwrap(), text);
            let text = [b'a', symbol, 0, symbol, b'z', 255, symbol];
            assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn wrong_padding_is_refused() {
        // '0' is 00000: with zeroes as padding, with a whole byte of ones too many, and alone.
        assert_eq!(decoded(&[0b0000_0000]), Err(HpackError::BadHuffman));
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HpackError::BadHuffman));
        assert_eq!(decoded(&[0xff]), Err(HpackError::BadHuffman));
    }

    #[test]
    fn the_end_of_string_symbol_is_refused() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(HpackError::BadHuffman));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc, 0xff]), Err(HpackError::BadHuffman));
    }
}
