//! Requests on their way out: the upstream's windows, its frame size, its concurrent streams,
//! and what has to wait for them.
//!
//! A call that needs to wait for nothing is written straight from the caller's slices to the
//! output. Otherwise its bytes are copied once: into the queue when a stream is what it waits
//! for, into its [`Rest`] when a window is.

mod open;

use std::collections::VecDeque;

use super::limits::Limits;
use super::streams::{Phase, Rest, Streams};
use crate::grpc::frame::{self, DEFAULT_MAX_FRAME_SIZE, Kind, flag};
use crate::grpc::hpack::{Part, PeerTable, peer_table};
use crate::grpc::reason::{ErrorCode, LegError};
use crate::grpc::settings::{DEFAULT_WINDOW, MAX_WINDOW};

/// How many streams are opened before the upstream has said how many it allows. RFC 9113 section
/// 6.5.2 sets no limit until then and asks servers not to go below this one.
const FIRST_STREAMS: u32 = 100;

#[derive(Debug)]
pub(super) struct Sending {
    /// Bytes of DATA that the connection's window admits.
    window: i64,
    /// What a new stream's window admits.
    initial_window: i64,
    max_frame: usize,
    max_streams: u32,
    max_queued_calls: usize,
    max_queued_bytes: usize,
    max_open_bytes: usize,
    max_all_open_bytes: usize,
    /// The upstream's, or ours if that is lower.
    concurrent: u32,
    /// Streams that are open.
    open: u32,
    /// The highest stream number that was used; above it streams are idle.
    last_opened: u32,
    /// Calls that wait for a stream, oldest first.
    queue: VecDeque<Queued>,
    /// Streams with bytes in their `rest`, in the order of their turns.
    blocked: VecDeque<u32>,
    /// Bytes in the queue and in the rests, but for `held_open`.
    held: usize,
    /// Bytes of messages of requests that stay, or stayed, open.
    held_open: usize,
    /// What the upstream remembers of our header fields.
    table: PeerTable,
}

#[derive(Debug)]
struct Queued {
    stream: u32,
    block: Vec<u8>,
    message: Vec<u8>,
    /// As in [`Rest`].
    open: bool,
    streamed: bool,
}

impl Sending {
    pub fn new(limits: &Limits) -> Self {
        Self {
            window: i64::from(DEFAULT_WINDOW),
            initial_window: i64::from(DEFAULT_WINDOW),
            max_frame: DEFAULT_MAX_FRAME_SIZE as usize,
            max_streams: limits.max_streams,
            max_queued_calls: limits.max_queued_calls,
            max_queued_bytes: limits.max_queued_bytes,
            max_open_bytes: limits.max_open_bytes,
            max_all_open_bytes: limits.max_all_open_bytes,
            concurrent: limits.max_streams.min(FIRST_STREAMS),
            open: 0,
            last_opened: 0,
            queue: VecDeque::new(),
            blocked: VecDeque::new(),
            held: 0,
            held_open: 0,
            table: PeerTable::default(),
        }
    }

    /// Whether one more call, of whatever size, is taken.
    pub fn has_room(&self) -> bool {
        self.held < self.max_queued_bytes
            && (self.stream_is_free() || self.queue.len() < self.max_queued_calls)
    }

    pub fn last_opened(&self) -> u32 {
        self.last_opened
    }

    /// Whether the next call can have a stream at once.
    pub fn stream_is_free(&self) -> bool {
        self.queue.is_empty() && self.open < self.concurrent
    }

    /// Sends a call on a new stream, as much of it as the windows admit.
    pub fn open(
        &mut self,
        stream: u32,
        head: (&[Part<'_>], &[u8]),
        message: &[&[u8]],
        streams: &mut Streams,
        out: &mut Vec<u8>,
    ) {
        self.open_stream(stream, head, out);
        let (prefix, length) = prefixed(message);
        let admitted = usize::try_from(self.window.min(self.initial_window)).unwrap_or(0);
        if length <= admitted.min(self.max_frame) {
            self.window = self.window.saturating_sub_unsigned(length as u64);
            out.reserve(length.saturating_add(frame::HEAD_LENGTH));
            frame::write_head(Kind::Data, flag::END_STREAM, stream, length, out);
            out.extend_from_slice(&prefix);
            message.iter().for_each(|part| out.extend_from_slice(part));
        } else {
            let bytes = flatten(&prefix, length, message);
            self.hold(stream, self.rest(bytes, false, false), streams, out);
            self.flush(streams, out);
        }
    }

    /// Keeps a call until a stream is free. Calls leave the queue in the order of their numbers,
    /// as HTTP/2 demands of new streams. What the upstream will remember then is not known now, so
    /// their fields are sent in full.
    pub fn enqueue(&mut self, stream: u32, head: (&[Part<'_>], &[u8]), message: &[&[u8]]) {
        let (prefix, length) = prefixed(message);
        let message = flatten(&prefix, length, message);
        self.enqueue_as(stream, head, message, false);
    }

    fn enqueue_as(
        &mut self,
        stream: u32,
        (parts, own): (&[Part<'_>], &[u8]),
        message: Vec<u8>,
        open: bool,
    ) {
        let fields = parts.iter().map(|part| part.fields).chain([own]);
        let block = fields.collect::<Vec<_>>().concat();
        self.held = self.held.saturating_add(block.len());
        self.charge(open, message.len());
        self.queue.push_back(Queued { stream, block, message, open, streamed: open });
    }

    /// Takes a call out of the queue.
    pub fn dequeue(&mut self, stream: u32) {
        if let Ok(place) = self.queue.binary_search_by_key(&stream, |queued| queued.stream)
            && let Some(queued) = self.queue.remove(place)
        {
            self.release_queued(&queued);
        }
    }

    /// Takes everything out of the queue.
    pub fn clear_queue(&mut self) {
        for queued in std::mem::take(&mut self.queue) {
            self.release_queued(&queued);
        }
    }

    /// Notes that a stream is over, with what it still had to send. Others may take its place:
    /// see [`Self::pump`].
    pub fn close_stream(&mut self, stream: u32, rest: Option<&Rest>) {
        self.open = self.open.saturating_sub(1);
        if let Some(rest) = rest.filter(|rest| rest.left() > 0) {
            self.release(rest.streamed, rest.left());
            self.blocked.retain(|blocked| *blocked != stream);
        }
    }

    /// Opens streams for queued calls as far as the upstream allows.
    pub fn pump(&mut self, streams: &mut Streams, out: &mut Vec<u8>) {
        while self.open < self.concurrent
            && let Some(queued) = self.queue.pop_front()
        {
            self.release_queued(&queued);
            let Queued { stream: id, block, message, open, streamed } = queued;
            if let Some(stream) = streams.get(id) {
                stream.phase = Phase::Waiting;
            }
            self.open_stream(id, (&[], &block), out);
            self.hold(id, self.rest(message, open, streamed), streams, out);
            self.flush(streams, out);
        }
    }

    /// SETTINGS_MAX_CONCURRENT_STREAMS; `None` if the upstream's first SETTINGS name none.
    pub fn set_concurrent(&mut self, allowed: Option<u32>) {
        self.concurrent = allowed.unwrap_or(u32::MAX).min(self.max_streams);
    }

    /// SETTINGS_HEADER_TABLE_SIZE; `None` if the upstream's first SETTINGS name none.
    pub fn set_table_size(&mut self, size: Option<u32>) {
        self.table.allow(size.unwrap_or(peer_table::MAX_SIZE));
    }

    pub fn set_max_frame(&mut self, size: u32) {
        self.max_frame = size as usize;
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE: moves the windows of all streams by the difference
    /// (RFC 9113 section 6.9.2). Only those that still have something to send need theirs.
    pub fn set_initial_window(&mut self, size: u32, streams: &mut Streams) -> Result<(), LegError> {
        let change = i64::from(size).saturating_sub(self.initial_window);
        self.initial_window = i64::from(size);
        for rest in streams.rests() {
            rest.window = rest.window.saturating_add(change);
            if rest.window > i64::from(MAX_WINDOW) {
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

    /// Sends what the windows admit, one frame per stream in turn.
    pub fn flush(&mut self, streams: &mut Streams, out: &mut Vec<u8>) {
        // Streams in a row that could not send: once around, and all have been asked.
        let mut stuck = 0usize;
        while self.window > 0 && stuck < self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { break };
            let Some(stream) = streams.get(id) else { continue };
            let Some(rest) = stream.rest.as_mut() else { continue };
            let admitted = usize::try_from(self.window.min(rest.window)).unwrap_or(0);
            let length = rest.left().min(admitted).min(self.max_frame);
            let end = rest.sent.saturating_add(length);
            let (Some(bytes), true) = (rest.bytes.get(rest.sent..end), length > 0) else {
                stuck = stuck.saturating_add(1);
                self.blocked.push_back(id);
                continue;
            };
            stuck = 0;
            let is_last = end == rest.bytes.len();
            let ends = is_last && !rest.open;
            let flags = if ends { flag::END_STREAM } else { 0 };
            frame::write_head(Kind::Data, flags, id, length, out);
            out.extend_from_slice(bytes);
            self.window = self.window.saturating_sub_unsigned(length as u64);
            rest.window = rest.window.saturating_sub_unsigned(length as u64);
            rest.sent = end;
            let streamed = rest.streamed;
            if ends {
                stream.rest = None;
            } else if is_last {
                (rest.bytes, rest.sent) = (Vec::new(), 0);
            } else {
                self.blocked.push_back(id);
            }
            self.release(streamed, length);
        }
    }

    /// Gives memory back that an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
        if self.blocked.is_empty() && self.blocked.capacity() > 0 {
            self.blocked = VecDeque::new();
        }
    }

    /// What of a request on a new stream is not sent.
    fn rest(&self, bytes: Vec<u8>, open: bool, streamed: bool) -> Rest {
        Rest { window: self.initial_window, bytes, sent: 0, open, streamed }
    }

    fn hold(&mut self, stream: u32, rest: Rest, streams: &mut Streams, out: &mut Vec<u8>) {
        let Some(holder) = streams.get(stream) else { return };
        let left = rest.left();
        if left > 0 {
            self.charge(rest.streamed, left);
            self.blocked.push_back(stream);
        } else if !rest.open {
            frame::write_head(Kind::Data, flag::END_STREAM, stream, 0, out);
            return;
        }
        holder.rest = Some(Box::new(rest));
    }

    fn charge(&mut self, streamed: bool, bytes: usize) {
        let held = if streamed { &mut self.held_open } else { &mut self.held };
        *held = held.saturating_add(bytes);
    }

    fn release(&mut self, streamed: bool, bytes: usize) {
        let held = if streamed { &mut self.held_open } else { &mut self.held };
        *held = held.saturating_sub(bytes);
    }

    fn release_queued(&mut self, queued: &Queued) {
        self.held = self.held.saturating_sub(queued.block.len());
        self.release(queued.streamed, queued.message.len());
    }

    /// HEADERS, and CONTINUATION where the block is longer than a frame.
    fn open_stream(&mut self, stream: u32, head: (&[Part<'_>], &[u8]), out: &mut Vec<u8>) {
        self.open = self.open.saturating_add(1);
        self.last_opened = stream;
        let (parts, own) = head;
        let at = out.len();
        frame::write_head(Kind::Headers, flag::END_HEADERS, stream, 0, out);
        let start = out.len();
        self.table.begin(out);
        self.table.encode(parts, out);
        if !own.is_empty() {
            out.extend_from_slice(own);
        }
        let length = out.len().saturating_sub(start);
        if length <= self.max_frame {
            frame::set_length(at, length, out);
            return;
        }
        let whole = out.split_off(start);
        out.truncate(at);
        let mut chunks = whole.chunks(self.max_frame).peekable();
        let mut kind = Kind::Headers;
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { flag::END_HEADERS } else { 0 };
            frame::write_head(kind, flags, stream, chunk.len(), out);
            out.extend_from_slice(chunk);
            kind = Kind::Continuation;
        }
    }
}

/// The bytes of all parts together.
pub(super) fn size(parts: &[&[u8]]) -> usize {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
}

/// gRPC's prefix of a message (compressed flag 0, length as u32), and the length of both.
fn prefixed(message: &[&[u8]]) -> ([u8; 5], usize) {
    let length = size(message);
    let [l0, l1, l2, l3] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    ([0, l0, l1, l2, l3], length.saturating_add(5))
}

fn flatten(prefix: &[u8; 5], length: usize, message: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(prefix);
    message.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

#[cfg(test)]
impl Sending {
    /// Compares the books with what the streams say: how many are open, how many bytes of theirs
    /// are left, which wait for windows, which for a stream.
    pub fn audit(&self, open: u32, left: [usize; 2], blocked: &[u32], queued: &[u32]) {
        assert_eq!(self.open, open);
        let [mut calls, mut streamed] = left;
        for queued in &self.queue {
            calls += queued.block.len();
            *(if queued.streamed { &mut streamed } else { &mut calls }) += queued.message.len();
        }
        assert_eq!((self.held, self.held_open), (calls, streamed));
        let mut turns: Vec<u32> = self.blocked.iter().copied().collect();
        turns.sort_unstable();
        assert_eq!(turns, blocked);
        assert!(self.queue.iter().map(|queued| queued.stream).eq(queued.iter().copied()));
        assert!(self.queue.len() <= self.max_queued_calls);
        assert!(self.queue.is_empty() || self.open >= self.concurrent);
    }
}
