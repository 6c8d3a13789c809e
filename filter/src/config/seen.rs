//! Finds what stands twice among many, without sorting: what clients say never comes here, so
//! nobody can make keys collide.

/// Numbers of keys that have been seen, by the hash of the key.
#[derive(Debug)]
pub struct Seen {
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Seen {
    /// Room for `count` keys, at most half full.
    pub fn with_room_for(count: usize) -> Self {
        let slots = count.saturating_mul(2).max(4).checked_next_power_of_two().unwrap_or(4);
        Self { slots: vec![EMPTY; slots] }
    }

    /// The number of the key that `same` recognises, if it was seen; else remembers `number`.
    pub fn insert(
        &mut self,
        hash: u64,
        number: usize,
        same: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let mask = self.slots.len().saturating_sub(1);
        let mut at = hash as usize & mask;
        // As many steps as slots: a full table would be a mistake of the caller's.
        for _ in 0..=mask {
            let slot = self.slots.get_mut(at)?;
            if *slot == EMPTY {
                *slot = u32::try_from(number).unwrap_or(EMPTY);
                return None;
            }
            let seen = *slot as usize;
            if same(seen) {
                return Some(seen);
            }
            at = at.wrapping_add(1) & mask;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_by_its_number() {
        let keys = ["a", "b", "a", "c", "b", "a"];
        let mut seen = Seen::with_room_for(keys.len());
        let found: Vec<Option<usize>> = keys
            .iter()
            .enumerate()
            // All in one slot: the worst that can happen.
            .map(|(number, key)| seen.insert(7, number, &|other| keys[other] == *key))
            .collect();
        assert_eq!(found, [None, None, Some(0), None, Some(1), Some(0)]);
    }
}
