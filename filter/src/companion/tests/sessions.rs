//! Sessions that live: kicks, ends, and a companion that comes back.

use super::*;

#[test]
fn a_kick_reaches_the_connection_of_its_session_alone() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    let session = sim.live(8, 2);
    sim.say(kick(session, "maintenance"));
    let Outcome::Kick { reason, code } = sim.only_answer(8) else { panic!("no kick") };
    assert_eq!((reason.as_str(), code), ("maintenance", 9));
}

#[test]
fn a_session_can_be_on_two_connections_and_a_kick_means_one_of_them() {
    let mut sim = Sim::connected();
    let old = sim.live(7, 1);
    let reference = sim.asked(8, Mode::Ticket);
    let to_proxy::Kind::LoginAccepted(mut resumed) = accepted(reference, 1, None) else {
        panic!("not what it made")
    };
    (resumed.hold, resumed.activate) = (99, true);
    let new = Hold { number: 99, ..old };
    sim.say(to_proxy::Kind::LoginAccepted(resumed));
    assert!(matches!(sim.only_answer(8), Outcome::LoginAccepted(_)));
    let reference = sim.activating(8, new);
    sim.say(activated(reference, ""));
    assert!(matches!(sim.only_answer(8), Outcome::Activated));
    sim.say(kick(old, "resumed"));
    assert!(matches!(sim.only_answer(7), Outcome::Kick { .. }));
    sim.link.forget(7);
    sim.drain();
    let told = sim.sent.pop_back();
    let Some(from_proxy::Kind::Ended(told)) = told else { panic!("{told:?}") };
    assert_eq!(told.hold, old.number);
    assert_eq!(sim.link.sessions(), 1);
    sim.say(kick(new, "out"));
    assert!(matches!(sim.only_answer(8), Outcome::Kick { .. }));
}

#[test]
fn a_pending_session_can_be_kicked() {
    let mut sim = Sim::connected();
    let session = sim.pending(7, 1);
    sim.say(kick(session, "too late"));
    assert!(matches!(sim.only_answer(7), Outcome::Kick { .. }));
}

#[test]
fn whether_a_client_logged_out_is_reported_with_the_end() {
    let mut sim = Sim::connected();
    for (connection, logout) in [(7, true), (8, false)] {
        sim.live(connection, connection as u8);
        if logout {
            sim.link.log_out(connection);
        }
        sim.link.forget(connection);
        sim.drain();
        let told = sim.sent.pop_back();
        let Some(from_proxy::Kind::Ended(told)) = told else { panic!("{told:?}") };
        assert_eq!(told.logout, logout);
    }
}

#[test]
fn an_ended_session_is_reported_once() {
    let mut sim = Sim::connected();
    let session = sim.live(7, 1);
    sim.link.forget(7);
    sim.link.forget(7);
    sim.drain();
    assert_eq!(sim.told_ended(), [session.session.as_bytes().to_vec()]);
    assert_eq!(sim.link.sessions(), 0);
    sim.say(kick(session, "late"));
    sim.no_answer();
}

#[test]
fn sessions_go_on_without_a_companion_and_are_listed_when_it_is_back() {
    let mut sim = Sim::connected();
    let sessions = [sim.live(7, 3), sim.live(8, 1), sim.live(9, 2)];
    sim.break_stream();
    sim.pass(Duration::from_millis(50));
    sim.no_answer();
    assert_eq!(sim.link.sessions(), 3);
    let mut listed = sim.connect();
    listed.sort();
    let mut all: Vec<_> = sessions.iter().map(|id| id.session.as_bytes().to_vec()).collect();
    all.sort();
    assert_eq!(listed, all);
}

#[test]
fn a_session_that_ended_while_the_companion_was_away_is_reported_after_the_hello() {
    let mut sim = Sim::connected();
    let session = sim.live(7, 1);
    sim.break_stream();
    sim.link.forget(7);
    sim.drain();
    assert!(sim.connect().is_empty());
    assert_eq!(sim.told_ended(), [session.session.as_bytes().to_vec()]);
}

#[test]
fn a_session_that_the_companion_does_not_know_any_more_is_kicked_by_it() {
    let mut sim = Sim::connected();
    let session = sim.live(7, 1);
    sim.break_stream();
    sim.connect();
    sim.say(kick(session, "ended meanwhile"));
    assert!(matches!(sim.only_answer(7), Outcome::Kick { .. }));
}

#[test]
fn many_sessions_are_listed_in_one_hello() {
    let mut sim = Sim::connected();
    for connection in 0..5000_u32 {
        let reference = sim.asked(connection, Mode::Ticket);
        let to_proxy::Kind::LoginAccepted(mut accepted) = accepted(reference, 0, None) else {
            panic!("not what it made")
        };
        accepted.session_id[..4].copy_from_slice(&connection.to_be_bytes());
        sim.say(to_proxy::Kind::LoginAccepted(accepted));
        sim.only_answer(connection);
    }
    sim.break_stream();
    assert_eq!(sim.connect().len(), 5000);
    assert!(sim.sent.is_empty());
}

#[test]
fn ended_sessions_are_remembered_up_to_a_limit() {
    let mut sim = Sim::connected();
    sim.break_stream();
    for number in 0..MAX_ENDED + 10 {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&number.to_be_bytes());
        let session = SessionId::from_slice(&session).unwrap();
        sim.link.report_ended(Hold { session, number: 1 }, false);
    }
    sim.connect();
    let told = sim.told_ended();
    assert_eq!(told.len(), MAX_ENDED);
    assert_eq!(told[0][..8], 10_u64.to_be_bytes(), "the oldest are forgotten first");
}
