//! Windows, both ways.

use super::script::*;
use crate::call::Code;
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::server::Limits;
use crate::grpc::settings::Setting;

#[test]
fn a_response_waits_for_the_streams_window_and_its_trailers_with_it() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(4)]);
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    leg.respond(stream, &[b"0123456789"]);
    let frames = written(&mut leg);
    assert_eq!(frames[1].1, framed(b"0123456789")[..4]);
    assert_eq!(frames.len(), 2, "no trailers yet");
    heard(&mut leg, &window_update(1, 5));
    assert_eq!(summary(&mut leg), [(Kind::Data, 1, 5)]);
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(9)]));
    let frames = written(&mut leg);
    let kinds: Vec<_> = frames.iter().map(|(head, load)| (head.kind, load.len())).collect();
    assert_eq!(kinds[1], (Kind::Data, 5));
    heard(&mut leg, &window_update(1, 100));
    let frames = written(&mut leg);
    assert_eq!(frames[0].1, b"9");
    assert!(frames[1].0.kind == Kind::Headers && frames[1].0.has(END_STREAM));
    assert_eq!(leg.open_streams(), 0);
}

#[test]
fn a_window_below_zero_admits_nothing_until_it_is_above() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(6)]);
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    leg.respond(stream, &[b"abcdef"]);
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(0)]));
    leg.output().clear();
    heard(&mut leg, &window_update(1, 6));
    assert!(leg.output().is_empty(), "6 are needed to come back to 0");
    heard(&mut leg, &window_update(1, 1));
    assert_eq!(summary(&mut leg), [(Kind::Data, 1, 1)]);
}

#[test]
fn streams_share_the_connections_window_in_turns() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(1 << 20)]);
    let large = vec![7; 60_000];
    for stream in [1, 3, 5] {
        heard(&mut leg, &call(stream, b""));
        let key = key(&leg, stream);
        leg.respond(key, &[&large]);
    }
    let sent: usize = written(&mut leg)
        .iter()
        .filter(|(head, _)| head.kind == Kind::Data)
        .map(|(_, load)| load.len())
        .sum();
    assert_eq!(sent, 65_535);
    heard(&mut leg, &window_update(0, 40_000));
    let frames = written(&mut leg);
    let turns: Vec<u32> = frames.iter().map(|(head, _)| head.stream).collect();
    assert_eq!(turns, [3, 5, 3], "a frame each in turn");
    heard(&mut leg, &window_update(0, 1 << 20));
    assert_eq!(leg.open_streams(), 0);
}

#[test]
fn a_status_that_comes_while_messages_wait_follows_them() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(0)]);
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    assert!(leg.send(stream, &[b"one"]) && leg.send(stream, &[b"two"]));
    leg.finish(stream, Code::Aborted, "enough");
    leg.output().clear();
    heard(&mut leg, &window_update(1, 1000));
    let answer = response(&mut leg, 1);
    assert_eq!(answer.body, [framed(b"one"), framed(b"two")].concat());
    assert_eq!(answer.fields, ["grpc-status: 10", "grpc-message: enough"]);
    assert!(answer.ended);
}

#[test]
fn a_caller_that_does_not_read_is_not_held_more_for_than_the_limit() {
    let limits = Limits { max_unsent: 1000, ..Limits::default() };
    let caller = [Setting::InitialWindowSize(0), Setting::HeaderTableSize(0)];
    let mut leg = leg_with(limits, &caller);
    heard(&mut leg, &[call(1, b""), call(3, b"")].concat());
    let (one, three) = (key(&leg, 1), key(&leg, 3));
    assert!(leg.send(one, &[&[0; 900]]));
    leg.output().clear();
    leg.respond(three, &[&[0; 200]]);
    assert_eq!(response(&mut leg, 3).fields[2], "grpc-status: 8");
    assert!(!leg.send(one, &[&[0; 200]]), "it has begun: nothing can be said in its place");
    assert_eq!(resets(&mut leg), [(1, ErrorCode::EnhanceYourCalm)]);
    audit(&mut leg);
    assert_eq!(leg.open_streams(), 0);
}

#[test]
fn a_call_given_up_while_its_response_waits_makes_room() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(0)]);
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    leg.respond(stream, &[b"late"]);
    leg.output().clear();
    let over = heard(&mut leg, &reset(1, ErrorCode::Cancel));
    assert!(over.is_empty(), "the call was over, and its token may be another's: {over:?}");
    audit(&mut leg);
    heard(&mut leg, &window_update(0, 1000));
    assert!(leg.output().is_empty());
}

#[test]
fn a_call_given_up_between_its_messages_is_told() {
    let mut leg = leg_with(Limits::default(), &[Setting::InitialWindowSize(0)]);
    heard(&mut leg, &call(1, b""));
    let stream = key(&leg, 1);
    assert!(leg.send(stream, &[b"one of several"]));
    let over = [Said::Over(1, Code::Cancelled)];
    assert_eq!(heard(&mut leg, &reset(1, ErrorCode::Cancel)), over);
}

#[test]
fn room_is_made_again_for_what_was_read() {
    let limits = Limits { stream_window: 100, connection_window: 65_535, ..Limits::default() };
    let mut leg = leg(limits);
    heard(&mut leg, &[head(1), data(1, &framed(&[7; 200])[..60])].concat());
    assert_eq!(summary(&mut leg), [(Kind::WindowUpdate, 1, 4)]);
    let bytes = [data(1, &framed(&[7; 200])[60..150]), last(1, &framed(&[7; 200])[150..])].concat();
    assert_eq!(heard(&mut leg, &bytes), [requested(1, &[7; 200])]);
    assert_eq!(summary(&mut leg), [(Kind::WindowUpdate, 1, 4)]);

    let overrun = [head(3), data(3, &framed(&[7; 200])[..101])].concat();
    assert_eq!(heard(&mut leg, &overrun), [begun(3), Said::Over(3, Code::Internal)]);
    assert_eq!(resets(&mut leg), [(3, ErrorCode::FlowControlError)]);

    // What nobody reads counts as well.
    let mut widened = 0;
    for _ in 0..1000 {
        assert_eq!(heard(&mut leg, &data(3, &[0; 90])), []);
        widened +=
            summary(&mut leg).iter().filter(|(kind, ..)| *kind == Kind::WindowUpdate).count();
    }
    assert_eq!(widened, 2);
}

#[test]
fn a_body_that_nobody_wants_is_stopped_after_a_while() {
    let mut leg = leg(Limits::default());
    heard(&mut leg, &headers(1, &[(":method", "PUT"), (":scheme", "http"), (":path", "/")]));
    for _ in 0..5 {
        heard(&mut leg, &data(1, &[0; 16_000]));
    }
    let answer = response(&mut leg, 1);
    assert!(answer.ended);
    assert_eq!(answer.reset, Some(ErrorCode::NoError));
}
