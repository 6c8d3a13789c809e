//! The login server that a studio already has, asked about credentials that mean something to it
//! alone.
//!
//! ```text
//!   credential ─▶ cache ─▶ room for one more? ─▶ breaker ─▶ ask, in time ─▶ answer ─▶ cache
//!                   │              │ no            │ open       │ no answer
//!                   ▼              ▼               ▼            ▼
//!              same answer     try again       try again     try again
//! ```
//!
//! Whatever is wrong with the login server, its clients hear "try again" before their proxy gives
//! them up, and nobody else's login waits for it. [`Ask`] is how it is reached.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::bucket::{Bucket, Rate};
use super::credential::{Identity, MAX_CREDENTIAL_BYTES};
use super::refusal::{Refused, Why};
use super::session::Mode;
use super::time::{Clock, UnixMillis};
use crate::metrics::Metrics;
use breaker::{Breaker, Change};
use cache::Cache;

pub mod breaker;
mod cache;

/// The longest text that a client is told on the login server's behalf.
pub const MAX_TEXT_BYTES: usize = 256;
/// Lines about a login server that fails: a few at once, then one in ten seconds.
const LINES: Rate = Rate::every_seconds(10, 3);

/// What kind of credential it is, by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// Neither of the others.
    Opaque,
    Ticket,
    Jwt,
}

/// Which credentials the login server is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Takes {
    /// Those that are neither a MeshGate ticket nor a JSON Web Token.
    #[default]
    Others,
    /// All.
    All,
}

/// What the login server is asked.
pub struct Question {
    pub credential: Zeroizing<Vec<u8>>,
    pub kind: CredentialKind,
    pub audience: String,
    /// The client's address and port.
    pub peer: String,
    pub mode: Mode,
    pub layout: String,
    /// What the client says of itself.
    pub client: String,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted(Granted),
    Refused(Refused),
}

/// Whose the credential is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Granted {
    /// Not checked yet.
    pub identity: Identity,
    /// When the session ends at the latest.
    pub until: Option<UnixMillis>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub answer: Answer,
    /// For how long the same answer may be given without asking, as the login server says.
    pub reusable_for: Option<Duration>,
}

/// There is no answer. The texts are for logs, and hold nothing of the question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the login server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the login server does not answer in time")]
    Slow,
    #[error("the login server says {0}")]
    Failed(String),
    #[error("the login server's answer cannot be used: {0}")]
    Garbage(String),
}

impl Trouble {
    /// As metrics name it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Slow => "slow",
            Self::Failed(_) => "failed",
            Self::Garbage(_) => "garbage",
        }
    }
}

/// What may come of a question, as metrics name it.
pub const RESULTS: [&str; 10] = [
    "accepted",
    "refused",
    "cached_accepted",
    "cached_refused",
    "slow",
    "unreachable",
    "failed",
    "garbage",
    "busy",
    "open",
];

/// A way to the login server.
#[tonic::async_trait]
pub trait Ask: Send + Sync {
    /// May take for ever: whoever asks gives up in time.
    async fn ask(&self, question: &Question) -> Result<Reply, Trouble>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub takes: Takes,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions under way at once.
    pub max_concurrent: usize,
    /// How many answers are remembered.
    pub cache_entries: usize,
    /// An accepted credential is remembered for at most this long, and only if the login server
    /// says so.
    pub cache_accepted: Duration,
    /// A refused one for this long, unless the login server says something else; at most.
    pub cache_refused: Duration,
    pub breaker: breaker::Rules,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            takes: Takes::Others,
            // Less than a proxy lets a login wait.
            timeout: Duration::from_secs(2),
            max_concurrent: 256,
            cache_entries: 10_000,
            cache_accepted: Duration::from_secs(60),
            cache_refused: Duration::from_secs(3),
            breaker: breaker::Rules::default(),
        }
    }
}

/// The login server, as logins see it.
pub struct Verifier {
    way: Box<dyn Ask>,
    limits: Limits,
    room: Semaphore,
    breaker: Breaker,
    cache: Cache,
    lines: Mutex<Bucket>,
}

impl Verifier {
    pub fn new(way: Box<dyn Ask>, limits: Limits) -> Result<Self, getrandom::Error> {
        let room = Semaphore::new(limits.max_concurrent);
        let cache = Cache::new(limits.cache_entries)?;
        let (breaker, lines) = (Breaker::default(), Mutex::default());
        Ok(Self { way, limits, room, breaker, cache, lines })
    }

    /// Whether it is asked about such credentials.
    pub fn takes(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::Opaque || self.limits.takes == Takes::All
    }

    /// `closed`, `open`, `half_open`.
    pub fn breaker_state(&self) -> &'static str {
        self.breaker.state()
    }

    /// Questions that wait for their answer.
    pub fn under_way(&self) -> usize {
        self.limits.max_concurrent.saturating_sub(self.room.available_permits())
    }

    /// Whose the credential is, or why its client is not let in.
    pub async fn verify(
        &self,
        question: Question,
        clock: &dyn Clock,
        metrics: &Metrics,
    ) -> Result<Granted, Refused> {
        let count = |result: &str| metrics.verifier_answers.count(result);
        if question.credential.is_empty() || question.credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(Why::Malformed.into());
        }
        let key = self.cache.key(&question);
        if let Some(answer) = self.cache.find(&key, clock.now()) {
            count(if matches!(answer, Answer::Accepted(_)) {
                "cached_accepted"
            } else {
                "cached_refused"
            });
            return judge(answer, clock.now());
        }
        let Ok(_room) = self.room.try_acquire() else {
            count("busy");
            return Err(Why::VerifierBusy.into());
        };
        let Some(attempt) = self.breaker.enter(self.limits.breaker, clock.now()) else {
            count("open");
            return Err(Why::VerifierAway.into());
        };
        let began = Instant::now();
        let asked = tokio::time::timeout(self.limits.timeout, self.way.ask(&question)).await;
        let asked = asked.unwrap_or(Err(Trouble::Slow));
        metrics.verifier_time.record(began.elapsed());
        let change = self.breaker.leave(self.limits.breaker, attempt, asked.is_ok(), clock.now());
        match asked {
            Ok(Reply { answer, reusable_for }) => {
                if change == Some(Change::Closed) {
                    info!("the login server answers again");
                }
                count(if matches!(answer, Answer::Accepted(_)) { "accepted" } else { "refused" });
                let life = self.reuse(&answer, reusable_for);
                self.cache.keep(key, &answer, life, clock.now());
                judge(answer, clock.now())
            }
            Err(trouble) => {
                count(trouble.name());
                self.tell(&trouble, change, clock.now());
                Err(Why::VerifierAway.into())
            }
        }
    }

    fn reuse(&self, answer: &Answer, said: Option<Duration>) -> Duration {
        match answer {
            Answer::Accepted(_) => said.unwrap_or_default().min(self.limits.cache_accepted),
            // "Not now" is no word about the credential.
            Answer::Refused(Refused { why: Why::VerifierTryAgain, .. }) => Duration::ZERO,
            Answer::Refused(_) => {
                let most = self.limits.cache_refused;
                said.unwrap_or(most).min(most)
            }
        }
    }

    fn tell(&self, trouble: &Trouble, change: Option<Change>, now: UnixMillis) {
        if change == Some(Change::Opened) {
            warn!(%trouble, pause = ?self.limits.breaker.pause, "not asked for a while");
            return;
        }
        // Nothing panics while the lock is held.
        let line = self.lines.lock().unwrap_or_else(PoisonError::into_inner).take(LINES, now);
        if line { warn!(%trouble, "no answer") } else { debug!(%trouble, "no answer") }
    }
}

fn judge(answer: Answer, now: UnixMillis) -> Result<Granted, Refused> {
    match answer {
        Answer::Accepted(granted) if granted.until.is_some_and(|until| until <= now) => {
            Err(Why::Expired.into())
        }
        Answer::Accepted(Granted { identity, until }) => {
            Ok(Granted { identity: identity.checked()?, until })
        }
        Answer::Refused(refused) => Err(refused),
    }
}

/// A login server's text for a client: short, and on one line. `None`: nothing to say.
pub fn text_for_client(text: &str) -> Option<Box<str>> {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = MAX_TEXT_BYTES.min(clean.len());
    while !clean.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    clean.truncate(end);
    (!clean.is_empty()).then(|| clean.into_boxed_str())
}

#[cfg(test)]
mod tests;
