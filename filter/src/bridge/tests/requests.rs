//! Calls, their replies, and the bell that refusals ring.

use super::*;

#[test]
fn a_unary_call_comes_back() {
    let mut wire = Wire::direct();
    wire.client(&request(ECHO, 42, b"hello"));
    let sent = wire.sent();
    let data = sent.iter().find(|(kind, ..)| *kind == Kind::Data).unwrap();
    assert_eq!((data.2, &data.3[..]), (1, &b"\0\0\0\0\x05hello"[..]));
    assert_eq!(data.1 & END_STREAM, END_STREAM);
    wire.service(&[opening(), reply(1, b"olleh")].concat());
    assert_eq!(wire.heard(), [(ECHO, 42, 0, "reply", b"olleh".to_vec())]);
}

#[test]
fn replies_come_in_the_order_of_the_service() {
    let mut wire = Wire::direct();
    wire.client(&[request(ECHO, 8, b"a"), request(ECHO, 9, b"b")].concat());
    wire.service(&[opening(), reply(3, b"B"), reply(1, b"A")].concat());
    assert_eq!(wire.replies(), [(9, 0, "reply"), (8, 0, "reply")]);
}

#[test]
fn an_error_of_the_service_is_told_with_its_text() {
    let mut wire = Wire::direct();
    wire.client(&request(ECHO, 4, b"x"));
    let fields = [(":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20room")];
    wire.service(&[opening(), headers(END_STREAM, 1, &fields)].concat());
    assert_eq!(wire.heard(), [(ECHO, 4, 5, "error", b"no room".to_vec())]);
}

#[test]
fn every_split_of_the_clients_bytes_gives_the_same_upstream_bytes() {
    let bytes = [
        request(ECHO, 1, b"one"),
        request(UNKNOWN, 2, b"refused"),
        request(SAY, 3, b""),
        request(ECHO, 4, b"four"),
    ]
    .concat();
    let mut whole = Wire::direct();
    whole.client(&bytes);
    let streams =
        |wire: &mut Wire| wire.kinds().iter().filter(|(kind, _)| *kind == Kind::Headers).count();
    for at in 0..=bytes.len() {
        let mut wire = Wire::direct();
        let (front, back) = bytes.split_at(at);
        wire.client(front);
        wire.client(back);
        assert_eq!(wire.to_service, whole.to_service, "split at {at}");
    }
    assert_eq!(streams(&mut whole), 3);
}

#[test]
fn every_split_of_the_services_bytes_gives_the_same_replies() {
    let bytes = [opening(), reply(3, b"second"), reply(1, b"first")].concat();
    let expected =
        [(ECHO, 2, 0, "reply", b"second".to_vec()), (ECHO, 1, 0, "reply", b"first".to_vec())];
    for at in 0..=bytes.len() {
        let mut wire = Wire::direct();
        wire.client(&[request(ECHO, 1, b"a"), request(ECHO, 2, b"b")].concat());
        let (front, back) = bytes.split_at(at);
        wire.service(front);
        wire.service(back);
        assert_eq!(wire.heard(), expected, "split at {at}");
    }
}

#[test]
fn several_refusals_wait_for_one_bell() {
    let mut wire = Wire::warm();
    for sequence in 5..8 {
        wire.client(&request(UNKNOWN, sequence, b""));
    }
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)]);
    assert_eq!(wire.replies(), []);
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(5, 12, "error"), (6, 12, "error"), (7, 12, "error")]);
    assert_eq!(wire.kinds(), []);
    // The next refusal rings again.
    wire.client(&request(UNKNOWN, 8, b""));
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)]);
}

#[test]
fn nothing_rings_when_the_reply_leaves_with_the_services_bytes() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    wire.sent();
    wire.service(&reply(3, b"y"));
    assert_eq!(wire.replies(), [(5, 0, "reply")]);
    assert_eq!(wire.kinds(), []);
    assert_eq!(wire.bridge.poll_timeout(), None);
}

#[test]
fn an_unanswered_bell_closes_the_connection() {
    let mut wire = Wire::warm();
    wire.client(&request(UNKNOWN, 5, b""));
    assert!(!wire.is_closed());
    assert_eq!(wire.sleep(), Duration::from_secs(5));
    assert!(wire.is_closed());
    assert_eq!(wire.replies(), []);
}

#[test]
fn a_deadline_answers_and_resets_the_stream() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    wire.sent();
    assert_eq!(wire.sleep(), Duration::from_secs(2));
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 3), (Kind::Settings, 0)]);
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(5, 4, "error")]);
    // What the service says too late is nobody's reply.
    wire.service(&reply(3, b"late"));
    assert_eq!(wire.replies(), []);
    assert!(!wire.is_closed());
}

#[test]
fn a_sequence_in_flight_is_refused_and_free_again_after_its_reply() {
    let mut wire = Wire::warm();
    wire.client(&[request(ECHO, 5, b"x"), request(ECHO, 5, b"y")].concat());
    let sent = wire.kinds();
    assert_eq!(sent, [(Kind::Headers, 3), (Kind::Data, 3), (Kind::Settings, 0)]);
    wire.service(&[acknowledged(), reply(3, b"X")].concat());
    assert_eq!(wire.replies(), [(5, 6, "error"), (5, 0, "reply")]);
    wire.client(&request(ECHO, 5, b"z"));
    assert_eq!(wire.kinds(), [(Kind::Headers, 5), (Kind::Data, 5)]);
}

#[test]
fn a_one_way_call_gets_no_reply() {
    let mut wire = Wire::warm();
    wire.client(&request(SAY, 5, b"x"));
    assert_eq!(wire.kinds(), [(Kind::Headers, 3), (Kind::Data, 3)]);
    wire.service(&reply(3, b"done"));
    assert_eq!(wire.replies(), []);
    // Nor does one that fails.
    wire.client(&request(SAY, 6, b"x"));
    wire.sent();
    wire.sleep();
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 5)]);
    assert_eq!(wire.replies(), []);
}

#[test]
fn a_refused_frame_that_wants_no_reply_rings_no_bell() {
    let mut wire = Wire::warm();
    let mut bytes = Vec::new();
    let quiet = Request { one_way: true, ..Request::new(Command::Number(UNKNOWN), 5, &[]) };
    wire.bridge.terms.config.layout.encode_request(quiet, None, &mut bytes).unwrap();
    wire.client(&bytes);
    assert_eq!(wire.kinds(), []);
    assert_eq!(wire.bridge.poll_timeout(), None);
}

#[test]
fn a_one_way_command_that_is_refused_gets_no_reply_either() {
    let mut wire = Wire::warm();
    for _ in 0..130 {
        wire.client(&request(SAY, 5, b"x"));
    }
    // Two were beyond `limits.max_in_flight`.
    assert_eq!(wire.kinds().iter().filter(|(kind, _)| *kind == Kind::Settings).count(), 0);
    assert_eq!(wire.bridge.tally.errors, 2);
    // An unknown command is one-way if its frame says so, and otherwise answered.
    wire.client(&request(UNKNOWN, 6, b""));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(6, 12, "error")]);
}

#[test]
fn a_command_that_cannot_be_handed_on_is_refused() {
    let document = json!({
        "layout": {
            "name": "text",
            "header": [
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": {"text": 8}, "role": "command"},
                {"name": "sequence", "type": "u32", "role": "sequence"},
                {"name": "status", "type": "u16", "role": "status"}
            ]
        },
        "session": {"mode": "none"},
        "upstream": {"authority": "game"},
        "otherwise": {"method": "/demo.v1.Legacy/Handle", "command_metadata": "x-command"},
        "statuses": {"error_text": true}
    });
    let terms = Config::parse(document.to_string().as_bytes()).unwrap();
    let mut wire = Wire::new(&Rc::new(Terms::new(terms)));
    wire.service(&opening());
    let commands = [(&b"enter"[..], None), (b"a\r\nb: c", Some(3)), (b"\xff", Some(3))];
    for (sequence, (command, code)) in (7..).zip(commands) {
        let mut bytes = Vec::new();
        let request = Request::new(Command::Text(command), sequence, &[]);
        wire.bridge.terms.config.layout.encode_request(request, None, &mut bytes).unwrap();
        wire.sent();
        wire.client(&bytes);
        let begun = wire.kinds().iter().any(|(kind, _)| *kind == Kind::Headers);
        assert_eq!(begun, code.is_none(), "{}", command.escape_ascii());
        if code.is_some() {
            wire.service(&acknowledged());
        }
        let told = std::mem::take(&mut wire.to_client);
        assert_eq!(told.get(16..18).map(|status| u16::from_be_bytes([status[0], status[1]])), code);
    }
}

#[test]
fn too_many_refusals_close_without_a_word() {
    let mut wire = Wire::warm();
    for sequence in 0..20 {
        wire.client(&request(UNKNOWN, sequence, b""));
    }
    assert!(!wire.is_closed());
    wire.client(&request(UNKNOWN, 20, b""));
    assert!(wire.is_closed());
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), []);
}

#[test]
fn an_idle_connection_holds_no_buffers_and_no_timer() {
    let mut wire = Wire::warm();
    wire.client(&[request(ECHO, 5, b"x"), request(UNKNOWN, 6, b"")].concat());
    wire.service(&[acknowledged(), reply(3, b"y")].concat());
    assert_eq!(wire.replies().len(), 2);
    assert_eq!(wire.bridge.leg.output().capacity(), 0);
    assert_eq!(wire.bridge.to_client.capacity(), 0);
    assert_eq!(wire.bridge.rest.capacity(), 0);
    assert!(wire.bridge.calls.is_empty());
    assert_eq!(wire.bridge.poll_timeout(), None);
}
