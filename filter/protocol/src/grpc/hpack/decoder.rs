//! Header blocks to fields.

use super::dynamic_table::DynamicTable;
use super::{HpackError, huffman, integer, static_table};

/// Reads the header blocks of one direction of one connection, in order.
///
/// With a table of size 0 a block does not depend on the ones before it: equal bytes are equal
/// fields, and a block may be skipped. With a table every block must be decoded.
#[derive(Debug, Default)]
pub struct Decoder {
    table: DynamicTable,
    /// What we announced as SETTINGS_HEADER_TABLE_SIZE.
    limit: usize,
    generation: u64,
    /// Strings that were Huffman-coded.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A string: as it stands in the block, or decoded.
enum Text<'a> {
    Plain(&'a [u8]),
    Decoded,
}

impl<'a> Text<'a> {
    fn or<'b>(&self, decoded: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Plain(text) => text,
            Self::Decoded => decoded,
        }
    }
}

/// Where a field's name is.
enum Name<'a> {
    Indexed(usize),
    Literal(Text<'a>),
}

impl Decoder {
    /// A decoder for a peer that was told `limit` bytes of table.
    pub fn new(limit: usize) -> Self {
        Self {
            table: DynamicTable::new(limit),
            limit,
            generation: 0,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Differs whenever the table has changed: between two equal blocks without a change, both are
    /// the same fields.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Hands each field of `block` to `visit`, name and value, in order.
    ///
    /// The work is linear in the block, but a visitor that copies must have a limit of its own:
    /// one byte may stand for a field as large as the table.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut at_front = true;
        while let Some(&first) = block.first() {
            if first & 0xe0 == 0x20 {
                self.resize(integer::decode(&mut block, 5)?, at_front)?;
                continue;
            }
            at_front = false;
            if first & 0x80 != 0 {
                let index = index(integer::decode(&mut block, 7)?)?;
                let (name, value) = self.indexed(index)?;
                visit(name, value);
                continue;
            }
            let remembered = first & 0x40 != 0;
            let name = match integer::decode(&mut block, if remembered { 6 } else { 4 })? {
                0 => Name::Literal(string(&mut block, &mut self.name)?),
                number => Name::Indexed(index(number)?),
            };
            let value = string(&mut block, &mut self.value)?;
            self.literal(&name, &value, remembered, &mut visit)?;
        }
        Ok(())
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        /// What a buffer may keep, in bytes.
        const KEPT: usize = 256;
        for text in [&mut self.name, &mut self.value] {
            if text.capacity() > KEPT {
                *text = Vec::new();
            }
        }
    }

    fn literal(
        &mut self,
        name: &Name<'_>,
        value: &Text<'_>,
        remembered: bool,
        visit: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let name = match name {
            Name::Literal(text) => text.or(&self.name),
            Name::Indexed(index) => self.indexed(*index)?.0,
        };
        let value = value.or(&self.value);
        visit(name, value);
        if remembered && self.limit > 0 {
            // The name may be of an entry that the new one pushes out.
            let name = name.to_vec();
            self.generation = self.generation.wrapping_add(1);
            self.table.insert(&name, value);
        }
        Ok(())
    }

    /// A field of either table: the dynamic one follows the static one (RFC 7541 section 2.3.3).
    fn indexed(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        if let Some((name, value)) = static_table::field(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        index
            .checked_sub(static_table::FIELDS.len().saturating_add(1))
            .and_then(|index| self.table.field(index))
            .ok_or(HpackError::BadIndex)
    }

    fn resize(&mut self, size: u32, at_front: bool) -> Result<(), HpackError> {
        let size = usize::try_from(size).map_err(|_| HpackError::BadTableSize)?;
        if !at_front || size > self.limit {
            return Err(HpackError::BadTableSize);
        }
        self.generation = self.generation.wrapping_add(1);
        self.table.set_capacity(size);
        Ok(())
    }
}

fn index(number: u32) -> Result<usize, HpackError> {
    usize::try_from(number).map_err(|_| HpackError::BadIndex)
}

/// A string (RFC 7541 section 5.2); `decoded` holds it if it was Huffman-coded.
fn string<'a>(block: &mut &'a [u8], decoded: &mut Vec<u8>) -> Result<Text<'a>, HpackError> {
    let coded = block.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let length = integer::decode(block, 7)?;
    let length = usize::try_from(length).map_err(|_| HpackError::Truncated)?;
    let (text, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    if !coded {
        return Ok(Text::Plain(text));
    }
    decoded.clear();
    huffman::decode(text, decoded)?;
    Ok(Text::Decoded)
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
