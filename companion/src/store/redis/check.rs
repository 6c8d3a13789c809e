//! Whether each session's record and the indexes fit together, while others may be using the store.

use std::sync::Arc;

use super::{FIELDS, Fields, RedisStore, whole};
use crate::domain::session::{Session, SessionId};
use crate::store::checked::Checked;
use crate::store::{Store as _, StoreError};

const PAGE: usize = 500;

type Scores = (Option<f64>, Option<f64>, Option<f64>, Option<f64>, u64);

impl RedisStore {
    /// Looks at every session that is there all the time.
    pub async fn check(&self) -> Result<Checked, StoreError> {
        let mut found = Checked::default();
        let mut after = None;
        loop {
            let ids = self.ids(after).await?;
            for (id, fields) in ids.iter().zip(self.records(&ids).await?) {
                match whole(*id, fields) {
                    Ok(Some(session)) => self.check_one(&session, &mut found).await?,
                    // It has expired, and waits for a sweep.
                    Ok(None) => {}
                    Err(error) => found.problem(|| error.to_string()),
                }
            }
            after = ids.last().copied();
            if ids.len() < PAGE {
                break;
            }
        }
        let mut after = None;
        loop {
            let used = self.used(after, PAGE).await?;
            found.credentials = found.credentials.saturating_add(used.credentials.len() as u64);
            after = used.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    async fn ids(&self, after: Option<SessionId>) -> Result<Vec<SessionId>, StoreError> {
        let after = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.scripts.key("sessions"));
        range.arg(after).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(PAGE);
        let names: Vec<String> = self
            .link
            .run(|mut connection| async move { range.query_async(&mut connection).await })
            .await?;
        let id = |name: &String| SessionId::from_hex(name);
        names
            .iter()
            .map(id)
            .collect::<Option<_>>()
            .ok_or_else(|| StoreError("the set of all sessions has what is no session's id".into()))
    }

    async fn records(&self, ids: &[SessionId]) -> Result<Vec<Fields>, StoreError> {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("HMGET").arg(self.scripts.session_key(*id)).arg(&FIELDS);
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.link.run(|mut connection| async move { pipe.query_async(&mut connection).await }).await
    }

    async fn check_one(&self, session: &Session, found: &mut Checked) -> Result<(), StoreError> {
        let (id, user) = (session.id, &session.identity.user);
        let scripts = Arc::clone(&self.scripts);
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("ZSCORE").arg(scripts.user_key(user)).arg(id.to_string());
        pipe.cmd("ZSCORE").arg(scripts.key("expiry")).arg(format!("{id}{user}"));
        pipe.cmd("ZSCORE").arg(scripts.key("away")).arg(id.to_string());
        let worker = scripts.key(&format!("w:{:016x}", session.worker));
        pipe.cmd("ZSCORE").arg(worker).arg(id.to_string());
        pipe.cmd("ZCARD").arg(scripts.key(&format!("m:{id}")));
        let (by_user, by_expiry, away, by_worker, groups): Scores = self
            .link
            .run(|mut connection| async move { pipe.query_async(&mut connection).await })
            .await?;
        found.sessions = found.sessions.saturating_add(1);
        found.memberships = found.memberships.saturating_add(groups);
        let live = session.away_until.is_none();
        found.away = found.away.saturating_add(u64::from(!live));
        let fit = [
            ("user", by_user.is_some()),
            ("expiry", by_expiry.is_some()),
            ("away", away.is_some() != live),
            ("worker", by_worker.is_some() == live || session.worker == 0),
        ];
        for (index, _) in fit.iter().filter(|(_, fits)| !fits) {
            // It may have changed since it was read.
            if self.find(vec![id]).await? == [Some(session.clone())] {
                found.problem(|| format!("session {id}: the index by {index} does not fit"));
            }
        }
        Ok(())
    }
}
