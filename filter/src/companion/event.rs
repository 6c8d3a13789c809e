//! What about the link is worth a line in the log.

use std::fmt;
use std::time::Duration;

use super::CONTRACT;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected {
        companion: String,
    },
    /// The stream could not be opened.
    Unreachable,
    /// The stream ended with this gRPC status.
    Closed {
        status: u32,
    },
    /// The companion is about to stop.
    Draining,
    /// No welcome came.
    NoWelcome,
    /// Nothing came while answers were due.
    Silent,
    /// The companion ended the stream instead of a welcome.
    HelloRefused,
    /// The companion speaks another version of the contract.
    WrongContract {
        theirs: u32,
    },
    /// The companion sent what it must not send.
    Fault(&'static str),
    /// Follows one of the above that ended a stream. The pauses after it grow.
    RetryIn(Duration),
}

impl Event {
    pub const fn level(&self) -> log::Level {
        match self {
            Self::Connected { .. } | Self::Draining | Self::RetryIn(_) => log::Level::Info,
            Self::Unreachable | Self::Closed { .. } | Self::NoWelcome | Self::Silent => {
                log::Level::Warn
            }
            Self::WrongContract { .. } | Self::HelloRefused | Self::Fault(_) => log::Level::Error,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { companion } => write!(f, "companion {companion:?} is connected"),
            Self::Unreachable => f.write_str(
                "the companion cannot be reached; sessions go on, logins are told to try again",
            ),
            Self::Closed { status } => write!(
                f,
                "the companion's stream ended with gRPC status {status}; sessions go on, logins \
                 are told to try again"
            ),
            Self::Draining => f.write_str("the companion stops, logins wait for the next one"),
            Self::NoWelcome => f.write_str("the companion took the stream and said nothing"),
            Self::Silent => f.write_str("the companion does not answer, its stream is given up"),
            Self::HelloRefused => write!(
                f,
                "the companion refused this filter, which speaks version {CONTRACT} of \
                 meshgate.edge.v1; its log says why. Nobody can log in until that is mended"
            ),
            Self::WrongContract { theirs } => write!(
                f,
                "the companion speaks version {theirs} of meshgate.edge.v1, this filter speaks \
                 {CONTRACT}: nobody can log in until both are of one release"
            ),
            Self::Fault(fault) => write!(f, "the companion sent {fault}"),
            Self::RetryIn(pause) => write!(f, "next try in {} ms", pause.as_millis()),
        }
    }
}
