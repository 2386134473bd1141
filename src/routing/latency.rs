//! How a target's times to the first byte are spread: what a hedged call waits for before a second
//! target is asked as well.
//!
//! A histogram of fixed size, whose buckets get wider with the time they stand for, as in
//! HdrHistogram: 580 bytes, no lock, an error of an eighth at most. It forgets by answers and not
//! by time, as a quantile needs many of them: it holds this [`GENERATION`] and the one before.
//! (Halving all counts now and then is the usual way, but has to round: the rare slow answers,
//! which quantiles are about, are one to a bucket and would vanish first, or stay for ever.)
//!
//! The average, which forgets by time, is in `load`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// With fewer answers than this, a quantile would be a guess.
pub const FEWEST: u32 = 20;
/// After this many answers, those of the generation before are forgotten. Divides 2^32, where
/// their number wraps around.
pub const GENERATION: u32 = 1024;

/// A power of two has so many buckets of the same width.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 3;
/// Up to 2^20 ms, which is 17 minutes. What takes longer is in the last.
const BUCKETS: usize = PARTS * (20 - PART_BITS as usize + 1);

/// Times to the first byte of the latest one or two thousand answers.
#[derive(Debug)]
pub struct Latencies {
    /// Each is two: this generation's in the lower half, that of the one before in the upper.
    counts: [AtomicU32; BUCKETS],
    /// Answers since the beginning, modulo 2^32.
    recorded: AtomicU32,
}

impl Default for Latencies {
    /// Without any.
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            recorded: AtomicU32::new(0),
        }
    }
}

impl Latencies {
    /// One more answer, which took so long to its first byte.
    pub fn record(&self, time_to_first_byte: Duration) {
        if let Some(count) = self.counts.get(bucket(time_to_first_byte)) {
            count.fetch_add(1, Relaxed);
        }
        let before = self.recorded.fetch_add(1, Relaxed);
        if before % GENERATION == GENERATION - 1 {
            self.turn();
        }
    }

    /// The time within which that share of the answers (0 to 1) came; too long by an eighth or a
    /// millisecond at most, and never too short up to 17 minutes. `None` with less than
    /// [`FEWEST`] answers.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        // Read once: while others record, two readings would not agree.
        let counts = self.counts.each_ref().map(both);
        let total: u32 = counts.iter().sum();
        if total < FEWEST {
            return None;
        }
        let wanted = ((f64::from(total) * share).ceil() as u32).clamp(1, total);
        let mut seen = 0;
        let found = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map(end)
    }

    /// This generation becomes the one before.
    fn turn(&self) {
        for count in &self.counts {
            let _ = count.fetch_update(Relaxed, Relaxed, |count| Some(count << 16));
        }
    }
}

/// The answers of both generations.
fn both(count: &AtomicU32) -> u32 {
    let count = count.load(Relaxed);
    (count >> 16) + (count & 0xffff)
}

/// Which bucket a time belongs to: one for each of the first milliseconds, then [`PARTS`] for each
/// power of two.
fn bucket(time: Duration) -> usize {
    let millis = time.as_millis().min(u128::from(u32::MAX)) as usize;
    let shift = (millis | PARTS).ilog2() - PART_BITS;
    (shift as usize * PARTS + (millis >> shift)).min(BUCKETS - 1)
}

/// The time at which a bucket ends.
fn end(bucket: usize) -> Duration {
    let shift = (bucket / PARTS).saturating_sub(1);
    let millis = (bucket - shift * PARTS + 1) << shift;
    Duration::from_millis(millis as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn total(latencies: &Latencies) -> u32 {
        latencies.counts.iter().map(both).sum()
    }

    #[test]
    fn buckets_follow_each_other_and_are_an_eighth_wide_at_most() {
        for bucket_ in 0..BUCKETS {
            let end_ = end(bucket_);
            assert_eq!(bucket(end_ - Duration::from_nanos(1)), bucket_);
            assert_eq!(bucket(end_), (bucket_ + 1).min(BUCKETS - 1));
            let start = bucket_.checked_sub(1).map_or(Duration::ZERO, end);
            let width = end_ - start;
            assert!(width <= (start / 8).max(millis(1)), "{start:?} to {end_:?}");
        }
        assert_eq!(end(BUCKETS - 1), millis(1 << 20));
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn less_than_twenty_answers_say_nothing() {
        let latencies = Latencies::default();
        for _ in 0..19 {
            latencies.record(millis(500));
            assert_eq!(latencies.quantile(0.95), None);
        }
        latencies.record(millis(500));
        assert_eq!(latencies.quantile(0.95), Some(millis(512)));
    }

    #[test]
    fn quantiles_of_a_thousand_answers() {
        let latencies = Latencies::default();
        (0..1000).for_each(|time| latencies.record(millis(time)));
        let table = [
            (0.0, 1),
            (0.005, 5),
            (0.5, 512),
            (0.9, 960),
            (0.95, 960),
            (0.99, 1024),
            (1.0, 1024),
            (7.0, 1024),
            (-1.0, 1),
            (f64::NAN, 1),
        ];
        for (share, expected) in table {
            assert_eq!(latencies.quantile(share), Some(millis(expected)), "{share}");
        }
    }

    #[test]
    fn two_generations_are_held() {
        let latencies = Latencies::default();
        let record = |count, time| (0..count).for_each(|_| latencies.record(millis(time)));
        // How many more of what time, how many are held then, and the median of them.
        let table = [
            (1023, 10_000, 1023, 10_240),
            (1, 10_000, 1024, 10_240),
            (1000, 100, 2024, 10_240),
            (24, 100, 1024, 104),
            (1023, 500, 2047, 104),
            (1, 500, 1024, 512),
            (100 * 1024, 7, 1024, 8),
        ];
        for (count, time, held, median) in table {
            record(count, time);
            assert_eq!(total(&latencies), held);
            assert_eq!(latencies.quantile(0.5), Some(millis(median)));
        }
        assert_eq!(latencies.quantile(1.0), Some(millis(8)));
    }

    /// Sixty-four in a thousand are slow, each in a bucket of its own.
    #[test]
    fn rare_slow_answers_keep_their_share() {
        let latencies = Latencies::default();
        for answer in 0..64 * 1024 {
            let slow = end(64 + answer / 16 % 64) - millis(1);
            let is_slow = answer % 16 == 0;
            latencies.record(if is_slow { slow } else { millis(100) });
        }
        let table = [
            (15.0 / 16.0, millis(104)),
            (31.0 / 32.0, end(64 + 31)),
            (63.0 / 64.0, end(64 + 47)),
            (1.0, end(64 + 63)),
        ];
        for (share, expected) in table {
            assert_eq!(latencies.quantile(share), Some(expected), "{share}");
        }
    }

    #[test]
    fn threads_may_record_while_one_of_them_turns() {
        let latencies = Latencies::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..16 * 1024).for_each(|_| latencies.record(millis(100))));
            }
        });
        // A thread that was slow to turn may just have swept out the rest.
        (0..GENERATION / 2).for_each(|_| latencies.record(millis(100)));
        assert!(total(&latencies) >= GENERATION / 2);
        assert_eq!(latencies.quantile(0.0), Some(millis(104)));
        assert_eq!(latencies.quantile(1.0), Some(millis(104)));
    }
}
