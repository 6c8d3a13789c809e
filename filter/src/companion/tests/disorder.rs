//! A companion or a host that does not behave.

use proptest::prelude::*;

use super::*;

#[test]
fn bytes_that_are_no_message_end_the_stream() {
    let mut sim = Sim::connected();
    let session = sim.live(7, 1);
    sim.say_bytes(b"\xff\xff\xff\xff garbage");
    assert_eq!(sim.open, None);
    assert_eq!(sim.events()[0], Event::Fault("a message that does not parse"));
    assert_eq!(sim.connect(), [session.session.as_bytes().to_vec()], "sessions outlive it");
}

#[test]
fn a_message_that_is_too_large_ends_the_stream() {
    let mut sim = Sim::connected();
    sim.say(kick(id(1), &"x".repeat(MAX_MESSAGE)));
    assert_eq!(sim.open, None);
    assert_eq!(sim.events()[0], Event::Fault("a message that is too large"));
}

#[test]
fn a_message_before_the_welcome_ends_the_stream() {
    let mut sim = Sim::new();
    sim.fire();
    sim.say(kick(id(1), "hello?"));
    assert_eq!(sim.open, None);
    assert_eq!(sim.events()[0], Event::Fault("a message before its welcome"));
}

#[test]
fn a_message_of_a_later_contract_is_passed_over() {
    let mut sim = Sim::connected();
    sim.say_bytes(&[]);
    // Field 99, length-delimited, two bytes.
    sim.say_bytes(&[0x9a, 0x06, 0x02, 0x01, 0x02]);
    assert!(sim.link.is_connected());
    assert!(sim.events().is_empty());
}

#[test]
fn answers_to_what_nobody_asked_change_nothing() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    let asked = sim.asked(8, Mode::Ticket);
    for reference in [0, 7, 8, asked + 1, asked ^ (1 << 32), u64::MAX] {
        sim.say(refused(reference, edge::Refusal::Expired, ""));
        sim.say(activated(reference, ""));
        sim.say(activated(reference, "no"));
    }
    sim.say(activated(asked, ""));
    sim.no_answer();
    assert_eq!((sim.link.pending(), sim.link.sessions()), (1, 1));
}

#[test]
fn a_session_that_nobody_asked_for_is_ended() {
    let mut sim = Sim::connected();
    sim.say(accepted(12345, 1, None));
    sim.no_answer();
    assert_eq!(sim.told_ended(), [id(1).session.as_bytes().to_vec()]);
}

#[test]
fn an_answer_given_twice_counts_once_and_ends_nothing() {
    let mut sim = Sim::connected();
    let reference = sim.asked(7, Mode::Ticket);
    sim.say(accepted(reference, 1, None));
    sim.only_answer(7);
    sim.say(accepted(reference, 1, None));
    sim.say(refused(reference, edge::Refusal::Expired, ""));
    sim.no_answer();
    assert!(sim.told_ended().is_empty());
    assert_eq!(sim.link.sessions(), 1);
}

#[test]
fn an_activation_answered_twice_counts_once() {
    let mut sim = Sim::connected();
    let session = sim.pending(7, 1);
    let reference = sim.activating(7, session);
    sim.say(activated(reference, ""));
    sim.only_answer(7);
    sim.say(activated(reference, "second thoughts"));
    sim.no_answer();
    assert_eq!(sim.link.sessions(), 1);
}

#[test]
fn a_session_that_lives_already_is_not_given_to_a_second_connection() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    let reference = sim.asked(8, Mode::Ticket);
    sim.say(accepted(reference, 1, None));
    assert_try_again(&sim.only_answer(8));
    assert!(sim.told_ended().is_empty());
    sim.say(kick(id(1), "still there"));
    assert!(matches!(sim.only_answer(7), Outcome::Kick { .. }));
}

#[test]
fn keys_that_do_not_go_with_the_mode_are_not_used() {
    let keys = Some(([1; 32], [2; 32]));
    for (mode, keys) in [(Mode::Ticket, keys), (Mode::Noise, None)] {
        let mut sim = Sim::connected();
        let reference = sim.asked(7, mode);
        sim.say(accepted(reference, 1, keys));
        assert_try_again(&sim.only_answer(7));
        assert_eq!(sim.events(), [Event::Fault("keys that do not go with the login's mode")]);
        assert_eq!(sim.told_ended(), [id(1).session.as_bytes().to_vec()]);
        assert_eq!(sim.link.sessions(), 0);
    }
}

#[test]
fn ids_and_keys_of_another_length_are_not_used() {
    let change: [fn(&mut edge::LoginAccepted); 4] = [
        |accepted| accepted.session_id.push(0),
        |accepted| accepted.session_id.clear(),
        |accepted| accepted.client_to_server_key.truncate(31),
        |accepted| accepted.server_to_client_key.clear(),
    ];
    for change in change {
        let mut sim = Sim::connected();
        let reference = sim.asked(7, Mode::Noise);
        let to_proxy::Kind::LoginAccepted(mut accepted) =
            accepted(reference, 1, Some(([1; 32], [2; 32])))
        else {
            panic!("not what it made")
        };
        change(&mut accepted);
        sim.say(to_proxy::Kind::LoginAccepted(accepted));
        assert_try_again(&sim.only_answer(7));
        assert!(matches!(sim.events().as_slice(), [Event::Fault(_)]));
    }
}

#[test]
fn news_of_another_stream_is_passed_over() {
    let mut sim = Sim::connected();
    let old = sim.open.unwrap();
    sim.break_stream();
    let events = sim.events();
    assert_eq!(events.len(), 2);
    sim.link.stream_closed(sim.now, old, 1);
    sim.link.stream_closed(sim.now, 4711, 1);
    sim.link.stream_message(sim.now, old, b"garbage");
    sim.drain();
    sim.connect();
    sim.link.stream_closed(sim.now, old, 1);
    sim.link.stream_message(sim.now, old, b"garbage");
    sim.drain();
    assert!(sim.link.is_connected());
    assert!(sim.events().is_empty());
}

#[test]
fn a_stream_that_nobody_asked_for_is_let_go_of() {
    let mut sim = Sim::connected();
    sim.link.stream_opened(sim.now, 4711);
    sim.link.open_failed(sim.now);
    sim.drain();
    assert_eq!(sim.cancelled, [4711]);
    assert!(sim.link.is_connected());
}

/// One thing that can happen to a link.
#[derive(Clone, Debug)]
enum Step {
    Login(u32, bool),
    Activate(u32),
    Forget(u32),
    Pass(u64),
    Break,
    Reachable(bool),
    Accept { index: usize, session: u8, keys: bool },
    Refuse(usize),
    Activated { index: usize, refused: bool },
    Kick(u8),
    Drain,
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let connection = 0..6_u32;
    prop_oneof![
        4 => (connection.clone(), any::<bool>()).prop_map(|(id, noise)| Step::Login(id, noise)),
        2 => connection.clone().prop_map(Step::Activate),
        2 => connection.prop_map(Step::Forget),
        2 => (0..8_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Break),
        1 => any::<bool>().prop_map(Step::Reachable),
        4 => (0..8_usize, 0..8_u8, any::<bool>())
            .prop_map(|(index, session, keys)| Step::Accept { index, session, keys }),
        2 => (0..8_usize).prop_map(Step::Refuse),
        2 => (0..8_usize, any::<bool>())
            .prop_map(|(index, refused)| Step::Activated { index, refused }),
        1 => (0..8_u8).prop_map(Step::Kick),
        1 => Just(Step::Drain),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Garbage),
    ]
}

proptest! {
    /// Whatever happens in whatever order: each question gets one answer by its deadline and
    /// no more, unless its connection is forgotten.
    #[test]
    fn every_question_gets_one_answer_in_time(steps in prop::collection::vec(step(), 1..60)) {
        let mut sim = Sim::new();
        let mut due = std::collections::BTreeMap::<u32, Moment>::new();
        let mut sessions = std::collections::BTreeMap::<u32, Hold>::new();
        let mut references = Vec::new();
        for step in steps.into_iter().chain([Step::Pass(20_000)]) {
            let reference = |index: usize| references.get(index).copied().unwrap_or(77);
            let connected = sim.open.is_some();
            match step {
                Step::Login(connection, noise) => {
                    let mode = if noise { Mode::Noise } else { Mode::Ticket };
                    if sim.login(connection, mode).is_ok() {
                        due.insert(connection, sim.now.after(LinkConfig::ANSWER_WITHIN));
                    }
                }
                Step::Activate(connection) => {
                    if let (Some(session), false) =
                        (sessions.get(&connection), due.contains_key(&connection))
                    {
                        sim.link.activate(sim.now, connection, *session);
                        sim.drain();
                        due.insert(connection, sim.now.after(LinkConfig::ANSWER_WITHIN));
                    }
                }
                Step::Forget(connection) => {
                    sim.link.forget(connection);
                    sim.drain();
                    due.remove(&connection);
                    sessions.remove(&connection);
                }
                Step::Pass(millis) => sim.pass(Duration::from_millis(millis)),
                Step::Break if connected => sim.break_stream(),
                Step::Reachable(reachable) => sim.reachable = reachable,
                Step::Accept { index, session, keys } if connected => {
                    let keys = keys.then_some(([1; 32], [2; 32]));
                    sim.say(accepted(reference(index), session, keys));
                }
                Step::Refuse(index) if connected => {
                    sim.say(refused(reference(index), edge::Refusal::Expired, ""));
                }
                Step::Activated { index, refused } if connected => {
                    let refused = if refused { "no" } else { "" };
                    sim.say(activated(reference(index), refused));
                }
                Step::Kick(session) if connected => sim.say(kick(id(session), "")),
                Step::Drain if connected => sim.say(to_proxy::Kind::Drain(edge::Drain {})),
                Step::Garbage(bytes) if connected => sim.say_bytes(&bytes),
                _ => {}
            }
            // The companion welcomes every stream.
            while let Some(kind) = sim.sent.pop_front() {
                match kind {
                    from_proxy::Kind::Hello(_) if sim.open.is_some() => sim.welcome(),
                    from_proxy::Kind::Hello(_) => {}
                    from_proxy::Kind::Login(login) => references.push(login.r#ref),
                    from_proxy::Kind::Activate(activate) => references.push(activate.r#ref),
                    from_proxy::Kind::Ended(_)
                    | from_proxy::Kind::Pushed(_)
                    | from_proxy::Kind::Drained(_) => {}
                }
            }
            while let Some(Answer { connection, outcome }) = sim.link.poll_answer() {
                match outcome {
                    Outcome::Kick { .. } => continue,
                    Outcome::LoginAccepted(accepted) => {
                        sessions.insert(connection, accepted.hold());
                    }
                    Outcome::Activated => {}
                    Outcome::LoginRefused { .. } | Outcome::ActivationRefused { .. } => {
                        sessions.remove(&connection);
                    }
                }
                prop_assert!(due.remove(&connection).is_some(), "an answer to no question");
            }
            for (connection, deadline) in &due {
                prop_assert!(*deadline > sim.now, "{connection} still waits");
            }
            prop_assert!(sim.link.pending() <= due.len());
        }
        prop_assert!(due.is_empty());
        prop_assert_eq!(sim.link.pending(), 0);
    }

    #[test]
    fn no_bytes_of_a_companion_can_do_harm(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
    ) {
        let mut sim = Sim::connected();
        sim.live(7, 1);
        for message in messages {
            if sim.open.is_none() {
                sim.connect();
            }
            sim.say_bytes(&message);
            while sim.link.poll_answer().is_some() {}
            sim.events();
        }
        prop_assert_eq!(sim.link.sessions(), 1);
    }
}
