//! From a request frame to a call of the service.

use crate::call::{Code, Kind, Status};
use crate::config::Traceparent;
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::client::{ClientLeg, SendError, StartError, StreamId};
use crate::protocol::grpc::hpack::encoder::encode_literal;
use crate::protocol::grpc::request::identity_part;
use crate::protocol::layout::{Frame, FrameError};
use crate::relay::Passing;
use crate::route::{Codec, Meaning, Route};
use crate::session::Pass;
use crate::time::Moment;
use crate::trace;
use crate::transcode::wrapped;
use crate::worker::{Scratch, Worker};

use super::calls::{Call, Request};
use super::leg::{Carried, Leg};
use super::{Bridge, HalfClose, Terms, Upstream};

/// A request that will not be forwarded: what the client is told, and the word for metrics.
pub(super) type Refused = (Status, &'static str);

impl Bridge {
    /// A request in plain text.
    pub(super) fn request(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) {
        if let Err((status, kind)) = self.try_request(now, terms, frame, worker) {
            if let Some(Meaning::Part(_)) = terms.config.routes.find(frame.command) {
                self.break_off(now, frame.sequence, status, kind, worker);
            } else if is_answered(terms, frame) {
                let seed = terms.config.layout.seed(frame);
                self.refuse(now, &seed, &status, kind, worker);
            } else {
                self.refuse_quietly(now, status.code, kind, worker);
            }
        }
    }

    fn try_request(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) -> Result<(), Refused> {
        let config = &terms.config;
        if frame.flags.reply() || frame.flags.push() {
            return refused(
                Code::InvalidArgument,
                "a client sends requests, not replies or pushes",
                "not_a_request",
            );
        }
        if terms.is_login(frame.command) {
            return refused(Code::FailedPrecondition, "already logged in", "repeated_login");
        }
        if let Some(rate) = terms.frame_rate
            && !self.frames.take(rate, now)
        {
            worker.metrics.count(Labelled::LimitsHit, "frames_per_second");
            return refused(Code::ResourceExhausted, "too many frames a second", "too_fast");
        }
        if config.cancel.as_ref().is_some_and(|cancel| cancel.borrow() == frame.command) {
            self.cancel(now, frame.sequence, worker);
            return Ok(());
        }
        if terms.is_heartbeat(frame.command) {
            let answered = !frame.flags.one_way() || config.layout.answers_one_way();
            return self.heartbeat(terms, frame, answered, worker);
        }
        let route = match config.routes.find(frame.command) {
            Some(Meaning::Call(route)) => route,
            Some(Meaning::Part(part)) => return self.part(now, terms, frame, part, worker),
            None if self.is_logout(terms, frame.command) => {
                let answered = is_answered(terms, frame);
                self.log_out(now, terms, frame, answered, worker);
                return Ok(());
            }
            None => {
                let text = format!("unknown command {}", frame.command);
                return Err((Status::new(Code::Unimplemented, text), "unknown_command"));
            }
        };
        if self.leg.is_draining() || self.upstream == Upstream::Gone {
            return refused(
                Code::Unavailable,
                "the service is going away, connect again",
                "upstream_going_away",
            );
        }
        if self.half_closed != HalfClose::No {
            // It could not go upstream without the end behind it, which servers take for a
            // reason to give it up.
            return refused(
                Code::Unavailable,
                "the connection was closed together with the request",
                "half_closed",
            );
        }
        if self.calls.len() >= usize::from(config.limits.max_in_flight) {
            worker.metrics.count(Labelled::LimitsHit, "max_in_flight");
            return refused(
                Code::ResourceExhausted,
                "too many calls in flight",
                "too_many_in_flight",
            );
        }
        let one_way = route.kind == Kind::OneWay || frame.flags.one_way();
        if route.kind.is_stream() {
            if one_way {
                let text = "a stream cannot be one-way";
                return refused(Code::InvalidArgument, text, "one_way_stream");
            }
            if self.calls.streams() >= usize::from(config.limits.max_streams) {
                worker.metrics.count(Labelled::LimitsHit, "max_streams");
                return refused(Code::ResourceExhausted, "too many streams", "too_many_streams");
            }
        }
        let answered = !one_way || config.layout.answers_one_way();
        if answered && self.order.is_none() && self.calls.has_sequence(frame.sequence) {
            return refused(
                Code::AlreadyExists,
                "a call with this sequence is in flight",
                "duplicate_sequence",
            );
        }
        if route.command_metadata.is_some() && !frame.command.can_be_metadata() {
            return refused(
                Code::InvalidArgument,
                "the command cannot be handed on: it is not printable",
                "command_not_printable",
            );
        }
        let pass =
            self.session.pass(&route.access).map_err(|denied| (denied.status(), "denied"))?;

        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let body = match open_body(terms, route, frame, &mut plain) {
            Ok(body) => body,
            Err(refused) => {
                worker.scratch.plain = plain;
                return Err(refused);
            }
        };
        let token = self.calls.next_token();
        let started = match &mut self.leg {
            Leg::Grpc(leg) => forward(pass, leg, token, terms, route, frame, body, worker),
            Leg::Private(relay) => {
                let passing = Passing { terms, route, frame, plain: body, peer: &self.peer };
                relay.ask(pass, token, passing).map(Carried::Private)
            }
        };
        worker.scratch.plain = plain;
        let stream = started?;

        self.tally.calls = self.tally.calls.saturating_add(1);
        worker.metrics.add(Metric::CallsInFlight, 1);
        let sequence = match &mut self.order {
            Some(order) if answered => order.take(),
            _ => frame.sequence,
        };
        let terms_of_stream = route.stream.as_deref();
        let request = match terms_of_stream {
            Some(stream) if route.kind.stays_open() => Request::Open { pauses: stream.pauses },
            _ => Request::Single,
        };
        let call = Call {
            sequence,
            route: route.index,
            stream,
            started: now,
            deadline: route.deadline.map(|within| now.after(within)),
            pushes: route.kind.pushes(),
            request,
            idle: terms_of_stream.and_then(|stream| stream.idle),
            touched: now,
            seed: answered.then(|| config.layout.seed(frame)),
            message: None,
        };
        self.call_deadline = [self.call_deadline, call.due()].into_iter().flatten().min();
        let token = self.calls.insert(call);
        self.open_upstream(config.upstream.cluster.as_deref());
        if stream == Carried::Private(None) {
            self.sent_one_way(now, token, worker);
        }
        Ok(())
    }
}

/// Whether somebody waits for the outcome of a request. What is no command of the table is one-way
/// if its frame says so.
fn is_answered(terms: &Terms, frame: &Frame<'_>) -> bool {
    let config = &terms.config;
    let is_one_way = || {
        let route = config.routes.lookup(frame.command);
        frame.flags.one_way() || route.is_some_and(|route| route.kind == Kind::OneWay)
    };
    config.layout.answers_one_way() || !is_one_way()
}

/// The one place where a client's bytes go to a service; it takes a [`Pass`] to get here.
#[allow(clippy::too_many_arguments)]
fn forward(
    pass: Pass<'_>,
    leg: &mut ClientLeg,
    token: u32,
    terms: &Terms,
    route: &Route,
    frame: &Frame<'_>,
    body: &[u8],
    worker: &mut Worker,
) -> Result<Carried, Refused> {
    let config = &terms.config;
    let Scratch { headers, .. } = &mut worker.scratch;
    headers.clear();
    let mut value = Vec::new();
    if let Some(name) = &route.command_metadata
        && config.command_shape.write_ascii(frame.command, &mut value)
    {
        encode_literal(name.as_bytes(), &value, headers);
    }
    let mut traced = false;
    for (name, field) in config.layout.metadata(frame) {
        value.clear();
        if !field.write_ascii(&mut value) {
            continue;
        }
        if let Traceparent::Field(wanted) = &config.identity.traceparent
            && **wanted == *name
        {
            traced = trace::is_traceparent(&value);
            if traced {
                encode_literal(b"traceparent", &value, headers);
            }
            continue;
        }
        encode_literal(name.as_bytes(), &value, headers);
    }
    if !traced && config.identity.traceparent != Traceparent::Off {
        encode_literal(b"traceparent", &trace::new_traceparent(&mut worker.random), headers);
    }
    let identity = pass.identity();
    let [path, common, fixed] = route.head.parts();
    let client = identity_part(identity.is_anonymous(), identity.metadata());
    let parts = [path, common, fixed, client];
    let not_started = |error: StartError| {
        let code = match error {
            StartError::Full => Code::ResourceExhausted,
            StartError::GoingAway => Code::Unavailable,
            StartError::TooLarge => Code::ResourceExhausted,
        };
        (Status::new(code, error.to_string()), "not_started")
    };
    if route.kind.stays_open() {
        let stream = leg.open(token, &parts, headers).map_err(not_started)?;
        // Who has an empty message for the service sends it by itself.
        if !body.is_empty() && send(leg, stream, route, body).is_err() {
            leg.cancel(stream);
            return Err(not_started(StartError::Full));
        }
        return Ok(Carried::Grpc(stream));
    }
    let started = match route.codec {
        Codec::Protobuf => leg.start(token, &parts, headers, &[body]),
        Codec::Bytes => {
            let mut prefix = Vec::with_capacity(11);
            wrapped::prefix(body.len(), &mut prefix);
            leg.start(token, &parts, headers, &[&prefix, body])
        }
    };
    started.map(Carried::Grpc).map_err(not_started)
}

/// One more message of a client's stream, by the [`Pass`] that its session has now.
pub(super) fn forward_message(
    _: Pass<'_>,
    leg: &mut ClientLeg,
    stream: StreamId,
    route: &Route,
    body: &[u8],
) -> Result<(), SendError> {
    send(leg, stream, route, body)
}

fn send(
    leg: &mut ClientLeg,
    stream: StreamId,
    route: &Route,
    body: &[u8],
) -> Result<(), SendError> {
    match route.codec {
        Codec::Protobuf => leg.send(stream, &[body]),
        Codec::Bytes => {
            let mut prefix = Vec::with_capacity(11);
            wrapped::prefix(body.len(), &mut prefix);
            leg.send(stream, &[&prefix, body])
        }
    }
}

/// The message in a frame, decompressed.
pub(super) fn open_body<'a>(
    terms: &Terms,
    route: &Route,
    frame: &Frame<'a>,
    plain: &'a mut Vec<u8>,
) -> Result<&'a [u8], Refused> {
    let opened = terms.config.layout.open_body(frame.flags, frame.body, route.max_request, plain);
    opened.map_err(|error| {
        let code = match error {
            FrameError::BodyTooLarge { .. } => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        (Status::new(code, error.to_string()), error.reason())
    })
}

pub(super) fn refused<T>(code: Code, text: &'static str, kind: &'static str) -> Result<T, Refused> {
    Err((Status::new(code, text), kind))
}
