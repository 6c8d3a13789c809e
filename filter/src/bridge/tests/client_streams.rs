//! Streams of the client's messages, both kinds of them, and what happens when they get no further.

use super::*;

const CHAT: u64 = 1300;
const CHATTED: u64 = 1301;
const SEND: u64 = 1302;
const CLOSE: u64 = 1303;
/// Its messages are wrapped.
const GATHER: u64 = 1310;
/// Makes its client wait.
const UPLOAD: u64 = 1320;
const CANCEL: u64 = 4;

fn begin(stream: u32) -> Vec<u8> {
    headers(0, stream, &[(":status", "200"), ("content-type", "application/grpc")])
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    [&[0], &(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn message(stream: u32, body: &[u8]) -> Vec<u8> {
    raw(Kind::Data, 0, stream, &prefixed(body))
}

fn end(stream: u32) -> Vec<u8> {
    headers(END_STREAM, stream, &[("grpc-status", "0")])
}

fn windows(size: u32) -> Vec<u8> {
    raw(Kind::Settings, 0, 0, &[&[0, 4], &size.to_be_bytes()[..]].concat())
}

impl Wire {
    /// What went to the service on a stream since the last look: its DATA, and whether it ended.
    fn said_on(&mut self, stream: u32) -> (Vec<u8>, bool) {
        let data =
            |(kind, _, id, _): &(Kind, u8, u32, Vec<u8>)| *kind == Kind::Data && *id == stream;
        let frames: Vec<_> = self.sent().into_iter().filter(data).collect();
        let ended = frames.iter().any(|frame| frame.1 & END_STREAM != 0);
        (frames.into_iter().flat_map(|frame| frame.3).collect(), ended)
    }
}

#[test]
fn messages_go_both_ways_until_each_side_has_ended() {
    let mut wire = Wire::warm();
    wire.client(&request(CHAT, 7, b"hello"));
    assert_eq!(wire.said_on(3), (prefixed(b"hello"), false));
    wire.service(&[begin(3), message(3, b"welcome")].concat());
    assert_eq!(wire.heard(), [(CHATTED, 7, 0, "push", b"welcome".to_vec())]);
    wire.client(
        &[request(SEND, 7, b"one"), request(ECHO, 8, b"x"), request(SEND, 7, b"")].concat(),
    );
    assert_eq!(wire.said_on(3), ([prefixed(b"one"), prefixed(b"")].concat(), false));
    wire.client(&request(CLOSE, 7, b""));
    assert_eq!(wire.said_on(3), (Vec::new(), true));
    wire.service(&[message(3, b"bye"), reply(5, b"X"), end(3)].concat());
    let expected = [
        (CHATTED, 7, 0, "push", b"bye".to_vec()),
        (ECHO, 8, 0, "reply", b"X".to_vec()),
        (CHAT, 7, 0, "reply", Vec::new()),
    ];
    assert_eq!(wire.heard(), expected);
    assert!(wire.bridge.calls.is_empty());
}

#[test]
fn a_client_stream_has_one_reply() {
    let mut wire = Wire::warm();
    wire.client(&request(GATHER, 7, b""));
    assert_eq!(wire.kinds(), [(Kind::Headers, 3)], "opened without a message");
    wire.client(&[request(SEND, 7, b"ab"), request(CLOSE, 7, b"c")].concat());
    let wrapped = [prefixed(b"\x0a\x02ab"), prefixed(b"\x0a\x01c")].concat();
    assert_eq!(wire.said_on(3), (wrapped, true));
    wire.service(&reply(3, b"\x0a\x03abc"));
    assert_eq!(wire.heard(), [(GATHER, 7, 0, "reply", b"abc".to_vec())]);
}

#[test]
fn a_reply_before_the_clients_end_ends_the_stream_and_late_messages_are_dropped() {
    let mut wire = Wire::warm();
    wire.client(&request(UPLOAD, 7, b"one"));
    wire.to_service.clear();
    wire.service(&reply(3, b"enough"));
    assert_eq!(wire.heard(), [(UPLOAD, 7, 0, "reply", b"enough".to_vec())]);
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 3)]);
    wire.client(&[request(SEND, 7, b"two"), request(CLOSE, 7, b"")].concat());
    assert_eq!((wire.kinds(), wire.heard()), (vec![], vec![]));
    wire.client(&request(ECHO, 7, b"x"));
    wire.client(&request(SEND, 7, b"to a call"));
    assert_eq!(wire.kinds(), [(Kind::Headers, 5), (Kind::Data, 5)], "nothing for the call");
}

#[test]
fn a_message_after_the_clients_end_breaks_the_stream_off() {
    let mut wire = Wire::warm();
    wire.client(&[request(CHAT, 7, b""), request(CLOSE, 7, b""), request(SEND, 7, b"x")].concat());
    assert!(wire.kinds().contains(&(Kind::ResetStream, 3)));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 9, "error")]);
}

#[test]
fn a_stalled_stream_ends_at_its_limit_and_nothing_else_waits() {
    let mut wire = Wire::warm();
    wire.service(&windows(10));
    wire.client(&[request(CHAT, 7, b""), request(CHAT, 8, b"")].concat());
    // The first is taken whatever its size.
    wire.client(&request(SEND, 7, &[1; 60_000]));
    wire.client(&request(SEND, 7, &[2; 10_000]));
    wire.client(&[request(SEND, 8, b"hi"), request(ECHO, 9, b"call")].concat());
    assert!(wire.held.is_empty() && wire.bridge.leg.has_room(&wire.bridge.terms));
    let sent = wire.sent();
    let on = |stream| sent.iter().filter(move |frame| frame.0 == Kind::Data && frame.2 == stream);
    assert_eq!(on(3).map(|frame| frame.3.len()).sum::<usize>(), 10);
    assert_eq!(on(5).map(|frame| &frame.3[..]).collect::<Vec<_>>(), [prefixed(b"hi")]);
    assert_eq!(on(7).count(), 1);
    wire.client(&request(SEND, 7, b"one more"));
    wire.service(&[acknowledged(), reply(7, b"CALL")].concat());
    assert_eq!(wire.replies(), [(7, 8, "error"), (9, 0, "reply")]);
    assert!(wire.kinds().contains(&(Kind::ResetStream, 3)));
    assert!(!wire.bridge.paused);
}

#[test]
fn a_stalled_upload_makes_its_client_wait_and_loses_nothing() {
    let mut wire = Wire::warm();
    wire.service(&windows(0));
    wire.client(&request(UPLOAD, 7, b""));
    for part in 0..5 {
        wire.client(&request(SEND, 7, &[part; 40_000]));
    }
    wire.client(&request(ECHO, 8, b"behind it"));
    assert!(wire.bridge.paused);
    assert_eq!(
        wire.held.len(),
        3 * request(SEND, 7, &[0; 40_000]).len() + request(ECHO, 8, b"behind it").len()
    );
    wire.to_service.clear();
    wire.service(
        &[windows(1 << 20), raw(Kind::WindowUpdate, 0, 0, &(1u32 << 20).to_be_bytes())].concat(),
    );
    assert!(!wire.bridge.paused && wire.held.is_empty());
    let parts: Vec<Vec<u8>> = (0..5).map(|part| prefixed(&[part; 40_000])).collect();
    let sent = wire.sent();
    let said: Vec<u8> = sent
        .iter()
        .filter(|frame| frame.0 == Kind::Data && frame.2 == 3)
        .flat_map(|frame| frame.3.clone())
        .collect();
    assert!(said == parts.concat());
    assert!(sent.iter().any(|frame| frame.2 == 5), "and the call behind it");
}

#[test]
fn a_client_that_waits_for_a_full_stream_goes_on_when_the_stream_ends() {
    let mut wire = Wire::warm();
    wire.service(&windows(0));
    wire.client(&request(UPLOAD, 7, b""));
    for _ in 0..3 {
        wire.client(&request(SEND, 7, &[0; 40_000]));
    }
    wire.client(&request(ECHO, 8, b"behind it"));
    assert!(wire.bridge.paused);
    wire.service(&headers(END_STREAM, 3, &[(":status", "200"), ("grpc-status", "5")]));
    assert!(!wire.bridge.paused && wire.held.is_empty());
    assert_eq!(wire.replies(), [(7, 5, "error")]);
    assert_eq!(wire.bridge.calls.len(), 1, "the call behind it");
}

#[test]
fn a_stream_without_a_message_for_too_long_ends() {
    let mut wire = Wire::warm();
    wire.client(&request(CHAT, 7, b""));
    wire.now = wire.now.after(Duration::from_secs(20));
    wire.client(&request(SEND, 7, b"still here"));
    wire.sleep();
    assert_eq!(wire.bridge.calls.len(), 1, "it was not idle for so long");
    assert_eq!(wire.sleep(), Duration::from_secs(20));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 4, "error")]);
}

#[test]
fn streams_are_limited_apart_from_calls() {
    let session = json!({"mode": "none"});
    let mut document = document(session, json!({"authority": "game"}));
    document["limits"] = json!({"max_streams": 2});
    let mut wire = Wire::new(&compile(document));
    let open: Vec<u8> = (7..10).flat_map(|sequence| request(CHAT, sequence, b"")).collect();
    wire.client(&[open, request(ECHO, 10, b"x")].concat());
    wire.service(&[opening(), reply(5, b"X")].concat());
    assert_eq!(wire.replies(), [(9, 8, "error"), (10, 0, "reply")]);
    wire.client(&request(CANCEL, 7, b""));
    wire.client(&request(CHAT, 9, b""));
    assert_eq!(wire.bridge.calls.streams(), 2);
}

#[test]
fn a_half_close_ends_open_streams_and_waits_for_the_reply_to_those_that_were_closed() {
    let mut wire = Wire::warm();
    wire.client(
        &[request(CHAT, 7, b""), request(GATHER, 8, b"x"), request(CLOSE, 8, b"")].concat(),
    );
    wire.half_close();
    assert!(!wire.finished, "one reply is to come");
    wire.service(&reply(5, b"\x0a\x01X"));
    assert_eq!(wire.replies(), [(7, 1, "error"), (8, 0, "reply")]);
    assert!(wire.finished);
}

#[test]
fn a_half_close_ends_a_stream_that_cannot_be_sent_to_its_end_any_more() {
    let mut wire = Wire::warm();
    wire.service(&windows(4));
    wire.client(&[request(GATHER, 7, b"more than that"), request(CLOSE, 7, b"")].concat());
    wire.half_close();
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 1, "error")]);
    assert!(wire.finished);
}

#[test]
fn what_cannot_be_read_breaks_its_stream_off() {
    let mut wire = Wire::warm();
    wire.client(&request(CHAT, 7, b""));
    let mut pushed = request(SEND, 7, b"x");
    pushed[2] = 4;
    wire.client(&pushed);
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 3, "error")]);
}

#[test]
fn a_stream_before_the_login_is_refused_and_one_after_it_is_not() {
    let mut wire = Wire::ticket();
    wire.log_in();
    wire.client(&[request(CHAT, 7, b""), request(SEND, 7, b"hi")].concat());
    assert_eq!(wire.said_on(1), (prefixed(b"hi"), false));
    let mut stranger = Wire::ticket();
    stranger.client(&request(CHAT, 7, b""));
    stranger.service(&opening());
    assert_eq!(stranger.replies(), [(7, 16, "error")]);
}

#[test]
fn every_split_of_a_clients_stream_says_the_same() {
    let bytes = [request(CHAT, 7, b"one"), request(SEND, 7, b"two"), request(CLOSE, 7, b"three")];
    let bytes = bytes.concat();
    let expected = [prefixed(b"one"), prefixed(b"two"), prefixed(b"three")].concat();
    for at in 0..=bytes.len() {
        let mut wire = Wire::warm();
        let (front, back) = bytes.split_at(at);
        wire.client(front);
        wire.client(back);
        assert_eq!(wire.said_on(3), (expected.clone(), true), "split at {at}");
    }
}
