//! The layout without sequence numbers, with two checksums, an end mark and a table of
//! replies, against bytes written by hand. The checksums come from Python's zlib.

use super::*;
use crate::layout::{Command, Correlation, FieldValue, Flags, Reply, Request};

/// Command 1 with two bytes of extension and the body "abc".
const REQUEST: &str = "44455600 12 001a 01 00 00 a1a2a3a4a5a6 3c7306cf eeff 616263 793c93a4 03";
/// Its reply, command 2, an error of status 7.
const REPLY: &str = "44455600 10 0015 02 07 c0 a1a2a3a4a5a6 380f05a3 e6f0d3fc 03";

#[test]
fn a_request_reads_as_described() {
    let layout = shipped("device");
    assert_eq!(layout.correlation(), Correlation::Order);
    let bytes = hex(REQUEST);
    let frame = whole(&layout, &bytes);
    assert_eq!((frame.command, frame.sequence), (Command::Number(1), 0));
    assert_eq!((frame.extension(), frame.body), (&[0xee, 0xff][..], &b"abc"[..]));
    let metadata: Vec<_> = layout.metadata(&frame).collect();
    let serial = FieldValue::Bytes(&[0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6]);
    assert_eq!(metadata, [("x-device-serial", serial)]);
    let mut text = Vec::new();
    assert!(serial.write_ascii(&mut text));
    assert_eq!(text, b"a1a2a3a4a5a6");
    arrives_in_pieces(&layout, &bytes);
}

#[test]
fn requests_and_replies_are_written_as_described() {
    let layout = shipped("device");
    let mut out = Vec::new();
    let fields = [("serial", FieldValue::Bytes(&[0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6]))];
    let request = Request {
        fields: &fields,
        extension: &[0xee, 0xff],
        ..Request::new(Command::Number(1), 0, &[b"abc"])
    };
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(out, hex(REQUEST));

    let seed = layout.seed(&whole(&layout, &hex(REQUEST)));
    out.clear();
    let reply = Reply { status: 7, error: true, body: &[], compress: false };
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert_eq!(out, hex(REPLY));
    assert_eq!(whole(&layout, &out).flags, Flags::REPLY.with(Flags::ERROR));
    arrives_in_pieces(&layout, &out);
}

#[test]
fn a_command_without_a_pair_keeps_its_number() {
    let layout = shipped("device");
    for (request, reply) in [(0x10, 0x1f), (0x11, 0x11)] {
        let mut out = Vec::new();
        let command = Request::new(Command::Number(request), 0, &[]);
        layout.encode_request(command, None, &mut out).unwrap();
        let seed = layout.seed(&whole(&layout, &out));
        out.clear();
        let ok = Reply { status: 0, error: false, body: &[], compress: false };
        layout.encode_reply(&seed, ok, None, &mut out).unwrap();
        assert_eq!(whole(&layout, &out).command, Command::Number(reply));
    }
}

#[test]
fn each_checksum_covers_its_range() {
    let layout = shipped("device");
    let bytes = hex(REQUEST);
    let wrong = |at: usize| {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        match refused(&layout, &changed) {
            FrameError::Checksum { field, .. } => field.into_string(),
            other => other.reason().to_owned(),
        }
    };
    assert_eq!(wrong(0), "bad_magic");
    assert_eq!(wrong(7), "header_sum", "the command");
    assert_eq!(wrong(16), "header_sum", "the sum itself");
    assert_eq!(wrong(21), "header_sum", "the extension");
    assert_eq!(wrong(22), "crc", "the body");
    assert_eq!(wrong(25), "crc", "the sum itself");
    assert_eq!(wrong(29), "bad_magic", "the end mark");
}

#[test]
fn a_length_that_does_not_fit_its_field_is_an_error_that_leaves_the_output_alone() {
    let layout = shipped("device");
    let mut out = b"before".to_vec();
    let body = vec![0; 70_000];
    let parts = [&*body];
    let request = Request::new(Command::Number(1), 0, &parts);
    let error = layout.encode_request(request, None, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "70021 does not fit \"length\"");
    assert_eq!(out, b"before");
}
