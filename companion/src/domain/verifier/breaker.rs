//! The circuit breaker: a login server that fails is left alone for a while.
//!
//! ```text
//!              `failures` in a row                the pause is over: one attempt
//!   closed ────────────────────────▶ open ───────────────────────────────────▶ half open
//!      ▲                              ▲                                            │ │
//!      │                              └──────────────── it fails ──────────────────┘ │
//!      └──────────────────────────────────────────────── it succeeds ────────────────┘
//! ```
//!
//! An attempt that began before the last change says nothing about what is now.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::time::UnixMillis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many failures in a row open it.
    pub failures: u32,
    /// For so long.
    pub pause: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { failures: 10, pause: Duration::from_secs(2) }
    }
}

#[derive(Debug, Default)]
pub struct Breaker(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// Counts changes of the state.
    era: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: UnixMillis,
    },
    /// One attempt is under way. If nobody hears of it any more, another one may go then.
    HalfOpen {
        until: UnixMillis,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// The permission to try.
#[derive(Debug)]
pub struct Attempt {
    era: u64,
}

/// What an attempt changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened,
    Closed,
}

impl Breaker {
    /// `closed`, `open`, `half_open`.
    pub fn state(&self) -> &'static str {
        match self.lock().state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    pub fn enter(&self, rules: Rules, now: UnixMillis) -> Option<Attempt> {
        let mut inner = self.lock();
        if let State::Open { until } | State::HalfOpen { until } = inner.state {
            // Further ahead than a pause: the clock was set back.
            if now < until && until <= now.after(rules.pause) {
                return None;
            }
            inner.change(State::HalfOpen { until: now.after(rules.pause) });
        }
        Some(Attempt { era: inner.era })
    }

    pub fn leave(
        &self,
        rules: Rules,
        attempt: Attempt,
        good: bool,
        now: UnixMillis,
    ) -> Option<Change> {
        let mut inner = self.lock();
        if attempt.era != inner.era {
            return None;
        }
        match (&mut inner.state, good) {
            (State::Closed { failures }, true) => {
                *failures = 0;
                None
            }
            (State::Closed { failures }, false) => {
                *failures = failures.saturating_add(1);
                if *failures < rules.failures {
                    return None;
                }
                inner.change(State::Open { until: now.after(rules.pause) });
                Some(Change::Opened)
            }
            (_, true) => {
                inner.change(State::default());
                Some(Change::Closed)
            }
            // Open already, as far as anybody was told.
            (_, false) => {
                inner.change(State::Open { until: now.after(rules.pause) });
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn change(&mut self, state: State) {
        self.state = state;
        self.era = self.era.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const RULES: Rules = Rules { failures: 3, pause: Duration::from_secs(2) };

    fn at(millis: u64) -> UnixMillis {
        UnixMillis(NOW.0 + millis)
    }

    fn fails(breaker: &Breaker, now: UnixMillis) -> Option<Change> {
        let attempt = breaker.enter(RULES, now).unwrap();
        breaker.leave(RULES, attempt, false, now)
    }

    fn succeeds(breaker: &Breaker, now: UnixMillis) -> Option<Change> {
        let attempt = breaker.enter(RULES, now).unwrap();
        breaker.leave(RULES, attempt, true, now)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        assert_eq!((fails(&breaker, NOW), fails(&breaker, NOW)), (None, None));
        assert_eq!(fails(&breaker, NOW), Some(Change::Opened));
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            assert_eq!((fails(&breaker, NOW), fails(&breaker, NOW)), (None, None));
            assert_eq!(succeeds(&breaker, NOW), None);
        }
        assert_eq!(breaker.state(), "closed");
        assert_eq!(opened().state(), "open");
    }

    #[test]
    fn after_the_pause_one_attempt_decides() {
        let breaker = opened();
        assert!(breaker.enter(RULES, at(1999)).is_none());
        let probe = breaker.enter(RULES, at(2000)).unwrap();
        assert_eq!(breaker.state(), "half_open");
        assert!(breaker.enter(RULES, at(2000)).is_none(), "one, no more");
        assert_eq!(breaker.leave(RULES, probe, false, at(2500)), None);
        assert!(breaker.enter(RULES, at(4499)).is_none());
        let probe = breaker.enter(RULES, at(4500)).unwrap();
        assert_eq!(breaker.leave(RULES, probe, true, at(4600)), Some(Change::Closed));
        assert_eq!(breaker.state(), "closed");
        assert_eq!(fails(&breaker, at(4600)), None, "it counts from the beginning");
    }

    #[test]
    fn what_began_before_a_change_says_nothing_after_it() {
        let breaker = Breaker::default();
        let (early, late) =
            (breaker.enter(RULES, NOW).unwrap(), breaker.enter(RULES, NOW).unwrap());
        for _ in 0..3 {
            fails(&breaker, NOW);
        }
        assert_eq!(breaker.leave(RULES, early, true, at(10)), None);
        assert_eq!(breaker.state(), "open");
        let probe = breaker.enter(RULES, at(2000)).unwrap();
        assert_eq!(breaker.leave(RULES, late, false, at(2001)), None);
        assert_eq!(breaker.leave(RULES, probe, true, at(2002)), Some(Change::Closed));
    }

    #[test]
    fn an_attempt_that_is_never_heard_of_again_blocks_nothing_for_longer_than_a_pause() {
        let breaker = opened();
        assert!(breaker.enter(RULES, at(2000)).is_some());
        assert!(breaker.enter(RULES, at(3999)).is_none());
        assert!(breaker.enter(RULES, at(4000)).is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        let breaker = opened();
        let earlier = UnixMillis(NOW.0 - 3_600_000);
        assert!(breaker.enter(RULES, earlier).is_some());
    }
}
