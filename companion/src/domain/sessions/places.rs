//! Which server holds a session.
//!
//! A session's place is its membership in the group `place:NAME`: it lasts as long as the session,
//! and whoever pushes to that group reaches everybody there. What a session has no such group for,
//! its credential may say, in the claim `place`.

use std::sync::Arc;
use std::time::Duration;

use super::Sessions;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::push::{Command, Leave, Outcome, Parcel};
use crate::domain::session::{Session, SessionId};
use crate::store::StoreError;

/// What the name of a place's group begins with.
pub const GROUP: &str = "place:";
/// The claim by which proxies know it.
pub const CLAIM: &str = "place";
/// The longest place, in bytes.
pub const MAX_PLACE: usize = 64;

/// Why the client is asked.
const REASON: &str = "another server holds this session now, come back";

/// A server's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// 1 to [`MAX_PLACE`] letters, digits, `-`, `_` and `.`.
    pub fn new(name: String) -> Option<Self> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = (1..=MAX_PLACE).contains(&name.len()) && name.bytes().all(is_letter);
        good.then_some(Self(name))
    }

    pub fn group(&self) -> Result<GroupName, &'static str> {
        GroupName::new(format!("{GROUP}{}", self.0))
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub changed: bool,
    /// `None`: nobody was asked.
    pub outcome: Option<Outcome>,
}

impl Sessions {
    /// Gives a session its place; `None` if it has ended. `within`: its client is moved, and may
    /// take so long for it.
    pub async fn place(
        &self,
        id: SessionId,
        to: Option<GroupName>,
        within: Option<Duration>,
    ) -> Result<Option<Placed>, StoreError> {
        let before = self.store.groups_of(id).await?;
        let is_place = |group: &&GroupName| group.as_str().starts_with(GROUP);
        let before: Vec<_> = before.iter().filter(is_place).cloned().collect();
        // The new one first: a session that has a place is never without. If the second step
        // fails it has both, until this is said again.
        if let Some(group) = &to
            && !before.contains(group)
        {
            // A server has as many sessions as it lets in.
            let limits = GroupLimits { members: u32::MAX, ..*self.group_limits.get() };
            match self.store.join(group.clone(), id, limits).await? {
                Joined::Yes | Joined::Already => {}
                Joined::NoSession => return Ok(None),
                Joined::Full | Joined::TooMany => {
                    let text = "the session is in as many groups as `app.session_groups` allows";
                    return Err(StoreError(text.into()));
                }
            }
        }
        let mut changed = to.as_ref().is_some_and(|group| !before.contains(group));
        for group in before.into_iter().filter(|group| Some(group) != to.as_ref()) {
            changed |= self.store.leave(group, id).await?;
        }
        let outcome = match within.filter(|_| changed) {
            Some(within) => {
                let leave = Leave { reason: REASON.into(), within, ..Leave::default() };
                let parcel = Parcel { command: Command::Leave(leave), body: Vec::new() };
                let limits = *self.push_limits.get();
                let sent = self.send_everywhere(&[id], &Arc::new(parcel), limits).await?;
                Some(sent.outcome().await)
            }
            None => None,
        };
        Ok(Some(Placed { changed, outcome }))
    }

    /// Puts the session's place among its claims, for the proxy that it comes to.
    pub async fn know_place(&self, session: &mut Session) -> Result<(), StoreError> {
        let groups = self.store.groups_of(session.id).await?;
        let place = groups.iter().find_map(|group| group.as_str().strip_prefix(GROUP));
        if let Some(place) = place {
            session.identity.claims.insert(CLAIM.into(), place.into());
        }
        Ok(())
    }
}
