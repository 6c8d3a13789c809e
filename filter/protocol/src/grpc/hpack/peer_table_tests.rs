//! The table against a decoder that keeps the peer's.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::grpc::hpack::Decoder;

/// A peer that allows `limit` bytes of table, and what it should have read.
struct Pair {
    table: PeerTable,
    peer: Decoder,
}

impl Pair {
    fn new(size: u32) -> Self {
        let mut table = PeerTable::default();
        table.allow(size);
        Self { table, peer: Decoder::new(size as usize) }
    }

    /// The length of a block of these parts, which the peer understands as if it were in full.
    fn send(&mut self, parts: &[(u32, &[u8])]) -> usize {
        let (block, expected) = self.block(parts);
        assert_eq!(fields(&mut self.peer, &block), expected);
        block.len()
    }

    fn block(&mut self, parts: &[(u32, &[u8])]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut block, mut full) = (Vec::new(), Vec::new());
        self.table.begin(&mut block);
        for (_, fields) in parts {
            full.extend_from_slice(fields);
        }
        let parts = parts.iter().map(|(key, fields)| Part { key: PartKey(*key), fields });
        self.table.encode(&parts.collect::<Vec<_>>(), &mut block);
        self.audit();
        (block, fields(&mut Decoder::new(0), &full))
    }

    fn audit(&self) {
        let table = &self.table;
        assert!(table.size <= table.capacity && table.entries <= MAX_ENTRIES);
        assert!(table.known.len() <= MAX_PARTS && table.indexes.len() <= 2048);
        let dynamic = table.indexes.iter().filter(|index| **index >= NEWEST);
        assert_eq!(dynamic.count(), table.entries);
    }
}

fn fields(decoder: &mut Decoder, block: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    decoder.decode(block, |name, value| fields.push([name, b": ", value].concat())).unwrap();
    fields
}

/// A literal without indexing.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = Vec::new();
    encoder::encode_literal(name.as_bytes(), value.as_bytes(), &mut field);
    field
}

fn shortest(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        encoder::encode_shortest(name, value.as_bytes(), &mut block);
    }
    block
}

fn common() -> Vec<u8> {
    let agent = ("user-agent", "meshgate/1");
    shortest(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), agent])
}

#[test]
fn a_part_is_sent_in_full_once_and_by_one_byte_a_field_then() {
    let mut pair = Pair::new(MAX_SIZE);
    let (common, path) = (common(), shortest(&[(":path", "/a.B/C")]));
    let first = pair.send(&[(1, &path), (0, &common)]);
    // The table's size is added; the index of user-agent is shorter in this form.
    assert_eq!(first, 4 + path.len() + common.len() - 1);
    assert_eq!(pair.send(&[(1, &path), (0, &common)]), 5);
    let other = shortest(&[(":path", "/a.B/Other")]);
    assert_eq!(pair.send(&[(2, &other), (0, &common)]), other.len() + 4);
    assert_eq!(pair.send(&[(1, &path), (0, &common)]), 5);
}

#[test]
fn nothing_is_remembered_before_the_peer_has_said_what_it_allows() {
    let mut pair = Pair { table: PeerTable::default(), peer: Decoder::new(MAX_SIZE as usize) };
    let common = common();
    assert_eq!(pair.send(&[(0, &common)]), 1 + common.len());
    assert_eq!(pair.send(&[(0, &common)]), common.len());
    pair.table.allow(MAX_SIZE);
    assert_eq!(pair.send(&[(0, &common)]), 4 + common.len() - 1);
    assert_eq!(pair.send(&[(0, &common)]), 4);
}

#[test]
fn a_peer_without_a_table_is_told_so_and_gets_literals() {
    let mut pair = Pair::new(0);
    let common = common();
    let (block, _) = pair.block(&[(0, &common)]);
    assert_eq!(block, [&[0x20], &common[..]].concat());
    assert_eq!(pair.send(&[(0, &common)]), common.len());
}

#[test]
fn however_the_size_changes_between_blocks_the_table_begins_anew() {
    let common = common();
    for sizes in [&[0, MAX_SIZE][..], &[100], &[0], &[100, 4000], &[u32::MAX, 0, u32::MAX]] {
        let mut pair = Pair::new(MAX_SIZE);
        pair.send(&[(0, &common)]);
        sizes.iter().for_each(|size| pair.table.allow(*size));
        let last = (*sizes.last().unwrap()).min(MAX_SIZE) as usize;
        let (block, expected) = pair.block(&[(0, &common)]);
        assert_eq!(block[0], 0x20);
        // A fresh decoder knows no entry: the block names none.
        let mut peer = Decoder::new(last);
        assert_eq!(fields(&mut peer, &block), expected);
        pair.peer = peer;
        pair.send(&[(0, &common)]);
    }
}

#[test]
fn a_size_that_is_said_again_changes_nothing() {
    let mut pair = Pair::new(MAX_SIZE);
    pair.send(&[(0, &common())]);
    pair.table.allow(MAX_SIZE);
    pair.table.allow(65_536);
    assert_eq!(pair.send(&[(0, &common())]), 4);
}

#[test]
fn a_full_table_keeps_what_it_has_and_begins_anew_after_many_misses() {
    let mut pair = Pair::new(MAX_SIZE);
    let common = common();
    let path = |number: u32| shortest(&[(":path", &format!("/package.Service/Method{number}"))]);
    for number in 0..100 {
        pair.send(&[(1 + number, &path(number)), (0, &common)]);
    }
    assert_eq!(pair.send(&[(1, &path(0)), (0, &common)]), 5);
    let late = path(99);
    let before = pair.table.misses;
    assert!(before > 0);
    for _ in before..MISSES {
        assert_eq!(pair.send(&[(100, &late), (0, &common)]), late.len() + 4);
    }
    assert!(pair.send(&[(100, &late), (0, &common)]) > late.len() + common.len());
    assert_eq!(pair.send(&[(100, &late), (0, &common)]), 5);
}

#[test]
fn secrets_and_what_is_too_large_are_never_remembered() {
    let mut pair = Pair::new(MAX_SIZE);
    let mut secret = literal("a", "b");
    encoder::encode_secret(b"authorization", b"Bearer x", &mut secret);
    let large = literal("claim", &"x".repeat(2000));
    pair.send(&[(0, &secret), (1, &large)]);
    assert_eq!(pair.send(&[(0, &secret), (1, &large)]), secret.len() + large.len());
    assert_eq!((pair.table.entries, pair.table.misses), (0, 0));
}

#[test]
fn a_part_that_is_no_fields_is_passed_on_as_it_is() {
    let mut table = PeerTable::default();
    table.allow(MAX_SIZE);
    let mut out = Vec::new();
    table.begin(&mut out);
    out.clear();
    for (key, bytes) in
        [&b""[..], b"\x00", b"\x00\x05ab", b"\x00\x81a\x01b", b"\x0f", b"\x40\x01a\x01b"]
            .into_iter()
            .enumerate()
    {
        let part = Part { key: PartKey(key as u32), fields: bytes };
        for _ in 0..2 {
            table.encode(&[part], &mut out);
            assert_eq!(std::mem::take(&mut out), bytes);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Send(Vec<u8>),
    Allow(u32),
}

/// What a part has depends on its key alone. Some are large, some secret, some of one field.
fn part(key: u8) -> Vec<u8> {
    let mut fields = common();
    for number in 0..key % 4 {
        fields.extend(literal(&format!("name-{key}-{number}"), &"v".repeat(usize::from(key) * 3)));
    }
    if key.is_multiple_of(16) {
        encoder::encode_secret(b"authorization", &[key | 1], &mut fields);
    }
    fields
}

proptest! {
    #[test]
    fn a_peer_reads_the_same_as_without_a_table(
        acts in vec(
            prop_oneof![
                9 => vec(any::<u8>(), 0..6).prop_map(Act::Send),
                1 => prop_oneof![0..200u32, 200..5000u32, Just(MAX_SIZE)].prop_map(Act::Allow),
            ],
            0..200,
        ),
    ) {
        // Its decoder takes any size that was ever allowed: what it must not get is a larger one
        // than it allows now, which the first byte of the block tells.
        let mut pair = Pair::new(MAX_SIZE);
        pair.peer = Decoder::new(MAX_SIZE as usize);
        let mut allowed = MAX_SIZE;
        for act in acts {
            match act {
                Act::Allow(size) => {
                    pair.table.allow(size);
                    allowed = size;
                }
                Act::Send(keys) => {
                    let parts: Vec<_> = keys.iter().map(|key| (*key, part(*key))).collect();
                    let parts: Vec<_> =
                        parts.iter().map(|(key, fields)| (u32::from(*key), &fields[..])).collect();
                    pair.send(&parts);
                    prop_assert!(pair.table.size <= allowed as usize);
                }
            }
        }
    }
}
