//! What the peer remembers of the fields that we send: its dynamic table, seen from here.
//!
//! Most fields of a call are those of the calls before it. They come in [`Part`]s. The first block
//! with a part has the peer remember its fields; later ones have one byte for each. No names and
//! values are kept for that, only which parts are in the table and where:
//!
//! ```text
//!   known    key of a part -> its place in `indexes`
//!   indexes  what a block has for each part, ready to be copied: 1xxxxxxx, one byte a field
//! ```
//!
//! Indexes count from the newest entry, so that each new one moves the others up by one. Nothing
//! is ever evicted: a part that finds no room is sent in full. When that has happened often, the
//! table is emptied by the next block, and filled with what is in use then.
//!
//! Source: RFC 7541, sections 2.3.2, 4.2, 6.2.1 and 6.3.

use super::{encoder, integer, static_table};

/// The largest table that we use, in bytes as the RFC counts; also what a peer allows until it
/// says otherwise. It holds what a connection's calls have in common (some 600 bytes) and the
/// paths of about fifty commands.
pub const MAX_SIZE: u32 = 4096;

/// The most entries: with more, an index would need a second byte.
const MAX_ENTRIES: usize = 64;

/// The most parts that are noted, those included that are never to be remembered.
const MAX_PARTS: usize = 64;

/// How many parts find no room until the table is emptied. To fill it anew costs about as much as
/// sixty calls without a table: lost among a thousand, for a client whose commands have changed.
const MISSES: u16 = 1024;

/// What an entry costs beyond its name and value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The newest entry, as an indexed field.
const NEWEST: u8 = 0x80 | 62;

/// Fields that many blocks of a connection have in common, as literals without indexing or fields
/// of the static table.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub key: PartKey,
    pub fields: &'a [u8],
}

/// Names a part: the same key means the same fields, for as long as a connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartKey(pub u32);

/// Made by `default` for a peer that has not said yet what it allows. Nothing is remembered until
/// then, though it might be: servers exist that apply their settings before these are acknowledged.
#[derive(Debug, Default)]
pub struct PeerTable {
    /// The size that is announced with the next update, or was with the last one.
    capacity: usize,
    /// The last update is still right. Otherwise another has to come before the next field, and
    /// what the table holds is forgotten with it.
    is_announced: bool,
    size: usize,
    entries: usize,
    known: Vec<Known>,
    indexes: Vec<u8>,
    /// The last block of known parts alone: calls come in rows, or one command after the other.
    last_keys: [PartKey; LINE],
    last: Vec<u8>,
    misses: u16,
}

/// How many parts a block has that is kept as the last.
const LINE: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Known {
    key: PartKey,
    /// Its place in `indexes`; without length if it is always sent in full.
    start: u16,
    length: u16,
}

/// A field of a part.
enum Field<'a> {
    /// Of the static table: its one byte.
    Static(u8),
    /// The index of the name, 0 for a literal one, and what follows it; its size in the table.
    Literal { name: usize, rest: &'a [u8], size: usize },
}

impl PeerTable {
    /// SETTINGS_HEADER_TABLE_SIZE, acknowledged before the next block.
    pub fn allow(&mut self, size: u32) {
        let capacity = size.min(MAX_SIZE) as usize;
        // However often the size changes between two blocks: the table is emptied first, and 0 is
        // within the lowest of them (section 4.2).
        self.is_announced &= capacity == self.capacity;
        self.capacity = capacity;
    }

    /// Begins a block. Blocks must be sent in the order in which they are begun.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.is_announced {
            let capacity = self.capacity;
            *self = Self { capacity, is_announced: true, ..Self::default() };
            encoder::encode_table_size(0, out);
            if capacity > 0 {
                encoder::encode_table_size(capacity, out);
            }
        }
    }

    /// Adds parts to the block that was begun.
    pub fn encode(&mut self, parts: &[Part<'_>], out: &mut Vec<u8>) {
        let keys = parts.first_chunk().filter(|_| parts.len() == LINE);
        let keys: Option<[PartKey; LINE]> =
            keys.map(|[a, b, c, d]: &[Part<'_>; LINE]| [a.key, b.key, c.key, d.key]);
        if keys.is_some_and(|keys| keys == self.last_keys) && !self.last.is_empty() {
            return out.extend_from_slice(&self.last);
        }
        let start = out.len();
        let mut known = true;
        for part in parts {
            known &= self.encode_part(part, out);
        }
        if let (true, Some(keys), Some(line)) = (known, keys, out.get(start..)) {
            self.last_keys = keys;
            self.last.clear();
            self.last.extend_from_slice(line);
        }
    }

    /// Adds a part; whether the peer knew it.
    fn encode_part(&mut self, part: &Part<'_>, out: &mut Vec<u8>) -> bool {
        if part.fields.is_empty() {
            return true;
        }
        let known = self.known.iter().find(|known| known.key == part.key);
        let indexes = known.and_then(|known| {
            let start = usize::from(known.start);
            self.indexes.get(start..start.saturating_add(known.length.into()))
        });
        match indexes {
            Some([]) => out.extend_from_slice(part.fields),
            Some(indexes) => {
                out.extend_from_slice(indexes);
                return true;
            }
            None => self.encode_unknown(part, out),
        }
        false
    }

    /// In full, remembered if that can be.
    #[inline(never)]
    fn encode_unknown(&mut self, part: &Part<'_>, out: &mut Vec<u8>) {
        if self.capacity == 0 {
            return out.extend_from_slice(part.fields);
        }
        let cost = cost(part.fields).filter(|(_, size)| *size <= self.capacity / 4);
        let Some((entries, size)) = cost else {
            // Not to be remembered, or at the cost of too much else.
            if self.known.len() < MAX_PARTS {
                self.known.push(Known { key: part.key, start: 0, length: 0 });
            }
            return out.extend_from_slice(part.fields);
        };
        let (entries, size) =
            (self.entries.saturating_add(entries), self.size.saturating_add(size));
        let is_full =
            entries > MAX_ENTRIES || size > self.capacity || self.known.len() >= MAX_PARTS;
        if is_full {
            self.misses = self.misses.saturating_add(1);
            self.is_announced &= self.misses < MISSES;
            return out.extend_from_slice(part.fields);
        }
        self.last.clear();
        let start = self.indexes.len();
        for field in Fields(part.fields).flatten() {
            match field {
                Field::Static(index) => {
                    out.push(index);
                    self.indexes.push(index);
                }
                Field::Literal { name, rest, .. } => {
                    encoder::encode_name_remembered(name, out);
                    out.extend_from_slice(rest);
                    for index in self.indexes.iter_mut().filter(|index| **index >= NEWEST) {
                        *index = index.saturating_add(1);
                    }
                    self.indexes.push(NEWEST);
                }
            }
        }
        (self.entries, self.size) = (entries, size);
        let length = self.indexes.len().saturating_sub(start);
        if let (Ok(start), Ok(length)) = (u16::try_from(start), u16::try_from(length)) {
            self.known.push(Known { key: part.key, start, length });
        }
    }
}

/// How many entries the fields would be and how large all together; `None` if one of them is not
/// to be remembered.
fn cost(fields: &[u8]) -> Option<(usize, usize)> {
    let mut cost = (0usize, 0usize);
    for field in Fields(fields) {
        if let Field::Literal { size, .. } = field? {
            cost = (cost.0.saturating_add(1), cost.1.saturating_add(size));
        }
    }
    Some(cost)
}

/// The fields of a part one by one; `None` for one that is not to be remembered, or is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0;
        let field = match before.first()? {
            // Of the static table, with an index of one byte.
            index @ 0x81..NEWEST => {
                self.0 = before.get(1..).unwrap_or_default();
                Some(Field::Static(*index))
            }
            0x00..=0x0f => self.literal(),
            _ => None,
        };
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn literal(&mut self) -> Option<Field<'a>> {
        let name = usize::try_from(integer::decode(&mut self.0, 4).ok()?).ok()?;
        let rest = self.0;
        let name_length = match name {
            0 => self.string()?,
            _ => static_table::field(name)?.0.len(),
        };
        let size = self.string()?.checked_add(name_length)?.checked_add(ENTRY_OVERHEAD)?;
        let rest = rest.get(..rest.len().checked_sub(self.0.len())?)?;
        Some(Field::Literal { name, rest, size })
    }

    /// The length of a string that is not Huffman-coded, after which it goes on.
    fn string(&mut self) -> Option<usize> {
        if self.0.first()? & 0x80 != 0 {
            return None;
        }
        let length = usize::try_from(integer::decode(&mut self.0, 7).ok()?).ok()?;
        self.0 = self.0.get(length..)?;
        Some(length)
    }
}

#[cfg(test)]
#[path = "peer_table_tests.rs"]
mod tests;
