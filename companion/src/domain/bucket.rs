//! Token buckets: how often something may happen, in all and for each client address.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm,
//! ITU-T I.371, in its virtual-scheduling form): taking a token moves that time by one interval,
//! and a token is there as long as it lies less than a whole bucket ahead.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::time::UnixMillis;

/// `burst` at once, and `per_second` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds until one token is back.
    interval: u64,
    /// Microseconds until an empty bucket is full.
    depth: u64,
}

impl Rate {
    /// `per_second` and `burst` of at least one; less is taken for one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        let interval = match 1_000_000 / per_second as u64 {
            0 => 1,
            interval => interval,
        };
        Self::every_micros(interval, burst)
    }

    /// One in so many seconds in the long run, which may be fewer than one a second.
    pub const fn every_seconds(seconds: u32, burst: u32) -> Self {
        let seconds = if seconds == 0 { 1 } else { seconds };
        Self::every_micros(seconds as u64 * 1_000_000, burst)
    }

    const fn every_micros(interval: u64, burst: u32) -> Self {
        let burst = if burst == 0 { 1 } else { burst };
        Self { interval, depth: interval.saturating_mul(burst as u64) }
    }
}

/// One bucket; full at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When it is full again, in microseconds since the Unix epoch.
    full_at: u64,
}

impl Bucket {
    /// Takes a token, if there is one.
    pub fn take(&mut self, rate: Rate, now: UnixMillis) -> bool {
        let now = now.0.saturating_mul(1000);
        // No further ahead than an empty bucket: the clock may have been set back.
        let full_at = self.full_at.clamp(now, now.saturating_add(rate.depth));
        let after = full_at.saturating_add(rate.interval);
        let is_there = after <= now.saturating_add(rate.depth);
        self.full_at = if is_there { after } else { full_at };
        is_there
    }
}

/// What counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that one
/// subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(u64);

impl Origin {
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Of a client's address and port as proxies write it, `203.0.113.7:40112` or
    /// `[2001:db8::1]:40112`. What is no address counts as one client altogether.
    pub fn of(peer: &str) -> Self {
        let ip = peer.parse::<SocketAddr>().map(|peer| peer.ip()).or_else(|_| peer.parse());
        match ip.map(|ip: IpAddr| ip.to_canonical()) {
            Ok(IpAddr::V4(v4)) => Self(u64::from(u32::from(v4)) | 0xffff << 32),
            Ok(IpAddr::V6(v6)) => {
                let [a, b, c, d, ..] = v6.segments();
                Self([a, b, c, d].iter().fold(0, |id, part| id << 16 | u64::from(*part)))
            }
            Err(_) => Self(u64::MAX),
        }
    }
}

/// A bucket for each client, for a bounded number of them.
///
/// Two generations: when the young one is full, the old one is forgotten with all clients that
/// were silent since. Whoever comes from ever new addresses makes this forget, and meets the
/// bucket of all clients together.
#[derive(Debug, Default)]
pub struct Buckets {
    young: HashMap<Origin, Bucket>,
    old: HashMap<Origin, Bucket>,
}

/// Clients in one generation; two have some 4 MiB at most.
const GENERATION: usize = 65_536;

impl Buckets {
    /// Takes a token of this client's, if there is one.
    pub fn take(&mut self, origin: Origin, rate: Rate, now: UnixMillis) -> bool {
        if let Some(bucket) = self.young.get_mut(&origin) {
            return bucket.take(rate, now);
        }
        let mut bucket = self.old.remove(&origin).unwrap_or_default();
        let taken = bucket.take(rate, now);
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(origin, bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn taken(bucket: &mut Bucket, rate: Rate, now: UnixMillis) -> usize {
        (0..1000).take_while(|_| bucket.take(rate, now)).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, rate, NOW), 5);
        assert_eq!(taken(&mut bucket, rate, NOW.after(Duration::from_millis(99))), 0);
        assert_eq!(taken(&mut bucket, rate, NOW.after(Duration::from_millis(100))), 1);
        assert_eq!(taken(&mut bucket, rate, NOW.after(Duration::from_secs(3600))), 5);
        let slow = Rate::every_seconds(10, 2);
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, slow, NOW), 2);
        assert_eq!(taken(&mut bucket, slow, NOW.after(Duration::from_secs(9))), 0);
        assert_eq!(taken(&mut bucket, slow, NOW.after(Duration::from_secs(10))), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nobody_for_longer_than_an_empty_bucket() {
        let rate = Rate::new(1, 3);
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, rate, NOW), 3);
        let earlier = UnixMillis(NOW.0 - 86_400_000);
        assert_eq!(taken(&mut bucket, rate, earlier), 0);
        assert_eq!(taken(&mut bucket, rate, earlier.after(Duration::from_secs(1))), 1);
    }

    #[test]
    fn each_client_has_its_own_bucket_and_an_ipv6_network_one() {
        let (mut buckets, rate) = (Buckets::default(), Rate::new(1, 1));
        for (peer, alone) in [
            ("203.0.113.7:1", true),
            ("203.0.113.7:2", false),
            ("203.0.113.8:1", true),
            ("[::ffff:203.0.113.7]:3", false),
            ("[2001:db8:1:2::1]:1", true),
            ("[2001:db8:1:2:ffff::9]:1", false),
            ("[2001:db8:1:3::1]:1", true),
            ("@pipe", true),
            ("", false),
        ] {
            assert_eq!(buckets.take(Origin::of(peer), rate, NOW), alone, "{peer}");
        }
    }

    #[test]
    fn clients_without_end_are_not_kept_without_end() {
        let (mut buckets, rate) = (Buckets::default(), Rate::new(1, 1));
        assert!(buckets.take(Origin(u64::MAX), rate, NOW));
        for number in 0..10 * GENERATION as u64 {
            assert!(buckets.take(Origin(number), rate, NOW));
            assert!(buckets.young.len() <= GENERATION && buckets.old.len() <= GENERATION);
        }
        assert!(!buckets.take(Origin(10 * GENERATION as u64 - 1), rate, NOW));
    }
}
