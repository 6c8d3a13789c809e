//! DATA, and the gRPC messages in it.
//!
//! ```text
//! offset 0  compressed  u8, must be 0: we offer no encoding
//!        1  length      u32, big-endian
//!        5  message
//! ```
//!
//! Messages and frames do not align: a message may begin and end anywhere. One that lies whole in
//! the input is handed out as it lies there; others are gathered in their stream.

use super::answer::{LONGER, SHORTER};
use super::reading::{Place, Step};
use super::{ClientLeg, StreamId};
use crate::call::Code;
use crate::grpc::frame::{self, Head, Kind, flag};
use crate::grpc::reason::{ErrorCode, LegError};

/// The length of a message's prefix, in bytes.
const PREFIX: usize = 5;

/// The largest buffer that a stream keeps between messages, in bytes. What streams keep is not
/// counted by `Limits::max_partial`, so it has to be small.
const KEPT: usize = 4096;

/// A frame whose payload is being read as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// 0: the payload is dropped.
    stream: u32,
    /// The first byte of the payload, the length of the padding, is still to come.
    is_padding_next: bool,
    /// Bytes of payload still to come, padding not counted once its length is known.
    left: usize,
    /// Bytes of padding still to come.
    padding: usize,
    end_stream: bool,
}

/// What the beginning of a message says.
enum Prefix {
    /// It is not complete.
    Partial,
    /// Length of the message with its prefix.
    Length(usize),
    Refused(Refusal),
}

/// Why a call ends because of a message.
struct Refusal {
    code: Code,
    text: &'static str,
}

impl ClientLeg {
    /// Begins a DATA frame, or one whose payload is dropped, and goes on with it.
    pub(super) fn begin_data<'i>(
        &mut self,
        head: &Head,
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, LegError> {
        let mut data = Data {
            stream: 0,
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
        if !self.is_live(head.stream)? {
            self.stray(head.stream)?;
            return self.read_data(data, input);
        }
        if head.length == 0 && !data.end_stream {
            self.idle(1)?;
        }
        if let Some(refused) = self.receive_on(head.stream, head.length, data.end_stream) {
            self.data = Some(data);
            return Ok(refused);
        }
        if !data.is_padding_next
            && let Some(refused) = self.count(head.stream, data.left)
        {
            self.data = Some(data);
            return Ok(refused);
        }
        data.stream = head.stream;
        self.read_data(data, input)
    }

    /// Goes on with a frame up to the next message, its end, or the end of the input.
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
            if data.left == 0 && !data.end_stream {
                self.idle(1)?;
            }
            if let Some(refused) = self.count(data.stream, data.left) {
                self.data = Some(Data { stream: 0, ..data });
                return Ok(refused);
            }
        }
        if data.left > 0 {
            if input.is_empty() {
                self.data = Some(data);
                return Ok(Step::Starved);
            }
            let (mut chunk, _) = input.split_at(data.left.min(input.len()));
            let before = chunk.len();
            let step = self.message(data.stream, &mut chunk);
            let read = before.saturating_sub(chunk.len());
            *input = input.get(read..).unwrap_or_default();
            data.left = data.left.saturating_sub(read);
            if data.left > 0 || data.padding > 0 || data.end_stream {
                self.data = Some(data);
            }
            return Ok(step);
        }
        if data.padding > 0 {
            if input.is_empty() {
                self.data = Some(data);
                return Ok(Step::Starved);
            }
            let read = data.padding.min(input.len());
            *input = input.get(read..).unwrap_or_default();
            data.padding = data.padding.saturating_sub(read);
            if data.padding > 0 {
                self.data = Some(data);
                return Ok(Step::Starved);
            }
        }
        if data.end_stream && data.stream != 0 {
            let text = match self.streams.get(data.stream) {
                Some(stream) if stream.announced.is_some_and(|announced| announced > 0) => SHORTER,
                Some(stream) if !stream.partial.is_empty() => {
                    "response ended in the middle of a message"
                }
                _ => "response ended without trailers",
            };
            return Ok(self.end(data.stream, None, Code::Internal, text));
        }
        Ok(Step::Again)
    }

    /// Reads `chunk` up to the end of the next message, or all of it.
    fn message<'i>(&mut self, id: u32, chunk: &mut &'i [u8]) -> Step<'i> {
        let Some(stream) = self.streams.get(id) else {
            *chunk = &[];
            return Step::Again;
        };
        let token = stream.token;
        if stream.partial.is_empty()
            && let Prefix::Length(length) = prefix(chunk, self.limits.max_message)
            && let Some((whole, rest)) = chunk.split_at_checked(length)
        {
            *chunk = rest;
            self.idle_frames = 0;
            let place = Place::Input(whole.get(PREFIX..).unwrap_or_default());
            return Step::Message { token, stream: StreamId(id), place };
        }
        let window = self.limits.stream_window as usize;
        // Up to the whole prefix, then, once it says how much, up to the whole message.
        loop {
            let wanted = match prefix(&stream.partial, self.limits.max_message) {
                Prefix::Partial => PREFIX,
                Prefix::Length(length) => length,
                Prefix::Refused(Refusal { code, text }) => {
                    *chunk = &[];
                    return self.end(id, Some(ErrorCode::Cancel), code, text);
                }
            };
            let missing = wanted.saturating_sub(stream.partial.len());
            if missing == 0 {
                break;
            }
            let more = u32::try_from(wanted).unwrap_or(u32::MAX).saturating_sub(stream.extra);
            if stream.partial.len() == PREFIX && wanted > window && more > 0 {
                stream.extra = stream.extra.saturating_add(more);
                frame::write_window_update(id, more, &mut self.output);
            }
            if chunk.is_empty() {
                return Step::Again;
            }
            let (taken, rest) = chunk.split_at(missing.min(chunk.len()));
            *chunk = rest;
            self.partial_messages = self.partial_messages.saturating_add(taken.len());
            stream.partial.extend_from_slice(taken);
            if self.partial_messages > self.limits.max_partial {
                *chunk = &[];
                let text = "too many response messages at once";
                return self.end(id, Some(ErrorCode::Cancel), Code::ResourceExhausted, text);
            }
        }
        self.kept.clear();
        std::mem::swap(&mut self.kept, &mut stream.partial);
        if stream.partial.capacity() > KEPT {
            stream.partial = Vec::new();
        }
        self.partial_messages = self.partial_messages.saturating_sub(self.kept.len());
        self.idle_frames = 0;
        let place = Place::Kept(PREFIX..self.kept.len());
        Step::Message { token, stream: StreamId(id), place }
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

    /// The same for a stream, whose window may be smaller than a frame. What is wrong with the
    /// stream ends its call.
    fn receive_on(&mut self, id: u32, length: u32, end_stream: bool) -> Option<Step<'static>> {
        let stream = self.streams.get(id)?;
        if stream.phase != super::Phase::Answering {
            let text = "response with DATA before its header block";
            return Some(self.end(id, Some(ErrorCode::ProtocolError), Code::Internal, text));
        }
        stream.received = stream.received.saturating_add(length);
        if stream.received > self.limits.stream_window.saturating_add(stream.extra) {
            let text = "more DATA than the stream's window admits";
            return Some(self.end(id, Some(ErrorCode::FlowControlError), Code::Internal, text));
        }
        if !end_stream && stream.received >= self.limits.stream_window / 2 && stream.received > 0 {
            // Of these, some had their room made before.
            let made = stream.received.saturating_sub(stream.extra);
            stream.extra = stream.extra.saturating_sub(stream.received);
            stream.received = 0;
            if made > 0 {
                frame::write_window_update(id, made, &mut self.output);
            }
        }
        None
    }
}

impl ClientLeg {
    /// Holds a frame's DATA, padding apart, against the response's content-length.
    fn count(&mut self, id: u32, length: usize) -> Option<Step<'static>> {
        let announced = self.streams.get(id)?.announced.as_mut()?;
        match announced.checked_sub(length as u64) {
            Some(left) => {
                *announced = left;
                None
            }
            None => Some(self.end(id, Some(ErrorCode::ProtocolError), Code::Internal, LONGER)),
        }
    }
}

fn prefix(bytes: &[u8], max_message: usize) -> Prefix {
    let Some((&[compressed, l0, l1, l2, l3], _)) = bytes.split_first_chunk::<PREFIX>() else {
        return Prefix::Partial;
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let refused = |code, text| Prefix::Refused(Refusal { code, text });
    match compressed {
        0 if length > max_message => {
            refused(Code::ResourceExhausted, "response message larger than the limit")
        }
        0 => Prefix::Length(length.saturating_add(PREFIX)),
        1 => refused(Code::Internal, "compressed response message though no encoding was offered"),
        _ => refused(Code::Internal, "response message with a wrong prefix"),
    }
}
