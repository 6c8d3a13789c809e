//! Frames that the filter answers or acts on itself.

use std::time::Duration;

use super::command::{CommandShape, CommandSpec};
use super::faults::Faults;
use super::units::Span;
use crate::protocol::layout::OwnedCommand;

object! {
    /// The frame by which a client shows that it is alive.
    #[derive(Clone, Debug, PartialEq)]
    pub struct HeartbeatSpec {
        /// The command of the frame. The filter answers it itself, with its own body; no service
        /// hears of it.
        pub command: CommandSpec,
        /// How long a client may send nothing at all, with calls and streams in flight or not;
        /// then the connection is closed. 1s to 24h; "0s" turns the limit off.
        #[cfg_attr(feature = "schema", schemars(default = "heartbeat_timeout"))]
        pub timeout: Span = heartbeat_timeout(),
    }
}

fn heartbeat_timeout() -> Span {
    Span::from_millis(0)
}

object! {
    /// The frame by which a client gives up a call or ends a stream.
    #[derive(Clone, Debug, PartialEq)]
    pub struct CancelSpec {
        /// The command of the frame, whose sequence is that of the call. It is not answered itself:
        /// the call is, with CANCELLED, and the service gets a reset.
        pub command: CommandSpec,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    pub command: OwnedCommand,
    /// How long a client may send nothing at all.
    pub timeout: Option<Duration>,
}

impl HeartbeatSpec {
    /// Paths in `faults` start below `heartbeat`.
    pub fn compile(&self, shape: CommandShape, faults: &mut Faults) -> Option<HeartbeatConfig> {
        let (second, day) = (Span::from_millis(1_000), Span::from_millis(86_400_000));
        if self.timeout.unless_zero().is_some()
            && let Err(problem) = self.timeout.within(second, day)
        {
            faults.add("timeout", &problem);
        }
        let command = self.command.resolve(shape);
        let command = command.map_err(|problem| faults.add("command", &problem)).ok()?;
        Some(HeartbeatConfig { command, timeout: self.timeout.unless_zero() })
    }
}

impl CancelSpec {
    /// Paths in `faults` start below `cancel`.
    pub fn compile(
        &self,
        shape: CommandShape,
        in_order: bool,
        faults: &mut Faults,
    ) -> Option<OwnedCommand> {
        if in_order {
            let problem = "the layout has no sequence to name a call by, leave this key out";
            faults.add("command", &problem);
        }
        let command = self.command.resolve(shape);
        command.map_err(|problem| faults.add("command", &problem)).ok()
    }
}
