//! Requests that stay open: their messages, their end, and what waits for windows.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Limits, SendError, StreamId};
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::Setting;

fn narrow(window: u32) -> ClientLeg {
    let limits = Limits { max_open_bytes: 100, max_all_open_bytes: 250, ..Limits::default() };
    leg_with(&limits, &[Setting::InitialWindowSize(window)])
}

fn open(leg: &mut ClientLeg, token: u32) -> StreamId {
    let id = leg.open(token, &[], b"\x83").expect("room for a call");
    audit(leg);
    id
}

/// The frames in the output: kind, stream, payload, and whether the stream ends.
fn sent(leg: &mut ClientLeg) -> Vec<(Kind, u32, Vec<u8>, bool)> {
    audit(leg);
    let frames = written(leg).into_iter();
    frames.map(|(head, load)| (head.kind, head.stream, load, head.has(END_STREAM))).collect()
}

/// What the DATA of a stream came to, and whether it ended.
fn body(frames: &[(Kind, u32, Vec<u8>, bool)], stream: u32) -> (Vec<u8>, bool) {
    let of = frames.iter().filter(|(kind, id, ..)| *kind == Kind::Data && *id == stream);
    let end = of.clone().any(|frame| frame.3);
    (of.flat_map(|frame| frame.2.clone()).collect(), end)
}

#[test]
fn messages_leave_one_by_one_and_the_end_after_them() {
    let mut leg = narrow(1000);
    let id = open(&mut leg, 7);
    let head = sent(&mut leg);
    assert_eq!((head[0].0, head[0].1, head[0].3), (Kind::Headers, 1, false));
    leg.send(id, &[b"on", b"e"]).unwrap();
    assert_eq!(sent(&mut leg), [(Kind::Data, 1, message(b"one"), false)]);
    // Both ways at once.
    assert_eq!(
        heard(&mut leg, &[answer(1), data(1, &message(b"heard"))].concat()),
        [Said::Message(7, b"heard".to_vec())]
    );
    leg.send(id, &[]).unwrap();
    leg.half_close(id);
    let last = [(Kind::Data, 1, message(b""), false), (Kind::Data, 1, Vec::new(), true)];
    assert_eq!(sent(&mut leg), last);
    assert_eq!(leg.send(id, &[b"late"]), Err(SendError::Over));
    leg.half_close(id);
    assert_eq!(sent(&mut leg), []);
    assert_eq!(heard(&mut leg, &done(1)), [end(7, Code::Ok, "")]);
    assert_eq!(sent(&mut leg), [], "nothing is left to reset");
}

#[test]
fn a_stalled_stream_holds_up_no_other_and_no_call() {
    let mut leg = narrow(10);
    let (stalled, other) = (open(&mut leg, 0), open(&mut leg, 1));
    sent(&mut leg);
    for _ in 0..5 {
        leg.send(stalled, &[&[1; 20]]).unwrap();
    }
    assert!(leg.is_full(stalled) && !leg.is_full(other) && leg.has_room());
    assert!(!leg.is_sent(stalled));
    assert_eq!(leg.send(stalled, &[b"x"]), Err(SendError::Full));
    leg.send(other, &[b"12345"]).unwrap();
    start(&mut leg, 2, b"call");
    let frames = sent(&mut leg);
    assert_eq!(body(&frames, 3), (message(b"12345"), false));
    assert_eq!(body(&frames, 5), (message(b"call"), true));
    // Room again: what waited goes on where it stopped.
    leg.half_close(stalled);
    heard(&mut leg, &window_update(1, 1000));
    assert!(!leg.is_full(stalled));
    let expected = message(&[1; 20]).repeat(5)[10..].to_vec();
    assert_eq!(body(&sent(&mut leg), 1), (expected, true));
    assert!(leg.is_sent(stalled) && !leg.is_sent(other), "the other is open");
}

#[test]
fn a_window_that_moves_while_nothing_waits_counts_all_the_same() {
    let mut leg = narrow(100);
    let id = open(&mut leg, 0);
    leg.send(id, &[&[0; 55]]).unwrap();
    sent(&mut leg);
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(50)]));
    sent(&mut leg);
    leg.send(id, &[b"12345"]).unwrap();
    assert_eq!(sent(&mut leg), [], "the window is 10 below zero");
    heard(&mut leg, &window_update(1, 12));
    assert_eq!(body(&sent(&mut leg), 1), (message(b"12345")[..2].to_vec(), false));
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(500)]));
    assert_eq!(body(&sent(&mut leg), 1), (message(b"12345")[2..].to_vec(), false));
}

#[test]
fn all_streams_together_are_bounded_too() {
    let mut leg = narrow(0);
    let ids: Vec<StreamId> = (0..4).map(|token| open(&mut leg, token)).collect();
    for id in &ids[..3] {
        leg.send(*id, &[&[0; 85]]).unwrap();
    }
    assert_eq!(leg.send(ids[3], &[b""]), Err(SendError::Full), "nothing of its own waits");
    heard(&mut leg, &window_update(ids[3].number(), 1));
    leg.send(ids[3], &[b""]).unwrap();
    leg.cancel(ids[0]);
    assert!(!leg.is_full(ids[2]));
    audit(&mut leg);
}

#[test]
fn a_stream_that_waits_for_its_turn_keeps_its_messages_and_its_end() {
    let limits = Limits { max_open_bytes: 20, ..Limits::default() };
    let mut leg = leg_with(&limits, &[Setting::MaxConcurrentStreams(1)]);
    start(&mut leg, 0, b"first");
    let (waiting, empty) = (open(&mut leg, 1), open(&mut leg, 2));
    leg.send(waiting, &[b"one"]).unwrap();
    leg.send(waiting, &[b"two-and-more"]).unwrap();
    assert_eq!(leg.send(waiting, &[b"three"]), Err(SendError::Full));
    leg.half_close(waiting);
    assert_eq!(leg.send(waiting, &[b"four"]), Err(SendError::Full));
    leg.half_close(empty);
    assert_eq!(leg.send(empty, &[b"late"]), Err(SendError::Over));
    sent(&mut leg);
    heard(&mut leg, &[answer(1), done(1)].concat());
    let frames = sent(&mut leg);
    let expected = [message(b"one"), message(b"two-and-more")].concat();
    assert_eq!(body(&frames, 3), (expected, true));
    heard(&mut leg, &[answer(3), done(3)].concat());
    let frames = sent(&mut leg);
    assert_eq!(frames[0].0, Kind::Headers);
    assert_eq!(frames[1..], [(Kind::Data, 5, Vec::new(), true)]);
}

#[test]
fn a_response_that_ends_first_resets_the_open_request() {
    let mut leg = narrow(1000);
    let id = open(&mut leg, 0);
    sent(&mut leg);
    let said = heard(&mut leg, &[answer(1), done(1)].concat());
    assert_eq!(said, [end(0, Code::Ok, "")]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::Cancel)]);
    assert_eq!(leg.send(id, &[b"late"]), Err(SendError::Over));
    assert!(!leg.is_full(id));
}

#[test]
fn a_message_longer_than_a_frame_is_cut_and_stays_whole() {
    let mut leg = leg_with(&Limits::default(), &[Setting::InitialWindowSize(1 << 20)]);
    let id = open(&mut leg, 0);
    let long = vec![3; 40_000];
    leg.send(id, &[&long]).unwrap();
    leg.send(id, &[b"short"]).unwrap();
    leg.half_close(id);
    let expected = [message(&long), message(b"short")].concat();
    assert_eq!(body(&sent(&mut leg), 1), (expected, true));
}
