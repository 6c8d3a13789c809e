//! Latencies, counted in buckets that are at most 1/64 wide.

/// Buckets of one octave.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, 18 minutes.
const OCTAVES: usize = 40 - STEP_BITS as usize + 1;

/// Counts of durations in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; OCTAVES * STEPS as usize], total: 0 }
    }
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(nanos).min(last)] += 1;
        self.total += 1;
    }

    pub fn len(&self) -> u64 {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration, in microseconds, that the share `quantile` (0 to 1) does not exceed: the
    /// middle of its bucket. 0 if nothing was recorded.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(bucket) / 1000.0;
            }
        }
        0.0
    }
}

/// Values below 64 have a bucket each, then every octave has 64.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    ((u64::from(shift) + 1) * STEPS + (nanos >> shift) - STEPS) as usize
}

fn middle(bucket: usize) -> f64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if octave == 0 {
        return step as f64;
    }
    let width = 1u64 << (octave - 1);
    ((STEPS + step) * width) as f64 + width as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for nanos in (0..100_000u64).chain((100_000..50_000_000).step_by(977)) {
            let bucket = bucket(nanos);
            assert!(bucket >= last);
            last = bucket;
            let error = (middle(bucket) - nanos as f64).abs();
            assert!(error <= nanos as f64 / 64.0, "{nanos}: {}", middle(bucket));
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|micros| histogram.record(micros * 1000));
        for (quantile, micros) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let got = histogram.quantile_us(quantile);
            assert!((got - micros).abs() < micros / 50.0, "{quantile}: {got}");
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.len(), 1);
        assert!(histogram.quantile_us(1.0) > 1e8);
    }
}
