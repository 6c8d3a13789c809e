//! Clients and a server that speak different layouts, and ones without sequences.

use serde_json::{Value, json};

use super::wire::*;
use crate::protocol::layout::{Command, FieldValue, Flags, Reply, Request};

/// The server's: little-endian, a kind, the status before the body, commands by name.
fn old() -> Value {
    json!({
        "name": "old",
        "byte_order": "little",
        "header": [
            {"name": "length", "type": "u16", "role": {"length": {"counts": "frame"}}},
            {"name": "kind", "type": "u8", "role": {"kind": {"request": 1, "reply": 2, "push": 3}}},
            {"name": "sequence", "type": "u16", "role": "sequence"},
            {"name": "command", "type": {"text": 8}, "role": "command"},
            {"name": "realm", "type": "u32", "metadata": "x-zone"},
            {"name": "player", "type": "varint"}
        ],
        "reply": {"status": {"body_prefix": "i32"}, "command": {"append": "!"}}
    })
}

fn translated() -> Value {
    let mut document = document();
    document["server"] = json!({
        "layout": old(),
        "heartbeat": {"command": "ping"},
        "cancel": {"command": "stop"}
    });
    document["commands"] = json!([
        {"command": ECHO, "server_command": "echo"},
        {"command": SAY, "server_command": "say", "kind": "one_way"}
    ]);
    document
}

/// Answers the one request that the server got.
fn answer(wire: &mut Wire, status: i64, body: &[u8]) {
    let asked = std::mem::take(&mut wire.to_server);
    let layout = wire.terms.config.server_layout();
    let mut out = Vec::new();
    let parts = [body];
    let reply = Reply { status, error: false, body: &parts, compress: false };
    layout.encode_reply(&layout.seed(&whole(layout, &asked)), reply, None, &mut out).unwrap();
    wire.server(&out);
}

#[test]
fn command_sequence_body_fields_and_status_are_translated() {
    let mut wire = Wire::of(&translated());
    let zone = [("zone", FieldValue::Unsigned(513))];
    let request = wire.request_with(ECHO, 70_000, b"hello", &zone);
    wire.client(&request);
    let sent = wire.to_server.clone();
    let frame = whole(wire.terms.config.server_layout(), &sent);
    assert_eq!((frame.command, frame.body), (Command::Text(b"echo"), &b"hello"[..]));
    let fields: Vec<_> = wire.terms.config.server_layout().fields(&frame).collect();
    assert!(fields.contains(&("realm", FieldValue::Unsigned(513))), "{fields:?}");
    answer(&mut wire, 5, b"nobody");
    let flags = Flags::REPLY;
    assert_eq!(wire.heard(), [(ECHO, 70_000, 5, flags, b"nobody".to_vec())]);
}

#[test]
fn bodies_are_decompressed_for_a_server_that_cannot_read_them() {
    let mut wire = Wire::of(&translated());
    let body = vec![b'x'; 1000];
    let parts = [&body[..]];
    let request = Request { compress: true, ..Request::new(Command::Number(ECHO), 1, &parts) };
    let mut out = Vec::new();
    wire.terms.config.layout.encode_request(request, None, &mut out).unwrap();
    assert!(out.len() < 200);
    wire.client(&out);
    let sent = wire.to_server.clone();
    assert_eq!(whole(wire.terms.config.server_layout(), &sent).body, body);
    answer(&mut wire, 0, &body);
    let heard = std::mem::take(&mut wire.to_client);
    assert!(heard.len() < 200, "replies are compressed by the client's layout");
}

#[test]
fn the_filters_own_frames_are_the_servers_too() {
    let mut wire = Wire::of(&translated());
    wire.ask(ECHO, 1, b"slow");
    wire.to_server.clear();
    wire.wait(std::time::Duration::from_secs(2));
    let sent = std::mem::take(&mut wire.to_server);
    let layout = wire.terms.config.server_layout();
    let cancel = whole(layout, &sent);
    assert_eq!((cancel.command, cancel.sequence), (Command::Text(b"stop"), 1));
    wire.to_server = sent[cancel.raw.len()..].to_vec();
    assert_eq!(whole(layout, &wire.to_server).command, Command::Text(b"ping"));
    answer(&mut wire, 0, b"");
    assert_eq!(wire.replies(), [(1, 4)]);
}

/// Replies come in the order of the requests.
fn ordered() -> Value {
    let mut document = document();
    document["layout"]["header"].as_array_mut().unwrap().remove(4);
    document["layout"]["correlation"] = json!("order");
    document.as_object_mut().unwrap().remove("cancel");
    document["commands"] = json!([{"from": 1100, "to": 1104}]);
    document
}

#[test]
fn without_sequences_replies_keep_the_order_of_the_requests() {
    let mut wire = Wire::of(&ordered());
    wire.ask(ECHO, 0, b"one");
    wire.ask(9999, 0, b"unknown");
    wire.ask(ECHO + 1, 0, b"two");
    let asked: Vec<_> = wire.asked().into_iter().map(|seen| seen.0).collect();
    assert_eq!(asked, [ECHO, ECHO + 1]);
    wire.answer(ECHO, 0, b"1");
    let heard: Vec<_> = wire.heard().into_iter().map(|seen| (seen.0, seen.2)).collect();
    assert_eq!(heard, [(ECHO, 0), (9999, 12)], "the refusal had to wait for its turn");
    wire.answer(ECHO + 1, 0, b"2");
    assert_eq!(wire.heard()[0].4, b"2");
}

#[test]
fn without_sequences_a_late_reply_is_not_the_next_ones() {
    let mut wire = Wire::of(&ordered());
    wire.ask(ECHO, 0, b"one");
    wire.asked();
    wire.wait(std::time::Duration::from_secs(2));
    assert_eq!(wire.asked_one().0, BEAT);
    wire.ask(ECHO, 0, b"two");
    assert_eq!(wire.asked_one().4, b"two");
    wire.answer(ECHO, 0, b"late");
    wire.answer(BEAT, 0, b"");
    wire.answer(ECHO, 0, b"in time");
    let heard: Vec<_> = wire.heard().into_iter().map(|seen| (seen.2, seen.4)).collect();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!((heard[0].0, &heard[1].1[..]), (4, &b"in time"[..]));
}
