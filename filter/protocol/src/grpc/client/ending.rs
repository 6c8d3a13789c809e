//! The end of a call, or of all.

use super::answer::Text;
use super::reading::{Place, Step};
use super::streams::{Phase, Stream};
use super::{ClientLeg, Ended, State, StreamId};
use crate::call::Code;
use crate::grpc::frame;
use crate::grpc::reason::ErrorCode;

impl ClientLeg {
    /// Takes a call out of the tables and the books.
    pub(super) fn take(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        if stream.phase != Phase::Queued {
            self.partial_messages = self.partial_messages.saturating_sub(stream.partial.len());
            self.sending.close_stream(id, stream.rest.as_deref());
        }
        Some(stream)
    }

    /// Ends our side of a call. The stream is reset with `reset`, or with CANCEL if we still had
    /// something to send. Its place goes to a queued call.
    pub(super) fn finish(&mut self, id: u32, reset: Option<ErrorCode>) -> Option<Stream> {
        let stream = self.take(id)?;
        let unfinished = stream.rest.is_some().then_some(ErrorCode::Cancel);
        if let Some(code) = reset.or(unfinished) {
            frame::write_reset(id, code, &mut self.output);
            self.resets.add(id);
        }
        self.sending.pump(&mut self.streams, &mut self.output);
        Some(stream)
    }

    /// Ends a call with a status of our own.
    pub(super) fn end(
        &mut self,
        id: u32,
        reset: Option<ErrorCode>,
        code: Code,
        text: &'static str,
    ) -> Step<'static> {
        self.end_with(id, reset, code, Text::Static(text), Place::Nowhere)
    }

    pub(super) fn end_with<'i>(
        &mut self,
        id: u32,
        reset: Option<ErrorCode>,
        code: Code,
        text: Text,
        trailers: Place<'i>,
    ) -> Step<'i> {
        let Some(stream) = self.finish(id, reset) else { return Step::Again };
        self.idle_frames = 0;
        let ended =
            Ended { token: stream.token, stream: StreamId(id), code, text, processed: true };
        Step::End { ended, trailers }
    }

    /// Ends every call and reads nothing more.
    pub(super) fn close(&mut self, reason: &'static str) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.rung = false;
        self.data = None;
        self.open_block = None;
        self.partial = Vec::new();
        self.end_above(0, reason, true);
    }

    /// Ends the calls with numbers above `last`; `seen` if the upstream may have processed those
    /// that were sent.
    pub(super) fn end_above(&mut self, last: u32, reason: &'static str, seen: bool) {
        // First, so that no place which becomes free goes to a call that is to end as well.
        self.sending.clear_queue();
        for id in self.streams.above(last.min(self.sending.last_opened())) {
            let Some(stream) = self.take(id) else { continue };
            let was_sent = stream.phase != Phase::Queued;
            if was_sent {
                self.resets.add_all(id);
            }
            self.ended.push_back(Ended {
                token: stream.token,
                stream: StreamId(id),
                code: Code::Unavailable,
                text: Text::Static(reason),
                processed: seen && was_sent,
            });
        }
    }
}
