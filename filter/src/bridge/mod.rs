//! One connection: private frames on the client's side, gRPC on the service's side.
//!
//! ```text
//!              intake                          forward
//!   client -> frames -> session -> route -> pass -> HTTP/2 leg -> service
//!   client <- frames <- sealer  <----------- reply <- HTTP/2 leg <- service
//!              ^ answer                        events
//! ```
//!
//! Sans-I/O: `handle_*` take what happened, `*_output`, `poll_*` and `take_*` say what is to be
//! done. Nothing here reads a clock or touches Envoy.

mod answer;
mod bell;
mod calls;
mod client_streams;
mod closing;
mod forward;
mod intake;
mod leaving;
mod leg;
mod order;
mod output;
mod push;
mod relayed;
mod signals;
mod streams;
mod tally;
mod terms;

use std::rc::Rc;
use std::time::Duration;

use crate::call::{Code, Status};
use crate::companion::{Answer, Outcome};
use crate::config::Connect;
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{Correlation, ReplySeed};
use crate::session::Session;
use crate::session::rate::Bucket;
use crate::time::Moment;
use crate::worker::Worker;

use bell::Bell;
pub(crate) use calls::Calls;
pub(crate) use closing::Closing;
use intake::Parked;
use leaving::Leaving;
use leg::{Carried, Leg};
use order::Order;
pub(crate) use output::HalfClose;
pub(crate) use tally::Tally;
pub use terms::Terms;

/// How a connection's end showed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's side closed, by the client or by Envoy.
    Downstream {
        by_client: bool,
    },
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// tcp_proxy waits for the filter before it picks a cluster.
    Unopened,
    Open,
    /// It closed; nothing can be sent there any more.
    Gone,
}

pub struct Bridge {
    /// Names the connection toward the link.
    id: u32,
    terms: Rc<Terms>,
    /// The client's address and port.
    peer: String,
    session: Session,
    leg: Leg,
    calls: Calls,
    /// Only where the layout has no sequence numbers.
    order: Option<Box<Order>>,
    bell: Bell,
    /// Bytes of the client that had to leave Envoy's buffer before their turn, and go back there.
    rest: Vec<u8>,
    /// What waits for the next bytes from upstream, to leave with them.
    to_client: Vec<u8>,
    /// Pushes of the companion that have not left.
    pushes: push::Waiting,
    /// The first sealed frame, until the companion has activated the session.
    parked: Option<Parked>,
    /// What the login's reply is made from.
    login: Option<ReplySeed>,
    upstream: Upstream,
    /// The cluster to choose when the upstream opens.
    cluster: Option<Box<str>>,
    /// The cluster of the server that holds the client, if there is such a one.
    place: Option<Box<str>>,
    /// The service has no room for a further call: the client's bytes wait.
    waiting: bool,
    /// The stream whose room the client's bytes wait for.
    full_stream: Option<Carried>,
    /// It is counted as one whose client is not read from.
    paused: bool,
    /// The client half-closed; passed on when its calls are through.
    half_closed: HalfClose,
    closing: Option<Closing>,
    leaving: Option<Leaving>,
    /// The client has sent something, so that the doorbell can be reached.
    heard: bool,
    heard_at: Moment,
    partial_since: Option<Moment>,
    call_deadline: Option<Moment>,
    frames: Bucket,
    refusals: Bucket,
    tally: Tally,
}

impl Bridge {
    pub fn new(id: u32, terms: Rc<Terms>, now: Moment, peer: String, worker: &mut Worker) -> Self {
        worker.metrics.add(Metric::Connections, 1);
        worker.metrics.add(Metric::ConnectionsOpened, 1);
        let session = Session::new(now, &terms.session, &peer);
        let (upstream, cluster) = match terms.config.upstream.connect {
            Connect::AtConnect => (Upstream::Open, terms.config.upstream.cluster.clone()),
            Connect::AfterLogin => (Upstream::Unopened, None),
        };
        Self {
            id,
            leg: Leg::new(&terms, now),
            peer,
            session,
            calls: Calls::default(),
            order: order(&terms),
            bell: Bell::default(),
            rest: Vec::new(),
            to_client: Vec::new(),
            pushes: push::Waiting::default(),
            parked: None,
            login: None,
            upstream,
            cluster,
            place: None,
            waiting: false,
            full_stream: None,
            paused: false,
            half_closed: HalfClose::No,
            closing: None,
            leaving: None,
            heard: false,
            heard_at: now,
            partial_since: None,
            call_deadline: None,
            frames: Bucket::default(),
            refusals: Bucket::default(),
            tally: Tally::new(now),
            terms,
        }
    }
}

/// # Getters
impl Bridge {
    /// Whether tcp_proxy is to connect before the client has said anything.
    pub fn opens_at_once(&self) -> bool {
        self.terms.config.upstream.connect == Connect::AtConnect
    }

    /// `handle_downstream` would get further now with bytes that it left.
    pub fn wants_input(&self) -> bool {
        let stopped = self.session.is_waiting() || self.parked.is_some();
        self.holds_rest() || !stopped && self.waiting && self.has_room()
    }

    /// It holds bytes that belong into Envoy's buffer: `handle_downstream` is to be called again,
    /// as soon as what goes upstream has left that buffer and before more is read into it.
    pub fn holds_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        // In case that the host cannot call sooner.
        let rest = self.holds_rest().then_some(Moment::from_micros(0));
        [
            rest,
            self.call_deadline,
            self.leg.deadline(),
            self.bell.deadline(),
            self.session.deadline(),
            self.partial_since.map(|since| since.after(partial)),
            self.closing.as_ref().and_then(Closing::deadline),
            self.leaving.as_ref().map(Leaving::deadline),
            self.silence().map(|(silence, _)| self.heard_at.after(silence)),
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
impl Bridge {
    /// The client's bytes: all that Envoy's buffer holds. Returns how many were taken; all of
    /// them if there is something to go upstream, because that goes through the same buffer.
    /// If there is nothing, `take_rest` is to stand in the place of those that were taken.
    pub fn handle_downstream(
        &mut self,
        now: Moment,
        data: &[u8],
        end: bool,
        worker: &mut Worker,
    ) -> usize {
        self.lend(worker);
        if !data.is_empty() {
            self.heard = true;
            self.heard_at = now;
        }
        if end && self.half_closed == HalfClose::No {
            self.half_closed = HalfClose::Waiting;
            self.end_streams(now, worker);
        }
        self.reach_server(now);
        let mut taken = self.take_in(now, data, worker);
        self.go_on_leaving(now, worker);
        self.ring(now, worker);
        self.wrap_up(worker);
        if !self.upstream_output().is_empty() || self.wants_resume() {
            let left = data.get(taken..).unwrap_or_default();
            taken = data.len();
            self.keep(now, left, worker);
        }
        taken
    }

    /// Bytes from the service.
    pub fn handle_upstream(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        self.lend(worker);
        self.write_pushes(worker);
        self.read_events(now, data, worker);
        if end {
            self.leg.upstream_closed();
            self.read_events(now, &[], worker);
            self.upstream = Upstream::Gone;
            if self.half_closed == HalfClose::Passed {
                // The service closes because the client did: nobody needs to hear why.
                self.tally.end("client_closed");
            } else {
                let text = "the service closed the connection";
                let status = Status::new(Code::Unavailable, text);
                self.leave_for_return(now, "upstream_closed", status, None, worker);
            }
        } else if self.leaving.is_some() {
            self.go_on_leaving(now, worker);
        } else if self.leg.is_draining() && self.calls.is_empty() {
            self.leave(
                now,
                "upstream_going_away",
                Status::new(Code::Unavailable, "the service is going away, connect again"),
                worker,
            );
        }
        // No bell: what waits for the client leaves with this very callback.
        self.wrap_up(worker);
    }

    /// The companion's word about this connection.
    pub fn handle_companion(&mut self, now: Moment, answer: Answer, worker: &mut Worker) {
        self.lend(worker);
        match answer.outcome {
            Outcome::LoginAccepted(accepted) => self.login_accepted(now, accepted, worker),
            Outcome::LoginRefused { refusal, text } => {
                self.login_refused(now, refusal, &text, worker);
            }
            Outcome::Activated => self.activated(now, worker),
            Outcome::ActivationRefused { text } => {
                worker.metrics.count(Labelled::Logins, "not_activated");
                let status = Status::new(Code::Unauthenticated, text);
                self.leave(now, "not_activated", status, worker);
            }
            Outcome::Kick { reason, code } => self.kicked(now, reason, code, worker),
        }
        self.go_on_leaving(now, worker);
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    /// A moment that `poll_timeout` named has come, or another has.
    pub fn handle_timeout(&mut self, now: Moment, worker: &mut Worker) {
        self.lend(worker);
        if self.call_deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_overdue(now, worker);
        }
        if self.bell.is_overdue(now) && !matches!(self.closing, Some(Closing::Now)) {
            worker.metrics.count(Labelled::UpstreamErrors, "bell_unanswered");
            self.session_over(worker);
            self.close_silently("bell_unanswered");
        }
        self.look_after_server(now, worker);
        if let Some(expired) = self.session.expire(now) {
            worker.metrics.count(Labelled::Logins, "timeout");
            self.leave(now, "login_timeout", expired.status(), worker);
        }
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        if self.partial_since.is_some_and(|since| since.after(partial) <= now) {
            worker.metrics.count(Labelled::PeerErrors, "partial_frame_timeout");
            self.partial_since = None;
            self.leave(
                now,
                "partial_frame_timeout",
                Status::new(Code::DeadlineExceeded, "the rest of a frame did not come in time"),
                worker,
            );
        }
        if let Some((silence, reason)) = self.silence()
            && self.heard_at.after(silence) <= now
        {
            worker.metrics.count(Labelled::LimitsHit, reason);
            let status = Status::new(Code::DeadlineExceeded, "nothing came for too long");
            self.leave(now, reason, status, worker);
        }
        self.go_on_leaving(now, worker);
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    /// One side of the connection closed.
    pub fn handle_ending(&mut self, _now: Moment, ending: Ending) {
        match ending {
            Ending::Downstream { by_client } => {
                self.tally.end(if by_client { "client_closed" } else { "closed" });
            }
            Ending::Upstream => self.upstream = Upstream::Gone,
        }
    }

    /// The connection is gone. Returns the line for the log.
    pub fn handle_closed(&mut self, now: Moment, worker: &mut Worker) -> Option<String> {
        worker.metrics.add(Metric::Connections, -1);
        if self.paused {
            worker.metrics.add(Metric::ConnectionsPaused, -1);
        }
        worker.metrics.count(Labelled::ConnectionsClosed, self.tally.reason());
        let in_flight = self.calls.all();
        for token in in_flight {
            self.drop_call(now, token, worker);
        }
        self.pushes_lost(worker);
        self.session_over(worker);
        worker.link.forget(self.id);
        self.terms.config.log.connections.then(|| self.tally.line(now, &self.peer))
    }
}

impl Bridge {
    /// How long the client may send nothing, and what it is called when it does.
    fn silence(&self) -> Option<(Duration, &'static str)> {
        let idle = self.terms.idle_timeout.filter(|_| self.calls.is_empty());
        let limits = [(idle, "idle_timeout"), (self.terms.silence, "heartbeat_timeout")];
        let set = limits.into_iter().filter_map(|(limit, name)| limit.map(|limit| (limit, name)));
        set.min().filter(|_| self.closing.is_none())
    }

    /// There is room for a further request, and for what is to be said to the client. A service
    /// that is going away has room for none, and none has to wait for that.
    fn has_room(&self) -> bool {
        (self.leg.has_room(&self.terms) || self.leg.is_draining())
            && !self.is_behind()
            && self.full_stream.is_none_or(|stream| !self.leg.is_full(stream))
    }

    fn open_upstream(&mut self, cluster: Option<&str>) {
        if self.upstream == Upstream::Unopened {
            self.upstream = Upstream::Open;
            self.cluster = cluster.map(Into::into);
        }
    }
}

fn order(terms: &Terms) -> Option<Box<Order>> {
    let limits = &terms.config.limits;
    // Room for the largest reply and for as much again of small ones.
    let bytes = limits.max_response.get().saturating_mul(2);
    let ordered = terms.config.layout.correlation() == Correlation::Order;
    ordered.then(|| Box::new(Order::new(limits.max_in_flight.into(), bytes)))
}

#[cfg(test)]
mod tests;
