//! The little-endian layout with a trailing CRC-32C, against bytes written by hand. The
//! checksums come from a bitwise CRC written for the purpose in another language.

use super::*;
use crate::layout::{Command, FieldValue, Flags, Push, Reply, Request};

/// Command 0x0102, sequence 9, version 2, zone 7, a free option bit, body "abc".
const REQUEST: &str = "ba77 01 80 030000 02 0201 0000 09000000 0007 616263 70c0f1b9";
const REPLY: &str = "ba77 02 80 020000 02 0281 0000 09000000 0007 6f6b 64c8db1b";
/// An error reply of status -2.
const ERROR: &str = "ba77 05 80 000000 02 0281 feff 09000000 0007 74afca8e";
/// A reply whose body is 300 times "a" as a zlib stream.
const COMPRESSED: &str = "ba77 02 81 0d0000 02 0281 0000 09000000 0007 \
                          789c4b4c1c05c40200d8a871ad e66b8579";

#[test]
fn a_request_reads_as_described() {
    let layout = shipped("battle");
    let bytes = hex(REQUEST);
    let frame = whole(&layout, &bytes);
    assert_eq!((frame.command, frame.sequence), (Command::Number(0x0102), 9));
    assert_eq!((frame.version, frame.flags, frame.body), (2, Flags::NONE, &b"abc"[..]));
    assert_eq!(frame.trailer, hex("70c0f1b9"));
    let metadata: Vec<_> = layout.metadata(&frame).collect();
    assert_eq!(metadata, [("x-battle-zone", FieldValue::Unsigned(7))]);
    arrives_in_pieces(&layout, &bytes);
}

#[test]
fn replies_repeat_version_zone_and_free_bits() {
    let layout = shipped("battle");
    let request = hex(REQUEST);
    let seed = layout.seed(&whole(&layout, &request));
    let mut out = Vec::new();
    let ok = Reply { status: 0, error: false, body: &[b"ok"], compress: true };
    layout.encode_reply(&seed, ok, None, &mut out).unwrap();
    assert_eq!(out, hex(REPLY));
    assert_eq!(whole(&layout, &out).flags, Flags::REPLY);
    arrives_in_pieces(&layout, &out);

    out.clear();
    let error = Reply { status: -2, error: true, body: &[], compress: true };
    layout.encode_reply(&seed, error, None, &mut out).unwrap();
    assert_eq!(out, hex(ERROR));
    assert_eq!(whole(&layout, &out).flags, Flags::REPLY.with(Flags::ERROR));
    assert_eq!(whole(&layout, &out).status, -2);
}

#[test]
fn a_compressed_body_of_another_zlib_reads() {
    let layout = shipped("battle");
    let bytes = hex(COMPRESSED);
    let frame = whole(&layout, &bytes);
    assert_eq!(frame.flags, Flags::REPLY.with(Flags::COMPRESSED));
    let mut scratch = Vec::new();
    let body = layout.open_body(frame.flags, frame.body, 300, &mut scratch).unwrap();
    assert_eq!(body, [b'a'; 300]);
}

#[test]
fn every_changed_byte_is_noticed() {
    let layout = shipped("battle");
    let bytes = hex(REQUEST);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            match layout.decode(&changed, MAX) {
                // A longer body than there is.
                Ok(Decoded::Incomplete { .. }) => assert!((4..7).contains(&at)),
                Ok(Decoded::Frame(frame)) => panic!("byte {at} bit {bit}: {frame:?}"),
                Err(_) => {}
            }
        }
    }
    let mut changed = bytes;
    changed[18] ^= 1;
    let error = refused(&layout, &changed);
    assert_eq!(error.reason(), "bad_checksum");
}

#[test]
fn kinds_that_are_none_are_refused_when_their_byte_is_there() {
    let layout = shipped("battle");
    let error = refused(&layout, &hex("ba77 06"));
    assert_eq!(error, FrameError::BadKind { field: "kind".into(), found: 6 });
}

#[test]
fn pushes_and_one_way_requests_have_their_kinds() {
    let layout = shipped("battle");
    let mut out = Vec::new();
    let push = Push {
        command: Command::Number(7),
        sequence: 0,
        status: 0,
        error: false,
        body: &[b"!"],
        compress: false,
    };
    layout.encode_push(push, None, &mut out).unwrap();
    assert_eq!((out[2], out[7]), (4, 3), "the kind, and the first accepted version");
    assert_eq!(whole(&layout, &out).flags, Flags::PUSH);
    out.clear();
    let request = Request { one_way: true, ..Request::new(Command::Number(7), 0, &[]) };
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(whole(&layout, &out).flags, Flags::ONE_WAY);
}

#[test]
fn the_checksum_covers_the_sealed_body_and_the_seal_covers_the_rest() {
    let layout = shipped("battle");
    let mut out = Vec::new();
    let request = Request::new(Command::Number(7), 1, &[b"secret"]);
    layout.encode_request(request, Some(&mut ToySeal), &mut out).unwrap();
    let frame = whole(&layout, &out);
    assert_eq!(frame.flags, Flags::SEALED);
    assert_eq!(ToySeal::open(&layout, &frame).unwrap(), b"secret");
    let mut associated = Vec::new();
    layout.associated_data(&frame, &mut associated);
    assert_eq!(associated, [&out[..18], &[0; 4]].concat());
}
