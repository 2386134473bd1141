//! Time as the counters of a rule take it: the wall clock, which never goes back by more than the
//! rule's window, or a few seconds where that is shorter.
//!
//! Who sets the wall clock back by hours would have what was counted before count for hours. So from
//! then on the counters' time runs ahead of it, and goes on from where it was: nothing that was
//! counted is lost, and nothing counts for longer than it may. A step back of less is not made up
//! for: it may be a thread that read the clock before another one and counts after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::window::Window;

/// How long a thread may be held up between reading the clock and counting: it is not taken for a
/// clock that was set back.
const HELD_UP: Duration = Duration::from_secs(5);

/// The time of a rule's counters.
#[derive(Debug, Default)]
pub struct Clock {
    /// The newest slot that there was.
    newest: AtomicU64,
    /// How many slots it runs ahead of the wall clock. Whole ones, so that fixed windows begin
    /// where they did.
    ahead: AtomicU64,
}

impl Clock {
    /// What time it is for the counters when the wall clock says `now`.
    pub fn moment(&self, window: &Window, now: SystemTime) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Acquire);
        let moment = window.later(now, ahead);
        let slot = window.slot(moment);
        let newest = self.newest.load(Ordering::Acquire);
        if newest < slot {
            self.newest.fetch_max(slot, Ordering::AcqRel);
        }
        match newest.saturating_sub(slot) {
            back if back <= window.span().max(window.slots_in(HELD_UP)) => moment,
            back => window.later(now, self.runs_ahead(ahead, ahead.saturating_add(back))),
        }
    }

    /// It runs so far ahead from now on, or as far as another thread has just found.
    fn runs_ahead(&self, was: u64, ahead: u64) -> u64 {
        let exchanged =
            self.ahead
                .compare_exchange(was, ahead, Ordering::AcqRel, Ordering::Acquire);
        exchanged.map_or_else(|other| other, |_| ahead)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(60 * minutes)
    }

    #[test]
    fn it_goes_on_from_where_it_was_when_the_wall_clock_is_set_back() {
        for window in [
            Window::fixed(Duration::from_secs(60)),
            Window::sliding(Duration::from_secs(960)),
        ] {
            let clock = Clock::default();
            assert_eq!(clock.moment(&window, at(1000)), at(1000));
            assert_eq!(clock.moment(&window, at(640)), at(1000));
            assert_eq!(clock.moment(&window, at(641)), at(1001));
            assert_eq!(clock.moment(&window, at(0)), at(1001), "once more");
            assert_eq!(clock.moment(&window, at(5)), at(1006));
        }
    }

    #[test]
    fn who_is_held_up_does_not_set_it_back() {
        let clock = Clock::default();
        let window = Window::fixed(Duration::from_millis(1000));
        let second = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (now, moment) in [(100, 100), (95, 95), (101, 101), (95, 101)] {
            assert_eq!(clock.moment(&window, second(now)), second(moment));
        }
    }

    #[test]
    fn less_than_a_window_back_is_as_it_is() {
        let clock = Clock::default();
        let window = Window::sliding(Duration::from_secs(960));
        for minute in [1000, 984, 990, 1000, 1001, 985] {
            assert_eq!(clock.moment(&window, at(minute)), at(minute));
        }
    }
}
