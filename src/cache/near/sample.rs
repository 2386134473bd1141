//! Which misses are compared with earlier ones: that takes time on the request path, the more
//! the longer the body.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// Bodies of a second, at most.
const BODIES: u64 = 50;

/// Bytes of them, at most.
const BYTES: u64 = 512 << 10;

/// Length of the largest body.
const LARGEST: u64 = 64 << 10;

/// How short ones are counted, so that the bound on bytes is one on bodies too.
const SHORT: u64 = BYTES / BODIES;

/// Low bits in which the bytes are counted.
const COUNT: u32 = 20;

/// At most 50 bodies a second, at most 512 KiB of them, none larger than 64 KiB.
///
/// The upper bits are the second, the lower ones the bytes that were taken in it.
#[derive(Debug, Default)]
pub struct Sample(AtomicU64);

impl Sample {
    /// Whether a body of this length is one of it.
    pub fn takes(&self, length: usize, now: SystemTime) -> bool {
        let length = length as u64;
        if length > LARGEST {
            return false;
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let second = since.map_or(0, |since| since.as_secs());
        let counted = self.0.fetch_update(Relaxed, Relaxed, |counted| {
            let earlier = counted & ((1 << COUNT) - 1);
            let earlier = if counted >> COUNT == second {
                earlier
            } else {
                0
            };
            let bytes = earlier + length.max(SHORT);
            (bytes <= BYTES).then_some(second << COUNT | bytes)
        });
        counted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many bodies of one length are taken in the second number `second`.
    fn taken(sample: &Sample, length: usize, second: u64) -> usize {
        let moment = |milliseconds| {
            SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1000 + milliseconds)
        };
        let taken = (0..1000).filter(|now| sample.takes(length, moment(*now)));
        taken.count()
    }

    #[test]
    fn bodies_and_their_bytes_are_bounded() {
        let cases = [
            (0, 50),
            (1 << 10, 50),
            (10 << 10, 50),
            (16 << 10, 32),
            (32 << 10, 16),
            (64 << 10, 8),
            ((64 << 10) + 1, 0),
            (usize::MAX, 0),
        ];
        let sample = Sample::default();
        for (second, (length, expected)) in (1_785_578_400..).zip(cases) {
            assert_eq!(taken(&sample, length, second), expected, "{length}");
            assert_eq!(taken(&sample, length, second), 0, "{length}");
        }
    }

    #[test]
    fn what_is_left_is_for_shorter_ones() {
        let sample = Sample::default();
        assert_eq!(taken(&sample, 60 << 10, 7), 8);
        assert_eq!(taken(&sample, 20 << 10, 7), 1);
        assert_eq!(taken(&sample, 1, 7), 1);
        assert_eq!(taken(&sample, 1, 7), 0);
        // A clock that is set back does not stop it.
        assert_eq!(taken(&sample, 1, 6), 50);
    }
}
