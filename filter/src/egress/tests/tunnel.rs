//! A server behind a CONNECT stream.

use std::time::Duration;

use serde_json::json;

use super::wire::*;
use crate::protocol::grpc::frame::flag::{ACK, END_HEADERS, END_STREAM};
use crate::protocol::grpc::frame::{CLIENT_PREFACE, Head, Kind};

const SECOND: Duration = Duration::from_secs(1);

/// A connection through a tunnel to a server that has a login and a heartbeat.
fn tunnelled() -> Wire {
    let mut document = document();
    document["server"] = json!({
        "login": {"command": LOGIN, "reply": false},
        "heartbeat": {"command": BEAT, "interval": "10s"},
        "tunnel": {"authority": "private-server:7800"}
    });
    Wire::of(&document)
}

/// What went upstream: the frames by kind and stream, and the server's bytes.
fn upstream(wire: &mut Wire) -> (Vec<(Kind, u32)>, Vec<Seen>) {
    let bytes = wire.upstream();
    let mut left = bytes.strip_prefix(&CLIENT_PREFACE[..]).unwrap_or(&bytes);
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = left.split_first_chunk() {
        let head = Head::parse(head);
        let (load, rest) = rest.split_at(head.length as usize);
        if head.kind == Kind::Data {
            data.extend_from_slice(load);
        } else {
            heads.push((head.kind, head.stream));
        }
        left = rest;
    }
    (heads, wire.frames_in(&data))
}

fn ack() -> Vec<u8> {
    raw(Kind::Settings, ACK, 0, b"")
}

/// The answer to CONNECT: `:status 200`.
fn connected(stream: u32) -> Vec<u8> {
    raw(Kind::Headers, END_HEADERS, stream, &[0x88])
}

/// A connection over which an echo has gone to the server; its sequence.
fn asked() -> (Wire, u64) {
    let mut wire = tunnelled();
    wire.caller(&[opening(), echo(1, b"first")].concat());
    let (heads, frames) = upstream(&mut wire);
    let opening = [(Kind::Settings, 0), (Kind::WindowUpdate, 0), (Kind::Headers, 1)];
    assert_eq!((&heads[..], frames), (&opening[..], vec![]), "nothing before the 2xx");
    wire.server(&[raw(Kind::Settings, 0, 0, b""), ack(), connected(1)].concat());
    assert_eq!(wire.heard(Kind::Settings), 2, "what waited for the caller left with it");
    let (_, frames) = upstream(&mut wire);
    let commands: Vec<u64> = frames.iter().map(|(command, ..)| *command).collect();
    assert_eq!(commands, [LOGIN, ECHO]);
    (wire, frames[1].1)
}

#[test]
fn a_call_goes_through_the_tunnel_and_back() {
    let (mut wire, sequence) = asked();
    let reply = wire.reply(ECHO, sequence, 0, b"through");
    let (first, second) = reply.split_at(9);
    wire.server(&[raw(Kind::Data, 0, 1, first), raw(Kind::Data, 0, 1, second)].concat());
    assert_eq!(wire.answer(1), ok(b"through"));
}

#[test]
fn the_bell_is_the_tunnels_and_the_server_need_not_answer() {
    let (mut wire, _) = asked();
    wire.wait(SECOND * 2);
    let (heads, frames) = upstream(&mut wire);
    assert_eq!(heads, [(Kind::Settings, 0)]);
    assert_eq!(frames[0].0, CANCEL);
    wire.server(&ack());
    assert_eq!(wire.answer(1).status.unwrap().0, 4);
    assert!(!wire.is_closed());
}

#[test]
fn a_server_that_closes_loses_its_calls_and_the_next_finds_it_again() {
    let (mut wire, sequence) = asked();
    wire.caller(&call(3, "/demo.v1.Hall/Look", b""));
    wire.server(&raw(Kind::Data, END_STREAM, 1, b""));
    assert_eq!(wire.answer(1), failed(14, "the server closed the connection"));
    assert_eq!(wire.answer(3), refused(), "it may be carried out twice");
    upstream(&mut wire);
    wire.caller(&echo(5, b"again"));
    assert_eq!(upstream(&mut wire).0[0], (Kind::Headers, 3));
    wire.server(&connected(3));
    let (_, frames) = upstream(&mut wire);
    assert_eq!((frames[0].0, frames[1].0), (LOGIN, ECHO), "it is logged in to anew");
    let late = raw(Kind::Data, 0, 1, &wire.reply(ECHO, sequence, 0, b"of before"));
    let reply = raw(Kind::Data, 0, 3, &wire.reply(ECHO, frames[1].1, 0, b"again"));
    wire.server(&[late, reply].concat());
    assert_eq!(wire.answer(5), ok(b"again"));
    assert_eq!(wire.heard(Kind::GoAway), 0);
    assert!(!wire.is_closed());
}

#[test]
fn a_server_that_cannot_be_reached_got_nothing() {
    let mut wire = tunnelled();
    wire.caller(&[opening(), echo(1, b"")].concat());
    upstream(&mut wire);
    let unreachable = raw(Kind::Headers, END_HEADERS | END_STREAM, 1, b"\x08\x03503");
    wire.server(&[raw(Kind::Settings, 0, 0, b""), ack(), unreachable].concat());
    assert_eq!(wire.answer(1), refused());
    assert_eq!(wire.in_flight(), 0);
    upstream(&mut wire);
    wire.caller(&raw(Kind::Ping, 0, 0, &[0; 8]));
    wire.wait(SECOND);
    let tried = upstream(&mut wire).0.into_iter().filter(|(kind, _)| *kind == Kind::Headers);
    assert_eq!(tried.count(), 0, "it is not tried again before somebody calls");
}

#[test]
fn garbage_and_a_heartbeat_without_an_answer_end_the_servers_connection_alone() {
    let (mut wire, _) = asked();
    wire.server(&raw(Kind::Data, 0, 1, b"HTTP/1.1 400 Bad Request"));
    assert_eq!(wire.answer(1).status.unwrap().0, 14);
    assert!(upstream(&mut wire).0.contains(&(Kind::ResetStream, 1)));
    wire.caller(&echo(3, b""));
    upstream(&mut wire);
    wire.server(&connected(3));
    let sequence = upstream(&mut wire).1[1].1;
    let reply = raw(Kind::Data, 0, 3, &wire.reply(ECHO, sequence, 0, b""));
    wire.server(&reply);
    wire.wait(SECOND * 10);
    assert_eq!(upstream(&mut wire).1[0].0, BEAT);
    wire.wait(SECOND * 5);
    assert!(upstream(&mut wire).0.contains(&(Kind::ResetStream, 3)));
    assert!(!wire.is_closed());
}

#[test]
fn a_tunnel_that_goes_away_ends_the_connection() {
    let (mut wire, _) = asked();
    wire.server(&raw(Kind::GoAway, 0, 0, &[0; 8]));
    assert_eq!(wire.answer(1).status.unwrap().0, 14);
    assert_eq!(wire.heard(Kind::GoAway), 1);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
    assert_eq!(wire.in_flight(), 0);
}
