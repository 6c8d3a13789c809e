//! What every store does, whichever it is: one test-suite, run on each by `on_every_store!`.
//!
//! Times are years ahead, because a store may have a clock of its own and expire by it. Each test
//! begins with an empty store.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{Admission, Admitted, Count, Listed, Page, Store, Sweep, Swept};

mod moves;

pub use moves::*;

use crate::domain::credential::{CredentialId, Identity};
use crate::domain::resume::Seed;
use crate::domain::same_user::{Bound, Over, SameUser};
use crate::domain::session::{Farewell, HoldNumber, Mode, Session, SessionId};
use crate::domain::time::UnixMillis;

/// 2100-01-01; all times of these tests count from here.
pub const EPOCH: u64 = 4_102_444_800_000;

pub const fn at(millis: u64) -> UnixMillis {
    UnixMillis(EPOCH.saturating_add(millis))
}

pub fn id(number: u16) -> SessionId {
    let mut id = [0; 16];
    id[14..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_bytes(id)
}

/// `expires` counts from [`EPOCH`].
pub fn session(number: u16, user: &str, expires: u64) -> Session {
    Session {
        id: id(number),
        identity: Identity {
            user: user.into(),
            roles: vec!["player".into()],
            claims: BTreeMap::from([("zone".into(), "7".into())]),
        },
        mode: if number.is_multiple_of(2) { Mode::Noise } else { Mode::Ticket },
        audience: "game".into(),
        layout: "happy".into(),
        proxy: "proxy-1".into(),
        peer: "203.0.113.7:40112".into(),
        client: "demo/1".into(),
        created_at: at(5),
        expires_at: at(expires),
        hold: HoldNumber(1 << 32 | 7),
        worker: 5,
        away_until: None,
        seed: Some(Seed { key: [1; 8], salt: [2; 16], credential: Some([3; 32]) }),
    }
}

pub fn lives(session: &Session) -> Admission {
    Admission { session: Some(session.clone()), ..Admission::default() }
}

pub fn uses(expires: u64, name: &str) -> Admission {
    let credential = CredentialId::new(at(expires), "issuer", name.as_bytes());
    Admission { credential: Some(credential), ..Admission::default() }
}

fn under(rule: SameUser, session: &Session, now: u64) -> Admission {
    Admission { bound: rule.bound(session, at(now), false), ..lives(session) }
}

pub fn page(user: Option<&str>, after: Option<SessionId>, limit: usize) -> Page {
    Page { user: user.map(str::to_owned), after, limit }
}

pub fn yes() -> Admitted {
    Admitted::Yes { replaced: vec![] }
}

mod groups;
mod history;
mod queue;
mod text;
pub use groups::*;
pub use history::*;
pub use queue::*;
pub use text::*;

const REPLACE: SameUser = SameUser::Replace { code: 7 };

type Tested = Arc<dyn Store>;

pub async fn sweep(store: &Tested, now: u64) -> Result<Swept, super::StoreError> {
    store.sweep(Sweep { now: at(now), lost_until: None }).await
}

async fn ids(store: &Tested, user: Option<&str>) -> Vec<SessionId> {
    let sessions = store.list(page(user, None, 10_000)).await.unwrap().sessions;
    sessions.iter().map(|session| session.id).collect()
}

pub async fn a_session_is_found_whole_until_it_ends(store: Tested) {
    let (ada, bob) = (session(1, "ada", 100), session(2, "bob", 100));
    for session in [&ada, &bob] {
        assert_eq!(store.admit(lives(session)).await, Ok(yes()));
    }
    let found = store.find(vec![bob.id, SessionId::from_bytes([9; 16]), ada.id]).await.unwrap();
    assert_eq!(found, [Some(bob.clone()), None, Some(ada.clone())]);
    assert_eq!(store.end(vec![ada.id, ada.id], None).await, Ok(vec![ada.clone()]));
    assert_eq!(store.find(vec![ada.id]).await, Ok(vec![None]));
    assert_eq!(store.list(page(Some("ada"), None, 10)).await, Ok(Listed::default()));
    assert_eq!(store.list(page(None, None, 10)).await.unwrap().sessions, [bob]);
    assert_eq!(store.count().await, Ok(Count { live: 1, away: 0 }));
}

pub async fn a_credential_works_once_also_among_fifty_at_the_same_moment(store: Tested) {
    let tries = (0..50).map(|number| {
        let store = Arc::clone(&store);
        let mut admission = uses(100, "jti");
        admission.session = Some(session(number, "ada", 100));
        tokio::spawn(async move { store.admit(admission).await.unwrap() })
    });
    let mut admitted = 0;
    for attempt in tries.collect::<Vec<_>>() {
        admitted += usize::from(attempt.await.unwrap() == yes());
    }
    assert_eq!(admitted, 1);
    // Those who came late left no session behind.
    assert_eq!(ids(&store, Some("ada")).await.len(), 1);
    assert_eq!(store.admit(uses(100, "other")).await, Ok(yes()));
}

pub async fn pages_follow_each_other_without_gap_or_repetition(store: Tested) {
    for number in 0..25 {
        let user = if number % 5 == 0 { "ada" } else { "adam" };
        store.admit(lives(&session(number, user, 100))).await.unwrap();
    }
    for (user, expected) in [(None, 25), (Some("ada"), 5), (Some("adam"), 20), (Some("a"), 0)] {
        for size in [1, 2, 7, 100] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = store.list(page(user, after, size)).await.unwrap();
                assert!(page.sessions.len() <= size);
                seen.extend(page.sessions.iter().map(|session| session.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), expected, "{user:?} by {size}");
            assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}

pub async fn a_sweep_takes_what_expired_in_bounded_steps(store: Tested) {
    for number in 0..600 {
        let expires = if number < 500 { u64::from(number) } else { 10_000 };
        store.admit(lives(&session(number, "ada", expires))).await.unwrap();
    }
    let first = sweep(&store, 499).await.unwrap();
    assert_eq!((first.sessions.len(), first.more), (256, true));
    let second = sweep(&store, 499).await.unwrap();
    assert_eq!((second.sessions.len(), second.more), (244, false));
    assert_eq!(sweep(&store, 499).await.unwrap().sessions, []);
    assert_eq!(ids(&store, None).await.len(), 100);
    assert_eq!(ids(&store, Some("ada")).await.len(), 100);
    // An ended session leaves no trace for the sweep.
    store.end(vec![id(599)], None).await.unwrap();
    assert_eq!(sweep(&store, 10_000).await.unwrap().sessions.len(), 99);
}

pub async fn the_next_session_of_a_user_is_refused_where_one_is_allowed(store: Tested) {
    let (first, second) = (session(1, "ada", 100), session(2, "ada", 100));
    assert_eq!(store.admit(under(SameUser::REFUSE, &first, 0)).await, Ok(yes()));
    let mut refused = under(SameUser::REFUSE, &second, 0);
    refused.credential = uses(100, "jti").credential;
    assert_eq!(store.admit(refused).await, Ok(Admitted::TooManySessions));
    assert_eq!(ids(&store, Some("ada")).await, [first.id]);
    // Nothing changed: not even the credential is used up.
    assert_eq!(store.admit(uses(100, "jti")).await, Ok(yes()));
    // Whose credential was used before hears that, and not who is there.
    let mut used = under(SameUser::REFUSE, &second, 0);
    used.credential = uses(100, "jti").credential;
    assert_eq!(store.admit(used).await, Ok(Admitted::CredentialUsed));
    // Nobody else is concerned, not even one whose name begins alike.
    let other = session(3, "ad", 100);
    assert_eq!(store.admit(under(SameUser::REFUSE, &other, 0)).await, Ok(yes()));
    store.end(vec![first.id], None).await.unwrap();
    assert_eq!(store.admit(under(SameUser::REFUSE, &second, 0)).await, Ok(yes()));
}

pub async fn a_session_that_has_expired_is_in_nobodys_way(store: Tested) {
    let (first, second) = (session(1, "ada", 100), session(2, "ada", 200));
    assert_eq!(store.admit(under(SameUser::REFUSE, &first, 0)).await, Ok(yes()));
    let refused = store.admit(under(SameUser::REFUSE, &second, 99)).await;
    assert_eq!(refused, Ok(Admitted::TooManySessions));
    assert_eq!(store.admit(under(SameUser::REFUSE, &second, 100)).await, Ok(yes()));
}

pub async fn a_newer_session_replaces_all_others_of_its_user(store: Tested) {
    let old = [session(1, "ada", 100), session(2, "ada", 100)];
    for session in &old {
        store.admit(lives(session)).await.unwrap();
    }
    let bob = session(3, "bob", 100);
    store.admit(lives(&bob)).await.unwrap();
    let new = session(4, "ada", 100);
    // Asked without a session, nobody ends.
    let asked = Admission { session: None, ..under(REPLACE, &new, 0) };
    assert_eq!(store.admit(asked).await, Ok(yes()));
    let Admitted::Yes { mut replaced } = store.admit(under(REPLACE, &new, 0)).await.unwrap() else {
        panic!("not admitted");
    };
    replaced.sort_by_key(|session| session.id);
    assert_eq!(replaced, old);
    assert_eq!(ids(&store, None).await, [bob.id, new.id]);
    assert_eq!(sweep(&store, 99).await.unwrap().sessions, []);
}

/// Fifty sessions of one user at the same moment; answers those that were refused and those that
/// were replaced.
async fn fifty(store: &Tested, rule: SameUser) -> (usize, BTreeSet<SessionId>) {
    let tries: Vec<_> = (0..50)
        .map(|number| {
            let (store, session) = (Arc::clone(store), session(number, "ada", 100));
            tokio::spawn(async move { store.admit(under(rule, &session, 0)).await.unwrap() })
        })
        .collect();
    let (mut refused, mut replaced) = (0, BTreeSet::new());
    for attempt in tries {
        match attempt.await.unwrap() {
            Admitted::Yes { replaced: sessions } => {
                for session in sessions {
                    assert!(replaced.insert(session.id), "replaced twice");
                }
            }
            Admitted::TooManySessions => refused += 1,
            Admitted::CredentialUsed => panic!("no credential was given"),
        }
    }
    (refused, replaced)
}

pub async fn of_fifty_at_the_same_moment_one_gets_in(store: Tested) {
    assert_eq!(fifty(&store, SameUser::REFUSE).await, (49, BTreeSet::new()));
    assert_eq!(ids(&store, Some("ada")).await.len(), 1);
}

pub async fn of_fifty_at_the_same_moment_as_many_get_in_as_may(store: Tested) {
    assert_eq!(fifty(&store, SameUser::Allow(NonZeroU32::new(7))).await, (43, BTreeSet::new()));
    assert_eq!(ids(&store, Some("ada")).await.len(), 7);
}

pub async fn of_fifty_at_the_same_moment_the_last_one_stays(store: Tested) {
    let (refused, replaced) = fifty(&store, REPLACE).await;
    assert_eq!((refused, replaced.len()), (0, 49));
    let left = ids(&store, Some("ada")).await;
    assert!(left.len() == 1 && !replaced.contains(&left[0]));
}

pub async fn without_a_bound_anybody_may_have_any_number(store: Tested) {
    let bound = SameUser::Allow(None).bound(&session(1, "ada", 100), at(0), false);
    assert_eq!(bound, None);
    assert_eq!(fifty(&store, SameUser::default()).await, (0, BTreeSet::new()));
    assert_eq!(ids(&store, Some("ada")).await.len(), 50);
    let farewell = Farewell { reason: "logged in elsewhere".into(), code: 7 };
    let bound = REPLACE.bound(&session(1, "ada", 100), at(3), false).unwrap();
    assert_eq!(bound, Bound { user: "ada".into(), now: at(3), over: Over::End, farewell });
}

/// Calls a macro with the names of all behaviours; it makes a test of each.
macro_rules! on_every_store {
    ($make:ident) => {
        $make! {
            a_session_is_found_whole_until_it_ends
            a_credential_works_once_also_among_fifty_at_the_same_moment
            pages_follow_each_other_without_gap_or_repetition
            a_sweep_takes_what_expired_in_bounded_steps
            the_next_session_of_a_user_is_refused_where_one_is_allowed
            a_session_that_has_expired_is_in_nobodys_way
            a_newer_session_replaces_all_others_of_its_user
            of_fifty_at_the_same_moment_one_gets_in
            of_fifty_at_the_same_moment_as_many_get_in_as_may
            of_fifty_at_the_same_moment_the_last_one_stays
            without_a_bound_anybody_may_have_any_number
            a_session_is_a_member_from_joining_to_leaving
            memberships_end_with_their_session_however_it_ends
            groups_and_memberships_are_bounded
            members_come_in_pages
            what_happens_is_told_in_its_order
            a_session_goes_away_and_ends_when_its_time_is_over
            a_session_goes_on_over_another_connection
            what_goes_away_and_comes_back_is_told_and_stays_in_its_groups
            of_fifty_that_take_over_at_the_same_moment_one_does
            a_connection_that_was_overtaken_changes_nothing_any_more
            what_cannot_be_resumed_ends_with_its_connection
            sessions_of_a_lost_worker_go_away_and_come_back_with_it
            sessions_of_a_lost_worker_end_where_they_have_no_time
            sessions_of_a_worker_that_nobody_spoke_of_are_found_too
            a_session_that_is_away_gives_way_to_a_new_one
            a_session_that_is_away_can_be_kept_in_the_way
            what_is_written_as_text_is_read_back_whole_into_an_empty_store
            pushes_wait_for_sessions_that_are_away_in_order_and_within_bounds
            two_of_three_may_be_there_and_the_oldest_that_is_away_ends
        }
    };
}
pub(crate) use on_every_store;
