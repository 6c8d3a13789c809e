use std::time::Duration;

use redb::backends::InMemoryBackend;

use super::*;
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
        self.0.lock().unwrap().push(format!("{reference} {}", refused.why.name()));
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
        Self { logins: Logins::new(sessions, Keys::default(), policy), clock, line, stream }
    }

    fn enter(&self, reference: u64, peer: &str) -> bool {
        let attempt = Attempt {
            reference,
            mode: Some(Mode::Ticket),
            audience: "a".into(),
            layout: "l".into(),
            peer: peer.into(),
            message: Zeroizing::new(b"mgt1.x.y".to_vec()),
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
