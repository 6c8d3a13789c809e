//! Pushes of the companion at one connection.

use super::*;
use crate::companion::push::{Push, PushCommand};

impl Wire {
    fn push_command(&mut self, reference: u64, command: PushCommand, body: &[u8]) {
        self.worker.link.begin_push(reference, Push::new(command, body.to_vec()), 3);
        let delivery = self.worker.link.poll_push().unwrap();
        self.bridge.handle_push(self.now, &delivery, &mut self.worker);
        self.settle();
    }

    fn push(&mut self, reference: u64, body: &[u8]) {
        self.push_command(reference, PushCommand::Number(NOTICE as i64), body);
    }

    fn answers(&mut self) -> Vec<(u64, [u32; 4])> {
        self.worker.link.push_answers()
    }

    fn logged_in() -> Self {
        let mut wire = Self::ticket();
        wire.log_in();
        wire
    }

    /// With room for 16 KiB, and a word on what becomes of more.
    fn with_little_room(when_full: &str) -> Self {
        let session = json!({"mode": "ticket", "audience": "demo", "trusted": true,
            "login": {"command": LOGIN}, "goodbye": {"command": GOODBYE}});
        let mut document = document(session, json!({"authority": "game"}));
        document["limits"] = json!({"max_unread": "16KiB"});
        document["push"]["when_full"] = json!(when_full);
        let mut wire = Self::new(&compile(document));
        wire.log_in();
        wire
    }
}

fn notice(body: &[u8]) -> Seen {
    (NOTICE, 0, 0, "push", body.to_vec())
}

const DELIVERED: [u32; 4] = [1, 0, 0, 0];
const GONE: [u32; 4] = [0, 1, 0, 0];
const SLOW: [u32; 4] = [0, 0, 1, 0];
const REFUSED: [u32; 4] = [0, 0, 0, 1];

#[test]
fn a_push_rings_and_is_delivered_when_its_frame_has_left() {
    let mut wire = Wire::logged_in();
    wire.push(5, b"one");
    wire.push(6, b"two");
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)], "one bell for both");
    assert_eq!((wire.heard(), wire.answers()), (vec![], vec![]));
    wire.service(&acknowledged());
    assert_eq!(wire.heard(), [notice(b"one"), notice(b"two")]);
    assert_eq!(wire.answers(), [(5, DELIVERED), (6, DELIVERED)]);
}

#[test]
fn a_push_comes_between_what_is_said_before_and_after_it() {
    let mut wire = Wire::logged_in();
    wire.client(&request(ECHO, 2, b"x"));
    wire.push(5, b"news");
    wire.client(&request(3, 3, b"beat"));
    wire.service(&reply(1, b"y"));
    // The call's reply came with the bytes that let the other two out.
    let sorts: Vec<_> = wire.heard().into_iter().map(|(command, ..)| command).collect();
    assert_eq!(sorts, [NOTICE, 3, ECHO]);
    assert_eq!(wire.answers(), [(5, DELIVERED)]);
}

#[test]
fn nobody_is_pushed_to_before_the_login_or_after_the_end() {
    let mut wire = Wire::ticket();
    wire.push(1, b"x");
    wire.client(&request(LOGIN, 1, b"ticket"));
    wire.push(2, b"x");
    wire.companion(Outcome::LoginAccepted(accepted()));
    wire.service(&opening());
    wire.heard();
    wire.push(3, b"in time");
    wire.companion(Outcome::Kick { reason: "out".into(), code: 0 });
    wire.push(4, b"late");
    wire.service(&acknowledged());
    let heard: Vec<_> = wire.heard().into_iter().map(|(command, ..)| command).collect();
    assert_eq!(heard, [NOTICE, GOODBYE]);
    assert_eq!(wire.answers(), [(1, GONE), (2, GONE), (4, GONE), (3, DELIVERED)]);
}

#[test]
fn after_a_half_close_no_push_can_be_said() {
    let mut wire = Wire::logged_in();
    wire.half_close();
    wire.push(5, b"x");
    assert_eq!(wire.answers(), [(5, GONE)]);
}

#[test]
fn commands_that_the_listener_does_not_name_are_refused() {
    let mut wire = Wire::logged_in();
    for (reference, command) in [
        (1, PushCommand::Number(ECHO as i64)),
        (2, PushCommand::Number(-1)),
        (3, PushCommand::Text("news".into())),
        (4, PushCommand::Number(GOODBYE as i64)),
        (5, PushCommand::Number(1311)),
    ] {
        wire.push_command(reference, command, b"x");
    }
    for (reference, command) in
        [(6, PushCommand::Text("0x513".into())), (7, PushCommand::Number(1310))]
    {
        wire.push_command(reference, command, b"x");
    }
    wire.service(&acknowledged());
    let refused = (1..=5).map(|reference| (reference, REFUSED));
    let expected: Vec<_> = refused.chain([(6, DELIVERED), (7, DELIVERED)]).collect();
    assert_eq!(wire.answers(), expected);
    let heard: Vec<_> = wire.heard().into_iter().map(|(command, ..)| command).collect();
    assert_eq!(heard, [NOTICE, 1310]);
}

#[test]
fn a_listener_that_says_nothing_of_pushes_takes_none() {
    let login = json!({"command": LOGIN});
    let session = json!({"mode": "ticket", "audience": "demo", "trusted": true, "login": login});
    let mut document = document(session, json!({"authority": "game"}));
    document.as_object_mut().unwrap().remove("push");
    let mut wire = Wire::new(&compile(document));
    wire.client(&request(LOGIN, 1, b"ticket"));
    wire.companion(Outcome::LoginAccepted(accepted()));
    wire.push(5, b"x");
    assert_eq!(wire.answers(), [(5, REFUSED)]);
}

#[test]
fn what_waits_for_a_client_that_does_not_read_is_bounded() {
    let mut wire = Wire::logged_in();
    let limit = wire.bridge.terms.config.limits.max_unread.get();
    let body = vec![7; limit / 4];
    for reference in 0..8 {
        wire.push(reference, &body);
    }
    let dropped: Vec<_> = wire.answers().into_iter().map(|(reference, _)| reference).collect();
    assert_eq!(dropped, [3, 4, 5, 6, 7], "with their headers four do not fit");
    wire.service(&acknowledged());
    assert_eq!(wire.answers(), [(0, DELIVERED), (1, DELIVERED), (2, DELIVERED)]);
    // There is room again; and one alone may be larger than the room.
    wire.to_client.clear();
    wire.push(9, &vec![7; limit * 2]);
    wire.push(10, b"x");
    assert_eq!(wire.answers(), [(10, SLOW)]);
    wire.service(&acknowledged());
    assert_eq!(wire.answers(), [(9, DELIVERED)]);
}

#[test]
fn the_oldest_make_room_where_the_configuration_says_so() {
    let mut wire = Wire::with_little_room("drop_oldest");
    let body = |n: u64| vec![n as u8; 5000];
    for reference in 0..5 {
        wire.push(reference, &body(reference));
    }
    assert_eq!(wire.answers(), [(0, SLOW), (1, SLOW)]);
    // What has been said after a push leaves no gap before it.
    wire.client(&request(3, 9, b"beat"));
    wire.push(5, &body(5));
    assert_eq!(wire.answers(), [(5, SLOW)]);
    wire.service(&acknowledged());
    let beat = (3, 9, 0, "reply", b"beat".to_vec());
    assert_eq!(wire.heard(), [notice(&body(2)), notice(&body(3)), notice(&body(4)), beat]);
    assert_eq!(wire.answers(), [(2, DELIVERED), (3, DELIVERED), (4, DELIVERED)]);
}

#[test]
fn one_too_many_closes_the_connection_where_the_configuration_says_so() {
    let mut wire = Wire::with_little_room("close");
    for reference in 0..3 {
        wire.push(reference, &[7; 5000]);
    }
    assert!(!wire.is_closed() && wire.answers().is_empty());
    wire.push(3, &[7; 5000]);
    assert!(wire.is_closed());
    wire.bridge.handle_closed(wire.now, &mut wire.worker);
    assert_eq!(wire.answers(), [(3, SLOW), (0, GONE), (1, GONE), (2, GONE)]);
}

#[test]
fn what_had_not_left_when_the_connection_ended_is_gone() {
    let mut wire = Wire::logged_in();
    wire.push(5, b"x");
    wire.bridge.handle_closed(wire.now, &mut wire.worker);
    assert_eq!(wire.answers(), [(5, GONE)]);
}

#[test]
fn a_bell_that_is_not_answered_closes_the_connection_and_the_push_is_gone() {
    let mut wire = Wire::logged_in();
    wire.push(5, b"x");
    wire.sleep();
    assert!(wire.is_closed());
    // Until Envoy has closed it, timers may fire: it is told once.
    wire.bridge.handle_timeout(wire.now, &mut wire.worker);
    let mut told = 0;
    wire.worker.metrics.drain(&mut |name, _, delta, _| {
        told += if name().contains("bell_unanswered") { delta } else { 0 };
    });
    assert_eq!(told, 1);
    wire.bridge.handle_closed(wire.now, &mut wire.worker);
    assert_eq!(wire.answers(), [(5, GONE)]);
}

#[test]
fn the_session_of_a_client_that_does_not_read_is_away_when_it_is_given_up() {
    let mut wire = Wire::logged_in();
    wire.push(1, b"unread");
    assert!(!wire.bridge.tally.session_ended);
    wire.sleep();
    assert!(wire.is_closed());
    // Envoy may keep the connection for as long as TCP tries to get the rest across.
    assert!(wire.bridge.tally.session_ended);
}
