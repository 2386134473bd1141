//! How much was counted for values that have no counter of their own, about: a count-min sketch for
//! each slot of a window, in bounded memory however many values there are.
//!
//! A cell counts for all values that fall into it. What others are expected to have added is taken
//! off: with N counted in a slot, and C cells in a row, N / C. The least of four cells has less than that
//! from others, so an estimate is mostly too low, by some √(N / C) where each value counts once, and exact
//! while few values are counted. A sketch has four rows of 65,536 cells
//! (fixed windows: two of 2 MiB) or of 16,384 (sliding ones: eighteen of 512 KiB), made with the
//! first value that needs it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pingora_limits::estimator::Estimator;

use super::table::Key;
use super::window::{Counts, Window};

const ROWS: usize = 4;

/// Estimates of what was counted in a window.
pub struct Sketch {
    /// One for each slot that counts, and one that is being forgotten.
    slots: Box<[Slot]>,
    cells: usize,
}

struct Slot {
    /// Which it is.
    at: AtomicU64,
    counted: AtomicI64,
    estimator: Estimator,
}

impl Sketch {
    /// Nothing is counted yet.
    pub fn new(window: &Window) -> Self {
        let cells = match window.span() {
            1 => 65_536,
            _ => 16_384,
        };
        let slot = |_| Slot {
            at: AtomicU64::new(0),
            counted: AtomicI64::new(0),
            estimator: Estimator::new(ROWS, cells),
        };
        Self {
            slots: (0..=window.span()).map(slot).collect(),
            cells,
        }
    }

    /// What counts for a value at `slot`, and what was counted later where the clock has gone back.
    pub fn used(&self, key: Key, window: &Window, slot: u64) -> u64 {
        let first = window.first(slot);
        let counts = |of: &&Slot| of.at.load(Ordering::Acquire) >= first;
        let slots = self.slots.iter().filter(counts);
        slots.map(|of| of.estimate(key, self.cells)).sum()
    }

    /// The same, slot by slot.
    pub fn counts(&self, key: Key, window: &Window, slot: u64) -> Counts {
        let mut counts = Counts::default();
        for at in window.first(slot)..=slot + window.span() {
            let of = self.slot(at);
            if of.at.load(Ordering::Acquire) == at {
                counts.add(at, of.estimate(key, self.cells));
            }
        }
        counts
    }

    fn slot(&self, slot: u64) -> &Slot {
        &self.slots[(slot % self.slots.len() as u64) as usize]
    }

    /// Counts `amount` for a value at `slot`.
    pub fn add(&self, key: Key, slot: u64, amount: u64) {
        let of = self.slot(slot);
        of.becomes(slot);
        let amount = i64::try_from(amount).unwrap_or(i64::MAX >> 16);
        of.counted.fetch_add(amount, Ordering::Relaxed);
        of.estimator.incr(key, amount as isize);
    }
}

impl Slot {
    /// Forgets what it counted where it was another. What is counted at that very moment by others
    /// may be forgotten too.
    fn becomes(&self, slot: u64) {
        let was = self.at.load(Ordering::Acquire);
        let exchanged = || {
            self.at
                .compare_exchange(was, slot, Ordering::AcqRel, Ordering::Acquire)
        };
        if was < slot && exchanged().is_ok() {
            self.estimator.reset();
            self.counted.store(0, Ordering::Relaxed);
        }
    }

    fn estimate(&self, key: Key, cells: usize) -> u64 {
        let own = self.estimator.get(key) as i64;
        let others = self.counted.load(Ordering::Relaxed).saturating_sub(own) / cells as i64;
        u64::try_from(own.saturating_sub(others)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn few_values_are_counted_exactly_and_forgotten_in_time() {
        for window in [
            Window::fixed(Duration::from_secs(60)),
            Window::sliding(Duration::from_secs(60)),
        ] {
            let sketch = Sketch::new(&window);
            for key in 1..=20 {
                sketch.add(key, 100, key as u64);
            }
            sketch.add(7, 101, 5);
            let last = 100 + window.span() - 1;
            assert_eq!(sketch.used(7, &window, 100), 12, "the clock goes back");
            assert_eq!(
                sketch.used(7, &window, last.max(101)),
                if window.span() == 1 { 5 } else { 12 }
            );
            assert_eq!(sketch.used(7, &window, last + 1), 5);
            assert_eq!(sketch.used(7, &window, last + 2), 0);
        }
    }

    #[test]
    fn many_values_leave_an_estimate_that_is_near() {
        let window = Window::fixed(Duration::from_secs(60));
        let sketch = Sketch::new(&window);
        for key in 0..2_000_000 {
            sketch.add(key << 20, 1, 1);
        }
        // 30 others in each cell: off by a few times the root of that.
        sketch.add(1, 1, 1000);
        let estimate = sketch.used(1, &window, 1);
        assert!((970..=1030).contains(&estimate), "{estimate}");
        let strangers = (0..1000_u128).map(|key| sketch.used((key << 20) + 3, &window, 1));
        let most = strangers.max().unwrap_or(0);
        assert!(most <= 30, "{most}");
    }

    /// What docs/limits.md says: by √(N / 16,384) in each of 17 slots, and mostly too low.
    #[test]
    fn in_a_sliding_window_the_errors_of_its_slots_add_up() {
        let window = Window::sliding(Duration::from_secs(60));
        let sketch = Sketch::new(&window);
        let last = window.span();
        let regulars = || (0..50).map(|key: Key| (key << 20) + 1);
        for slot in 1..=last {
            for key in 0..100_000 {
                sketch.add(key << 20, slot, 1);
            }
            for key in regulars() {
                sketch.add(key, slot, 20);
            }
        }
        let said = last as f64 * (100_000.0_f64 / 16_384.0).sqrt();
        let estimates = regulars().map(|key| sketch.used(key, &window, last));
        let mean = estimates.sum::<u64>() as f64 / 50.0;
        let too_low = (last * 20) as f64 - mean;
        assert!(
            (0.75 * said..1.25 * said).contains(&too_low),
            "{too_low} of {said}"
        );
        let strangers = (0..1000_u128).map(|key| sketch.used((key << 20) + 3, &window, last));
        let most = strangers.max().unwrap_or(0);
        assert!(most as f64 <= said, "{most} of {said}");
    }
}
