//! Log lines that peers cause are rationed: one noisy client fills no disk, and hides nobody.

use std::sync::{Mutex, PoisonError};

use super::bucket::{Bucket, Buckets, Origin, Rate};
use super::time::UnixMillis;

/// Of one client address: a few at once, then one in ten seconds.
const OF_ONE: Rate = Rate::every_seconds(10, 5);
/// Of all together: what a person can still look through.
const OF_ALL: Rate = Rate::new(50, 200);

/// Decides whether a line is written.
#[derive(Debug, Default)]
pub struct Ration(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    of_one: Buckets,
    of_all: Bucket,
    held_back: u64,
}

impl Ration {
    /// Whether to write a line about this client, and how many lines, of whomever, were held
    /// back since the last one.
    pub fn line(&self, peer: &str, now: UnixMillis) -> Option<u64> {
        // Nothing panics while the lock is held; if it did, the numbers are still good.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The client's own ration first: what it is refused costs the others nothing.
        if state.of_one.take(Origin::of(peer), OF_ONE, now) && state.of_all.take(OF_ALL, now) {
            return Some(std::mem::take(&mut state.held_back));
        }
        state.held_back = state.held_back.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn a_noisy_client_is_silenced_and_counted_and_others_are_heard() {
        let ration = Ration::default();
        let written = (0..100).filter(|_| ration.line("192.0.2.1:5", NOW).is_some()).count();
        assert_eq!(written, 5);
        assert_eq!(ration.line("192.0.2.2:5", NOW), Some(95));
        assert_eq!(ration.line("192.0.2.1:5", NOW.after(Duration::from_secs(10))), Some(0));
    }

    #[test]
    fn many_clients_together_have_a_ration_too() {
        let ration = Ration::default();
        let line = |n: u32| ration.line(&format!("10.0.{}.{}:1", n / 256, n % 256), NOW).is_some();
        assert_eq!((0..1000).filter(|n| line(*n)).count(), 200);
    }
}
