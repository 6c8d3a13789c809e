//! From calls to the server's frames, as many at a time as it may have.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::call::Code;
use crate::initiator::Who;
use crate::metrics::Labelled;
use crate::protocol::grpc::server::{Metadata, StreamKey};
use crate::protocol::layout::{EncodeError, FieldValue, Given, Layout, Request};
use crate::route::Route;
use crate::time::Moment;
use crate::worker::Worker;

use super::Egress;
use super::caller::is_answered;

/// Requests that cannot be sent yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: VecDeque<(u32, StreamKey, Vec<u8>)>,
    /// Bytes in their bodies.
    bytes: usize,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) -> Option<(u32, StreamKey, Vec<u8>)> {
        let first = self.requests.pop_front()?;
        self.bytes = self.bytes.saturating_sub(first.2.len());
        Some(first)
    }
}

impl Egress {
    /// Whether one more call may be asked now.
    pub(super) fn is_ready(&self) -> bool {
        self.server.is_ready()
    }

    /// Keeps a request for later, within `limits.max_unsent`.
    pub(super) fn wait(&mut self, now: Moment, token: u32, body: &[u8], worker: &mut Worker) {
        let bytes = self.waiting.bytes.saturating_add(body.len());
        if bytes > self.terms.config.limits.max_unsent.get() {
            worker.metrics.count(Labelled::LimitsHit, "max_unsent");
            return self.refuse(now, token, worker);
        }
        let Some(call) = self.calls.get_mut(token) else { return };
        self.waiting.requests.push_back((token, call.stream, body.to_vec()));
        self.waiting.bytes = bytes;
    }

    /// Sends requests that waited, as far as may be.
    pub(super) fn ask_waiting(&mut self, now: Moment, worker: &mut Worker) {
        while self.closing.is_none()
            && self.is_ready()
            && let Some((token, stream, body)) = self.waiting.pop()
        {
            // It may have been given up, and its token may be another's by now.
            let Some(call) = self.calls.get_mut(token) else { continue };
            if call.stream != stream {
                continue;
            }
            let terms = Rc::clone(&self.terms);
            let Some(route) = terms.config.routes.route(call.route) else { continue };
            self.ask(now, token, route, &body, worker);
        }
    }

    /// Sends a request to the server.
    pub(super) fn ask(
        &mut self,
        now: Moment,
        token: u32,
        route: &Route,
        body: &[u8],
        worker: &mut Worker,
    ) {
        let terms = Rc::clone(&self.terms);
        let layout = &terms.config.layout;
        let Some(call) = self.calls.get_mut(token) else { return };
        let Some(command) = &route.command else { return };
        let metadata = std::mem::take(&mut call.metadata);
        let given = match given(layout, &metadata) {
            Ok(given) => given,
            Err(error) => {
                worker.metrics.count(Labelled::PeerErrors, "bad_metadata");
                let text = format!("the call's metadata: {error}");
                return self.fail(now, token, Code::InvalidArgument, &text, worker);
            }
        };
        let fields: Vec<(&str, FieldValue<'_>)> = given.iter().map(Given::field).collect();
        let one_way = !is_answered(route);
        let replies = !one_way || layout.answers_one_way();
        let sequence =
            if replies { self.server.ask(Who::Call(token), command.borrow()) } else { 0 };
        let parts = [body];
        let request = Request {
            one_way,
            compress: route.compress_reply,
            fields: &fields,
            ..Request::new(command.borrow(), sequence, &parts)
        };
        if let Err(error) = layout.encode_request(request, None, self.server.requests()) {
            self.server.unask(sequence);
            worker.metrics.count(Labelled::PeerErrors, "request_not_encodable");
            let text = format!("the request does not fit into a frame: {error}");
            return self.fail(now, token, Code::InvalidArgument, &text, worker);
        }
        self.server.asked();
        if let Some(call) = self.calls.get_mut(token) {
            call.sequence = replies.then_some(sequence);
        }
        if one_way {
            self.succeed(now, token, &[], worker);
        }
    }

    /// Tells the server that a call is given up, if that was asked of it, and keeps its sequence
    /// for a reply that comes nevertheless.
    pub(super) fn tell_server(&mut self, now: Moment, sequence: Option<u64>, route: u16) {
        let Some(sequence) = sequence else { return };
        let answered = self.terms.config.routes.route(route).is_none_or(is_answered);
        if answered {
            self.server.give_up(now, sequence);
        } else {
            self.server.abandon(now, sequence);
        }
    }
}

/// The header fields that a call's metadata stands for.
fn given(layout: &Layout, metadata: &[u8]) -> Result<Vec<Given>, EncodeError> {
    if metadata.is_empty() {
        return Ok(Vec::new());
    }
    let metadata = Metadata::new(metadata);
    (0..layout.metadata_names().count())
        .filter(|place| layout.can_be_given(*place))
        .filter_map(|place| Some(layout.given_metadata(place, metadata.value(place)?)))
        .collect()
}
