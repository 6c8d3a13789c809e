//! Pushes that are with proxies, and not answered yet.
//!
//! What one stream may have in flight is bounded by number and by bytes. A push stays in flight
//! until its proxy has answered it, whether or not anybody waits for the answer any more: a proxy
//! that falls behind gets no more than it can bear.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::presence::StreamId;
use super::push::Outcome;

/// Bytes of pushes that one stream may have in flight. One push may always be.
pub const MAX_BYTES: usize = 16 << 20;

#[derive(Default)]
pub struct InFlight(Mutex<Held>);

#[derive(Default)]
struct Held {
    last: u64,
    pushes: HashMap<u64, Waiting>,
    streams: HashMap<StreamId, Load>,
}

struct Waiting {
    stream: StreamId,
    sessions: u32,
    bytes: usize,
    tell: oneshot::Sender<Outcome>,
}

#[derive(Clone, Copy, Default)]
struct Load {
    pushes: usize,
    bytes: usize,
}

/// A stream has as much in flight as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A push that is with a proxy.
pub struct Flight {
    pub reference: u64,
    sessions: u32,
    outcome: oneshot::Receiver<Outcome>,
}

impl Flight {
    /// What came of it. Without an answer (the stream is lost, or `in_time` is over) nothing is
    /// known.
    pub async fn outcome(self, in_time: tokio::time::Instant) -> Outcome {
        match tokio::time::timeout_at(in_time, self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome { unconfirmed: self.sessions, ..Outcome::default() },
        }
    }
}

impl InFlight {
    /// A push for so many sessions of a stream, with so many bytes, is about to be sent.
    pub fn begin(
        &self,
        stream: StreamId,
        sessions: u32,
        bytes: usize,
        limit: usize,
    ) -> Result<Flight, Full> {
        let mut held = self.lock();
        let load = held.streams.get(&stream).copied().unwrap_or_default();
        let next =
            Load { pushes: load.pushes.saturating_add(1), bytes: load.bytes.saturating_add(bytes) };
        if load.pushes > 0 && (next.pushes > limit || next.bytes > MAX_BYTES) {
            return Err(Full);
        }
        held.streams.insert(stream, next);
        held.last = held.last.wrapping_add(1);
        let reference = held.last;
        let (tell, outcome) = oneshot::channel();
        held.pushes.insert(reference, Waiting { stream, sessions, bytes, tell });
        Ok(Flight { reference, sessions, outcome })
    }

    /// A proxy answered. What does not add up to the push's sessions is nobody's word.
    pub fn answered(&self, stream: StreamId, reference: u64, outcome: Outcome) {
        let mut held = self.lock();
        if held.pushes.get(&reference).is_none_or(|waiting| waiting.stream != stream) {
            return;
        }
        let Some(waiting) = held.pushes.remove(&reference) else { return };
        if let Some(load) = held.streams.get_mut(&stream) {
            load.pushes = load.pushes.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(waiting.bytes);
        }
        drop(held);
        let Outcome { delivered, gone, slow, refused, .. } = outcome;
        let told = [delivered, gone, slow, refused].into_iter().try_fold(0_u32, u32::checked_add);
        if told == Some(waiting.sessions) {
            // Nobody may be waiting any more.
            let _ = waiting.tell.send(outcome);
        }
    }

    /// The stream is lost, and with it the answers.
    pub fn lost(&self, stream: StreamId) {
        let mut held = self.lock();
        if held.streams.remove(&stream).is_some_and(|load| load.pushes > 0) {
            held.pushes.retain(|_, waiting| waiting.stream != stream);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().pushes.len()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const ONE: StreamId = StreamId(1);
    const TWO: StreamId = StreamId(2);

    fn delivered(delivered: u32) -> Outcome {
        Outcome { delivered, ..Outcome::default() }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn an_answer_counts_from_the_stream_that_was_asked_and_if_it_adds_up() {
        let flights = InFlight::default();
        let flight = flights.begin(ONE, 3, 10, 8).unwrap();
        flights.answered(TWO, flight.reference, delivered(3));
        assert_eq!(flights.count(), 1);
        flights.answered(ONE, flight.reference, delivered(3));
        assert_eq!(flight.outcome(later()).await, delivered(3));
        let flight = flights.begin(ONE, 3, 10, 8).unwrap();
        flights.answered(ONE, flight.reference, delivered(4));
        assert_eq!(flight.outcome(later()).await.unconfirmed, 3);
    }

    #[tokio::test]
    async fn a_stream_has_so_many_in_flight_and_no_more_until_it_answers() {
        let flights = InFlight::default();
        let first = flights.begin(ONE, 1, 10, 2).unwrap();
        // Whether anybody waits for it does not matter.
        drop(flights.begin(ONE, 1, 10, 2).unwrap());
        assert!(flights.begin(ONE, 1, 10, 2).is_err());
        assert!(flights.begin(TWO, 1, 10, 2).is_ok());
        flights.answered(ONE, first.reference, delivered(1));
        assert!(flights.begin(ONE, 1, 10, 2).is_ok());
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_one_push_may_be_larger() {
        let flights = InFlight::default();
        let large = flights.begin(ONE, 1, MAX_BYTES + 1, 8).unwrap();
        assert!(flights.begin(ONE, 1, 1, 8).is_err());
        flights.answered(ONE, large.reference, delivered(1));
        assert!(flights.begin(ONE, 1, 1, 8).is_ok());
    }

    #[tokio::test]
    async fn without_an_answer_nothing_is_confirmed() {
        let flights = InFlight::default();
        let lost = flights.begin(ONE, 5, 10, 8).unwrap();
        flights.lost(ONE);
        assert_eq!(lost.outcome(later()).await.unconfirmed, 5);
        let late = flights.begin(TWO, 7, 10, 8).unwrap();
        assert_eq!(late.outcome(Instant::now()).await.unconfirmed, 7);
        assert_eq!(flights.count(), 1, "it still weighs on its stream");
    }
}
