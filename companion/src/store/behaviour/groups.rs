//! What every store does with groups.

use super::{Tested, id, lives, session};
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::session::SessionId;

const ROOM: GroupLimits = GroupLimits { members: 1000, of_session: 1000 };

fn name(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

async fn members(store: &Tested, group: &str) -> Vec<SessionId> {
    store.members(name(group), None, 10_000).await.unwrap()
}

pub async fn a_session_is_a_member_from_joining_to_leaving(store: Tested) {
    for number in [2, 1, 3] {
        store.admit(lives(&session(number, "ada", 100))).await.unwrap();
    }
    for number in [3, 1] {
        assert_eq!(store.join(name("room"), id(number), ROOM).await, Ok(Joined::Yes));
    }
    assert_eq!(store.join(name("room"), id(1), ROOM).await, Ok(Joined::Already));
    assert_eq!(store.join(name("room"), id(9), ROOM).await, Ok(Joined::NoSession));
    store.join(name("Grüße: 7"), id(1), ROOM).await.unwrap();
    assert_eq!(members(&store, "room").await, [id(1), id(3)]);
    assert_eq!(members(&store, "roo").await, []);
    assert_eq!(store.groups_of(id(1)).await.unwrap(), [name("Grüße: 7"), name("room")]);
    assert_eq!(store.groups_of(id(2)).await.unwrap(), []);
    assert_eq!(store.leave(name("room"), id(1)).await, Ok(true));
    assert_eq!(store.leave(name("room"), id(1)).await, Ok(false));
    assert_eq!(members(&store, "room").await, [id(3)]);
    assert_eq!(store.groups_of(id(1)).await.unwrap(), [name("Grüße: 7")]);
}

pub async fn memberships_end_with_their_session_however_it_ends(store: Tested) {
    for (number, user) in [(1, "ada"), (2, "bob"), (3, "eve"), (4, "kim")] {
        let expires = if number == 2 { 50 } else { 1000 };
        store.admit(lives(&session(number, user, expires))).await.unwrap();
        for group in ["a", "b"] {
            store.join(name(group), id(number), ROOM).await.unwrap();
        }
    }
    store.end(vec![id(1)], None).await.unwrap();
    assert_eq!(members(&store, "a").await, [id(2), id(3), id(4)]);
    super::sweep(&store, 60).await.unwrap();
    assert_eq!(members(&store, "b").await, [id(3), id(4)]);
    // Replaced by a newer one of its user.
    let newer = super::under(super::REPLACE, &session(5, "eve", 1000), 60);
    store.admit(newer).await.unwrap();
    assert_eq!(members(&store, "a").await, [id(4)]);
    for number in 1..=3 {
        assert_eq!(store.groups_of(id(number)).await.unwrap(), []);
    }
}

pub async fn groups_and_memberships_are_bounded(store: Tested) {
    for number in 0..4 {
        store.admit(lives(&session(number, "ada", 100))).await.unwrap();
    }
    let limits = GroupLimits { members: 2, of_session: 2 };
    let join = async |group: &str, number| store.join(name(group), id(number), limits).await;
    assert_eq!(join("a", 0).await, Ok(Joined::Yes));
    assert_eq!(join("a", 1).await, Ok(Joined::Yes));
    assert_eq!(join("a", 2).await, Ok(Joined::Full));
    assert_eq!(join("a", 1).await, Ok(Joined::Already));
    assert_eq!(join("b", 0).await, Ok(Joined::Yes));
    assert_eq!(join("c", 0).await, Ok(Joined::TooMany));
    // Room is made by leaving and by ending.
    store.leave(name("b"), id(0)).await.unwrap();
    assert_eq!(join("c", 0).await, Ok(Joined::Yes));
    store.end(vec![id(1)], None).await.unwrap();
    assert_eq!(join("a", 2).await, Ok(Joined::Yes));
    assert_eq!(join("a", 3).await, Ok(Joined::Full));
}

pub async fn members_come_in_pages(store: Tested) {
    for number in 0..25 {
        store.admit(lives(&session(number, "ada", 100))).await.unwrap();
        store.join(name("room"), id(number), ROOM).await.unwrap();
        store.join(name("room 2"), id(number), ROOM).await.unwrap();
    }
    for size in [1, 7, 25, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.members(name("room"), after, size).await.unwrap();
            assert!(page.len() <= size);
            after = page.last().copied();
            seen.extend(page);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..25).map(id).collect::<Vec<_>>(), "by {size}");
    }
}
