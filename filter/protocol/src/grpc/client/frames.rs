//! What each kind of frame does. Heads have been admitted: lengths and stream 0 are right.

use super::answer::{SHORTER, Text, Verdict};
use super::reading::{Place, Step};
use super::{ClientLeg, Ended, GoAway, Phase, State, StreamId, status};
use crate::call::Code;
use crate::grpc::frame::{self, Head, Kind, flag};
use crate::grpc::hpack::HpackError;
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::settings::{self, MAX_WINDOW, Setting};

/// How many idle frames SETTINGS and GOAWAY count for: they may touch every call.
const HEAVY: u32 = 16;

/// A block of this many times the limit ends the connection, not only its call.
const INTOLERABLE: usize = 4;

/// Debug data of a GOAWAY that is kept, in bytes.
const MAX_DEBUG: usize = 128;

/// A header block whose CONTINUATION frames are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenBlock {
    pub stream: u32,
    end_stream: bool,
    continuations: u32,
    /// Bytes so far; beyond the limit they are counted and dropped.
    size: usize,
}

impl ClientLeg {
    /// Handles a whole frame that is neither DATA nor of an unknown kind.
    pub(super) fn frame(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        match head.kind {
            Kind::Headers => self.headers(head, payload),
            Kind::Continuation => self.continuation(head, payload),
            Kind::ResetStream => self.reset(head, payload),
            Kind::Settings if head.has(flag::ACK) => self.settings_acknowledged(),
            Kind::Settings => self.settings(payload),
            Kind::Ping => self.ping(head, payload),
            Kind::GoAway => self.goes_away(payload),
            Kind::WindowUpdate => self.window_update(head, payload),
            Kind::Data | Kind::Priority | Kind::PushPromise | Kind::Unknown(_) => Ok(Step::Again),
        }
    }

    /// Whether the stream carries a call. A stream that was never opened is an error.
    pub(super) fn is_live(&mut self, id: u32) -> Result<bool, LegError> {
        self.was_opened(id)?;
        Ok(self.streams.get(id).is_some())
    }

    fn was_opened(&self, id: u32) -> Result<(), LegError> {
        if id.is_multiple_of(2) || id > self.sending.last_opened() {
            return Err(LegError::protocol("frame of a stream that was never opened"));
        }
        Ok(())
    }

    /// HEADERS or DATA of a stream that is over: ignored, within bounds, if it was we who ended
    /// it, an error otherwise.
    pub(super) fn stray(&mut self, id: u32) -> Result<(), LegError> {
        if !self.resets.covers(id) {
            return Err(LegError::new(ErrorCode::StreamClosed, "frame of a stream that is over"));
        }
        self.idle(1)
    }

    fn headers(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        let range = frame::header_block(head, payload)
            .ok_or(LegError::protocol("padding longer than the frame"))?;
        // Asked now, so that a wrong stream is not discovered after a long block.
        self.was_opened(head.stream)?;
        let end_stream = head.has(flag::END_STREAM);
        let block = payload.get(range.clone()).unwrap_or_default();
        if head.has(flag::END_HEADERS) && block.len() <= self.limits.max_header_block {
            return self.block(head.stream, end_stream, block, Place::Payload(range));
        }
        self.block.clear();
        self.open_block =
            Some(OpenBlock { stream: head.stream, end_stream, continuations: 0, size: 0 });
        self.extend_block(head.has(flag::END_HEADERS), block)
    }

    fn continuation(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        if let Some(open) = &mut self.open_block {
            open.continuations = open.continuations.saturating_add(1);
            if open.continuations > self.limits.max_continuations {
                return Err(LegError::new(
                    ErrorCode::EnhanceYourCalm,
                    "too many CONTINUATION frames",
                ));
            }
        }
        self.extend_block(head.has(flag::END_HEADERS), payload)
    }

    /// Adds to the open block, and takes it when it is complete.
    fn extend_block(&mut self, complete: bool, piece: &[u8]) -> Result<Step<'static>, LegError> {
        let Some(open) = &mut self.open_block else { return Ok(Step::Again) };
        let max = self.limits.max_header_block;
        open.size = open.size.saturating_add(piece.len());
        if open.size > max.saturating_mul(INTOLERABLE) {
            return Err(LegError::new(ErrorCode::EnhanceYourCalm, "header block too large"));
        }
        let fits = open.size <= max;
        if fits {
            self.block.extend_from_slice(piece);
        }
        if !complete {
            return Ok(Step::Again);
        }
        let OpenBlock { stream, end_stream, .. } = *open;
        self.open_block = None;
        if !fits {
            // With a table of size 0 a block that is not decoded leaves nothing out of step.
            self.block.clear();
            return match self.streams.get(stream) {
                Some(_) => Ok(self.too_large(stream, end_stream)),
                None => self.stray(stream).map(|()| Step::Again),
            };
        }
        let block = std::mem::take(&mut self.block);
        let place = Place::Kept(0..block.len());
        let step = self.block(stream, end_stream, &block, place);
        // The event may point into it.
        self.block = self.keep(block);
        step
    }

    /// A whole header block, which lies at `place`.
    fn block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        place: Place<'static>,
    ) -> Result<Step<'static>, LegError> {
        let Some(stream) = self.streams.get(id) else {
            return self.stray(id).map(|()| Step::Again);
        };
        let is_cut = !stream.partial.is_empty();
        let is_short = end_stream && stream.announced.is_some_and(|announced| announced > 0);
        let verdict = match stream.phase {
            Phase::Queued | Phase::Waiting => self.answers.head(block, end_stream),
            Phase::Answering if is_short => Ok(Verdict::Malformed(SHORTER)),
            Phase::Answering if end_stream => self.answers.trailers(block),
            Phase::Answering => Ok(Verdict::Malformed("trailers that do not end the stream")),
        };
        match verdict.map_err(compression)? {
            Verdict::Informational => {
                self.idle(1)?;
                Ok(Step::Again)
            }
            Verdict::Answering(content_length) => {
                stream.phase = Phase::Answering;
                stream.announced = content_length;
                Ok(Step::Again)
            }
            Verdict::End(Code::Ok, _) if is_cut => {
                let text = "response ended in the middle of a message";
                Ok(self.end(id, None, Code::Internal, text))
            }
            Verdict::End(code, text) => {
                let reset = (!end_stream).then_some(ErrorCode::Cancel);
                Ok(self.end_with(id, reset, code, text, place))
            }
            Verdict::Malformed(text) => {
                Ok(self.end(id, Some(ErrorCode::ProtocolError), Code::Internal, text))
            }
            Verdict::TooLarge => Ok(self.too_large(id, end_stream)),
        }
    }

    fn too_large(&mut self, id: u32, end_stream: bool) -> Step<'static> {
        let reset = (!end_stream).then_some(ErrorCode::Cancel);
        self.end(id, reset, Code::ResourceExhausted, "response header block larger than the limit")
    }

    fn reset(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        let Some((number, _)) = frame::leading_u32(payload) else { return Ok(Step::Again) };
        if !self.is_live(head.stream)? {
            // It may answer our own, or follow the end of a response (RFC 9113 section 8.1).
            self.idle(1)?;
            return Ok(Step::Again);
        }
        self.idle_frames = 0;
        let reason = ErrorCode::from_number(number);
        // Not `finish`: theirs is the reset that counts.
        let Some(stream) = self.take(head.stream) else { return Ok(Step::Again) };
        self.sending.pump(&mut self.streams, &mut self.output);
        let ended = Ended {
            token: stream.token,
            stream: StreamId(head.stream),
            code: status::of_reset(reason),
            text: Text::Static(status::reset_message(reason)),
            processed: reason != ErrorCode::RefusedStream,
        };
        Ok(Step::End { ended, trailers: Place::Nowhere })
    }

    fn settings(&mut self, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(HEAVY)?;
        // Gathered first and applied once: thousands of entries cost no more than one.
        let mut concurrent = None;
        let mut initial_window = None;
        let mut max_frame = None;
        let mut sized = false;
        for setting in settings::parse(payload) {
            match setting? {
                Setting::MaxConcurrentStreams(streams) => concurrent = Some(streams),
                Setting::InitialWindowSize(size) => initial_window = Some(size),
                Setting::MaxFrameSize(size) => max_frame = Some(size),
                Setting::EnablePush(true) => {
                    return Err(LegError::protocol("a server cannot enable push"));
                }
                // At once, because the lowest of several counts as well.
                Setting::HeaderTableSize(size) => {
                    sized = true;
                    self.sending.set_table_size(Some(size));
                }
                // A request's header list is small, and whether it is too large is for the
                // service to say.
                Setting::MaxHeaderListSize(_) | Setting::EnablePush(false) | Setting::Unknown => {}
            }
        }
        if concurrent.is_some() || !self.greeted {
            self.sending.set_concurrent(concurrent);
        }
        if !sized && !self.greeted {
            self.sending.set_table_size(None);
        }
        if let Some(size) = max_frame {
            self.sending.set_max_frame(size);
        }
        if let Some(size) = initial_window {
            self.sending.set_initial_window(size, &mut self.streams)?;
        }
        self.greeted = true;
        frame::write_settings_ack(&mut self.output);
        self.sending.flush(&mut self.streams, &mut self.output);
        self.sending.pump(&mut self.streams, &mut self.output);
        Ok(Step::Again)
    }

    fn settings_acknowledged(&mut self) -> Result<Step<'static>, LegError> {
        if !self.settings_in_flight {
            return Err(LegError::protocol("acknowledgement of SETTINGS that were not sent"));
        }
        self.settings_in_flight = false;
        // The upstream has read all that we said before: it is not flooding us blindly.
        self.idle_frames = 0;
        Ok(if std::mem::take(&mut self.rung) { Step::BellAnswered } else { Step::Again })
    }

    fn ping(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(1)?;
        if !head.has(flag::ACK) {
            frame::write_ping_ack(payload, &mut self.output);
        }
        Ok(Step::Again)
    }

    fn goes_away(&mut self, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(HEAVY)?;
        let (last_stream, rest) = frame::leading_u32(payload).unwrap_or_default();
        let (code, debug) = frame::leading_u32(rest).unwrap_or_default();
        let debug = debug.get(..MAX_DEBUG).unwrap_or(debug);
        let last_stream = last_stream & frame::MAX_STREAM;
        let before = self.go_away.as_ref().map_or(frame::MAX_STREAM, |before| before.last_stream);
        // A graceful end comes in two: first "no more", then the last stream that counts. The
        // number can only go down.
        let last_stream = last_stream.min(before);
        let code = ErrorCode::from_number(code);
        let debug = String::from_utf8_lossy(debug).into_owned();
        self.go_away = Some(GoAway { last_stream, code, debug });
        let was_open = self.state == State::Open;
        self.state = State::GoingAway;
        self.end_above(last_stream, "upstream goes away and did not process the call", false);
        Ok(if was_open { Step::GoingAway } else { Step::Again })
    }

    fn window_update(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(1)?;
        let increment = frame::leading_u32(payload).map_or(0, |(number, _)| number) & MAX_WINDOW;
        if head.stream == 0 {
            if increment == 0 {
                return Err(LegError::protocol("WINDOW_UPDATE of the connection by 0"));
            }
            self.sending.widen(increment)?;
        } else if self.is_live(head.stream)? {
            if increment == 0 {
                let text = "upstream widened the stream's window by 0";
                let reset = Some(ErrorCode::ProtocolError);
                return Ok(self.end(head.stream, reset, Code::Internal, text));
            }
            let stream = self.streams.get(head.stream);
            if let Some(rest) = stream.and_then(|stream| stream.rest.as_mut()) {
                rest.window = rest.window.saturating_add(i64::from(increment));
                if rest.window > i64::from(MAX_WINDOW) {
                    let text = "upstream made the stream's window too large";
                    let reset = Some(ErrorCode::FlowControlError);
                    return Ok(self.end(head.stream, reset, Code::Internal, text));
                }
            }
        }
        self.sending.flush(&mut self.streams, &mut self.output);
        Ok(Step::Again)
    }
}

fn compression(error: HpackError) -> LegError {
    LegError::new(ErrorCode::CompressionError, error.reason())
}
