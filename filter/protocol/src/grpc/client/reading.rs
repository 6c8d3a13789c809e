//! Bytes to frames.
//!
//! A frame that lies whole in the input is read there. Otherwise it is gathered in `partial`, at
//! most one frame. DATA, and what is to be skipped, is never gathered: it is taken as it comes.

use std::ops::Range;

use super::{ClientLeg, Ended, State, StreamId};
use crate::grpc::frame::{DEFAULT_MAX_FRAME_SIZE, HEAD_LENGTH, Head, Kind, flag};
use crate::grpc::reason::{ErrorCode, LegError};

/// What one step of reading came to.
pub(super) enum Step<'i> {
    /// Nothing to tell; there may be more input.
    Again,
    /// All input is read.
    Starved,
    Message {
        token: u32,
        stream: StreamId,
        place: Place<'i>,
    },
    End {
        ended: Ended,
        trailers: Place<'i>,
    },
    BellAnswered,
    GoingAway,
}

/// Where the bytes of an event are.
pub(super) enum Place<'i> {
    Nowhere,
    Input(&'i [u8]),
    /// In the payload of the frame that is being handled; turned into one of the others by
    /// whoever knows where that is.
    Payload(Range<usize>),
    /// In `ClientLeg::kept`.
    Kept(Range<usize>),
}

impl ClientLeg {
    /// Tells one thing that is still to be told, or reads one frame, or a piece of a DATA frame.
    pub(super) fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, LegError> {
        if self.going_away_untold {
            self.going_away_untold = false;
            return Ok(Step::GoingAway);
        }
        if let Some(ended) = self.ended.pop_front() {
            return Ok(Step::End { ended, trailers: Place::Nowhere });
        }
        if self.state == State::Closed {
            *input = &[];
            return Ok(Step::Starved);
        }
        if let Some(data) = self.data.take() {
            return self.read_data(data, input);
        }
        if !self.partial.is_empty() {
            return self.read_gathered(input);
        }
        let Some((head, rest)) = input.split_first_chunk::<HEAD_LENGTH>() else {
            return Ok(self.gather(input));
        };
        let head = Head::parse(head);
        self.admit(&head)?;
        if is_streamed(head.kind) {
            *input = rest;
            return self.begin_data(&head, input);
        }
        let Some((payload, rest)) = rest.split_at_checked(head.length as usize) else {
            return Ok(self.gather(input));
        };
        *input = rest;
        Ok(match self.frame(&head, payload)? {
            Step::End { ended, trailers: Place::Payload(range) } => {
                let trailers = Place::Input(payload.get(range).unwrap_or_default());
                Step::End { ended, trailers }
            }
            step => step,
        })
    }

    /// Keeps the beginning of a frame. It is shorter than a head, or its head was admitted.
    fn gather<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        self.partial.extend_from_slice(input);
        *input = &[];
        Step::Starved
    }

    /// Goes on with a frame whose beginning is kept.
    fn read_gathered<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, LegError> {
        let had_head = self.partial.len() >= HEAD_LENGTH;
        if !self.gather_up_to(HEAD_LENGTH, input) {
            return Ok(Step::Starved);
        }
        let Some(head) = self.partial.first_chunk::<HEAD_LENGTH>().map(Head::parse) else {
            return Ok(Step::Starved);
        };
        if !had_head {
            self.admit(&head)?;
        }
        if is_streamed(head.kind) {
            self.partial.clear();
            return self.begin_data(&head, input);
        }
        if !self.gather_up_to(HEAD_LENGTH.saturating_add(head.length as usize), input) {
            return Ok(Step::Starved);
        }
        let mut gathered = std::mem::take(&mut self.partial);
        let step = self.frame(&head, gathered.get(HEAD_LENGTH..).unwrap_or_default())?;
        Ok(match step {
            Step::End { ended, trailers: Place::Payload(range) } => {
                self.partial = self.keep(gathered);
                let start = range.start.saturating_add(HEAD_LENGTH);
                let end = range.end.saturating_add(HEAD_LENGTH);
                Step::End { ended, trailers: Place::Kept(start..end) }
            }
            step => {
                gathered.clear();
                self.partial = gathered;
                step
            }
        })
    }

    /// Whether `partial` has `length` bytes, after taking what is missing from the input.
    fn gather_up_to(&mut self, length: usize, input: &mut &[u8]) -> bool {
        let missing = length.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
        taken.len() == missing
    }

    /// Refuses a frame by its head alone, before any of its payload is kept.
    fn admit(&self, head: &Head) -> Result<(), LegError> {
        if head.length > DEFAULT_MAX_FRAME_SIZE {
            return Err(self.oversized(head));
        }
        if !self.greeted && (head.kind != Kind::Settings || head.has(flag::ACK)) {
            return Err(LegError::protocol("upstream did not begin with SETTINGS"));
        }
        if let Some(open) = &self.open_block
            && (head.kind != Kind::Continuation || head.stream != open.stream)
        {
            return Err(LegError::protocol("frame in the middle of a header block"));
        }
        match head.kind {
            Kind::Data | Kind::Headers if head.stream != 0 => Ok(()),
            Kind::Data | Kind::Headers | Kind::Priority | Kind::ResetStream if head.stream == 0 => {
                Err(LegError::protocol("frame of a stream on stream 0"))
            }
            Kind::Settings | Kind::Ping | Kind::GoAway if head.stream != 0 => {
                Err(LegError::protocol("frame of the connection on a stream"))
            }
            Kind::Continuation if self.open_block.is_none() => {
                Err(LegError::protocol("CONTINUATION without a header block"))
            }
            Kind::PushPromise => Err(LegError::protocol("PUSH_PROMISE though push is disabled")),
            _ if !head.has_right_length() => {
                Err(LegError::new(ErrorCode::FrameSizeError, "frame of a wrong length"))
            }
            _ => Ok(()),
        }
    }

    fn oversized(&self, head: &Head) -> LegError {
        let bytes = head.bytes();
        if !self.greeted && bytes.starts_with(b"HTTP/") {
            return LegError::protocol("upstream speaks HTTP/1, not HTTP/2");
        }
        if !self.greeted && bytes.starts_with(&[0x15, 0x03]) {
            return LegError::protocol("upstream speaks TLS, not HTTP/2 in clear text");
        }
        LegError::new(ErrorCode::FrameSizeError, "frame larger than SETTINGS_MAX_FRAME_SIZE")
    }
}

/// Whether the payload is taken as it comes: DATA, and what nobody looks at.
const fn is_streamed(kind: Kind) -> bool {
    matches!(kind, Kind::Data | Kind::Priority | Kind::Unknown(_))
}
