//! Clients that go and come back.

use super::*;
use crate::companion::push::{Leave, Push, PushCommand};
use crate::trace::Random;

/// The last stream that a GOAWAY covers.
fn go_away(last: u8) -> Vec<u8> {
    raw(Kind::GoAway, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
}

/// Without logins, and with clients that know how to come back.
fn with_drain() -> Rc<Terms> {
    let session = json!({"mode": "none", "goodbye": {"command": GOODBYE}});
    let mut document = document(session, json!({"authority": "game"}));
    document["drain"] = json!({"spread": "1s", "within": "5s", "address": "other:7000"});
    compile(document)
}

impl Wire {
    fn leaving() -> Self {
        let mut wire = Self::new(&with_drain());
        wire.client(&request(ECHO, 1, b"first"));
        wire.service(&[opening(), reply(1, b"first")].concat());
        wire.to_service.clear();
        wire.to_client.clear();
        wire
    }

    fn session_with_drain(mode: &str) -> Self {
        let mut session = json!({"mode": mode, "audience": "demo",
            "login": {"command": LOGIN}, "goodbye": {"command": GOODBYE}});
        if mode == "ticket" {
            session["trusted"] = json!(true);
        }
        let upstream = json!({"authority": "game", "connect": "after_login", "cluster": "game",
            "refusal_cluster": "refusals"});
        let mut document = document(session, upstream);
        document["drain"] = json!({});
        Self::new(&compile(document))
    }

    fn ask_to_leave(&mut self, reference: u64, leave: Leave) -> Vec<(u64, [u32; 4])> {
        let push = Push::new(PushCommand::Leave(leave), vec![]);
        self.worker.link.begin_push(reference, push, 3);
        let delivery = self.worker.link.poll_push().unwrap();
        self.bridge.handle_push(self.now, &delivery, &mut self.worker);
        self.settle();
        self.worker.link.push_answers()
    }

    /// The goodbyes that came since the last look.
    fn goodbyes(&mut self) -> Vec<Goodbye> {
        let heard = self.heard().into_iter();
        heard
            .filter(|(command, ..)| *command == GOODBYE)
            .map(|(.., body)| Goodbye::read(&body))
            .collect()
    }
}

#[derive(Debug, PartialEq)]
struct Goodbye {
    text: String,
    served: bool,
    after: Duration,
    until: Duration,
    address: String,
}

impl Goodbye {
    fn read(body: &[u8]) -> Self {
        let at = body.iter().position(|byte| *byte == 0).expect("what it says of coming back");
        let (text, back) = body.split_at(at);
        let millis = |at: usize| {
            let bytes: [u8; 4] = back[at..at + 4].try_into().unwrap();
            Duration::from_millis(u32::from_be_bytes(bytes).into())
        };
        assert_eq!(back[1], 1);
        Self {
            text: String::from_utf8(text.to_vec()).unwrap(),
            served: back[2] == 1,
            after: millis(3),
            until: millis(7),
            address: String::from_utf8(back[11..].to_vec()).unwrap(),
        }
    }
}

fn leave() -> Leave {
    Leave {
        reason: "new release".into(),
        spread: Duration::from_secs(10),
        within: Duration::from_secs(20),
        ..Leave::default()
    }
}

#[test]
fn a_service_that_goes_away_answers_what_it_took_and_the_rest_is_left_for_the_client_to_repeat() {
    let mut wire = Wire::leaving();
    wire.client(&[request(ECHO, 5, b"x"), request(ECHO, 6, b"y")].concat());
    wire.service(&go_away(3));
    // One that crosses it stays unread.
    wire.client(&request(ECHO, 7, b"z"));
    assert_eq!(wire.held, request(ECHO, 7, b"z"));
    wire.service(&reply(3, b"X"));
    let heard = wire.heard();
    let sorts: Vec<_> =
        heard.iter().map(|(_, sequence, status, sort, _)| (*sequence, *status, *sort)).collect();
    assert_eq!(sorts, [(5, 0, "reply"), (0, 14, "push")], "6 and 7 have no answer");
    let goodbye = Goodbye::read(&heard[1].4);
    assert!(!goodbye.served && goodbye.after <= Duration::from_secs(1), "{goodbye:?}");
    assert_eq!(goodbye.address, "other:7000");
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn an_idle_client_hears_of_a_service_that_goes_away_with_its_very_word() {
    let mut wire = Wire::leaving();
    wire.service(&go_away(1));
    assert_eq!(wire.goodbyes().len(), 1);
    assert_eq!(wire.kinds(), [], "a service that closes reads no bell any more");
}

#[test]
fn a_service_that_goes_away_without_answering_is_not_waited_for_for_ever() {
    let mut wire = Wire::leaving();
    wire.client(&request(ECHO, 5, b"x"));
    wire.service(&go_away(3));
    wire.sleep();
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(5, 4, "error"), (0, 14, "push")]);
}

#[test]
fn streams_end_when_their_service_goes_away() {
    let mut wire = Wire::leaving();
    wire.client(&request(1200, 5, b""));
    wire.service(&go_away(3));
    assert_eq!(wire.replies(), [(5, 14, "error"), (0, 14, "push")]);
}

#[test]
fn slots_are_spread_over_the_whole_time() {
    let mut random = Random::new(9);
    let mut buckets = [0; 10];
    for _ in 0..1000 {
        let slot = super::super::leaving::slot(&mut random, Duration::from_millis(999));
        buckets[usize::try_from(slot.as_millis()).unwrap() / 100] += 1;
    }
    assert!(buckets.iter().all(|count| *count > 50), "{buckets:?}");
    assert_eq!(super::super::leaving::slot(&mut random, Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_client_that_is_asked_to_leave_is_served_until_it_does() {
    let mut wire = Wire::session_with_drain("ticket");
    wire.log_in();
    assert_eq!(wire.ask_to_leave(1, leave()), [(1, [1, 0, 0, 0])]);
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)], "it is rung for");
    wire.service(&acknowledged());
    let goodbye = wire.goodbyes().remove(0);
    assert!(goodbye.served && goodbye.after <= Duration::from_secs(10), "{goodbye:?}");
    assert_eq!(goodbye.until, goodbye.after + Duration::from_secs(20));
    assert_eq!((&*goodbye.text, &*goodbye.address), ("new release", ""));
    wire.client(&request(ECHO, 5, b"x"));
    wire.service(&reply(1, b"X"));
    assert_eq!(wire.replies(), [(5, 0, "reply")]);
    // Asked again, it keeps its slot.
    assert_eq!(wire.ask_to_leave(2, leave()), [(2, [1, 0, 0, 0])]);
    assert_eq!(wire.replies(), []);
    wire.half_close();
    assert!(wire.finished);
}

#[test]
fn a_client_that_was_asked_and_stays_is_sent_away_without_losing_a_call() {
    let mut wire = Wire::session_with_drain("ticket");
    wire.log_in();
    wire.ask_to_leave(1, leave());
    wire.service(&acknowledged());
    let goodbye = wire.goodbyes().remove(0);
    wire.now = wire.now.after(goodbye.until - Duration::from_secs(1));
    wire.client(&request(ECHO, 5, b"x"));
    wire.kinds();
    assert_eq!(wire.sleep(), Duration::from_secs(1));
    wire.client(&request(ECHO, 6, b"y"));
    assert_eq!(wire.kinds(), [], "nothing more is taken");
    wire.service(&reply(1, b"X"));
    assert_eq!(wire.replies(), [(5, 0, "reply"), (0, 14, "push")]);
    assert!(wire.bridge.tally.session_ended, "its session is away");
}

#[test]
fn only_the_clients_of_the_service_that_goes_are_asked() {
    let mut wire = Wire::session_with_drain("ticket");
    wire.log_in();
    let other = Leave { service: "other".into(), ..leave() };
    assert_eq!(wire.ask_to_leave(1, other), [(1, [0, 1, 0, 0])]);
    let own = Leave { service: "game".into(), ..leave() };
    assert_eq!(wire.ask_to_leave(2, own), [(2, [1, 0, 0, 0])]);
}

#[test]
fn clients_that_do_not_know_how_to_come_back_are_not_asked() {
    let mut wire = Wire::ticket();
    wire.log_in();
    assert_eq!(wire.ask_to_leave(1, leave()), [(1, [0, 0, 0, 1])]);
    assert_eq!(wire.replies(), []);
}

#[test]
fn a_resume_that_meets_a_service_which_goes_away_is_completed_first() {
    let mut wire = Wire::session_with_drain("ticket");
    wire.client(&request(LOGIN, 1, b"token"));
    wire.companion(Outcome::LoginAccepted(Accepted { activate: true, ..accepted() }));
    wire.service(&opening());
    wire.service(&go_away(0));
    assert_eq!(wire.replies(), [(1, 0, "reply")], "it would end with its connection");
    wire.client(&request(ECHO, 5, b"x"));
    wire.companion(Outcome::Activated);
    assert_eq!(wire.kinds(), [(Kind::Settings, 0), (Kind::Settings, 0)], "no call");
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(0, 14, "push")], "5 was not carried out");
}

/// `tests/vectors/session/goodbye.json`, as far as this version writes them.
#[test]
fn goodbyes_are_written_as_the_document_says() {
    let vectors = include_str!("../../../../tests/vectors/session/goodbye.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let mut written = 0;
    for vector in vectors {
        let Some(back) = vector["return"].as_object() else { continue };
        let millis = |name: &str| Duration::from_millis(back[name].as_u64().unwrap());
        let address = back["address"].as_str().unwrap_or_default();
        let (served, after, until) =
            (back["served"] == true, millis("after_ms"), millis("until_ms"));
        let head = super::super::leaving::Return { served, after, until, address }.head();
        let body = [vector["text"].as_str().unwrap().as_bytes(), &head, address.as_bytes()];
        let hex: String = body.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, vector["body"].as_str().unwrap());
        written += 1;
    }
    assert!(written >= 3);
}
