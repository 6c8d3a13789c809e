//! What the server can do wrong. Each call in flight gets an answer where the client can hear it.

use std::time::Duration;

use serde_json::json;

use super::wire::*;

const SECOND: Duration = Duration::from_secs(1);

/// A connection with two calls in flight.
fn two_calls() -> Wire {
    let mut wire = Wire::new();
    wire.ask(ECHO, 10, b"");
    wire.ask(ECHO, 20, b"");
    wire.asked();
    wire
}

#[test]
fn a_server_that_closes_fails_its_calls_and_the_client_is_told_why() {
    let mut wire = two_calls();
    wire.server_closes();
    let heard = wire.heard();
    assert_eq!(
        heard.iter().map(|seen| (seen.0, seen.1, seen.2)).collect::<Vec<_>>(),
        [(ECHO, 10, 14), (ECHO, 20, 14), (GOODBYE, 0, 14)]
    );
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
    assert_eq!(wire.counted("calls_in_flight"), 0);
}

#[test]
fn garbage_and_lengths_that_cannot_be_fail_calls_and_end_the_connection() {
    for (at, byte, kind) in [(0, b'H', "bad_magic"), (6, 3, "length_too_small")] {
        let mut wire = two_calls();
        let mut reply = wire.reply(ECHO, 1, 0, b"");
        reply[at] = byte;
        wire.server(&reply);
        assert_eq!(wire.replies(), [(10, 14), (20, 14), (0, 14)], "{kind}");
        assert_eq!(wire.counted(&format!("upstream_errors_total.kind.{kind}")), 1);
        wire.wait(SECOND / 100);
        assert!(wire.is_closed());
    }
}

#[test]
fn a_reply_to_nothing_is_dropped_and_one_with_another_command_fails_its_call() {
    let mut wire = two_calls();
    wire.answer(ECHO, 999, b"?");
    assert_eq!(wire.replies(), []);
    assert_eq!(wire.counted("upstream_errors_total.kind.unknown_sequence"), 1);
    wire.answer(ECHO + 1, 1, b"?");
    assert_eq!(wire.replies(), [(10, 13)]);
    wire.answer(ECHO, 2, b"!");
    assert_eq!(wire.replies(), [(20, 0)]);
    let request = wire.request(ECHO, 5, b"a server does not ask");
    wire.server(&request);
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 1);
    assert!(!wire.is_closed());
}

#[test]
fn a_silent_server_is_rung_at_the_deadline_and_left_when_it_does_not_answer() {
    let mut wire = two_calls();
    wire.wait(2 * SECOND);
    assert_eq!(wire.asked().iter().filter(|seen| seen.0 == BEAT).count(), 1);
    wire.wait(5 * SECOND);
    assert!(wire.is_closed());
    assert_eq!(wire.counted("upstream_errors_total.kind.bell_unanswered"), 1);
    assert_eq!(wire.counted("calls_in_flight"), 0);
}

#[test]
fn half_a_frame_is_not_waited_for_for_ever() {
    let mut document = document();
    document["defaults"]["deadline"] = json!("60s");
    document["server"]["heartbeat"]["interval"] = json!("0s");
    let mut wire = Wire::of(&document);
    wire.ask(ECHO, 10, b"");
    let sequence = wire.asked_one().1;
    let reply = wire.reply(ECHO, sequence, 0, b"half");
    wire.server(&reply[..12]);
    wire.wait(10 * SECOND);
    assert_eq!(wire.asked().last().map(|seen| seen.0), Some(BEAT), "the client is to be told");
    wire.server(b"anything");
    assert_eq!(wire.replies(), [(10, 14), (0, 14)]);
}

#[test]
fn a_server_that_refuses_the_login_gets_no_requests() {
    let mut document = document();
    document["server"]["login"] = json!({"command": SERVER_LOGIN});
    let mut wire = Wire::of(&document);
    wire.ask(ECHO, 10, b"");
    let (_, sequence, ..) = wire.asked_one();
    let refused = wire.reply(SERVER_LOGIN, sequence, 16, b"no");
    wire.server(&refused);
    assert_eq!(wire.replies(), [(10, 14), (0, 14)]);
    assert!(wire.asked().iter().all(|seen| seen.0 != ECHO));
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn a_client_waits_when_as_many_replies_are_late_as_calls_may_be() {
    let mut document = document();
    document["limits"] = json!({"max_in_flight": 2});
    let mut wire = Wire::of(&document);
    for round in 0..2u64 {
        wire.ask(ECHO, 2 * round + 1, b"");
        wire.ask(ECHO, 2 * round + 2, b"");
        wire.wait(2 * SECOND);
        let bell = wire.asked().into_iter().find(|seen| seen.0 == BEAT).unwrap();
        wire.answer(BEAT, bell.1, b"");
        assert_eq!(wire.replies().len(), 2);
    }
    let next = wire.request(ECHO, 9, b"waits");
    wire.client(&next);
    assert_eq!(wire.held, next);
    assert_eq!(wire.counted("connections_paused"), 1);
    wire.answer(ECHO, 1, b"late");
    assert_eq!(wire.asked_one().0, ECHO);
    assert_eq!(wire.held, b"");
}

#[test]
fn what_was_in_flight_when_the_client_goes_is_forgotten() {
    let mut wire = two_calls();
    let line = wire.bridge.handle_closed(wire.now, &mut wire.worker).expect("a line for the log");
    assert!(line.contains("calls=2"), "{line}");
    assert_eq!(wire.counted("calls_in_flight"), 0);
}
