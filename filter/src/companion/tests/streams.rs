//! The stream: opened, greeted, broken, opened again.

use super::*;

#[test]
fn a_companion_that_stops_gets_no_more_logins_and_those_wait_for_the_next_one() {
    let mut sim = Sim::connected();
    let (under_way, pending) = (sim.asked(7, Mode::Ticket), sim.pending(8, 2));
    sim.say(to_proxy::Kind::Drain(edge::Drain {}));
    assert!(matches!(sim.sent.pop_front(), Some(from_proxy::Kind::Drained(_))));
    sim.login(9, Mode::Ticket).unwrap();
    assert!(sim.sent.is_empty(), "it waits");
    // What is on the stream comes to its end.
    sim.say(accepted(under_way, 1, None));
    assert!(matches!(sim.only_answer(7), Outcome::LoginAccepted(_)));
    let reference = sim.activating(8, pending);
    sim.say(activated(reference, ""));
    assert!(matches!(sim.only_answer(8), Outcome::Activated));
    sim.say(to_proxy::Kind::Drain(edge::Drain {}));
    assert!(sim.sent.is_empty(), "said once");

    let before = sim.now;
    sim.break_stream();
    sim.no_answer();
    let mut listed = sim.connect();
    listed.sort();
    assert_eq!(listed, [vec![1; 16], vec![2; 16]]);
    assert_eq!(sim.now, before, "without a pause");
    let Some(from_proxy::Kind::Login(login)) = sim.sent.pop_front() else { panic!("no login") };
    sim.say(accepted(login.r#ref, 3, None));
    assert!(matches!(sim.only_answer(9), Outcome::LoginAccepted(_)));
}

#[test]
fn a_companion_that_says_that_it_stops_and_does_not_is_left() {
    let mut sim = Sim::connected();
    sim.say(to_proxy::Kind::Drain(edge::Drain {}));
    sim.pass(Duration::from_millis(9_999));
    assert!(sim.link.is_connected());
    sim.pass(Duration::from_millis(1));
    assert_eq!(sim.cancelled.len(), 1);
}

#[test]
fn where_no_other_companion_is_there_the_pauses_grow_as_ever() {
    let mut sim = Sim::connected();
    sim.say(to_proxy::Kind::Drain(edge::Drain {}));
    sim.reachable = false;
    sim.break_stream();
    sim.fire();
    let before = sim.now;
    sim.fire();
    assert!(sim.now.since(before) >= Duration::from_millis(100));
}

#[test]
fn a_link_opens_no_stream_before_its_first_timer() {
    let mut sim = Sim::new();
    sim.login(7, Mode::Ticket).unwrap();
    assert_eq!(sim.opened, 0);
    sim.fire();
    assert_eq!(sim.opened, 1);
}

#[test]
fn logins_wait_for_the_welcome_and_then_go_in_their_order() {
    let mut sim = Sim::new();
    for connection in [9, 7, 8] {
        sim.login(connection, Mode::Ticket).unwrap();
    }
    sim.fire();
    sim.hello();
    assert!(sim.sent.is_empty(), "{:?}", sim.sent);
    sim.welcome();
    let connections: Vec<u64> = sim
        .sent
        .iter()
        .map(|kind| match kind {
            from_proxy::Kind::Login(login) => login.r#ref & 0xffff_ffff,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(connections, [9, 7, 8]);
}

#[test]
fn logins_that_find_no_companion_are_told_to_try_again_in_time() {
    let mut sim = Sim::new();
    sim.reachable = false;
    sim.login(7, Mode::Ticket).unwrap();
    sim.pass(LinkConfig::ANSWER_WITHIN);
    assert_try_again(&sim.only_answer(7));
    assert!(sim.opened > 2, "{} tries", sim.opened);
}

#[test]
fn a_login_that_cannot_be_asked_in_time_is_told_so_at_once() {
    let mut sim = Sim::with(|config| config.answer_within = Duration::from_millis(50));
    sim.reachable = false;
    sim.fire();
    sim.login(7, Mode::Ticket).unwrap();
    assert_try_again(&sim.only_answer(7));
    assert_eq!(sim.link.pending(), 0);
}

#[test]
fn a_companion_that_comes_up_in_time_gets_the_logins_that_wait() {
    let mut sim = Sim::new();
    sim.reachable = false;
    sim.login(7, Mode::Ticket).unwrap();
    sim.pass(SECOND);
    sim.reachable = true;
    while sim.open.is_none() {
        sim.fire();
    }
    sim.hello();
    sim.welcome();
    assert!(matches!(sim.sent.pop_front(), Some(from_proxy::Kind::Login(_))));
    sim.no_answer();
}

#[test]
fn tries_grow_apart_and_never_stop() {
    let mut sim = Sim::new();
    sim.reachable = false;
    sim.pass(SECOND * 3600);
    // Between one each 2.5 and one each 5 seconds.
    assert!((700..1500).contains(&sim.opened), "{} tries in an hour", sim.opened);
    sim.reachable = true;
    while sim.open.is_none() {
        sim.fire();
    }
}

#[test]
fn a_companion_that_stays_away_is_complained_about_once_a_minute() {
    let mut sim = Sim::new();
    sim.reachable = false;
    let mut complaints = 0;
    for _ in 0..600 {
        sim.pass(SECOND);
        complaints += sim.events().iter().filter(|event| **event == Event::Unreachable).count();
    }
    assert!((9..=10).contains(&complaints), "{complaints} complaints in ten minutes");
}

#[test]
fn another_reason_and_another_time_are_complained_about_at_once() {
    let mut sim = Sim::new();
    sim.reachable = false;
    sim.fire();
    assert_eq!(sim.events()[0], Event::Unreachable);
    sim.reachable = true;
    sim.fire();
    sim.hello();
    sim.break_stream();
    assert_eq!(sim.events()[0], Event::Closed { status: UNAVAILABLE });
    sim.connect();
    sim.break_stream();
    assert_eq!(sim.events()[0], Event::Closed { status: UNAVAILABLE });
}

#[test]
fn a_broken_stream_is_let_go_of_and_opened_again() {
    let mut sim = Sim::connected();
    sim.break_stream();
    assert!(!sim.link.is_connected());
    assert!(matches!(
        sim.events().as_slice(),
        [Event::Closed { status: UNAVAILABLE }, Event::RetryIn(_)]
    ));
    sim.connect();
    assert_eq!(sim.opened, 2);
}

#[test]
fn logins_on_a_stream_that_breaks_are_told_to_try_again_at_once() {
    let mut sim = Sim::connected();
    sim.asked(7, Mode::Ticket);
    sim.break_stream();
    assert_try_again(&sim.only_answer(7));
    sim.connect();
    assert!(sim.sent.is_empty(), "a credential that was used up is not tried again");
}

#[test]
fn activations_on_a_stream_that_breaks_are_asked_for_again() {
    let mut sim = Sim::connected();
    let session = sim.pending(7, 1);
    let reference = sim.activating(7, session);
    sim.break_stream();
    sim.no_answer();
    assert_eq!(sim.connect(), [session.session.as_bytes().to_vec()]);
    let Some(from_proxy::Kind::Activate(again)) = sim.sent.pop_front() else {
        panic!("no activation")
    };
    assert_eq!(again.r#ref, reference);
    sim.say(activated(reference, ""));
    assert!(matches!(sim.only_answer(7), Outcome::Activated));
}

#[test]
fn a_stream_without_a_welcome_is_given_up() {
    let mut sim = Sim::new();
    sim.fire();
    let token = sim.open.unwrap();
    sim.pass(SECOND * 5);
    assert!(sim.cancelled.contains(&token));
    assert_eq!(sim.events()[0], Event::NoWelcome);
    sim.connect();
}

#[test]
fn a_companion_of_another_contract_is_named_and_tried_again_rarely() {
    let mut sim = Sim::new();
    sim.fire();
    sim.say(to_proxy::Kind::Welcome(edge::Welcome { contract: 2, companion: "new".to_owned() }));
    assert!(!sim.link.is_connected());
    assert_eq!(sim.open, None);
    let events = sim.events();
    assert_eq!(events[0], Event::WrongContract { theirs: 2 });
    assert_eq!(events[0].level(), log::Level::Error);
    assert!(events[0].to_string().contains("version 2 of meshgate.edge.v1, this filter speaks 1"));
    let pause = sim.link.poll_timeout().unwrap().since(sim.now);
    assert!(pause >= SECOND * 2, "{pause:?}");
    assert_eq!(events[1], Event::RetryIn(pause));
}

#[test]
fn a_companion_that_refuses_the_hello_is_told_from_one_that_is_away() {
    let mut sim = Sim::new();
    sim.fire();
    let token = sim.open.take().unwrap();
    sim.link.stream_closed(sim.now, token, 9);
    let events = sim.events();
    assert_eq!(events[0], Event::HelloRefused);
    assert_eq!(events[0].level(), log::Level::Error);
    assert!(events[0].to_string().contains("version 1 of meshgate.edge.v1"));
    let pause = sim.link.poll_timeout().unwrap().since(sim.now);
    assert!(pause >= SECOND * 2, "{pause:?}");
}

#[test]
fn a_name_that_the_companion_would_refuse_is_mended() {
    for (given, said) in [
        ("", "unnamed".to_owned()),
        ("edge\n1", "edge?1".to_owned()),
        (&"é".repeat(200), "é".repeat(128)),
    ] {
        let mut sim = Sim::with(|config| config.proxy = given.to_owned());
        sim.fire();
        let Some(from_proxy::Kind::Hello(hello)) = sim.sent.pop_front() else { panic!("no Hello") };
        assert_eq!(hello.proxy, said);
    }
}

#[test]
fn a_companion_that_hangs_is_left_after_some_deadlines() {
    let mut sim = Sim::connected();
    for connection in 0..SILENT_DEADLINES {
        let token = sim.open.unwrap();
        assert!(!sim.cancelled.contains(&token));
        sim.asked(connection, Mode::Ticket);
        sim.pass(LinkConfig::ANSWER_WITHIN);
        assert_try_again(&sim.only_answer(connection));
    }
    assert_eq!(sim.events()[0], Event::Silent);
    sim.connect();
}

#[test]
fn a_slow_companion_is_not_left() {
    let mut sim = Sim::connected();
    for connection in 0..SILENT_DEADLINES * 4 {
        let reference = sim.asked(connection, Mode::Ticket);
        sim.pass(LinkConfig::ANSWER_WITHIN);
        assert_try_again(&sim.only_answer(connection));
        sim.say(refused(reference, edge::Refusal::Expired, "late"));
        sim.no_answer();
    }
    assert_eq!(sim.opened, 1);
}

#[test]
fn a_stream_that_held_makes_the_next_try_a_quick_one() {
    let mut sim = Sim::new();
    sim.reachable = false;
    sim.pass(SECOND * 60);
    sim.reachable = true;
    while sim.open.is_none() {
        sim.fire();
    }
    sim.hello();
    sim.welcome();
    sim.pass(SECOND * 60);
    sim.break_stream();
    let pause = sim.link.poll_timeout().unwrap().since(sim.now);
    assert!(pause <= Duration::from_millis(200), "{pause:?}");
}

#[test]
fn a_companion_that_breaks_right_after_its_welcome_is_not_asked_faster_and_faster() {
    let mut sim = Sim::new();
    for _ in 0..10 {
        sim.connect();
        sim.break_stream();
        sim.events();
    }
    let pause = sim.link.poll_timeout().unwrap().since(sim.now);
    assert!(pause >= SECOND * 2, "{pause:?}");
}

#[test]
fn a_link_at_rest_needs_no_timer() {
    let mut sim = Sim::connected();
    sim.live(7, 1);
    assert_eq!(sim.link.poll_timeout(), None);
}
