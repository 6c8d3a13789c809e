//! The rules of sessions: how they begin to live, where they are, and how they end.
//!
//! The store holds what is true; [`Presence`] holds where to say it. The order of steps below is
//! what keeps the two in line: a session is recorded before anybody hears of it, and
//! removed before anybody is told that it ended. [`away`] is about sessions whose connection is
//! gone.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::credential::CredentialId;
use super::filter::Filter;
use super::group::GroupLimits;
use super::in_flight::InFlight;
use super::presence::{
    Accepted, Activation, Census, Gone, Met, Presence, ProxyStream, StreamId, Waiting, Word,
};
use super::refusal::Why;
use super::same_user::{Over, SameUser};
use super::session::{Farewell, Hold, HoldNumber, Session, SessionId, State};
use super::time::Clock;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::store::metered::Metered;
use crate::store::{
    Admission, Admitted, Count, EXPIRED, GIVEN_UP, Page, Store, StoreError, Sweep, Takeover,
};

/// Sessions that end in one step of a larger kick.
const KICK_STEP: usize = 256;
/// Sessions that are looked at in one step of a search.
const SEARCH_STEP: usize = 1000;
/// One page of a search looks at so many and no more: the next page goes on from there. Some
/// ten milliseconds.
const MAX_LOOKED_AT: usize = 10_000;
/// What a proxy hears of a session that ended while its stream was away.
const ENDED_MEANWHILE: &str = "the session has ended";
/// What the client hears whose session cannot go live beside the ones that its user has.
const TOO_MANY_SESSIONS: &str = "this user is logged in already";

/// What the connection hears whose session goes on over another one.
const RESUMED: &str = "the session goes on over another connection";

mod away;
pub mod drain;
mod groups;
mod news;
pub mod places;
pub mod push;
mod queue;
mod relay;

pub use away::Away;

pub struct Sessions {
    store: Arc<dyn Store>,
    presence: Presence,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    same_user: Live<SameUser>,
    in_flight: InFlight,
    push_limits: Live<push::PushLimits>,
    group_limits: Live<GroupLimits>,
    correspondence: Arc<relay::Correspondence>,
    away: Live<Away>,
    /// When workers are reported to the store again, in milliseconds since the Unix epoch.
    next_beat: AtomicU64,
    /// When it was last not known whether workers could be reported to the store.
    unsteady: AtomicU64,
    /// What the last sweep counted.
    stored: Mutex<Count>,
}

/// Whom a kick is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    Session(SessionId),
    /// All of them; an empty filter means everybody.
    Matching(Filter),
}

/// Asks for a page of sessions.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub filter: Filter,
    /// Only those after this one.
    pub after: Option<SessionId>,
    pub limit: usize,
}

/// One page of sessions, in the order of their ids.
#[derive(Debug, Default)]
pub struct Listing {
    pub sessions: Vec<(Session, State)>,
    /// After which the next page begins. A page before it may be short, or empty.
    pub next: Option<SessionId>,
}

impl Sessions {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let metrics = Arc::new(Metrics::default());
        let store = Arc::new(Metered { store, metrics: Arc::clone(&metrics) });
        let unsteady = AtomicU64::new(clock.now().0);
        Self {
            store,
            presence: Presence::default(),
            clock,
            metrics,
            same_user: Live::default(),
            in_flight: InFlight::default(),
            push_limits: Live::default(),
            group_limits: Live::default(),
            correspondence: Arc::default(),
            away: Live::default(),
            next_beat: AtomicU64::default(),
            unsteady,
            stored: Mutex::default(),
        }
    }

    /// How many sessions a user may have from now on. Those that there are stay.
    pub fn set_same_user(&self, rule: SameUser) {
        self.same_user.set(rule);
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// How many sessions are held by the streams that are open.
    pub fn held(&self) -> usize {
        self.presence.held()
    }

    /// What is held right now, for metrics.
    pub fn census(&self) -> Census {
        self.presence.census()
    }

    pub fn close(&self, stream: StreamId) {
        self.presence.close(stream);
        self.in_flight.lost(stream);
    }

    /// The companion is about to stop: proxies are to send their logins elsewhere.
    pub fn drain(&self) {
        self.presence.drain();
    }

    /// No login follows on this stream.
    pub fn drained(&self, stream: StreamId) {
        self.presence.drained(stream);
    }

    /// Whether all of them have agreed, and nobody waits for his first frame.
    pub fn is_drained(&self) -> bool {
        self.presence.is_drained()
    }

    /// A Noise login or a resume was good: uses its credential up, if it has one, and lets the
    /// session wait for its activation. It ends no other session of its user yet; whether it may live beside them is
    /// asked now, so that the client hears it early, and decided when it is activated.
    pub async fn pend(
        &self,
        stream: &Arc<dyn ProxyStream>,
        credential: Option<CredentialId>,
        accepted: Accepted,
    ) -> Result<(), Why> {
        let bound = match accepted.base {
            // A session that is recorded already is one of those that may be.
            Some(_) => None,
            None => self.bound(&accepted.session),
        };
        let refusing = bound.filter(|bound| matches!(bound.over, Over::Refuse { .. }));
        if credential.is_some() || refusing.is_some() {
            let admission = Admission { credential, bound: refusing, ..Admission::default() };
            self.admit(admission).await?;
        }
        self.presence.pend(stream, accepted, self.clock.now());
        Ok(())
    }

    /// A ticket login was good: the session lives at once.
    pub async fn join(
        &self,
        stream: &Arc<dyn ProxyStream>,
        credential: Option<CredentialId>,
        accepted: Accepted,
    ) -> Result<(), Why> {
        let hold = accepted.session.hold();
        self.presence.join(hold, stream).map_err(|Gone| Why::EndedMeanwhile)?;
        let bound = self.bound(&accepted.session);
        let session = Some(accepted.session.clone());
        if let Err(why) =
            self.admit(Admission { credential, bound, session, lost_at: self.lost_at() }).await
        {
            self.presence.discard(hold);
            return Err(why);
        }
        let proxy = accepted.session.proxy.clone();
        if self.presence.go_live(hold, Word::Accepted(Box::new(accepted))) == Err(Gone) {
            self.presence.discard(hold);
            self.take_back(hold.session, proxy).await;
            return Err(Why::EndedMeanwhile);
        }
        Ok(())
    }

    /// The first frame of a pending session was genuine. Asked for again, on the stream that a
    /// proxy came back with, it is answered as it was the first time.
    pub async fn activate(&self, stream: &Arc<dyn ProxyStream>, reference: u64, hold: Hold) {
        let count = |result| self.metrics.activations.count(result);
        let waiting = match self.presence.start_activation(hold, stream.id(), reference) {
            Activation::Begins(waiting) => *waiting,
            Activation::UnderWay => return count("repeated"),
            Activation::Done => {
                count("repeated");
                return stream.tell(Word::Activated { reference, refused: None });
            }
            Activation::Unknown => {
                count("refused");
                let refused = Some("no such login waits here: it took too long, or was ended");
                return stream.tell(Word::Activated { reference, refused });
            }
        };
        let Waiting { session, base } = waiting;
        let proxy = session.proxy.clone();
        let recorded = match base {
            None => {
                let bound = self.bound(&session);
                let (session, lost_at) = (Some(session), self.lost_at());
                self.admit(Admission { credential: None, bound, session, lost_at }).await
            }
            Some(base) => self.take_over(session, base).await,
        };
        if let Err(why) = recorded {
            count("refused");
            let refused = match why {
                Why::TooManySessions => TOO_MANY_SESSIONS,
                Why::TokenOld => RESUMED,
                _ => "no new sessions just now, try again",
            };
            return self.presence.refuse(hold, reference, refused);
        }
        let live = Word::Activated { reference, refused: None };
        let kept = match base {
            Some(_) => self.take_kept(vec![hold.session]).await.pop().unwrap_or_default(),
            None => Vec::new(),
        };
        let deliver = |stream: &Arc<dyn ProxyStream>| self.deliver(stream, hold.session, &kept);
        let lives = self.presence.go_live_with(hold, live, deliver).is_ok();
        count(if lives { "live" } else { "refused" });
        if base.is_some() {
            self.presence.fence(hold, &Farewell::new(RESUMED));
        }
        if !lives {
            self.presence.refuse(hold, reference, ENDED_MEANWHILE);
            match base {
                None => self.take_back(hold.session, proxy).await,
                // It had a life before: its client may come back to it.
                Some(_) => {
                    self.left(hold, false).await;
                    self.keep_again(hold.session, kept).await;
                }
            }
        }
    }

    fn bound(&self, session: &Session) -> Option<super::same_user::Bound> {
        let away_counts = self.away.get().counts;
        self.same_user.get().bound(session, self.clock.now(), away_counts)
    }

    /// The session goes on over another connection, if no other one came first.
    async fn take_over(&self, session: Session, base: HoldNumber) -> Result<(), Why> {
        let takeover = Takeover { session, base, now: self.clock.now(), lost_at: self.lost_at() };
        match self.store.take_over(takeover).await {
            Ok(true) => {
                self.metrics.moves.count("resumed");
                Ok(())
            }
            Ok(false) => Err(Why::TokenOld),
            Err(_) => Err(Why::StoreAway),
        }
    }

    async fn admit(&self, admission: Admission) -> Result<(), Why> {
        let farewell = admission.bound.as_ref().map(|bound| bound.farewell.clone());
        match self.store.admit(admission).await {
            Ok(Admitted::Yes { replaced }) => {
                if let Some(farewell) = farewell {
                    self.replaced(replaced, &farewell);
                }
                Ok(())
            }
            Ok(Admitted::CredentialUsed) => Err(Why::Used),
            Ok(Admitted::TooManySessions) => Err(Why::TooManySessions),
            Err(_) => Err(Why::StoreAway),
        }
    }

    /// Tells the sessions goodbye that ended for a newer one of their user. One that was
    /// recorded and is not live yet finds out when it would go live.
    fn replaced(&self, sessions: Vec<Session>, farewell: &Farewell) {
        for session in sessions {
            self.metrics.ended.count("replaced");
            info!(session = %session.id, "session replaced by a newer one of its user");
            self.presence.kick_recorded(session.id, Some(session.proxy), farewell.clone());
        }
    }

    /// A session was recorded and must not live: a kick or the loss of its stream came first.
    async fn take_back(&self, id: SessionId, proxy: String) {
        debug!(session = %id, "ended while it began");
        let farewell = Some(Farewell::new(ENDED_MEANWHILE));
        if let Err(error) = self.store.end(vec![id], farewell).await {
            warn!(session = %id, %error, "a session that never lived could not be removed");
        }
        // Its proxy may have come back and found it in the store a moment ago.
        self.presence.kick_recorded(id, Some(proxy), Farewell::new(ENDED_MEANWHILE));
    }

    /// Throws sessions out, wherever they are; answers how many.
    pub async fn kick(&self, whom: Whom, farewell: Farewell) -> Result<u32, StoreError> {
        // First those that other replicas hold and the store does not know. They are not counted.
        self.store.announce(&whom, &farewell).await?;
        match whom {
            Whom::Session(id) => self.kick_these(vec![id], &farewell).await,
            Whom::Matching(filter) => self.kick_matching(&filter, &farewell).await,
        }
    }

    async fn kick_matching(&self, filter: &Filter, farewell: &Farewell) -> Result<u32, StoreError> {
        let begun = self.clock.now();
        let pending = self.presence.pending(|session| filter.takes(session, State::Pending));
        let ids = pending.into_iter().map(|session| session.id).collect();
        let mut ended = self.kick_these(ids, farewell).await?;
        let mut after = None;
        loop {
            let page = Page { user: filter.user.clone(), after, limit: KICK_STEP };
            let listed = self.store.list(page).await?;
            let mut meant = listed.sessions;
            // Whoever logs in after the kick began is not meant, or this might never end.
            meant.retain(|session| {
                session.created_at <= begun && filter.takes(session, session.state())
            });
            let ids = meant.into_iter().map(|session| session.id).collect();
            ended = ended.saturating_add(self.kick_these(ids, farewell).await?);
            after = listed.next;
            if after.is_none() {
                return Ok(ended);
            }
        }
    }

    async fn kick_these(
        &self,
        ids: Vec<SessionId>,
        farewell: &Farewell,
    ) -> Result<u32, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let recorded = self.store.end(ids.clone(), Some(farewell.clone())).await?;
        let mut ended = BTreeSet::new();
        for session in recorded {
            let proxy = Some(session.proxy);
            self.presence.kick_recorded(session.id, proxy, farewell.clone());
            ended.insert(session.id);
        }
        let mut recorded_since = Vec::new();
        for id in ids {
            if ended.contains(&id) {
                continue;
            }
            match self.presence.kick(id, farewell) {
                Met::Nothing => {}
                // It was not in the store a moment ago: it came to life in between.
                Met::Live => recorded_since.push(id),
                Met::Pending | Met::Joining => {
                    ended.insert(id);
                }
            }
        }
        if !recorded_since.is_empty() {
            let more = self.store.end(recorded_since, Some(farewell.clone())).await?;
            ended.extend(more.into_iter().map(|session| session.id));
        }
        for id in &ended {
            self.metrics.ended.count("kicked");
            info!(session = %id, reason = farewell.reason, code = farewell.code, "session kicked");
        }
        Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
    }

    /// Sessions in any state that the filter takes.
    pub async fn list(&self, search: Search) -> Result<Listing, StoreError> {
        let Search { filter, mut after, limit } = search;
        let (now, mut looked_at) = (self.clock.now(), 0_usize);
        let mut found = Vec::new();
        loop {
            // What the store finds by itself needs no looking at.
            let step = if filter.is_empty() || filter.is_user_alone() {
                limit.saturating_sub(found.len())
            } else {
                SEARCH_STEP
            };
            let page = Page { user: filter.user.clone(), after, limit: step };
            let listed = self.store.list(page).await?;
            looked_at = looked_at.saturating_add(step);
            // Pending ones with larger ids than the last live one come with a later page.
            let pending = self.presence.pending(|session| {
                after.is_none_or(|after| session.id > after)
                    && listed.next.is_none_or(|end| session.id < end)
                    && filter.takes(session, State::Pending)
            });
            let mut more: Vec<_> = listed
                .sessions
                .into_iter()
                .filter(|session| session.ends_at() > now)
                .map(|session| (session.state(), session))
                .filter(|(state, session)| filter.takes(session, *state))
                .map(|(state, session)| (session, state))
                .chain(pending.into_iter().map(|session| (session, State::Pending)))
                .collect();
            more.sort_by_key(|(session, _)| session.id);
            found.append(&mut more);
            after = listed.next;
            if found.len() > limit {
                found.truncate(limit);
                after = found.last().map(|(session, _)| session.id);
            }
            if after.is_none() || found.len() >= limit || looked_at >= MAX_LOOKED_AT {
                return Ok(Listing { sessions: found, next: after });
            }
        }
    }

    /// How many sessions the store has, and what is held here.
    pub async fn count(&self) -> Result<(Count, Census), StoreError> {
        Ok((self.store.count().await?, self.presence.census()))
    }

    /// Ends what is over: pending sessions past their time and a bounded number of recorded ones.
    /// `true` if there is more to do at once.
    pub async fn sweep(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        for _ in 0..self.presence.expire_pending(now) {
            self.metrics.ended.count("never_activated");
        }
        let swept = self.store.sweep(Sweep { now, lost_until: self.lost_until(now) }).await?;
        for id in &swept.sessions {
            self.metrics.ended.count("expired");
            self.presence.kick_recorded(*id, None, Farewell::new(EXPIRED));
        }
        for id in &swept.given_up {
            self.metrics.ended.count("given_up");
            self.presence.kick_recorded(*id, None, Farewell::new(GIVEN_UP));
        }
        for id in &swept.lost {
            self.metrics.moves.count("lost");
            debug!(session = %id, "away: its proxy is lost");
        }
        if !swept.sessions.is_empty() || swept.credentials > 0 {
            debug!(sessions = swept.sessions.len(), credentials = swept.credentials, "swept");
        }
        Ok(swept.more)
    }
}

#[cfg(test)]
mod tests;
