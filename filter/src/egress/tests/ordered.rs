//! Servers whose frames have no sequence.

use std::time::Duration;

use serde_json::{Value, json};

use super::wire::*;

fn ordered() -> Value {
    json!({
        "direction": "egress",
        "layout": {
            "name": "ordered",
            "header": [
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": "u16", "role": "command"},
                {"name": "status", "type": "u16", "role": "status"}
            ],
            "correlation": "order",
            "reply": {"command": {"set_bit": 15}}
        },
        "server": {"heartbeat": {"command": BEAT}, "late_reply_timeout": "5s"},
        "commands": [
            {"command": ECHO, "method": "/demo.v1.Echo/Echo", "deadline": "2s"},
            {"command": RAW, "method": "/demo.v1.Echo/Raw", "deadline": "2s"}
        ]
    })
}

fn warm() -> Wire {
    let mut wire = Wire::of(&ordered());
    wire.caller(&opening());
    wire.answer_bell();
    wire
}

#[test]
fn replies_belong_to_the_calls_in_their_order() {
    let mut wire = warm();
    wire.caller(&[echo(1, b"one"), call(3, "/demo.v1.Echo/Raw", b"two")].concat());
    let commands: Vec<u64> = wire.asked().iter().map(|(command, ..)| *command).collect();
    assert_eq!(commands, [ECHO, RAW]);
    let (one, two) = (wire.reply(ECHO, 0, 0, b"1"), wire.reply(RAW, 0, 0, b"2"));
    wire.server(&[one, two].concat());
    assert_eq!((wire.answer(1), wire.answer(3)), (ok(b"1"), ok(b"2")));
}

#[test]
fn a_frame_with_another_command_answers_nobody() {
    let mut wire = warm();
    wire.caller(&echo(1, b""));
    wire.asked();
    let (news, reply) = (wire.reply(77, 0, 0, b"news"), wire.reply(ECHO, 0, 0, b"mine"));
    wire.server(&[news, reply].concat());
    assert_eq!(wire.answer(1), ok(b"mine"));
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 1);
}

#[test]
fn a_late_reply_is_dropped_and_the_next_is_the_next_calls() {
    let mut wire = warm();
    wire.caller(&echo(1, b""));
    wire.wait(Duration::from_secs(2));
    wire.caller(&call(3, "/demo.v1.Echo/Raw", b""));
    let commands: Vec<u64> = wire.asked().iter().map(|(command, ..)| *command).collect();
    assert_eq!(commands, [ECHO, BEAT, RAW]);
    let late = wire.reply(ECHO, 0, 0, b"late");
    wire.server(&late);
    assert_eq!(wire.answer(1).status.unwrap().0, 4);
    let (bell, reply) = (wire.reply(BEAT, 0, 0, b""), wire.reply(RAW, 0, 0, b"mine"));
    wire.server(&[bell, reply].concat());
    assert_eq!(wire.answer(3), ok(b"mine"));
}

#[test]
fn a_reply_that_never_comes_ends_the_connection() {
    let mut wire = warm();
    wire.caller(&echo(1, b""));
    wire.wait(Duration::from_secs(2));
    // Within `late_reply_timeout` and `bell_timeout`, of which the first is over first.
    wire.wait(Duration::from_secs(5));
    assert!(wire.is_closed() || !wire.asked().is_empty());
    wire.wait(Duration::from_secs(5));
    assert!(wire.is_closed());
}
