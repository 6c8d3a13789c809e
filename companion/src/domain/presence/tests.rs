use std::collections::BTreeMap;

use super::*;
use crate::domain::credential::Identity;
use crate::domain::session::Mode;

/// A stream that keeps what it is told.
struct Line {
    id: StreamId,
    told: Mutex<Vec<String>>,
}

impl ProxyStream for Line {
    fn id(&self) -> StreamId {
        self.id
    }

    fn proxy(&self) -> &str {
        "proxy"
    }

    fn worker(&self) -> u64 {
        1
    }

    fn drains(&self) -> bool {
        self.id.0 % 2 == 1
    }

    fn tell(&self, word: Word) {
        let text = match word {
            Word::Drain => "drain".into(),
            Word::Accepted(accepted) => format!("accepted {}", accepted.reference),
            Word::Refused { reference, refused } => {
                format!("refused {reference} {:?}", refused.why)
            }
            Word::Activated { reference, refused } => format!("activated {reference} {refused:?}"),
            Word::Push { sessions, .. } => format!("push {sessions:?}"),
            Word::Kick { hold, farewell } => {
                format!("kick {} {}", hold.session.as_bytes()[15], farewell.reason)
            }
        };
        self.told.lock().unwrap().push(text);
    }
}

fn line(presence: &Presence, id: u64) -> (Arc<Line>, Arc<dyn ProxyStream>) {
    let line = Arc::new(Line { id: StreamId(id), told: Mutex::default() });
    presence.open(&(Arc::clone(&line) as Arc<dyn ProxyStream>));
    (Arc::clone(&line), line)
}

fn told(line: &Line) -> Vec<String> {
    std::mem::take(&mut line.told.lock().unwrap())
}

fn id(number: u8) -> SessionId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    SessionId::from_bytes(bytes)
}

fn hold(number: u8) -> Hold {
    Hold { session: id(number), number: HoldNumber(1 << 32) }
}

fn session(number: u8, user: &str) -> Session {
    Session {
        id: id(number),
        identity: Identity { user: user.into(), roles: Vec::new(), claims: BTreeMap::new() },
        mode: Mode::Noise,
        audience: "a".into(),
        layout: "l".into(),
        proxy: "proxy".into(),
        peer: "p".into(),
        client: String::new(),
        created_at: UnixMillis(0),
        expires_at: UnixMillis(1000),
        hold: HoldNumber(1 << 32),
        worker: 1,
        away_until: None,
        seed: None,
    }
}

fn accepted(number: u8) -> Accepted {
    let session = session(number, "ada");
    Accepted { reference: u64::from(number), session, base: None, reply: Vec::new(), keys: None }
}

fn activated(reference: u64) -> Word {
    Word::Activated { reference, refused: None }
}

fn held_by(presence: &Presence, number: u8, stream: &Arc<dyn ProxyStream>) {
    assert_eq!(presence.reattach(hold(number), stream, true, "ended"), Reattached::Held);
}

const NOW: UnixMillis = UnixMillis(1_000_000);

#[test]
fn a_pending_session_becomes_live_by_its_own_stream_alone() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let (_, stream2) = line(&presence, 2);
    presence.pend(&stream1, accepted(1), NOW);
    let ask = |stream: &Arc<dyn ProxyStream>, reference| {
        presence.start_activation(hold(1), stream.id(), reference)
    };
    assert_eq!(ask(&stream2, 4), Activation::Unknown);
    assert_eq!(
        ask(&stream1, 5),
        Activation::Begins(Box::new(Waiting { session: session(1, "ada"), base: None }))
    );
    // Asked again, it shares the answer of the first; not without end.
    for reference in 6..10 {
        assert_eq!(ask(&stream1, reference), Activation::UnderWay);
    }
    assert_eq!(ask(&stream1, 10), Activation::Unknown);
    assert_eq!(presence.go_live(hold(1), activated(5)), Ok(()));
    let answers = (5..10).map(|reference| format!("activated {reference} None"));
    assert_eq!(told(&line1), [vec!["accepted 1".to_owned()], answers.collect()].concat());
    assert_eq!(ask(&stream1, 11), Activation::Done);
    assert_eq!(ask(&stream2, 12), Activation::Unknown);
}

#[test]
fn a_kick_reaches_the_stream_that_holds_the_session_alone() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let (line2, stream2) = line(&presence, 2);
    held_by(&presence, 1, &stream1);
    held_by(&presence, 2, &stream2);
    assert_eq!(presence.kick(id(2), &Farewell::new("out")), Met::Live);
    assert_eq!(presence.kick(id(2), &Farewell::new("out")), Met::Nothing);
    assert_eq!((told(&line1), told(&line2)), (vec![], vec!["kick 2 out".into()]));
}

#[test]
fn a_kick_while_a_session_begins_keeps_it_from_living() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.join(hold(1), &stream1).unwrap();
    assert_eq!(presence.kick(id(1), &Farewell::new("out")), Met::Joining);
    assert_eq!(presence.go_live(hold(1), activated(1)), Err(Gone));
    assert_eq!(told(&line1), Vec::<String>::new());
    presence.refuse(hold(1), 1, "no");
    assert_eq!(told(&line1), ["activated 1 Some(\"no\")"]);
    assert_eq!(presence.held(), 0);
}

#[test]
fn what_a_lost_stream_held_is_forgotten_and_begins_no_more() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    presence.join(hold(2), &stream1).unwrap();
    held_by(&presence, 3, &stream1);
    presence.close(stream1.id());
    assert_eq!(presence.go_live(hold(2), activated(2)), Err(Gone));
    presence.discard(hold(2));
    assert_eq!(presence.held(), 0);
    assert_eq!(presence.join(hold(4), &stream1), Err(Gone));
    told(&line1);
    presence.pend(&stream1, accepted(5), NOW);
    assert_eq!((presence.held(), told(&line1)), (0, vec![]));
}

#[test]
fn a_session_that_moved_to_a_new_stream_outlives_the_old_one() {
    let presence = Presence::default();
    let (_, stream1) = line(&presence, 1);
    let (line2, stream2) = line(&presence, 2);
    held_by(&presence, 1, &stream1);
    held_by(&presence, 1, &stream2);
    assert_eq!(presence.forget(hold(1), stream1.id()), Met::Nothing);
    presence.close(stream1.id());
    assert_eq!(presence.kick(id(1), &Farewell::new("out")), Met::Live);
    assert_eq!(told(&line2), ["kick 1 out"]);
}

#[test]
fn pending_sessions_end_after_their_time_and_live_ones_stay() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    presence.pend(&stream1, accepted(2), NOW);
    presence.pend(&stream1, accepted(3), NOW.after(Duration::from_secs(1)));
    presence.start_activation(hold(1), stream1.id(), 1);
    presence.go_live(hold(1), activated(1)).unwrap();
    told(&line1);
    presence.expire_pending(NOW.after(PENDING_LIFETIME - Duration::from_millis(1)));
    assert_eq!(told(&line1), Vec::<String>::new());
    presence.expire_pending(NOW.after(PENDING_LIFETIME));
    assert_eq!(told(&line1), ["kick 2 the login was not completed in time"]);
    assert_eq!(presence.start_activation(hold(2), stream1.id(), 2), Activation::Unknown);
    assert_eq!(presence.held(), 2);
}

#[test]
fn a_stop_waits_for_those_who_answer_and_for_their_pending_sessions() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let (line2, stream2) = line(&presence, 2);
    for (number, stream) in [(1, &stream1), (2, &stream2)] {
        presence.pend(stream, accepted(number), NOW);
    }
    presence.drain();
    assert_eq!(
        (told(&line1).pop(), told(&line2).pop()),
        (Some("drain".into()), Some("drain".into()))
    );
    assert!(!presence.is_drained());
    presence.drained(stream1.id());
    assert!(!presence.is_drained(), "one of its sessions waits");
    presence.start_activation(hold(1), stream1.id(), 1);
    assert!(!presence.is_drained(), "and is being recorded");
    presence.go_live(hold(1), activated(1)).unwrap();
    assert!(presence.is_drained());
    // Whoever comes too late is sent on.
    let (late, _) = line(&presence, 3);
    assert_eq!((told(&late), presence.is_drained()), (vec!["drain".into()], false));
}

#[test]
fn pending_sessions_can_be_found_by_user() {
    let presence = Presence::default();
    let (_, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    let bob = Accepted { session: session(2, "bob"), ..accepted(2) };
    presence.pend(&stream1, bob, NOW);
    held_by(&presence, 3, &stream1);
    let found = presence.pending(|session| session.identity.user == "bob");
    assert_eq!(found, [session(2, "bob")]);
}

#[test]
fn a_session_that_is_recorded_while_its_stream_is_lost_goes_live_on_the_next_one() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    presence.start_activation(hold(1), stream1.id(), 7);
    presence.close(stream1.id());
    told(&line1);
    let (line2, stream2) = line(&presence, 2);
    // Not in the store yet.
    assert_eq!(presence.reattach(hold(1), &stream2, false, "ended"), Reattached::Held);
    assert_eq!(presence.start_activation(hold(1), stream2.id(), 7), Activation::UnderWay);
    assert_eq!(presence.go_live(hold(1), activated(7)), Ok(()));
    assert_eq!(told(&line2), ["activated 7 None", "activated 7 None"]);
    assert_eq!(told(&line1), Vec::<String>::new());
}

#[test]
fn what_ended_in_the_moment_of_return_is_not_held_again() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let kick = || presence.kick_recorded(id(1), Some("proxy".into()), Farewell::new("out"));
    assert_eq!(kick(), Met::Nothing);
    // The store was asked before the kick.
    assert_eq!(presence.reattach(hold(1), &stream1, true, "ended"), Reattached::Ended);
    assert_eq!(told(&line1), ["kick 1 out"]);
    assert_eq!(presence.reattach(hold(1), &stream1, false, "ended"), Reattached::Ended);
    assert_eq!(told(&line1), ["kick 1 ended"]);
    assert_eq!(presence.held(), 0);
}
