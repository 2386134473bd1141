//! Durations by size, so that percentiles can be read off sums of them.
//!
//! A duration of `n` nanoseconds falls into a bucket by the place of its highest bit and the four
//! bits behind it: sixteen buckets for each doubling, and one for each nanosecond below sixteen. A
//! percentile is the middle of the bucket in which the sample of its rank lies, so it is off by
//! half a bucket at most: 1/32 of the sample, 3.125 %. Only buckets with something in them are
//! kept.

use std::time::Duration;

/// Bits of a sample behind its highest one that choose the bucket.
const SUB_BITS: u32 = 4;
/// Buckets for each doubling.
const PER_DOUBLING: u64 = 1 << SUB_BITS;

/// Buckets that there are: of 64 bits, those below 16 and 60 doublings.
pub const BUCKETS: usize = (PER_DOUBLING as usize) * 61;

/// A duration on its way into histograms: its bucket is found once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    bucket: u16,
    nanoseconds: u64,
}

impl Sample {
    /// Of a duration; above 584 years it stays there.
    pub fn of(duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bucket: bucket(nanoseconds),
            nanoseconds,
        }
    }
}

fn bucket(nanoseconds: u64) -> u16 {
    if nanoseconds < PER_DOUBLING {
        return nanoseconds as u16;
    }
    let highest = 63 - nanoseconds.leading_zeros();
    let below = (nanoseconds >> (highest - SUB_BITS)) & (PER_DOUBLING - 1);
    ((highest - SUB_BITS + 1) * PER_DOUBLING as u32) as u16 + below as u16
}

/// The middle of a bucket, in nanoseconds.
fn middle(bucket: u16) -> f64 {
    let (doubling, below) = (
        u32::from(bucket) >> SUB_BITS,
        u64::from(bucket) & (PER_DOUBLING - 1),
    );
    if doubling == 0 {
        return below as f64;
    }
    let width = 2_f64.powi(doubling as i32 - 1);
    (PER_DOUBLING + below) as f64 * width + width / 2.0
}

/// How many durations there were of each size, and their exact sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Buckets with samples, in order, and how many each has.
    buckets: Vec<(u16, u64)>,
    /// Nanoseconds.
    sum: u128,
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, sample: Sample) {
        self.change(sample.bucket, |count| count.saturating_add(1));
        self.sum = self.sum.saturating_add(sample.nanoseconds.into());
    }

    fn change(&mut self, bucket: u16, change: impl FnOnce(u64) -> u64) {
        match self.find(bucket, 0) {
            Ok(place) => self.buckets[place].1 = change(self.buckets[place].1),
            Err(place) => {
                let count = change(0);
                if count > 0 {
                    self.buckets.insert(place, (bucket, count));
                }
            }
        }
    }

    /// The place of a bucket, or where it would be; not before `from`.
    fn find(&self, bucket: u16, from: usize) -> Result<usize, usize> {
        let rest = self.buckets.get(from..).unwrap_or_default();
        let Some((first, _)) = rest.first() else {
            return Err(from);
        };
        // It lies as far behind the first as their numbers are apart, or nearer. Where no bucket
        // between them is empty, as in large sums, it lies right there.
        let furthest = usize::from(bucket.saturating_sub(*first));
        if rest.get(furthest).is_some_and(|(at, _)| *at == bucket) {
            return Ok(from + furthest);
        }
        let near = &rest[..rest.len().min(furthest + 1)];
        match near.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(place) => Ok(from + place),
            Err(place) => Err(from + place),
        }
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: &Self) {
        let mut from = 0;
        for (bucket, more) in &other.buckets {
            match self.find(*bucket, from) {
                Ok(place) => {
                    let count = &mut self.buckets[place].1;
                    *count = count.saturating_add(*more);
                    from = place;
                }
                Err(place) => {
                    self.buckets.insert(place, (*bucket, *more));
                    from = place;
                }
            }
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Takes away what was added before; never below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (bucket, less) in &other.buckets {
            self.change(*bucket, |count| count.saturating_sub(*less));
        }
        self.buckets.retain(|(_, count)| *count > 0);
        self.sum = self.sum.saturating_sub(other.sum);
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        let counts = self.buckets.iter().map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// In milliseconds; 0 without samples.
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64 / 1e6,
        }
    }

    /// The sample in milliseconds that `percent` (1 to 100) of all are not above; 0 without
    /// samples. Off by 3.125 % at most.
    pub fn percentile(&self, percent: u64) -> f64 {
        let rank = (u128::from(self.count()) * u128::from(percent)).div_ceil(100);
        let mut passed = 0_u128;
        for (bucket, count) in &self.buckets {
            passed += u128::from(*count);
            if passed >= rank.max(1) {
                return middle(*bucket) / 1e6;
            }
        }
        0.0
    }

    /// Forgets all samples, not the memory.
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.sum = 0;
    }

    /// Buckets in order with their counts, and the sum in nanoseconds: as [`Self::fill`] takes
    /// them.
    pub(super) fn parts(&self) -> (&[(u16, u64)], u128) {
        (&self.buckets, self.sum)
    }

    /// Adds a bucket behind all others; false where that is not one that could have been there.
    pub(super) fn fill(&mut self, bucket: u64, count: u64) -> bool {
        let in_order = self
            .buckets
            .last()
            .is_none_or(|(last, _)| u64::from(*last) < bucket);
        let possible = in_order && bucket < BUCKETS as u64 && count > 0;
        if possible {
            self.buckets.push((bucket as u16, count));
        }
        possible
    }

    /// Sets the sum, in nanoseconds.
    pub(super) fn fill_sum(&mut self, sum: u128) {
        self.sum = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::tests::Chance;

    #[test]
    fn every_duration_lies_in_its_bucket() {
        let mut last = 0;
        for highest in 0..64 {
            for below in [0, 1, 5, 15] {
                let nanoseconds = (1_u64 << highest) | (below << highest >> 4);
                let at = bucket(nanoseconds);
                assert!(usize::from(at) < BUCKETS && at >= last, "{nanoseconds}");
                let off = (middle(at) - nanoseconds as f64).abs() / nanoseconds as f64;
                assert!(off <= 1.0 / 32.0, "{nanoseconds}: {off}");
                last = at;
            }
        }
        assert_eq!(usize::from(bucket(u64::MAX)), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn percentiles_are_within_their_bound() {
        let mut chance = Chance(7);
        for (spread, count) in [(1, 1), (20, 3), (1 << 20, 1_000), (1 << 36, 10_000)] {
            let mut histogram = Histogram::default();
            let mut exact: Vec<u64> = (0..count)
                .map(|_| {
                    let most = 1 + chance.below(spread);
                    1 + chance.below(most)
                })
                .collect();
            for nanoseconds in &exact {
                histogram.record(Sample::of(Duration::from_nanos(*nanoseconds)));
            }
            exact.sort_unstable();
            assert_eq!(histogram.count(), count);
            for percent in [1, 50, 90, 95, 99, 100] {
                let rank = (count * percent).div_ceil(100).max(1);
                let exact = exact[rank as usize - 1] as f64 / 1e6;
                let told = histogram.percentile(percent);
                assert!((told - exact).abs() <= exact / 32.0, "{told} for {exact}");
            }
            let mean = exact.iter().sum::<u64>() as f64 / count as f64 / 1e6;
            assert!((histogram.mean() - mean).abs() < 1e-6);
        }
    }

    #[test]
    fn sums_come_apart_again() {
        let mut chance = Chance(3);
        let mut made = || {
            let mut histogram = Histogram::default();
            for _ in 0..200 {
                let duration = Duration::from_nanos(chance.below(1 << 30));
                histogram.record(Sample::of(duration));
            }
            histogram
        };
        let (one, two) = (made(), made());
        let mut sum = one.clone();
        sum.add(&two);
        assert_eq!(sum.count(), 400);
        sum.subtract(&two);
        assert_eq!(sum, one);
        sum.subtract(&one);
        assert_eq!(sum, Histogram::default());
        sum.subtract(&one);
        assert_eq!((sum.count(), sum.mean(), sum.percentile(50)), (0, 0.0, 0.0));
    }
}
