//! What each kind of frame does. Heads have been admitted: lengths and stream 0 are right.

use super::headers::Verdict;
use super::reading::Step;
use super::streams::{Phase, Stream};
use super::{ServerLeg, StreamKey};
use crate::call::Code;
use crate::grpc::frame::{self, Head, Kind, flag};
use crate::grpc::hpack::HpackError;
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::settings::{self, MAX_WINDOW, Setting};

/// How many idle frames SETTINGS count for: they may touch every stream.
const HEAVY: u32 = 16;

/// A block of this many times the limit ends the connection.
const INTOLERABLE: usize = 4;

/// A header block whose CONTINUATION frames are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenBlock {
    pub stream: u32,
    end_stream: bool,
    continuations: u32,
}

impl ServerLeg {
    /// Handles a whole frame that is neither DATA nor of an unknown kind.
    pub(super) fn frame(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        match head.kind {
            Kind::Headers => self.begin_block(head, payload),
            Kind::Continuation => self.continue_block(head, payload),
            Kind::ResetStream => self.reset(head, payload),
            Kind::Settings if head.has(flag::ACK) => self.settings_acknowledged(),
            Kind::Settings => self.settings(payload),
            Kind::Ping => self.ping(head, payload),
            Kind::WindowUpdate => self.window_update(head, payload),
            Kind::Priority => self.priority(head, payload),
            // A caller that goes away closes the connection when its calls are through.
            Kind::GoAway => self.idle(HEAVY).map(|()| Step::Again),
            Kind::Data | Kind::PushPromise | Kind::Unknown(_) => Ok(Step::Again),
        }
    }

    /// The stream of this number, if it lives. One that was never opened is an error.
    pub(super) fn live(&self, id: u32) -> Result<Option<StreamKey>, LegError> {
        if id.is_multiple_of(2) || id > self.last_opened {
            return Err(LegError::protocol("frame of a stream that was never opened"));
        }
        Ok(self.streams.find(id))
    }

    /// HEADERS or DATA of a stream that is over: ignored, within bounds, if it was we who ended
    /// it, an error otherwise.
    pub(super) fn stray(&mut self, id: u32) -> Result<(), LegError> {
        if self.resets.covers(id) || self.going_away.is_some_and(|last| id > last) {
            return self.idle(1);
        }
        Err(if self.finished.covers(id) {
            LegError::new(ErrorCode::StreamClosed, "frame of a stream that is over")
        } else {
            LegError::protocol("stream number below one that was used")
        })
    }

    fn begin_block(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        let range = frame::header_block(head, payload)
            .ok_or(LegError::protocol("padding longer than the frame"))?;
        if head.stream.is_multiple_of(2) {
            return Err(LegError::protocol("stream number of a server's"));
        }
        let priority = range.start.checked_sub(5).and_then(|start| payload.get(start..));
        let itself = priority.filter(|_| head.has(flag::PRIORITY)).and_then(frame::leading_u32);
        let end_stream = head.has(flag::END_STREAM);
        let block = payload.get(range).unwrap_or_default();
        if itself.is_some_and(|(parent, _)| parent & frame::MAX_STREAM == head.stream) {
            return Err(LegError::protocol("stream that depends on itself"));
        }
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, end_stream, block);
        }
        self.block.clear();
        self.open_block = Some(OpenBlock { stream: head.stream, end_stream, continuations: 0 });
        self.extend_block(false, block)
    }

    fn continue_block(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        if let Some(open) = &mut self.open_block {
            open.continuations = open.continuations.saturating_add(1);
            if open.continuations > self.limits.max_continuations {
                let text = "too many CONTINUATION frames";
                return Err(LegError::new(ErrorCode::EnhanceYourCalm, text));
            }
        }
        self.extend_block(head.has(flag::END_HEADERS), payload)
    }

    /// Adds to the open block, and takes it when it is complete.
    fn extend_block(&mut self, complete: bool, piece: &[u8]) -> Result<Step<'static>, LegError> {
        let Some(open) = self.open_block else { return Ok(Step::Again) };
        let size = self.block.len().saturating_add(piece.len());
        if size > self.limits.max_header_block.saturating_mul(INTOLERABLE) {
            return Err(LegError::new(ErrorCode::EnhanceYourCalm, "header block too large"));
        }
        self.block.extend_from_slice(piece);
        if !complete {
            return Ok(Step::Again);
        }
        self.open_block = None;
        let block = std::mem::take(&mut self.block);
        let step = self.block(open.stream, open.end_stream, &block);
        self.block = block;
        self.block.clear();
        step
    }

    /// A whole header block. Whatever becomes of its stream, it is decoded: the caller's table
    /// has to stay in step.
    fn block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
    ) -> Result<Step<'static>, LegError> {
        if id > self.last_opened {
            let verdict = self.headers.request(block).map_err(compression)?;
            self.last_opened = id;
            return self.open(id, end_stream, verdict);
        }
        let verdict = self.headers.trailers(block).map_err(compression)?;
        let Some(key) = self.streams.find(id) else {
            return self.stray(id).map(|()| Step::Again);
        };
        if self.streams.get(key).is_some_and(|stream| stream.ended) {
            let text = "frame of a stream after its end";
            return Err(LegError::new(ErrorCode::StreamClosed, text));
        }
        if !end_stream || verdict == Verdict::Malformed {
            return Ok(self.break_off(key, ErrorCode::ProtocolError, Code::Internal));
        }
        Ok(self.end_of_request(key))
    }

    /// A new stream.
    fn open(
        &mut self,
        id: u32,
        end_stream: bool,
        verdict: Verdict,
    ) -> Result<Step<'static>, LegError> {
        if self.going_away.is_some() {
            // It is above the number that we said.
            self.idle(1)?;
            return Ok(Step::Again);
        }
        let most =
            if self.is_known { self.limits.max_streams } else { self.limits.max_early_streams };
        let refused = match verdict {
            Verdict::Malformed => Some(ErrorCode::ProtocolError),
            _ if self.streams.live() >= most as usize => Some(ErrorCode::RefusedStream),
            _ => None,
        };
        if let Some(code) = refused {
            // A stream that ends before it begins costs us as much as one that is given up.
            self.count_given_up()?;
            frame::write_reset(id, code, &mut self.output);
            self.resets.add(id);
            return Ok(Step::Again);
        }
        let (phase, content_length) = match verdict {
            Verdict::Foreign { is_head, content_length } => {
                (Phase::Foreign { silent: is_head }, content_length)
            }
            Verdict::Grpc { content_length } => (Phase::Ignored, content_length),
            _ => (Phase::Ignored, None),
        };
        let window = self.sending.initial_window();
        let mut stream = Stream::new(phase, content_length, window);
        stream.ended = end_stream;
        let key = self.streams.open(id, stream);
        match verdict {
            Verdict::Foreign { .. } if end_stream => Ok(self.end_of_request(key)),
            Verdict::Grpc { .. } if end_stream => {
                self.finish(key, Code::Internal, "the request has no message");
                Ok(Step::Again)
            }
            Verdict::Grpc { .. } => Ok(Step::Begin { stream: key }),
            Verdict::BadTimeout => {
                self.finish(key, Code::Internal, "the grpc-timeout cannot be understood");
                Ok(Step::Again)
            }
            Verdict::TooLarge => {
                let text = "the request's header fields are larger than the limit";
                self.finish(key, Code::ResourceExhausted, text);
                Ok(Step::Again)
            }
            Verdict::Foreign { .. } | Verdict::Malformed | Verdict::Trailers => Ok(Step::Again),
        }
    }

    fn reset(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        let Some(key) = self.live(head.stream)? else {
            // It may answer our own, or follow the end of a response (RFC 9113 section 8.1).
            self.idle(1)?;
            return Ok(Step::Again);
        };
        // Why does not matter: for us it is given up.
        let _ = payload;
        self.count_given_up()?;
        let Some(stream) = self.take(key) else { return Ok(Step::Again) };
        let over = |token| Step::Over { stream: key, token, code: Code::Cancelled };
        Ok(stream.token().map_or(Step::Again, over))
    }

    fn count_given_up(&mut self) -> Result<(), LegError> {
        self.given_up = self.given_up.saturating_add(1);
        if self.given_up > self.limits.max_given_up {
            let text = "too many streams that came to nothing";
            return Err(LegError::new(ErrorCode::EnhanceYourCalm, text));
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(HEAVY)?;
        // Gathered first and applied once: thousands of entries cost no more than one.
        let mut initial_window = None;
        let mut sized = false;
        for setting in settings::parse(payload) {
            match setting? {
                Setting::InitialWindowSize(size) => initial_window = Some(size),
                Setting::MaxFrameSize(size) => self.sending.set_max_frame(size),
                // At once, because the lowest of several counts as well.
                Setting::HeaderTableSize(size) => {
                    sized = true;
                    self.sending.set_table_size(Some(size));
                }
                // We push nothing, and our header lists are small.
                Setting::MaxConcurrentStreams(_)
                | Setting::MaxHeaderListSize(_)
                | Setting::EnablePush(_)
                | Setting::Unknown => {}
            }
        }
        if !sized && !self.greeted {
            self.sending.set_table_size(None);
        }
        self.greeted = true;
        frame::write_settings_ack(&mut self.output);
        if let Some(size) = initial_window {
            self.sending.set_initial_window(size, &mut self.streams)?;
            self.flush();
        }
        Ok(Step::Again)
    }

    fn settings_acknowledged(&mut self) -> Result<Step<'static>, LegError> {
        let Some(left) = self.unacknowledged.checked_sub(1) else {
            return Err(LegError::protocol("acknowledgement of SETTINGS that were not sent"));
        };
        self.unacknowledged = left;
        self.is_known = true;
        // The caller has read all that we said before: it is not flooding us blindly.
        self.idle_frames = 0;
        Ok(Step::Again)
    }

    fn ping(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(1)?;
        if !head.has(flag::ACK) {
            frame::write_ping_ack(payload, &mut self.output);
        }
        Ok(Step::Again)
    }

    /// Priorities mean nothing any more (RFC 9113 section 5.3.2), except that a stream could not
    /// depend on itself (RFC 7540 section 5.3.1).
    fn priority(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(1)?;
        let parent = frame::leading_u32(payload).map_or(0, |(parent, _)| parent);
        if parent & frame::MAX_STREAM == head.stream {
            return Err(LegError::protocol("stream that depends on itself"));
        }
        Ok(Step::Again)
    }

    fn window_update(&mut self, head: &Head, payload: &[u8]) -> Result<Step<'static>, LegError> {
        self.idle(1)?;
        let increment = frame::leading_u32(payload).map_or(0, |(number, _)| number) & MAX_WINDOW;
        if head.stream == 0 {
            if increment == 0 {
                return Err(LegError::protocol("WINDOW_UPDATE of the connection by 0"));
            }
            self.sending.widen(increment)?;
        } else {
            let Some(key) = self.live(head.stream)? else { return Ok(Step::Again) };
            if increment == 0 {
                return Ok(self.break_off(key, ErrorCode::ProtocolError, Code::Internal));
            }
            if let Some(stream) = self.streams.get(key) {
                stream.window = stream.window.saturating_add(i64::from(increment));
                if stream.window > i64::from(MAX_WINDOW) {
                    return Ok(self.break_off(key, ErrorCode::FlowControlError, Code::Internal));
                }
            }
        }
        self.flush();
        Ok(Step::Again)
    }
}

fn compression(error: HpackError) -> LegError {
    LegError::new(ErrorCode::CompressionError, error.reason())
}
