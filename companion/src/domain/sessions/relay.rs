//! Pushes to sessions that other replicas hold.
//!
//! Every replica that reads a letter hands it out to what it holds, and says what came of it. So
//! the writer knows how many answers to expect; what nobody holds is away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Sessions;
use crate::domain::push::{Outcome, Parcel};
use crate::domain::session::SessionId;
use crate::store::StoreError;
use crate::store::relay::Letter;

/// Letters whose outcome is waited for at once; beyond, what comes waits.
const UNDER_WAY: usize = 4096;

/// Pushes that were written to other replicas and are not answered by all of them.
#[derive(Default)]
pub struct Correspondence {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::UnboundedSender<Outcome>>>,
}

/// A push that other replicas hand out.
pub struct Posted {
    correspondence: Arc<Correspondence>,
    reference: u64,
    sessions: u32,
    /// Receipts to come.
    readers: u32,
    receipts: mpsc::UnboundedReceiver<Outcome>,
}

impl Correspondence {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Outcome>>> {
        // Nothing panics while the lock is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many receipts come as there were readers; more are from nobody.
    fn receipt(&self, reference: u64, outcome: Outcome) {
        if let Some(waiting) = self.lock().get(&reference) {
            let _ = waiting.send(outcome);
        }
    }
}

impl Posted {
    /// What came of it, as far as it is known in time.
    pub async fn outcome(mut self, in_time: Instant) -> Outcome {
        let mut sum = Outcome::default();
        let mut complete = true;
        for _ in 0..self.readers {
            match tokio::time::timeout_at(in_time, self.receipts.recv()).await {
                Ok(Some(outcome)) => sum.add(outcome),
                Ok(None) | Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        let Outcome { delivered, gone, slow, refused, unconfirmed, .. } = sum;
        let known = [delivered, gone, slow, refused, unconfirmed];
        let known = known.into_iter().fold(0, u32::saturating_add);
        let rest = self.sessions.saturating_sub(known);
        if complete {
            sum.away = rest;
        } else {
            sum.unconfirmed = sum.unconfirmed.saturating_add(rest);
        }
        sum
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.correspondence.lock().remove(&self.reference);
    }
}

impl Sessions {
    /// Lets every replica hand it out, this one included; `None` where there are no others.
    pub(super) async fn post(
        &self,
        sessions: &[SessionId],
        parcel: &Arc<Parcel>,
    ) -> Option<Result<Posted, StoreError>> {
        let relay = self.store.relay()?;
        let correspondence = Arc::clone(&self.correspondence);
        let reference = correspondence.last.fetch_add(1, Ordering::Relaxed);
        let (tell, receipts) = mpsc::unbounded_channel();
        correspondence.lock().insert(reference, tell);
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let mut posted =
            Posted { correspondence, reference, sessions: count, readers: 0, receipts };
        let written = relay.push(reference, sessions.to_vec(), Arc::clone(parcel)).await;
        Some(written.map(|readers| {
            posted.readers = readers;
            posted
        }))
    }

    /// Hands out what other replicas and this one wrote, for as long as there are letters; at once
    /// where there are no other replicas.
    pub async fn read_letters(self: Arc<Self>) {
        let Some(relay) = self.store.relay() else { return };
        let Some(mut letters) = relay.letters() else { return };
        let room = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY));
        while let Some(letter) = letters.recv().await {
            let (from, reference, ids, parcel) = match letter {
                Letter::Push { from, reference, sessions, parcel } => {
                    (from, reference, sessions, parcel)
                }
                Letter::Receipt { reference, outcome } => {
                    self.correspondence.receipt(reference, outcome);
                    continue;
                }
            };
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let limits = *self.push_limits.get();
            // In the order of the letters, which is the same everywhere.
            let sent = self.send(&ids, &parcel, limits);
            let relay = Arc::clone(&relay);
            tokio::spawn(async move {
                let outcome = Outcome { away: 0, queued: 0, ..sent.outcome().await };
                // The writer knows by then, or does not wait any more.
                let _ = relay.receipt(from, reference, outcome).await;
                drop(permit);
            });
        }
    }
}
