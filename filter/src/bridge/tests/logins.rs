//! Connections that log in by ticket.

use super::*;
use crate::session::Refusal;

#[test]
fn nothing_goes_upstream_before_the_login_is_accepted() {
    let mut wire = Wire::ticket();
    assert!(!wire.bridge.opens_at_once());
    wire.client(&[request(LOGIN, 1, b"ticket"), request(ECHO, 2, b"x")].concat());
    assert_eq!(wire.worker.link.pending(), 1);
    assert_eq!(wire.held, request(ECHO, 2, b"x"));
    assert_eq!((wire.to_service.len(), wire.clusters.len()), (0, 0));

    wire.companion(Outcome::LoginAccepted(accepted()));
    assert_eq!(wire.clusters, ["game"]);
    assert_eq!(wire.held, b"");
    assert!(wire.to_service.starts_with(CLIENT_PREFACE));
    let kinds: Vec<_> = wire.kinds().into_iter().filter(|(_, stream)| *stream == 1).collect();
    assert_eq!(kinds, [(Kind::Headers, 1), (Kind::Data, 1)]);
    assert_eq!(wire.replies(), []);

    wire.service(&opening());
    assert_eq!(wire.heard(), [(LOGIN, 1, 0, "reply", b"welcome".to_vec())]);
    wire.service(&reply(1, b"y"));
    assert_eq!(wire.replies(), [(2, 0, "reply")]);
    wire.client(&request(ECHO, 3, b"z"));
    assert_eq!(wire.clusters, ["game"], "chosen once");
}

#[test]
fn the_first_frame_of_a_resumed_session_waits_for_its_activation() {
    let mut wire = Wire::ticket();
    wire.client(&request(LOGIN, 1, b"token"));
    wire.companion(Outcome::LoginAccepted(Accepted { activate: true, ..accepted() }));
    wire.service(&opening());
    assert_eq!(wire.heard(), [(LOGIN, 1, 0, "reply", b"welcome".to_vec())]);
    wire.kinds();
    wire.client(&[request(ECHO, 2, b"x"), request(ECHO, 3, b"y")].concat());
    assert_eq!(wire.held, request(ECHO, 3, b"y"), "the second one waits its turn");
    assert!(wire.kinds().iter().all(|(kind, _)| *kind != Kind::Headers), "nor the first");
    wire.companion(Outcome::Activated);
    let calls = wire.kinds().into_iter().filter(|(kind, _)| *kind == Kind::Headers);
    assert_eq!(calls.map(|(_, stream)| stream).collect::<Vec<_>>(), [1, 3]);
    wire.service(&[reply(1, b"x"), reply(3, b"y")].concat());
    assert_eq!(wire.replies(), [(2, 0, "reply"), (3, 0, "reply")]);
}

#[test]
fn a_resumed_session_that_is_overtaken_says_goodbye_and_forwards_nothing() {
    let mut wire = Wire::ticket();
    wire.client(&request(LOGIN, 1, b"token"));
    wire.companion(Outcome::LoginAccepted(Accepted { activate: true, ..accepted() }));
    wire.service(&opening());
    wire.heard();
    wire.kinds();
    wire.client(&request(ECHO, 2, b"x"));
    wire.companion(Outcome::ActivationRefused { text: "elsewhere".into() });
    wire.service(&acknowledged());
    assert_eq!(wire.heard(), [(GOODBYE, 0, 16, "push", b"elsewhere".to_vec())]);
    assert!(wire.kinds().iter().all(|(kind, _)| *kind != Kind::Headers));
}

#[test]
fn without_a_login_the_cluster_is_chosen_before_the_first_byte() {
    let session = json!({"mode": "none"});
    let terms = terms(session, json!({"authority": "game", "cluster": "game"}));
    let mut wire = Wire::new(&terms);
    assert!(wire.bridge.opens_at_once());
    assert_eq!(wire.bridge.take_cluster().as_deref(), Some("game"));
    wire.client(&request(ECHO, 1, b"x"));
    assert_eq!(wire.clusters.len(), 0, "chosen once");
}

#[test]
fn a_frame_before_the_login_is_refused_and_the_connection_ends() {
    let mut wire = Wire::ticket();
    wire.client(&[request(ECHO, 2, b"x"), request(LOGIN, 3, b"ticket")].concat());
    assert_eq!(wire.clusters, ["refusals"]);
    assert!(wire.kinds().iter().all(|(kind, _)| *kind != Kind::Headers));
    assert_eq!(wire.worker.link.pending(), 0, "a login could not lead to the service any more");
    wire.service(&opening());
    assert_eq!(wire.replies(), [(2, 16, "error")]);
    assert!(!wire.is_closed(), "a close now would overtake the word");
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn strangers_reach_no_service_where_no_cluster_is_for_refusals() {
    let refused = Outcome::LoginRefused { refusal: Refusal::Expired, text: String::new() };
    for (command, outcome) in [(ECHO, None), (LOGIN, Some(refused))] {
        let mut wire = Wire::ticket_with(json!({"authority": "game", "connect": "after_login"}));
        wire.client(&request(command, 1, b"x"));
        if let Some(outcome) = outcome {
            wire.companion(outcome);
        }
        assert_eq!((wire.to_service.len(), wire.clusters.len()), (0, 0));
        assert!(wire.is_closed());
    }
}

#[test]
fn a_refused_login_closes_only_after_its_word_left() {
    let mut wire = Wire::ticket();
    wire.client(&request(LOGIN, 1, b"ticket"));
    let outcome = Outcome::LoginRefused { refusal: Refusal::Unauthenticated, text: "no".into() };
    wire.companion(outcome);
    assert_eq!(wire.clusters, ["refusals"]);
    assert!(!wire.is_closed());
    wire.service(&opening());
    assert_eq!(wire.heard(), [(LOGIN, 1, 16, "error", b"no".to_vec())]);
    assert!(!wire.is_closed(), "a close now would overtake the word");
    assert!(wire.sleep() <= Duration::from_millis(10));
    assert!(wire.is_closed());
}

#[test]
fn a_client_that_is_to_come_back_hears_its_cookie() {
    let mut wire = Wire::ticket();
    wire.client(&request(LOGIN, 1, b"ticket"));
    let (refusal, text) = (Refusal::ComeBack, "mgc1.AAAA".to_owned());
    wire.companion(Outcome::LoginRefused { refusal, text });
    wire.service(&opening());
    assert_eq!(wire.heard(), [(LOGIN, 1, 10, "error", b"mgc1.AAAA".to_vec())]);
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn a_refused_login_closes_when_nobody_lets_it_speak() {
    let mut wire = Wire::ticket();
    wire.client(&request(LOGIN, 1, b"ticket"));
    let refusal = Refusal::Expired;
    wire.companion(Outcome::LoginRefused { refusal, text: String::new() });
    assert_eq!(wire.sleep(), Duration::from_secs(5));
    assert!(wire.is_closed());
}

#[test]
fn a_client_that_never_logs_in_is_closed() {
    let mut wire = Wire::ticket();
    wire.sleep();
    assert!(wire.is_closed());
    assert_eq!((wire.to_service.len(), wire.clusters.len()), (0, 0));
}

#[test]
fn a_second_login_is_refused_and_the_session_goes_on() {
    let mut wire = Wire::ticket();
    wire.log_in();
    wire.client(&request(LOGIN, 2, b"ticket"));
    assert_eq!(wire.worker.link.pending(), 1, "the first alone was asked for");
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(2, 9, "error")]);
    wire.client(&request(ECHO, 3, b"x"));
    wire.service(&reply(1, b"y"));
    assert_eq!(wire.replies(), [(3, 0, "reply")]);
}

#[test]
fn a_client_that_says_goodbye_gives_its_calls_up_and_gets_a_reply() {
    let mut wire = Wire::ticket();
    wire.log_in();
    wire.client(&request(ECHO, 2, b"x"));
    wire.sent();
    wire.client(&[request(GOODBYE, 3, b""), request(ECHO, 4, b"too late")].concat());
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 1), (Kind::Settings, 0)]);
    assert!(!wire.is_closed());
    wire.service(&acknowledged());
    let lost = b"the client logged out".to_vec();
    assert_eq!(wire.heard(), [(ECHO, 2, 1, "error", lost), (GOODBYE, 3, 0, "reply", vec![])]);
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn a_goodbye_of_somebody_who_has_not_logged_in_is_an_unknown_command() {
    let mut wire = Wire::direct();
    wire.client(&request(GOODBYE, 1, b""));
    wire.service(&opening());
    assert_eq!(wire.replies(), [(1, 12, "error")]);
    assert!(!wire.is_closed());
}

#[test]
fn a_kick_answers_the_calls_and_says_goodbye_with_the_reason() {
    let mut wire = Wire::ticket();
    wire.log_in();
    wire.client(&request(ECHO, 2, b"x"));
    wire.sent();
    wire.companion(Outcome::Kick { reason: "logged in elsewhere".into(), code: 7 });
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 1), (Kind::Settings, 0)]);
    assert!(!wire.is_closed());
    wire.service(&acknowledged());
    let reason = b"logged in elsewhere".to_vec();
    assert_eq!(
        wire.heard(),
        [(ECHO, 2, 10, "error", reason.clone()), (GOODBYE, 0, 7, "push", reason)]
    );
    assert!(!wire.is_closed());
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn a_kick_without_a_code_that_the_layout_can_say_is_aborted() {
    for code in [0, 0x1_0000] {
        let mut wire = Wire::ticket();
        wire.log_in();
        wire.companion(Outcome::Kick { reason: "bye".into(), code });
        wire.service(&acknowledged());
        assert_eq!(wire.heard(), [(GOODBYE, 0, 10, "push", b"bye".to_vec())]);
    }
}

#[test]
fn a_session_with_a_place_is_connected_to_the_cluster_of_that_server() {
    let upstream = json!({"authority": "game", "connect": "after_login", "cluster": "game",
        "refusal_cluster": "refusals", "place": {"cluster_prefix": "room-"}});
    for (place, cluster) in [
        (Some("a7"), "room-a7"),
        (None, "game"),
        // Nothing that a name does not have: such as a cluster of another kind.
        (Some("../x"), "game"),
        (Some(""), "game"),
    ] {
        let mut wire = Wire::ticket_with(upstream.clone());
        wire.client(&request(LOGIN, 1, b"ticket"));
        let claims = place.map(|place| ("place".to_owned(), place.to_owned()));
        let claims = claims.into_iter().collect();
        wire.companion(Outcome::LoginAccepted(Accepted { claims, ..accepted() }));
        assert_eq!(wire.clusters, [cluster], "{place:?}");
    }
}
