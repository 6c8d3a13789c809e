//! Server streams, and the frames that the filter takes itself: heartbeats and cancels.

use super::*;

const WATCH: u64 = 1200;
const NEWS: u64 = 1201;
const WRAPPED: u64 = 1202;
const HEARTBEAT: u64 = 3;
const CANCEL: u64 = 4;

/// A service's response that goes on: its head.
fn begin(stream: u32) -> Vec<u8> {
    headers(0, stream, &[(":status", "200"), ("content-type", "application/grpc")])
}

fn message(stream: u32, body: &[u8]) -> Vec<u8> {
    let message = [&[0], &(body.len() as u32).to_be_bytes()[..], body].concat();
    raw(Kind::Data, 0, stream, &message)
}

fn end(stream: u32) -> Vec<u8> {
    headers(END_STREAM, stream, &[("grpc-status", "0")])
}

fn push(sequence: u64, body: &[u8]) -> Seen {
    (NEWS, sequence, 0, "push", body.to_vec())
}

#[test]
fn messages_are_pushed_and_the_end_is_the_reply() {
    let mut wire = Wire::warm();
    wire.client(&[request(WATCH, 7, b"hall"), request(ECHO, 8, b"x")].concat());
    wire.service(&[begin(3), message(3, b"one")].concat());
    assert_eq!(wire.heard(), [push(7, b"one")]);
    wire.service(&[message(3, b"two"), reply(5, b"X"), message(3, b"")].concat());
    let expected = [push(7, b"two"), (ECHO, 8, 0, "reply", b"X".to_vec()), push(7, b"")];
    assert_eq!(wire.heard(), expected);
    wire.service(&end(3));
    assert_eq!(wire.heard(), [(WATCH, 7, 0, "reply", Vec::new())]);
}

#[test]
fn a_stream_without_messages_ends_well_too() {
    let mut wire = Wire::warm();
    wire.client(&request(WATCH, 7, b""));
    wire.service(&[begin(3), end(3)].concat());
    assert_eq!(wire.heard(), [(WATCH, 7, 0, "reply", Vec::new())]);
}

#[test]
fn wrapped_messages_are_unwrapped_and_others_end_the_stream() {
    let mut wire = Wire::warm();
    wire.client(&request(WRAPPED, 7, b"raw"));
    wire.service(&[begin(3), message(3, b"\x0a\x03raw")].concat());
    assert_eq!(wire.heard(), [push(7, b"raw")]);
    wire.to_service.clear();
    wire.service(&message(3, b"\x0a\x09raw"));
    assert_eq!(wire.replies(), [(7, 13, "error")]);
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 3)]);
}

#[test]
fn a_stream_outlives_the_deadlines_of_calls_unless_it_has_its_own() {
    let mut wire = Wire::warm();
    wire.client(&request(WATCH, 7, b""));
    assert_eq!(wire.bridge.poll_timeout(), None, "nothing to wait for");
    wire.client(&request(WRAPPED, 8, b""));
    assert_eq!(wire.sleep(), Duration::from_secs(60));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(8, 4, "error")]);
    wire.service(&[begin(3), message(3, b"still")].concat());
    assert_eq!(wire.heard(), [push(7, b"still")]);
}

#[test]
fn a_cancel_resets_the_stream_and_ends_it_for_the_client() {
    let mut wire = Wire::warm();
    wire.client(&request(WATCH, 7, b""));
    wire.service(&[begin(3), message(3, b"one")].concat());
    wire.heard();
    wire.to_service.clear();
    wire.client(&request(CANCEL, 7, b""));
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 3), (Kind::Settings, 0)], "and rings");
    wire.service(&acknowledged());
    assert_eq!(wire.heard(), [(WATCH, 7, 1, "error", b"the client gave it up".to_vec())]);
    // What the service had sent before it heard of it is dropped.
    wire.service(&message(3, b"late"));
    assert_eq!(wire.heard(), []);
    // Its sequence is free again, and a cancel of nothing is nothing.
    wire.client(&[request(CANCEL, 99, b""), request(WATCH, 7, b"")].concat());
    assert_eq!(wire.kinds(), [(Kind::Headers, 5), (Kind::Data, 5)]);
}

#[test]
fn a_cancel_gives_up_an_ordinary_call() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 7, b""));
    wire.client(&request(CANCEL, 7, b""));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 1, "error")]);
    assert!(wire.kinds().contains(&(Kind::ResetStream, 3)));
}

#[test]
fn a_client_that_half_closes_ends_its_streams_and_gets_its_replies() {
    let mut wire = Wire::warm();
    wire.client(&[request(WATCH, 7, b""), request(ECHO, 8, b"x")].concat());
    wire.service(&begin(3));
    wire.half_close();
    assert!(!wire.finished, "a call is in flight");
    wire.service(&reply(5, b"X"));
    assert_eq!(wire.replies(), [(7, 1, "error"), (8, 0, "reply")]);
    assert!(wire.finished);
    assert!(wire.kinds().contains(&(Kind::ResetStream, 3)));
}

#[test]
fn streams_count_as_calls_in_flight_and_cannot_be_one_way() {
    let mut wire = Wire::warm();
    wire.client(&request(WATCH, 7, b""));
    wire.client(&request(WATCH, 7, b""));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(7, 6, "error")], "ALREADY_EXISTS");
    let mut one_way = request(WATCH, 9, b"");
    one_way[2] = 2;
    wire.to_service.clear();
    wire.client(&one_way);
    assert_eq!(wire.kinds(), [], "nothing is sent for it");
}

#[test]
fn heartbeats_are_answered_here_and_their_bells_coalesce() {
    let mut wire = Wire::warm();
    wire.client(&[request(HEARTBEAT, 1, b"t1"), request(HEARTBEAT, 2, b"t2")].concat());
    wire.client(&request(HEARTBEAT, 3, b""));
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)], "one bell for three");
    wire.service(&acknowledged());
    let reply = |sequence, body: &[u8]| (HEARTBEAT, sequence, 0, "reply", body.to_vec());
    assert_eq!(wire.heard(), [reply(1, b"t1"), reply(2, b"t2"), reply(3, b"")]);
}

#[test]
fn a_heartbeat_before_the_login_is_refused() {
    let mut wire = Wire::ticket();
    wire.client(&request(HEARTBEAT, 1, b""));
    wire.service(&opening());
    assert_eq!(wire.replies(), [(1, 16, "error")]);
}

#[test]
fn a_client_that_stays_silent_is_closed_even_with_a_stream_open() {
    let mut silent = Wire::new(&with_silence());
    silent.client(&request(WATCH, 7, b""));
    silent.service(&[opening(), begin(1), message(1, b"one")].concat());
    silent.heard();
    assert_eq!(silent.sleep(), Duration::from_secs(30));
    silent.service(&acknowledged());
    assert_eq!(silent.replies(), [(7, 4, "error"), (0, 4, "push")]);
    silent.sleep();
    assert!(silent.is_closed());
}

#[test]
fn every_split_of_a_streams_bytes_gives_the_same_pushes() {
    let bytes = [begin(3), message(3, b"one"), message(3, b"two"), end(3)].concat();
    let expected = [push(7, b"one"), push(7, b"two"), (WATCH, 7, 0, "reply", Vec::new())];
    for at in 0..=bytes.len() {
        let mut wire = Wire::warm();
        wire.client(&request(WATCH, 7, b""));
        let (front, back) = bytes.split_at(at);
        wire.service(front);
        wire.service(back);
        assert_eq!(wire.heard(), expected, "split at {at}");
    }
}
