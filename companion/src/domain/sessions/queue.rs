//! Pushes that wait for sessions whose client is away.
//!
//! What is kept is kept by the store while it has the session as away; so it is all there when the
//! session lives again, and is told to its stream before anything newer. It is taken out before it
//! is sent, so it arrives once or, if its connection is lost again, not at all.

use std::sync::Arc;

use tracing::{debug, warn};

use super::Sessions;
use super::push::{PushLimits, number};
use crate::domain::presence::ProxyStream;
use crate::domain::push::{Outcome, Parcel};
use crate::domain::session::SessionId;
use crate::store::queue::Kept;

impl Sessions {
    /// Keeps it for those that are away; answers the others, and what came of it so far.
    pub(super) async fn keep_for(
        &self,
        mut ids: Vec<SessionId>,
        parcel: &Arc<Parcel>,
        limits: PushLimits,
    ) -> (Vec<SessionId>, Outcome) {
        let mut known = Outcome::default();
        if limits.queue.pushes == 0 {
            return (ids, known);
        }
        let here: Vec<_>;
        (here, ids) = ids.into_iter().partition(|id| self.presence.holds_live(*id));
        if ids.is_empty() {
            return (here, known);
        }
        let now = self.clock.now();
        let kept = self.store.keep(ids.clone(), Arc::clone(parcel), limits.queue, now).await;
        let Ok(kept) = kept else {
            known.unconfirmed = number(ids.len());
            return (here, known);
        };
        let mut elsewhere = here;
        for (id, kept) in ids.into_iter().zip(kept) {
            match kept {
                Kept::Queued => known.queued = known.queued.saturating_add(1),
                Kept::Full => known.slow = known.slow.saturating_add(1),
                Kept::Elsewhere => elsewhere.push(id),
            }
        }
        (elsewhere, known)
    }

    /// What waits for each of them, which live again: as many as there are ids.
    pub(super) async fn take_kept(&self, ids: Vec<SessionId>) -> Vec<Vec<Arc<Parcel>>> {
        let queue = self.push_limits.get().queue;
        let none = vec![Vec::new(); ids.len()];
        if queue.pushes == 0 {
            return none;
        }
        let age = u64::try_from(queue.age.as_millis()).unwrap_or(u64::MAX);
        let since = self.clock.now().0.saturating_sub(age);
        match self.store.take_kept(ids, crate::domain::time::UnixMillis(since)).await {
            Ok(kept) if kept.len() == none.len() => {
                kept.into_iter().map(|queue| queue.into_iter().map(Arc::new).collect()).collect()
            }
            Ok(_) => none,
            Err(error) => {
                warn!(%error, "what waits for sessions that came back could not be read");
                none
            }
        }
    }

    /// To the stream that holds the session now.
    pub(super) fn deliver(
        &self,
        stream: &Arc<dyn ProxyStream>,
        session: SessionId,
        kept: &[Arc<Parcel>],
    ) {
        let limits = *self.push_limits.get();
        let (mut flights, mut known) = (Vec::new(), Outcome::default());
        for parcel in kept {
            self.hand(stream, &[session], parcel, limits, (&mut flights, &mut known));
        }
        if !kept.is_empty() {
            debug!(%session, pushes = kept.len(), "sent what waited for it");
        }
    }

    /// It did not come back after all.
    pub(super) async fn keep_again(&self, session: SessionId, kept: Vec<Arc<Parcel>>) {
        let (queue, now) = (self.push_limits.get().queue, self.clock.now());
        for parcel in kept {
            // It ages from now on; and where the store fails, it is lost.
            let _ = self.store.keep(vec![session], parcel, queue, now).await;
        }
    }
}
