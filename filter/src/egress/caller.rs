//! From the caller: requests to calls.

use std::rc::Rc;
use std::time::Duration;

use crate::call::{Code, Kind};
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::server::{Event, StreamKey};
use crate::route::{Codec, Route};
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::calls::Call;
use super::streams::is_stream;
use super::{Egress, Terms};

impl Egress {
    /// Reads what the caller sent.
    pub(super) fn read_caller(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        let mut input = data;
        loop {
            match self.leg.poll(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Begin { stream, path, timeout, metadata })) => {
                    let route = find(&terms, path);
                    let kept = metadata.bytes().to_vec();
                    self.begin(now, stream, route, timeout, kept, worker);
                }
                Ok(Some(Event::Request { token, message, .. })) => {
                    let Some(call) = self.calls.get_mut(token) else { continue };
                    let Some(route) = terms.config.routes.route(call.route) else { continue };
                    let body = match route.codec {
                        Codec::Protobuf => Some(message),
                        Codec::Bytes => wrapped::unwrap(message),
                    };
                    match body {
                        // What it borrows is the leg's; asking needs the leg for refusals.
                        Some(body) => {
                            let mut copy = std::mem::take(&mut worker.scratch.body);
                            copy.clear();
                            copy.extend_from_slice(body);
                            self.request(now, token, route, &copy, worker);
                            worker.scratch.body = copy;
                        }
                        None => {
                            worker.metrics.count(Labelled::PeerErrors, "not_bytes");
                            let text = "the request is not a message with bytes in field 1";
                            self.fail(now, token, Code::InvalidArgument, text, worker);
                        }
                    }
                }
                Ok(Some(Event::Over { token, code, .. })) => {
                    let kind = if code == Code::Cancelled { "cancelled" } else { "bad_request" };
                    worker.metrics.count(Labelled::PeerErrors, kind);
                    self.give_up(now, token, code, worker);
                }
                Err(error) => {
                    worker.metrics.count(Labelled::PeerErrors, "http2");
                    log::debug!("meshgate: the caller broke HTTP/2: {error}");
                    self.drop_calls(now, worker);
                    self.tally.end("caller_protocol_error");
                    self.close_after_last_word(now);
                    break;
                }
            }
        }
    }

    /// A call's head has come.
    fn begin(
        &mut self,
        now: Moment,
        stream: StreamKey,
        route: Option<&Route>,
        timeout: Option<Duration>,
        metadata: Vec<u8>,
        worker: &mut Worker,
    ) {
        let Some(route) = route else {
            worker.metrics.count(Labelled::PeerErrors, "unknown_method");
            let text = "the private server has no command for this method";
            self.leg.finish(stream, Code::Unimplemented, text);
            return;
        };
        if self.closing.is_some() || self.server.is_gone() {
            worker.metrics.count(Labelled::UpstreamErrors, "server_going_away");
            self.leg.refuse_stream(stream);
            return;
        }
        // A caller may be in more of a hurry than the command, not in less.
        let within = [route.deadline, timeout].into_iter().flatten().min();
        let deadline = within.map(|within| now.after(within));
        self.call_deadline = [self.call_deadline, deadline].into_iter().flatten().min();
        self.tally.calls = self.tally.calls.saturating_add(1);
        worker.metrics.add(Metric::CallsInFlight, 1);
        let streams = is_stream(route.kind);
        let (route, max_request) = (route.index, route.max_request);
        let call =
            Call { stream, route, started: now, deadline, streams, metadata, sequence: None };
        let token = self.calls.insert(call);
        self.leg.accept(stream, token, max_request);
    }

    /// A call's request is complete.
    fn request(
        &mut self,
        now: Moment,
        token: u32,
        route: &Route,
        body: &[u8],
        worker: &mut Worker,
    ) {
        if route.kind == Kind::Subscribe {
            // It is heard from here on, and asks nothing.
            return;
        }
        if !self.is_ready() || !self.waiting.is_empty() {
            return self.wait(now, token, body, worker);
        }
        self.ask(now, token, route, body, worker);
    }

    /// Ends a call that the caller, or the leg, has ended already.
    pub(super) fn give_up(&mut self, now: Moment, token: u32, code: Code, worker: &mut Worker) {
        let Some(call) = self.calls.remove(token) else { return };
        self.tell_server(now, call.sequence, call.route);
        self.account(now, &call, code, worker);
    }

    /// Answers a call with a failure.
    pub(super) fn fail(
        &mut self,
        now: Moment,
        token: u32,
        code: Code,
        text: &str,
        worker: &mut Worker,
    ) {
        let Some(call) = self.calls.remove(token) else { return };
        self.leg.finish(call.stream, code, text);
        self.account(now, &call, code, worker);
    }

    /// Answers a call that the server certainly did not carry out, or that may be carried out
    /// twice: it may be tried again elsewhere.
    pub(super) fn refuse(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        let Some(call) = self.calls.remove(token) else { return };
        self.leg.refuse_stream(call.stream);
        self.account(now, &call, Code::Unavailable, worker);
    }

    pub(super) fn fail_overdue(&mut self, now: Moment, worker: &mut Worker) {
        for token in self.calls.overdue(now) {
            if let Some(call) = self.calls.get_mut(token) {
                let (sequence, route) = (call.sequence, call.route);
                self.tell_server(now, sequence, route);
            }
            let text = "the server did not answer in time";
            self.fail(now, token, Code::DeadlineExceeded, text, worker);
        }
        self.call_deadline = self.calls.next_deadline();
    }

    /// Forgets every call: nobody can hear an answer.
    pub(super) fn drop_calls(&mut self, now: Moment, worker: &mut Worker) {
        for token in self.calls.all() {
            self.give_up(now, token, Code::Cancelled, worker);
        }
        self.waiting.clear();
    }

    pub(super) fn account(&mut self, now: Moment, call: &Call, code: Code, worker: &mut Worker) {
        if self.calls.is_empty() {
            self.call_deadline = None;
        }
        if code != Code::Ok {
            self.tally.errors = self.tally.errors.saturating_add(1);
        }
        worker.metrics.add(Metric::CallsInFlight, -1);
        let Some(route) = self.terms.config.routes.route(call.route) else { return };
        let took = now.micros_since(call.started);
        worker.metrics.call_ended(route.index, &route.name, code, took);
        if self.terms.config.log.calls {
            log::info!(
                "meshgate: call command={} method={} sequence={} code={code} duration_us={} peer={}",
                route.name,
                route.method,
                call.sequence.unwrap_or_default(),
                took,
                self.peer
            );
        }
    }
}

fn find<'a>(terms: &'a Terms, path: &[u8]) -> Option<&'a Route> {
    let index = terms.config.server.as_ref()?.methods.find(path)?;
    terms.config.routes.route(index)
}

/// Whether the server replies to a call of this route.
pub(super) fn is_answered(route: &Route) -> bool {
    route.kind != Kind::OneWay
}
