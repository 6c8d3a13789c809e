//! What survives a restart: live sessions, and the credentials that were used up.
//!
//! One trait and two stores: the embedded one of a single companion ([`redb`]), and one that several
//! replicas share ([`redis`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::domain::credential::CredentialId;
use crate::domain::same_user::Bound;
use crate::domain::session::{Farewell, Hold, HoldNumber, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;

#[cfg(test)]
pub(crate) mod behaviour;
pub mod checked;
pub mod groups;
pub mod history;
pub mod lines;
pub mod metered;
pub mod queue;
mod record;
pub mod redb;
pub mod redis;
pub mod relay;

/// An answer that comes when the store has done its work, durably where it wrote.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// The store failed or is away: nothing is known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub String);

/// What a login or an activation leaves behind, in one atomic step: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Used up by this login; nothing happens if it was before.
    pub credential: Option<CredentialId>,
    /// How many sessions its user may have.
    pub bound: Option<Bound>,
    /// Lives from now on.
    pub session: Option<Session>,
    /// When its worker is lost, if nothing else is known of that.
    pub lost_at: Option<UnixMillis>,
}

/// What came of an admission, judged in the order of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Done; these sessions ended for it.
    Yes { replaced: Vec<Session> },
    /// The credential was used before; nothing changed.
    CredentialUsed,
    /// The user has as many sessions as he may have; nothing changed.
    TooManySessions,
}

/// A session goes on over another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// As it shall be. Of what the record says, its hold, worker, proxy, peer and client are put in
    /// the place of the old ones, and it is not away any more.
    pub session: Session,
    /// The hold that has to count still.
    pub base: HoldNumber,
    pub now: UnixMillis,
    /// As in [`Admission`].
    pub lost_at: Option<UnixMillis>,
}

/// What became of a session whose connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Away,
    /// It cannot be resumed, or there is no time for it.
    Ended,
}

/// Asks for one page of recorded sessions, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Only this user's.
    pub user: Option<String>,
    /// Only those after this one.
    pub after: Option<SessionId>,
    pub limit: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub sessions: Vec<Session>,
    /// After which the next page begins, if there may be one.
    pub next: Option<SessionId>,
}

/// What a replica hears of the others, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A session is in the store no more: kicked, replaced, or swept.
    Ended {
        session: SessionId,
        /// That held it, where known.
        proxy: Option<String>,
        farewell: Farewell,
        /// This replica did it itself.
        own: bool,
    },
    /// These are to end where they wait for their first frame.
    Call { whom: Whom, farewell: Farewell },
    /// A session lives on another connection from now on.
    Moved { hold: Hold },
    /// News may have been missed: what is held must be looked up in the store.
    Gap,
}

/// What a replica tells the clients of sessions that a sweep removed.
pub const EXPIRED: &str = "the session has expired";

/// What it tells a proxy that comes back with a session which was away for too long.
pub const GIVEN_UP: &str = "the session has ended: its client was away for too long";

/// What a sweep is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    pub now: UnixMillis,
    /// If workers are looked at whose time without a stream is over: until when their sessions
    /// are away from now on. In the past: they end.
    pub lost_until: Option<UnixMillis>,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ended with their lifetime.
    pub sessions: Vec<SessionId>,
    /// Ended because they were away for too long.
    pub given_up: Vec<SessionId>,
    /// Away from now on: their worker is lost.
    pub lost: Vec<SessionId>,
    pub credentials: usize,
    /// There is more to sweep at once.
    pub more: bool,
}

/// A page of used credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub credentials: Vec<CredentialId>,
    /// After which the next page begins, in the store's own words; there may be nothing on it.
    pub next: Option<String>,
}

/// How many sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub live: u64,
    pub away: u64,
}

pub trait Store: groups::GroupStore + history::History + queue::AwayQueue + Send + Sync {
    /// Durable when the answer comes.
    fn admit(&self, admission: Admission) -> Answer<Admitted>;

    /// Removes sessions; answers those that there were. Durable when the answer comes. With a
    /// farewell, other replicas hear of it ([`News::Ended`]).
    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>>;

    /// The sessions of these ids, in their order.
    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>>;

    fn list(&self, page: Page) -> Answer<Listed>;

    /// How many sessions there are, without looking at each.
    fn count(&self) -> Answer<Count>;

    /// Used credentials, about so many, after a page that answered this; for an export. One may be
    /// told twice.
    fn used(&self, after: Option<String>, limit: usize) -> Answer<Used>;

    /// Gives a session to another connection, if it has not ended and `base` still counts; `false`
    /// if not, and nothing changed. Durable when the answer comes. Other replicas hear of it
    /// ([`News::Moved`]).
    fn take_over(&self, takeover: Takeover) -> Answer<bool>;

    /// The connections with these holds are gone. Where a hold still counts, its session is away
    /// until then, or ends at once: without a time, and if it cannot be resumed. Answers what
    /// became of which. Durable when the answer comes.
    fn depart(&self, holds: Vec<Hold>, until: Option<UnixMillis>)
    -> Answer<Vec<(SessionId, Left)>>;

    /// A worker still has these connections: says of each whether it counts, and if so, it is away
    /// no more.
    fn back(&self, holds: Vec<Hold>, worker: u64) -> Answer<Vec<bool>>;

    /// These workers are attached; whoever is not by `until` is lost. Answers those that were not
    /// known: new ones, and those that were lost.
    fn attached(&self, workers: Vec<u64>, until: UnixMillis) -> Answer<Vec<u64>>;

    /// Removes some of what ended before `now`, and finds sessions of lost workers: a bounded
    /// amount of work, in the order of time.
    fn sweep(&self, sweep: Sweep) -> Answer<Swept>;

    /// Lets other replicas end what is not in the store yet ([`News::Call`]).
    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()>;

    /// What other replicas do, for the one who asks first; `None` where there are no others.
    fn news(&self) -> Option<mpsc::Receiver<News>>;

    /// The way to other replicas; `None` where there are no others.
    fn relay(&self) -> Option<Arc<dyn relay::Relay>>;

    /// Whether the store works: it read and wrote the last time that it was asked to.
    fn healthy(&self) -> bool;
}
