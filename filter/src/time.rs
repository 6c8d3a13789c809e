//! Time as protocol code sees it: handed in by the caller, never read from a clock.

use std::time::Duration;

/// A point on a monotonic clock, in microseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; the end of time if that overflows.
    pub fn after(self, duration: Duration) -> Self {
        // In 64 bits, without a check of the product: those of 128 are slow in Wasm, and this
        // runs for every call.
        const MOST: u64 = u64::MAX / 2_000_000;
        if duration.as_secs() > MOST {
            return Self::MAX;
        }
        let seconds = duration.as_secs().wrapping_mul(1_000_000);
        Self(self.0.saturating_add(seconds).saturating_add(u64::from(duration.subsec_micros())))
    }

    /// The microseconds that passed since `earlier`; 0 if `earlier` is later.
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_added_to_the_microsecond_and_time_ends() {
        let start = Moment::from_micros(7);
        assert_eq!(start.after(Duration::from_micros(3_000_001)).micros(), 3_000_008);
        assert_eq!(start.after(Duration::from_nanos(1_999)).micros(), 8);
        assert_eq!(start.after(Duration::MAX), Moment::MAX);
        assert_eq!(Moment::MAX.after(Duration::from_micros(1)), Moment::MAX);
        assert_eq!(start.micros_since(Moment::MAX), 0);
    }
}
