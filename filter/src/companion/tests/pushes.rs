//! Pushes: to whom they go, and how they are answered.

use super::push::{NotPushed, PushCommand};
use super::*;

fn push(reference: u64, sessions: &[u8], body: &[u8]) -> to_proxy::Kind {
    to_proxy::Kind::Push(edge::Push {
        r#ref: reference,
        sessions: sessions.iter().flat_map(|session| [*session; 16]).collect(),
        command: Some(edge::push::Command::Number(1206)),
        body: body.to_vec(),
    })
}

impl Sim {
    /// Connections and bodies of what is to be delivered; each is reported as `outcome`.
    fn deliver(&mut self, outcome: Result<(), NotPushed>) -> Vec<(u32, Vec<u8>)> {
        let mut delivered = Vec::new();
        while let Some(delivery) = self.link.poll_push() {
            delivered.push((delivery.connection, delivery.push.body.clone()));
            self.link.pushed(delivery.ticket, outcome.clone());
        }
        self.drain();
        delivered
    }

    fn pushed(&mut self) -> Vec<edge::Pushed> {
        std::iter::from_fn(|| self.sent.pop_front())
            .map(|kind| match kind {
                from_proxy::Kind::Pushed(pushed) => pushed,
                other => panic!("expected an answer to a push, got {other:?}"),
            })
            .collect()
    }
}

#[test]
fn a_push_reaches_the_live_sessions_that_it_names_and_says_who_is_none() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    sim.live(8, 2);
    sim.pending(9, 3);
    sim.say(push(5, &[2, 3, 1, 77], b"hello"));
    assert_eq!(sim.deliver(Ok(())), [(8, b"hello".to_vec()), (7, b"hello".to_vec())]);
    let expected = edge::Pushed { r#ref: 5, delivered: 2, gone: 2, ..edge::Pushed::default() };
    assert_eq!(sim.pushed(), [expected]);
}

#[test]
fn pushes_of_one_session_keep_their_order() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    for number in 0..100_u8 {
        sim.say(push(number.into(), &[1], &[number]));
    }
    let order: Vec<u8> = sim.deliver(Ok(())).into_iter().map(|(_, body)| body[0]).collect();
    assert!(order.len() == 100 && order.is_sorted());
    assert_eq!(sim.pushed().len(), 100);
}

#[test]
fn why_a_push_was_refused_is_said_once_and_is_not_long() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    sim.live(8, 2);
    sim.say(push(5, &[1, 2], b"x"));
    sim.deliver(Err(NotPushed::Refused("ä".repeat(1000))));
    let pushed = sim.pushed();
    assert_eq!((pushed[0].refused, pushed[0].reason.len()), (2, MAX_TEXT));
}

#[test]
fn a_lost_stream_loses_the_answers_and_not_the_pushes() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    sim.say(push(5, &[1], b"x"));
    sim.break_stream();
    assert_eq!(sim.deliver(Ok(())), [(7, b"x".to_vec())]);
    sim.connect();
    sim.say(push(6, &[1], b"y"));
    sim.deliver(Ok(()));
    assert_eq!(sim.pushed().iter().map(|pushed| pushed.r#ref).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_command_may_be_a_number_or_a_text() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    let to_proxy::Kind::Push(mut named) = push(5, &[1], b"x") else { panic!("not what it made") };
    named.command = Some(edge::push::Command::Name("news".into()));
    sim.say(to_proxy::Kind::Push(named));
    let delivery = sim.link.poll_push().unwrap();
    assert_eq!(delivery.push.command, PushCommand::Text("news".into()));
}

#[test]
fn a_push_that_breaks_the_contract_ends_the_stream_and_no_session() {
    let broken: [fn(&mut edge::Push); 4] = [
        |push| push.sessions.push(1),
        |push| push.sessions = vec![1; 16 * (push::MAX_SESSIONS + 1)],
        |push| push.body = vec![0; push::MAX_BODY + 1],
        |push| push.command = None,
    ];
    for breaks in broken {
        let mut sim = Sim::connected();
        sim.live(7, 1);
        let to_proxy::Kind::Push(mut push) = push(5, &[1], b"x") else {
            panic!("not what it made")
        };
        breaks(&mut push);
        sim.say(to_proxy::Kind::Push(push));
        assert!(!sim.link.is_connected());
        assert!(sim.link.poll_push().is_none());
        assert_eq!(sim.link.sessions(), 1);
    }
}

#[test]
fn the_largest_push_is_not_too_large() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    let to_proxy::Kind::Push(mut push) = push(5, &[1], b"x") else { panic!("not what it made") };
    push.sessions = vec![1; 16 * push::MAX_SESSIONS];
    push.body = vec![0; push::MAX_BODY];
    sim.say(to_proxy::Kind::Push(push));
    assert!(sim.link.is_connected());
    assert_eq!(sim.deliver(Ok(())).len(), push::MAX_SESSIONS);
}

#[test]
fn a_push_goes_to_the_connection_that_its_session_lives_on_now() {
    let mut sim = Sim::connected();
    let old = sim.live(7, 1);
    let reference = sim.asked(8, Mode::Ticket);
    let to_proxy::Kind::LoginAccepted(mut resumed) = accepted(reference, 1, None) else {
        panic!("not what it made")
    };
    (resumed.hold, resumed.activate) = (99, true);
    sim.say(to_proxy::Kind::LoginAccepted(resumed));
    assert!(matches!(sim.only_answer(8), Outcome::LoginAccepted(_)));
    sim.say(push(1, &[1], b"a"));
    assert_eq!(sim.deliver(Ok(())), [(7, b"a".to_vec())], "it does not live there yet");
    sim.pushed();
    let reference = sim.activating(8, Hold { number: 99, ..old });
    sim.say(activated(reference, ""));
    assert!(matches!(sim.only_answer(8), Outcome::Activated));
    sim.say(push(2, &[1], b"b"));
    assert_eq!(sim.deliver(Ok(())), [(8, b"b".to_vec())]);
    sim.pushed();
    // The old one's end is not the session's.
    sim.link.forget(7);
    sim.drain();
    sim.told_ended();
    sim.say(push(3, &[1], b"c"));
    assert_eq!(sim.deliver(Ok(())), [(8, b"c".to_vec())]);
}
