//! A service that has no room: the client's bytes wait in Envoy's buffer, and nowhere else.

use super::*;

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2) as a service sends it.
fn windows(size: u32) -> Vec<u8> {
    raw(Kind::Settings, 0, 0, &[&[0, 4], &size.to_be_bytes()[..]].concat())
}

fn widened(stream: u32, by: u32) -> Vec<u8> {
    raw(Kind::WindowUpdate, 0, stream, &by.to_be_bytes())
}

/// The service takes nothing, and the client has sent this many requests of 60,000 bytes, more
/// than `limits.max_unsent` admits.
fn blocked(requests: u64) -> Wire {
    let mut wire = Wire::warm();
    wire.service(&windows(0));
    for sequence in 100..100 + requests {
        wire.client(&request(ECHO, sequence, &[sequence as u8; 60_000]));
    }
    wire.to_service.clear();
    wire
}

#[test]
fn what_the_service_has_no_room_for_stays_in_envoys_buffer() {
    let mut wire = blocked(20);
    let frame = request(ECHO, 0, &[0; 60_000]).len();
    assert_eq!(wire.held.len(), 15 * frame, "five fill max_unsent");
    assert!(wire.bridge.paused);
    // Each of these makes the filter write, and what it writes goes through that very buffer.
    for _ in 0..1000 {
        wire.service(&raw(Kind::Ping, 0, 0, b"eightbyt"));
        assert!(wire.bridge.rest.is_empty(), "the filter holds nothing");
        assert_eq!(wire.held.len(), 15 * frame);
    }
    assert!(!wire.is_closed());
    assert_eq!(wire.bridge.poll_timeout().map(|at| at > wire.now), Some(true));
}

#[test]
fn what_waited_goes_on_in_its_order_when_the_service_has_room_again() {
    let mut wire = blocked(20);
    wire.service(&[widened(0, 1 << 30), windows(1 << 30)].concat());
    assert!(wire.held.is_empty());
    assert!(!wire.bridge.paused);
    let sent = wire.sent();
    let begun: Vec<_> =
        sent.iter().filter(|(kind, ..)| *kind == Kind::Headers).map(|frame| frame.2).collect();
    assert_eq!(begun, (13..43).step_by(2).collect::<Vec<u32>>());
    for stream in (3..43).step_by(2) {
        let body: Vec<u8> = sent
            .iter()
            .filter(|(kind, _, of, _)| *kind == Kind::Data && *of == stream)
            .flat_map(|frame| frame.3.clone())
            .collect();
        assert_eq!(body.len(), 60_005, "stream {stream}");
        assert!(body[5..].iter().all(|byte| u32::from(*byte) == 100 + (stream - 3) / 2));
        wire.service(&reply(stream, b"done"));
    }
    assert_eq!(wire.replies().len(), 20);
}

#[test]
fn a_client_with_much_to_hear_is_not_read_from_until_it_has_heard_it() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    wire.service(&raw(Kind::GoAway, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    let question = request(ECHO, 6, b"y");
    for _ in 0..10_000 {
        wire.client(&question);
    }
    assert!(wire.bridge.to_client.len() < (64 << 10) + 100);
    assert!(!wire.held.is_empty());
    let mut heard = 0;
    while !wire.held.is_empty() {
        wire.service(&widened(0, 1));
        heard += wire.replies().len();
    }
    wire.service(&widened(0, 1));
    assert_eq!(heard + wire.replies().len(), 10_000);
}

#[test]
fn calls_that_are_given_up_make_room_for_those_that_wait() {
    let mut wire = blocked(12);
    wire.sleep();
    assert_eq!(wire.bridge.calls.len(), 5, "the next five");
    wire.service(&acknowledged());
    assert_eq!(wire.replies().iter().filter(|(_, status, _)| *status == 4).count(), 5);
    assert!(!wire.held.is_empty() && wire.bridge.rest.is_empty());
}

#[test]
fn bytes_that_no_buffer_can_hold_end_the_connection() {
    let mut wire = blocked(10);
    // An Envoy that cannot be reached between two writes, and reads without a limit.
    while wire.bridge.closing.is_none() {
        wire.bridge.keep(wire.now, &[0; 65_536], &mut wire.worker);
        assert!(wire.bridge.rest.len() <= 4 << 20);
    }
}
