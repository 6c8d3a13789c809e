//! Clients that are asked to leave their proxy or their service, and to come back.

use std::sync::Arc;

use super::{SEARCH_STEP, Sessions};
use crate::domain::filter::Filter;
use crate::domain::push::{Command, Leave, Outcome, Parcel};
use crate::domain::session::{SessionId, State};
use crate::store::{Page, StoreError};

/// Whose clients are asked.
#[derive(Clone, Debug, Default)]
pub struct Leavers {
    pub filter: Filter,
    /// About so many of a hundred.
    pub percent: u32,
}

impl Leavers {
    /// The last bytes of an id are random, so that any share of all sessions is as mixed as they
    /// are; and a session that belongs to a share belongs to every larger one.
    fn share(&self, id: SessionId) -> bool {
        let [.., high, low] = *id.as_bytes();
        u64::from(u16::from_be_bytes([high, low])).saturating_mul(100)
            < u64::from(self.percent).saturating_mul(1 << 16)
    }
}

impl Sessions {
    /// Asks the clients of live sessions to leave; answers how many were asked (`delivered`), and
    /// why others were not. Sessions that begin meanwhile are not meant.
    pub async fn ask_to_leave(
        &self,
        leavers: &Leavers,
        leave: Leave,
    ) -> Result<Outcome, StoreError> {
        let limits = *self.push_limits.get();
        let parcel = Arc::new(Parcel { command: Command::Leave(leave), body: Vec::new() });
        let begun = self.clock.now();
        let (mut sum, mut after) = (Outcome::default(), None);
        loop {
            let page = Page { user: leavers.filter.user.clone(), after, limit: SEARCH_STEP };
            let listed = self.store.list(page).await?;
            let meant = listed.sessions.iter().filter(|session| {
                session.created_at <= begun
                    && session.state() == State::Live
                    && leavers.filter.takes(session, State::Live)
                    && leavers.share(session.id)
            });
            let ids: Vec<_> = meant.map(|session| session.id).collect();
            if !ids.is_empty() {
                let sent = self.send_everywhere(&ids, &parcel, limits).await?;
                sum.add(sent.outcome().await);
            }
            after = listed.next;
            if after.is_none() {
                return Ok(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_share_holds_the_smaller_one_and_is_as_large_as_it_says() {
        let share = |percent| Leavers { percent, ..Leavers::default() };
        let ids = (0..=u16::MAX).map(|number| {
            let mut id = [7; 16];
            id[14..].copy_from_slice(&number.to_be_bytes());
            SessionId::from_bytes(id)
        });
        let ids: Vec<_> = ids.collect();
        let mut before: Vec<SessionId> = Vec::new();
        for percent in [0, 1, 10, 50, 99, 100] {
            let taken: Vec<_> =
                ids.iter().copied().filter(|id| share(percent).share(*id)).collect();
            let wanted = ids.len() * percent as usize / 100;
            assert!(taken.len().abs_diff(wanted) <= 1, "{percent}: {}", taken.len());
            assert!(before.iter().all(|id| share(percent).share(*id)));
            before = taken;
        }
    }
}
