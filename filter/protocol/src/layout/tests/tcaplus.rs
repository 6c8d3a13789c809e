//! The layout after TCaplusPkgHead, against bytes written by hand.

use super::*;
use crate::layout::{Command, FieldValue, Flags, Reply, Request};

/// A heartbeat (53) of sequence -1, with three bytes of extension and the body "hi".
const REQUEST: &str = "7543 0070 00000027 00000002 00000000000000aa ffffffff 00000035 \
                       00000009 00000000 010203 6869";
/// Its reply (54) of result -8.
const REPLY: &str = "7543 0070 00000027 00000003 00000000000000aa ffffffff 00000036 \
                     00000009 fffffff8 010203 6f6b21";

#[test]
fn a_request_reads_as_described() {
    let layout = shipped("tcaplus");
    let bytes = hex(REQUEST);
    let frame = whole(&layout, &bytes);
    assert_eq!((frame.command, frame.sequence), (Command::Number(53), 0xffff_ffff));
    assert_eq!((frame.extension(), frame.body), (&[1, 2, 3][..], &b"hi"[..]));
    let metadata: Vec<_> = layout.metadata(&frame).collect();
    assert_eq!(
        metadata,
        [
            ("x-tdr-version", FieldValue::Unsigned(0x70)),
            ("x-tcaplus-sub-command", FieldValue::Unsigned(9))
        ]
    );
    arrives_in_pieces(&layout, &bytes);
}

#[test]
fn the_reply_repeats_what_it_must_and_carries_the_next_command() {
    let layout = shipped("tcaplus");
    let request = hex(REQUEST);
    let seed = layout.seed(&whole(&layout, &request));
    let mut out = Vec::new();
    let reply = Reply { status: -8, error: true, body: &[b"ok!"], compress: false };
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert_eq!(out, hex(REPLY));
    assert_eq!(whole(&layout, &out).status, -8);
    assert_eq!(whole(&layout, &out).flags, Flags::NONE);
    arrives_in_pieces(&layout, &out);
}

#[test]
fn a_request_is_written_as_described() {
    let layout = shipped("tcaplus");
    let mut out = Vec::new();
    let fields = [
        ("version", FieldValue::Unsigned(0x70)),
        ("async_id", FieldValue::Unsigned(0xaa)),
        ("sub_command", FieldValue::Signed(9)),
    ];
    let request = Request {
        fields: &fields,
        extension: &[1, 2, 3],
        ..Request::new(Command::Number(53), 0xffff_ffff, &[b"hi"])
    };
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(out, hex(REQUEST));
    out.clear();
    layout.encode_request(Request::new(Command::Number(1), 1, &[]), None, &mut out).unwrap();
    assert_eq!(out[2..4], [0, 1], "the default of the version");
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let layout = shipped("tcaplus");
    // A head shorter than its own fields.
    let short = refused(&layout, &hex("7543 0070 00000023 00000002"));
    assert_eq!(short, FrameError::LengthTooSmall { len: 35, least: 36 });
    // Lengths whose sum is above 32 bits.
    let huge = refused(&layout, &hex("7543 0070 ffffffff ffffffff"));
    assert_eq!(huge, FrameError::TooLarge { len: 2 * 0xffff_ffff, max: MAX as u64 });
}
