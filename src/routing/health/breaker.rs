//! When a target or a provider is left alone because too many calls to it fail.
//!
//! Closed, it lets all in. It opens when, within the window, enough calls failed and they are at
//! least half of all. Open, it lets nobody in. Then its time is over and one call is let in as a
//! trial: if it succeeds the breaker closes, and if it fails it opens again, for longer.
//!
//! Probes are requests of the gateway's own, which need not be let in. They count as calls do,
//! but come by the clock and not by the traffic. So one that succeeds closes an open breaker
//! before its time is over, and enough that fail in a row open a closed one, however far apart.
//!
//! A failure here is one that the target is to blame for; an answer that blames the request or
//! the key is a success.

use std::mem;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::doubling;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How far back calls count. It moves on by halves, so that what counts is between one half
    /// and the whole of it.
    pub window: Duration,
    /// Fewer failed calls within the window never open it.
    pub failures: u32,
    /// How long it is open at first, and how long a trial is waited for until another call is let
    /// in as one; not zero.
    pub open_for: Duration,
    /// The longest it is open, to which `open_for` doubles; at most 24 hours count.
    pub longest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            failures: 5,
            open_for: Duration::from_secs(10),
            longest: Duration::from_secs(5 * 60),
        }
    }
}

impl Settings {
    fn opens_at(&self, counts: Counts) -> bool {
        counts.failures >= self.failures && counts.failures >= counts.calls - counts.failures
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is closed: all are let in.
    Well,
    /// Its time is over: the next one who enters is its trial.
    Due,
    /// It is open, or its trial is still out.
    Cooled {
        /// When the next trial is let in, unless it closes before.
        until: Instant,
    },
}

impl Standing {
    /// Until when it is better left alone; `None` where one may try to enter.
    pub fn until(self) -> Option<Instant> {
        match self {
            Self::Well | Self::Due => None,
            Self::Cooled { until } => Some(until),
        }
    }
}

/// That a breaker has just opened, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// How long it stays so.
    pub open_for: Duration,
    /// How often it opened without a success in between, this time included.
    pub in_row: u32,
    /// The failed calls that opened it: 1 where it was a trial.
    pub failures: u32,
    /// All calls that were counted with them, since the first failure.
    pub calls: u32,
}

/// The breaker of one target or one provider. Its size is fixed, whatever happens.
#[derive(Debug, Default)]
pub struct Breaker {
    /// [`WELL`], [`WATCHED`] or [`OPEN`]: what the record comes down to. Only written under its
    /// lock, so that the two cannot part.
    phase: AtomicU8,
    record: Mutex<Record>,
}

/// Nothing failed lately; calls are not counted.
const WELL: u8 = 0;
/// Something failed lately; calls are counted, under the lock.
const WATCHED: u8 = 1;
/// It is open, or its trial is out or due.
const OPEN: u8 = 2;

impl Breaker {
    /// How it stands.
    pub fn standing(&self, now: Instant) -> Standing {
        if self.phase.load(Relaxed) != OPEN {
            return Standing::Well;
        }
        self.record.lock().standing(now)
    }

    /// Whether a call may go there. One that may must go, as it may be the trial, for which all
    /// others wait; they do so for `open_for` where it never reports because its client left.
    pub fn enter(&self, now: Instant) -> bool {
        if self.phase.load(Relaxed) != OPEN {
            return true;
        }
        self.record.lock().enter(now)
    }

    /// A call that began then has succeeded by now. Tells whether that has just closed it.
    pub fn succeeded(&self, began: Instant, now: Instant) -> bool {
        if self.phase.load(Relaxed) == WELL {
            return false;
        }
        self.change(|record| record.succeeded(began, now))
    }

    /// A call that began then has failed by now. Tells if that has just opened it.
    pub fn failed(&self, began: Instant, now: Instant, settings: &Settings) -> Option<Opened> {
        self.change(|record| record.failed(began, now, settings))
    }

    /// A probe that began then has succeeded by now. Tells whether that has just closed it; unlike
    /// a call's success it does so although the time is not over, if it began since it opened.
    pub fn probe_succeeded(&self, began: Instant, now: Instant) -> bool {
        if self.phase.load(Relaxed) == WELL {
            return false;
        }
        self.change(|record| record.probe_succeeded(began, now))
    }

    /// A probe that began then has failed by now. Tells if that has just opened it: as a call's
    /// failure does, or as one of `settings.failures` failed probes with no success in between.
    pub fn probe_failed(
        &self,
        began: Instant,
        now: Instant,
        settings: &Settings,
    ) -> Option<Opened> {
        self.change(|record| record.probe_failed(began, now, settings))
    }

    fn change<T>(&self, event: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.record.lock();
        let outcome = event(&mut record);
        self.phase.store(record.phase(), Relaxed);
        outcome
    }
}

#[derive(Debug, Default)]
struct Record {
    /// Calls that began before this are of a time that is over, and do not count: when it closed
    /// last, or else when it is no longer open.
    counts_from: Option<Instant>,
    /// Probes that failed in a row while it was closed; not zero only while it is watched.
    failed_probes: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// With a window where something failed lately.
    Closed(Option<Window>),
    Open(Opening),
}

#[derive(Debug)]
struct Opening {
    /// When it opened; a probe that began before says nothing of the time since.
    since: Instant,
    in_row: u32,
    next_trial: Instant,
    /// How long a trial is waited for.
    patience: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(None)
    }
}

impl Record {
    fn phase(&self) -> u8 {
        match self.state {
            State::Closed(None) => WELL,
            State::Closed(Some(_)) => WATCHED,
            State::Open(_) => OPEN,
        }
    }

    fn standing(&self, now: Instant) -> Standing {
        match &self.state {
            State::Closed(_) => Standing::Well,
            State::Open(opening) if opening.next_trial <= now => Standing::Due,
            State::Open(opening) => Standing::Cooled {
                until: opening.next_trial,
            },
        }
    }

    fn enter(&mut self, now: Instant) -> bool {
        let State::Open(opening) = &mut self.state else {
            return true;
        };
        let is_trial = opening.next_trial <= now;
        if is_trial {
            opening.next_trial = now + opening.patience;
        }
        is_trial
    }

    fn succeeded(&mut self, began: Instant, now: Instant) -> bool {
        if !self.counts(began) {
            return false;
        }
        self.failed_probes = 0;
        let closes = matches!(self.state, State::Open(_));
        match &mut self.state {
            State::Open(_) => self.close(now),
            State::Closed(window) => {
                window.take_if(|window| window.count(now, Counts::SUCCESS).failures == 0);
            }
        }
        closes
    }

    fn failed(&mut self, began: Instant, now: Instant, settings: &Settings) -> Option<Opened> {
        if !self.counts(began) {
            return None;
        }
        match &mut self.state {
            State::Open(opening) => {
                let in_row = opening.in_row.saturating_add(1);
                Some(self.open(in_row, Counts::FAILURE, now, settings))
            }
            State::Closed(window) => {
                let window = window.get_or_insert_with(|| Window::new(now));
                window.half = settings.window / 2; // a reload may have changed it
                let counts = window.count(now, Counts::FAILURE);
                let opens = settings.opens_at(counts);
                opens.then(|| self.open(1, counts, now, settings))
            }
        }
    }

    fn probe_succeeded(&mut self, began: Instant, now: Instant) -> bool {
        match &self.state {
            State::Open(opening) if opening.since <= began => {
                self.close(now);
                true
            }
            _ => self.succeeded(began, now),
        }
    }

    fn probe_failed(
        &mut self,
        began: Instant,
        now: Instant,
        settings: &Settings,
    ) -> Option<Opened> {
        let opened = self.failed(began, now, settings);
        if opened.is_some() || !self.counts(began) {
            return opened;
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        let in_row = self.failed_probes;
        let counts = Counts {
            calls: in_row,
            failures: in_row,
        };
        (in_row >= settings.failures).then(|| self.open(1, counts, now, settings))
    }

    fn counts(&self, began: Instant) -> bool {
        self.counts_from.is_none_or(|from| from <= began)
    }

    fn open(&mut self, in_row: u32, counts: Counts, now: Instant, settings: &Settings) -> Opened {
        let open_for = doubling(settings.open_for, settings.longest, in_row);
        self.counts_from = Some(now + open_for);
        self.failed_probes = 0;
        self.state = State::Open(Opening {
            since: now,
            in_row,
            next_trial: now + open_for,
            patience: doubling(settings.open_for, settings.longest, 1),
        });
        Opened {
            open_for,
            in_row,
            failures: counts.failures,
            calls: counts.calls,
        }
    }

    fn close(&mut self, now: Instant) {
        self.counts_from = Some(now);
        self.failed_probes = 0;
        self.state = State::Closed(None);
    }
}

/// The calls of late, in two halves so that no list of them is kept. It begins with a failure:
/// calls before the first one are not counted, which is what makes a success cost nothing where
/// all is well.
#[derive(Debug)]
struct Window {
    half: Duration,
    /// When the current half began.
    began: Instant,
    current: Counts,
    previous: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u32,
    /// Of the calls.
    failures: u32,
}

impl Counts {
    const SUCCESS: Self = Self::one(0);
    const FAILURE: Self = Self::one(1);

    const fn one(failures: u32) -> Self {
        Self { calls: 1, failures }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            half: Duration::ZERO,
            began: now,
            current: Counts::default(),
            previous: Counts::default(),
        }
    }

    /// Counts a call; what comes back is the whole window, with it.
    fn count(&mut self, now: Instant, call: Counts) -> Counts {
        self.move_on(now);
        self.current = self.current.plus(call);
        self.current.plus(self.previous)
    }

    fn move_on(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < self.half {
            return;
        }
        self.previous = mem::take(&mut self.current);
        self.began += self.half;
        if age - self.half >= self.half {
            self.previous = Counts::default();
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    const SETTINGS: Settings = Settings {
        window: Duration::from_secs(30),
        failures: 5,
        open_for: Duration::from_secs(10),
        longest: Duration::from_secs(60),
    };

    /// A breaker and its clock, in seconds. Calls take no time unless it is said.
    struct Bench {
        breaker: Breaker,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                breaker: Breaker::default(),
                start: Instant::now(),
            }
        }

        fn open() -> Self {
            let bench = Self::new();
            assert_eq!(bench.run(0, "xxxx"), None);
            assert_eq!(bench.failed(0, 0), Some(10));
            bench
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// For how many seconds it opened.
        fn failed(&self, began: u64, now: u64) -> Option<u64> {
            let opened = self
                .breaker
                .failed(self.at(began), self.at(now), &SETTINGS)?;
            Some(opened.open_for.as_secs())
        }

        fn succeeded(&self, began: u64, now: u64) -> bool {
            self.breaker.succeeded(self.at(began), self.at(now))
        }

        /// For how many seconds it opened.
        fn probe_failed(&self, now: u64) -> Option<u64> {
            let now = self.at(now);
            let opened = self.breaker.probe_failed(now, now, &SETTINGS)?;
            Some(opened.open_for.as_secs())
        }

        fn probe_succeeded(&self, now: u64) -> bool {
            self.breaker.probe_succeeded(self.at(now), self.at(now))
        }

        /// `x` fails, `.` succeeds; after how many calls it opened, if it did.
        fn run(&self, now: u64, calls: &str) -> Option<usize> {
            let opens = |call| match call {
                'x' => self.failed(now, now).is_some(),
                _ => self.succeeded(now, now),
            };
            calls.chars().position(opens).map(|place| place + 1)
        }

        fn standing(&self, now: u64) -> Standing {
            self.breaker.standing(self.at(now))
        }

        fn cooled(&self, until: u64) -> Standing {
            let until = self.at(until);
            Standing::Cooled { until }
        }

        fn enter(&self, now: u64) -> bool {
            self.breaker.enter(self.at(now))
        }

        fn phase(&self) -> u8 {
            self.breaker.phase.load(Relaxed)
        }
    }

    #[test]
    fn it_opens_when_enough_failed_and_they_are_half_of_all() {
        let table = [
            ("", None),
            ("xxxx", None),
            ("xxxxx", Some(5)),
            ("x.x.x.x.x", Some(9)),
            ("x..x.x.x.x", Some(10)),
            ("x..x..x..x..x..x..", None),
            ("xxxx......xx", Some(12)),
            // Those before the first failure are not counted.
            ("....................xxxxx", Some(25)),
        ];
        for (calls, opened) in table {
            assert_eq!(Bench::new().run(0, calls), opened, "{calls}");
        }
    }

    #[test]
    fn what_is_past_the_window_does_not_count() {
        // The seconds at which two calls fail each time, and whether the last of six opens it.
        let table = [
            ([0, 0, 0], true),
            ([0, 14, 29], true),
            ([0, 15, 29], true),
            ([0, 0, 30], false),
            ([0, 15, 30], false), // the first half, from 0 to 15, is gone
            ([0, 30, 31], false),
            ([0, 29, 44], false),
            ([0, 1000, 1001], false),
            ([14, 16, 40], true), // the halves are counted from the first failure
        ];
        for (times, opened) in table {
            let bench = Bench::new();
            let last = times.map(|now| bench.run(now, "xx"))[2];
            assert_eq!(last.is_some(), opened, "{times:?}");
        }
    }

    #[test]
    fn it_tells_why_it_opened() {
        let bench = Bench::new();
        bench.run(0, "x..xxx");
        let now = bench.at(0);
        let opened = Opened {
            open_for: SETTINGS.open_for,
            in_row: 1,
            failures: 5,
            calls: 7,
        };
        assert_eq!(bench.breaker.failed(now, now, &SETTINGS), Some(opened));
        let again = Opened {
            open_for: SETTINGS.open_for * 2,
            in_row: 2,
            failures: 1,
            calls: 1,
        };
        let now = bench.at(10);
        assert_eq!(bench.breaker.failed(now, now, &SETTINGS), Some(again));
    }

    #[test]
    fn it_is_open_and_then_lets_one_trial_in() {
        let bench = Bench::open();
        assert_eq!(bench.standing(9), bench.cooled(10));
        assert!(!bench.enter(9));
        assert_eq!(bench.standing(10), Standing::Due);
        assert!(bench.enter(10));
        assert_eq!(bench.standing(11), bench.cooled(20));
        assert!(!bench.enter(11));
        assert!(bench.succeeded(10, 12));
        assert_eq!(bench.standing(12), Standing::Well);
        assert!(bench.enter(12));
        assert_eq!(bench.phase(), WELL);
    }

    #[test]
    fn a_trial_that_never_reports_does_not_block() {
        let bench = Bench::open();
        assert!(bench.enter(13));
        assert!(!bench.enter(22));
        assert!(bench.enter(23));
        assert!(!bench.enter(23));
        // The wait for it does not grow with the time it is open.
        assert_eq!(bench.failed(23, 24), Some(20));
        assert!(bench.enter(44) && !bench.enter(53) && bench.enter(54));
    }

    #[test]
    fn it_opens_for_longer_each_time_until_a_success() {
        let bench = Bench::open();
        let mut now = 0;
        for (before, after) in [(10, 20), (20, 40), (40, 60), (60, 60)] {
            now += before;
            assert!(bench.enter(now));
            assert_eq!(bench.failed(now, now), Some(after));
        }
        now += 60;
        assert!(bench.enter(now) && bench.succeeded(now, now));
        assert_eq!(bench.run(now, "xxxx"), None);
        assert_eq!(bench.failed(now, now), Some(10));
    }

    #[test]
    fn calls_of_a_time_that_is_over_do_not_count() {
        let bench = Bench::open();
        // Both were in flight when it opened, or went there although it was open.
        assert!(!bench.succeeded(0, 5) && !bench.succeeded(9, 11));
        assert_eq!((bench.failed(0, 5), bench.failed(9, 11)), (None, None));
        assert_eq!(bench.standing(11), Standing::Due);
        // The first trial is late, and the second one brings nothing new.
        assert!(bench.enter(11) && bench.enter(21));
        assert_eq!(bench.failed(11, 25), Some(20));
        assert_eq!(bench.failed(21, 26), None);
        assert!(!bench.succeeded(21, 27));
        assert_eq!(bench.standing(27), bench.cooled(45));
        // Nor do those that began before it closed.
        assert!(bench.enter(45) && bench.succeeded(45, 46));
        for _ in 0..9 {
            assert_eq!(bench.failed(45, 47), None);
        }
        assert_eq!(bench.phase(), WELL);
    }

    #[test]
    fn a_probe_that_succeeds_closes_it_at_once() {
        let bench = Bench::open();
        // It was under way when the breaker opened, at 0.
        let before = bench.start.checked_sub(Duration::from_secs(1));
        let succeeded = |began| bench.breaker.probe_succeeded(began, bench.at(3));
        assert!(before.is_none_or(|before| !succeeded(before)));
        assert_eq!(bench.standing(3), bench.cooled(10));
        assert!(bench.probe_succeeded(2));
        assert_eq!((bench.standing(3), bench.phase()), (Standing::Well, WELL));
        assert!(!bench.probe_succeeded(3), "it was closed");
        assert_eq!(bench.run(4, "xxxx"), None);
        assert_eq!(bench.failed(4, 4), Some(10), "the row of openings is over");
    }

    #[test]
    fn a_probe_that_fails_counts_as_a_call_does() {
        let bench = Bench::new();
        assert_eq!(bench.run(0, "xxxx"), None);
        assert_eq!(bench.probe_failed(0), Some(10));
        // It is open anyway; then it is as if a trial had failed.
        assert_eq!([bench.probe_failed(3), bench.probe_failed(9)], [None; 2]);
        assert_eq!(bench.probe_failed(10), Some(20));
        // Not where most calls succeed.
        let busy = Bench::new();
        for now in 0..20 {
            assert_eq!(busy.probe_failed(now), None);
            busy.run(now, "..");
        }
    }

    #[test]
    fn probes_that_fail_in_a_row_open_it_however_far_apart() {
        let bench = Bench::new();
        let failed = |now: u64| bench.probe_failed(now);
        let opened = [0, 100, 200, 300].map(failed);
        assert_eq!(opened, [None; 4]);
        bench.run(350, "."); // whoever succeeds ends the row
        let opened = [400, 500, 600, 700, 800].map(failed);
        assert_eq!(opened, [None, None, None, None, Some(10)]);
        assert!(bench.probe_succeeded(805));
        assert_eq!(failed(900), None);
        assert_eq!(bench.phase(), WATCHED);
        assert!(!bench.probe_succeeded(950), "it was closed");
        assert_eq!([1000, 1100, 1200, 1300].map(failed), [None; 4]);
    }

    #[test]
    fn it_is_watched_only_while_something_failed_lately() {
        let bench = Bench::new();
        let phases = [(0, "."), (1, "x"), (30, "."), (31, ".")].map(|(now, calls)| {
            bench.run(now, calls);
            bench.phase()
        });
        assert_eq!(phases, [WELL, WATCHED, WATCHED, WELL]);
    }

    #[test]
    fn a_clock_that_lags_on_one_thread_does_no_harm() {
        let bench = Bench::new();
        bench.run(20, "x");
        bench.run(19, "xxx");
        assert_eq!(bench.failed(18, 18), Some(10));
        assert!(!bench.enter(17));
    }

    #[test]
    fn no_settings_make_it_panic() {
        let extremes = [Duration::ZERO, Duration::MAX];
        for (window, open_for) in extremes.map(|w| extremes.map(|o| (w, o))).concat() {
            let settings = Settings {
                window,
                failures: 0,
                open_for,
                longest: Duration::MAX,
            };
            let bench = Bench::new();
            for seconds in [0, 1, 1_000_000] {
                let now = bench.at(seconds);
                bench.breaker.enter(now);
                bench.breaker.failed(now, now, &settings);
                bench.breaker.succeeded(now, now);
                bench.breaker.probe_failed(now, now, &settings);
                bench.breaker.probe_succeeded(now, now);
            }
        }
    }

    #[test]
    fn its_size_is_small() {
        assert!(size_of::<Breaker>() <= 128);
    }

    #[test]
    fn of_many_at_once_exactly_one_is_the_trial() {
        const THREADS: usize = 8;
        for _ in 0..200 {
            let bench = Bench::open();
            let (barrier, entered) = (Barrier::new(THREADS), AtomicU32::new(0));
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        entered.fetch_add(bench.enter(10).into(), Relaxed);
                    });
                }
            });
            assert_eq!(entered.into_inner(), 1);
        }
    }

    #[test]
    fn of_many_failures_at_once_exactly_one_opens_it() {
        const THREADS: usize = 8;
        for _ in 0..200 {
            let bench = Bench::new();
            let (barrier, opened) = (Barrier::new(THREADS), AtomicU32::new(0));
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        opened.fetch_add(bench.failed(0, 1).is_some().into(), Relaxed);
                    });
                }
            });
            assert_eq!((opened.into_inner(), bench.phase()), (1, OPEN));
        }
    }
}
