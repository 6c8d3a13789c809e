//! Sessions whose connection is gone: how they go away, and how they come back with their worker.
//! (How they come back with their client is in [`Sessions::activate`].)
//!
//! A connection that closes is reported by its worker. A worker that is lost reports nothing: so the
//! companion that it is attached to keeps saying to the store that it is there, and the sessions of
//! one that nobody has spoken of for `session.proxy_timeout` go away. One entry for each worker
//! serves all of its sessions, whichever companion it attaches to.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};

use super::{ENDED_MEANWHILE, RESUMED, Sessions};
use crate::domain::presence::{Met, ProxyStream, Reattached, StreamId};
use crate::domain::session::{Farewell, Hold, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::{Count, EXPIRED, Left, StoreError};

/// Workers are spoken of so many times within the time after which they count as lost.
const BEATS: u32 = 3;

/// What is done about sessions whose connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// How long they wait for their client; nothing: they end at once.
    pub grace: Duration,
    /// How long a worker may be without a stream until its sessions are away.
    pub proxy_timeout: Duration,
    /// Whether they count among those that a user has.
    pub counts: bool,
}

impl Default for Away {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            proxy_timeout: Duration::from_secs(30),
            counts: false,
        }
    }
}

impl Sessions {
    /// What is done about such sessions from now on.
    pub fn set_away(&self, away: Away) {
        self.away.set(away);
    }

    pub fn grace(&self) -> Duration {
        self.away.get().grace
    }

    /// A proxy's worker has come, with sessions that live on it since before. Those that are
    /// gone are kicked; those that were taken for away live again.
    pub async fn open(
        &self,
        stream: &Arc<dyn ProxyStream>,
        holds: Vec<Hold>,
    ) -> Result<(), StoreError> {
        self.presence.open(stream);
        let attached = self.say_attached(stream.worker()).await;
        if holds.is_empty() {
            // What could not be said now is said with the next beat.
            return Ok(());
        }
        attached?;
        let now = self.clock.now();
        let ids: Vec<SessionId> = holds.iter().map(|hold| hold.session).collect();
        let found = self.store.find(ids).await?;
        let (mut claims, mut away) = (0_usize, Vec::new());
        for (hold, session) in holds.into_iter().zip(found) {
            let otherwise = match session {
                Some(session) if session.ends_at() <= now => EXPIRED,
                Some(session) if session.proxy != stream.proxy() || session.hold != hold.number => {
                    // Its name is its only right to the session's kicks.
                    let elsewhere = session.hold.generation() > hold.number.generation();
                    claims = claims.saturating_add(usize::from(!elsewhere));
                    if elsewhere { RESUMED } else { ENDED_MEANWHILE }
                }
                Some(session) if session.away_until.is_some() => {
                    away.push(hold);
                    continue;
                }
                Some(_) => {
                    self.reattach(stream, hold, true, ENDED_MEANWHILE);
                    continue;
                }
                None => ENDED_MEANWHILE,
            };
            self.reattach(stream, hold, false, otherwise);
        }
        if !away.is_empty() {
            let back = self.store.back(away.clone(), stream.worker()).await?;
            let kept = self.take_kept(away.iter().map(|hold| hold.session).collect()).await;
            for ((hold, lives), kept) in away.into_iter().zip(back).zip(kept) {
                self.metrics.moves.count("back");
                self.reattach(stream, hold, lives, ENDED_MEANWHILE);
                if lives {
                    self.deliver(stream, hold.session, &kept);
                }
            }
        }
        if claims > 0 {
            warn!(proxy = stream.proxy(), claims, "a proxy claims sessions of another one");
        }
        Ok(())
    }

    fn reattach(&self, stream: &Arc<dyn ProxyStream>, hold: Hold, lives: bool, otherwise: &str) {
        if self.presence.reattach(hold, stream, lives, otherwise) == Reattached::Ended {
            debug!(session = %hold.session, proxy = stream.proxy(), "ended while its proxy was away");
        }
    }

    /// The client's connection is gone; `logout`: and it has said that it will not come back.
    pub async fn ended(&self, stream: StreamId, hold: Hold, logout: bool) {
        // One that joins is seen to where it would go live; one that is pending is not recorded.
        match self.presence.forget(hold, stream) {
            Met::Nothing => {}
            Met::Pending | Met::Joining => self.metrics.ended.count("closed"),
            Met::Live => self.left(hold, logout).await,
        }
    }

    /// A session that lived has lost its connection.
    pub(super) async fn left(&self, hold: Hold, logout: bool) {
        let grace = self.grace();
        let until = (!grace.is_zero() && !logout).then(|| self.clock.now().after(grace));
        match self.store.depart(vec![hold], until).await {
            Ok(left) => {
                for (session, left) in left {
                    match left {
                        Left::Away => {
                            self.metrics.moves.count("away");
                            debug!(%session, "away: its connection is gone");
                        }
                        Left::Ended if logout => self.metrics.ended.count("logout"),
                        Left::Ended => self.metrics.ended.count("closed"),
                    }
                }
            }
            // It ends by its lifetime at the latest.
            Err(error) => {
                warn!(session = %hold.session, %error, "that a session lost its connection could \
                       not be recorded");
            }
        }
    }

    /// Tells the store which workers are attached here, if it is time to. To be called every second
    /// or so.
    pub async fn beat(&self) {
        let now = self.clock.now();
        if now.0 < self.next_beat.load(Ordering::Relaxed) {
            return;
        }
        let away = self.away.get();
        let workers: Vec<u64> = self.presence.workers().into_iter().collect();
        if !workers.is_empty() {
            let until = now.after(away.proxy_timeout);
            let Ok(unknown) = self.store.attached(workers, until).await else { return };
            for worker in unknown {
                if self.reclaim(worker).await.is_err() {
                    return;
                }
            }
        }
        let pause = away.proxy_timeout.checked_div(BEATS).unwrap_or_default();
        self.next_beat.store(now.after(pause).0, Ordering::Relaxed);
    }

    async fn say_attached(&self, worker: u64) -> Result<(), StoreError> {
        if worker == 0 {
            return Ok(());
        }
        let until = self.clock.now().after(self.away.get().proxy_timeout);
        self.store.attached(vec![worker], until).await.map(drop)
    }

    /// A worker that is attached was taken for lost.
    async fn reclaim(&self, worker: u64) -> Result<(), StoreError> {
        let holds = self.presence.live_of(worker);
        if holds.is_empty() {
            return Ok(());
        }
        let back = self.store.back(holds.clone(), worker).await?;
        let kept = self.take_kept(holds.iter().map(|hold| hold.session).collect()).await;
        for ((hold, lives), kept) in holds.into_iter().zip(back).zip(kept) {
            if lives {
                self.metrics.moves.count("back");
                for parcel in kept {
                    drop(self.send(&[hold.session], &parcel, *self.push_limits.get()));
                }
            } else {
                self.presence.kick_hold(hold, &Farewell::new(ENDED_MEANWHILE));
            }
        }
        Ok(())
    }

    /// For a session that begins: when its worker is lost if nobody speaks of it any more.
    pub(super) fn lost_at(&self) -> Option<UnixMillis> {
        Some(self.clock.now().after(self.away.get().proxy_timeout))
    }

    /// For a sweep: until when sessions of lost workers are away. `None` while the companions may
    /// not have been able to speak of their workers.
    pub(super) fn lost_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        let away = self.away.get();
        if !self.store.healthy() {
            self.unsteady.store(now.0, Ordering::Relaxed);
        }
        let unsteady = UnixMillis(self.unsteady.load(Ordering::Relaxed));
        (now >= unsteady.after(away.proxy_timeout)).then(|| now.after(away.grace))
    }

    /// Counts what is recorded, for metrics.
    pub async fn take_count(&self) {
        if let Ok(count) = self.store.count().await {
            *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = count;
        }
    }

    /// As last counted.
    pub fn stored(&self) -> Count {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
