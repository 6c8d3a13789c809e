//! The streams that we ended ourselves, on which frames may still be under way.

use std::collections::VecDeque;

/// An upstream that sends on after *it* ended a stream breaks the protocol; one that had not yet
/// read our RST_STREAM does not (RFC 9113 section 5.1). Stream numbers are remembered to tell the
/// two apart.
#[derive(Debug, Default)]
pub(super) struct Resets {
    recent: VecDeque<u32>,
    /// Numbers up to here get the benefit of the doubt, because some of them are forgotten.
    forgotten: u32,
}

impl Resets {
    /// How many are remembered one by one.
    const REMEMBERED: usize = 64;

    pub fn add(&mut self, stream: u32) {
        if self.recent.len() >= Self::REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.recent.push_back(stream);
    }

    /// Counts every stream up to `stream` as ended by us.
    pub fn add_all(&mut self, stream: u32) {
        self.forgotten = self.forgotten.max(stream);
        self.recent.retain(|recent| *recent > stream);
    }

    pub fn covers(&self, stream: u32) -> bool {
        stream <= self.forgotten || self.recent.contains(&stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_we_reset_is_covered_and_its_neighbour_is_not() {
        let mut resets = Resets::default();
        resets.add(7);
        assert!(resets.covers(7));
        assert!(!resets.covers(5));
        assert!(!resets.covers(9));
    }

    #[test]
    fn covering_all_up_to_one_leaves_the_later_ones_as_they_were() {
        let mut resets = Resets::default();
        resets.add(3);
        resets.add(9);
        resets.add_all(5);
        assert!(resets.covers(1) && resets.covers(3) && resets.covers(5) && resets.covers(9));
        assert!(!resets.covers(7));
    }

    #[test]
    fn what_is_forgotten_is_covered_and_memory_is_bounded() {
        let mut resets = Resets::default();
        for stream in (1..10_000).step_by(2) {
            resets.add(stream);
        }
        assert!((1..10_000).step_by(2).all(|stream| resets.covers(stream)));
        assert!(!resets.covers(10_001));
        assert!(resets.recent.len() <= Resets::REMEMBERED);
    }
}
