//! How busy a target is, and how fast it answered of late: what the strategies that look at the
//! targets go by.
//!
//! The time to the first byte is a moving average whose weights halve every [`HALF_LIFE`]. Silence
//! counts like answers that took no time, so that a target which was slow is tried again: after
//! twice the half-life where it took four times as long as the others.
//!
//! That is the "peak EWMA" of Finagle and linkerd, but for two things. Both were simulated, with
//! three targets of which one became slower for a while, at 0.05 to 10 calls a second:
//! - Theirs jumps to the slowest sample and sinks from there. What models take depends more on what
//!   is asked than on who is asked, and one long prompt would send everybody elsewhere. With the
//!   plain average, calls waited 1 to 4 % less while all was well, and about as long while it was
//!   not: what notices a stall at once is not the average but that the stalled calls are in flight.
//! - Theirs sinks while calls wait for an answer too. A target that hangs then gets cheaper, takes
//!   more and more calls, and had over half of them after ten minutes. Here silence counts for
//!   [`Load::cost`] only while nobody waits, and it had a tenth at most.
//!
//! Leaves out spread and quantiles (`latency`), and failures (a cooldown's matter).

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// After this long without an answer, an estimate is half of what it was.
pub const HALF_LIFE: Duration = Duration::from_secs(30);

/// The cost of a target which is being tried for the first time: above all that were measured.
const ON_TRIAL: f64 = 1e12;
/// How fine the time of an answer is kept: 31 bits of it are more than three years.
const TICK: Duration = Duration::from_millis(50);

/// What is known of a target. To be shared by all who call it; takes no lock.
#[derive(Debug)]
pub struct Load {
    /// What ticks are counted from.
    born: Instant,
    in_flight: AtomicU32,
    /// Those in flight whose first byte has not come.
    waiting: AtomicU32,
    /// A packed [`Average`], so that its two halves are always of the same answer; 0 is none yet.
    first_byte: AtomicU64,
}

/// A call that counts as in flight until this is dropped.
#[derive(Debug)]
#[must_use = "the call counts until this is dropped"]
pub struct InFlight {
    load: Arc<Load>,
    waiting: bool,
}

/// The time to the first byte, as it was after the latest answer.
#[derive(Debug, Clone, Copy)]
struct Average {
    /// At least 1, which tells it from none; 71 minutes at most.
    micros: u32,
    /// When that answer came, in ticks since the load was born.
    at: u32,
}

impl Load {
    /// Nothing in flight, nothing measured.
    pub const fn new(now: Instant) -> Self {
        Self {
            born: now,
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            first_byte: AtomicU64::new(0),
        }
    }

    /// Counts a call until what is returned is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.waiting.fetch_add(1, Relaxed);
        InFlight {
            load: Arc::clone(self),
            waiting: true,
        }
    }

    /// Calls that have begun and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How long the target is expected to take to its first byte: the moving average, less the
    /// longer nothing was measured. `None` if nothing ever was.
    pub fn estimate(&self, now: Instant) -> Option<Duration> {
        let average = self.average()?;
        Some(average.took().mul_f64(average.kept(self.ticks(now))))
    }

    /// What a further call costs here, to be compared with other targets: the expected time to its
    /// first byte in seconds, times the calls in flight with that one. What makes a target worth
    /// trying (it was never measured, or long ago) holds for one call at a time: while that one
    /// waits, the cost is what it was, or above all others where nothing is known.
    pub fn cost(&self, now: Instant) -> f64 {
        let in_flight = f64::from(self.in_flight());
        let expected = match self.waiting.load(Relaxed) {
            0 => self.estimate(now),
            _ => self.average().map(Average::took),
        };
        expected.map_or(in_flight * ON_TRIAL, |expected| {
            expected.as_secs_f64() * (in_flight + 1.0)
        })
    }

    fn measured(&self, time_to_first_byte: Duration, now: Instant) {
        let at = self.ticks(now);
        let _ = self.first_byte.fetch_update(Relaxed, Relaxed, |word| {
            let average = Average::unpack(word);
            Some(Average::after(average, time_to_first_byte, at).pack())
        });
    }

    fn average(&self) -> Option<Average> {
        Average::unpack(self.first_byte.load(Relaxed))
    }

    /// Wraps around, which [`Average::kept`] knows.
    fn ticks(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.born);
        (age.as_millis() / TICK.as_millis()) as u32
    }
}

impl InFlight {
    /// The first byte came at `now`, so long after the call began. To be told of good answers, and
    /// of timeouts (how long they waited), but not of failures that come quickly: they would make
    /// a broken target look fast.
    pub fn measured(&mut self, time_to_first_byte: Duration, now: Instant) {
        self.load.measured(time_to_first_byte, now);
        self.wait_no_more();
    }

    fn wait_no_more(&mut self) {
        if mem::take(&mut self.waiting) {
            self.load.waiting.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wait_no_more();
        self.load.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Average {
    /// With one more answer. Its share grows with the time since the one before, so that the
    /// average covers the same span at any rate of calls.
    fn after(before: Option<Self>, took: Duration, at: u32) -> Self {
        let sample = took.as_micros() as f64;
        let micros = before.map_or(sample, |before| {
            let kept = before.kept(at);
            f64::from(before.micros) * kept + sample * (1.0 - kept)
        });
        Self {
            micros: (micros.round() as u32).max(1),
            at,
        }
    }

    fn took(self) -> Duration {
        Duration::from_micros(self.micros.into())
    }

    /// The share of it that is left: 1 at first, half of it after each half-life.
    fn kept(self, at: u32) -> f64 {
        // Other threads may have read the clock a little earlier: that is no time, not a year.
        let ticks = at.wrapping_sub(self.at).cast_signed().max(0);
        let elapsed = TICK.as_secs_f64() * f64::from(ticks);
        (-elapsed / HALF_LIFE.as_secs_f64()).exp2()
    }

    const fn pack(self) -> u64 {
        (self.micros as u64) << 32 | self.at as u64
    }

    const fn unpack(word: u64) -> Option<Self> {
        match (word >> 32) as u32 {
            0 => None,
            micros => Some(Self {
                micros,
                at: word as u32,
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// To the millisecond.
    fn estimate(load: &Load, now: Instant) -> u128 {
        (load.estimate(now).unwrap() + Duration::from_micros(500)).as_millis()
    }

    #[test]
    fn calls_count_until_they_are_dropped_in_whatever_way() {
        let load = Arc::new(Load::new(Instant::now()));
        let first = load.enter();
        let second = load.enter();
        assert_eq!(load.in_flight(), 2);
        drop(first);
        assert_eq!(load.in_flight(), 1);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            let _third = load.enter();
            assert_eq!(load.in_flight(), 2);
            panic!("as asked");
        }));
        assert!(broken.is_err());
        assert_eq!(load.in_flight(), 1);
        drop(second);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn the_estimate_halves_with_every_half_life() {
        let born = Instant::now();
        let load = Load::new(born);
        assert_eq!(load.estimate(born), None);
        let now = born + seconds(7);
        load.measured(seconds(8), now);
        let table = [(0, 8000), (30, 4000), (60, 2000), (90, 1000), (15, 5657)];
        for (later, expected) in table {
            assert_eq!(estimate(&load, now + seconds(later)), expected, "{later}");
        }
        assert_eq!(estimate(&load, now + seconds(86_400)), 0);
        assert_eq!(estimate(&load, born), 8000, "a clock that is behind");
    }

    #[test]
    fn a_later_answer_counts_for_more_the_later_it_is() {
        // Seconds to the second answer, what it took, and the estimate after it.
        let table = [
            (0, 9, 1000),
            (30, 9, 5000),
            (60, 9, 7000),
            (3600, 9, 9000),
            (30, 0, 500),
            (30, 1, 1000),
        ];
        for (later, took, expected) in table {
            let born = Instant::now();
            let load = Load::new(born);
            load.measured(seconds(1), born);
            load.measured(seconds(took), born + seconds(later));
            let estimate = estimate(&load, born + seconds(later));
            assert_eq!(estimate, expected, "{took} s after {later} s");
        }
    }

    #[test]
    fn the_average_covers_the_same_span_at_any_rate() {
        for rate in [1, 10, 50] {
            let born = Instant::now();
            let load = Load::new(born);
            load.measured(seconds(1), born);
            let step = seconds(1) / rate;
            for answer in 1..=30 * rate {
                load.measured(seconds(3), born + step * answer);
            }
            assert_eq!(estimate(&load, born + seconds(30)), 2000, "{rate} a second");
        }
    }

    #[test]
    fn odd_times_do_no_harm() {
        let born = Instant::now();
        let year = seconds(365 * 86_400);
        let load = Load::new(born);
        load.measured(Duration::ZERO, born);
        assert_eq!(load.estimate(born), Some(Duration::from_micros(1)));
        load.measured(Duration::MAX, born + year);
        assert_eq!(estimate(&load, born + year) / 60_000, 71);
        // Across the point where ticks start again, after some seven years.
        let load = Load::new(born);
        let end = born + TICK * u32::MAX - seconds(10);
        load.measured(seconds(4), end);
        assert_eq!(estimate(&load, end + seconds(30)), 2000);
        load.measured(seconds(2), born - year);
        assert!(load.estimate(born - year).is_some());
    }

    #[test]
    fn a_call_costs_the_estimate_for_each_in_flight_and_itself() {
        let now = Instant::now();
        let load = Arc::new(Load::new(now));
        load.measured(seconds(2), now);
        assert!((load.cost(now) - 2.0).abs() < 1e-9);
        let _calls = [load.enter(), load.enter()];
        assert!((load.cost(now) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn silence_makes_a_target_cheaper_while_nobody_waits_for_it() {
        let born = Instant::now();
        let load = Arc::new(Load::new(born));
        let mut long = load.enter();
        // Seconds, calls in flight.
        let costs = |now: Instant, seconds: f64, calls: f64| {
            let cost = load.cost(now);
            assert!((cost - seconds * (calls + 1.0)).abs() < 1e-6, "{cost}");
        };
        long.measured(seconds(8), born);
        costs(born + seconds(60), 2.0, 1.0);
        let mut call = load.enter();
        costs(born + seconds(60), 8.0, 2.0);
        costs(born + seconds(600), 8.0, 2.0);
        call.measured(seconds(8), born + seconds(600));
        costs(born + seconds(630), 4.0, 2.0);
        // Told twice, it is one call all the same.
        call.measured(seconds(8), born + seconds(6000));
        costs(born + seconds(6030), 4.0, 2.0);
        let hung = load.enter();
        drop((long, call));
        costs(born + seconds(6030), 8.0, 1.0);
        drop(hung);
        costs(born + seconds(6030), 4.0, 0.0);
    }

    #[test]
    fn what_was_never_measured_is_tried_by_one_call_at_a_time() {
        let now = Instant::now();
        let (new, slow) = (Arc::new(Load::new(now)), Load::new(now));
        slow.measured(seconds(3600), now);
        assert!(new.cost(now) < slow.cost(now));
        let _first = new.enter();
        let one = new.cost(now);
        assert!(one > slow.cost(now));
        let _second = new.enter();
        assert!(new.cost(now) > one);
    }

    #[test]
    fn no_call_and_no_answer_is_lost_or_torn_between_threads() {
        let born = Instant::now();
        let load = Arc::new(Load::new(born));
        thread::scope(|scope| {
            for thread in 0..4 {
                let load = &load;
                scope.spawn(move || {
                    for answer in 0..2000 {
                        let mut call = load.enter();
                        let now = born + seconds(answer * 5);
                        call.measured(seconds(1 + thread), now);
                        let estimate = load.estimate(now).unwrap();
                        assert!(estimate <= seconds(4), "{estimate:?}");
                    }
                });
            }
        });
        assert_eq!((load.in_flight(), load.waiting.load(Relaxed)), (0, 0));
    }
}
