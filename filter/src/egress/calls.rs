//! The calls of one connection that have no answer yet, by token.

use crate::protocol::grpc::server::StreamKey;
use crate::time::Moment;

#[derive(Debug)]
pub struct Call {
    pub stream: StreamKey,
    /// The index of its route.
    pub route: u16,
    pub started: Moment,
    pub deadline: Option<Moment>,
    /// Its messages are answered as they come.
    pub streams: bool,
    /// The caller's metadata that goes into the frame's header, until it has gone there.
    pub metadata: Vec<u8>,
    /// What its reply is told by, once it was asked.
    pub sequence: Option<u64>,
}

/// A token is an index: the HTTP/2 leg's events find their call without a search.
#[derive(Debug, Default)]
pub struct Calls {
    slots: Vec<Option<Call>>,
    free: Vec<u32>,
    live: usize,
}

impl Calls {
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn insert(&mut self, call: Call) -> u32 {
        self.live = self.live.saturating_add(1);
        if let Some(token) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(token as usize) {
                *slot = Some(call);
            }
            return token;
        }
        self.slots.push(Some(call));
        (self.slots.len() as u32).saturating_sub(1)
    }

    pub fn get_mut(&mut self, token: u32) -> Option<&mut Call> {
        self.slots.get_mut(token as usize)?.as_mut()
    }

    pub fn remove(&mut self, token: u32) -> Option<Call> {
        let call = self.slots.get_mut(token as usize)?.take()?;
        self.live = self.live.saturating_sub(1);
        self.free.push(token);
        if self.live == 0 && self.slots.len() > Self::KEPT {
            *self = Self::default();
        }
        Some(call)
    }

    /// For how many calls an idle connection keeps memory.
    const KEPT: usize = 16;

    /// The tokens of calls whose deadline has come.
    pub fn overdue(&self, now: Moment) -> Vec<u32> {
        self.tokens(|call| call.deadline.is_some_and(|deadline| deadline <= now))
    }

    pub fn all(&self) -> Vec<u32> {
        self.tokens(|_| true)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.slots.iter().flatten().filter_map(|call| call.deadline).min()
    }

    pub fn last_deadline(&self) -> Option<Moment> {
        self.slots.iter().flatten().filter_map(|call| call.deadline).max()
    }

    pub fn streams(&self) -> Vec<u32> {
        self.tokens(|call| call.streams)
    }

    fn tokens(&self, wanted: impl Fn(&Call) -> bool) -> Vec<u32> {
        let of_slot = |(token, slot): (u32, &Option<Call>)| {
            slot.as_ref().filter(|call| wanted(call)).map(|_| token)
        };
        (0u32..).zip(&self.slots).filter_map(of_slot).collect()
    }
}
