//! Wherever the bytes are cut, the same is said and written.

use super::script::*;
use crate::grpc::frame::{CLIENT_PREFACE, Kind};
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::server::{Limits, ServerLeg};
use crate::grpc::settings::Setting;

/// Much of what a caller can lawfully say, some of what it can get wrong, and in the end one thing
/// that ends the connection.
fn conversation() -> Vec<u8> {
    let (coded, message) = (block(&FIELDS), framed(b"a message"));
    [
        CLIENT_PREFACE.to_vec(),
        settings(&[Setting::InitialWindowSize(70), Setting::EnablePush(false)]),
        window_update(0, 77),
        call(1, b"one"),
        settings_ack(),
        raw(Kind::Ping, 0, 0, b"opaque!!"),
        head(3),
        data(3, &message[..4]),
        raw(Kind::Headers, PADDED, 5, &[&[2], &coded[..9], &[0; 2]].concat()),
        raw(Kind::Continuation, 0, 5, &coded[9..30]),
        raw(Kind::Continuation, END_HEADERS, 5, &coded[30..]),
        raw(Kind::Data, PADDED, 3, &[&[4], &message[4..8], &[0; 4]].concat()),
        raw(Kind::Unknown(50), 3, 17, b"extension"),
        data(5, &message),
        last(3, &message[8..]),
        trailers(5, &[("x", "y")]),
        trailers(7, &[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        headers(9, &fields(&[("X-Wrong", "case")])),
        head(11),
        raw(Kind::Data, PADDED | END_STREAM, 11, &[&[1], &[1, 0, 0, 0, 0][..], &[0]].concat()),
        head(13),
        reset(13, ErrorCode::Cancel),
        raw(Kind::Priority, 0, 15, b"\0\0\0\x01\x10"),
        call(15, b""),
        window_update(1, 5),
        settings(&[Setting::InitialWindowSize(4)]),
        data(1, b"after the end"),
    ]
    .concat()
}

type Outcome = (Vec<Said>, Option<LegError>, Vec<u8>);

fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let limits = Limits { stream_window: 60, ..Limits::default() };
    let mut leg = ServerLeg::new(&std::rc::Rc::new(limits));
    let (mut all, mut error) = (Vec::new(), None);
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
    assert_eq!(whole.1.map(|error| error.code), Some(ErrorCode::StreamClosed));
    let requests = whole.0.iter().filter(|said| matches!(said, Said::Request(..))).count();
    let over = whole.0.iter().filter(|said| matches!(said, Said::Over(..))).count();
    assert_eq!((requests, over), (4, 2));
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
