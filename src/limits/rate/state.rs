//! What rules have counted, and where that outlives a configuration.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::calls::Calls;
use super::clock::Clock;
use super::rule::Rule;
use super::sketch::Sketch;
use super::table::{Idle, Key, MADE_UP, Table};
use super::window::{Counts, Window};

/// What a rule has counted.
pub enum State {
    /// In windows of time.
    Windows(Windows),
    /// At the same time.
    Calls(Calls),
}

/// What a rule has counted in its window, for each value.
pub struct Windows {
    /// Locks of several rules are taken in the order of these.
    pub order: u64,
    /// Its window.
    pub window: Window,
    clock: Clock,
    exact: Table<Mutex<Counts>>,
    rest: OnceLock<Sketch>,
}

/// Where a value is counted.
pub enum Place<'a> {
    /// Exactly.
    Own(Arc<Mutex<Counts>>),
    /// About.
    Estimated(&'a Sketch, Key),
}

impl Windows {
    /// What time it is for its counters when the wall clock says `now`.
    pub fn moment(&self, now: SystemTime) -> SystemTime {
        self.clock.moment(&self.window, now)
    }

    /// Where a value is counted at `slot`.
    pub fn place(&self, key: Key, slot: u64) -> Place<'_> {
        let make = || Mutex::new(self.estimated(key, slot));
        match self.exact.counter(key, self.window.first(slot), make) {
            Some(own) => Place::Own(own),
            None => Place::Estimated(self.rest.get_or_init(|| Sketch::new(&self.window)), key),
        }
    }

    /// What a value that gets a counter is taken to have counted before.
    fn estimated(&self, key: Key, slot: u64) -> Counts {
        let sketch = self.rest.get();
        sketch.map_or_else(Counts::default, |sketch| {
            sketch.counts(key, &self.window, slot)
        })
    }

    /// Values that have a counter of their own.
    #[cfg(test)]
    pub fn exact(&self) -> usize {
        self.exact.len()
    }
}

impl Idle for Mutex<Counts> {
    fn is_idle(&self, first: u64) -> bool {
        self.lock().last().is_none_or(|last| last < first)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Windows(_) => "Windows",
            Self::Calls(_) => "Calls",
        })
    }
}

/// Most states that nobody's rules use: a configuration that comes back finds its counts.
const FORGOTTEN_ABOVE: usize = 1024;

#[derive(Default)]
struct States {
    by_rule: AHashMap<String, Arc<State>>,
    /// How many were left when it was last looked for unused ones: the next time, when there are
    /// twice as many.
    left: usize,
}

/// The states of all rules of a process, by what the rules say.
#[derive(Default)]
pub struct Registry {
    states: Mutex<States>,
    next: AtomicU64,
}

impl Registry {
    /// The state of a rule: the one that a rule of another configuration had that says the same.
    pub fn state(&self, rule: &Rule) -> Arc<State> {
        let mut states = self.states.lock();
        let identity = rule.identity();
        if let Some(state) = states.by_rule.get(&identity) {
            return Arc::clone(state);
        }
        if states.by_rule.len() >= (2 * states.left).max(FORGOTTEN_ABOVE) {
            states
                .by_rule
                .retain(|_, state| Arc::strong_count(state) > 1);
            states.left = states.by_rule.len();
        }
        let state = Arc::new(self.new_state(rule));
        states.by_rule.insert(identity, Arc::clone(&state));
        state
    }

    fn new_state(&self, rule: &Rule) -> State {
        let most = (!rule.is_bounded()).then_some(MADE_UP);
        match rule.window() {
            None => State::Calls(Calls::new(most)),
            Some(window) => State::Windows(Windows {
                order: self.next.fetch_add(1, Ordering::Relaxed),
                window,
                clock: Clock::default(),
                exact: Table::new(most),
                rest: OnceLock::new(),
            }),
        }
    }
}
