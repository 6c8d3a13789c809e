//! What every store does with sessions that change hands, go away and come back.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{Tested, at, id, ids, lives, page, session, sweep, under, yes};
use crate::domain::group::{GroupLimits, GroupName};
use crate::domain::same_user::SameUser;
use crate::domain::session::{Farewell, Hold, HoldNumber, Session, SessionId, State};
use crate::store::GIVEN_UP;
use crate::store::history::{Cause, Happened};
use crate::store::{Admission, Admitted, Count, Left, StoreError, Sweep, Swept, Takeover};

/// The session on its next connection, at another proxy.
pub(super) fn next(old: &Session, chance: u64) -> Session {
    Session {
        hold: HoldNumber(u64::from(old.hold.generation() + 1) << 32 | chance),
        worker: 6,
        proxy: "proxy-2".into(),
        peer: "203.0.113.8:9".into(),
        client: "demo/2".into(),
        away_until: None,
        ..old.clone()
    }
}

pub(super) fn takeover(old: &Session, new: &Session) -> Takeover {
    Takeover { session: new.clone(), base: old.hold, now: at(10), lost_at: None }
}

async fn leave(store: &Tested, session: &Session, until: Option<u64>) -> Vec<(SessionId, Left)> {
    store.depart(vec![session.hold()], until.map(at)).await.unwrap()
}

async fn found(store: &Tested, id: SessionId) -> Option<Session> {
    store.find(vec![id]).await.unwrap().remove(0)
}

async fn count(store: &Tested) -> (u64, u64) {
    let Count { live, away } = store.count().await.unwrap();
    (live, away)
}

/// A sweep that looks at workers, and puts sessions away until then.
async fn sweep_lost(store: &Tested, now: u64, until: u64) -> Result<Swept, StoreError> {
    store.sweep(Sweep { now: at(now), lost_until: Some(at(until)) }).await
}

pub async fn a_session_goes_away_and_ends_when_its_time_is_over(store: Tested) {
    let (ada, bob) = (session(1, "ada", 100), session(2, "bob", 100));
    for session in [&ada, &bob] {
        store.admit(lives(session)).await.unwrap();
    }
    assert_eq!(leave(&store, &ada, Some(50)).await, [(ada.id, Left::Away)]);
    assert_eq!(leave(&store, &ada, Some(60)).await, [], "it is away already");
    let away = found(&store, ada.id).await.unwrap();
    assert_eq!((away.state(), away.away_until), (State::Away, Some(at(50))));
    assert_eq!(away, Session { away_until: Some(at(50)), ..ada.clone() });
    assert_eq!(store.list(page(Some("ada"), None, 9)).await.unwrap().sessions, [away]);
    assert_eq!(count(&store).await, (1, 1));
    assert_eq!(sweep(&store, 49).await, Ok(Swept::default()));
    let swept = Swept { given_up: vec![ada.id], ..Swept::default() };
    assert_eq!(sweep(&store, 50).await, Ok(swept));
    assert_eq!((found(&store, ada.id).await, count(&store).await), (None, (1, 0)));
    // Nobody waits for longer than the session lives.
    assert_eq!(leave(&store, &bob, Some(500)).await, [(bob.id, Left::Away)]);
    let swept = Swept { sessions: vec![bob.id], ..Swept::default() };
    assert_eq!(sweep(&store, 100).await, Ok(swept));
    assert_eq!(sweep(&store, 1000).await, Ok(Swept::default()));
}

pub async fn a_session_goes_on_over_another_connection(store: Tested) {
    let old = session(1, "ada", 100);
    store.admit(lives(&old)).await.unwrap();
    let new = next(&old, 3);
    // From a live connection, and from one that is gone.
    assert_eq!(store.take_over(takeover(&old, &new)).await, Ok(true));
    assert_eq!(found(&store, old.id).await, Some(new.clone()));
    assert_eq!(leave(&store, &new, Some(50)).await, [(new.id, Left::Away)]);
    let newest = next(&new, 3);
    assert_eq!(store.take_over(takeover(&new, &newest)).await, Ok(true));
    assert_eq!(found(&store, old.id).await, Some(newest.clone()));
    assert_eq!(count(&store).await, (1, 0));
    assert_eq!(sweep(&store, 99).await, Ok(Swept::default()), "it is away no more");
    assert_eq!(ids(&store, Some("ada")).await, [old.id]);
    assert_eq!(store.end(vec![old.id], None).await, Ok(vec![newest.clone()]));
    assert_eq!(store.take_over(takeover(&newest, &next(&newest, 1))).await, Ok(false));
    assert_eq!(ids(&store, None).await, []);
}

pub async fn what_goes_away_and_comes_back_is_told_and_stays_in_its_groups(store: Tested) {
    let begin = store.newest().await.unwrap();
    let (ada, bob) = (session(1, "ada", 1000), session(2, "bob", 1000));
    let group = || GroupName::new("room").unwrap();
    for session in [&ada, &bob] {
        store.admit(lives(session)).await.unwrap();
        store.join(group(), session.id, GroupLimits::default()).await.unwrap();
    }
    let away =
        |session: &Session, until| Session { away_until: Some(at(until)), ..session.clone() };
    leave(&store, &ada, Some(50)).await;
    let back = next(&ada, 3);
    store.take_over(takeover(&ada, &back)).await.unwrap();
    // From a connection that is there to another one: it was not away.
    let moved = next(&back, 4);
    store.take_over(takeover(&back, &moved)).await.unwrap();
    store.attached(vec![5], at(20)).await.unwrap();
    sweep_lost(&store, 20, 200).await.unwrap();
    store.back(vec![bob.hold()], 5).await.unwrap();
    assert_eq!(store.members(group(), None, 9).await, Ok(vec![ada.id, bob.id]));
    leave(&store, &moved, Some(60)).await;
    leave(&store, &bob, None).await;
    sweep(&store, 60).await.unwrap();
    assert_eq!(store.members(group(), None, 9).await, Ok(vec![]));

    let end = |cause, reason: &str| Happened::End { cause, farewell: Farewell::new(reason) };
    let expected = [
        (ada.clone(), Happened::Login),
        (bob.clone(), Happened::Login),
        (away(&ada, 50), Happened::Away),
        (back, Happened::Back),
        (away(&bob, 200), Happened::Away),
        (bob.clone(), Happened::Back),
        (away(&moved, 60), Happened::Away),
        (bob, end(Cause::Closed, "")),
        (away(&moved, 60), end(Cause::GivenUp, GIVEN_UP)),
    ];
    let events = store.since(begin, 100).await.unwrap().unwrap();
    let told: Vec<_> = events.into_iter().map(|event| (event.session, event.happened)).collect();
    assert_eq!(told, expected);
}

pub async fn of_fifty_that_take_over_at_the_same_moment_one_does(store: Tested) {
    let old = session(1, "ada", 100);
    store.admit(lives(&old)).await.unwrap();
    let tries: Vec<_> = (0..50)
        .map(|chance| {
            let (store, takeover) = (Arc::clone(&store), takeover(&old, &next(&old, chance)));
            tokio::spawn(async move {
                (takeover.session.hold, store.take_over(takeover).await.unwrap())
            })
        })
        .collect();
    let mut winners = Vec::new();
    for attempt in tries {
        let (hold, won) = attempt.await.unwrap();
        winners.extend(won.then_some(hold));
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(found(&store, old.id).await.unwrap().hold, winners[0]);
}

pub async fn a_connection_that_was_overtaken_changes_nothing_any_more(store: Tested) {
    let old = session(1, "ada", 100);
    store.admit(lives(&old)).await.unwrap();
    let new = next(&old, 3);
    store.take_over(takeover(&old, &new)).await.unwrap();
    for until in [Some(50), None] {
        assert_eq!(leave(&store, &old, until).await, []);
    }
    assert_eq!(store.back(vec![old.hold()], old.worker).await, Ok(vec![false]));
    assert_eq!(store.take_over(takeover(&old, &next(&old, 4))).await, Ok(false));
    assert_eq!(found(&store, old.id).await, Some(new.clone()));
    // Nor does anybody take over what has expired, or was away for too long.
    let late = Takeover { now: at(100), ..takeover(&new, &next(&new, 1)) };
    assert_eq!(store.take_over(late).await, Ok(false));
    leave(&store, &new, Some(50)).await;
    let late = Takeover { now: at(50), ..takeover(&new, &next(&new, 1)) };
    assert_eq!(store.take_over(late.clone()).await, Ok(false));
    assert_eq!(store.take_over(Takeover { now: at(49), ..late }).await, Ok(true));
}

pub async fn what_cannot_be_resumed_ends_with_its_connection(store: Tested) {
    let (ada, bob) = (session(1, "ada", 100), session(2, "bob", 100));
    let ada = Session { seed: None, ..ada };
    for session in [&ada, &bob] {
        store.admit(lives(session)).await.unwrap();
    }
    assert_eq!(leave(&store, &ada, Some(50)).await, [(ada.id, Left::Ended)]);
    assert_eq!(leave(&store, &bob, None).await, [(bob.id, Left::Ended)]);
    assert_eq!((ids(&store, None).await, count(&store).await), (vec![], (0, 0)));
    assert_eq!(sweep(&store, 1000).await, Ok(Swept::default()));
}

pub async fn sessions_of_a_lost_worker_go_away_and_come_back_with_it(store: Tested) {
    let sessions: Vec<_> = (0..300).map(|number| session(number, "ada", 1000)).collect();
    for session in &sessions {
        store.admit(lives(session)).await.unwrap();
    }
    let other = Session { worker: 9, ..session(400, "bob", 1000) };
    store.admit(lives(&other)).await.unwrap();
    assert_eq!(store.attached(vec![5, 9], at(50)).await, Ok(vec![5, 9]));
    assert_eq!(store.attached(vec![9], at(80)).await, Ok(vec![]));
    assert_eq!(sweep_lost(&store, 49, 200).await, Ok(Swept::default()));
    // Not while nobody could speak of it.
    assert_eq!(sweep(&store, 60).await, Ok(Swept::default()));
    let mut lost = Vec::new();
    loop {
        let swept = sweep_lost(&store, 50, 200).await.unwrap();
        assert!(swept.lost.len() <= 256 && swept.given_up.is_empty());
        lost.extend(swept.lost);
        if !swept.more {
            break;
        }
    }
    lost.sort();
    assert_eq!(lost, sessions.iter().map(|session| session.id).collect::<Vec<_>>());
    assert_eq!(count(&store).await, (1, 300));
    assert_eq!(found(&store, lost[0]).await.unwrap().away_until, Some(at(200)));
    assert_eq!(found(&store, other.id).await, Some(other));

    // It was only out of reach. It comes back, with most of what it had.
    assert_eq!(store.attached(vec![5], at(90)).await, Ok(vec![5]));
    let holds: Vec<Hold> = sessions.iter().take(290).map(Session::hold).collect();
    assert_eq!(store.back(holds.clone(), 6).await, Ok(vec![false; 290]), "another worker");
    assert_eq!(store.back(holds, 5).await, Ok(vec![true; 290]));
    assert_eq!(count(&store).await, (291, 10));
    assert_eq!(found(&store, lost[0]).await.as_ref(), sessions.first());
    let mut given_up = sweep(&store, 200).await.unwrap().given_up;
    given_up.sort();
    assert_eq!(given_up, (290..300).map(id).collect::<Vec<_>>());
    // Lost again, they are found again.
    let mut again = 0;
    loop {
        let swept = sweep_lost(&store, 300, 400).await.unwrap();
        again += swept.lost.len();
        if !swept.more {
            break;
        }
    }
    assert_eq!((again, count(&store).await), (291, (0, 291)));
}

pub async fn sessions_of_a_lost_worker_end_where_they_have_no_time(store: Tested) {
    store.admit(lives(&session(1, "ada", 1000))).await.unwrap();
    store.attached(vec![5], at(50)).await.unwrap();
    let swept = sweep_lost(&store, 50, 50).await.unwrap();
    assert_eq!((swept.given_up, swept.lost), (vec![id(1)], vec![]));
    assert_eq!(ids(&store, None).await, []);
    assert_eq!(sweep_lost(&store, 50, 50).await, Ok(Swept::default()));
}

pub async fn sessions_of_a_worker_that_nobody_spoke_of_are_found_too(store: Tested) {
    // The worker is lost before anybody names it to the store; or is named, taken for lost, and
    // not named again before it really is.
    let (ada, bob) = (session(1, "ada", 1000), session(2, "bob", 1000));
    store.admit(lives(&bob)).await.unwrap();
    store.admit(Admission { lost_at: Some(at(50)), ..lives(&ada) }).await.unwrap();
    let moved = Takeover { lost_at: Some(at(60)), ..takeover(&bob, &next(&bob, 1)) };
    assert_eq!(store.take_over(moved).await, Ok(true));
    assert_eq!(sweep_lost(&store, 49, 200).await, Ok(Swept::default()));
    assert_eq!(sweep_lost(&store, 50, 200).await.unwrap().lost, [ada.id]);
    assert_eq!(sweep_lost(&store, 59, 200).await, Ok(Swept::default()));
    assert_eq!(sweep_lost(&store, 60, 200).await.unwrap().lost, [bob.id]);
    // What is known of a worker counts.
    let eve = session(3, "eve", 1000);
    store.attached(vec![5], at(300)).await.unwrap();
    store.admit(Admission { lost_at: Some(at(70)), ..lives(&eve) }).await.unwrap();
    assert_eq!(sweep_lost(&store, 299, 400).await.unwrap().lost, []);
    assert_eq!(sweep_lost(&store, 300, 400).await.unwrap().lost, [eve.id]);
}

pub async fn a_session_that_is_away_gives_way_to_a_new_one(store: Tested) {
    let (first, second) = (session(1, "ada", 100), session(2, "ada", 100));
    store.admit(lives(&first)).await.unwrap();
    leave(&store, &first, Some(50)).await;
    // Asked without a session, nobody ends.
    let asked = Admission { session: None, ..under(SameUser::REFUSE, &second, 0) };
    assert_eq!(store.admit(asked).await, Ok(yes()));
    assert_eq!(ids(&store, Some("ada")).await, [first.id]);
    let away = Session { away_until: Some(at(50)), ..first.clone() };
    let replaced = store.admit(under(SameUser::REFUSE, &second, 0)).await.unwrap();
    let Admitted::Yes { replaced } = replaced else { panic!("{replaced:?}") };
    assert_eq!(replaced.iter().map(|session| session.id).collect::<Vec<_>>(), [away.id]);
    assert_eq!(ids(&store, Some("ada")).await, [second.id]);
    assert_eq!(store.take_over(takeover(&first, &next(&first, 1))).await, Ok(false));
    let third = session(3, "ada", 100);
    let refused = store.admit(under(SameUser::REFUSE, &third, 0)).await;
    assert_eq!(refused, Ok(Admitted::TooManySessions), "one that lives does not give way");
}

pub async fn a_session_that_is_away_can_be_kept_in_the_way(store: Tested) {
    let (first, second) = (session(1, "ada", 100), session(2, "ada", 100));
    store.admit(lives(&first)).await.unwrap();
    leave(&store, &first, Some(50)).await;
    let admission =
        |now| Admission { bound: SameUser::REFUSE.bound(&second, at(now), true), ..lives(&second) };
    assert_eq!(store.admit(admission(49)).await, Ok(Admitted::TooManySessions));
    // Its time is over, whether it was swept or not.
    assert_eq!(store.admit(admission(50)).await, Ok(yes()));
}

pub async fn two_of_three_may_be_there_and_the_oldest_that_is_away_ends(store: Tested) {
    let rule = SameUser::Allow(NonZeroU32::new(3));
    let sessions: Vec<_> = (0..3).map(|number| session(number, "ada", 100)).collect();
    for session in &sessions {
        assert_eq!(store.admit(under(rule, session, 0)).await, Ok(yes()));
    }
    for session in &sessions[1..] {
        leave(&store, session, Some(50)).await;
    }
    store.admit(under(rule, &session(4, "ada", 100), 0)).await.unwrap();
    assert_eq!(ids(&store, Some("ada")).await, [id(0), id(2), id(4)]);
    store.admit(under(rule, &session(5, "ada", 100), 0)).await.unwrap();
    assert_eq!(ids(&store, Some("ada")).await, [id(0), id(4), id(5)]);
    let refused = store.admit(under(rule, &session(6, "ada", 100), 0)).await;
    assert_eq!(refused, Ok(Admitted::TooManySessions));
}
