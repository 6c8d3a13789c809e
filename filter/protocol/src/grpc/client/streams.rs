//! The calls of a connection, by stream number.
//!
//! Stream numbers go up by two, so the calls lie in a ring whose front is the oldest: a look-up
//! is a subtraction. A call that outlives many younger ones (a server stream) would keep the ring
//! long; it moves to the elders, which are sorted and few.

use std::collections::VecDeque;

use super::event::StreamId;
use crate::grpc::frame::MAX_STREAM;

/// A call that is not over.
#[derive(Debug)]
pub(super) struct Stream {
    /// The caller's name for it.
    pub token: u32,
    pub phase: Phase,
    /// Bytes of DATA that came since our last WINDOW_UPDATE.
    pub received: u32,
    /// Bytes that it may send beyond the usual window: room that was made for a long message and
    /// is not used up.
    pub extra: u32,
    /// A response message that has arrived in part, prefix included.
    pub partial: Vec<u8>,
    /// The part of the request that waits for windows, or is still to come.
    pub rest: Option<Box<Rest>>,
    /// Bytes of DATA that the response's `content-length` has still to bring.
    pub announced: Option<u64>,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not even the request was sent.
    Queued,
    /// No final response header block yet.
    Waiting,
    /// The header block came; messages and trailers follow.
    Answering,
}

/// What of a request is not sent: bytes that the upstream's windows do not admit yet, and, as long
/// as it is open, messages to come.
#[derive(Debug)]
pub(super) struct Rest {
    /// What the stream's window admits; negative after the upstream shrank it
    /// (RFC 9113 section 6.9.2).
    pub window: i64,
    pub bytes: Vec<u8>,
    /// How many of the bytes are sent.
    pub sent: usize,
    /// Further messages may follow.
    pub open: bool,
    /// Its bytes are counted apart: see [`Limits::max_open_bytes`](super::Limits).
    pub streamed: bool,
}

impl Rest {
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }
}

impl Stream {
    pub fn new(token: u32, phase: Phase) -> Self {
        Self {
            token,
            phase,
            received: 0,
            extra: 0,
            partial: Vec::new(),
            rest: None,
            announced: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    /// The stream number of the ring's front.
    front: u32,
    ring: VecDeque<Option<Stream>>,
    /// Calls older than the ring, by rising number.
    elders: Vec<(u32, Stream)>,
    live: usize,
}

impl Streams {
    /// How much longer than its living calls the ring may be, as a factor, and what is always
    /// allowed.
    const SPARSE: usize = 4;
    const SPAN: usize = 64;

    pub fn new() -> Self {
        Self { front: 1, ring: VecDeque::new(), elders: Vec::new(), live: 0 }
    }

    /// Calls that are not over.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The number of the next call; `None` when the connection has used them all.
    pub fn next(&self) -> Option<u32> {
        let span = u32::try_from(self.ring.len()).ok()?.checked_mul(2)?;
        self.front.checked_add(span).filter(|next| *next <= MAX_STREAM)
    }

    /// Adds a call under the next number.
    pub fn push(&mut self, stream: Stream) -> Option<StreamId> {
        let id = self.next()?;
        let span = self.live.saturating_mul(Self::SPARSE).saturating_add(Self::SPAN);
        while self.ring.len() >= span {
            if let Some(elder) = self.ring.pop_front().flatten() {
                self.elders.push((self.front, elder));
            }
            self.front = self.front.saturating_add(2);
        }
        self.ring.push_back(Some(stream));
        self.live = self.live.saturating_add(1);
        Some(StreamId(id))
    }

    pub fn get(&mut self, id: u32) -> Option<&mut Stream> {
        match self.slot(id) {
            Some(slot) => self.ring.get_mut(slot)?.as_mut(),
            None => {
                let place = self.elder(id)?;
                self.elders.get_mut(place).map(|(_, stream)| stream)
            }
        }
    }

    pub fn peek(&self, id: u32) -> Option<&Stream> {
        match self.slot(id) {
            Some(slot) => self.ring.get(slot)?.as_ref(),
            None => self.elders.get(self.elder(id)?).map(|(_, stream)| stream),
        }
    }

    /// What of each request is not sent, where there is something.
    pub fn rests(&mut self) -> impl Iterator<Item = &mut Rest> {
        let elders = self.elders.iter_mut().map(|(_, stream)| stream);
        let streams = self.ring.iter_mut().flatten().chain(elders);
        streams.filter_map(|stream| stream.rest.as_deref_mut())
    }

    pub fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = match self.slot(id) {
            Some(slot) => self.ring.get_mut(slot)?.take()?,
            None => {
                let place = self.elder(id)?;
                self.elders.remove(place).1
            }
        };
        self.live = self.live.saturating_sub(1);
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.front = self.front.saturating_add(2);
        }
        Some(stream)
    }

    /// The numbers of all calls above `last`, rising.
    pub fn above(&self, last: u32) -> Vec<u32> {
        let elders = self.elders.iter().map(|(id, _)| *id);
        let ring = (self.front..).step_by(2).zip(&self.ring);
        let ring = ring.filter_map(|(id, stream)| stream.as_ref().map(|_| id));
        elders.chain(ring).filter(|id| *id > last).collect()
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.ring.capacity() > Self::SPAN {
            self.ring.shrink_to(Self::SPAN / 2);
        }
        if self.elders.is_empty() {
            self.elders = Vec::new();
        }
    }

    #[cfg(test)]
    pub fn skip_to(&mut self, id: u32) {
        assert!(self.ring.is_empty());
        self.front = id;
    }

    /// The place in the ring of a number that is not older than the ring. Even numbers, which
    /// only a server could use, have been refused before.
    fn slot(&self, id: u32) -> Option<usize> {
        usize::try_from(id.checked_sub(self.front)? / 2).ok()
    }

    fn elder(&self, id: u32) -> Option<usize> {
        self.elders.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(token: u32) -> Stream {
        Stream::new(token, Phase::Waiting)
    }

    #[test]
    fn calls_are_found_by_number_until_they_are_removed() {
        let mut streams = Streams::new();
        for token in 0..10 {
            assert_eq!(streams.push(stream(token)), Some(StreamId(1 + 2 * token)));
        }
        assert_eq!(streams.get(7).unwrap().token, 3);
        assert_eq!(streams.remove(7).unwrap().token, 3);
        assert!(streams.get(7).is_none());
        assert!(streams.remove(7).is_none());
        assert!(streams.get(21).is_none());
        assert_eq!(streams.above(3), [5, 9, 11, 13, 15, 17, 19]);
        assert_eq!(streams.live(), 9);
    }

    #[test]
    fn calls_that_are_over_leave_nothing_behind() {
        let mut streams = Streams::new();
        for token in 0..100 {
            let first = streams.push(stream(token)).unwrap().number();
            let second = streams.push(stream(token)).unwrap().number();
            streams.remove(second);
            assert_eq!(streams.ring.len(), 2);
            streams.remove(first);
            assert!(streams.ring.is_empty());
        }
        assert!(streams.ring.capacity() <= 4);
    }

    #[test]
    fn a_long_call_among_many_short_ones_is_found_and_keeps_the_ring_short() {
        let mut streams = Streams::new();
        streams.push(stream(u32::MAX));
        for token in 0..10_000 {
            let id = streams.push(stream(token)).unwrap();
            assert_eq!(streams.remove(id.number()).unwrap().token, token);
            assert!(streams.ring.len() <= Streams::SPAN + 2 * Streams::SPARSE);
        }
        assert_eq!(streams.get(1).unwrap().token, u32::MAX);
        assert_eq!(streams.above(0), [1]);
        assert_eq!(streams.remove(1).unwrap().token, u32::MAX);
        assert_eq!(streams.live(), 0);
        assert_eq!(streams.next(), Some(20_003));
    }

    #[test]
    fn numbers_end_where_the_protocol_does() {
        let mut streams = Streams::new();
        streams.front = MAX_STREAM - 2;
        assert_eq!(streams.push(stream(0)), Some(StreamId(MAX_STREAM - 2)));
        assert_eq!(streams.push(stream(1)), Some(StreamId(MAX_STREAM)));
        assert_eq!(streams.push(stream(2)), None);
        assert_eq!(streams.remove(MAX_STREAM).unwrap().token, 1);
        assert_eq!(streams.remove(MAX_STREAM - 2).unwrap().token, 0);
        assert_eq!(streams.push(stream(2)), None);
    }
}
