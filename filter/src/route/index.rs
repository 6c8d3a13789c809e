//! From a command to the place of its route in one step, whatever the number of commands.

/// No route.
const NONE: u16 = u16::MAX;

/// Numbers below this are looked up in an array; it takes two bytes for each number up to the
/// greatest one in use.
const DENSE: u64 = 1 << 16;

/// Number → route.
#[derive(Debug, Default)]
pub struct Numbers {
    dense: Box<[u16]>,
    sparse: Slots,
    single: Box<[(u64, u16)]>,
    /// Ranges of numbers above the array, in order. There are few, so halving finds the one.
    ranges: Box<[(u64, u64, u16)]>,
}

impl Numbers {
    /// From `(first, last, route)` that do not overlap.
    pub fn new(spans: Vec<(u64, u64, u16)>) -> Self {
        let last_dense = DENSE.saturating_sub(1);
        let dense_len = spans
            .iter()
            .filter(|(first, _, _)| *first < DENSE)
            .map(|(_, last, _)| to_usize(*last.min(&last_dense)).saturating_add(1))
            .max()
            .unwrap_or(0);
        let mut dense = vec![NONE; dense_len];
        let mut single = Vec::new();
        let mut ranges: Vec<(u64, u64, u16)> = Vec::new();
        for (first, last, route) in spans {
            if first < DENSE {
                let span = to_usize(first)..=to_usize(last.min(last_dense));
                dense.get_mut(span).into_iter().flatten().for_each(|slot| *slot = route);
            }
            let above = first.max(DENSE);
            match last.cmp(&above) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => single.push((above, route)),
                std::cmp::Ordering::Greater => {
                    let place = ranges.partition_point(|(first, _, _)| *first < above);
                    ranges.insert(place, (above, last, route));
                }
            }
        }
        let hashes = single.iter().map(|(number, _)| hash_number(*number));
        Self {
            dense: dense.into(),
            sparse: Slots::new(hashes),
            single: single.into(),
            ranges: ranges.into(),
        }
    }

    pub fn find(&self, number: u64) -> Option<u16> {
        if number < DENSE {
            return self.dense.get(to_usize(number)).copied().filter(|route| *route != NONE);
        }
        let is_it = |place: u16| self.single.get(usize::from(place)).filter(|at| at.0 == number);
        if let Some((_, route)) = self.sparse.find(hash_number(number), is_it) {
            return Some(*route);
        }
        let after = self.ranges.partition_point(|(first, _, _)| *first <= number);
        let (_, last, route) = self.ranges.get(after.checked_sub(1)?)?;
        (number <= *last).then_some(*route)
    }
}

/// Text → route.
#[derive(Debug, Default)]
pub struct Texts {
    slots: Slots,
    entries: Box<[(Box<[u8]>, u16)]>,
}

impl Texts {
    /// From texts that differ.
    pub fn new(entries: Vec<(Box<[u8]>, u16)>) -> Self {
        let slots = Slots::new(entries.iter().map(|(text, _)| hash_text(text)));
        Self { slots, entries: entries.into() }
    }

    pub fn find(&self, text: &[u8]) -> Option<u16> {
        let is_it = |place: u16| self.entries.get(usize::from(place)).filter(|at| *at.0 == *text);
        self.slots.find(hash_text(text), is_it).map(|(_, route)| *route)
    }
}

/// Places by hash, open addressing, at most half full. The keys come from the configuration, so
/// nobody can make them collide; what clients ask for is only looked up.
#[derive(Debug, Default)]
struct Slots {
    slots: Box<[u16]>,
}

impl Slots {
    fn new(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        if hashes.len() == 0 {
            return Self::default();
        }
        let mut slots = vec![NONE; hashes.len().saturating_mul(2).next_power_of_two()];
        let mask = slots.len().saturating_sub(1);
        for (hash, place) in hashes.zip(0..NONE) {
            let mut at = to_usize(hash) & mask;
            while slots.get(at).is_some_and(|slot| *slot != NONE) {
                at = at.wrapping_add(1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = place;
            }
        }
        Self { slots: slots.into() }
    }

    /// What `is_it` gives for the first place of this hash for which it gives something.
    fn find<T>(&self, hash: u64, is_it: impl Fn(u16) -> Option<T>) -> Option<T> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = to_usize(hash) & mask;
        loop {
            let place = self.slots.get(at).copied().filter(|place| *place != NONE)?;
            if let Some(found) = is_it(place) {
                return Some(found);
            }
            at = at.wrapping_add(1) & mask;
        }
    }
}

/// Spreads numbers that differ in few bits: multiplication by 2^64 over the golden ratio, folded
/// so that the low bits depend on all.
pub(crate) fn hash_number(number: u64) -> u64 {
    let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product.wrapping_shr(32)
}

/// FNV-1a, 64 bits, folded. Commands are short.
pub(crate) fn hash_text(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ hash.wrapping_shr(32)
}

/// The low bits of a number; exact for what is below [`DENSE`] and enough for hashes.
const fn to_usize(number: u64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_below_and_above_the_array() {
        let numbers = Numbers::new(vec![
            (0, 0, 1),
            (65_530, 65_540, 2),
            (70_000, 70_000, 3),
            (80_000, 90_000, 4),
            (u64::MAX, u64::MAX, 5),
        ]);
        let expected = [
            (0, Some(1)),
            (1, None),
            (65_529, None),
            (65_530, Some(2)),
            (65_535, Some(2)),
            (65_536, Some(2)),
            (65_540, Some(2)),
            (65_541, None),
            (70_000, Some(3)),
            (79_999, None),
            (80_000, Some(4)),
            (90_000, Some(4)),
            (90_001, None),
            (u64::MAX, Some(5)),
        ];
        for (number, route) in expected {
            assert_eq!(numbers.find(number), route, "{number}");
        }
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        assert_eq!(Numbers::default().find(0), None);
        assert_eq!(Numbers::default().find(u64::MAX), None);
        assert_eq!(Texts::default().find(b""), None);
    }

    #[test]
    fn every_one_of_many_sparse_numbers_is_found_and_its_neighbour_is_not() {
        let spans: Vec<_> = (0..10_000_u16).map(|n| (1_000_000 + u64::from(n) * 7, n)).collect();
        let numbers = Numbers::new(spans.iter().map(|(n, route)| (*n, *n, *route)).collect());
        for (number, route) in spans {
            assert_eq!(numbers.find(number), Some(route));
            assert_eq!(numbers.find(number + 1), None);
        }
    }

    #[test]
    fn probes_stay_short_with_ten_thousand_commands() {
        // Distances from the slot that the hash names to the place, for regular numbers and names.
        let longest = |hashes: Vec<u64>| {
            let slots = Slots::new(hashes.iter().copied());
            let mask = slots.slots.len() - 1;
            let places = slots.slots.iter().enumerate().filter(|(_, place)| **place != NONE);
            let distance = |(at, place): (usize, &u16)| {
                at.wrapping_sub(to_usize(hashes[usize::from(*place)])) & mask
            };
            places.map(distance).max().unwrap()
        };
        let dense = (0..10_000).map(|n| hash_number(100_000 + n)).collect();
        let strided = (0..10_000).map(|n| hash_number(n << 20)).collect();
        let names = (0..10_000).map(|n| hash_text(format!("cmd_{n}").as_bytes())).collect();
        for hashes in [dense, strided, names] {
            let longest = longest(hashes);
            assert!(longest < 64, "{longest}");
        }
    }
}
