//! What was asked of the private server, by sequence.
//!
//! Sequences are our own and go up by one, from 1 to the largest that the layout's field can say,
//! and then again from 1: 0 is left to what the server sends unasked. An entry lies where the low
//! bits of its sequence say, so that a reply finds it at once. A sequence that is still in use when
//! its turn comes again is passed over, so that no reply is ever taken for another's.

use std::collections::VecDeque;

use crate::protocol::layout::{Correlation, Layout};
use crate::time::Moment;

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The call of this token.
    Call(u32),
    /// Nobody any more; until then its reply may still come.
    Nobody { until: Moment },
    /// The bell.
    Bell,
    /// The login.
    Login,
}

/// Something that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub sequence: u64,
    pub who: Who,
    /// The [key](Layout::reply_key) of the reply's command.
    pub reply: u64,
}

#[derive(Debug)]
pub struct Pending {
    /// A power of two of them, but for the first.
    slots: Vec<Option<Asked>>,
    next: u64,
    most: u64,
    live: usize,
    /// How many calls, late replies included, there may be.
    max_calls: usize,
    calls: usize,
    /// The sequences in the order in which they were asked, where frames have none.
    order: Option<VecDeque<u64>>,
}

/// The first number of slots.
const FIRST_SLOTS: usize = 16;

impl Pending {
    /// `max_calls` is how many there may be before [`has_room`](Self::has_room) says no.
    pub fn new(layout: &Layout, max_calls: usize) -> Self {
        let ordered = layout.correlation() == Correlation::Order;
        Self {
            slots: Vec::new(),
            next: 1,
            most: layout.max_sequence(),
            live: 0,
            max_calls,
            calls: 0,
            order: ordered.then(VecDeque::new),
        }
    }

    /// Replies come in the order of the requests.
    pub fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// One more call may be asked.
    pub fn has_room(&self) -> bool {
        self.calls < self.max_calls
    }

    /// The sequence of what is asked now. `reply` is the key of its reply's command.
    pub fn add(&mut self, who: Who, reply: u64) -> u64 {
        if self.slots.len() <= self.live.saturating_mul(2) {
            self.grow();
        }
        // More than half of the slots are free, so this ends soon.
        let mut sequence = self.next;
        while let Some(Some(_)) = self.slots.get(self.place(sequence)) {
            sequence = self.after(sequence);
        }
        self.next = self.after(sequence);
        let place = self.place(sequence);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Asked { sequence, who, reply });
        }
        self.live = self.live.saturating_add(1);
        self.calls = self.calls.saturating_add(usize::from(is_call(who)));
        if let Some(order) = &mut self.order {
            order.push_back(sequence);
        }
        sequence
    }

    /// What a reply with this sequence answers; `None` if nothing.
    pub fn find(&self, sequence: u64) -> Option<Asked> {
        let asked = self.slots.get(self.place(sequence))?.as_ref()?;
        (asked.sequence == sequence).then_some(*asked)
    }

    /// The sequence of the reply that comes next, where frames have none.
    pub fn oldest(&self) -> Option<u64> {
        self.order.as_ref()?.front().copied()
    }

    /// The reply has come.
    pub fn remove(&mut self, sequence: u64) {
        let Some(asked) = self.find(sequence) else { return };
        let place = self.place(sequence);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = None;
        }
        self.live = self.live.saturating_sub(1);
        self.calls = self.calls.saturating_sub(usize::from(is_call(asked.who)));
        if let Some(order) = &mut self.order {
            order.retain(|other| *other != sequence);
        }
    }

    /// Nobody waits for the reply any more.
    pub fn abandon(&mut self, sequence: u64, until: Moment) {
        let place = self.place(sequence);
        if let Some(Some(asked)) = self.slots.get_mut(place)
            && asked.sequence == sequence
        {
            asked.who = Who::Nobody { until };
        }
    }

    /// When the next late reply is given up.
    pub fn next_expiry(&self) -> Option<Moment> {
        self.late().map(|(_, until)| until).min()
    }

    /// Gives up the late replies whose time is over. True if there were any.
    pub fn expire(&mut self, now: Moment) -> bool {
        let over: Vec<u64> =
            self.late().filter(|(_, until)| *until <= now).map(|(sequence, _)| sequence).collect();
        for sequence in &over {
            self.remove(*sequence);
        }
        !over.is_empty()
    }

    fn late(&self) -> impl Iterator<Item = (u64, Moment)> {
        self.slots.iter().flatten().filter_map(|asked| match asked.who {
            Who::Nobody { until } => Some((asked.sequence, until)),
            _ => None,
        })
    }

    fn after(&self, sequence: u64) -> u64 {
        if sequence >= self.most { 1 } else { sequence.saturating_add(1) }
    }

    fn place(&self, sequence: u64) -> usize {
        (sequence as usize) & self.slots.len().saturating_sub(1)
    }

    fn grow(&mut self) {
        let more = self.slots.len().saturating_mul(2).max(FIRST_SLOTS);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize(more, None);
        // Sequences that differed in fewer low bits differ in more.
        for asked in old.into_iter().flatten() {
            let place = self.place(asked.sequence);
            if let Some(slot) = self.slots.get_mut(place) {
                *slot = Some(asked);
            }
        }
    }
}

const fn is_call(who: Who) -> bool {
    matches!(who, Who::Call(_) | Who::Nobody { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(most: u64, max_calls: usize, ordered: bool) -> Pending {
        let order = ordered.then(VecDeque::new);
        let slots = Vec::new();
        Pending { slots, next: 1, most, live: 0, max_calls, calls: 0, order }
    }

    fn who(pending: &Pending, sequence: u64) -> Option<Who> {
        pending.find(sequence).map(|asked| asked.who)
    }

    #[test]
    fn sequences_count_up_and_wrap_around_those_in_use() {
        let mut pending = pending(255, 100, false);
        let kept = pending.add(Who::Call(7), 0);
        assert_eq!(kept, 1);
        let mut used = Vec::new();
        for token in 0..600 {
            let sequence = pending.add(Who::Call(token), 0);
            assert_eq!(who(&pending, sequence), Some(Who::Call(token)));
            pending.remove(sequence);
            used.push(sequence);
        }
        assert!(!used.contains(&0) && !used.contains(&kept));
        let last = used.iter().position(|sequence| *sequence == 255).unwrap();
        assert_eq!(used[last + 1], 2, "the one in use is passed over");
        assert_eq!(who(&pending, kept), Some(Who::Call(7)));
    }

    #[test]
    fn many_at_once_are_each_found_by_their_own_sequence() {
        let mut pending = pending(u64::from(u32::MAX), 2000, false);
        pending.next = u64::from(u32::MAX) - 500;
        let sequences: Vec<u64> = (0..1000).map(|token| pending.add(Who::Call(token), 0)).collect();
        assert!(pending.has_room());
        for (token, sequence) in (0..).zip(&sequences) {
            assert_eq!(who(&pending, *sequence), Some(Who::Call(token)));
        }
        assert_eq!(pending.find(5_000_000), None);
        for sequence in sequences {
            pending.remove(sequence);
            assert_eq!(pending.find(sequence), None);
        }
        assert_eq!((pending.live, pending.calls), (0, 0));
    }

    #[test]
    fn late_replies_count_as_calls_until_they_come_or_are_given_up() {
        let at = Moment::from_micros;
        let mut pending = pending(u64::MAX, 2, false);
        let (one, two) = (pending.add(Who::Call(0), 0), pending.add(Who::Call(1), 0));
        pending.add(Who::Bell, 0);
        assert!(!pending.has_room());
        pending.abandon(one, at(100));
        pending.abandon(two, at(200));
        assert!(!pending.has_room());
        assert_eq!(pending.next_expiry(), Some(at(100)));
        assert!(pending.expire(at(150)));
        assert!(pending.has_room() && !pending.expire(at(150)));
        assert_eq!(pending.find(one), None);
        pending.remove(two);
        assert_eq!(pending.next_expiry(), None);
    }

    #[test]
    fn without_sequences_the_oldest_is_next() {
        let mut pending = pending(u64::MAX, 10, true);
        let sequences: Vec<u64> = (0..5).map(|token| pending.add(Who::Call(token), 0)).collect();
        for sequence in sequences {
            assert_eq!(pending.oldest(), Some(sequence));
            pending.remove(sequence);
        }
        assert_eq!(pending.oldest(), None);
    }
}
