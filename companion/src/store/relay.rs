//! Pushes between replicas: what one takes and another has to hand out.
//!
//! A letter goes to every replica, the writer included, in one order for all of them; nobody keeps
//! it. Who is away when it is written does not get it, and does not answer.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Answer;
use crate::domain::push::{Outcome, Parcel};
use crate::domain::session::SessionId;

/// What a replica reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// To be handed out to those of these sessions that are held here.
    Push {
        /// The replica that wants to know what came of it.
        from: String,
        reference: u64,
        sessions: Vec<SessionId>,
        parcel: Arc<Parcel>,
    },
    /// What came of a push that this replica wrote, for the sessions that another one holds.
    Receipt { reference: u64, outcome: Outcome },
}

pub trait Relay: Send + Sync {
    /// Writes to every replica; answers how many read it.
    fn push(&self, reference: u64, sessions: Vec<SessionId>, parcel: Arc<Parcel>) -> Answer<u32>;

    /// Tells another replica what came of its push.
    fn receipt(&self, to: String, reference: u64, outcome: Outcome) -> Answer<()>;

    /// The letters, for the one who asks first.
    fn letters(&self) -> Option<mpsc::Receiver<Letter>>;
}
