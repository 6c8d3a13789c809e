//! The fields that a peer had us remember (RFC 7541 section 2.3.2).

use std::collections::VecDeque;

/// What an entry costs beyond its name and value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Newest first. Its size, by the RFC's count, never exceeds `capacity`, which the peer may set
/// up to what we announced.
#[derive(Debug, Default)]
pub struct DynamicTable {
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    /// Name and value, one after the other.
    bytes: Box<[u8]>,
    name_length: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len().saturating_add(ENTRY_OVERHEAD)
    }
}

impl DynamicTable {
    pub fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, capacity }
    }

    /// Name and value of an entry; 0 is the newest.
    pub fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(index)?;
        entry.bytes.split_at_checked(entry.name_length)
    }

    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.make_room(0);
    }

    /// Adds a field and forgets the oldest ones for it. A field larger than the whole table
    /// empties it and is not kept (RFC 7541 section 4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD);
        self.make_room(size);
        if size <= self.capacity {
            let bytes = [name, value].concat().into_boxed_slice();
            self.entries.push_front(Entry { bytes, name_length: name.len() });
            self.size = self.size.saturating_add(size);
        }
    }

    fn make_room(&mut self, wanted: usize) {
        while self.size.saturating_add(wanted) > self.capacity {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size = self.size.saturating_sub(oldest.size());
        }
    }

    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_the_oldest_makes_room() {
        let mut table = DynamicTable::new(2 * (32 + 2));
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!(table.field(0), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(1), Some((&b"a"[..], &b"1"[..])));
        table.insert(b"c", b"3");
        assert_eq!(table.field(0), Some((&b"c"[..], &b"3"[..])));
        assert_eq!(table.field(1), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(2), None);
        assert_eq!(table.size(), 68);
    }

    #[test]
    fn a_field_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new(40);
        table.insert(b"a", b"1");
        table.insert(b"name", b"value");
        assert_eq!(table.field(0), None);
        assert_eq!(table.size(), 0);
    }

    #[test]
    fn a_smaller_capacity_forgets_and_a_table_of_none_keeps_nothing() {
        let mut table = DynamicTable::new(100);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        table.set_capacity(34);
        assert_eq!(table.field(0), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(1), None);
        table.set_capacity(0);
        table.insert(b"", b"");
        assert_eq!(table.field(0), None);
    }
}
