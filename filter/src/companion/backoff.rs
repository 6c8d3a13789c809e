//! How long to wait until the next try.

use std::time::Duration;

/// The longest pause after the first failure.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause of all: a companion that comes back is found within it.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double up to [`LONGEST`]. Of each, the second half is random, so that workers
/// whose streams broke together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    /// State of a SplitMix64 generator: it spreads, it does not protect.
    random: u64,
}

impl Backoff {
    pub const fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after another failure.
    pub fn next(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1).min(31);
        self.jittered(FIRST.saturating_mul(factor).min(LONGEST))
    }

    /// A pause for a failure that only an operator can mend.
    pub fn longest(&mut self) -> Duration {
        self.jittered(LONGEST)
    }

    fn jittered(&mut self, pause: Duration) -> Duration {
        let half = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX);
        let random = self.random().checked_rem(half.saturating_add(1)).unwrap_or(0);
        Duration::from_micros(half.saturating_add(random))
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_within_their_half() {
        let mut backoff = Backoff::new(7);
        let mut most = FIRST;
        for _ in 0..100 {
            let pause = backoff.next();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(LONGEST);
        }
    }

    #[test]
    fn workers_of_different_seeds_come_back_at_different_times() {
        let pauses: std::collections::BTreeSet<_> =
            (0..64).map(|seed| Backoff::new(seed).next()).collect();
        assert!(pauses.len() > 60, "{} different pauses", pauses.len());
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(7);
        for _ in 0..10 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
