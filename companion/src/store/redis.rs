//! The shared store: a Redis (7 or later) or Valkey server behind any number of companions; alone,
//! the master that Sentinels name, or that of a Cluster which has the store's slot ([`place`]).
//!
//! All keys begin with `{prefix}:`. The braces make it their hash tag: they share one slot, so
//! the atomic steps, which are Lua scripts, may touch any of them.
//!
//! | key | type | |
//! |---|---|---|
//! | `version` | string | [`VERSION`] |
//! | `s:<session>` | hash | `user`, `expires` (ms), `record` ([`super::record`]), `seed` if it can be resumed; and what changes, in place of what the record says: `proxy`, `worker`, `peer`, `client`, `hold`, `away` (ms) |
//! | `sessions` | sorted set | all session ids, all with score 0: in their order |
//! | `u:<user>` | sorted set | a user's session ids, likewise |
//! | `away` | sorted set | those that are away, likewise |
//! | `w:<worker>` | sorted set | a worker's live ones, likewise |
//! | `workers` | sorted set | workers, by when they are lost unless they are attached (ms) |
//! | `expiry` | sorted set | session id and user, by when it ends (ms) |
//! | `g:<group>` | sorted set | the session ids of a group, likewise |
//! | `m:<session>` | sorted set | the groups of a session, likewise |
//! | `q:<session>` | list | pushes that wait for it ([`queue`]) |
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
//! Session ids are 32 hexadecimal digits, numbers of holds and workers 16. Records and credentials
//! expire by themselves, a minute
//! late for clocks that differ; a sweep takes sessions out of the indexes in the order of
//! their expiry. Nothing is ever scanned.
//!
//! The connection is one that all operations share ([`link`]); a second one follows the events
//! ([`follow`]), a third one the pushes of other replicas ([`relay`]); a fourth one, where a master
//! may be lost, waits until the servers that may take over have what was written ([`confirm`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use self::link::{Later, Link};
use self::relay::RedisRelay;
use self::scripts::Scripts;
use super::relay::Relay;
use super::{
    Admission, Admitted, Answer, Count, Left, Listed, News, Page, Store, StoreError, Sweep, Swept,
    Takeover, Used,
};
use crate::domain::credential::CredentialId;
use crate::domain::session::{Farewell, Hold, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;
use crate::store::record;

pub use self::dial::{OpenError, RedisSettings, RedisTls};
pub use self::place::{Address, Place};

mod check;
mod confirm;
mod dial;
mod follow;
mod groups;
mod history;
mod link;
mod place;
mod queue;
mod relay;
mod scripts;

/// The format of the keys and values. A store of another version is not touched.
const VERSION: &str = "1";
/// As many as one step takes while others wait for the server.
const SWEEP_SESSIONS: usize = 256;
/// Sessions that one round trip fetches.
const FETCH: usize = 1000;
/// Sessions that one step gives back to their worker.
const MOVES: usize = 256;
/// How long a session is away of which it is not known whether it went on. What matters is that its
/// client finds it and that it ends.
const IN_DOUBT: Duration = Duration::from_secs(60);
/// News that wait for the domain; beyond, they wait in the store.
const NEWS: usize = 1024;

pub struct RedisStore {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    news: Mutex<Option<mpsc::Receiver<News>>>,
    relay: Arc<RedisRelay>,
    tasks: [JoinHandle<()>; 4],
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
        let confirming = tokio::spawn(Arc::clone(&link).confirm());
        let following = tokio::spawn(follow::follow(Arc::clone(&link), tell));
        let news = Mutex::new(Some(news));
        let (relay, reading) = RedisRelay::new(Arc::clone(&link));
        let (relay, reading) = (Arc::new(relay), tokio::spawn(reading));
        Ok(Self { link, scripts, news, relay, tasks: [keeping, confirming, following, reading] })
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
            pipe.cmd("HMGET").arg(scripts.session_key(*id)).arg(&FIELDS);
        }
        let records: Vec<Fields> = link
            .run(|mut connection| async move { pipe.query_async(&mut connection).await })
            .await?;
        for (id, fields) in ids.iter().zip(records) {
            found.push(whole(*id, fields)?);
        }
    }
    Ok(found)
}

const FIELDS: [&str; 7] = ["record", "hold", "worker", "proxy", "peer", "client", "away"];
type Text = Option<String>;
type Fields = (Option<Vec<u8>>, Text, Text, Text, Text, Text, Text);

/// The record, with what has changed since it was written.
fn whole(id: SessionId, fields: Fields) -> Result<Option<Session>, StoreError> {
    let (record, hold, worker, proxy, peer, client, away) = fields;
    let Some(record) = record else { return Ok(None) };
    let old = decode(id, &record)?;
    Ok(Some(Session {
        hold: hold.map_or(old.hold, |hold| scripts::hold_number(&hold)),
        worker: worker.map_or(old.worker, |worker| scripts::hold_number(&worker).0),
        proxy: proxy.unwrap_or(old.proxy),
        peer: peer.unwrap_or(old.peer),
        client: client.unwrap_or(old.client),
        away_until: away.and_then(|away| away.parse().ok()).map(UnixMillis),
        ..old
    }))
}

fn decode(id: SessionId, record: &[u8]) -> Result<Session, StoreError> {
    record::decode(id, record).map_err(StoreError)
}

/// The same, of texts in the order of [`FIELDS`] behind the record; '' for what is not there.
fn assembled(id: SessionId, record: Vec<u8>, texts: [String; 6]) -> Result<Session, StoreError> {
    // What an earlier companion wrote has none of these beside its record.
    let newer = texts.first().is_some_and(|hold| !hold.is_empty());
    let [hold, worker, proxy, peer, client, away] = texts;
    let [hold, worker, proxy, peer, client] =
        [hold, worker, proxy, peer, client].map(|text| newer.then_some(text));
    let fields = (Some(record), hold, worker, proxy, peer, client, Some(away));
    whole(id, fields)?.ok_or_else(|| StoreError("a session without a record".into()))
}

/// Of an answer of ids, each with what [`FIELDS`] say.
fn sessions(answer: &[Vec<u8>]) -> Result<Vec<Session>, StoreError> {
    let strange = || StoreError("the store answers what is no session".into());
    let mut sessions = Vec::new();
    for parts in answer.chunks(FIELDS.len().saturating_add(1)) {
        let [id, record, rest @ ..] = parts else { return Err(strange()) };
        let text = |part: &Vec<u8>| String::from_utf8(part.clone()).map_err(|_| strange());
        let id = SessionId::from_hex(&text(id)?).ok_or_else(strange)?;
        let texts = rest.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let texts = texts.try_into().map_err(|_| strange())?;
        sessions.push(assembled(id, record.clone(), texts)?);
    }
    Ok(sessions)
}

impl Store for RedisStore {
    fn admit(&self, admission: Admission) -> Answer<Admitted> {
        let link = Arc::clone(&self.link);
        let id = admission.session.as_ref().map(|session| session.id);
        let call = self.scripts.admit(admission);
        Box::pin(async move {
            let answer: Result<Vec<Vec<u8>>, _> = link.confirmed(call?).await;
            if answer.is_err() {
                // It may have happened all the same; then it must not last.
                link.later(id.map(Later::End));
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
            let answer: Result<Vec<Vec<u8>>, _> = link.confirmed(call?).await;
            if answer.is_err() && farewell.is_none() {
                // Nobody asks again.
                link.later(ids.into_iter().map(Later::End));
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

    fn count(&self) -> Answer<Count> {
        let link = Arc::clone(&self.link);
        let mut count = redis::pipe();
        count.zcard(self.scripts.key("sessions")).zcard(self.scripts.key("away"));
        Box::pin(async move {
            let (all, away): (u64, u64) = link
                .run(|mut connection| async move { count.query_async(&mut connection).await })
                .await?;
            Ok(Count { live: all.saturating_sub(away), away })
        })
    }

    fn used(&self, after: Option<String>, limit: usize) -> Answer<Used> {
        let (link, prefix) = (Arc::clone(&self.link), self.scripts.key("c:"));
        let mut scan = redis::cmd("SCAN");
        scan.arg(after.as_deref().unwrap_or("0")).arg("MATCH").arg(pattern(&prefix));
        scan.arg("COUNT").arg(limit);
        Box::pin(async move {
            let (next, keys): (String, Vec<String>) = link
                .run(|mut connection| async move { scan.query_async(&mut connection).await })
                .await?;
            let ids = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
            let credentials = ids.filter_map(CredentialId::from_hex).collect();
            Ok(Used { credentials, next: Some(next).filter(|next| next != "0") })
        })
    }

    fn take_over(&self, takeover: Takeover) -> Answer<bool> {
        let link = Arc::clone(&self.link);
        let (hold, now) = (takeover.session.hold(), takeover.now);
        let call = self.scripts.take_over(takeover);
        Box::pin(async move {
            let answer: Result<i64, _> = link.confirmed(call?).await;
            if answer.is_err() {
                // It may have happened all the same; then its client comes back with the token of
                // this very connection, which must find the session.
                link.later([Later::Leave(hold, Some(now.after(IN_DOUBT)))]);
            }
            Ok(answer? == 1)
        })
    }

    fn depart(
        &self,
        holds: Vec<Hold>,
        until: Option<UnixMillis>,
    ) -> Answer<Vec<(SessionId, Left)>> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.depart(&holds, until);
        Box::pin(async move {
            let answer: Result<Vec<String>, _> = link.confirmed(call?).await;
            if answer.is_err() {
                // Their clients are gone, and nobody asks again.
                link.later(holds.into_iter().map(|hold| Later::Leave(hold, until)));
            }
            let answer = answer?;
            let left = answer.chunks(2).filter_map(|pair| {
                let [id, what] = pair else { return None };
                let left = if what == "away" { Left::Away } else { Left::Ended };
                Some((SessionId::from_hex(id)?, left))
            });
            Ok(left.collect())
        })
    }

    fn back(&self, holds: Vec<Hold>, worker: u64) -> Answer<Vec<bool>> {
        let (link, scripts) = (Arc::clone(&self.link), Arc::clone(&self.scripts));
        Box::pin(async move {
            let mut counts = Vec::with_capacity(holds.len());
            for holds in holds.chunks(MOVES) {
                let answer: Vec<i64> = link.call(scripts.back(holds, worker)?).await?;
                counts.extend(answer.into_iter().map(|counts| counts == 1));
            }
            Ok(counts)
        })
    }

    fn attached(&self, workers: Vec<u64>, until: UnixMillis) -> Answer<Vec<u64>> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.attached(&workers, until);
        Box::pin(async move {
            let unknown: Vec<String> = link.call(call?).await?;
            Ok(unknown.iter().map(|worker| scripts::hold_number(worker).0).collect())
        })
    }

    fn sweep(&self, sweep: Sweep) -> Answer<Swept> {
        let link = Arc::clone(&self.link);
        let call = self.scripts.sweep(sweep, SWEEP_SESSIONS);
        Box::pin(async move {
            let answer: Vec<String> = link.call(call?).await?;
            let mut swept = Swept::default();
            for pair in answer.chunks(2) {
                let [what, id] = pair else {
                    swept.more = true;
                    continue;
                };
                let Some(id) = SessionId::from_hex(id) else { continue };
                match what.as_str() {
                    "lost" => swept.lost.push(id),
                    "given_up" => swept.given_up.push(id),
                    _ => swept.sessions.push(id),
                }
            }
            Ok(swept)
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

/// Of all keys that begin like this; prefixes hold no `*`, `?` or brackets.
fn pattern(prefix: &str) -> String {
    format!("{prefix}*")
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests;
