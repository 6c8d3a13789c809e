//! Pushes that wait for sessions which are away.
//!
//! They are kept for sessions that are away in the store's own eyes, in the step that looks; so
//! whoever takes a session over, or has it back, finds afterwards all that was kept. They end with
//! their session.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::Answer;
use crate::domain::push::{Command, Parcel};
use crate::domain::session::SessionId;
use crate::domain::time::UnixMillis;

/// What may wait for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// 0: nothing waits.
    pub pushes: u32,
    /// Of commands and bodies, with a few bytes for each.
    pub bytes: u32,
    /// What has waited for longer is dropped.
    pub age: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { pushes: 0, bytes: 64 * 1024, age: Duration::from_secs(60) }
    }
}

/// What came of a push for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Queued,
    /// As much waits for it as may.
    Full,
    /// It is not away: it lives, or has ended.
    Elsewhere,
}

pub trait AwayQueue {
    /// For each session, behind what waits for it already. Durable when the answer comes.
    fn keep(
        &self,
        ids: Vec<SessionId>,
        parcel: Arc<Parcel>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Answer<Vec<Kept>>;

    /// Takes out what waits for each, oldest first; what was kept before `since` is dropped.
    fn take_kept(&self, ids: Vec<SessionId>, since: UnixMillis) -> Answer<Vec<Vec<Parcel>>>;
}

/// A push as it lies in a store.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(fixed64, tag = "1")]
    kept_at_ms: u64,
    #[prost(int64, optional, tag = "2")]
    number: Option<i64>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

/// `None` for what does not wait: whoever is away need not be asked to leave.
pub fn encode(parcel: &Parcel, now: UnixMillis) -> Option<Vec<u8>> {
    let (number, name) = match &parcel.command {
        Command::Number(number) => (Some(*number), String::new()),
        Command::Name(name) => (None, name.clone()),
        Command::Leave(_) => return None,
    };
    let entry = Entry { kept_at_ms: now.0, number, name, body: parcel.body.clone() };
    Some(entry.encode_to_vec())
}

/// When it was kept, and what.
pub fn decode(bytes: &[u8]) -> Result<(UnixMillis, Parcel), String> {
    let entry = Entry::decode(bytes).map_err(|error| format!("a push that waits: {error}"))?;
    let command = match entry.number {
        Some(number) => Command::Number(number),
        None => Command::Name(entry.name),
    };
    Ok((UnixMillis(entry.kept_at_ms), Parcel { command, body: entry.body }))
}
