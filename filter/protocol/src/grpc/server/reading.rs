//! Bytes to frames.
//!
//! A frame that lies whole in the input is read there. Otherwise it is gathered in `partial`, at
//! most one frame. DATA, and what is to be skipped, is never gathered: it is taken as it comes.

use super::{ServerLeg, StreamKey};
use crate::call::Code;
use crate::grpc::frame::{CLIENT_PREFACE, DEFAULT_MAX_FRAME_SIZE, HEAD_LENGTH, Head, Kind, flag};
use crate::grpc::reason::{ErrorCode, LegError};

/// What one step of reading came to.
pub(super) enum Step<'i> {
    /// Nothing to tell; there may be more input.
    Again,
    /// All input is read.
    Starved,
    Begin {
        stream: StreamKey,
    },
    Request {
        stream: StreamKey,
        token: u32,
        place: Place<'i>,
    },
    Over {
        stream: StreamKey,
        token: u32,
        code: Code,
    },
}

/// Where the bytes of a message are.
pub(super) enum Place<'i> {
    Input(&'i [u8]),
    /// In `ServerLeg::kept`, after the prefix.
    Kept,
}

impl ServerLeg {
    /// Reads one frame, or a piece of a DATA frame.
    pub(super) fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, LegError> {
        if self.is_closed {
            *input = &[];
            return Ok(Step::Starved);
        }
        if self.preface_left > 0 {
            return self.read_preface(input);
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
        self.frame(&head, payload)
    }

    fn read_preface<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, LegError> {
        let done = CLIENT_PREFACE.len().saturating_sub(self.preface_left.into());
        let expected = CLIENT_PREFACE.get(done..).unwrap_or_default();
        let (found, rest) = input.split_at(expected.len().min(input.len()));
        if !expected.starts_with(found) {
            return Err(LegError::protocol("caller does not speak HTTP/2 in clear text"));
        }
        *input = rest;
        self.preface_left = self.preface_left.saturating_sub(found.len() as u8);
        Ok(if self.preface_left > 0 { Step::Starved } else { Step::Again })
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
        gathered.clear();
        self.partial = gathered;
        Ok(step)
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
            let text = "frame larger than SETTINGS_MAX_FRAME_SIZE";
            return Err(LegError::new(ErrorCode::FrameSizeError, text));
        }
        if !self.greeted && (head.kind != Kind::Settings || head.has(flag::ACK)) {
            return Err(LegError::protocol("caller did not begin with SETTINGS"));
        }
        if let Some(open) = &self.open_block
            && (head.kind != Kind::Continuation || head.stream != open.stream)
        {
            return Err(LegError::protocol("frame in the middle of a header block"));
        }
        match head.kind {
            Kind::Data | Kind::Headers | Kind::Priority | Kind::ResetStream if head.stream == 0 => {
                Err(LegError::protocol("frame of a stream on stream 0"))
            }
            Kind::Settings | Kind::Ping | Kind::GoAway if head.stream != 0 => {
                Err(LegError::protocol("frame of the connection on a stream"))
            }
            Kind::Continuation if self.open_block.is_none() => {
                Err(LegError::protocol("CONTINUATION without a header block"))
            }
            Kind::PushPromise => Err(LegError::protocol("PUSH_PROMISE from a client")),
            _ if !head.has_right_length() => {
                Err(LegError::new(ErrorCode::FrameSizeError, "frame of a wrong length"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the payload is taken as it comes: DATA, and what nobody looks at.
const fn is_streamed(kind: Kind) -> bool {
    matches!(kind, Kind::Data | Kind::Unknown(_))
}
