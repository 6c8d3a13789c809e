//! Streams, and what a server sends unasked.

use std::time::Duration;

use super::wire::*;
use crate::protocol::layout::Flags;

fn told(messages: &[&[u8]], code: Option<u8>, text: &str) -> Answer {
    let messages = messages.iter().map(|message| message.to_vec()).collect();
    Answer { messages, status: code.map(|code| (code, text.into())), reset: None }
}

#[test]
fn a_streams_pushes_are_its_messages_and_the_reply_its_end() {
    let mut wire = Wire::warm();
    let repeat = |stream| call(stream, "/demo.v1.Echo/Repeat", b"again");
    wire.caller(&[repeat(1), repeat(3)].concat());
    let asked = wire.asked();
    assert_eq!(asked[0].0, REPEAT);
    for (_, sequence, ..) in &asked {
        let body = sequence.to_be_bytes();
        let push = wire.push(REPEATED, *sequence, &body);
        wire.server(&[&push[..], &push].concat());
    }
    for ((_, sequence, ..), stream) in asked.iter().zip([1, 3]) {
        let body = sequence.to_be_bytes();
        assert_eq!(wire.answer(stream), told(&[&body, &body], None, ""));
    }
    wire.wait(Duration::from_secs(3));
    let (good, bad) =
        (wire.reply(REPEAT, asked[0].1, 0, b""), wire.reply(REPEAT, asked[1].1, 10, b"enough"));
    wire.server(&[good, bad].concat());
    assert_eq!(wire.answer(1).status, Some((0, String::new())));
    assert_eq!(wire.answer(3).status, Some((10, "enough".into())));
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn what_comes_unasked_goes_to_every_caller_that_listens() {
    let mut wire = Wire::warm();
    let listen = |stream| call(stream, "/demo.v1.Hall/Listen", b"");
    wire.caller(&[listen(1), listen(3), echo(5, b"")].concat());
    let (command, sequence, ..) = wire.asked_one();
    assert_eq!(command, ECHO, "the server is not asked for what it sends anyway");
    let (line, other) = (wire.push(LINE, 0, b"hi"), wire.push(1207, 0, b"?"));
    wire.server(&[line, other].concat());
    assert_eq!(
        (wire.answer(1), wire.answer(3)),
        (told(&[b"hi"], None, ""), told(&[b"hi"], None, ""))
    );
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 1);
    wire.caller(&reset(1));
    assert_eq!(wire.asked(), [], "it was never asked");
    let line = wire.push(LINE, 0, b"ho");
    let reply = wire.reply(ECHO, sequence, 0, b"");
    wire.server(&[line, reply].concat());
    assert_eq!(wire.answer(1).messages.len(), 1);
    assert_eq!(wire.answer(3).messages, [b"hi", b"ho"]);
    assert_eq!(wire.answer(5), ok(b""));
    wire.server_closes();
    assert_eq!(wire.answer(3).status.unwrap().0, 14);
}

#[test]
fn a_stream_that_is_given_up_is_cancelled_and_its_pushes_dropped() {
    let mut wire = Wire::warm();
    wire.caller(&call(1, "/demo.v1.Echo/Repeat", b""));
    let sequence = wire.asked_one().1;
    wire.caller(&reset(1));
    let cancel = wire.asked_one();
    assert_eq!((cancel.0, cancel.1, cancel.2), (CANCEL, sequence, Flags::ONE_WAY));
    let push = wire.push(REPEATED, sequence, b"late");
    wire.server(&push);
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 0);
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn streams_end_when_their_caller_half_closes() {
    let mut wire = Wire::warm();
    wire.caller(&call(1, "/demo.v1.Hall/Listen", b""));
    wire.half_close();
    assert!(wire.finished);
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn a_stream_has_no_deadline_but_its_callers() {
    let mut wire = Wire::warm();
    let hurried = head(3, "/demo.v1.Hall/Listen", &[("grpc-timeout", "1S")]);
    wire.caller(&[call(1, "/demo.v1.Hall/Listen", b""), hurried, body(3, b"")].concat());
    wire.wait(Duration::from_secs(9));
    wire.answer_bell();
    assert_eq!(wire.answer(3).status.unwrap().0, 4);
    assert_eq!(wire.answer(1), Answer::default());
}
