//! A push: a frame for clients that answers nothing they asked for, or a word to leave.

use std::collections::BTreeMap;
use std::time::Duration;

use super::filter::Filter;
use super::group::GroupName;
use super::session::{Session, SessionId, State};

/// The longest body that any proxy takes, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// The longest name of a command, in bytes.
pub const MAX_COMMAND: usize = 256;

/// What the clients get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub command: Command,
    pub body: Vec<u8>,
}

/// A command as the service writes it; the layout of the client's listener says what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Number(i64),
    Name(String),
    /// No frame of a service: the clients are asked to go, and to come back.
    Leave(Leave),
}

/// The longest address that clients are sent to, in bytes.
pub const MAX_ADDRESS: usize = 261;
/// The longest time that clients are spread over, or are served on.
pub const MAX_LEAVE: Duration = Duration::from_secs(24 * 60 * 60);

/// How clients are to leave. See `meshgate.edge.v1.Leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// Only those of this service, by the name of its cluster; empty: all.
    pub service: String,
    pub reason: String,
    pub spread: Duration,
    pub within: Duration,
    /// Empty: as the proxy's configuration says.
    pub address: String,
}

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Session(SessionId),
    User(String),
    Group(GroupName),
}

/// Which of the target's sessions are meant: all that is given must be true of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    pub audience: Option<String>,
    /// Claims of the credential.
    pub claims: BTreeMap<String, String>,
}

impl Only {
    pub fn takes(&self, session: &Session) -> bool {
        let Self { audience, claims } = self.clone();
        Filter { audience, claims, ..Filter::default() }.takes(session, State::Live)
    }
}

/// How many sessions a push was for, by what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The frame was handed to Envoy on the client's connection.
    pub delivered: u32,
    /// It lives, and no proxy that is attached holds it.
    pub away: u32,
    /// It lives, its client is away, and gets it when it comes back in time.
    pub queued: u32,
    /// It lives no more, or never did.
    pub gone: u32,
    /// As much waits for the client, or for its proxy, as may.
    pub slow: u32,
    /// The proxy makes no such frame.
    pub refused: u32,
    /// No answer came in time.
    pub unconfirmed: u32,
    /// Why the first one was refused.
    pub reason: String,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        let Self { delivered, away, queued, gone, slow, refused, unconfirmed, reason } = other;
        for (sum, more) in [
            (&mut self.delivered, delivered),
            (&mut self.away, away),
            (&mut self.queued, queued),
            (&mut self.gone, gone),
            (&mut self.slow, slow),
            (&mut self.refused, refused),
            (&mut self.unconfirmed, unconfirmed),
        ] {
            *sum = sum.saturating_add(more);
        }
        if self.reason.is_empty() {
            self.reason = reason;
        }
    }
}
