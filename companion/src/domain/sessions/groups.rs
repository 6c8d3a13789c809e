//! Groups of sessions, as far as there is a rule beyond what the store keeps.

use super::Sessions;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::session::SessionId;
use crate::store::StoreError;

/// Members that one look into the store brings.
const STEP: usize = 10_000;
/// A push to a group reaches so many; the largest that a configuration allows.
const MAX_MEMBERS: usize = 100_000;

impl Sessions {
    /// How large groups may be from now on.
    pub fn set_group_limits(&self, limits: GroupLimits) {
        self.group_limits.set(limits);
    }

    pub async fn join_group(
        &self,
        group: GroupName,
        session: SessionId,
    ) -> Result<Joined, StoreError> {
        let limits = *self.group_limits.get();
        self.store.join(group, session, limits).await
    }

    /// All members, in the order of their ids.
    pub(super) async fn members(&self, group: &GroupName) -> Result<Vec<SessionId>, StoreError> {
        let mut members = Vec::new();
        loop {
            let after = members.last().copied();
            let page = self.store.members(group.clone(), after, STEP).await?;
            let last = page.len() < STEP;
            members.extend(page);
            if last || members.len() >= MAX_MEMBERS {
                return Ok(members);
            }
        }
    }
}
