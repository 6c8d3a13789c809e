//! Logins: asked, answered, timed out, given up.

use super::*;

#[test]
fn a_login_is_passed_on_as_it_came() {
    let mut sim = Sim::connected();
    sim.login(7, Mode::Ticket).unwrap();
    let Some(from_proxy::Kind::Login(login)) = sim.sent.pop_front() else { panic!("no login") };
    assert_eq!(login.mode(), edge::Mode::Ticket);
    assert_eq!(login.audience, "game-live");
    assert_eq!(login.layout, "game");
    assert_eq!(login.message, b"credential");
    assert_eq!(login.peer, "203.0.113.7:40112");
}

#[test]
fn an_accepted_ticket_login_says_who_it_is() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.say(accepted(reference, 1, None));
    let Outcome::LoginAccepted(accepted) = sim.only_answer(7) else { panic!("not accepted") };
    assert_eq!(accepted.hold(), id(1));
    assert_eq!(accepted.reply, b"welcome");
    assert_eq!(accepted.user, "ann");
    assert_eq!(accepted.roles, ["player"]);
    assert_eq!(accepted.claims["level"], "7");
    assert!(accepted.keys.is_none());
    assert_eq!((sim.link.pending(), sim.link.sessions()), (0, 1));
}

#[test]
fn an_accepted_noise_login_brings_keys_and_its_session_is_activated_later() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Noise);
    sim.say(accepted(reference, 1, Some(([1; 32], [2; 32]))));
    let Outcome::LoginAccepted(accepted) = sim.only_answer(7) else { panic!("not accepted") };
    assert!(accepted.keys.is_some());

    let reference = sim.activating(7, id(1));
    sim.no_answer();
    sim.say(activated(reference, ""));
    assert!(matches!(sim.only_answer(7), Outcome::Activated));
}

#[test]
fn a_refusal_reaches_the_client_with_its_text() {
    let mut sim = Sim::connected();
    for (theirs, ours) in [
        (edge::Refusal::Unspecified, Refusal::Unauthenticated),
        (edge::Refusal::Unauthenticated, Refusal::Unauthenticated),
        (edge::Refusal::Expired, Refusal::Expired),
        (edge::Refusal::TryAgain, Refusal::TryAgain),
        (edge::Refusal::Malformed, Refusal::Malformed),
    ] {
        let reference = sim.asked(7, Mode::Ticket);
        sim.say(refused(reference, theirs, "the text"));
        let Outcome::LoginRefused { refusal, text } = sim.only_answer(7) else {
            panic!("not refused")
        };
        assert_eq!((refusal, text.as_str()), (ours, "the text"));
    }
    assert_eq!((sim.link.pending(), sim.link.sessions()), (0, 0));
}

#[test]
fn a_long_text_of_the_companion_is_cut_between_characters() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.say(refused(reference, edge::Refusal::Expired, &"ü".repeat(MAX_TEXT)));
    let Outcome::LoginRefused { text, .. } = sim.only_answer(7) else { panic!("not refused") };
    assert_eq!(text, "ü".repeat(MAX_TEXT / 2));
}

#[test]
fn a_refused_activation_ends_the_session() {
    let mut sim = Sim::connected();
    let session = sim.pending(7, 1);
    let reference = sim.activating(7, session);
    sim.say(activated(reference, "replaced"));
    let Outcome::ActivationRefused { text } = sim.only_answer(7) else { panic!("not refused") };
    assert_eq!(text, "replaced");
    assert_eq!(sim.link.sessions(), 0);
    assert_eq!(sim.told_ended(), [session.session.as_bytes().to_vec()]);
}

#[test]
fn a_session_that_is_not_pending_cannot_be_activated() {
    let mut sim = Sim::connected();
    let session = sim.live(7, 1);
    for (connection, session) in [(7, session), (8, session), (8, id(2))] {
        sim.link.activate(sim.now, connection, session);
        sim.drain();
        assert!(matches!(sim.only_answer(connection), Outcome::ActivationRefused { .. }));
    }
    assert!(sim.sent.is_empty());
    assert_eq!(sim.link.sessions(), 1, "the live one is left alone");
}

#[test]
fn answers_come_in_any_order() {
    let mut sim = Sim::connected();
    let first = sim.asked(7, Mode::Ticket);
    let second = sim.asked(8, Mode::Ticket);
    sim.say(accepted(second, 2, None));
    assert!(matches!(sim.only_answer(8), Outcome::LoginAccepted(_)));
    sim.say(refused(first, edge::Refusal::Expired, ""));
    assert!(matches!(sim.only_answer(7), Outcome::LoginRefused { .. }));
}

#[test]
fn a_login_that_nobody_answers_is_told_to_try_again_in_time() {
    let mut sim = Sim::connected();
    sim.asked(7, Mode::Noise);
    sim.pass(LinkConfig::ANSWER_WITHIN - Duration::from_micros(1));
    sim.no_answer();
    sim.pass(Duration::from_micros(1));
    assert_try_again(&sim.only_answer(7));
    assert_eq!(sim.link.pending(), 0);
}

#[test]
fn a_session_whose_login_was_given_up_is_ended_when_its_answer_comes_late() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.pass(LinkConfig::ANSWER_WITHIN);
    assert_try_again(&sim.only_answer(7));
    sim.say(accepted(reference, 1, None));
    sim.no_answer();
    assert_eq!(sim.told_ended(), [id(1).session.as_bytes().to_vec()]);
    assert_eq!(sim.link.sessions(), 0);
}

#[test]
fn an_activation_that_nobody_answers_is_refused_in_time_and_the_session_ended() {
    let mut sim = Sim::connected();
    let session = sim.pending(7, 1);
    let reference = sim.activating(7, session);
    sim.pass(LinkConfig::ANSWER_WITHIN);
    assert!(matches!(sim.only_answer(7), Outcome::ActivationRefused { .. }));
    assert_eq!(sim.told_ended(), [session.session.as_bytes().to_vec()]);
    sim.say(activated(reference, ""));
    sim.no_answer();
    assert_eq!(sim.link.sessions(), 0);
}

#[test]
fn a_connection_that_is_gone_gets_no_answer_and_leaves_no_session() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.link.forget(7);
    sim.say(accepted(reference, 1, None));
    sim.no_answer();
    assert_eq!(sim.told_ended(), [id(1).session.as_bytes().to_vec()]);
    sim.pass(LinkConfig::ANSWER_WITHIN * 2);
    sim.no_answer();
}

#[test]
fn an_answer_that_waits_for_a_connection_that_goes_is_dropped() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.say(accepted(reference, 1, None));
    sim.link.forget(7);
    sim.drain();
    sim.no_answer();
    assert_eq!(sim.told_ended(), [id(1).session.as_bytes().to_vec()]);
}

#[test]
fn only_so_many_logins_wait_at_once() {
    let mut sim = Sim::with(|config| config.max_pending = 3);
    sim.connect();
    let first = sim.asked(1, Mode::Ticket);
    sim.asked(2, Mode::Ticket);
    sim.asked(3, Mode::Ticket);
    assert_eq!(sim.login(4, Mode::Ticket), Err(LinkBusy));
    sim.say(refused(first, edge::Refusal::Expired, ""));
    sim.only_answer(1);
    assert_eq!(sim.login(4, Mode::Ticket), Ok(()));
}

#[test]
fn logins_that_come_and_go_while_there_is_no_stream_leave_nothing_behind() {
    let mut sim = Sim::with(|config| config.max_pending = 3);
    for connection in 0..10_000 {
        sim.login(connection, Mode::Noise).unwrap();
        sim.link.forget(connection);
    }
    assert_eq!(sim.link.pending(), 0);
    assert!(sim.link.logins.is_empty() && sim.link.book.next_deadline().is_none());
    sim.connect();
    assert!(sim.sent.is_empty(), "{:?}", sim.sent);
}

#[test]
fn a_connection_logs_in_once_at_a_time() {
    let mut sim = Sim::connected();
    sim.asked(7, Mode::Ticket);
    assert_eq!(sim.login(7, Mode::Ticket), Err(LinkBusy));
}
