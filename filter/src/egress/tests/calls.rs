//! Calls, their deadlines and their ends.

use std::time::Duration;

use serde_json::json;

use super::wire::*;
use crate::protocol::grpc::frame::Kind;
use crate::protocol::layout::Flags;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_bytes_ring_so_that_the_caller_gets_its_settings() {
    let mut wire = Wire::new();
    wire.caller(&opening());
    assert_eq!(wire.heard(Kind::Settings), 0);
    wire.answer_bell();
    assert_eq!(wire.heard(Kind::Settings), 2, "ours, and the acknowledgement of the caller's");
    assert_eq!(wire.asked(), []);
}

#[test]
fn a_call_becomes_a_frame_and_its_reply_an_answer() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b"hello"));
    let (command, sequence, flags, body) = wire.asked_one();
    assert_eq!((command, flags, &body[..]), (ECHO, Flags::NONE, &b"hello"[..]));
    let reply = wire.reply(ECHO, sequence, 0, b"world");
    wire.server(&reply);
    assert_eq!(wire.answer(1), ok(b"world"));
    assert_eq!(wire.counted("calls_total.command.1100_Echo.code.OK"), 1);
}

#[test]
fn many_callers_share_the_connection_and_replies_come_in_any_order() {
    let mut wire = Wire::warm();
    for n in 0..100u32 {
        wire.caller(&echo(2 * n + 1, &n.to_be_bytes()));
    }
    let mut asked = wire.asked();
    assert_eq!(asked.len(), 100);
    asked.reverse();
    for (_, sequence, _, body) in asked {
        let reply = wire.reply(ECHO, sequence, 0, &body);
        wire.server(&reply);
    }
    for n in 0..100u32 {
        assert_eq!(wire.answer(2 * n + 1), ok(&n.to_be_bytes()));
    }
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn replies_are_the_same_wherever_they_are_cut() {
    let mut wire = Wire::warm();
    wire.caller(&[echo(1, b"one"), echo(3, b"two")].concat());
    let asked = wire.asked();
    let bytes: Vec<u8> =
        asked.iter().flat_map(|(_, seq, _, body)| wire.reply(ECHO, *seq, 0, body)).collect();
    for cut in 0..bytes.len() {
        let mut wire = Wire::warm();
        wire.caller(&[echo(1, b"one"), echo(3, b"two")].concat());
        wire.server(&bytes[..cut]);
        wire.server(&bytes[cut..]);
        assert_eq!((wire.answer(1), wire.answer(3)), (ok(b"one"), ok(b"two")), "cut at {cut}");
    }
}

#[test]
fn the_codec_bytes_takes_field_1_there_and_back() {
    let mut wire = Wire::warm();
    wire.caller(&call(1, "/demo.v1.Echo/Raw", b"\x0a\x03raw"));
    let (command, sequence, _, body) = wire.asked_one();
    assert_eq!((command, &body[..]), (RAW, &b"raw"[..]));
    let reply = wire.reply(RAW, sequence, 0, b"war");
    wire.server(&reply);
    assert_eq!(wire.answer(1), ok(b"\x0a\x03war"));

    wire.caller(&call(3, "/demo.v1.Echo/Raw", b"\x0a\xff"));
    wire.answer_bell();
    assert_eq!(wire.answer(3).status.unwrap().0, 3);
}

#[test]
fn one_way_calls_are_answered_at_once_with_an_empty_message() {
    let mut wire = Wire::warm();
    wire.caller(&call(1, "/demo.v1.Hall/Say", b"hi"));
    let asked = wire.asked();
    assert_eq!(asked[0].0, SAY);
    assert_eq!((asked[0].2, &asked[0].3[..]), (Flags::ONE_WAY, &b"hi"[..]));
    assert_eq!(asked[1].0, BEAT, "the answer waits for the server to say something");
    let reply = wire.reply(BEAT, asked[1].1, 0, b"");
    wire.server(&reply);
    assert_eq!(wire.answer(1), ok(b""));
}

#[test]
fn statuses_are_translated_and_the_error_text_goes_with_them() {
    let mut wire = Wire::warm();
    let cases = [
        (404, &b"no such player"[..], 5, "no such player"),
        (12, b"", 12, "the server answered with status 12"),
        (999, b"", 2, "the server answered with status 999"),
        (5, b"", 2, "the server answered with status 5"),
    ];
    for ((status, body, code, text), stream) in cases.into_iter().zip([1, 3, 5, 7]) {
        wire.caller(&echo(stream, b""));
        let sequence = wire.asked_one().1;
        let reply = wire.reply(ECHO, sequence, status, body);
        wire.server(&reply);
        assert_eq!(wire.answer(stream), failed(code, text));
    }
}

#[test]
fn metadata_fills_the_header_fields_that_ask_for_it() {
    let mut wire = Wire::warm();
    let with = |stream, value| {
        let head = head(stream, "/demo.v1.Echo/Echo", &[("x-zone", value), ("x-other", "1")]);
        [head, body(stream, b"zoned")].concat()
    };
    wire.egress.handle_downstream(wire.now, &with(1, "513"), false, &mut wire.worker);
    let frame = wire.egress.upstream_output().to_vec();
    let zone = frame.windows(2).filter(|two| two == &513u16.to_be_bytes()).count();
    assert_eq!(zone, 1, "{frame:?}");
    wire.egress.upstream_output_sent(&mut wire.worker);
    wire.caller(&with(3, "a lot"));
    wire.answer_bell();
    assert_eq!(wire.answer(3).status.unwrap().0, 3);
}

#[test]
fn an_unknown_method_is_unimplemented_and_the_server_hears_nothing() {
    let mut wire = Wire::warm();
    wire.caller(&call(1, "/demo.v1.Echo/Sing", b"la"));
    wire.answer_bell();
    assert_eq!(wire.answer(1).status.unwrap().0, 12);
    assert_eq!(wire.asked(), []);
}

#[test]
fn a_deadline_is_told_in_time_and_its_late_reply_is_nobodys() {
    let mut wire = Wire::warm();
    let slow = [head(1, "/demo.v1.Echo/Echo", &[("grpc-timeout", "500m")]), body(1, b"")].concat();
    wire.caller(&[slow, echo(3, b"")].concat());
    let asked = wire.asked();
    wire.wait(SECOND / 2);
    let told = wire.asked();
    assert_eq!((told[0].0, told[0].1), (CANCEL, asked[0].1), "the server may stop");
    let bell = wire.reply(BEAT, told[1].1, 0, b"");
    wire.server(&bell);
    let late = "the server did not answer in time";
    assert_eq!(wire.answer(1), failed(4, late));
    let reply = wire.reply(ECHO, asked[0].1, 0, b"late");
    wire.server(&reply);
    assert_eq!(wire.counted("upstream_errors_total.kind.late_reply"), 1);
    // The other has the route's own deadline.
    wire.wait(SECOND);
    assert_eq!(wire.answer(3), Answer::default());
    wire.wait(SECOND);
    let sequence = wire.asked().last().unwrap().1;
    let bell = wire.reply(BEAT, sequence, 0, b"");
    wire.server(&bell);
    assert_eq!(wire.answer(3), failed(4, late));
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn no_caller_can_ask_for_more_than_the_commands_deadline() {
    let mut wire = Wire::new();
    let long = head(1, "/demo.v1.Echo/Echo", &[("grpc-timeout", "1H")]);
    wire.caller(&[opening(), long, body(1, b"")].concat());
    let bell = wire.asked()[1].1;
    let reply = wire.reply(BEAT, bell, 0, b"");
    wire.server(&reply);
    wire.wait(SECOND * 2);
    let told = wire.asked();
    assert_eq!(told[0].0, CANCEL);
}

#[test]
fn a_call_that_is_given_up_keeps_its_sequence_for_its_late_reply() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    wire.caller(&reset(1));
    let cancel = wire.asked_one();
    assert_eq!((cancel.0, cancel.1, cancel.2), (CANCEL, sequence, Flags::ONE_WAY));
    wire.caller(&echo(3, b""));
    let other = wire.asked_one().1;
    assert_ne!(other, sequence);
    let (late, reply) =
        (wire.reply(ECHO, sequence, 0, b"late"), wire.reply(ECHO, other, 0, b"mine"));
    wire.server(&[late, reply].concat());
    assert_eq!(wire.answer(1), Answer::default());
    assert_eq!(wire.answer(3), ok(b"mine"));
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn calls_beyond_the_limit_wait_for_their_turn() {
    let mut document = document();
    document["limits"] = json!({"max_in_flight": 2});
    let mut wire = Wire::of(&document);
    let calls = (0..5).flat_map(|n| echo(2 * n + 1, &[n as u8])).collect();
    wire.caller(&[opening(), calls].concat());
    let asked = wire.asked();
    let echoes = asked.iter().filter(|(command, ..)| *command == ECHO).count();
    assert_eq!(echoes, 2);
    let mut left = asked;
    for _ in 0..6 {
        let replies: Vec<u8> = left
            .iter()
            .flat_map(|(command, sequence, _, body)| wire.reply(*command, *sequence, 0, body))
            .collect();
        wire.server(&replies);
        left = wire.asked();
        assert!(left.len() <= 2);
    }
    for n in 0..5 {
        assert_eq!(wire.answer(2 * n + 1), ok(&[n as u8]));
    }
}

#[test]
fn calls_wait_for_the_logins_reply() {
    let mut document = document();
    document["server"]["login"] = json!({
        "command": LOGIN, "body": "let me in", "fields": {"zone": "7"}
    });
    let mut wire = Wire::of(&document);
    wire.caller(&[opening(), echo(1, b"after")].concat());
    let (command, sequence, _, body) = wire.asked_one();
    assert_eq!((command, &body[..]), (LOGIN, &b"let me in"[..]));
    let reply = wire.reply(LOGIN, sequence, 0, b"");
    wire.server(&reply);
    let (command, sequence, ..) = wire.asked_one();
    assert_eq!(command, ECHO);
    let reply = wire.reply(ECHO, sequence, 0, b"in");
    wire.server(&reply);
    assert_eq!(wire.answer(1), ok(b"in"));
}

#[test]
fn a_login_without_a_reply_is_followed_by_calls_at_once() {
    let mut document = document();
    document["server"]["login"] = json!({"command": LOGIN, "body_hex": "00ff", "reply": false});
    let mut wire = Wire::of(&document);
    wire.caller(&[opening(), echo(1, b"")].concat());
    let asked = wire.asked();
    let commands: Vec<u64> = asked.iter().map(|(command, ..)| *command).collect();
    assert_eq!(commands, [LOGIN, ECHO, BEAT]);
    assert_eq!(asked[0].3, b"\x00\xff");
}

#[test]
fn a_silent_server_is_asked_for_a_sign_of_life() {
    let mut wire = Wire::warm();
    wire.wait(SECOND * 9);
    assert_eq!(wire.asked(), []);
    wire.wait(SECOND);
    wire.answer_bell();
    wire.wait(SECOND * 10);
    assert_eq!(wire.asked_one().0, BEAT);
    assert_eq!(wire.asked(), []);
    assert!(!wire.is_closed());
}

#[test]
fn a_caller_that_half_closes_gets_its_answers_first() {
    let mut wire = Wire::warm();
    wire.caller(&echo(1, b""));
    let sequence = wire.asked_one().1;
    wire.half_close();
    assert!(!wire.finished);
    let reply = wire.reply(ECHO, sequence, 0, b"still");
    wire.server(&reply);
    assert_eq!(wire.answer(1), ok(b"still"));
    assert!(wire.finished);
}
