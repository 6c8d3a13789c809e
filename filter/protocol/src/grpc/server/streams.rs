//! The streams of a connection, by number.
//!
//! A caller's numbers only go up, but it may leave any out. So the streams lie in slots, and a
//! list of number and slot, which is sorted by itself, finds them.

use std::collections::VecDeque;

/// Names a stream for as long as it lives: its slot, and its number to tell it from those that
/// had the slot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// The HTTP/2 stream's number.
    pub const fn number(self) -> u32 {
        self.id
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub phase: Phase,
    /// The caller has sent all that it had to.
    pub ended: bool,
    /// The header block of the response is sent.
    pub answering: bool,
    /// Bytes of DATA that came since our last WINDOW_UPDATE.
    pub received: u32,
    /// Bytes of DATA that came in all, and how many there have to be in the end.
    pub body: u64,
    pub content_length: Option<u64>,
    /// A request message that has arrived in part or waits for its END_STREAM, prefix included.
    pub partial: Vec<u8>,
    /// What the caller's window for the stream admits; negative after the caller shrank it
    /// (RFC 9113 section 6.9.2).
    pub window: i64,
    /// The part of the response that waits for windows.
    pub rest: Option<Box<Rest>>,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its DATA is dropped.
    Ignored,
    /// No gRPC: its DATA is dropped, and an HTTP answer follows it. `silent` if the answer may
    /// have no body.
    Foreign { silent: bool },
    /// It carries a call.
    Call { token: u32, max_message: usize },
}

/// Response bytes that the caller's windows do not admit yet.
#[derive(Debug)]
pub(super) struct Rest {
    pub bytes: Vec<u8>,
    /// How many of the bytes are sent.
    pub sent: usize,
    /// What follows them, if they are the last.
    pub end: Option<End>,
}

impl Rest {
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }
}

/// How a response ends.
#[derive(Debug)]
pub(super) enum End {
    /// With its last DATA.
    Data,
    /// With this header block, coded without a table.
    Trailers(Vec<u8>),
}

impl Stream {
    pub fn new(phase: Phase, content_length: Option<u64>, window: i64) -> Self {
        Self {
            phase,
            ended: false,
            answering: false,
            received: 0,
            body: 0,
            content_length,
            partial: Vec::new(),
            window,
            rest: None,
        }
    }

    pub fn accept(&mut self, token: u32, max_message: usize) {
        if self.phase == Phase::Ignored {
            self.phase = Phase::Call { token, max_message };
        }
    }

    /// The name of the call that it carries.
    pub fn token(&self) -> Option<u32> {
        match self.phase {
            Phase::Call { token, .. } => Some(token),
            Phase::Ignored | Phase::Foreign { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    /// By rising number.
    index: VecDeque<(u32, u32)>,
}

impl Streams {
    /// Streams that are not over.
    pub fn live(&self) -> usize {
        self.index.len()
    }

    /// Adds a stream, whose number is above all before.
    pub fn open(&mut self, id: u32, stream: Stream) -> StreamKey {
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = Some(stream);
                }
                slot
            }
            None => {
                self.slots.push(Some(stream));
                (self.slots.len() as u32).saturating_sub(1)
            }
        };
        self.index.push_back((id, slot));
        StreamKey { slot, id }
    }

    pub fn find(&self, id: u32) -> Option<StreamKey> {
        let place = self.place(id)?;
        self.index.get(place).map(|(id, slot)| StreamKey { slot: *slot, id: *id })
    }

    /// `None` if the stream is over.
    pub fn get(&mut self, key: StreamKey) -> Option<&mut Stream> {
        // A slot may have another tenant by now.
        self.place(key.id)?;
        self.slots.get_mut(key.slot as usize)?.as_mut()
    }

    pub fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        self.index.remove(self.place(key.id)?);
        self.free.push(key.slot);
        self.slots.get_mut(key.slot as usize)?.take()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        /// For how many streams memory is kept.
        const KEPT: usize = 16;
        if self.index.is_empty() && self.slots.capacity() > KEPT {
            *self = Self::default();
        }
    }

    fn place(&self, id: u32) -> Option<usize> {
        // The oldest and the youngest are asked for most.
        match (self.index.front(), self.index.back()) {
            (Some(first), _) if first.0 == id => Some(0),
            (_, Some(last)) if last.0 == id => self.index.len().checked_sub(1),
            _ => self.index.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(Phase::Ignored, None, 0)
    }

    #[test]
    fn streams_are_found_by_number_and_a_key_does_not_outlive_its_stream() {
        let mut streams = Streams::default();
        let keys: Vec<_> = [1, 7, 9, 2_000_001].map(|id| streams.open(id, stream())).into();
        assert_eq!(streams.find(7), Some(keys[1]));
        assert_eq!(streams.find(3), None);
        assert!(streams.remove(keys[1]).is_some());
        assert!(streams.remove(keys[1]).is_none());
        let next = streams.open(2_000_003, stream());
        assert_eq!(next.slot, keys[1].slot, "slots are used again");
        assert!(streams.get(keys[1]).is_none(), "and old keys do not lead to them");
        assert!(streams.get(next).is_some());
        assert_eq!(streams.live(), 4);
    }

    #[test]
    fn memory_of_many_streams_is_given_back() {
        let mut streams = Streams::default();
        let keys: Vec<_> = (0..100).map(|n| streams.open(2 * n + 1, stream())).collect();
        for key in keys {
            streams.remove(key).unwrap();
        }
        streams.rest();
        assert_eq!((streams.slots.capacity(), streams.live()), (0, 0));
    }
}
