//! What goes on, and what comes back.

use std::time::Duration;

use serde_json::json;

use super::wire::*;
use crate::companion::Outcome;
use crate::protocol::layout::{FieldValue, Flags};
use crate::session::seal::{TrafficKey, TrafficKeys, client_side};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_request_goes_on_as_it_is_but_for_its_sequence_and_so_does_its_reply() {
    let mut wire = Wire::new();
    let zone = [("zone", FieldValue::Unsigned(513)), ("user", FieldValue::Text(b"bob"))];
    let request = wire.request_with(ECHO, 70_000, b"hello", &zone);
    wire.client(&request);
    let sent = wire.to_server.clone();
    let (_, sequence, ..) = wire.asked_one();
    let mut expected = request.clone();
    expected[11..15].copy_from_slice(&(sequence as u32).to_be_bytes());
    assert_eq!(sent, expected);

    // Bits without a meaning and reserved fields are the server's own.
    let mut reply = wire.reply(ECHO, sequence, 5, b"no");
    (reply[2], reply[17], reply[26]) = (reply[2] | 0x80, b'z', 9);
    wire.server(&reply);
    reply[11..15].copy_from_slice(&70_000u32.to_be_bytes());
    assert_eq!(wire.to_client, reply);
    assert_eq!(wire.counted("calls_total.command.1100_1104.code.NOT_FOUND"), 1);
    assert_eq!(wire.counted("calls_in_flight"), 0);
}

#[test]
fn calls_are_told_apart_by_sequences_of_the_filters_own() {
    let mut wire = Wire::new();
    wire.ask(ECHO, 9, b"first");
    wire.ask(ECHO, 4, b"second");
    wire.ask(ECHO, 9, b"again");
    assert_eq!(wire.asked().iter().map(|seen| seen.1).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(wire.replies(), [], "a bell is needed");
    wire.answer(ECHO, 2, b"two");
    // The refusal of the duplicate leaves with it.
    assert_eq!(wire.replies(), [(9, 6), (4, 0)]);
    wire.answer(ECHO, 1, b"one");
    assert_eq!(wire.replies(), [(9, 0)]);
    wire.ask(ECHO, 9, b"once more");
    assert_eq!(wire.asked_one().1, 4, "3 was the bell");
}

#[test]
fn a_late_reply_is_nobodys_though_the_sequence_is_in_use_again() {
    let mut wire = Wire::new();
    wire.ask(ECHO, 1, b"slow");
    assert_eq!(wire.asked_one().1, 1);
    wire.wait(2 * SECOND);
    let asked = wire.asked();
    assert_eq!((asked[0].0, asked[0].1, asked[0].3), (CANCEL, 1, Flags::ONE_WAY));
    assert_eq!(asked[1].0, BEAT);
    wire.answer(BEAT, asked[1].1, b"");
    assert_eq!(wire.replies(), [(1, 4)]);
    wire.ask(ECHO, 1, b"fast");
    let (_, sequence, ..) = wire.asked_one();
    wire.answer(ECHO, 1, b"too late");
    assert_eq!(wire.replies(), []);
    assert_eq!(wire.counted("upstream_errors_total.kind.late_reply"), 1);
    wire.answer(ECHO, sequence, b"in time");
    assert_eq!(wire.heard()[0].4, b"in time");
}

#[test]
fn a_one_way_command_is_done_when_it_is_sent() {
    let mut wire = Wire::new();
    wire.ask(SAY, 5, b"hi");
    let (command, sequence, _, flags, body) = wire.asked_one();
    assert_eq!((command, sequence, flags, &body[..]), (SAY, 0, Flags::ONE_WAY, &b"hi"[..]));
    assert_eq!(wire.counted("calls_in_flight"), 0);
    assert_eq!(wire.counted("calls_total.command.1003.code.OK"), 1);
}

#[test]
fn a_cancel_names_the_call_by_its_sequence_at_the_server() {
    let mut wire = Wire::new();
    wire.ask(REPEAT, 8, b"");
    let (_, sequence, ..) = wire.asked_one();
    let messages = [wire.push(REPEATED, sequence, b"1"), wire.push(REPEATED, sequence, b"2")];
    wire.server(&messages.concat());
    let heard = wire.heard();
    assert_eq!(heard[0], (REPEATED, 8, 0, Flags::PUSH, b"1".to_vec()));
    assert_eq!(heard.len(), 2);
    wire.ask(CANCEL, 8, b"");
    let asked = wire.asked();
    assert_eq!((asked[0].0, asked[0].1), (CANCEL, sequence));
    wire.answer(BEAT, asked[1].1, b"");
    assert_eq!(wire.replies(), [(8, 1)]);
    wire.server(&messages[0]);
    wire.answer(REPEAT, sequence, b"");
    assert_eq!(wire.replies(), [], "nobody listens any more");
}

#[test]
fn what_the_server_sends_unasked_goes_by_the_table() {
    let mut wire = Wire::new();
    wire.ask(ECHO, 1, b"");
    let (line, other) = (wire.push(LINE, 77, b"news"), wire.push(REPEATED, 0, b"?"));
    wire.server(&[line.clone(), other].concat());
    assert_eq!(wire.to_client, line);
    assert_eq!(wire.counted("upstream_errors_total.kind.unsolicited"), 1);
    assert_eq!(wire.counted("pushes_total"), 1);
}

#[test]
fn heartbeats_of_clients_end_at_the_filter() {
    let mut wire = Wire::new();
    wire.ask(BEAT, 6, b"alive");
    // It is the bell that the server hears.
    wire.answer_bell();
    assert_eq!(wire.heard(), [(BEAT, 6, 0, Flags::REPLY, b"alive".to_vec())]);
    wire.wait(10 * SECOND);
    wire.answer_bell();
    assert!(!wire.is_closed());
}

#[test]
fn requests_wait_for_the_servers_login_and_refusals_do_not() {
    let mut document = document();
    document["server"]["login"] =
        json!({"command": SERVER_LOGIN, "body": "gate", "fields": {"zone": "7"}});
    let mut wire = Wire::of(&document);
    wire.ask(ECHO, 1, b"early");
    let (command, sequence, _, _, body) = wire.asked_one();
    assert_eq!((command, &body[..]), (SERVER_LOGIN, &b"gate"[..]));
    wire.ask(SERVER_LOGIN, 2, b"forged");
    wire.ask(ECHO, 3, b"second");
    assert_eq!(wire.asked(), []);
    wire.answer(SERVER_LOGIN, sequence, b"");
    assert_eq!(wire.replies(), [(2, 12)]);
    let bodies: Vec<_> = wire.asked().into_iter().map(|seen| seen.4).collect();
    assert_eq!(bodies, [b"early".to_vec(), b"second".to_vec()]);
}

#[test]
fn the_server_is_told_who_it_is_and_the_client_cannot_say_it() {
    let mut wire = Wire::of(&with_logins());
    let forged = [("user", FieldValue::Text(b"root"))];
    let before = wire.request_with(ECHO, 1, b"visitor", &forged);
    wire.client(&before);
    assert_eq!(wire.clusters, ["server"]);
    assert_eq!(wire.to_server[17..25], [0; 8], "nobody has logged in");
    let sequence = wire.asked_one().1;
    let mut reply = wire.reply(ECHO, sequence, 0, b"hello");
    reply[17..21].copy_from_slice(b"root");
    wire.server(&reply);
    assert_eq!(wire.to_client[17..25], [0; 8], "nor is it the client's to read");
    wire.heard();

    wire.ask(LOGIN, 2, b"ticket");
    wire.companion(Outcome::LoginAccepted(accepted()));
    wire.answer_bell();
    assert_eq!(wire.replies(), [(2, 0)]);
    let after = wire.request_with(ECHO, 3, b"ann", &forged);
    wire.client(&after);
    assert_eq!(wire.to_server[17..25], *b"ann\0\0\0\0\0");
    wire.asked();
    let say = wire.request_with(SAY, 4, b"ann", &forged);
    wire.client(&say);
    assert_eq!(wire.to_server[17..25], *b"ann\0\0\0\0\0");
}

#[test]
fn who_cannot_be_told_to_the_server_asks_it_nothing() {
    let mut wire = Wire::of(&with_logins());
    wire.ask(LOGIN, 1, b"ticket");
    let user = "longer than the field".into();
    wire.companion(Outcome::LoginAccepted(crate::session::Accepted { user, ..accepted() }));
    wire.answer_bell();
    wire.heard();
    wire.ask(ECHO, 2, b"");
    wire.answer_bell();
    assert_eq!(wire.replies(), [(2, 9)]);
}

#[test]
fn strangers_are_refused_where_no_server_hears_of_it() {
    let mut wire = Wire::of(&with_logins());
    wire.ask(SAY, 1, b"hi");
    wire.ask(REPEAT, 2, b"hi");
    assert_eq!(wire.clusters, ["refusals"]);
    assert_eq!(wire.asked_one().0, BEAT);
    wire.server(b"whatever");
    assert_eq!(wire.replies(), [(2, 16)]);
    wire.wait(SECOND / 100);
    assert!(wire.is_closed());
}

#[test]
fn sealed_frames_are_plain_to_the_server() {
    let mut document = with_logins();
    document["session"] = json!({"mode": "noise", "audience": "demo",
        "login": {"command": LOGIN}, "goodbye": {"command": GOODBYE}});
    let mut wire = Wire::of(&document);
    wire.ask(LOGIN, 1, b"message");
    let key = |byte| TrafficKey::from_slice(&[byte; 32]).unwrap();
    let keys = || TrafficKeys { client_to_server: key(1), server_to_client: key(2) };
    let login = crate::session::Accepted { keys: Some(keys()), ..accepted() };
    wire.companion(Outcome::LoginAccepted(login));
    wire.answer_bell();
    assert_eq!(wire.replies(), [(1, 0)]);
    let (mut sealer, mut opener) = client_side(&keys());

    // The second one is compressed by the client, and stays so.
    let bodies = [b"hello".to_vec(), vec![b'x'; 1000]];
    for (number, body) in (50u64..).zip(&bodies) {
        let mut sealed = Vec::new();
        let parts = [&body[..]];
        let request = crate::protocol::layout::Request {
            compress: true,
            ..crate::protocol::layout::Request::new(
                crate::protocol::layout::Command::Number(ECHO),
                number,
                &parts,
            )
        };
        let layout = &wire.terms.config.layout;
        layout.encode_request(request, Some(&mut sealer), &mut sealed).unwrap();
        wire.client(&sealed);
        if number == 50 {
            wire.companion(Outcome::Activated);
        }
        let (_, sequence, _, flags, got) = wire.asked_one();
        let compressed = Flags::NONE.with_if(body.len() > 64, Flags::COMPRESSED);
        assert_eq!(flags, compressed);
        let mut plain = Vec::new();
        let layout = &wire.terms.config.layout;
        assert_eq!(layout.open_body(flags, &got, 2000, &mut plain).unwrap(), body);

        wire.answer(ECHO, sequence, body);
        let heard = std::mem::take(&mut wire.to_client);
        let layout = &wire.terms.config.layout;
        let frame = whole(layout, &heard);
        assert_eq!((frame.sequence, frame.flags), (number, Flags::REPLY.with(Flags::SEALED)));
        let (mut associated, mut sealed) = (Vec::new(), frame.body.to_vec());
        layout.associated_data(&frame, &mut associated);
        assert_eq!(opener.open(&[&associated], &mut sealed).unwrap(), body);
    }
}

#[test]
fn a_client_that_half_closes_gets_its_answers_first() {
    let mut wire = Wire::new();
    wire.ask(ECHO, 1, b"last");
    let sequence = wire.asked_one().1;
    wire.half_close();
    assert!(!wire.finished);
    wire.answer(ECHO, sequence, b"answer");
    assert_eq!(wire.replies(), [(1, 0)]);
    assert!(wire.finished);
}
