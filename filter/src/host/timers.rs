//! When which connection wants to be looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Moment;

/// A heap of wake-ups. A connection may stand in it more than once: each keeps the earliest
/// moment that it has asked for, and asks again only for an earlier one, so that a busy
/// connection costs one entry for each deadline's length, not one for each call.
#[derive(Default)]
pub struct Timers(BinaryHeap<Reverse<(Moment, u32)>>);

impl Timers {
    pub fn schedule(&mut self, at: Moment, connection: u32) {
        self.0.push(Reverse((at, connection)));
    }

    /// The connections whose moment has come.
    pub fn take_due(&mut self, now: Moment) -> Vec<u32> {
        let mut due = Vec::new();
        while self.0.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            due.extend(self.0.pop().map(|Reverse((_, connection))| connection));
        }
        due
    }
}
