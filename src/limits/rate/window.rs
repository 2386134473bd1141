//! Windows of time, and what was counted in one.
//!
//! Time is cut into slots that begin at whole multiples of their length since 1970. A fixed window
//! is one slot. A sliding one is the slot of now and as many whole ones before it as its length has,
//! so that no stretch of its length ever has more than the limit; what was counted is forgotten up
//! to one slot late.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Slots of a sliding window: what it counted is forgotten at most a sixteenth of its length late.
const SLOTS: u64 = 16;

/// A window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Length of a slot in microseconds, at least 1.
    slot: u64,
    /// Slots that count, that of now among them.
    span: u64,
}

/// What was counted in a window: so much in each slot, the oldest first. At most as many entries as
/// the window has slots.
#[derive(Debug, Default)]
pub struct Counts {
    slots: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Window {
    /// Begins at whole multiples of its length since 1970 (UTC).
    pub fn fixed(length: Duration) -> Self {
        Self {
            slot: micros(length).max(1),
            span: 1,
        }
    }

    /// The time of this length that has just passed.
    pub fn sliding(length: Duration) -> Self {
        Self {
            // Rounded up: the slots together are no shorter than the window.
            slot: micros(length).div_ceil(SLOTS).max(1),
            span: SLOTS + 1,
        }
    }

    /// Slots that count.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The slot of a moment.
    pub fn slot(&self, now: SystemTime) -> u64 {
        micros(since_1970(now)) / self.slot
    }

    /// How many slots are no shorter than `time`.
    pub fn slots_in(&self, time: Duration) -> u64 {
        micros(time).div_ceil(self.slot)
    }

    /// So many slots after `now`.
    pub fn later(&self, now: SystemTime, slots: u64) -> SystemTime {
        let time = Duration::from_micros(slots.saturating_mul(self.slot));
        now.checked_add(time).unwrap_or(now)
    }

    /// The first slot that counts together with `slot`.
    pub fn first(&self, slot: u64) -> u64 {
        (slot + 1).saturating_sub(self.span)
    }

    /// How long after `now` what was counted in `slot` is forgotten, in whole seconds, at least 1.
    pub fn forgets(&self, slot: u64, now: SystemTime) -> u64 {
        let end = (slot + self.span).saturating_mul(self.slot);
        let left = end.saturating_sub(micros(since_1970(now)));
        left.div_ceil(1_000_000).max(1)
    }
}

impl Counts {
    /// What counts at `slot`.
    pub fn used(&mut self, window: &Window, slot: u64) -> u64 {
        let first = window.first(slot);
        while let Some((_, counted)) = self.slots.pop_front_if(|(at, _)| *at < first) {
            self.sum -= counted;
        }
        self.sum
    }

    /// Counts `amount` at `slot`; in the newest one where the clock has gone back.
    pub fn add(&mut self, slot: u64, amount: u64) {
        let amount = amount.min(u64::MAX - self.sum);
        self.sum += amount;
        match self.slots.back_mut() {
            Some((at, counted)) if *at >= slot => *counted += amount,
            _ if amount == 0 => {}
            _ => {
                if self.slots.len() == SLOTS as usize {
                    // The one slot more that a sliding window has would take as many again.
                    self.slots.reserve_exact(1);
                }
                self.slots.push_back((slot, amount));
            }
        }
    }

    /// When something was counted last: its slot.
    pub fn last(&self) -> Option<u64> {
        self.slots.back().map(|(slot, _)| *slot)
    }

    /// The slot that must be forgotten before at most `most` are left.
    pub fn leaves(&self, most: u64) -> u64 {
        let mut left = self.sum;
        let forgotten = self.slots.iter().find(|(_, counted)| {
            left -= counted;
            left <= most
        });
        forgotten.map_or(0, |(slot, _)| *slot)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn since_1970(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_fixed_window_is_a_stretch_of_the_clock() {
        let window = Window::fixed(MINUTE);
        let mut counts = Counts::default();
        counts.add(window.slot(at(59.0)), 7);
        assert_eq!(counts.used(&window, window.slot(at(59.999))), 7);
        assert_eq!(window.forgets(window.slot(at(59.0)), at(59.0)), 1);
        assert_eq!(window.forgets(window.slot(at(0.0)), at(0.0)), 60);
        assert_eq!(counts.used(&window, window.slot(at(60.0))), 0);
        assert!(counts.slots.is_empty());
    }

    #[test]
    fn a_sliding_window_forgets_nothing_early_and_little_late() {
        let window = Window::sliding(MINUTE);
        for counted in [0.0, 1.0, 3.74, 59.9] {
            let mut counts = Counts::default();
            counts.add(window.slot(at(counted)), 1);
            let early = window.slot(at(counted + 60.0));
            assert_eq!(counts.used(&window, early), 1, "{counted}");
            let late = window.slot(at(counted + 60.0 + 60.0 / 16.0));
            assert_eq!(counts.used(&window, late), 0, "{counted}");
        }
    }

    #[test]
    fn it_has_at_most_as_many_entries_as_slots() {
        let window = Window::sliding(MINUTE);
        let mut counts = Counts::default();
        for tenth in 0..6000 {
            let slot = window.slot(at(f64::from(tenth) / 10.0));
            counts.used(&window, slot);
            counts.add(slot, 1);
            assert!(counts.slots.capacity() as u64 <= window.span());
            let sum: u64 = counts.slots.iter().map(|(_, counted)| counted).sum();
            assert_eq!(counts.sum, sum);
        }
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let window = Window::fixed(MINUTE);
        let mut counts = Counts::default();
        counts.add(5, 3);
        counts.add(4, 2);
        assert_eq!(counts.used(&window, 5), 5);
        counts.add(5, u64::MAX);
        counts.add(5, u64::MAX);
        assert_eq!(counts.used(&window, 5), u64::MAX);
    }

    #[test]
    fn it_knows_when_there_is_room() {
        let mut counts = Counts::default();
        for (slot, counted) in [(10, 5), (12, 3), (13, 2)] {
            counts.add(slot, counted);
        }
        for (most, slot) in [(9, 10), (5, 10), (4, 12), (2, 12), (1, 13), (0, 13)] {
            assert_eq!(counts.leaves(most), slot, "{most}");
        }
    }
}
