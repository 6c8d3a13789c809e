//! Connections that log in by Noise: every frame after the login is sealed.

use super::*;
use crate::companion::push::{Push, PushCommand};
use crate::session::seal::{TrafficKey, TrafficKeys, client_side};
use crate::session::{Opener, Sealer};

/// A connection, and the client's keys.
struct Sealed {
    wire: Wire,
    sealer: Sealer,
    opener: Opener,
}

fn keys() -> TrafficKeys {
    let key = |byte| TrafficKey::from_slice(&[byte; 32]).unwrap();
    TrafficKeys { client_to_server: key(1), server_to_client: key(2) }
}

impl Sealed {
    /// The login was accepted, and its reply delivered.
    fn pending() -> Self {
        let session = json!({"mode": "noise", "audience": "demo", "login": {"command": LOGIN},
            "goodbye": {"command": GOODBYE}});
        let upstream = json!({"authority": "game", "connect": "after_login", "cluster": "game",
            "refusal_cluster": "refusals"});
        let mut wire = Wire::new(&terms(session, upstream));
        wire.client(&request(LOGIN, 1, b"message"));
        let accepted = Accepted { keys: Some(keys()), ..accepted() };
        wire.companion(Outcome::LoginAccepted(accepted));
        wire.service(&opening());
        assert_eq!(wire.heard(), [(LOGIN, 1, 0, "reply", b"welcome".to_vec())]);
        wire.sent();
        let (sealer, opener) = client_side(&keys());
        Self { wire, sealer, opener }
    }

    /// The same, with the session activated by a first call on stream 1.
    fn live() -> Self {
        let mut sealed = Self::pending();
        sealed.ask(ECHO, 100, b"first");
        sealed.wire.companion(Outcome::Activated);
        sealed.wire.service(&reply(1, b"one"));
        assert_eq!(sealed.heard(), [(100, 0, "one".into())]);
        sealed.wire.sent();
        sealed
    }

    fn seal(&mut self, command: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let parts = [body];
        let request = Request::new(Command::Number(command), sequence, &parts);
        let layout = &self.wire.bridge.terms.config.layout;
        layout.encode_request(request, Some(&mut self.sealer), &mut out).unwrap();
        out
    }

    fn ask(&mut self, command: u64, sequence: u64, body: &[u8]) {
        let bytes = self.seal(command, sequence, body);
        self.wire.client(&bytes);
    }

    /// Sequences, statuses and bodies of what came to the client; all of it has to be sealed.
    fn heard(&mut self) -> Vec<(u64, i64, String)> {
        let bytes = std::mem::take(&mut self.wire.to_client);
        let layout = &self.wire.bridge.terms.config.layout;
        let (mut left, mut seen) = (&bytes[..], Vec::new());
        while let Ok(Decoded::Frame(frame)) = layout.decode(left, 65_536) {
            let (mut associated, mut body) = (Vec::new(), frame.body.to_vec());
            layout.associated_data(&frame, &mut associated);
            let body = self.opener.open(&[&associated], &mut body).expect("sealed");
            let body = String::from_utf8(body.to_vec()).unwrap();
            seen.push((frame.sequence, frame.status, body));
            left = &left[frame.raw.len()..];
        }
        seen
    }
}

#[test]
fn nothing_is_forwarded_before_the_companion_activates_the_session() {
    let mut sealed = Sealed::pending();
    sealed.ask(ECHO, 5, b"x");
    sealed.ask(ECHO, 6, b"y");
    assert_eq!(sealed.wire.kinds(), []);
    assert!(!sealed.wire.held.is_empty(), "the second waits for the first");
    sealed.wire.companion(Outcome::Activated);
    let begun = |kinds: Vec<(Kind, u32)>| kinds.iter().filter(|k| k.0 == Kind::Headers).count();
    assert_eq!(begun(sealed.wire.kinds()), 2);
    sealed.wire.service(&[reply(3, b"Y"), reply(1, b"X")].concat());
    assert_eq!(sealed.heard(), [(6, 0, "Y".into()), (5, 0, "X".into())]);
}

#[test]
fn a_session_that_is_not_activated_ends_with_a_sealed_goodbye() {
    let mut sealed = Sealed::pending();
    sealed.ask(ECHO, 5, b"x");
    sealed.wire.companion(Outcome::ActivationRefused { text: "too late".into() });
    assert_eq!(sealed.wire.kinds(), [(Kind::Settings, 0)]);
    sealed.wire.service(&acknowledged());
    assert_eq!(sealed.heard(), [(0, 16, "too late".into())]);
    sealed.wire.sleep();
    assert!(sealed.wire.is_closed());
}

#[test]
fn a_replayed_login_that_no_sealed_frame_follows_ends_in_time() {
    let mut sealed = Sealed::pending();
    assert_eq!(sealed.wire.sleep(), Duration::from_secs(10));
    sealed.wire.service(&acknowledged());
    assert_eq!(sealed.heard(), [(0, 16, "no frame after the login in time".into())]);
}

#[test]
fn frames_that_are_tampered_with_replayed_left_out_or_unsealed_close_without_a_word() {
    for how in ["tampered", "replayed", "left out", "unsealed"] {
        let mut sealed = Sealed::live();
        let bytes = sealed.seal(ECHO, 5, b"x");
        match how {
            "tampered" => {
                let mut tampered = bytes;
                *tampered.last_mut().unwrap() ^= 1;
                sealed.wire.client(&tampered);
            }
            "replayed" => sealed.wire.client(&[bytes.clone(), bytes].concat()),
            "left out" => sealed.ask(ECHO, 6, b"y"),
            _ => sealed.wire.client(&request(ECHO, 5, b"x")),
        }
        assert!(sealed.wire.is_closed(), "{how}");
        assert_eq!(
            (&sealed.wire.to_client[..], sealed.wire.bridge.client_output()),
            (&[][..], &[][..])
        );
    }
}

#[test]
fn sealed_frames_wait_in_their_order_for_a_service_without_room() {
    let mut sealed = Sealed::live();
    let no_window = [&[0, 4], &0u32.to_be_bytes()[..]].concat();
    sealed.wire.service(&raw(Kind::Settings, 0, 0, &no_window));
    for sequence in 0..20 {
        sealed.ask(ECHO, sequence, &[sequence as u8; 60_000]);
    }
    for _ in 0..100 {
        sealed.wire.service(&raw(Kind::Ping, 0, 0, b"eightbyt"));
    }
    assert!(sealed.wire.bridge.rest.is_empty() && !sealed.wire.held.is_empty());
    let windows = [&[0, 4], &(1u32 << 30).to_be_bytes()[..]].concat();
    let wide = raw(Kind::WindowUpdate, 0, 0, &(1u32 << 30).to_be_bytes());
    sealed.wire.service(&[raw(Kind::Settings, 0, 0, &windows), wide].concat());
    assert!(sealed.wire.held.is_empty() && !sealed.wire.is_closed());
    for call in 0..20 {
        sealed.wire.service(&reply(3 + 2 * call, b"done"));
    }
    assert_eq!(sealed.heard().len(), 20);
}

#[test]
fn a_kick_is_sealed_too() {
    let mut sealed = Sealed::live();
    sealed.wire.companion(Outcome::Kick { reason: "bye".into(), code: 77 });
    sealed.wire.service(&acknowledged());
    assert_eq!(sealed.heard(), [(0, 77, "bye".into())]);
}

#[test]
fn every_split_of_sealed_frames_gives_the_same_calls() {
    let (first, second, whole) = {
        let mut sealed = Sealed::live();
        let (first, second) = (sealed.seal(ECHO, 5, b"x"), sealed.seal(ECHO, 6, b"y"));
        sealed.wire.client(&[first.clone(), second.clone()].concat());
        let whole = sealed.wire.kinds();
        (first, second, whole)
    };
    let bytes = [first, second].concat();
    for at in 0..=bytes.len() {
        let mut sealed = Sealed::live();
        sealed.wire.client(&bytes[..at]);
        sealed.wire.client(&bytes[at..]);
        assert_eq!(sealed.wire.kinds(), whole, "split at {at}");
    }
}

#[test]
fn a_push_is_sealed_in_its_turn_and_waits_for_the_activation() {
    let push = |sealed: &mut Sealed, reference, body: &[u8]| {
        let push = Push::new(PushCommand::Number(NOTICE as i64), body.to_vec());
        let wire = &mut sealed.wire;
        wire.worker.link.begin_push(reference, push, 3);
        let delivery = wire.worker.link.poll_push().unwrap();
        wire.bridge.handle_push(wire.now, &delivery, &mut wire.worker);
        wire.settle();
    };
    let mut pending = Sealed::pending();
    push(&mut pending, 1, b"too early");
    assert_eq!(pending.wire.worker.link.push_answers(), [(1, [0, 1, 0, 0])]);

    let mut sealed = Sealed::live();
    push(&mut sealed, 2, b"one");
    sealed.ask(ECHO, 7, b"x");
    push(&mut sealed, 3, b"two");
    sealed.wire.service(&reply(3, b"y"));
    let expected = [(0, 0, "one".into()), (0, 0, "two".into()), (7, 0, "y".into())];
    assert_eq!(sealed.heard(), expected);
    assert_eq!(sealed.wire.worker.link.push_answers(), [(2, [1, 0, 0, 0]), (3, [1, 0, 0, 0])]);
}
