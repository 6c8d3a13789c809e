//! Responses on their way out: the caller's windows, its frame size, and what has to wait.
//!
//! A response that needs to wait for nothing is written straight from its pieces to the output.
//! Otherwise its bytes are copied once, into the stream's [`Rest`].

use std::collections::VecDeque;

use super::answering::status_fields;
use super::limits::Limits;
use super::streams::{End, Rest, Stream, StreamKey, Streams};
use crate::call::Code;
use crate::grpc::frame::{self, DEFAULT_MAX_FRAME_SIZE, Kind, flag};
use crate::grpc::hpack::{Part, PartKey, PeerTable, peer_table};
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::settings::{DEFAULT_WINDOW, MAX_WINDOW};

/// How every response begins.
const HEAD: Part<'static> = Part { key: PartKey(0), fields: b"\x88\x0f\x10\x10application/grpc" };

/// How most responses end: `grpc-status 0`.
const OK: Part<'static> = Part { key: PartKey(1), fields: b"\x00\x0bgrpc-status\x010" };

#[derive(Debug)]
pub(super) struct Sending {
    /// Bytes of DATA that the connection's window admits.
    window: i64,
    /// What a new stream's window admits.
    initial_window: i64,
    max_frame: usize,
    /// Streams whose `rest` is not empty, in the order of their turns.
    blocked: VecDeque<StreamKey>,
    /// Bytes in the rests.
    held: usize,
    /// What the caller remembers of our header fields.
    table: PeerTable,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            window: i64::from(DEFAULT_WINDOW),
            initial_window: i64::from(DEFAULT_WINDOW),
            max_frame: DEFAULT_MAX_FRAME_SIZE as usize,
            blocked: VecDeque::new(),
            held: 0,
            table: PeerTable::default(),
        }
    }
}

impl Sending {
    pub fn initial_window(&self) -> i64 {
        self.initial_window
    }

    /// Whether a message may be sent, or kept until it can be.
    pub fn has_room(&self, message: &[&[u8]], limits: &Limits) -> bool {
        let size = message.iter().fold(self.held, |sum, part| sum.saturating_add(part.len()));
        size <= limits.max_unsent
    }

    /// SETTINGS_HEADER_TABLE_SIZE; `None` if the caller's first SETTINGS name none.
    pub fn set_table_size(&mut self, size: Option<u32>) {
        self.table.allow(size.unwrap_or(peer_table::MAX_SIZE));
    }

    pub fn set_max_frame(&mut self, size: u32) {
        self.max_frame = size as usize;
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE: moves the windows of all streams by the difference
    /// (RFC 9113 section 6.9.2).
    pub fn set_initial_window(&mut self, size: u32, streams: &mut Streams) -> Result<(), LegError> {
        let change = i64::from(size).saturating_sub(self.initial_window);
        self.initial_window = i64::from(size);
        for stream in streams.iter_mut() {
            stream.window = stream.window.saturating_add(change);
            if stream.window > i64::from(MAX_WINDOW) {
                return Err(LegError::new(
                    ErrorCode::FlowControlError,
                    "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large",
                ));
            }
        }
        Ok(())
    }

    /// WINDOW_UPDATE of the connection.
    pub fn widen(&mut self, increment: u32) -> Result<(), LegError> {
        self.window = self.window.saturating_add(i64::from(increment));
        if self.window > i64::from(MAX_WINDOW) {
            return Err(LegError::new(
                ErrorCode::FlowControlError,
                "WINDOW_UPDATE makes the connection's window too large",
            ));
        }
        Ok(())
    }

    /// The beginning of a gRPC response.
    pub fn head(&mut self, key: StreamKey, out: &mut Vec<u8>) {
        self.block(key, 0, out, |table, out| table.encode(&[HEAD], out));
    }

    /// The beginning of a response that is no gRPC; `end` if it is all.
    pub fn foreign(&mut self, key: StreamKey, fields: &[u8], end: bool, out: &mut Vec<u8>) {
        let flags = if end { flag::END_STREAM } else { 0 };
        self.block(key, flags, out, |_, out| out.extend_from_slice(fields));
    }

    /// The end of a gRPC response; with its beginning if that was not sent.
    pub fn trailers(
        &mut self,
        key: StreamKey,
        answering: bool,
        code: Code,
        text: &str,
        out: &mut Vec<u8>,
    ) {
        self.block(key, flag::END_STREAM, out, |table, out| {
            if !answering {
                table.encode(&[HEAD], out);
            }
            if code == Code::Ok && text.is_empty() {
                table.encode(&[OK], out);
            } else {
                status_fields(code, text, out);
            }
        });
    }

    /// A message with gRPC's prefix, as much of it as the windows admit.
    pub fn message(
        &mut self,
        key: StreamKey,
        stream: &mut Stream,
        message: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let length = message.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let [l0, l1, l2, l3] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let prefix = [0, l0, l1, l2, l3];
        let length = length.saturating_add(prefix.len());
        if stream.rest.is_none() && length <= self.admitted(stream).min(self.max_frame) {
            self.spend(stream, length);
            out.reserve(length.saturating_add(frame::HEAD_LENGTH));
            frame::write_head(Kind::Data, 0, key.number(), length, out);
            out.extend_from_slice(&prefix);
            message.iter().for_each(|part| out.extend_from_slice(part));
            return;
        }
        let rest = self.hold(key, stream, length);
        rest.extend_from_slice(&prefix);
        message.iter().for_each(|part| rest.extend_from_slice(part));
        self.push(key, stream, out);
    }

    /// The last DATA of a response without trailers. True if it is sent whole.
    pub fn data(
        &mut self,
        key: StreamKey,
        stream: &mut Stream,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        self.hold(key, stream, bytes.len()).extend_from_slice(bytes);
        if let Some(rest) = &mut stream.rest {
            rest.end = Some(End::Data);
        }
        self.push(key, stream, out);
        stream.rest.is_none()
    }

    /// Sends what the windows admit, until a response is sent whole: that of the stream that is
    /// given back. One frame per stream in turn.
    pub fn flush(&mut self, streams: &mut Streams, out: &mut Vec<u8>) -> Option<StreamKey> {
        // Streams in a row that could not send: once around, and all have been asked.
        let mut stuck = 0usize;
        while self.window > 0 && stuck < self.blocked.len() {
            let key = self.blocked.pop_front()?;
            let Some(stream) = streams.get(key) else { continue };
            let Some(before) = stream.rest.as_ref().map(|rest| rest.sent) else { continue };
            let over = self.send_frame(key, stream, out);
            match &stream.rest {
                None if over => return Some(key),
                None => stuck = 0,
                Some(rest) => {
                    stuck = if rest.sent > before { 0 } else { stuck.saturating_add(1) };
                    self.blocked.push_back(key);
                }
            }
        }
        None
    }

    /// A stream is over, with what it still had to send.
    pub fn forget(&mut self, key: StreamKey, rest: Option<&Rest>) {
        if let Some(rest) = rest {
            self.held = self.held.saturating_sub(rest.left());
            self.blocked.retain(|blocked| *blocked != key);
        }
    }

    /// Room for so many bytes more in what waits.
    fn hold<'a>(
        &mut self,
        key: StreamKey,
        stream: &'a mut Stream,
        length: usize,
    ) -> &'a mut Vec<u8> {
        if stream.rest.is_none() {
            self.blocked.push_back(key);
        }
        self.held = self.held.saturating_add(length);
        let new = || Box::new(Rest { bytes: Vec::with_capacity(length), sent: 0, end: None });
        &mut stream.rest.get_or_insert_with(new).bytes
    }

    /// Sends of one stream's rest what the windows admit.
    fn push(&mut self, key: StreamKey, stream: &mut Stream, out: &mut Vec<u8>) {
        // Others wait their turn: nobody overtakes them.
        if self.blocked.front() != Some(&key) {
            return;
        }
        while let Some(rest) = &stream.rest {
            let before = rest.sent;
            self.send_frame(key, stream, out);
            if stream.rest.as_ref().is_some_and(|rest| rest.sent == before) {
                return;
            }
        }
        self.blocked.retain(|blocked| *blocked != key);
    }

    /// One DATA frame of a stream's rest, and what follows it if it was the last. True if that
    /// was the response's end.
    fn send_frame(&mut self, key: StreamKey, stream: &mut Stream, out: &mut Vec<u8>) -> bool {
        let admitted = self.admitted(stream);
        let Some(rest) = &mut stream.rest else { return false };
        let length = rest.left().min(admitted).min(self.max_frame);
        let end = rest.sent.saturating_add(length);
        let (Some(bytes), true) = (rest.bytes.get(rest.sent..end), length > 0) else {
            return false;
        };
        let is_last = end == rest.bytes.len();
        let ends = is_last && matches!(rest.end, Some(End::Data));
        let flags = if ends { flag::END_STREAM } else { 0 };
        frame::write_head(Kind::Data, flags, key.number(), length, out);
        out.extend_from_slice(bytes);
        rest.sent = end;
        self.held = self.held.saturating_sub(length);
        self.spend(stream, length);
        if !is_last {
            return false;
        }
        let end = stream.rest.take().and_then(|rest| rest.end);
        if let Some(End::Trailers(fields)) = &end {
            self.block(key, flag::END_STREAM, out, |_, out| out.extend_from_slice(fields));
        }
        end.is_some()
    }

    /// Bytes of DATA that both windows admit.
    fn admitted(&self, stream: &Stream) -> usize {
        usize::try_from(self.window.min(stream.window)).unwrap_or(0)
    }

    fn spend(&mut self, stream: &mut Stream, length: usize) {
        self.window = self.window.saturating_sub_unsigned(length as u64);
        stream.window = stream.window.saturating_sub_unsigned(length as u64);
    }

    /// A HEADERS frame. No block of ours is longer than the smallest frame size there is:
    /// `MAX_TEXT` coded is 3 KB.
    fn block(
        &mut self,
        key: StreamKey,
        flags: u8,
        out: &mut Vec<u8>,
        encode: impl FnOnce(&mut PeerTable, &mut Vec<u8>),
    ) {
        let at = out.len();
        frame::write_head(Kind::Headers, flag::END_HEADERS | flags, key.number(), 0, out);
        let start = out.len();
        self.table.begin(out);
        encode(&mut self.table, out);
        let length = out.len().saturating_sub(start);
        frame::set_length(at, length, out);
    }
}

#[cfg(test)]
impl Sending {
    /// Compares the books with what the streams say.
    pub fn audit(&self, left: usize, blocked: usize) {
        assert_eq!((self.held, self.blocked.len()), (left, blocked));
    }
}
