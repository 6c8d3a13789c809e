//! The first bytes both ways, settings, bells, pings.

use super::script::*;
use crate::grpc::client::{ClientLeg, Limits};
use crate::grpc::frame::{CLIENT_PREFACE, Kind};
use crate::grpc::hpack::{Part, PartKey};
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::Setting;

#[test]
fn preface_settings_and_window_are_there_before_anything_else() {
    let mut leg = ClientLeg::new(&Limits::default());
    assert!(leg.output().starts_with(CLIENT_PREFACE));
    let frames = written(&mut leg);
    assert_eq!(frames[0].0.kind, Kind::Settings);
    assert_eq!(
        frames[0].1,
        [[0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0, 4, 0, 1, 0, 0], [0, 6, 0, 0, 0x40, 0],]
            .concat()
    );
    assert_eq!((frames[1].0.kind, frames[1].0.stream), (Kind::WindowUpdate, 0));
    assert_eq!(frames[1].1, ((16u32 << 20) - 65_535).to_be_bytes());
    assert_eq!(frames.len(), 2);
}

#[test]
fn the_upstream_may_speak_first_and_is_acknowledged_behind_our_own_opening() {
    let mut leg = ClientLeg::new(&Limits::default());
    assert_eq!(heard(&mut leg, &settings(&[Setting::MaxConcurrentStreams(5)])), []);
    let kinds: Vec<_> = summary(&mut leg).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [Kind::Settings, Kind::WindowUpdate, Kind::Settings]);
}

#[test]
fn a_call_before_the_upstreams_settings_is_sent_at_once() {
    let mut leg = ClientLeg::new(&Limits::default());
    start(&mut leg, 0, b"x");
    let sent = summary(&mut leg);
    assert_eq!(sent[2..], [(Kind::Headers, 1, 2), (Kind::Data, 1, 6)]);
}

/// The header blocks in the output.
fn blocks(leg: &mut ClientLeg) -> Vec<Vec<u8>> {
    let frames = written(leg).into_iter().filter(|(head, _)| head.kind == Kind::Headers);
    frames.map(|(_, block)| block).collect()
}

fn start_with_part(leg: &mut ClientLeg, token: u32) {
    let part = Part { key: PartKey(0), fields: b"\x00\x01a\x01b" };
    leg.start(token, &[part], b"\x83", &[b""]).unwrap();
}

#[test]
fn fields_are_remembered_by_an_upstream_that_said_how_many() {
    let mut leg = ClientLeg::new(&Limits::default());
    start_with_part(&mut leg, 0);
    heard(&mut leg, &settings(&[]));
    start_with_part(&mut leg, 1);
    start_with_part(&mut leg, 2);
    heard(&mut leg, &settings(&[Setting::MaxConcurrentStreams(100)]));
    start_with_part(&mut leg, 3);
    heard(&mut leg, &settings(&[Setting::HeaderTableSize(100), Setting::HeaderTableSize(4096)]));
    start_with_part(&mut leg, 4);
    heard(&mut leg, &settings(&[Setting::HeaderTableSize(0)]));
    start_with_part(&mut leg, 5);
    start_with_part(&mut leg, 6);
    let expected: [&[u8]; 7] = [
        b"\x20\x00\x01a\x01b\x83",
        b"\x20\x3f\xe1\x1f\x40\x01a\x01b\x83",
        b"\xbe\x83",
        b"\xbe\x83",
        b"\x20\x3f\xe1\x1f\x40\x01a\x01b\x83",
        b"\x20\x00\x01a\x01b\x83",
        b"\x00\x01a\x01b\x83",
    ];
    assert_eq!(blocks(&mut leg), expected);
}

#[test]
fn a_call_that_waited_for_a_stream_is_sent_in_full() {
    let mut leg = leg_with(&Limits::default(), &[Setting::MaxConcurrentStreams(1)]);
    start_with_part(&mut leg, 0);
    start_with_part(&mut leg, 1);
    heard(&mut leg, &settings(&[Setting::HeaderTableSize(0)]));
    heard(&mut leg, &[answer(1), data(1, &message(b"")), done(1)].concat());
    let expected: [&[u8]; 2] = [b"\x20\x3f\xe1\x1f\x40\x01a\x01b\x83", b"\x20\x00\x01a\x01b\x83"];
    assert_eq!(blocks(&mut leg), expected);
}

#[test]
fn an_upstream_that_does_not_begin_with_settings_is_refused() {
    for first in [ping(0), settings_ack(), go_away(0, ErrorCode::NoError, ""), answer(1)] {
        let mut leg = ClientLeg::new(&Limits::default());
        assert_eq!(refused(&mut leg, &first), ErrorCode::ProtocolError);
    }
}

#[test]
fn an_upstream_that_speaks_something_else_is_told_apart() {
    let mut leg = ClientLeg::new(&Limits::default());
    let (_, error) = hear(&mut leg, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(error.unwrap().reason, "upstream speaks HTTP/1, not HTTP/2");
    let mut leg = ClientLeg::new(&Limits::default());
    let (_, error) = hear(&mut leg, &[0x15, 0x03, 0x01, 0, 2, 2, 0x46, 0, 0, 0]);
    assert_eq!(error.unwrap().reason, "upstream speaks TLS, not HTTP/2 in clear text");
}

#[test]
fn the_first_bell_is_answered_by_the_acknowledgement_of_our_settings() {
    let mut leg = ClientLeg::new(&Limits::default());
    leg.output().clear();
    assert!(leg.ring());
    assert!(!leg.ring());
    assert!(leg.output().is_empty());
    let opening = [settings(&[]), settings_ack()].concat();
    assert_eq!(heard(&mut leg, &opening), [Said::Bell]);
}

#[test]
fn a_bell_is_an_empty_settings_frame_and_one_at_a_time() {
    let mut leg = leg(&Limits::default());
    for _ in 0..3 {
        assert!(leg.ring());
        assert!(leg.is_ringing());
        assert!(!leg.ring());
        assert_eq!(leg.output(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        leg.output().clear();
        assert_eq!(heard(&mut leg, &settings_ack()), [Said::Bell]);
        assert!(!leg.is_ringing());
    }
}

#[test]
fn an_acknowledgement_that_was_not_asked_for_is_refused() {
    let mut leg = leg(&Limits::default());
    assert_eq!(refused(&mut leg, &settings_ack()), ErrorCode::ProtocolError);
    assert!(!leg.ring());
}

#[test]
fn every_settings_frame_and_every_ping_is_acknowledged() {
    let mut leg = leg(&Limits::default());
    let heard = heard(&mut leg, &[settings(&[]), ping(0), settings(&[]), ping(ACK)].concat());
    assert_eq!(heard, []);
    let answers = written(&mut leg);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|(head, _)| head.flags == ACK));
    assert_eq!((answers[1].0.kind, answers[1].1.as_slice()), (Kind::Ping, &b"opaque!!"[..]));
}

#[test]
fn wrong_settings_end_the_connection_with_the_rfc_code() {
    let wrong = [
        (settings(&[Setting::EnablePush(true)]), ErrorCode::ProtocolError),
        (raw(Kind::Settings, 0, 0, &[0, 4, 0x80, 0, 0, 0]), ErrorCode::FlowControlError),
        (raw(Kind::Settings, 0, 0, &[0, 5, 0, 0, 0, 0]), ErrorCode::ProtocolError),
        (raw(Kind::Settings, 0, 0, &[0, 1, 0, 0, 0]), ErrorCode::FrameSizeError),
        (raw(Kind::Settings, ACK, 0, &[0, 1, 0, 0, 0, 0]), ErrorCode::FrameSizeError),
        (raw(Kind::Settings, 0, 1, &[]), ErrorCode::ProtocolError),
    ];
    for (bytes, code) in wrong {
        assert_eq!(refused(&mut leg(&Limits::default()), &bytes), code, "{bytes:?}");
    }
}
