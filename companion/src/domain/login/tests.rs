use std::time::Duration;

use redb::backends::InMemoryBackend;

use super::*;
use crate::domain::cookie::with_cookie;
use crate::domain::presence::StreamId;
use crate::domain::time::{Clock, ManualClock};
use crate::store::redb::RedbStore;

/// A stream that keeps what it is told.
#[derive(Default)]
struct Line(Mutex<Vec<String>>);

impl ProxyStream for Line {
    fn id(&self) -> StreamId {
        StreamId(1)
    }

    fn proxy(&self) -> &str {
        "proxy"
    }

    fn worker(&self) -> u64 {
        1
    }

    fn drains(&self) -> bool {
        false
    }

    fn tell(&self, word: Word) {
        let Word::Refused { reference, refused } = word else { panic!("refusals alone: {word:?}") };
        let text = refused.text.map(|text| format!(" {text}")).unwrap_or_default();
        self.0.lock().unwrap().push(format!("{reference} {}{text}", refused.why.name()));
    }
}

struct World {
    logins: Logins,
    clock: Arc<ManualClock>,
    line: Arc<Line>,
    stream: Arc<dyn ProxyStream>,
}

impl World {
    fn new(policy: Policy) -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis(1_800_000_000_000)));
        let store = Arc::new(RedbStore::with_backend(InMemoryBackend::new()).unwrap());
        let sessions = Arc::new(Sessions::new(store, Arc::clone(&clock) as Arc<dyn Clock>));
        let line = Arc::new(Line::default());
        let stream = Arc::clone(&line) as Arc<dyn ProxyStream>;
        let keys = Keys { cookies: Some(Cookies::derive([]).unwrap()), ..Keys::default() };
        Self { logins: Logins::new(sessions, keys, policy), clock, line, stream }
    }

    fn enter(&self, reference: u64, peer: &str) -> bool {
        self.enter_with(reference, peer, b"mgt1.x.y".to_vec())
    }

    fn enter_with(&self, reference: u64, peer: &str, message: Vec<u8>) -> bool {
        let attempt = Attempt {
            reference,
            mode: Some(Mode::Ticket),
            audience: "a".into(),
            layout: "l".into(),
            peer: peer.into(),
            message: Zeroizing::new(message),
        };
        self.logins.enter(&self.stream, attempt)
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.line.0.lock().unwrap())
    }
}

#[tokio::test]
async fn a_full_queue_sheds_the_oldest_and_works_in_order() {
    let world = World::new(Policy { max_under_way: 3, ..Policy::default() });
    for reference in 1..=5 {
        assert!(world.enter(reference, "192.0.2.1:1"));
    }
    assert_eq!(world.told(), ["1 shed", "2 shed"]);
    assert_eq!(world.logins.under_way(), 3);
    // One task for each that entered: those that find nothing to do end.
    for _ in 0..5 {
        world.logins.work().await;
    }
    assert_eq!(world.told(), ["3 malformed", "4 malformed", "5 malformed"]);
    assert_eq!(world.logins.under_way(), 0);
    world.logins.finished().await;
}

#[test]
fn where_nobody_waits_for_his_turn_the_newcomer_is_refused() {
    let world = World::new(Policy { max_under_way: 1, ..Policy::default() });
    assert!(world.enter(1, "192.0.2.1:1"));
    // Somebody works on it.
    let taken = lock(&world.logins.waiting).pop_front().unwrap();
    assert!(!world.enter(2, "192.0.2.1:1"));
    assert_eq!(world.told(), ["2 too_many"]);
    drop(taken);
    assert!(world.enter(3, "192.0.2.1:1"));
}

#[tokio::test]
async fn who_waited_for_longer_than_his_proxy_does_is_not_worked_on() {
    let world = World::new(Policy::default());
    assert!(world.enter(1, "192.0.2.1:1"));
    let long_ago = Instant::now().checked_sub(STALE_AFTER + Duration::from_millis(1)).unwrap();
    lock(&world.logins.waiting)[0].arrived = long_ago;
    world.logins.work().await;
    assert_eq!(world.told(), ["1 shed"]);
}

#[test]
fn a_flood_from_one_address_leaves_the_others_their_share() {
    let policy = Policy {
        address_rate: Some(Rate::new(1, 2)),
        total_rate: Some(Rate::new(10, 4)),
        ..Policy::default()
    };
    let world = World::new(policy.clone());
    let entered = (1..=100).filter(|n| world.enter(*n, "192.0.2.1:1")).count();
    assert_eq!(entered, 2);
    assert!(world.told().iter().all(|told| told.ends_with("address_too_fast")));
    // What it was refused took nothing of what all have together.
    assert!(world.enter(101, "192.0.2.2:1"));
    assert!(world.enter(102, "[2001:db8::1]:1"));
    assert!(!world.enter(103, "192.0.2.3:1"));
    assert_eq!(world.told(), ["103 all_too_fast"]);
    world.clock.advance(Duration::from_secs(1));
    assert!(world.enter(104, "192.0.2.1:1"));
    // A reload changes rates and keeps what was taken.
    world.logins.reload(Keys::default(), Policy { address_rate: None, ..policy });
    assert!(world.enter(105, "192.0.2.1:1"));
}

/// The cookie that the last login was told to come back with.
fn cookie_of(world: &World, reference: u64) -> Vec<u8> {
    let told = world.told();
    let cookie = told[0].strip_prefix(&format!("{reference} cookie_asked ")).unwrap();
    assert_eq!(told.len(), 1);
    cookie.as_bytes().to_vec()
}

#[test]
fn who_comes_without_a_cookie_is_sent_away_for_one_at_the_cost_of_nothing_else() {
    let rate = Some(Rate::new(1, 1));
    let policy = Policy { cookie: Demand::Always, address_rate: rate, ..Policy::default() };
    let world = World::new(policy);
    let (peer, message) = ("192.0.2.1:1", b"mgt1.x.y");
    for reference in 1..10 {
        assert!(!world.enter(reference, peer));
        cookie_of(&world, reference);
    }
    assert!(!world.enter(10, peer));
    let cookie = cookie_of(&world, 10);
    let back = with_cookie(&cookie, message).unwrap();
    // From elsewhere, for another message, too late, cut off: all start anew.
    assert!(!world.enter_with(11, "192.0.2.2:1", back.clone()));
    cookie_of(&world, 11);
    let other = with_cookie(&cookie, b"mgt1.x.z").unwrap();
    assert!(!world.enter_with(12, peer, other));
    let fresh = cookie_of(&world, 12);
    assert!(!world.enter_with(13, peer, back[..9].to_vec()));
    assert_eq!(world.told(), ["13 malformed"]);

    assert!(world.enter_with(14, "192.0.2.1:9", back.clone()));
    assert_eq!(*lock(&world.logins.waiting)[0].attempt.message, message.to_vec());
    // It spares nobody the rates.
    assert!(!world.enter_with(15, peer, back.clone()));
    assert_eq!(world.told(), ["15 address_too_fast"]);
    world.clock.advance(Duration::from_secs(60));
    assert!(!world.enter_with(16, peer, back));
    assert_ne!(cookie_of(&world, 16), fresh);
}

#[test]
fn only_above_the_rate_is_a_cookie_asked_for_and_one_that_is_there_is_no_harm() {
    let demand = Demand::Above(Rate::new(1, 2));
    let world = World::new(Policy { cookie: demand, ..Policy::default() });
    let peer = "192.0.2.1:1";
    assert!(world.enter(1, peer) && world.enter(2, peer) && !world.enter(3, peer));
    let back = with_cookie(&cookie_of(&world, 3), b"mgt1.x.y").unwrap();
    assert!(world.enter_with(4, peer, back.clone()));
    assert!(!world.enter(5, peer));
    cookie_of(&world, 5);
    world.clock.advance(Duration::from_secs(1));
    assert!(world.enter(6, peer));

    let world = World::new(Policy::default());
    assert!(world.enter_with(1, peer, back));
    assert_eq!(*lock(&world.logins.waiting)[0].attempt.message, b"mgt1.x.y".to_vec());
}
