//! Calls of callers that behave.

use std::time::Duration;

use super::script::*;
use crate::call::Code;
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::server::{Event, Limits, ServerLeg};
use crate::grpc::settings::Setting;

const OK: [&str; 3] = [":status: 200", "content-type: application/grpc", "grpc-status: 0"];

#[test]
fn settings_and_the_window_come_first_without_being_asked_for() {
    let mut leg = ServerLeg::new(&std::rc::Rc::new(Limits::default()));
    assert_eq!(summary(&mut leg), [(Kind::Settings, 0, 18), (Kind::WindowUpdate, 0, 4)]);
}

#[test]
fn a_call_is_told_with_its_message_and_answered_with_one_and_ok() {
    let mut leg = leg(Limits::default());
    assert_eq!(heard(&mut leg, &call(1, b"hello")), [begun(1), requested(1, b"hello")]);
    let stream = key(&leg, 1);
    leg.respond(stream, &[b"wo", b"rld"]);
    let answer = response(&mut leg, 1);
    assert_eq!((answer.fields, answer.body), (OK.map(String::from).into(), framed(b"world")));
    assert_eq!((answer.ended, answer.reset), (true, None));
    assert_eq!(leg.open_streams(), 0);
    leg.respond(stream, &[b"twice"]);
    assert!(leg.output().is_empty(), "it is over");
}

/// Envoy and most libraries do not wait for our SETTINGS, and use the table that HTTP/2 gives them.
#[test]
fn the_first_calls_come_before_our_settings_were_seen() {
    let mut leg = ServerLeg::new(&std::rc::Rc::new(Limits::default()));
    let mut early = block(&FIELDS[..4]);
    // Two fields that the caller has us remember, and then one that it had.
    early.extend(b"\x40\x02te\x08trailers\x5f\x10application/grpc\xbe");
    let bytes = [
        &crate::grpc::frame::CLIENT_PREFACE[..],
        &settings(&[]),
        &raw(Kind::Headers, END_HEADERS, 1, &early),
        &last(1, &framed(b"one")),
        &settings_ack(),
        &raw(Kind::Headers, END_HEADERS, 3, &[&block(&FIELDS[..4])[..], b"\xbf\xbe"].concat()),
        &last(3, &framed(b"two")),
    ]
    .concat();
    let expected = [begun(1), requested(1, b"one"), begun(3), requested(3, b"two")];
    assert_eq!(heard(&mut leg, &bytes), expected);
    let large = raw(Kind::Headers, END_HEADERS, 5, b"\x3f\xe2\x1f");
    assert_eq!(refused(&mut leg, &large), ErrorCode::CompressionError, "more than we offer");
}

/// Equal bytes are equal fields only while the table is the same.
#[test]
fn a_block_is_read_anew_when_the_table_has_changed() {
    let mut leg = leg(Limits::default());
    let named = |path: &[u8]| {
        // A literal :path that is to be remembered, and then the newest entry by its number.
        let mut block = block(&FIELDS[..2]);
        block.extend([0x44, path.len() as u8]);
        block.extend(path);
        block.extend(b"\x0f\x10\x10application/grpc");
        block
    };
    let newest = [&block(&FIELDS[..2])[..], b"\xbe\x0f\x10\x10application/grpc"].concat();
    let paths = [(1, named(b"/a/b")), (3, newest.clone()), (5, newest.clone())];
    let more = [(7, named(b"/c/d")), (9, newest.clone()), (11, newest)];
    let mut said = Vec::new();
    for (stream, block) in paths.into_iter().chain(more) {
        said.extend(heard(&mut leg, &raw(Kind::Headers, END_HEADERS, stream, &block)));
    }
    let begun = |stream, path: &str| Said::Begin(stream, path.into());
    let expected = [
        begun(1, "/a/b"),
        begun(3, "/a/b"),
        begun(5, "/a/b"),
        begun(7, "/c/d"),
        begun(9, "/c/d"),
        begun(11, "/c/d"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn messages_may_come_in_any_pieces_and_end_in_any_way() {
    let mut leg = leg(Limits::default());
    let whole = framed(b"in pieces");
    let padded = |flags, stream, load: &[u8]| {
        raw(Kind::Data, PADDED | flags, stream, &[&[3], load, &[0; 3]].concat())
    };
    let bytes = [
        head(1),
        head(3),
        data(1, &whole[..2]),
        data(3, &whole[..6]),
        data(1, b""),
        padded(0, 1, &whole[2..9]),
        padded(END_STREAM, 3, &whole[6..]),
        data(1, &whole[9..]),
        last(1, b""),
        head(5),
        data(5, &whole),
        trailers(5, &[("x-checksum", "7")]),
        headers(7, &fields(&[("content-length", "14")])),
        last(7, &whole),
    ]
    .concat();
    let expected = [
        begun(1),
        begun(3),
        requested(3, b"in pieces"),
        requested(1, b"in pieces"),
        begun(5),
        requested(5, b"in pieces"),
        begun(7),
        requested(7, b"in pieces"),
    ];
    assert_eq!(heard(&mut leg, &bytes), expected);
}

#[test]
fn timeout_and_the_metadata_that_is_asked_for_are_told() {
    let metadata = ["x-zone", "x-trace"].map(Into::into).into();
    let mut leg = leg(Limits { metadata, ..Limits::default() });
    let bytes = headers(
        1,
        &fields(&[("x-trace", "t"), ("x-other", "o"), ("grpc-timeout", "250m"), ("x-zone", "7")]),
    );
    for stream in [1, 3] {
        // The second block equals the first and is not decoded again.
        let bytes = [&bytes[..5], &[0, 0, 0, stream as u8], &bytes[9..]].concat();
        let mut input = &bytes[..];
        let Ok(Some(Event::Begin { timeout, metadata, .. })) = leg.poll(&mut input) else {
            panic!("a call")
        };
        assert_eq!(timeout, Some(Duration::from_millis(250)));
        assert_eq!(metadata.value(0), Some(&b"7"[..]));
        assert_eq!(metadata.value(1), Some(&b"t"[..]));
        assert_eq!(metadata.value(2), None);
    }
}

#[test]
fn failures_are_told_in_one_block_with_their_text() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &[call(1, b""), call(3, b"")].concat());
    let (first, second) = (key(&leg, 1), key(&leg, 3));
    leg.finish(first, Code::NotFound, "no such player");
    leg.finish(second, Code::Unauthenticated, "");
    let frames = written(&mut leg);
    assert_eq!(frames.len(), 2);
    let mut ear = Ear::new();
    let answer = ear.response(&frames, 1);
    assert_eq!(answer.fields[2..], ["grpc-status: 5", "grpc-message: no such player"]);
    assert!(answer.ended && answer.reset.is_none());
}

#[test]
fn a_call_that_fails_before_its_request_is_complete_stops_the_caller() {
    let mut leg = leg(Limits::default());
    assert_eq!(heard(&mut leg, &head(1)), [begun(1)]);
    let stream = key(&leg, 1);
    leg.finish(stream, Code::Unimplemented, "no such method");
    let answer = response(&mut leg, 1);
    assert!(answer.ended);
    assert_eq!(answer.reset, Some(ErrorCode::NoError));
    // What was on the way is dropped, and the next call is served.
    let bytes = [data(1, b"..."), trailers(1, &[("a", "b")]), last(1, b"")].concat();
    assert_eq!(heard(&mut leg, &bytes), []);
    assert_eq!(heard(&mut leg, &call(3, b"")), [begun(3), requested(3, b"")]);
}

#[test]
fn a_stream_of_messages_ends_with_its_status() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    assert!(leg.send(stream, &[b"one"]));
    assert!(leg.send(stream, &[b"two"]));
    leg.finish(stream, Code::Aborted, "enough");
    let answer = response(&mut leg, 1);
    assert_eq!(answer.body, [framed(b"one"), framed(b"two")].concat());
    assert_eq!(answer.fields[2..], ["grpc-status: 10", "grpc-message: enough"]);
    assert!(answer.ended);
}

/// A caller that remembers is told the usual fields by their number.
#[test]
fn later_responses_are_short() {
    let mut leg = leg_with(Limits::default(), &[Setting::HeaderTableSize(4096)]);
    let mut ear = Ear::new();
    let mut sizes = Vec::new();
    for stream in [1, 3, 5] {
        heard(&mut leg, &call(stream, b""));
        let key = key(&leg, stream);
        leg.respond(key, &[b"x"]);
        let frames = written(&mut leg);
        assert_eq!(ear.response(&frames, stream).fields, OK);
        sizes.push(frames.iter().map(|(_, load)| load.len()).sum::<usize>());
    }
    // A message of one byte with its prefix, and one byte for each field.
    assert_eq!(sizes[1..], [9, 9]);
}

#[test]
fn a_caller_without_a_table_is_told_everything_each_time() {
    let mut leg = leg_with(Limits::default(), &[Setting::HeaderTableSize(0)]);
    for stream in [1, 3] {
        heard(&mut leg, &call(stream, b""));
        let key = key(&leg, stream);
        leg.respond(key, &[]);
        let frames = written(&mut leg);
        assert_eq!(Ear(crate::grpc::hpack::Decoder::new(0)).response(&frames, stream).fields, OK);
    }
}

#[test]
fn who_does_not_ask_in_grpc_is_told_so_in_http() {
    let mut leg = leg(Limits::default());
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    assert_eq!(heard(&mut leg, &trailers(1, &get)), []);
    let answer = response(&mut leg, 1);
    assert_eq!(answer.fields[0], ":status: 415");
    assert_eq!(answer.body, b"This server is to be asked in gRPC\n");
    assert!(answer.ended && answer.reset.is_none());

    let head = [(":method", "HEAD"), (":scheme", "http"), (":path", "/")];
    heard(&mut leg, &trailers(3, &head));
    let answer = response(&mut leg, 3);
    assert!(answer.body.is_empty() && answer.ended);

    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/")];
    heard(&mut leg, &headers(5, &post));
    heard(&mut leg, &data(5, b"a form"));
    assert!(leg.output().is_empty(), "answered when it has said what it had to");
    heard(&mut leg, &last(5, b""));
    let answer = response(&mut leg, 5);
    assert!(answer.ended && answer.reset.is_none());
    assert_eq!(leg.open_streams(), 0);
}

#[test]
fn pings_and_settings_are_answered_and_priorities_and_unknown_frames_passed_over() {
    let mut leg = leg(Limits::default());
    let bytes = [
        raw(Kind::Ping, 0, 0, b"opaque!!"),
        raw(Kind::Ping, ACK, 0, b"unasked!"),
        settings(&[Setting::MaxConcurrentStreams(1)]),
        raw(Kind::Priority, 0, 77, b"\0\0\0\x01\x10"),
        raw(Kind::Unknown(0x42), 0xff, 9, b"extension"),
        raw(Kind::GoAway, 0, 0, &[0; 8]),
    ]
    .concat();
    assert_eq!(heard(&mut leg, &bytes), []);
    assert_eq!(summary(&mut leg), [(Kind::Ping, 0, 8), (Kind::Settings, 0, 0)]);
}

#[test]
fn after_our_goaway_calls_go_on_and_new_ones_are_passed_over() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &[call(1, b"before"), head(3)].concat());
    leg.go_away(ErrorCode::NoError, "closing");
    let frames = written(&mut leg);
    assert_eq!(frames[0].1[..4], 3u32.to_be_bytes());
    let bytes = [call(5, b"late"), last(3, &framed(b"covered"))].concat();
    assert_eq!(heard(&mut leg, &bytes), [requested(3, b"covered")]);
    for stream in [1, 3] {
        let key = key(&leg, stream);
        leg.respond(key, &[b"yes"]);
    }
    assert!(written(&mut leg).iter().all(|(head, _)| head.kind != Kind::ResetStream));
}

#[test]
fn a_call_that_is_given_up_is_told_once() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &[call(1, b""), head(3)].concat());
    let (one, three) = (reset(1, ErrorCode::Cancel), reset(3, ErrorCode::Cancel));
    let bytes = [one.clone(), three, one].concat();
    let expected = [Said::Over(1, Code::Cancelled), Said::Over(3, Code::Cancelled)];
    assert_eq!(heard(&mut leg, &bytes), expected);
    assert!(leg.output().is_empty());
}

#[test]
fn a_refused_stream_says_that_it_was_not_looked_at() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    leg.refuse_stream(stream);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::RefusedStream)]);
}
