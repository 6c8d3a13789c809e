//! What a private server, and a caller, can do wrong.

use std::time::Duration;

use serde_json::json;

use super::wire::*;
use crate::protocol::grpc::frame::Kind;
use crate::protocol::grpc::frame::flag::END_STREAM;

const SECOND: Duration = Duration::from_secs(1);

/// A connection with a call that was sent, one that may be carried out twice, and one whose
/// request is not complete.
fn three_calls() -> Wire {
    let mut wire = Wire::warm();
    let half = head(5, "/demo.v1.Echo/Echo", &[]);
    wire.caller(&[echo(1, b""), call(3, "/demo.v1.Hall/Look", b""), half].concat());
    assert_eq!(wire.asked().len(), 2);
    wire
}

#[test]
fn a_server_that_closes_fails_each_call_as_it_deserves() {
    let mut wire = three_calls();
    wire.server_closes();
    assert_eq!(wire.answer(1), failed(14, "the server closed the connection"));
    assert_eq!(wire.answer(3), refused(), "it may be carried out twice");
    assert_eq!(wire.answer(5), refused(), "it was not carried out");
    assert_eq!(wire.heard(Kind::GoAway), 1);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn a_server_that_closes_in_the_middle_of_a_reply_fails_the_call() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    let reply = wire.reply(ECHO, sequence, 0, b"never whole");
    wire.server(&reply[..20]);
    wire.server_closes();
    assert_eq!(wire.answer(1).status.unwrap().0, 14);
}

#[test]
fn garbage_fails_every_call_and_ends_the_connection() {
    let mut wire = three_calls();
    wire.server(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(wire.answer(1), failed(14, "the server's answer cannot be understood"));
    assert_eq!((wire.answer(3), wire.answer(5)), (refused(), refused()));
    assert_eq!(wire.counted("upstream_errors_total.kind.bad_magic"), 1);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn lengths_out_of_range_are_garbage() {
    for length in [3u32, 0x7fff_ffff] {
        let mut wire = Wire::warm();
        wire.caller(&echo(1, b""));
        let sequence = wire.asked_one().1;
        let mut reply = wire.reply(ECHO, sequence, 0, b"");
        reply[3..7].copy_from_slice(&length.to_be_bytes());
        wire.server(&reply);
        assert_eq!(wire.answer(1).status.unwrap().0, 14);
    }
}

#[test]
fn a_reply_to_nothing_is_dropped_and_counted() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    let stranger = wire.reply(ECHO, sequence + 1000, 0, b"?");
    wire.server(&stranger);
    assert_eq!(wire.answer(1), Answer::default());
    assert_eq!(wire.counted("upstream_errors_total.kind.unknown_sequence"), 1);
    let reply = wire.reply(ECHO, sequence, 0, b"!");
    wire.server(&[&reply[..], &reply].concat());
    assert_eq!(wire.answer(1), ok(b"!"));
    assert_eq!(wire.counted("upstream_errors_total.kind.unknown_sequence"), 2);
}

#[test]
fn a_reply_with_another_command_fails_its_call() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    let reply = wire.reply(LOOK, sequence, 0, b"");
    wire.server(&reply);
    assert_eq!(wire.answer(1), failed(13, "the server answered another command"));
}

#[test]
fn pushes_and_requests_of_the_server_are_dropped_and_counted() {
    let mut wire = Wire::warm();
    let push = wire.push(1207, 0, b"news");
    wire.server(&push);
    let mut request = wire.reply(ECHO, 1, 0, b"");
    request[2] = 0;
    wire.server(&request);
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 2);
    assert!(!wire.is_closed());
}

#[test]
fn a_server_that_does_not_answer_the_bell_is_taken_for_dead() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    wire.wait(SECOND * 2);
    assert!(wire.asked().iter().any(|(command, ..)| *command == BEAT));
    wire.wait(SECOND * 5);
    assert!(wire.is_closed());
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn half_a_frame_is_not_waited_for_for_ever() {
    let mut document = document();
    document["defaults"]["deadline"] = json!("59s");
    let mut wire = Wire::of(&document);
    wire.caller(&opening());
    wire.answer_bell();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    let reply = wire.reply(ECHO, sequence, 0, b"slow");
    wire.server(&reply[..9]);
    wire.wait(SECOND * 10);
    let bell = wire.asked().pop().unwrap();
    assert_eq!(bell.0, BEAT, "the caller is to be told");
    wire.server(b"whatever");
    assert_eq!(wire.answer(1).status.unwrap().0, 14);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn a_login_that_is_refused_ends_the_connection_and_nothing_was_carried_out() {
    let mut document = document();
    document["server"]["login"] = json!({"command": LOGIN});
    let mut wire = Wire::of(&document);
    wire.caller(&[opening(), echo(1, b"")].concat());
    let sequence = wire.asked_one().1;
    let reply = wire.reply(LOGIN, sequence, 16, b"who are you");
    wire.server(&reply);
    assert_eq!(wire.answer(1), refused());
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn a_login_that_is_not_replied_to_ends_the_connection() {
    let mut document = document();
    document["server"]["login"] = json!({"command": LOGIN});
    let mut wire = Wire::of(&document);
    wire.caller(&opening());
    wire.wait(SECOND * 5);
    assert!(wire.is_closed());
}

#[test]
fn a_caller_that_breaks_http2_is_told_and_leaves_nothing_behind() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    wire.caller(&raw(Kind::Data, END_STREAM, 0, b""));
    let asked = wire.asked();
    assert_eq!((asked[0].0, asked[0].1, asked[1].0), (CANCEL, sequence, BEAT));
    let reply = wire.reply(BEAT, asked[1].1, 0, b"");
    wire.server(&reply);
    assert_eq!(wire.heard(Kind::GoAway), 1);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn a_caller_that_never_spoke_http2_is_told_with_the_logins_reply() {
    let mut document = document();
    document["server"]["login"] = json!({"command": LOGIN});
    let mut wire = Wire::of(&document);
    wire.caller(b"GET / HTTP/1.1\r\n\r\n");
    let (command, sequence, ..) = wire.asked_one();
    assert_eq!(command, LOGIN);
    let reply = wire.reply(LOGIN, sequence, 0, b"");
    wire.server(&reply);
    assert_eq!(wire.heard(Kind::GoAway), 1);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn a_caller_that_floods_a_silent_server_is_closed() {
    let mut wire = Wire::new();
    wire.caller(&opening());
    let pings = raw(Kind::Ping, 0, 0, &[0; 8]).repeat(1000);
    let acks = raw(Kind::Settings, 1, 0, b"");
    for _ in 0..200 {
        wire.caller(&[&pings[..], &acks].concat());
        if wire.is_closed() || wire.counted("peer_errors_total.kind.http2") > 0 {
            return;
        }
    }
    panic!("the flood goes on");
}

#[test]
fn requests_that_wait_are_bounded() {
    let mut document = document();
    document["server"]["login"] = json!({"command": LOGIN});
    document["limits"] = json!({"max_unsent": "16KiB"});
    let mut wire = Wire::of(&document);
    let large = vec![7; 9000];
    wire.caller(&[opening(), echo(1, &large), echo(3, &large)].concat());
    let sequence = wire.asked_one().1;
    let reply = wire.reply(LOGIN, sequence, 0, b"");
    wire.server(&reply);
    assert_eq!(wire.answer(3), refused());
    assert_eq!(wire.asked().len(), 1, "the first one goes on");
}

#[test]
fn what_was_in_flight_when_the_connection_ends_is_forgotten() {
    let mut wire = three_calls();
    let line = wire.egress.handle_closed(wire.now, &mut wire.worker).expect("a line for the log");
    assert!(line.contains("calls=3"), "{line}");
    assert_eq!(wire.in_flight(), 0);
}
