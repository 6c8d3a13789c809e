//! What survives a restart: live sessions, and the credentials that were used up.
//!
//! One trait, so that a store shared by several replicas can stand in for the embedded one.

use std::future::Future;
use std::pin::Pin;

use crate::domain::credential::CredentialId;
use crate::domain::same_user::Bound;
use crate::domain::session::{Session, SessionId};
use crate::domain::time::UnixMillis;

#[cfg(test)]
pub(crate) mod behaviour;
pub mod metered;
pub mod redb;

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

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub sessions: Vec<SessionId>,
    pub credentials: usize,
    /// There is more to sweep at once.
    pub more: bool,
}

pub trait Store: Send + Sync {
    /// Durable when the answer comes.
    fn admit(&self, admission: Admission) -> Answer<Admitted>;

    /// Removes sessions; answers those that there were. Durable when the answer comes.
    fn end(&self, ids: Vec<SessionId>) -> Answer<Vec<Session>>;

    /// The sessions of these ids, in their order.
    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>>;

    fn list(&self, page: Page) -> Answer<Listed>;

    /// How many sessions there are, without looking at each.
    fn count(&self) -> Answer<u64>;

    /// Removes some of what expired before `now`: a bounded amount of work, in the order of
    /// expiry.
    fn sweep(&self, now: UnixMillis) -> Answer<Swept>;

    /// Whether the store works: it read and wrote the last time that it was asked to.
    fn healthy(&self) -> bool;
}
