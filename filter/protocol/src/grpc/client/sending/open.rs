//! Requests that stay open: their messages leave one by one, and wait each on its own stream.

use super::{Queued, Sending, Streams, prefixed};
use crate::grpc::client::event::SendError;
use crate::grpc::client::streams::Rest;
use crate::grpc::frame::{self, Kind, flag};
use crate::grpc::hpack::Part;

impl Sending {
    /// Opens a stream and sends nothing on it yet.
    pub fn begin(
        &mut self,
        stream: u32,
        head: (&[Part<'_>], &[u8]),
        streams: &mut Streams,
        out: &mut Vec<u8>,
    ) {
        self.open_stream(stream, head, out);
        self.hold(stream, self.rest(Vec::new(), true, true), streams, out);
    }

    /// Keeps a call without messages until a stream is free.
    pub fn enqueue_open(&mut self, stream: u32, head: (&[Part<'_>], &[u8])) {
        self.enqueue_as(stream, head, Vec::new(), true);
    }

    /// Sends a message, or as much of it as the windows admit.
    pub fn send(
        &mut self,
        id: u32,
        message: &[&[u8]],
        streams: &mut Streams,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let (prefix, length) = prefixed(message);
        if self.is_full(id, streams) {
            return Err(SendError::Full);
        }
        let append = |bytes: &mut Vec<u8>| {
            bytes.reserve(length);
            bytes.extend_from_slice(&prefix);
            message.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        if let Some(queued) = self.queued(id) {
            if !queued.open {
                return Err(SendError::Over);
            }
            append(&mut queued.message);
            self.charge(true, length);
            return Ok(());
        }
        let (window, max_frame) = (self.window, self.max_frame);
        let rest = streams.get(id).and_then(|stream| stream.rest.as_deref_mut());
        let rest = rest.filter(|rest| rest.open).ok_or(SendError::Over)?;
        let waits = rest.left() > 0;
        let admitted = usize::try_from(window.min(rest.window)).unwrap_or(0);
        if !waits && length <= admitted.min(max_frame) {
            rest.window = rest.window.saturating_sub_unsigned(length as u64);
            self.window = window.saturating_sub_unsigned(length as u64);
            frame::write_head(Kind::Data, 0, id, length, out);
            append(out);
            return Ok(());
        }
        // What was sent of the bytes goes when it is the larger part, so that each is moved once.
        if rest.sent > rest.left() {
            rest.bytes.drain(..rest.sent);
            rest.sent = 0;
        }
        append(&mut rest.bytes);
        self.charge(true, length);
        if !waits {
            self.blocked.push_back(id);
        }
        self.flush(streams, out);
        Ok(())
    }

    /// Ends a request: at once, or after what waits.
    pub fn end(&mut self, id: u32, streams: &mut Streams, out: &mut Vec<u8>) {
        if let Some(queued) = self.queued(id) {
            queued.open = false;
            return;
        }
        let Some(stream) = streams.get(id) else { return };
        let Some(rest) = stream.rest.as_deref_mut().filter(|rest| rest.open) else { return };
        rest.open = false;
        if rest.left() == 0 {
            stream.rest = None;
            frame::write_head(Kind::Data, flag::END_STREAM, id, 0, out);
        }
    }

    /// Whether a message on this stream would have to wait, and as much waits as may.
    pub fn is_full(&self, id: u32, streams: &Streams) -> bool {
        let rest = streams.peek(id).and_then(|stream| stream.rest.as_deref());
        let waiting = match (rest, self.place(id)) {
            (Some(rest), _) if rest.open => {
                let stuck = rest.left() > 0 || self.window.min(rest.window) <= 0;
                stuck.then(|| Rest::left(rest))
            }
            (None, Some(place)) => self.queue.get(place).map(|queued| queued.message.len()),
            _ => None,
        };
        let most = (self.max_open_bytes, self.max_all_open_bytes);
        waiting.is_some_and(|waiting| waiting >= most.0 || self.held_open >= most.1)
    }

    fn queued(&mut self, id: u32) -> Option<&mut Queued> {
        let place = self.place(id)?;
        self.queue.get_mut(place)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.queue.binary_search_by_key(&id, |queued| queued.stream).ok()
    }
}
