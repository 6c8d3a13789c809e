//! Trace context: `traceparent`, as W3C Trace Context level 1 writes it.

/// A small generator for identifiers that need not be secret (xorshift64*, Vigna 2014).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// `seed` comes from the host; zero would stay zero and is replaced.
    pub fn new(seed: u64) -> Self {
        Self(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    pub fn next_u64(&mut self) -> u64 {
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The length of a traceparent: `00-` trace id `-` parent id `-01`.
pub const TRACEPARENT_LEN: usize = 55;

/// A new trace, sampled.
pub fn new_traceparent(random: &mut Random) -> [u8; TRACEPARENT_LEN] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let ids = [random.next_u64() | 1, random.next_u64(), random.next_u64() | 1];
    for (id, start) in ids.into_iter().zip([3usize, 19, 36]) {
        let digits = text.iter_mut().skip(start).take(16);
        for (digit, shift) in digits.zip((0u32..64).step_by(4).rev()) {
            let nibble = (id >> shift) as u8 & 0xf;
            *digit = if nibble < 10 { b'0' | nibble } else { nibble.wrapping_add(b'a' - 10) };
        }
    }
    text
}

/// Whether a client's text is a traceparent that may be passed on.
pub fn is_traceparent(text: &[u8]) -> bool {
    let shape = b"hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    let fits = |(&byte, &shape): (&u8, &u8)| match shape {
        b'-' => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    let all_zero = |part: Option<&[u8]>| part.is_some_and(|p| p.iter().all(|&b| b == b'0'));
    text.len() == TRACEPARENT_LEN
        && text.iter().zip(shape).all(fits)
        && !text.starts_with(b"ff")
        && !all_zero(text.get(3..35))
        && !all_zero(text.get(36..52))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_trace_is_valid_and_unlike_the_one_before() {
        let mut random = Random::new(7);
        let (first, second) = (new_traceparent(&mut random), new_traceparent(&mut random));
        assert!(is_traceparent(&first) && is_traceparent(&second));
        assert_ne!(first, second);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for at in 0..good.len() {
            let mut bad = *good;
            bad[at] = b'X';
            assert!(!is_traceparent(&bad), "at {at}");
        }
        assert!(!is_traceparent(&good[..54]));
        assert!(!is_traceparent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
        assert!(!is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
    }
}
