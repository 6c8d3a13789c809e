//! An issuer's key set that lies at a URL.
//!
//! It is fetched at the start, every `refresh`, and when a token names a key that is not in it,
//! which is how a new key is found; then not again for `cool_down`, so that made-up names cause no
//! storm. While the URL is away the last good set stays. A login that comes before the first set,
//! or whose key may be in the next one, waits for it, for a moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::{JwkError, JwtKeys};
use crate::domain::credential::Verified;
use crate::domain::refusal::Why;
use crate::domain::time::UnixMillis;
use crate::live::Live;
use crate::metrics::Counter;

/// The longest document: a handful of RSA keys with their certificates has some tens of thousands.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// Less than a proxy lets a login wait.
const WAIT: Duration = Duration::from_millis(1500);
/// After a failure, unless the cool-down is shorter.
const RETRY: Duration = Duration::from_secs(5);

/// A way to the document.
#[tonic::async_trait]
pub trait Fetch: Send + Sync {
    /// The document, or why not, for the log.
    async fn fetch(&self) -> Result<Vec<u8>, String>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Between two rounds that nobody asked for.
    pub refresh: Duration,
    /// Between a round and one for the sake of an unknown key.
    pub cool_down: Duration,
    /// What a round may take.
    pub timeout: Duration,
    /// Of keys that say none, and the only one.
    pub algorithm: Option<Algorithm>,
    pub issuers: Vec<String>,
}

pub struct FetchedKeys {
    way: Box<dyn Fetch>,
    rules: Rules,
    /// The last good set; empty before the first one.
    keys: Live<Arc<JwtKeys>>,
    wanted: Notify,
    /// Counts rounds that are over, good or not.
    rounds: watch::Sender<u64>,
    state: Mutex<State>,
    fetched: Counter,
    failed: Counter,
}

#[derive(Default)]
struct State {
    started: bool,
    /// A round is under way.
    busy: bool,
    /// The first moment at which a round may be asked for.
    ask_from: Option<Instant>,
    fetched_at: Option<Instant>,
    /// The last round failed, and that was said.
    failing: bool,
}

/// For metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub fetched: u64,
    pub failed: u64,
    pub keys: usize,
    /// Of the set, in seconds.
    pub age: Option<u64>,
}

impl FetchedKeys {
    pub fn new(way: Box<dyn Fetch>, rules: Rules) -> Self {
        Self {
            way,
            rules,
            keys: Live::default(),
            wanted: Notify::new(),
            rounds: watch::Sender::new(0),
            state: Mutex::default(),
            fetched: Counter::default(),
            failed: Counter::default(),
        }
    }

    /// Begins with the set that another one has, if that came from the same place and by rules that
    /// would let it in here.
    pub fn inherit(&self, before: &Self) {
        let (old, new) = (&before.rules, &self.rules);
        if (old.algorithm, &old.issuers) == (new.algorithm, &new.issuers) {
            self.keys.set(Arc::clone(&before.keys.get()));
            let at = before.state().fetched_at;
            self.state().fetched_at = at;
        }
    }

    /// Fetches from now on, for as long as this is held. On a runtime; once.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.started {
            (state.started, state.busy) = (true, true);
            drop(tokio::spawn(run(Arc::downgrade(self), self.rules.refresh)));
        }
    }

    pub fn numbers(&self) -> Numbers {
        Numbers {
            fetched: self.fetched.value(),
            failed: self.failed.value(),
            keys: self.keys.get().len(),
            age: self.state().fetched_at.map(|at| at.elapsed().as_secs()),
        }
    }

    pub async fn verify(
        &self,
        token: &str,
        audience: &str,
        now: UnixMillis,
    ) -> Result<Verified, Why> {
        let mut rounds = self.rounds.subscribe();
        let round = *rounds.borrow_and_update();
        match self.keys.get().verify(token, audience, now) {
            // A round that was over meanwhile counts as well.
            Err(Why::UnknownKey) if self.may_come() || *rounds.borrow() != round => {}
            Err(Why::UnknownKey) => return Err(self.unknown()),
            verdict => return verdict,
        }
        let next = rounds.wait_for(|now| *now != round);
        // Without a new set it is judged by the old one.
        let _ = tokio::time::timeout(WAIT, next).await;
        match self.keys.get().verify(token, audience, now) {
            Err(Why::UnknownKey) => Err(self.unknown()),
            verdict => verdict,
        }
    }

    /// Whether a round is under way, or one may begin, which is then asked for.
    fn may_come(&self) -> bool {
        let mut state = self.state();
        if state.busy {
            return true;
        }
        if state.ask_from.is_some_and(|from| Instant::now() < from) {
            return false;
        }
        state.busy = true;
        self.wanted.notify_one();
        true
    }

    fn unknown(&self) -> Why {
        if self.keys.get().is_empty() { Why::KeysAway } else { Why::UnknownKey }
    }

    /// One round; answers when the next one is due.
    async fn round(&self) -> Duration {
        self.state().busy = true;
        let fetched = tokio::time::timeout(self.rules.timeout, self.way.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".into()));
        let set = fetched.and_then(|document| {
            let Rules { issuers, algorithm, .. } = &self.rules;
            let keys = JwtKeys::of_published(&document, issuers.clone(), *algorithm);
            keys.map_err(|error: JwkError| error.to_string())
        });
        let (cool_down, next) = match set {
            Ok(keys) => {
                let mut state = self.state();
                if state.fetched_at.is_none() || state.failing {
                    info!(keys = keys.len(), "an issuer's keys are here");
                } else {
                    debug!(keys = keys.len(), "an issuer's keys are here");
                }
                (state.failing, state.fetched_at) = (false, Some(Instant::now()));
                self.keys.set(Arc::new(keys));
                self.fetched.count();
                (self.rules.cool_down, self.rules.refresh)
            }
            Err(problem) => {
                self.failed.count();
                if !std::mem::replace(&mut self.state().failing, true) {
                    warn!(problem, "an issuer's keys cannot be fetched, those that are here stay");
                }
                let soon = RETRY.min(self.rules.cool_down);
                (soon, soon.max(Duration::from_millis(100)).min(self.rules.refresh))
            }
        };
        let mut state = self.state();
        (state.busy, state.ask_from) = (false, Instant::now().checked_add(cool_down));
        drop(state);
        self.rounds.send_modify(|round| *round = round.wrapping_add(1));
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Round after round. `look`: how often to see whether anybody still wants them.
async fn run(keys: Weak<FetchedKeys>, look: Duration) {
    let mut due = Duration::ZERO;
    let look = look.min(RETRY);
    let mut waited = Duration::ZERO;
    loop {
        let Some(keys) = keys.upgrade() else { return };
        let pause = due.saturating_sub(waited).min(look);
        let wanted = tokio::time::timeout(pause, keys.wanted.notified()).await.is_ok();
        waited = waited.saturating_add(pause);
        if wanted || waited >= due {
            due = keys.round().await;
            waited = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests;
