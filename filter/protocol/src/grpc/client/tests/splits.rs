//! Wherever the bytes are cut, the same is said and written.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Limits, StreamId};
use crate::grpc::frame::Kind;
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::settings::Setting;

/// A leg with ten calls on streams 1 to 19, one of them cancelled, two of them held back.
fn caller() -> ClientLeg {
    let mut leg = ClientLeg::new(&Limits { stream_window: 40, ..Limits::default() });
    for token in 0..10 {
        start(&mut leg, token, &[7; 10]);
    }
    leg.cancel(StreamId(5));
    leg.ring();
    leg
}

/// Everything that an upstream can lawfully say, and one thing that it cannot.
fn conversation() -> Vec<u8> {
    let coded = block(&[("grpc-status", "5"), ("grpc-message", "none%20such")]);
    [
        settings(&[Setting::MaxConcurrentStreams(3), Setting::InitialWindowSize(4)]),
        settings_ack(),
        ping(0),
        window_update(0, 77),
        answer(1),
        data(1, &message(b"one")),
        data(1, &[message(b"two"), message(b""), message(b"three")[..6].to_vec()].concat()),
        raw(Kind::Data, PADDED, 1, &[&[4], &message(b"three")[6..], &[0; 4]].concat()),
        answer(3),
        raw(Kind::Unknown(50), 3, 17, b"extension"),
        data(3, &[1, 0, 0, 0, 0, 0]),
        answer(5),
        done(1),
        raw(Kind::Headers, PADDED, 7, &[&[2], &block(&[(":status", "200")])[..], &[0; 2]].concat()),
        raw(Kind::Continuation, END_HEADERS, 7, b""),
        raw(Kind::Headers, END_STREAM, 7, &coded[..9]),
        raw(Kind::Continuation, 0, 7, &coded[9..20]),
        raw(Kind::Continuation, END_HEADERS, 7, &coded[20..]),
        raw(Kind::Priority, 0, 9, b"\0\0\0\0\0"),
        trailers(9, &[(":status", "429")]),
        reset(11, ErrorCode::RefusedStream),
        headers(13, &[(":status", "100")]),
        answer(13),
        raw(Kind::Data, END_STREAM, 13, &message(b"bare")),
        go_away(15, ErrorCode::NoError, "bye"),
        answer(15),
        data(15, b""),
        data(15, &message(b"last")),
        settings(&[]),
        trailers(15, &[("grpc-status", "0"), ("x", "y")]),
        settings_ack(),
    ]
    .concat()
}

type Outcome = (Vec<Said>, Option<LegError>, Vec<u8>);

fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut leg = caller();
    let mut all = Vec::new();
    let mut error = None;
    for piece in pieces {
        let (said, wrong) = hear(&mut leg, piece);
        all.extend(said);
        error = error.or(wrong);
    }
    (all, error, std::mem::take(leg.output()))
}

#[test]
fn a_conversation_is_the_same_cut_anywhere() {
    let bytes = conversation();
    let whole = outcome([&bytes[..]]);
    // The conversation is worth cutting.
    assert_eq!(whole.1.map(|error| error.code), Some(ErrorCode::ProtocolError));
    let ends = whole.0.iter().filter(|said| matches!(said, Said::End(..))).count();
    assert_eq!(ends, 9);
    assert!(whole.0.contains(&Said::Message(0, b"three".into())));
    assert!(whole.0.contains(&Said::Message(7, b"last".into())));
    for cut in 0..=bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(outcome([first, second]), whole, "cut at {cut}");
    }
}

#[test]
fn a_conversation_is_the_same_in_small_pieces() {
    let bytes = conversation();
    let whole = outcome([&bytes[..]]);
    for size in 1..40 {
        assert_eq!(outcome(bytes.chunks(size)), whole, "in pieces of {size}");
    }
}

/// What a block left behind must not become part of what comes after it in the same piece.
#[test]
fn continued_blocks_and_gathered_messages_do_not_mix() {
    let continued = |stream, flags, block: &[u8]| {
        let (first, second) = block.split_at(2);
        [
            raw(Kind::Headers, flags, stream, first),
            raw(Kind::Continuation, END_HEADERS, stream, second),
        ]
        .concat()
    };
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    let tail = block(&[("grpc-status", "0"), ("x", "y")]);
    let (one, two) = (message(b"the first message"), message(b"the second"));
    let bytes = [
        settings(&[]),
        continued(1, 0, &head),
        data(1, &one[..9]),
        continued(3, 0, &head),
        data(1, &one[9..]),
        continued(7, 0, &head),
        data(1, &two[..3]),
        continued(9, 0, &head),
        data(1, &two[3..]),
        continued(1, END_STREAM, &tail),
        data(3, &two),
        continued(3, END_STREAM, &tail),
    ]
    .concat();
    let expected = [
        Said::Message(0, b"the first message".into()),
        Said::Message(0, b"the second".into()),
        end(0, Code::Ok, ""),
        Said::Message(1, b"the second".into()),
        end(1, Code::Ok, ""),
    ];
    let (said, error, _) = outcome([&bytes[..]]);
    assert_eq!((&said[..], error), (&expected[..], None));
    for cut in 0..=bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(outcome([first, second]).0, expected, "cut at {cut}");
    }
}
