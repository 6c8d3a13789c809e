//! One connection the other way: gRPC on the caller's side, private frames on the server's.
//!
//! ```text
//!             caller                         asking
//!   caller -> HTTP/2 leg -> method table ->  pending -> frames -> private server
//!   caller <- HTTP/2 leg <----------------- replies <- frames <- private server
//! ```
//!
//! The caller's side is shared by any number of callers: Envoy's own HTTP/2 pool, or one gRPC
//! client. Their calls share the one connection to the server, told apart by sequences of our own,
//! or by their order where frames have no sequence.
//!
//! Bytes to the caller leave only while something arrives from the server, as in the other
//! direction; the doorbell is the server's own heartbeat.
//!
//! Sans-I/O, with the same inputs and outputs as [`Bridge`](crate::bridge::Bridge).

mod asking;
mod bell;
mod caller;
mod calls;
mod closing;
mod output;
mod pending;
mod replies;
mod streams;
mod tunnel;

use std::rc::Rc;

use crate::bridge::{Closing, Ending, HalfClose, Tally, Terms};
use crate::config::EgressConfig;
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::server::ServerLeg;
use crate::protocol::grpc::tunnel::Tunnel;
use crate::time::Moment;
use crate::worker::Worker;

use asking::Waiting;
use bell::Login;
use calls::Calls;
use pending::Pending;

pub struct Egress {
    terms: Rc<Terms>,
    /// The caller's address and port.
    peer: String,
    leg: ServerLeg,
    calls: Calls,
    /// What was asked of the server and not replied to.
    pending: Pending,
    /// Requests that are complete and wait for the login's reply, or for room.
    waiting: Waiting,
    /// What is to go to the server.
    to_server: Vec<u8>,
    /// How it goes there, if not as it is.
    tunnel: Option<Box<Tunnel>>,
    /// The connection through the tunnel is to be given up.
    drops_server: bool,
    /// A frame of the server's that has arrived in part.
    partial: Vec<u8>,
    partial_since: Option<Moment>,
    login: Login,
    /// When the bell in flight has to be answered.
    bell: Option<Moment>,
    /// The same for a heartbeat that is not the bell, because there is a tunnel.
    pulse: Option<Moment>,
    /// The server is gone: nothing can be sent there any more.
    server_gone: bool,
    /// The caller has sent something, so that something can be sent to the server.
    heard: bool,
    /// When the server said something last.
    server_heard: Moment,
    half_closed: HalfClose,
    closing: Option<Closing>,
    call_deadline: Option<Moment>,
    tally: Tally,
}

impl Egress {
    /// `None` if the configuration is for the other direction.
    pub fn new(terms: &Rc<Terms>, now: Moment, peer: &str, worker: &mut Worker) -> Option<Self> {
        let egress = terms.config.egress.as_ref()?;
        worker.metrics.add(Metric::Connections, 1);
        worker.metrics.add(Metric::ConnectionsOpened, 1);
        Some(Self {
            peer: peer.to_owned(),
            leg: ServerLeg::new(&terms.callers),
            calls: Calls::default(),
            pending: Pending::new(&terms.config),
            waiting: Waiting::default(),
            to_server: Vec::new(),
            tunnel: egress.tunnel.as_ref().map(|authority| Box::new(Tunnel::new(authority))),
            drops_server: false,
            partial: Vec::new(),
            partial_since: None,
            login: Login::new(egress),
            bell: None,
            pulse: None,
            server_gone: false,
            heard: false,
            server_heard: now,
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
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        [
            self.call_deadline,
            self.bell,
            self.pulse,
            self.login.deadline(),
            self.next_beat(),
            self.pending.next_expiry(),
            self.partial_since.map(|since| since.after(partial)),
            self.closing.as_ref().and_then(Closing::deadline),
        ]
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
        self.heard |= !data.is_empty();
        if end && self.half_closed == HalfClose::No {
            self.half_closed = HalfClose::Waiting;
            self.end_streams(now, worker);
        }
        if self.closing.is_none() {
            self.log_in(now, worker);
            self.read_caller(now, data, worker);
            // Calls that wait may need a server for the first time, or another one.
            self.log_in(now, worker);
            self.ask_waiting(now, worker);
        }
        if self.is_flooded() && self.closing.is_none() {
            worker.metrics.count(Labelled::LimitsHit, "unsaid_bytes");
            self.drop_calls(now, worker);
            self.close_silently("unsaid_bytes");
        }
        self.ring(now, worker);
        self.wrap_up();
    }

    /// Bytes from the server.
    pub fn handle_upstream(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        self.server_heard = now;
        self.read_upstream(now, data, worker);
        if end {
            self.server_gone = true;
            if self.half_closed == HalfClose::Passed {
                // It closes because the caller did.
                self.tally.end("client_closed");
            }
            let text = "the server closed the connection";
            self.leave(now, "server_closed", text, worker);
        }
        self.ask_waiting(now, worker);
        // No bell: what waits for the caller leaves with this very callback.
        self.wrap_up();
    }

    /// A moment that `poll_timeout` named has come, or another has.
    pub fn handle_timeout(&mut self, now: Moment, worker: &mut Worker) {
        if self.call_deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_overdue(now, worker);
        }
        let overdue = [
            (self.bell.is_some_and(|by| by <= now), "bell_unanswered"),
            (self.login.is_overdue(now), "login_unanswered"),
            (self.pulse.is_some_and(|by| by <= now), "heartbeat_unanswered"),
        ];
        if matches!(self.closing, Some(Closing::Now)) {
            return;
        }
        for (_, reason) in overdue.into_iter().filter(|(overdue, _)| *overdue) {
            worker.metrics.count(Labelled::UpstreamErrors, reason);
            if self.tunnel.is_some() && reason != "bell_unanswered" {
                // The tunnel has another bell.
                self.leave(now, reason, "the server does not answer", worker);
            } else {
                self.drop_calls(now, worker);
                self.close_silently(reason);
            }
        }
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        if self.partial_since.is_some_and(|since| since.after(partial) <= now) {
            worker.metrics.count(Labelled::UpstreamErrors, "partial_frame_timeout");
            self.partial_since = None;
            let text = "the rest of the server's frame did not come in time";
            self.leave(now, "partial_frame_timeout", text, worker);
        }
        if self.pending.expire(now) && self.pending.is_ordered() {
            worker.metrics.count(Labelled::UpstreamErrors, "reply_lost");
            self.leave(now, "reply_lost", "the server lost a reply", worker);
        }
        if self.next_beat().is_some_and(|at| at <= now) {
            self.beat(now, worker);
        }
        self.ask_waiting(now, worker);
        self.ring(now, worker);
        self.wrap_up();
    }

    /// One side of the connection closed.
    pub fn handle_ending(&mut self, ending: Ending) {
        match ending {
            Ending::Downstream { by_client } => {
                self.tally.end(if by_client { "client_closed" } else { "closed" });
            }
            Ending::Upstream => self.server_gone = true,
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
    /// What only this direction has. There is one: `new` has looked.
    fn config(terms: &Terms) -> Option<&EgressConfig> {
        terms.config.egress.as_ref()
    }
}

#[cfg(test)]
mod tests;
