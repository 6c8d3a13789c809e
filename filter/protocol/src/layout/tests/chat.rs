//! The layout with LEB128 integers and commands by name, against bytes written by hand.

use super::*;
use crate::layout::{Command, FieldValue, Flags, Reply, Request};

/// "say", sequence 300, language "de", body "hi".
const REQUEST: &str = "14 80 736179000000000000000000 ac02 02 6465 6869";
/// "say.ok" of status 0, body "yo".
const REPLY: &str = "14 81 7361792e6f6b000000000000 ac02 00 0000 796f";
/// A request whose body is 70 times "a": one literal, a match of 64 at offset 1, five literals.
const COMPRESSED: &str = "1f 88 736179000000000000000000 ac02 00 \
                          46000000 1f6101002d50 6161616161";

#[test]
fn a_request_reads_as_described() {
    let layout = shipped("chat");
    let bytes = hex(REQUEST);
    let frame = whole(&layout, &bytes);
    assert_eq!((frame.command, frame.sequence), (Command::Text(b"say"), 300));
    assert_eq!((frame.flags, frame.body), (Flags::NONE, &b"hi"[..]));
    let metadata: Vec<_> = layout.metadata(&frame).collect();
    assert_eq!(metadata, [("accept-language", FieldValue::Text(b"de"))]);
    arrives_in_pieces(&layout, &bytes);
}

#[test]
fn requests_and_replies_are_written_as_described() {
    let layout = shipped("chat");
    let mut out = Vec::new();
    let fields = [("language", FieldValue::Text(b"de"))];
    let request = Request { fields: &fields, ..Request::new(Command::Text(b"say"), 300, &[b"hi"]) };
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(out, hex(REQUEST));

    let seed = layout.seed(&whole(&layout, &hex(REQUEST)));
    out.clear();
    let reply = Reply { status: 0, error: false, body: &[b"yo"], compress: true };
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert_eq!(out, hex(REPLY));
    let frame = whole(&layout, &out);
    assert_eq!(layout.split_status(&frame, frame.body), Ok((0, &b"yo"[..])));
    arrives_in_pieces(&layout, &out);
}

#[test]
fn a_status_before_a_compressed_body_comes_back() {
    let layout = shipped("chat");
    let seed = layout.seed(&whole(&layout, &hex(REQUEST)));
    let mut out = Vec::new();
    let reply = Reply { status: -7, error: true, body: &[&[b'x'; 500]], compress: true };
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert!(out.len() < 60, "{} bytes", out.len());
    let frame = whole(&layout, &out);
    assert_eq!(frame.flags, Flags::REPLY.with(Flags::ERROR).with(Flags::COMPRESSED));
    let mut scratch = Vec::new();
    let body = layout.open_body(frame.flags, frame.body, 502, &mut scratch).unwrap();
    assert_eq!(layout.split_status(&frame, body), Ok((-7, &[b'x'; 500][..])));
    assert_eq!(layout.split_status(&frame, &[1]), Err(FrameError::NoStatus { len: 1, width: 2 }));
}

#[test]
fn an_lz4_block_made_by_hand_reads() {
    let layout = shipped("chat");
    let bytes = hex(COMPRESSED);
    let frame = whole(&layout, &bytes);
    assert!(frame.flags.compressed());
    let mut scratch = Vec::new();
    let body = layout.open_body(frame.flags, frame.body, 70, &mut scratch).unwrap();
    assert_eq!(body, [b'a'; 70]);
}

#[test]
fn a_clear_bit_means_one_way() {
    let layout = shipped("chat");
    let mut out = Vec::new();
    let request = Request { one_way: true, ..Request::new(Command::Text(b"bye"), 1, &[]) };
    layout.encode_request(request, None, &mut out).unwrap();
    assert_eq!(out[1], 0);
    assert_eq!(whole(&layout, &out).flags, Flags::ONE_WAY);
}

#[test]
fn the_length_takes_its_shortest_form_on_both_sides_of_each_boundary() {
    let layout = shipped("chat");
    // What follows the length besides the body: flags, command, sequence 1, no language.
    let rest = 1 + 12 + 1 + 1;
    for (after, width) in [(127, 1), (128, 2), (16_383, 2), (16_384, 3)] {
        let body = vec![0; after - rest];
        let parts = [&*body];
        let mut out = Vec::new();
        let request = Request::new(Command::Text(b"x"), 1, &parts);
        layout.encode_request(request, None, &mut out).unwrap();
        assert_eq!(out.len(), after + width);
        assert_eq!(whole(&layout, &out).body.len(), body.len());
        arrives_in_pieces(&layout, &out);
    }
}

#[test]
fn integers_and_text_beyond_their_limits_are_refused_early() {
    let layout = shipped("chat");
    let error = refused(&layout, &[0x80; 10]);
    assert_eq!(error, FrameError::BadVarint { field: "length".into() });
    let largest = [&[0xff; 9][..], &[0x01]].concat();
    match layout.decode(&largest, MAX) {
        // Nothing is known of the rest of the header, so no total either.
        Ok(Decoded::Incomplete { need }) => assert!(need <= 10 + 15),
        other => panic!("{other:?}"),
    }
    let header = [&largest[..], &hex("80 736179000000000000000000 01 00")].concat();
    assert_eq!(refused(&layout, &header), FrameError::TooLarge { len: u64::MAX, max: MAX as u64 });
    let long = refused(&layout, &hex("14 80 736179000000000000000000 ac02 11"));
    assert_eq!(long, FrameError::TextTooLong { field: "language".into(), len: 17, max: 16 });
}

#[test]
fn commands_that_have_no_room_for_their_reply_are_told_apart() {
    let layout = shipped("chat");
    assert!(layout.fits_command(Command::Text(b"123456789")).is_ok());
    assert_eq!(
        layout.fits_command(Command::Text(b"1234567890")).unwrap_err().to_string(),
        "text of 13 bytes does not fit \"command\" of 12"
    );
    assert_eq!(
        layout.fits_command(Command::Number(1)).unwrap_err().to_string(),
        "the layout's commands are text"
    );
}
