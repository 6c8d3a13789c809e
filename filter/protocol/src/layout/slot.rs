//! Fields on the wire: their shape, their place, and the reading and writing of integers.

use super::spec::{ByteOrder, SizedText, TextLength};

/// The most fields that a header may declare.
pub(super) const MAX_HEADER_FIELDS: usize = 64;

/// The most bytes of a LEB128 integer of 64 bits.
pub(super) const MAX_VARINT: usize = 10;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Int { width: u8, signed: bool },
    Varint,
    Bytes(u16),
    Text(u16),
    SizedText(SizedText),
}

impl Shape {
    /// The width in bytes where it does not depend on the value.
    pub(super) const fn fixed_width(self) -> Option<usize> {
        match self {
            Self::Int { width, .. } => Some(width as usize),
            Self::Bytes(len) | Self::Text(len) => Some(len as usize),
            Self::Varint | Self::SizedText(_) => None,
        }
    }

    /// The least and the most bytes that the field can take.
    pub(super) fn widths(self) -> (usize, usize) {
        match self {
            Self::Int { width, .. } => (usize::from(width), usize::from(width)),
            Self::Bytes(len) | Self::Text(len) => (usize::from(len), usize::from(len)),
            Self::Varint => (1, MAX_VARINT),
            Self::SizedText(text) => {
                let prefix = match text.length {
                    TextLength::U8 => (1, 1),
                    TextLength::U16 => (2, 2),
                    TextLength::Varint => (1, MAX_VARINT),
                };
                (prefix.0, usize::from(text.max).saturating_add(prefix.1))
            }
        }
    }

    pub(super) const fn is_integer(self) -> bool {
        matches!(self, Self::Int { .. } | Self::Varint)
    }

    pub(super) const fn is_text(self) -> bool {
        matches!(self, Self::Text(_) | Self::SizedText(_))
    }

    /// How many bytes of text the field can hold; none if it is no text.
    pub(super) fn text_room(self) -> Option<usize> {
        match self {
            Self::Text(len) => Some(usize::from(len)),
            Self::SizedText(text) => Some(usize::from(text.max)),
            Self::Int { .. } | Self::Varint | Self::Bytes(_) => None,
        }
    }

    /// The number of value bits of an integer; 0 for anything else.
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Int { width, .. } => (width as u32).saturating_mul(8),
            Self::Varint => 64,
            Self::Bytes(_) | Self::Text(_) | Self::SizedText(_) => 0,
        }
    }

    /// All value bits set.
    pub(super) const fn mask(self) -> u64 {
        match self.bits() {
            0 => 0,
            bits => u64::MAX.wrapping_shr(64_u32.saturating_sub(bits)),
        }
    }

    /// The largest number that an integer field can say.
    pub(super) const fn most(self) -> u64 {
        match self {
            Self::Int { signed: true, .. } => self.mask().wrapping_shr(1),
            _ => self.mask(),
        }
    }

    /// The bits of a field as a number with the field's sign. A LEB128 integer above the
    /// largest i64 counts as that.
    pub(super) fn signed(self, bits: u64) -> i64 {
        match self {
            Self::Int { width, signed: true } => {
                let shift = 64_u32.saturating_sub(u32::from(width).saturating_mul(8));
                bits.wrapping_shl(shift).cast_signed().wrapping_shr(shift)
            }
            _ => i64::try_from(bits).unwrap_or(i64::MAX),
        }
    }

    /// The bits of a number with the field's sign; none if it does not fit.
    pub(super) fn unsigned(self, value: i64) -> Option<u64> {
        let bits = value.cast_unsigned() & self.mask();
        (self.signed(bits) == value).then_some(bits)
    }
}

/// A header field's place and shape: all that reading its value takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Its position in the header's list of fields.
    pub(super) index: u8,
    /// Its offset where every field before it is of fixed width.
    pub(super) offset: u16,
    pub(super) shape: Shape,
    pub(super) order: ByteOrder,
}

impl Slot {
    /// The bits of an integer field, zero-extended. 0 for other shapes and where the bytes
    /// are not there.
    pub(super) fn number(&self, header: &[u8], spans: &Spans) -> u64 {
        let at = spans.start(self);
        match self.shape {
            Shape::Int { width, .. } => load(header, at, width, self.order),
            Shape::Varint => match varint(header.get(at..).unwrap_or_default()) {
                Varint::Value { value, .. } => value,
                Varint::Partial | Varint::Overflow => 0,
            },
            Shape::Bytes(_) | Shape::Text(_) | Shape::SizedText(_) => 0,
        }
    }

    /// The bytes of a field without the padding of text, nor the length before it.
    pub(super) fn content<'a>(&self, header: &'a [u8], spans: &Spans) -> &'a [u8] {
        let raw = spans.raw(self, header);
        match self.shape {
            Shape::Text(_) => {
                let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
                raw.get(..end).unwrap_or_default()
            }
            Shape::SizedText(text) => match text_prefix(raw, text.length, self.order) {
                Varint::Value { width, .. } => raw.get(width..).unwrap_or_default(),
                Varint::Partial | Varint::Overflow => &[],
            },
            Shape::Bytes(_) | Shape::Int { .. } | Shape::Varint => raw,
        }
    }
}

/// Where a header's fields stand.
#[derive(Debug)]
pub(super) enum Spans {
    /// Where every slot says.
    Fixed,
    /// The offset of each field, and after the last one the end of the declared header.
    Walked([u16; MAX_HEADER_FIELDS + 1]),
}

impl Spans {
    pub(super) const fn walked() -> Self {
        Self::Walked([0; MAX_HEADER_FIELDS + 1])
    }

    /// Notes where the field at `index` starts, and the one before it ends.
    pub(super) fn note(&mut self, index: usize, at: usize) {
        if let Self::Walked(starts) = self
            && let Some(start) = starts.get_mut(index)
        {
            *start = u16::try_from(at).unwrap_or(u16::MAX);
        }
    }

    pub(super) fn start(&self, slot: &Slot) -> usize {
        match self {
            Self::Fixed => usize::from(slot.offset),
            Self::Walked(starts) => {
                starts.get(usize::from(slot.index)).copied().map_or(0, usize::from)
            }
        }
    }

    pub(super) fn end(&self, slot: &Slot) -> usize {
        match self {
            Self::Fixed => {
                self.start(slot).saturating_add(slot.shape.fixed_width().unwrap_or_default())
            }
            Self::Walked(starts) => {
                let next = usize::from(slot.index).saturating_add(1);
                starts.get(next).copied().map_or(0, usize::from)
            }
        }
    }

    /// All bytes of a field.
    pub(super) fn raw<'a>(&self, slot: &Slot, header: &'a [u8]) -> &'a [u8] {
        header.get(self.start(slot)..self.end(slot)).unwrap_or_default()
    }
}

/// Reads `width` bytes at `at` as an unsigned integer; 0 where they are not there.
pub(super) fn load(bytes: &[u8], at: usize, width: u8, order: ByteOrder) -> u64 {
    let bytes = bytes.get(at..).unwrap_or_default();
    match (width, order) {
        (1, _) => bytes.first().copied().map_or(0, u64::from),
        (2, ByteOrder::Big) => {
            bytes.first_chunk().map_or(0, |chunk| u64::from(u16::from_be_bytes(*chunk)))
        }
        (2, ByteOrder::Little) => {
            bytes.first_chunk().map_or(0, |chunk| u64::from(u16::from_le_bytes(*chunk)))
        }
        (4, ByteOrder::Big) => {
            bytes.first_chunk().map_or(0, |chunk| u64::from(u32::from_be_bytes(*chunk)))
        }
        (4, ByteOrder::Little) => {
            bytes.first_chunk().map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
        }
        (8, ByteOrder::Big) => bytes.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk)),
        (8, ByteOrder::Little) => bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk)),
        (width, order) => {
            let Some(bytes) = bytes.get(..usize::from(width)) else { return 0 };
            let join = |sum: u64, byte: &u8| sum.wrapping_shl(8) | u64::from(*byte);
            match order {
                ByteOrder::Big => bytes.iter().fold(0, join),
                ByteOrder::Little => bytes.iter().rev().fold(0, join),
            }
        }
    }
}

/// Writes the low bytes of `bits` over all of `target`, which is at most 8 bytes.
pub(super) fn store(target: &mut [u8], bits: u64, order: ByteOrder) {
    match order {
        ByteOrder::Big => {
            for (byte, value) in target.iter_mut().rev().zip(bits.to_le_bytes()) {
                *byte = value;
            }
        }
        ByteOrder::Little => {
            for (byte, value) in target.iter_mut().zip(bits.to_le_bytes()) {
                *byte = value;
            }
        }
    }
}

/// A LEB128 integer at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varint {
    Value {
        value: u64,
        width: usize,
    },
    /// The bytes end before it does.
    Partial,
    /// Longer than 10 bytes, or above 64 bits.
    Overflow,
}

/// Reads an unsigned LEB128 integer. Forms longer than necessary are accepted up to 10 bytes.
pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0_u64;
    let mut shift = 0_u32;
    for (byte, width) in bytes.iter().zip(1..=MAX_VARINT) {
        let group = u64::from(byte & 0x7f);
        if width == MAX_VARINT && *byte > 1 {
            return Varint::Overflow;
        }
        value |= group.wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Varint::Value { value, width };
        }
        shift = shift.saturating_add(7);
    }
    // Ten bytes always end above, one way or the other.
    Varint::Partial
}

/// How many bytes the shortest form of an unsigned LEB128 integer takes.
pub(super) fn varint_width(value: u64) -> usize {
    let bits = 64_u32.saturating_sub(value.leading_zeros()).max(1);
    usize::try_from(bits.div_ceil(7)).unwrap_or(MAX_VARINT)
}

/// Appends an unsigned LEB128 integer in its shortest form.
pub(super) fn push_varint(out: &mut Vec<u8>, value: u64) {
    push_padded_varint(out, value, varint_width(value));
}

/// Appends an unsigned LEB128 integer in a form of this width, at least its shortest.
pub(super) fn push_padded_varint(out: &mut Vec<u8>, mut value: u64, width: usize) {
    for _ in 1..width {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value = value.wrapping_shr(7);
    }
    out.push(u8::try_from(value & 0x7f).unwrap_or_default());
}

/// Appends the low `width` bytes of an integer.
pub(super) fn push_int(out: &mut Vec<u8>, width: u8, bits: u64, order: ByteOrder) {
    // In big order the low bytes stand last.
    let high = match order {
        ByteOrder::Big => {
            bits.wrapping_shl(64_u32.saturating_sub(u32::from(width).saturating_mul(8)))
        }
        ByteOrder::Little => bits.swap_bytes(),
    };
    let bytes = high.to_be_bytes();
    // Copies of a known length are a single store.
    match (width, bytes) {
        (1, [a, ..]) => out.push(a),
        (2, [a, b, ..]) => out.extend_from_slice(&[a, b]),
        (4, [a, b, c, d, ..]) => out.extend_from_slice(&[a, b, c, d]),
        (8, all) => out.extend_from_slice(&all),
        (width, all) => out.extend_from_slice(all.get(..usize::from(width)).unwrap_or_default()),
    }
}

/// Appends text that fits its field, in two parts.
pub(super) fn push_text(out: &mut Vec<u8>, slot: Slot, text: &[u8], suffix: &[u8]) {
    let start = out.len();
    if let Shape::SizedText(sized) = slot.shape {
        let len = text.len().saturating_add(suffix.len());
        push_text_prefix(out, u16::try_from(len).unwrap_or(u16::MAX), sized.length, slot.order);
    }
    out.extend_from_slice(text);
    out.extend_from_slice(suffix);
    if let Some(width) = slot.shape.fixed_width() {
        out.resize(start.saturating_add(width), 0);
    }
}

/// How many bytes a field takes that stands, whole, at the start of some bytes.
pub(super) fn raw_width(slot: Slot, bytes: &[u8]) -> usize {
    let number = match slot.shape {
        Shape::Varint => varint(bytes),
        Shape::SizedText(text) => text_prefix(bytes, text.length, slot.order),
        shape => return shape.fixed_width().unwrap_or_default(),
    };
    match (number, slot.shape) {
        (Varint::Value { value, width }, Shape::SizedText(_)) => {
            usize::try_from(value).map_or(usize::MAX, |len| len.saturating_add(width))
        }
        (Varint::Value { width, .. }, _) => width,
        (Varint::Partial | Varint::Overflow, _) => bytes.len(),
    }
}

/// Reads the length before a sized text.
pub(super) fn text_prefix(bytes: &[u8], length: TextLength, order: ByteOrder) -> Varint {
    let width = match length {
        TextLength::U8 => 1_u8,
        TextLength::U16 => 2,
        TextLength::Varint => return varint(bytes),
    };
    if bytes.len() < usize::from(width) {
        return Varint::Partial;
    }
    Varint::Value { value: load(bytes, 0, width, order), width: usize::from(width) }
}

/// Appends the length before a sized text, which fits by its limit.
pub(super) fn push_text_prefix(out: &mut Vec<u8>, len: u16, length: TextLength, order: ByteOrder) {
    match (length, order) {
        (TextLength::U8, _) => out.push(u8::try_from(len).unwrap_or(u8::MAX)),
        (TextLength::U16, ByteOrder::Big) => out.extend_from_slice(&len.to_be_bytes()),
        (TextLength::U16, ByteOrder::Little) => out.extend_from_slice(&len.to_le_bytes()),
        (TextLength::Varint, _) => push_varint(out, u64::from(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_and_order_come_back_as_they_were_stored() {
        for width in 1..=8_u8 {
            for order in [ByteOrder::Big, ByteOrder::Little] {
                let bits = 0x8182_8384_8586_8788_u64 & (u64::MAX >> (64 - 8 * u32::from(width)));
                let mut bytes = vec![0xaa; usize::from(width) + 2];
                store(&mut bytes[1..=usize::from(width)], bits, order);
                assert_eq!(load(&bytes, 1, width, order), bits);
                assert_eq!((bytes[0], bytes[usize::from(width) + 1]), (0xaa, 0xaa));
            }
        }
        assert_eq!(load(&[1, 2, 3], 0, 3, ByteOrder::Big), 0x01_02_03);
        assert_eq!(load(&[1, 2, 3], 0, 3, ByteOrder::Little), 0x03_02_01);
    }

    #[test]
    fn a_load_beyond_the_bytes_is_zero() {
        assert_eq!(load(&[1, 2, 3], 0, 4, ByteOrder::Big), 0);
        assert_eq!(load(&[1, 2, 3], 9, 1, ByteOrder::Big), 0);
    }

    #[test]
    fn varints_follow_leb128() {
        let known: [(u64, &[u8]); 5] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (624_485, &[0xe5, 0x8e, 0x26]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in known {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(varint_width(value), bytes.len());
            assert_eq!(varint(bytes), Varint::Value { value, width: bytes.len() });
            for end in 0..bytes.len() {
                assert_eq!(varint(&bytes[..end]), Varint::Partial);
            }
        }
    }

    #[test]
    fn varints_above_64_bits_are_refused() {
        assert_eq!(varint(&[0x80; 10]), Varint::Overflow);
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert_eq!(varint(&bytes), Varint::Overflow);
    }

    #[test]
    fn signs_survive_and_numbers_that_do_not_fit_are_refused() {
        let i16_shape = Shape::Int { width: 2, signed: true };
        assert_eq!(i16_shape.signed(0xfffe), -2);
        assert_eq!(i16_shape.unsigned(-2), Some(0xfffe));
        assert_eq!(i16_shape.unsigned(32_768), None);
        let u16_shape = Shape::Int { width: 2, signed: false };
        assert_eq!(u16_shape.unsigned(-1), None);
        assert_eq!(u16_shape.unsigned(65_535), Some(65_535));
        assert_eq!(Shape::Varint.unsigned(-1), None);
    }
}
