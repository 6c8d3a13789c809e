//! How often something may happen: a token bucket on the caller's clock.

use std::time::Duration;

use crate::time::Moment;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often it may happen in the long run.
    pub per_second: u32,
    /// How often it may happen at once after a quiet time; at least 1.
    pub burst: u32,
}

/// Counts against a [`Rate`]. Sixteen bytes, so that each connection can have its own.
///
/// It keeps the moment at which the bucket will be full again (the generic cell rate algorithm):
/// taking moves that moment on by one interval, and no more may be taken than fits the burst.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    full_at: Moment,
}

impl Bucket {
    /// A full bucket.
    pub const fn new() -> Self {
        Self { full_at: Moment::from_micros(0) }
    }

    /// Takes one, if one is there. A rate of 0 a second allows nothing once the burst is used
    /// up; a clock that goes backwards takes nothing away and gives nothing.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now: Moment) -> bool {
        // Nothing in this takes a branch on the common path but the last comparison.
        let interval = rate.interval();
        let from = self.full_at.max(now);
        let full_at = from.after(interval);
        let allowed = full_at.since(now) <= interval.saturating_mul(rate.burst.max(1));
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

impl Rate {
    /// A day: with a rate of 0 a bucket that was emptied stays so for longer than a connection.
    const NEVER: Duration = Duration::from_secs(86_400);

    /// The time in which one token comes back.
    fn interval(self) -> Duration {
        match 1_000_000_u64.checked_div(u64::from(self.per_second)) {
            // Above a million a second the clock's microseconds do not tell them apart.
            Some(micros) => Duration::from_micros(micros.max(1)),
            None => Self::NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate { per_second: 10, burst: 3 };

    fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000 + millis * 1_000)
    }

    #[test]
    fn a_burst_passes_at_once_and_no_more() {
        let mut bucket = Bucket::new();
        let taken = (0..10).filter(|_| bucket.take(TEN, at(0))).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn one_comes_back_after_each_interval() {
        let mut bucket = Bucket::new();
        while bucket.take(TEN, at(0)) {}
        assert!(!bucket.take(TEN, at(99)));
        assert!(bucket.take(TEN, at(100)));
        assert!(!bucket.take(TEN, at(150)));
        assert!(bucket.take(TEN, at(200)));
    }

    #[test]
    fn a_quiet_time_fills_it_up_to_the_burst_only() {
        let mut bucket = Bucket::new();
        while bucket.take(TEN, at(0)) {}
        let taken = (0..100).filter(|_| bucket.take(TEN, at(60_000))).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn the_long_run_holds_the_rate() {
        let mut bucket = Bucket::new();
        let taken = (0..10_000).filter(|millis| bucket.take(TEN, at(*millis))).count();
        assert_eq!(taken, 102, "10 seconds at 10 a second, and the burst");
    }

    #[test]
    fn a_clock_that_goes_backwards_gives_nothing() {
        let mut bucket = Bucket::new();
        while bucket.take(TEN, at(500)) {}
        assert!(!bucket.take(TEN, at(0)));
    }

    #[test]
    fn a_rate_of_zero_allows_its_burst_and_no_more() {
        let rate = Rate { per_second: 0, burst: 2 };
        let mut bucket = Bucket::new();
        assert!(bucket.take(rate, at(0)));
        assert!(bucket.take(rate, at(0)));
        assert!(!bucket.take(rate, at(3_600_000)));
    }

    #[test]
    fn a_burst_of_zero_counts_as_one() {
        let mut bucket = Bucket::new();
        assert!(bucket.take(Rate { per_second: 1, burst: 0 }, at(0)));
        assert!(!bucket.take(Rate { per_second: 1, burst: 0 }, at(0)));
    }

    #[test]
    fn the_first_moment_of_the_clock_is_as_good_as_any() {
        let mut bucket = Bucket::new();
        assert!(bucket.take(TEN, Moment::from_micros(0)));
    }
}
