//! One connection the other way: gRPC on the caller's side, private frames on the server's.
//!
//! ```text
//!             caller                      asking
//!   caller -> HTTP/2 leg -> method table -> initiator -> private server
//!   caller <- HTTP/2 leg <------- replies <- initiator <- private server
//! ```
//!
//! The server's side is the [`Initiator`]'s. The caller's side is shared by any number of callers: Envoy's own HTTP/2 pool, or one gRPC
//! client. Their calls share the one connection to the server, told apart by sequences of our own,
//! or by their order where frames have no sequence.
//!
//! Bytes to the caller leave only while something arrives from the server, as in the other
//! direction; the doorbell is the server's own heartbeat.
//!
//! Sans-I/O, with the same inputs and outputs as [`Bridge`](crate::bridge::Bridge).

mod asking;
mod caller;
mod calls;
mod closing;
mod output;
mod replies;
mod streams;

use std::rc::Rc;

use crate::bridge::{Closing, Ending, HalfClose, Tally, Terms};
use crate::config::Direction;
use crate::initiator::{self, Initiator, Overdue};
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::server::ServerLeg;
use crate::time::Moment;
use crate::worker::Worker;

use asking::Waiting;
use calls::Calls;

pub struct Egress {
    terms: Rc<Terms>,
    /// The caller's address and port.
    peer: String,
    leg: ServerLeg,
    calls: Calls,
    /// The private server's side.
    server: Initiator,
    /// Requests that are complete and wait for the login's reply, or for room.
    waiting: Waiting,
    half_closed: HalfClose,
    closing: Option<Closing>,
    call_deadline: Option<Moment>,
    tally: Tally,
}

impl Egress {
    /// `None` if the configuration is for the other direction.
    pub fn new(terms: &Rc<Terms>, now: Moment, peer: &str, worker: &mut Worker) -> Option<Self> {
        if terms.config.direction != Direction::Egress {
            return None;
        }
        let server = Initiator::new(terms, now, terms.config.limits.max_in_flight.into())?;
        worker.metrics.add(Metric::Connections, 1);
        worker.metrics.add(Metric::ConnectionsOpened, 1);
        Some(Self {
            peer: peer.to_owned(),
            leg: ServerLeg::new(&terms.callers),
            calls: Calls::default(),
            server,
            waiting: Waiting::default(),
            half_closed: HalfClose::No,
            closing: None,
            call_deadline: None,
            tally: Tally::new(now),
            terms: Rc::clone(terms),
        })
    }
}

/// # Getters
impl Egress {
    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Moment> {
        // One that is closing has nothing more to ask of the server.
        let server = self.server.poll_timeout();
        [self.call_deadline, server, self.closing.as_ref().and_then(Closing::deadline)]
            .into_iter()
            .flatten()
            .min()
    }

    /// True once it is time to close the connection.
    pub fn poll_close(&self, now: Moment) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.is_due(now))
    }
}

/// # Handle
impl Egress {
    /// The caller's bytes: all that Envoy's buffer holds. All of them are taken.
    pub fn handle_downstream(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        if !data.is_empty() {
            self.server.reached();
        }
        if end && self.half_closed == HalfClose::No {
            self.half_closed = HalfClose::Waiting;
            self.end_streams(now, worker);
        }
        if self.closing.is_none() {
            self.server.log_in(now, !self.waiting.is_empty());
            self.read_caller(now, data, worker);
            // Calls that wait may need a server for the first time, or another one.
            self.server.log_in(now, !self.waiting.is_empty());
            self.ask_waiting(now, worker);
        }
        if self.is_flooded() && self.closing.is_none() {
            worker.metrics.count(Labelled::LimitsHit, "unsaid_bytes");
            self.drop_calls(now, worker);
            self.close_silently("unsaid_bytes");
        }
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    /// Bytes from the server.
    pub fn handle_upstream(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        self.read_upstream(now, data, worker);
        if end {
            self.server.closed();
            if self.half_closed == HalfClose::Passed {
                // It closes because the caller did.
                self.tally.end("client_closed");
            }
            let text = "the server closed the connection";
            self.leave(now, "server_closed", text, worker);
        }
        self.ask_waiting(now, worker);
        // No bell: what waits for the caller leaves with this very callback.
        self.wrap_up(worker);
    }

    /// A moment that `poll_timeout` named has come, or another has.
    pub fn handle_timeout(&mut self, now: Moment, worker: &mut Worker) {
        if self.call_deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_overdue(now, worker);
        }
        if matches!(self.closing, Some(Closing::Now)) {
            return;
        }
        match self.server.overdue(now, worker) {
            Some(Overdue::Bell(reason)) => {
                self.drop_calls(now, worker);
                self.close_silently(reason);
            }
            Some(Overdue::Server(reason, text)) => self.leave(now, reason, text, worker),
            None => {}
        }
        if self.closing.is_none() {
            self.server.beat_when_due(now, self.calls.last_deadline(), worker);
        }
        self.ask_waiting(now, worker);
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    /// One side of the connection closed.
    pub fn handle_ending(&mut self, ending: Ending) {
        match ending {
            Ending::Downstream { by_client } => {
                self.tally.end(if by_client { "client_closed" } else { "closed" });
            }
            Ending::Upstream => self.server.closed(),
        }
    }

    /// The connection is gone. Returns the line for the log.
    pub fn handle_closed(&mut self, now: Moment, worker: &mut Worker) -> Option<String> {
        worker.metrics.add(Metric::Connections, -1);
        worker.metrics.count(Labelled::ConnectionsClosed, self.tally.reason());
        self.drop_calls(now, worker);
        self.terms.config.log.connections.then(|| self.tally.line(now, &self.peer))
    }
}

impl Egress {
    /// Rings when something waits for the caller that cannot leave by itself.
    fn ring(&mut self, now: Moment, worker: &mut Worker) {
        if !self.leg.output().is_empty() {
            self.server.ring(now, self.calls.last_deadline(), worker);
        }
    }

    /// Counts what went to the server and came from it.
    fn count(&mut self, worker: &mut Worker) {
        let counts = self.server.take_counts();
        self.tally.frames_in = self.tally.frames_in.saturating_add(counts.frames_in);
        self.tally.bytes_in = self.tally.bytes_in.saturating_add(counts.bytes_in);
        initiator::count(counts, worker);
    }
}

#[cfg(test)]
mod tests;
