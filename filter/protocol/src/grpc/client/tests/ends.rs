//! Resets, cancellations, GOAWAY, loss of the upstream.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, GoAway, Limits, StartError, StreamId};
use crate::grpc::frame::{Kind, MAX_STREAM};
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::Setting;

/// A leg with `open` calls on streams, and further ones that wait; tokens from 0.
fn busy(open: u32, waiting: u32) -> ClientLeg {
    let mut leg = leg_with(&Limits::default(), &[Setting::MaxConcurrentStreams(open)]);
    for token in 0..open + waiting {
        assert_eq!(start(&mut leg, token, b"request"), 2 * token + 1);
    }
    leg.output().clear();
    leg
}

#[test]
fn resets_are_mapped_by_grpcs_table() {
    let table = [
        (ErrorCode::NoError, Code::Internal),
        (ErrorCode::ProtocolError, Code::Internal),
        (ErrorCode::InternalError, Code::Internal),
        (ErrorCode::FlowControlError, Code::Internal),
        (ErrorCode::SettingsTimeout, Code::Internal),
        (ErrorCode::FrameSizeError, Code::Internal),
        (ErrorCode::RefusedStream, Code::Unavailable),
        (ErrorCode::Cancel, Code::Cancelled),
        (ErrorCode::CompressionError, Code::Internal),
        (ErrorCode::ConnectError, Code::Internal),
        (ErrorCode::EnhanceYourCalm, Code::ResourceExhausted),
        (ErrorCode::InadequateSecurity, Code::PermissionDenied),
        (ErrorCode::Unknown(77), Code::Unknown),
    ];
    for (reason, expected) in table {
        let mut leg = busy(1, 0);
        let said = heard(&mut leg, &[answer(1), reset(1, reason)].concat());
        let [Said::End(0, code, _, processed)] = said[..] else { panic!("{said:?}") };
        assert_eq!(code, expected);
        assert_eq!(processed, reason != ErrorCode::RefusedStream);
        assert_eq!(summary(&mut leg), [], "a reset is not answered");
    }
}

#[test]
fn a_call_that_ends_makes_room_for_one_that_waits() {
    let mut leg = busy(2, 2);
    assert_eq!(leg.in_flight(), 4);
    assert_eq!(heard(&mut leg, &reset(1, ErrorCode::Cancel)).len(), 1);
    assert_eq!(summary(&mut leg), [(Kind::Headers, 5, 1), (Kind::Data, 5, 12)]);
    heard(&mut leg, &[answer(3), done(3)].concat());
    assert_eq!(summary(&mut leg), [(Kind::Headers, 7, 1), (Kind::Data, 7, 12)]);
    assert_eq!(leg.in_flight(), 2);
}

#[test]
fn a_cancelled_call_is_reset_and_what_still_comes_of_it_is_dropped() {
    let mut leg = busy(1, 1);
    leg.cancel(StreamId(1));
    audit(&mut leg);
    let sent = summary(&mut leg);
    assert_eq!(sent, [(Kind::ResetStream, 1, 4), (Kind::Headers, 3, 1), (Kind::Data, 3, 12)]);
    let late = [answer(1), data(1, &message(b"late")), done(1), reset(1, ErrorCode::NoError)];
    assert_eq!(heard(&mut leg, &late.concat()), []);
    assert_eq!(heard(&mut leg, &[answer(3), done(3)].concat()), [end(1, Code::Ok, "")]);
    leg.cancel(StreamId(1));
    leg.cancel(StreamId(3));
    assert_eq!(summary(&mut leg), []);
}

#[test]
fn a_call_cancelled_inside_a_frame_is_silent_from_there_on() {
    let mut leg = busy(1, 0);
    let two = [message(b"one"), message(b"two")].concat();
    let bytes = [answer(1), data(1, &two), done(1)].concat();
    let mut input = &bytes[..];
    assert!(leg.poll(&mut input).unwrap().is_some());
    leg.cancel(StreamId(1));
    assert_eq!(leg.poll(&mut input), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn a_waiting_call_that_is_cancelled_was_never_there() {
    let mut leg = busy(1, 3);
    leg.cancel(StreamId(5));
    audit(&mut leg);
    assert_eq!(summary(&mut leg), []);
    heard(&mut leg, &[answer(1), done(1), answer(3), done(3)].concat());
    let streams: Vec<_> = summary(&mut leg).into_iter().map(|(_, stream, _)| stream).collect();
    assert_eq!(streams, [3, 3, 7, 7]);
}

#[test]
fn goaway_lets_covered_calls_finish_and_fails_the_others_as_not_processed() {
    let mut leg = busy(3, 2);
    let text = "upstream goes away and did not process the call";
    let bytes = go_away(3, ErrorCode::NoError, "max_age");
    assert_eq!(
        heard(&mut leg, &bytes),
        [Said::GoingAway, unprocessed(2, text), unprocessed(3, text), unprocessed(4, text)]
    );
    assert!(leg.is_draining() && !leg.is_closed() && !leg.has_room());
    assert_eq!(leg.start(9, &[], b"", &[b""]), Err(StartError::GoingAway));
    assert_eq!(summary(&mut leg), []);
    let goodbye = GoAway { last_stream: 3, code: ErrorCode::NoError, debug: "max_age".into() };
    assert_eq!(leg.go_away(), Some(&goodbye));
    let said = heard(&mut leg, &[answer(1), done(1), answer(3), done(3)].concat());
    assert_eq!(said, [end(0, Code::Ok, ""), end(1, Code::Ok, "")]);
    assert_eq!(leg.in_flight(), 0);
    assert!(leg.ring());
}

#[test]
fn a_graceful_goaway_comes_twice_and_is_told_once() {
    let mut leg = busy(2, 1);
    let first = go_away(MAX_STREAM, ErrorCode::NoError, "");
    let text = "upstream goes away and did not process the call";
    assert_eq!(heard(&mut leg, &first), [Said::GoingAway, unprocessed(2, text)]);
    assert_eq!(heard(&mut leg, &ping(0)), []);
    assert_eq!(summary(&mut leg), [(Kind::Ping, 0, 8)]);
    let second = go_away(1, ErrorCode::NoError, "");
    assert_eq!(heard(&mut leg, &second), [unprocessed(1, text)]);
    // The highest bit is reserved, and the number cannot go up again.
    assert_eq!(heard(&mut leg, &go_away(1 | 1 << 31, ErrorCode::NoError, "")), []);
    assert_eq!(leg.go_away().unwrap().last_stream, 1);
    assert_eq!(heard(&mut leg, &go_away(3, ErrorCode::NoError, "")), []);
    assert_eq!(leg.go_away().unwrap().last_stream, 1);
    assert_eq!(heard(&mut leg, &[answer(1), done(1)].concat()), [end(0, Code::Ok, "")]);
}

#[test]
fn the_reserved_bit_of_goaway_is_no_part_of_the_stream() {
    let mut leg = busy(2, 0);
    let said = heard(&mut leg, &go_away(1 | 1 << 31, ErrorCode::NoError, ""));
    assert_eq!(said.len(), 2);
    assert_eq!(leg.go_away().unwrap().last_stream, 1);
}

#[test]
fn frames_of_calls_that_goaway_ended_are_dropped() {
    let mut leg = busy(2, 0);
    heard(&mut leg, &go_away(1, ErrorCode::NoError, ""));
    assert_eq!(heard(&mut leg, &[answer(3), data(3, b"x"), done(3)].concat()), []);
    assert_eq!(leg.in_flight(), 1);
}

#[test]
fn debug_data_is_kept_up_to_a_limit() {
    let mut leg = busy(1, 0);
    heard(&mut leg, &go_away(0, ErrorCode::EnhanceYourCalm, &"too_many_pings".repeat(100)));
    let goodbye = leg.go_away().unwrap();
    assert_eq!(goodbye.code, ErrorCode::EnhanceYourCalm);
    assert_eq!(goodbye.debug.len(), 128);
}

#[test]
fn a_lost_upstream_ends_every_call_and_says_which_never_left() {
    let mut leg = busy(1, 1);
    leg.ring();
    leg.upstream_closed();
    let text = "upstream closed the connection";
    assert_eq!(heard(&mut leg, b""), [end(0, Code::Unavailable, text), unprocessed(1, text)]);
    assert!(leg.is_closed() && !leg.ring() && !leg.is_ringing());
    assert_eq!(leg.start(9, &[], b"", &[b""]), Err(StartError::GoingAway));
    leg.upstream_closed();
    assert_eq!(heard(&mut leg, &settings(&[])), []);
    assert_eq!(leg.in_flight(), 0);
}

#[test]
fn an_end_that_was_not_told_yet_is_silenced_by_a_cancellation() {
    let mut leg = busy(2, 0);
    leg.upstream_closed();
    leg.cancel(StreamId(1));
    let text = "upstream closed the connection";
    assert_eq!(heard(&mut leg, b""), [end(1, Code::Unavailable, text)]);
}

#[test]
fn a_connection_error_ends_every_call() {
    let mut leg = busy(2, 1);
    let (said, error) = hear(&mut leg, &raw(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2]));
    let error = error.unwrap();
    assert_eq!(error.code, ErrorCode::ProtocolError);
    assert_eq!(
        said,
        [
            end(0, Code::Unavailable, error.reason),
            end(1, Code::Unavailable, error.reason),
            unprocessed(2, error.reason)
        ]
    );
    assert_eq!(summary(&mut leg), [(Kind::GoAway, 0, 8 + error.reason.len())]);
}

#[test]
fn used_up_stream_numbers_look_like_a_goaway() {
    let mut leg = leg(&Limits::default());
    leg.streams.skip_to(MAX_STREAM);
    assert!(leg.has_room());
    assert_eq!(start(&mut leg, 0, b""), MAX_STREAM);
    assert!(leg.is_draining() && !leg.has_room());
    assert_eq!(leg.start(1, &[], b"", &[b""]), Err(StartError::GoingAway));
    assert_eq!(heard(&mut leg, b""), [Said::GoingAway]);
    let said = heard(&mut leg, &[answer(MAX_STREAM), done(MAX_STREAM)].concat());
    assert_eq!(said, [end(0, Code::Ok, "")]);
}
