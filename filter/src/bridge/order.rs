//! Replies of layouts without a sequence number: the client tells them apart by their order, so
//! they leave in the order of the requests, however the service ends the calls.

use std::collections::VecDeque;

use crate::protocol::layout::{Reply, ReplySeed};

/// A reply that waits for those of earlier requests.
#[derive(Debug)]
pub struct Held {
    pub seed: ReplySeed,
    pub status: i64,
    pub error: bool,
    pub body: Vec<u8>,
    pub compress: bool,
}

/// The requests of one connection whose replies have not left, oldest first.
#[derive(Debug)]
pub struct Order {
    /// The turn of the oldest.
    next: u64,
    turns: VecDeque<Option<Held>>,
    /// Bytes in the bodies that are held.
    bytes: usize,
    max_turns: usize,
    max_bytes: usize,
}

impl Order {
    /// `max_turns` is how many replies may be outstanding before no further request is taken,
    /// `max_bytes` what the bodies that wait may have together.
    pub fn new(max_turns: usize, max_bytes: usize) -> Self {
        Self { next: 0, turns: VecDeque::new(), bytes: 0, max_turns, max_bytes }
    }

    /// No further request may be taken: the oldest has to be answered first.
    pub fn is_full(&self) -> bool {
        self.turns.len() >= self.max_turns
    }

    /// The turn of a request that is taken now.
    pub fn take(&mut self) -> u64 {
        let turn = self.next.wrapping_add(self.turns.len() as u64);
        self.turns.push_back(None);
        turn
    }

    /// Whether this turn's reply may leave at once.
    pub fn is_next(&self, turn: u64) -> bool {
        turn == self.next
    }

    /// Keeps the reply of a later turn. False if it is too much to be kept.
    #[must_use]
    pub fn hold(&mut self, turn: u64, seed: &ReplySeed, reply: Reply<'_>) -> bool {
        let size = reply.body.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        let bytes = self.bytes.saturating_add(size);
        let fits = bytes <= self.max_bytes || size == 0;
        let place = usize::try_from(turn.wrapping_sub(self.next)).ok();
        if fits && let Some(place) = place.and_then(|place| self.turns.get_mut(place)) {
            let (seed, body) = (seed.clone(), reply.body.concat());
            let Reply { status, error, compress, .. } = reply;
            *place = Some(Held { seed, status, error, body, compress });
            self.bytes = bytes;
        }
        fits
    }

    /// The oldest turn's reply has left.
    pub fn advance(&mut self) {
        if self.turns.pop_front().is_some() {
            self.next = self.next.wrapping_add(1);
        }
        if self.turns.is_empty() {
            // An idle connection holds no memory for replies that it once had.
            self.turns = VecDeque::new();
        }
    }

    /// The oldest turn's reply, if it is there.
    pub fn release(&mut self) -> Option<Held> {
        let held = self.turns.front_mut()?.take()?;
        self.bytes = self.bytes.saturating_sub(held.body.len());
        self.advance();
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::layout::{Decoded, Layout};

    fn seed() -> ReplySeed {
        let layout = Layout::from_json(
            r#"{"name": "tiny", "header": [
                {"name": "length", "type": "u8", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": "u8", "role": "command"}],
                "correlation": "order"}"#,
        );
        let layout = layout.unwrap();
        let Ok(Decoded::Frame(frame)) = layout.decode(&[2, 7], 16) else { panic!("a frame") };
        layout.seed(&frame)
    }

    fn reply<'a>(body: &'a [&'a [u8]]) -> Reply<'a> {
        Reply { status: 0, error: false, body, compress: false }
    }

    #[test]
    fn replies_are_released_in_the_order_of_their_turns() {
        let mut order = Order::new(8, 100);
        let turns: Vec<_> = (0..3).map(|_| order.take()).collect();
        assert!(order.hold(turns[2], &seed(), reply(&[b"third"])));
        assert!(order.hold(turns[1], &seed(), reply(&[b"sec", b"ond"])));
        assert!(order.release().is_none(), "the first has not left");
        assert!(order.is_next(turns[0]) && !order.is_next(turns[1]));
        order.advance();
        assert_eq!(order.release().unwrap().body, b"second");
        assert_eq!(order.release().unwrap().body, b"third");
        assert!(order.release().is_none());
        assert_eq!(order.take(), 3);
        assert!(order.is_next(3));
    }

    #[test]
    fn turns_and_bytes_are_bounded() {
        let mut order = Order::new(2, 10);
        let (_, second) = (order.take(), order.take());
        assert!(order.is_full());
        assert!(!order.hold(second, &seed(), reply(&[&[0; 11]])), "too much");
        assert!(order.hold(second, &seed(), reply(&[])), "an error has no body");
        order.advance();
        assert!(!order.is_full());
        let third = order.take();
        assert!(order.release().is_some());
        order.advance();
        let fourth = order.take();
        assert_eq!((third, fourth, order.bytes), (2, 3, 0));
    }
}
