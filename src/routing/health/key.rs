//! When a stored key is left alone because the provider refuses it.
//!
//! A key that is wrong, without money or without the right is refused for every model; one that
//! has reached a limit, only for the model the limit is of.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::doubling;

/// Models remembered per key. When there are more, the one whose time ends first goes.
const MOST_MODELS: usize = 64;
/// Neither a key nor one of its models is left alone for longer.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// How long it is remembered that it was, so that the next time is known to be one in a row.
const REMEMBERED: Duration = LONGEST;

/// How long a key is left alone after so many refusals in a row (1 is the first): a minute,
/// doubling to 10.
pub fn refused_for(in_row: u32) -> Duration {
    doubling(Duration::from_secs(60), LONGEST, in_row)
}

/// How long a model is left alone after its limit was reached so many times in a row (1 is the
/// first): what the provider asked for, up to 10 minutes, or else 5 seconds, doubling to a minute.
pub fn limited_for(asked: Option<Duration>, in_row: u32) -> Duration {
    let unasked = doubling(Duration::from_secs(5), Duration::from_secs(60), in_row);
    asked.map_or(unasked, |asked| asked.min(LONGEST))
}

/// The health of one stored key. Remembers 64 models at most, and takes at most about 3 KiB.
#[derive(Debug, Default)]
pub struct KeyHealth {
    /// Whether anything is remembered. Only written under the lock, so that the two cannot part.
    ailing: AtomicBool,
    memory: Mutex<Memory>,
    ids: RandomState,
}

impl KeyHealth {
    /// Until when it is better not used for this model; `None` where it is well.
    pub fn standing(&self, model: &str, now: Instant) -> Option<Instant> {
        if !self.ailing.load(Relaxed) {
            return None;
        }
        let model = self.id(model);
        let until = self.change(|memory| {
            memory.forget(now);
            memory.until(model)
        });
        until.filter(|until| *until > now)
    }

    /// The provider refused the key in a call that began then (401, 402, 403): it is left alone,
    /// for every model, until the time that comes back.
    pub fn refused(&self, began: Instant, now: Instant) -> Instant {
        self.change(|memory| {
            let cooling = Cooling::after(memory.whole, began, now, refused_for);
            memory.whole.insert(cooling).until
        })
    }

    /// As [`Self::refused`], where the provider refused the key for this model only.
    pub fn refused_model(&self, model: &str, began: Instant, now: Instant) -> Instant {
        let cool = |before| Cooling::after(before, began, now, refused_for);
        self.cool_model(model, cool)
    }

    /// The key has reached its limit for this model, in a call that began then (429), and the
    /// provider asked to be left alone for so long: it is, until the time that comes back.
    pub fn limited(
        &self,
        model: &str,
        asked: Option<Duration>,
        began: Instant,
        now: Instant,
    ) -> Instant {
        let hold = |in_row| limited_for(asked, in_row);
        self.cool_model(model, |before| Cooling::after(before, began, now, hold))
    }

    /// A call for this model that began then has succeeded: both the key and the model are well,
    /// unless they were refused since.
    pub fn worked(&self, model: &str, began: Instant) {
        if self.ailing.load(Relaxed) {
            let model = self.id(model);
            self.change(|memory| memory.worked(model, began));
        }
    }

    fn cool_model(&self, model: &str, cool: impl FnOnce(Option<Cooling>) -> Cooling) -> Instant {
        let model = self.id(model);
        self.change(|memory| {
            let cooling = cool(memory.take(model));
            memory.put(model, cooling);
            cooling.until
        })
    }

    fn change<T>(&self, event: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock();
        let outcome = event(&mut memory);
        self.ailing.store(!memory.is_empty(), Relaxed);
        outcome
    }

    /// Names come from clients and can be long; hashes keep the size bounded. Two that share one
    /// would only be cooled together, and nobody can choose such names.
    fn id(&self, model: &str) -> u64 {
        self.ids.hash_one(model)
    }
}

#[derive(Debug, Default)]
struct Memory {
    whole: Option<Cooling>,
    /// At most [`MOST_MODELS`], each once.
    models: Vec<(u64, Cooling)>,
}

impl Memory {
    fn is_empty(&self) -> bool {
        self.whole.is_none() && self.models.is_empty()
    }

    fn until(&self, model: u64) -> Option<Instant> {
        let mut models = self.models.iter();
        let of_model = models.find(|(id, _)| *id == model);
        let of_model = of_model.map(|(_, cooling)| cooling.until);
        self.whole.map(|cooling| cooling.until).max(of_model)
    }

    fn forget(&mut self, now: Instant) {
        self.whole.take_if(|cooling| cooling.is_over(now));
        self.models.retain(|(_, cooling)| !cooling.is_over(now));
    }

    fn worked(&mut self, model: u64, began: Instant) {
        self.whole.take_if(|cooling| cooling.since <= began);
        self.models
            .retain(|(id, cooling)| *id != model || cooling.since > began);
    }

    fn take(&mut self, model: u64) -> Option<Cooling> {
        let place = self.models.iter().position(|(id, _)| *id == model)?;
        Some(self.models.swap_remove(place).1)
    }

    fn put(&mut self, model: u64, cooling: Cooling) {
        let places = 0..self.models.len();
        if places.len() >= MOST_MODELS
            && let Some(first) = places.min_by_key(|place| self.models[*place].1.until)
        {
            self.models.swap_remove(first);
        }
        self.models.push((model, cooling));
    }
}

/// That something is left alone.
#[derive(Debug, Clone, Copy)]
struct Cooling {
    /// When it was refused last. A success that began before that says nothing.
    since: Instant,
    until: Instant,
    in_row: u32,
}

impl Cooling {
    /// What follows from one more refusal. It is one more in a row only where the call began
    /// after the last time was over: many calls in flight are refused for the same reason. Those
    /// go on from the last of them.
    fn after(
        before: Option<Self>,
        began: Instant,
        now: Instant,
        hold: impl FnOnce(u32) -> Duration,
    ) -> Self {
        let in_row = match before {
            Some(before) if began < before.until => before.in_row,
            Some(before) => before.in_row.saturating_add(1),
            None => 1,
        };
        let until = now + hold(in_row);
        Self {
            since: now,
            until: before.map_or(until, |before| before.until.max(until)),
            in_row,
        }
    }

    /// Whether it can be forgotten.
    fn is_over(&self, now: Instant) -> bool {
        self.until + REMEMBERED <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and its clock, in seconds. Calls take no time unless it is said.
    struct Bench {
        key: KeyHealth,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                key: KeyHealth::default(),
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn since_start(&self, until: Instant) -> u64 {
            (until - self.start).as_secs()
        }

        fn refused(&self, began: u64, now: u64) -> u64 {
            self.since_start(self.key.refused(self.at(began), self.at(now)))
        }

        fn limited(&self, model: &str, asked: Option<u64>, began: u64, now: u64) -> u64 {
            let (asked, began) = (asked.map(Duration::from_secs), self.at(began));
            self.since_start(self.key.limited(model, asked, began, self.at(now)))
        }

        fn worked(&self, model: &str, began: u64) {
            self.key.worked(model, self.at(began));
        }

        fn standing(&self, model: &str, now: u64) -> Option<u64> {
            let until = self.key.standing(model, self.at(now))?;
            Some(self.since_start(until))
        }

        fn is_ailing(&self) -> bool {
            self.key.ailing.load(Relaxed)
        }
    }

    #[test]
    fn how_long() {
        let refused = [1, 2, 3, 4, 5, u32::MAX].map(|in_row| refused_for(in_row).as_secs());
        assert_eq!(refused, [60, 120, 240, 480, 600, 600]);
        let limited = [1, 2, 3, 4, 5, u32::MAX].map(|in_row| limited_for(None, in_row).as_secs());
        assert_eq!(limited, [5, 10, 20, 40, 60, 60]);
        let table = [(0, 0), (7, 7), (600, 600), (601, 600), (u64::MAX, 600)];
        for (asked, held) in table {
            let asked = Some(Duration::from_secs(asked));
            assert_eq!(limited_for(asked, 3).as_secs(), held);
        }
    }

    #[test]
    fn a_refused_key_is_cooled_for_every_model() {
        let bench = Bench::new();
        assert_eq!(bench.standing("a", 0), None);
        assert_eq!(bench.refused(0, 1), 61);
        assert_eq!(bench.standing("a", 1), Some(61));
        assert_eq!(bench.standing("b", 60), Some(61));
        assert_eq!(bench.standing("a", 61), None);
    }

    #[test]
    fn a_limit_and_a_refused_model_are_of_one_model() {
        let bench = Bench::new();
        assert_eq!(bench.limited("a", Some(20), 0, 0), 20);
        let until = bench.key.refused_model("b", bench.at(0), bench.at(0));
        assert_eq!(bench.since_start(until), 60);
        let standing = ["a", "b", "c"].map(|model| bench.standing(model, 1));
        assert_eq!(standing, [Some(20), Some(60), None]);
    }

    #[test]
    fn the_later_of_the_keys_and_the_models_times_holds() {
        let bench = Bench::new();
        bench.refused(0, 0);
        bench.limited("short", None, 0, 0);
        bench.limited("long", Some(300), 0, 0);
        assert_eq!(bench.standing("short", 1), Some(60));
        assert_eq!(bench.standing("long", 1), Some(300));
    }

    #[test]
    fn one_more_in_a_row_is_longer() {
        let bench = Bench::new();
        assert_eq!(bench.refused(0, 0), 60);
        assert_eq!(bench.refused(60, 60), 60 + 120);
        assert_eq!(bench.refused(200, 201), 201 + 240);
        assert_eq!(bench.limited("a", None, 0, 0), 5);
        assert_eq!(bench.limited("a", None, 5, 5), 5 + 10);
        assert_eq!(bench.limited("b", None, 20, 20), 20 + 5);
    }

    #[test]
    fn calls_in_flight_do_not_make_it_longer() {
        let bench = Bench::new();
        let times = [0, 1, 2].map(|now| bench.refused(0, now));
        assert_eq!(times, [60, 61, 62]);
        let times = [0, 1, 2].map(|now| bench.limited("a", None, 0, now));
        assert_eq!(times, [5, 6, 7]);
        // Nor shorter, whatever the last of them is told.
        assert_eq!(bench.limited("a", Some(1), 0, 3), 7);
        assert_eq!(bench.limited("a", Some(30), 0, 4), 34);
    }

    #[test]
    fn a_success_ends_it_for_the_key_and_its_model() {
        let bench = Bench::new();
        bench.refused(0, 0);
        bench.limited("a", Some(90), 0, 0);
        bench.limited("b", Some(90), 0, 0);
        bench.worked("a", 1);
        let standing = ["a", "b", "c"].map(|model| bench.standing(model, 1));
        assert_eq!(standing, [None, Some(90), None]);
        assert!(bench.is_ailing());
        bench.worked("b", 0);
        assert!(!bench.is_ailing());
        assert_eq!(bench.refused(2, 2), 62, "the row is over");
    }

    #[test]
    fn a_success_that_began_before_says_nothing() {
        let bench = Bench::new();
        bench.refused(3, 5);
        bench.limited("a", Some(90), 3, 5);
        bench.worked("a", 4);
        assert_eq!(bench.standing("a", 6), Some(95));
        assert_eq!(bench.standing("b", 6), Some(65));
    }

    #[test]
    fn it_is_forgotten_in_the_end() {
        let bench = Bench::new();
        bench.limited("a", None, 0, 0);
        bench.refused(0, 0);
        for (now, ailing) in [(60, true), (659, true), (660, false)] {
            assert_eq!(bench.standing("other", now), None);
            assert_eq!(bench.is_ailing(), ailing, "{now}");
        }
    }

    #[test]
    fn of_too_many_models_the_one_that_ends_first_goes() {
        let bench = Bench::new();
        let most = MOST_MODELS as u64;
        for model in 0..most {
            bench.limited(&model.to_string(), Some(100 + model), 0, 0);
        }
        bench.limited("0", Some(500), 0, 0); // is there already: nobody has to go
        assert_eq!(bench.standing("1", 0), Some(101));
        bench.limited("new", Some(1), 0, 0);
        assert_eq!(bench.standing("1", 0), None);
        assert_eq!(bench.standing("new", 0), Some(1));
        assert_eq!(bench.standing("0", 0), Some(500));
        for model in 0..1000 {
            bench.limited(&format!("more {model}"), None, 0, 0);
        }
        let memory = bench.key.memory.lock();
        assert_eq!(memory.models.len(), MOST_MODELS);
        assert!(size_of_val(memory.models.as_slice()) <= 3 * 1024);
    }
}
