//! The shared store: one Redis (7 or later) or Valkey server behind any number of replicas.
//!
//! All keys begin with `{prefix}:`. The braces make it their hash tag: they share one slot, so
//! the atomic steps, which are Lua scripts, may touch any of them.
//!
//! | key | type | |
//! |---|---|---|
//! | `version` | string | [`VERSION`] |
//! | `s:<session>` | hash | `user`, `proxy`, `expires` (ms), `record` ([`super::record`]) |
//! | `sessions` | sorted set | all session ids, all with score 0: in their order |
//! | `u:<user>` | sorted set | a user's session ids, likewise |
//! | `expiry` | sorted set | session id and user, by expiry (ms) |
//! | `g:<group>` | sorted set | the session ids of a group, likewise |
//! | `m:<session>` | sorted set | the groups of a session, likewise |
//! | `c:<credential>` | string | is there until the used credential expires |
//! | `revision` | number | of the newest event |
//! | `events` | stream | what other replicas must hear, under ids `<revision>-0` |
//!
//! and what happened ([`history`]):
//!
//! | `epoch` | text | of the history's revisions |
//! | `log-revision` | number | of the newest event of the history |
//! | `log` | stream | the history, under ids `<revision>-0` |
//!
//! Session ids are 32 hexadecimal digits. Records and credentials expire by themselves, a minute
//! late for clocks that differ; a sweep takes sessions out of the indexes in the order of
//! their expiry. Nothing is ever scanned.
//!
//! The connection is one that all operations share ([`link`]); a second one follows the events
//! ([`follow`]), a third one the pushes of other replicas ([`relay`]).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use self::link::Link;
use self::relay::RedisRelay;
use self::scripts::Scripts;
use super::relay::Relay;
use super::{Admission, Admitted, Answer, Listed, News, Page, Store, StoreError, Swept};
use crate::domain::session::{Farewell, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;
use crate::store::record;

pub use self::link::{OpenError, RedisSettings, RedisTls};

mod follow;
mod groups;
mod history;
mod link;
mod relay;
mod scripts;

/// The format of the keys and values. A store of another version is not touched.
const VERSION: &str = "1";
/// As many as one step takes while others wait for the server.
const SWEEP_SESSIONS: usize = 256;
/// Sessions that one round trip fetches.
const FETCH: usize = 1000;
/// News that wait for the domain; beyond, they wait in the store.
const NEWS: usize = 1024;

pub struct RedisStore {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    news: Mutex<Option<mpsc::Receiver<News>>>,
    relay: Arc<RedisRelay>,
    tasks: [JoinHandle<()>; 3],
}

impl RedisStore {
    /// Connects, and goes on trying in the background if the server is away. What waiting cannot
    /// cure is an error: a wrong password, a store of another version.
    pub async fn open(settings: RedisSettings) -> Result<Self, OpenError> {
        let scripts = Arc::new(Scripts::new(&settings.prefix)?);
        let link = Arc::new(Link::new(settings, Arc::clone(&scripts)));
        match link.connect().await {
            Ok(()) => {}
            Err(error) if error.may_pass() => warn!(%error, "the store is away, I go on trying"),
            Err(error) => return Err(error),
        }
        let (tell, news) = mpsc::channel(NEWS);
        let keeping = tokio::spawn(Arc::clone(&link).keep());
        let following = tokio::spawn(follow::follow(Arc::clone(&link), tell));
        let news = Mutex::new(Some(news));
        let (relay, reading) = RedisRelay::new(Arc::clone(&link));
        let (relay, reading) = (Arc::new(relay), tokio::spawn(reading));
        Ok(Self { link, scripts, news, relay, tasks: [keeping, following, reading] })
    }
}

async fn fetch(
    link: &Link,
    scripts: &Scripts,
    ids: &[SessionId],
) -> Result<Vec<Option<Session>>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for ids in ids.chunks(FETCH) {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hget(scripts.session_key(*id), "record");
        }
        let records: Vec<Option<Vec<u8>>> = link
            .run(|mut connection| async move { pipe.query_async(&mut connection).await })
            .await?;
        for (id, record) in ids.iter().zip(records) {
            found.push(record.map(|record| decode(*id, &record)).transpose()?);
        }
    }
    Ok(found)
}

fn decode(id: SessionId, record: &[u8]) -> Result<Session, StoreError> {
    record::decode(id, record).map_err(StoreError)
}

/// Of an answer `[id, record, …]`.
fn sessions(answer: &[Vec<u8>]) -> Result<Vec<Session>, StoreError> {
    let mut sessions = Vec::new();
    for pair in answer.chunks(2) {
        let [id, record] = pair else { continue };
        let id = std::str::from_utf8(id).ok().and_then(SessionId::from_hex);
        let id = id.ok_or_else(|| StoreError("the store answers what is no session id".into()))?;
        sessions.push(decode(id, record)?);
    }
    Ok(sessions)
}

impl Store for RedisStore {
    fn admit(&self, admission: Admission) -> Answer<Admitted> {
        let link = Arc::clone(&self.link);
        let id = admission.session.as_ref().map(|session| session.id);
        let call = self.scripts.admit(admission);
        Box::pin(async move {
            let answer: Result<Vec<Vec<u8>>, _> = link.call(call?).await;
            if answer.is_err() {
                // It may have happened all the same; then it must not last.
                link.end_later(id.into_iter().collect());
            }
            let answer = answer?;
            match answer.split_first() {
                Some((verdict, replaced)) if verdict == b"yes" => {
                    Ok(Admitted::Yes { replaced: sessions(replaced)? })
                }
                Some((verdict, _)) if verdict == b"used" => Ok(Admitted::CredentialUsed),
                Some((verdict, _)) if verdict == b"many" => Ok(Admitted::TooManySessions),
                _ => Err(StoreError("the store's verdict is none".into())),
            }
        })
    }

    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.end(&ids, farewell.as_ref());
        Box::pin(async move {
            let answer: Result<Vec<Vec<u8>>, _> = link.call(call?).await;
            if answer.is_err() && farewell.is_none() {
                // Their clients are gone, and nobody asks again.
                link.end_later(ids);
            }
            sessions(&answer?)
        })
    }

    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>> {
        let (link, scripts) = (Arc::clone(&self.link), Arc::clone(&self.scripts));
        Box::pin(async move { fetch(&link, &scripts, &ids).await })
    }

    fn list(&self, page: Page) -> Answer<Listed> {
        let (link, scripts) = (Arc::clone(&self.link), Arc::clone(&self.scripts));
        Box::pin(async move {
            let key = match &page.user {
                Some(user) => scripts.user_key(user),
                None => scripts.key("sessions"),
            };
            let after = page.after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
            let mut range = redis::cmd("ZRANGE");
            range.arg(key).arg(after).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(page.limit);
            let names: Vec<String> = link
                .run(|mut connection| async move { range.query_async(&mut connection).await })
                .await?;
            let ids: Vec<_> = names.iter().filter_map(|name| SessionId::from_hex(name)).collect();
            let next = ids.last().copied().filter(|_| names.len() >= page.limit);
            // One that ended in between is not there any more.
            let sessions = fetch(&link, &scripts, &ids).await?.into_iter().flatten().collect();
            Ok(Listed { sessions, next })
        })
    }

    fn count(&self) -> Answer<u64> {
        let link = Arc::clone(&self.link);
        let mut count = redis::cmd("ZCARD");
        count.arg(self.scripts.key("sessions"));
        Box::pin(async move {
            link.run(|mut connection| async move { count.query_async(&mut connection).await }).await
        })
    }

    fn sweep(&self, now: UnixMillis) -> Answer<Swept> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.sweep(now, SWEEP_SESSIONS);
        Box::pin(async move {
            let names: Vec<String> = link.call(call?).await?;
            let more = names.len() >= SWEEP_SESSIONS;
            let sessions = names.iter().filter_map(|name| SessionId::from_hex(name)).collect();
            Ok(Swept { sessions, credentials: 0, more })
        })
    }

    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.announce(whom, farewell);
        Box::pin(async move {
            let _: i64 = link.call(call?).await?;
            Ok(())
        })
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn relay(&self) -> Option<Arc<dyn Relay>> {
        Some(Arc::clone(&self.relay) as Arc<dyn Relay>)
    }

    fn healthy(&self) -> bool {
        self.link.healthy()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests;
