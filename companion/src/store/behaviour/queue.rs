//! What every store does with pushes that wait.

use std::sync::Arc;
use std::time::Duration;

use super::moves::{next, takeover};
use super::{Tested, at, id, lives, session};
use crate::domain::push::{Command, Leave, Parcel};
use crate::store::queue::{Kept, QueueLimits};

const LIMITS: QueueLimits = QueueLimits { pushes: 3, bytes: 500, age: Duration::from_millis(100) };

fn parcel(number: i64, size: usize) -> Arc<Parcel> {
    Arc::new(Parcel { command: Command::Number(number), body: vec![0xff; size] })
}

async fn keep(store: &Tested, numbers: &[u16], parcel: Arc<Parcel>, now: u64) -> Vec<Kept> {
    let ids = numbers.iter().map(|number| id(*number)).collect();
    store.keep(ids, parcel, LIMITS, at(now)).await.unwrap()
}

/// The commands of what waits.
async fn taken(store: &Tested, number: u16, since: u64) -> Vec<i64> {
    let taken = store.take_kept(vec![id(9), id(number)], at(since)).await.unwrap();
    assert_eq!((taken.len(), taken[0].len()), (2, 0));
    let command = |parcel: &Parcel| match &parcel.command {
        Command::Number(number) => *number,
        other => panic!("{other:?}"),
    };
    taken[1].iter().map(command).collect()
}

pub async fn pushes_wait_for_sessions_that_are_away_in_order_and_within_bounds(store: Tested) {
    let (ada, bob) = (session(1, "ada", 1_000_000), session(2, "bob", 1_000_000));
    for session in [&ada, &bob] {
        store.admit(lives(session)).await.unwrap();
    }
    store.depart(vec![ada.hold()], Some(at(500_000))).await.unwrap();
    let kept = keep(&store, &[1, 2, 9], parcel(1, 10), 0).await;
    assert_eq!(kept, [Kept::Queued, Kept::Elsewhere, Kept::Elsewhere]);
    let leave = Parcel { command: Command::Leave(Leave::default()), body: Vec::new() };
    assert_eq!(keep(&store, &[1], Arc::new(leave), 0).await, [Kept::Elsewhere], "away is away");
    assert_eq!(keep(&store, &[1], parcel(2, 10), 10).await, [Kept::Queued]);
    assert_eq!(keep(&store, &[1], parcel(3, 500), 10).await, [Kept::Full], "bytes");
    assert_eq!(keep(&store, &[1], parcel(4, 10), 20).await, [Kept::Queued]);
    assert_eq!(keep(&store, &[1], parcel(5, 10), 20).await, [Kept::Full], "pushes");
    // The first one is too old; another one may come.
    assert_eq!(keep(&store, &[1], parcel(6, 10), 100).await, [Kept::Queued]);
    assert_eq!(taken(&store, 1, 20).await, [4, 6]);
    assert_eq!(taken(&store, 1, 0).await, [] as [i64; 0]);

    // What was kept before it came back is found after, and nothing is kept then.
    assert_eq!(keep(&store, &[1], parcel(7, 10), 100).await, [Kept::Queued]);
    let back = next(&ada, 3);
    assert_eq!(store.take_over(takeover(&ada, &back)).await, Ok(true));
    assert_eq!(keep(&store, &[1], parcel(8, 10), 100).await, [Kept::Elsewhere]);
    assert_eq!(taken(&store, 1, 0).await, [7]);

    // It ends with its session.
    store.depart(vec![back.hold()], Some(at(500_000))).await.unwrap();
    assert_eq!(keep(&store, &[1], parcel(9, 10), 100).await, [Kept::Queued]);
    store.end(vec![ada.id], None).await.unwrap();
    assert_eq!(taken(&store, 1, 0).await, [] as [i64; 0]);
    // A name is kept as a name.
    store.depart(vec![bob.hold()], Some(at(500_000))).await.unwrap();
    let named = Parcel { command: Command::Name("bye".into()), body: b"x".to_vec() };
    assert_eq!(keep(&store, &[2], Arc::new(named.clone()), 0).await, [Kept::Queued]);
    assert_eq!(store.take_kept(vec![bob.id], at(0)).await, Ok(vec![vec![named]]));
}
