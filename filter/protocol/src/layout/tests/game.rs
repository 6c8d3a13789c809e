//! The demo's layout, against bytes written by hand from its description.

use super::*;
use crate::layout::{Command, Flags, Push, Reply, Request};

/// Command 1001, sequence 7, body "hi".
const REQUEST: &str = "4d47 01 00 00000016 000003e9 00000007 0000 0000 6869";
/// Its reply: status 0, body "ok!".
const REPLY: &str = "4d47 01 01 00000017 000003e9 00000007 0000 0000 6f6b21";
/// An error reply of status 5 without body.
const ERROR: &str = "4d47 01 09 00000014 000003e9 00000007 0005 0000";
/// A push of command 2000.
const PUSH: &str = "4d47 01 04 00000015 000007d0 00000000 0000 0000 21";

#[test]
fn a_request_reads_as_described() {
    let layout = shipped("game");
    let bytes = hex(REQUEST);
    let frame = whole(&layout, &bytes);
    assert_eq!(frame.command, Command::Number(1001));
    assert_eq!((frame.sequence, frame.status, frame.version), (7, 0, 1));
    assert_eq!(frame.flags, Flags::NONE);
    assert_eq!((frame.body, frame.header.len(), frame.trailer.len()), (&b"hi"[..], 20, 0));
    arrives_in_pieces(&layout, &bytes);
}

#[test]
fn a_request_is_written_as_described() {
    let layout = shipped("game");
    let mut out = b"before".to_vec();
    let request = Request::new(Command::Number(1001), 7, &[b"h", b"i"]);
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(out, [b"before", &hex(REQUEST)[..]].concat());
}

#[test]
fn replies_and_pushes_are_written_as_described() {
    let layout = shipped("game");
    let request = hex(REQUEST);
    let seed = layout.seed(&whole(&layout, &request));
    assert_eq!(seed.sequence(), 7);

    let mut out = Vec::new();
    let ok = Reply { status: 0, error: false, body: &[b"ok!"], compress: true };
    layout.encode_reply(&seed, ok, None, &mut out).unwrap();
    assert_eq!(out, hex(REPLY));

    out.clear();
    let error = Reply { status: 5, error: true, body: &[], compress: false };
    layout.encode_reply(&seed, error, None, &mut out).unwrap();
    assert_eq!(out, hex(ERROR));
    assert_eq!(whole(&layout, &out).flags, Flags::REPLY.with(Flags::ERROR));

    out.clear();
    let push = Push {
        command: Command::Number(2000),
        sequence: 0,
        status: 0,
        error: false,
        body: &[b"!"],
        compress: false,
    };
    layout.encode_push(push, None, &mut out).unwrap();
    assert_eq!(out, hex(PUSH));
}

#[test]
fn each_flag_is_its_bit() {
    let layout = shipped("game");
    let known = [
        (0x01, Flags::REPLY),
        (0x02, Flags::ONE_WAY),
        (0x04, Flags::PUSH),
        (0x08, Flags::ERROR),
        (0x10, Flags::COMPRESSED),
        (0x20, Flags::SEALED),
        (0xc0, Flags::NONE),
    ];
    for (bits, flags) in known {
        let mut bytes = hex(REQUEST);
        bytes[3] = bits;
        assert_eq!(whole(&layout, &bytes).flags, flags);
    }
}

#[test]
fn a_wrong_magic_is_refused_at_its_first_wrong_byte() {
    let layout = shipped("game");
    let error = refused(&layout, &hex("47"));
    assert_eq!(
        error,
        FrameError::BadMagic { field: "magic".into(), at: 0, expected: 0x4d, found: 0x47 }
    );
    assert_eq!(error.to_string(), "byte 0 of \"magic\" is 0x47, expected 0x4d");
    assert_eq!(refused(&layout, &hex("4d48")).reason(), "bad_magic");
    let mut all = hex(REQUEST);
    all[1] = 0;
    assert_eq!(refused(&layout, &all).reason(), "bad_magic");
}

#[test]
fn a_wrong_version_is_refused_when_its_byte_is_there() {
    let layout = shipped("game");
    let error = refused(&layout, &hex("4d4702"));
    assert_eq!(error, FrameError::BadVersion { field: "version".into(), found: 2 });
    let mut all = hex(REQUEST);
    all[2] = 0;
    assert_eq!(refused(&layout, &all).reason(), "bad_version");
}

#[test]
fn a_length_is_refused_before_the_rest_of_the_header_is_there() {
    let layout = shipped("game");
    let too_large = layout.decode(&hex("4d470100 00001001"), 4096).unwrap_err();
    assert_eq!(too_large, FrameError::TooLarge { len: 4097, max: 4096 });
    assert!(layout.decode(&hex("4d470100 00001000"), 4096).is_ok());
    let too_small = refused(&layout, &hex("4d470100 00000013"));
    assert_eq!(too_small, FrameError::LengthTooSmall { len: 19, least: 20 });
    // All of the header's 32 bits of length.
    let all = refused(&layout, &hex("4d47 01 00 ffffffff 000003e9 00000007 0000 0000"));
    assert_eq!(all, FrameError::TooLarge { len: 0xffff_ffff, max: MAX as u64 });
}

#[test]
fn a_compressed_reply_reads_back_and_is_shorter() {
    let layout = shipped("game");
    let request = hex(REQUEST);
    let seed = layout.seed(&whole(&layout, &request));
    let text = b"the same again and again ".repeat(80);
    let reply = Reply { status: 0, error: false, body: &[&text[..7], &text[7..]], compress: true };
    let mut out = Vec::new();
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert!(out.len() < 200, "{} bytes", out.len());
    let frame = whole(&layout, &out);
    assert_eq!(frame.flags, Flags::REPLY.with(Flags::COMPRESSED));
    let mut scratch = Vec::new();
    assert_eq!(layout.open_body(frame.flags, frame.body, MAX, &mut scratch).unwrap(), text);
    assert_eq!(layout.open_body(frame.flags, frame.body, text.len(), &mut scratch).unwrap(), text);
    let error = layout.open_body(frame.flags, frame.body, text.len() - 1, &mut scratch);
    assert_eq!(error, Err(FrameError::BodyTooLarge { max: 1999 }));
}

#[test]
fn a_sealed_frame_counts_its_tag_and_authenticates_its_header() {
    let layout = shipped("game");
    let mut out = Vec::new();
    let request = Request::new(Command::Number(1001), 7, &[b"hi"]);
    layout.encode_request(request, Some(&mut ToySeal), &mut out).unwrap();
    let header = hex("4d47 01 20 00000019 000003e9 00000007 0000 0000");
    assert_eq!(out[..20], header);
    let frame = whole(&layout, &out);
    assert_eq!(frame.flags, Flags::SEALED);
    assert_eq!(ToySeal::open(&layout, &frame).unwrap(), b"hi");
    for at in 8..out.len() {
        let mut tampered = out.clone();
        tampered[at] ^= 1;
        assert_eq!(ToySeal::open(&layout, &whole(&layout, &tampered)), None, "byte {at}");
    }
}
