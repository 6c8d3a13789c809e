//! The plugin's configuration: one strict JSON document, parsed once into valid types.
//!
//! ```text
//!   JSON -> read (paths, unknown keys) -> document::Document -> compile (meaning) -> Config
//! ```
//!
//! Nothing is silently ignored, and every error says where it is, what is wrong and what would be
//! right. `README.md` beside this file lists every key.

#[macro_use]
mod macros;

mod claims;
pub mod command;
pub mod commands;
mod document;
pub mod drain;
pub mod egress;
mod faults;
pub mod identity;
pub mod limits;
pub mod metadata;
pub mod observe;
pub mod push;
mod read;
pub mod relay;
#[cfg(feature = "schema")]
pub mod schema;
mod seen;
pub mod server;
pub mod session;
pub mod signals;
pub mod statuses;
mod table;
mod terms;
pub mod units;
pub mod upstream;

pub use self::command::CommandShape;
pub use self::document::Document;
pub use self::drain::DrainConfig;
pub use self::identity::{ClaimHeader, IdentityConfig, Traceparent};
pub use self::limits::Limits;
pub use self::observe::{LogConfig, MetricsConfig};
pub use self::push::{PushConfig, WhenUnread};
pub use self::relay::{IdentityField, RelayConfig};
pub use self::server::{Direction, FixedFrame, ServerConfig};
pub use self::session::{LoginConfig, LoginMode, SessionConfig};
pub use self::signals::HeartbeatConfig;
pub use self::statuses::StatusTable;
pub use self::upstream::{CompanionConfig, Connect, UpstreamConfig};

use self::faults::Faults;
use crate::error::ConfigError;
use crate::protocol::layout::Layout;
pub use crate::protocol::layout::OwnedCommand;
use crate::route::Routes;

/// A valid configuration. Connections share the one that they began under.
#[derive(Debug)]
pub struct Config {
    pub layout: Layout,
    /// What numbers in the command field mean.
    pub command_shape: CommandShape,
    pub session: SessionConfig,
    pub heartbeat: Option<HeartbeatConfig>,
    /// The command that gives up a call.
    pub cancel: Option<OwnedCommand>,
    /// What services may push through the companion.
    pub push: Option<PushConfig>,
    /// Clients can be asked to leave and come back.
    pub drain: Option<DrainConfig>,
    /// There is one if clients log in.
    pub companion: Option<CompanionConfig>,
    pub upstream: UpstreamConfig,
    pub direction: Direction,
    /// With the directions `egress` and `relay`.
    pub server: Option<ServerConfig>,
    /// With the direction `relay`.
    pub relay: Option<RelayConfig>,
    pub routes: Routes,
    pub limits: Limits,
    pub identity: IdentityConfig,
    pub statuses: StatusTable,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
}

/// More errors than this are not told: the first ones explain the rest.
const ERRORS_MAX: usize = 50;

impl Config {
    /// The layout of the private server, where there is one.
    pub fn server_layout(&self) -> &Layout {
        self.relay.as_ref().and_then(|relay| relay.layout.as_ref()).unwrap_or(&self.layout)
    }

    /// The configuration in `json`, or the first thing that is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Self::check(json).map_err(|errors| {
            let refused = || ConfigError::new("", "the document is refused");
            errors.into_iter().next().unwrap_or_else(refused)
        })
    }

    /// The configuration in `json`, or everything that is wrong with it, as far as one error
    /// does not hide another; at least one and at most 50.
    pub fn check(json: &[u8]) -> Result<Self, Vec<ConfigError>> {
        let mut faults = Faults::default();
        let config = read::document::<Document>(json, &mut faults)
            .and_then(|document| document.compile(&mut faults));
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => {
                let mut errors = faults.into_errors();
                errors.truncate(ERRORS_MAX);
                Err(errors)
            }
        }
    }
}

#[cfg(test)]
mod tests;
