//! The calls in flight on one connection.

use std::time::Duration;

use crate::protocol::layout::ReplySeed;
use crate::time::Moment;

use super::leg::Carried;

/// A call that the service has not ended yet.
#[derive(Debug)]
pub struct Call {
    /// What ties the reply to its request: of the frame, or, where frames have none, its turn.
    pub sequence: u64,
    /// The index of its route.
    pub route: u16,
    pub stream: Carried,
    pub started: Moment,
    pub deadline: Option<Moment>,
    /// Its messages are pushed as they come.
    pub pushes: bool,
    /// What of its messages the client has still to send.
    pub request: Request,
    /// A stream's: how long it may be without a message, and since when it is.
    pub idle: Option<Duration>,
    pub touched: Moment,
    /// What the reply's header is made from; `None` if nobody waits for one.
    pub seed: Option<ReplySeed>,
    /// The message that came, until the status says that it counts.
    pub message: Option<Vec<u8>>,
}

/// What a client has still to send of a call's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// There was one, in the frame that began the call.
    Single,
    /// Any number, until the client ends them. `pauses`: the client is not read from while they
    /// find no room.
    Open { pauses: bool },
    /// There were several.
    Ended,
}

impl Call {
    /// When it is too late for its end.
    pub fn due(&self) -> Option<Moment> {
        let idle = self.idle.map(|idle| self.touched.after(idle));
        [self.deadline, idle].into_iter().flatten().min()
    }

    pub fn is_stream(&self) -> bool {
        self.pushes || self.request != Request::Single
    }
}

/// Calls by token. A token is an index, so that the HTTP/2 leg's events find their call
/// without a search; sequences are searched in a dense list, which beats hashing at the
/// sizes that `limits.max_in_flight` allows.
#[derive(Debug, Default)]
pub struct Calls {
    slots: Vec<Option<Call>>,
    free: Vec<u32>,
    sequences: Vec<(u64, u32)>,
    /// How many are streams.
    streams: usize,
}

impl Calls {
    /// For how many calls memory is kept.
    const KEPT: usize = 1024;

    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    pub fn streams(&self) -> usize {
        self.streams
    }

    pub fn has_sequence(&self, sequence: u64) -> bool {
        self.find(sequence).is_some()
    }

    /// The token of the call with this sequence.
    pub fn find(&self, sequence: u64) -> Option<u32> {
        self.sequences.iter().find(|&&(s, _)| s == sequence).map(|&(_, token)| token)
    }

    /// The token that the next `insert` will use.
    pub fn next_token(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    pub fn insert(&mut self, call: Call) -> u32 {
        let token = self.next_token();
        self.sequences.push((call.sequence, token));
        self.streams = self.streams.saturating_add(call.is_stream().into());
        if self.free.pop().is_some() {
            if let Some(slot) = self.slots.get_mut(token as usize) {
                *slot = Some(call);
            }
        } else {
            self.slots.push(Some(call));
        }
        token
    }

    pub fn get_mut(&mut self, token: u32) -> Option<&mut Call> {
        self.slots.get_mut(token as usize)?.as_mut()
    }

    pub fn remove(&mut self, token: u32) -> Option<Call> {
        let call = self.slots.get_mut(token as usize)?.take()?;
        if let Some(at) = self.sequences.iter().position(|&(_, t)| t == token) {
            self.sequences.swap_remove(at);
        }
        self.free.push(token);
        self.streams = self.streams.saturating_sub(call.is_stream().into());
        Some(call)
    }

    /// Takes the memory of a list without calls, in place of none. An idle connection holds none
    /// for calls that it once had, and a busy one does not ask for it again and again.
    pub fn lend(&mut self, spare: &mut Self) {
        if self.slots.capacity() == 0 {
            std::mem::swap(self, spare);
        }
    }

    /// Gives the memory back when there is no call.
    pub fn give_back(&mut self, spare: &mut Self) {
        if self.is_empty() && self.slots.capacity() > 0 {
            let mut own = std::mem::take(self);
            if own.slots.capacity() <= Self::KEPT {
                own.slots.clear();
                own.free.clear();
                *spare = own;
            }
        }
    }

    /// The tokens of calls whose deadline has come.
    pub fn overdue(&self, now: Moment) -> Vec<u32> {
        self.tokens(|call| call.due().is_some_and(|due| due <= now))
    }

    pub fn all(&self) -> Vec<u32> {
        self.tokens(|_| true)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.slots.iter().flatten().filter_map(Call::due).min()
    }

    pub fn last_deadline(&self) -> Option<Moment> {
        self.slots.iter().flatten().filter_map(|call| call.deadline).max()
    }

    /// The tokens of the calls that are wanted.
    pub fn tokens(&self, wanted: impl Fn(&Call) -> bool) -> Vec<u32> {
        let of_slot = |(token, slot): (u32, &Option<Call>)| {
            slot.as_ref().filter(|call| wanted(call)).map(|_| token)
        };
        (0u32..).zip(&self.slots).filter_map(of_slot).collect()
    }
}
