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
use crate::domain::session::{Farewell, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;

#[cfg(test)]
pub(crate) mod behaviour;
pub mod groups;
pub mod history;
pub mod metered;
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
#[derive(Debug, Default)]
pub struct Admission {
    /// Used up by this login; nothing happens if it was before.
    pub credential: Option<CredentialId>,
    /// How many sessions its user may have.
    pub bound: Option<Bound>,
    /// Lives from now on.
    pub session: Option<Session>,
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

/// Asks for one page of live sessions, in the order of their ids.
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
    /// News may have been missed: what is held must be looked up in the store.
    Gap,
}

/// What a replica tells the clients of sessions that a sweep removed.
pub const EXPIRED: &str = "the session has expired";

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub sessions: Vec<SessionId>,
    pub credentials: usize,
    /// There is more to sweep at once.
    pub more: bool,
}

pub trait Store: groups::GroupStore + history::History + Send + Sync {
    /// Durable when the answer comes.
    fn admit(&self, admission: Admission) -> Answer<Admitted>;

    /// Removes sessions; answers those that there were. Durable when the answer comes. With a
    /// farewell, other replicas hear of it ([`News::Ended`]).
    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>>;

    /// The sessions of these ids, in their order.
    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>>;

    fn list(&self, page: Page) -> Answer<Listed>;

    /// How many sessions there are, without looking at each.
    fn count(&self) -> Answer<u64>;

    /// Removes some of what expired before `now`: a bounded amount of work, in the order of
    /// expiry.
    fn sweep(&self, now: UnixMillis) -> Answer<Swept>;

    /// Lets other replicas end what is not in the store yet ([`News::Call`]).
    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()>;

    /// What other replicas do, for the one who asks first; `None` where there are no others.
    fn news(&self) -> Option<mpsc::Receiver<News>>;

    /// The way to other replicas; `None` where there are no others.
    fn relay(&self) -> Option<Arc<dyn relay::Relay>>;

    /// Whether the store works: it read and wrote the last time that it was asked to.
    fn healthy(&self) -> bool;
}
