//! DATA, and the one gRPC message in it.
//!
//! ```text
//! offset 0  compressed  u8, must be 0: we offer no encoding
//!        1  length      u32, big-endian
//!        5  message
//! ```
//!
//! A message that lies whole in the input, in a frame that ends its stream, is handed out as it
//! lies there; others are gathered in their stream.

use super::reading::{Place, Step};
use super::streams::Phase;
use super::{ServerLeg, StreamKey};
use crate::call::Code;
use crate::grpc::frame::{self, Head, Kind, flag};
use crate::grpc::reason::{ErrorCode, LegError};

/// The length of a message's prefix, in bytes.
pub(super) const PREFIX: usize = 5;

/// A body that nobody wants is read up to here before it is answered, so that whoever sent it
/// hears the answer; in bytes.
const MAX_FOREIGN: u64 = 64 << 10;

/// A frame whose payload is being read as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// `None`: the payload is dropped.
    stream: Option<StreamKey>,
    /// The first byte of the payload, the length of the padding, is still to come.
    is_padding_next: bool,
    /// Bytes of payload still to come, padding not counted once its length is known.
    left: usize,
    /// Bytes of padding still to come.
    padding: usize,
    end_stream: bool,
}

/// Why a request is refused by its message.
struct Refusal {
    code: Code,
    text: &'static str,
}

/// Said to a caller who streams.
const MORE_THAN_ONE: &str =
    "more than one message in a request: callers' streams do not reach private servers";

impl ServerLeg {
    /// Begins a DATA frame, or one whose payload is dropped, and goes on with it.
    pub(super) fn begin_data<'i>(
        &mut self,
        head: &Head,
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, LegError> {
        let mut data = Data {
            stream: None,
            is_padding_next: false,
            left: head.length as usize,
            padding: 0,
            end_stream: false,
        };
        if head.kind != Kind::Data {
            self.idle(1)?;
            return self.read_data(data, input);
        }
        data.is_padding_next = head.has(flag::PADDED);
        data.end_stream = head.has(flag::END_STREAM);
        self.receive(head.length);
        let Some(key) = self.live(head.stream)? else {
            self.stray(head.stream)?;
            return self.read_data(data, input);
        };
        if head.length == 0 && !data.end_stream {
            self.idle(1)?;
        }
        let Some(stream) = self.streams.get(key) else { return self.read_data(data, input) };
        if stream.ended {
            let text = "DATA of a stream after its end";
            return Err(LegError::new(ErrorCode::StreamClosed, text));
        }
        stream.ended = data.end_stream;
        stream.received = stream.received.saturating_add(head.length);
        if stream.received > self.limits.stream_window {
            self.data = Some(data);
            return Ok(self.break_off(key, ErrorCode::FlowControlError, Code::Internal));
        }
        if !data.end_stream && stream.received >= self.limits.stream_window / 2 && head.length > 0 {
            frame::write_window_update(key.number(), stream.received, &mut self.output);
            stream.received = 0;
        }
        data.stream = Some(key);
        // The usual request: one frame, one message, and the end.
        if let Phase::Call { token, max_message } = stream.phase
            && data.end_stream
            && !data.is_padding_next
            && stream.body == 0
            && let Some((payload, rest)) = input.split_at_checked(data.left)
            && matches!(length(payload, max_message), Ok(Some(length)) if length == payload.len())
            && stream.content_length.is_none_or(|said| said == payload.len() as u64)
        {
            *input = rest;
            self.idle_frames = 0;
            let place = Place::Input(payload.get(PREFIX..).unwrap_or_default());
            return Ok(Step::Request { stream: key, token, place });
        }
        self.read_data(data, input)
    }

    /// Goes on with a frame up to its end, or the end of the input.
    pub(super) fn read_data<'i>(
        &mut self,
        mut data: Data,
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, LegError> {
        if data.is_padding_next {
            if data.left == 0 {
                return Err(LegError::protocol("padding longer than the frame"));
            }
            let Some((padding, rest)) = input.split_first() else {
                self.data = Some(data);
                return Ok(Step::Starved);
            };
            *input = rest;
            data.is_padding_next = false;
            data.padding = usize::from(*padding);
            data.left = data
                .left
                .checked_sub(data.padding.saturating_add(1))
                .ok_or(LegError::protocol("padding longer than the frame"))?;
        }
        if data.left > 0 {
            let (chunk, rest) = input.split_at(data.left.min(input.len()));
            if chunk.is_empty() {
                self.data = Some(data);
                return Ok(Step::Starved);
            }
            *input = rest;
            data.left = data.left.saturating_sub(chunk.len());
            let step = data.stream.map_or(Step::Again, |key| self.gather_message(key, chunk));
            self.data = Some(data);
            return Ok(step);
        }
        let skipped = data.padding.min(input.len());
        *input = input.get(skipped..).unwrap_or_default();
        data.padding = data.padding.saturating_sub(skipped);
        if data.padding > 0 {
            self.data = Some(data);
            return Ok(Step::Starved);
        }
        match data.stream {
            Some(key) if data.end_stream => Ok(self.end_of_request(key)),
            _ => Ok(Step::Again),
        }
    }

    /// Keeps a piece of a message, and refuses the request as soon as it shows to be wrong.
    fn gather_message(&mut self, key: StreamKey, chunk: &[u8]) -> Step<'static> {
        let Some(stream) = self.streams.get(key) else { return Step::Again };
        stream.body = stream.body.saturating_add(chunk.len() as u64);
        if stream.content_length.is_some_and(|said| stream.body > said) {
            return self.break_off(key, ErrorCode::ProtocolError, Code::Internal);
        }
        let Phase::Call { max_message, .. } = stream.phase else {
            if stream.body > MAX_FOREIGN && matches!(stream.phase, Phase::Foreign { .. }) {
                self.answer_foreign(key);
            }
            return Step::Again;
        };
        stream.partial.extend_from_slice(chunk);
        self.partial_messages = self.partial_messages.saturating_add(chunk.len());
        let refusal = match length(&stream.partial, max_message) {
            Err(refusal) => refusal,
            Ok(Some(length)) if stream.partial.len() > length => {
                // Whom gRPC's list of status codes names for it.
                Refusal { code: Code::Unimplemented, text: MORE_THAN_ONE }
            }
            Ok(_) if self.partial_messages > self.limits.max_partial => {
                Refusal { code: Code::ResourceExhausted, text: "too many request messages at once" }
            }
            Ok(_) => {
                self.idle_frames = 0;
                return Step::Again;
            }
        };
        self.refuse(key, &refusal)
    }

    /// END_STREAM came.
    pub(super) fn end_of_request(&mut self, key: StreamKey) -> Step<'static> {
        let Some(stream) = self.streams.get(key) else { return Step::Again };
        if stream.content_length.is_some_and(|said| stream.body != said) {
            return self.break_off(key, ErrorCode::ProtocolError, Code::Internal);
        }
        stream.ended = true;
        let Phase::Call { token, max_message } = stream.phase else {
            self.answer_foreign(key);
            return Step::Again;
        };
        if !matches!(length(&stream.partial, max_message), Ok(Some(length)) if length == stream.partial.len())
        {
            let text = if stream.partial.is_empty() {
                "the request has no message"
            } else {
                "the request ended in the middle of a message"
            };
            return self.refuse(key, &Refusal { code: Code::Internal, text });
        }
        self.kept = std::mem::take(&mut stream.partial);
        self.partial_messages = self.partial_messages.saturating_sub(self.kept.len());
        self.idle_frames = 0;
        Step::Request { stream: key, token, place: Place::Kept }
    }

    /// Answers a call because of its request.
    fn refuse(&mut self, key: StreamKey, refusal: &Refusal) -> Step<'static> {
        let token = self.streams.get(key).and_then(|stream| stream.token());
        self.finish(key, refusal.code, refusal.text);
        let over = |token| Step::Over { stream: key, token, code: refusal.code };
        token.map_or(Step::Again, over)
    }

    /// Counts DATA against the connection's window, and widens it again when half is used.
    ///
    /// It cannot be overrun: half of it and a frame are less than the smallest window there is.
    fn receive(&mut self, length: u32) {
        self.received = self.received.saturating_add(length);
        if self.received >= self.limits.connection_window / 2 {
            frame::write_window_update(0, self.received, &mut self.output);
            self.received = 0;
        }
    }
}

/// The length of the message that begins here, with its prefix, if so much is known.
fn length(bytes: &[u8], max_message: usize) -> Result<Option<usize>, Refusal> {
    let Some((&[compressed, l0, l1, l2, l3], _)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let refused = |code, text| Err(Refusal { code, text });
    match compressed {
        0 if length > max_message => {
            refused(Code::ResourceExhausted, "the request is larger than the limit")
        }
        0 => Ok(Some(length.saturating_add(PREFIX))),
        1 => refused(Code::Unimplemented, "compressed messages are not understood"),
        _ => refused(Code::Internal, "the request's message has a wrong prefix"),
    }
}
