//! Groups in Redis: `g:<group>` with its sessions and `m:<session>` with its groups, sorted sets
//! with score 0 for all, so in their order.

use std::sync::Arc;

use super::RedisStore;
use super::scripts::Scripts;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::session::SessionId;
use crate::store::groups::GroupStore;
use crate::store::{Answer, StoreError};

impl GroupStore for RedisStore {
    fn join(&self, group: GroupName, session: SessionId, limits: GroupLimits) -> Answer<Joined> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.group_join(&group, session, limits);
        Box::pin(async move {
            let verdict: String = link.confirmed(call?).await?;
            match verdict.as_str() {
                "yes" => Ok(Joined::Yes),
                "already" => Ok(Joined::Already),
                "none" => Ok(Joined::NoSession),
                "full" => Ok(Joined::Full),
                "many" => Ok(Joined::TooMany),
                _ => Err(StoreError("the store's verdict is none".into())),
            }
        })
    }

    fn leave(&self, group: GroupName, session: SessionId) -> Answer<bool> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.group_leave(&group, session);
        Box::pin(async move {
            let was: i64 = link.confirmed(call?).await?;
            Ok(was > 0)
        })
    }

    fn members(
        &self,
        group: GroupName,
        after: Option<SessionId>,
        limit: usize,
    ) -> Answer<Vec<SessionId>> {
        let link = Arc::clone(&self.link);
        let after = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let mut range = redis::cmd("ZRANGE");
        range.arg(group_key(&self.scripts, &group));
        range.arg(after).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        Box::pin(async move {
            let names: Vec<String> = link
                .run(|mut connection| async move { range.query_async(&mut connection).await })
                .await?;
            Ok(names.iter().filter_map(|name| SessionId::from_hex(name)).collect())
        })
    }

    fn groups_of(&self, session: SessionId) -> Answer<Vec<GroupName>> {
        let link = Arc::clone(&self.link);
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.scripts.key(&format!("m:{session}"))).arg("-").arg("+").arg("BYLEX");
        Box::pin(async move {
            let names: Vec<String> = link
                .run(|mut connection| async move { range.query_async(&mut connection).await })
                .await?;
            Ok(names.into_iter().filter_map(|name| GroupName::new(name).ok()).collect())
        })
    }
}

fn group_key(scripts: &Scripts, group: &GroupName) -> String {
    scripts.key(&format!("g:{group}"))
}
