//! Streams of the client's messages: a frame opens one, further frames with its sequence carry
//! messages, and one ends them.
//!
//! A service that does not keep up holds back its own stream alone: what its window does not admit
//! waits in the HTTP/2 leg, bounded for each stream. Beyond that the stream ends with
//! RESOURCE_EXHAUSTED, because a message left out in its middle would be worse, and a client that is
//! not read from could not even send a heartbeat. Where the configuration says so (`when_full`), the
//! client waits instead.

use crate::call::{Code, Status};
use crate::metrics::Labelled;
use crate::protocol::grpc::client::SendError;
use crate::protocol::layout::Frame;
use crate::route::{Meaning, Part};
use crate::time::Moment;
use crate::worker::Worker;

use super::calls::Request;
use super::forward::{Refused, forward_message, open_body, refused};
use super::{Bridge, Terms};

impl Bridge {
    /// A frame of a stream that the client has opened. One without a stream may have crossed the
    /// stream's end, and is dropped. What is refused ends its stream: see [`Self::break_off`].
    pub(super) fn part(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        part: Part,
        worker: &mut Worker,
    ) -> Result<(), Refused> {
        let token = self.calls.find(frame.sequence);
        let call = token.and_then(|token| self.calls.get_mut(token));
        let Some(call) = call.filter(|call| call.request != Request::Single) else {
            worker.metrics.count(Labelled::PeerErrors, "no_such_stream");
            return Ok(());
        };
        if call.request == Request::Ended {
            let text = "the client has ended its side of the stream";
            return refused(Code::FailedPrecondition, text, "stream_ended");
        }
        let Some(route) = terms.config.routes.route(call.route) else { return Ok(()) };
        let pass =
            self.session.pass(&route.access).map_err(|denied| (denied.status(), "denied"))?;
        let Some((leg, stream)) = self.leg.stream(call.stream) else { return Ok(()) };
        call.touched = now;
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let sent = open_body(terms, route, frame, &mut plain).and_then(|body| {
            if part == Part::Close && body.is_empty() {
                return Ok(());
            }
            let sent = forward_message(pass, leg, stream, route, body);
            sent.map_err(|error| {
                let code = match error {
                    SendError::Full | SendError::TooLarge => Code::ResourceExhausted,
                    SendError::Over => Code::FailedPrecondition,
                };
                (Status::new(code, error.to_string()), "stream_full")
            })
        });
        worker.scratch.plain = plain;
        if part == Part::Close && sent.is_ok() {
            leg.half_close(stream);
            call.request = Request::Ended;
        }
        sent
    }

    /// Ends the stream that a frame belongs to, because the frame was refused: without it, what
    /// follows would mean something else.
    pub(super) fn break_off(
        &mut self,
        now: Moment,
        sequence: u64,
        status: Status,
        kind: &'static str,
        worker: &mut Worker,
    ) {
        if kind == "stream_full" {
            worker.metrics.count(Labelled::LimitsHit, "max_stream_unsent");
        }
        if self.refuse_quietly(now, status.code, kind, worker)
            && let Some(token) = self.calls.find(sequence)
            && self.calls.get_mut(token).is_some_and(|call| call.request != Request::Single)
        {
            self.fail_call(now, token, status, worker);
        }
    }

    /// Whether a frame has to wait because its stream is full, and its command says so.
    pub(super) fn finds_its_stream_full(&mut self, terms: &Terms, frame: &Frame<'_>) -> bool {
        if self.calls.streams() == 0
            || !matches!(terms.config.routes.find(frame.command), Some(Meaning::Part(_)))
        {
            return false;
        }
        let call = self.calls.find(frame.sequence).and_then(|token| self.calls.get_mut(token));
        let full = call.filter(|call| call.request == Request::Open { pauses: true });
        self.full_stream = full.map(|call| call.stream).filter(|stream| self.leg.is_full(*stream));
        self.full_stream.is_some()
    }
}
