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

    fn tell(&self, word: Word) {
        let text = match word {
            Word::Accepted(accepted) => format!("accepted {}", accepted.reference),
            Word::Refused { reference, why } => format!("refused {reference} {why:?}"),
            Word::Activated { reference, refused } => format!("activated {reference} {refused:?}"),
            Word::Kick { session, farewell } => {
                format!("kick {} {}", session.as_bytes()[15], farewell.reason)
            }
        };
        self.told.lock().unwrap().push(text);
    }
}

fn line(presence: &Presence, id: u64) -> (Arc<Line>, Arc<dyn ProxyStream>) {
    let line = Arc::new(Line { id: StreamId(id), told: Mutex::default() });
    presence.open(line.id);
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
    }
}

fn accepted(number: u8) -> Accepted {
    let session = session(number, "ada");
    Accepted { reference: u64::from(number), session, reply: Vec::new(), keys: None }
}

fn activated(reference: u64) -> Word {
    Word::Activated { reference, refused: None }
}

const NOW: UnixMillis = UnixMillis(1_000_000);

#[test]
fn a_pending_session_becomes_live_by_its_own_stream_alone() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let (_, stream2) = line(&presence, 2);
    presence.pend(&stream1, accepted(1), NOW);
    assert_eq!(presence.start_activation(id(1), stream2.id()), None);
    assert_eq!(presence.start_activation(id(1), stream1.id()), Some(session(1, "ada")));
    // A second frame cannot activate it again.
    assert_eq!(presence.start_activation(id(1), stream1.id()), None);
    assert_eq!(presence.go_live(id(1), activated(5)), Ok(()));
    assert_eq!(told(&line1), ["accepted 1", "activated 5 None"]);
}

#[test]
fn a_kick_reaches_the_stream_that_holds_the_session_alone() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    let (line2, stream2) = line(&presence, 2);
    presence.reattach(id(1), &stream1);
    presence.reattach(id(2), &stream2);
    assert_eq!(presence.kick(id(2), Farewell::new("out")), Met::Live);
    assert_eq!(presence.kick(id(2), Farewell::new("out")), Met::Nothing);
    assert_eq!((told(&line1), told(&line2)), (vec![], vec!["kick 2 out".into()]));
}

#[test]
fn a_kick_while_a_session_begins_keeps_it_from_living() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.join(id(1), &stream1).unwrap();
    assert_eq!(presence.kick(id(1), Farewell::new("out")), Met::Joining);
    assert_eq!(presence.go_live(id(1), activated(1)), Err(Gone));
    assert_eq!(told(&line1), Vec::<String>::new());
    assert_eq!(presence.held(), 0);
}

#[test]
fn what_a_lost_stream_held_is_forgotten_and_begins_no_more() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    presence.join(id(2), &stream1).unwrap();
    presence.reattach(id(3), &stream1);
    presence.close(stream1.id());
    assert_eq!(presence.held(), 0);
    assert_eq!(presence.go_live(id(2), activated(2)), Err(Gone));
    assert_eq!(presence.join(id(4), &stream1), Err(Gone));
    told(&line1);
    presence.pend(&stream1, accepted(5), NOW);
    assert_eq!((presence.held(), told(&line1)), (0, vec![]));
}

#[test]
fn a_session_that_moved_to_a_new_stream_outlives_the_old_one() {
    let presence = Presence::default();
    let (_, stream1) = line(&presence, 1);
    let (line2, stream2) = line(&presence, 2);
    presence.reattach(id(1), &stream1);
    presence.reattach(id(1), &stream2);
    assert_eq!(presence.forget(id(1), stream1.id()), Met::Nothing);
    presence.close(stream1.id());
    assert_eq!(presence.kick(id(1), Farewell::new("out")), Met::Live);
    assert_eq!(told(&line2), ["kick 1 out"]);
}

#[test]
fn pending_sessions_end_after_their_time_and_live_ones_stay() {
    let presence = Presence::default();
    let (line1, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    presence.pend(&stream1, accepted(2), NOW);
    presence.pend(&stream1, accepted(3), NOW.after(Duration::from_secs(1)));
    presence.start_activation(id(1), stream1.id()).unwrap();
    presence.go_live(id(1), activated(1)).unwrap();
    told(&line1);
    presence.expire_pending(NOW.after(PENDING_LIFETIME - Duration::from_millis(1)));
    assert_eq!(told(&line1), Vec::<String>::new());
    presence.expire_pending(NOW.after(PENDING_LIFETIME));
    assert_eq!(told(&line1), ["kick 2 the login was not completed in time"]);
    assert_eq!(presence.start_activation(id(2), stream1.id()), None);
    assert_eq!(presence.held(), 2);
}

#[test]
fn pending_sessions_can_be_found_by_user() {
    let presence = Presence::default();
    let (_, stream1) = line(&presence, 1);
    presence.pend(&stream1, accepted(1), NOW);
    let bob = Accepted { session: session(2, "bob"), ..accepted(2) };
    presence.pend(&stream1, bob, NOW);
    presence.reattach(id(3), &stream1);
    let found = presence.pending(|session| session.identity.user == "bob");
    assert_eq!(found, [session(2, "bob")]);
}
