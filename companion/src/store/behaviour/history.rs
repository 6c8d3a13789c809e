//! What every store tells of what happened.

use super::{Tested, id, lives, session};
use crate::domain::session::Farewell;
use crate::store::history::{Bookmark, Cause, Happened, TooOld};

fn ended(cause: Cause, reason: &str, code: u32) -> Happened {
    Happened::End { cause, farewell: Farewell { reason: reason.into(), code } }
}

pub async fn what_happens_is_told_in_its_order(store: Tested) {
    let mut pulse = store.pulse();
    let begin = store.newest().await.unwrap();
    let (ada, bob) = (session(1, "ada", 1000), session(2, "bob", 50));
    let (eve, newer) = (session(3, "eve", 1000), session(4, "eve", 1000));
    for session in [&ada, &bob, &eve] {
        store.admit(lives(session)).await.unwrap();
    }
    store.end(vec![id(1)], Some(Farewell { reason: "out".into(), code: 3 })).await.unwrap();
    super::sweep(&store, 60).await.unwrap();
    store.admit(super::under(super::REPLACE, &newer, 60)).await.unwrap();
    store.end(vec![id(4), id(9)], None).await.unwrap();
    let events = store.since(begin, 100).await.unwrap().unwrap();
    let told: Vec<_> =
        events.iter().map(|event| (event.session.clone(), event.happened.clone())).collect();
    let login = |session| (session, Happened::Login);
    let expected = [
        login(ada.clone()),
        login(bob.clone()),
        login(eve.clone()),
        (ada, ended(Cause::Kicked, "out", 3)),
        (bob, ended(Cause::Expired, crate::store::EXPIRED, 0)),
        (eve, ended(Cause::Replaced, "logged in elsewhere", 7)),
        login(newer.clone()),
        (newer, ended(Cause::Closed, "", 0)),
    ];
    assert_eq!(told, expected);
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=8).map(|n| begin.revision + n).collect::<Vec<_>>());

    let place = Bookmark { revision: begin.revision + 5, ..begin };
    let rest = store.since(place, 2).await.unwrap().unwrap();
    assert_eq!(rest, events[5..7]);
    let newest = store.newest().await.unwrap();
    assert_eq!(newest.revision, begin.revision + 8);
    assert_eq!(store.since(newest, 9).await, Ok(Ok(Vec::new())));
    let ahead = Bookmark { revision: newest.revision + 1, ..newest };
    assert_eq!(store.since(ahead, 9).await, Ok(Err(TooOld)));
    let other = Bookmark { epoch: newest.epoch ^ 1, ..newest };
    assert_eq!(store.since(other, 9).await, Ok(Err(TooOld)));
    tokio::time::timeout(std::time::Duration::from_secs(20), pulse.changed())
        .await
        .unwrap()
        .unwrap();
}
