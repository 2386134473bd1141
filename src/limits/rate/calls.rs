//! Calls at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use pingora_limits::inflight::{Guard, Inflight};

use super::table::{Idle, Key, Table};

/// How many calls there are, for each value.
pub struct Calls {
    exact: Table<Gauge>,
    /// Made with the first value that needs it: 256 KiB.
    rest: OnceLock<Inflight>,
}

/// Calls of one value.
#[derive(Debug)]
pub struct Gauge {
    calls: AtomicU64,
    /// Made when there were values without one, of which it was one maybe.
    is_late: bool,
}

/// A call that counts until this is dropped.
#[must_use = "dropping it ends the call"]
pub enum Permit {
    /// Counted exactly.
    Own(Arc<Gauge>),
    /// Counted about: of values beyond those that have a counter.
    Estimated(Guard),
}

impl Calls {
    /// `most`: values with a counter of their own; `None` where they are bounded elsewhere.
    pub fn new(most: Option<usize>) -> Self {
        Self {
            exact: Table::new(most),
            rest: OnceLock::new(),
        }
    }

    /// One call more, if fewer than `limit` are under way.
    pub fn enter(&self, key: Key, limit: u64) -> Option<Permit> {
        // Which slot it is does not matter where nothing is forgotten: a look for idle ones each time.
        static LOOKS: AtomicU64 = AtomicU64::new(1);
        let look = LOOKS.fetch_add(1, Ordering::Relaxed);
        let make = || Gauge {
            calls: AtomicU64::new(0),
            is_late: self.rest.get().is_some(),
        };
        match self.exact.counter(key, look, make) {
            // Not made, and so dropped, where it is not one call more.
            Some(gauge) => {
                let limit = limit.saturating_sub(self.estimated(key, &gauge));
                gauge.enter(limit).then(|| Permit::Own(gauge))
            }
            None => {
                let (guard, calls) = self.rest.get_or_init(Inflight::new).incr(key, 1);
                let fits = u64::try_from(calls).is_ok_and(|calls| calls <= limit);
                fits.then_some(Permit::Estimated(guard))
            }
        }
    }

    /// Calls of a value that began before it had a counter, about.
    fn estimated(&self, key: Key, gauge: &Gauge) -> u64 {
        let rest = self.rest.get().filter(|_| gauge.is_late);
        let calls = rest.map_or(0, |rest| rest.incr(key, 0).1);
        u64::try_from(calls).unwrap_or(0)
    }
}

impl Gauge {
    fn enter(&self, limit: u64) -> bool {
        let more = |calls| (calls < limit).then_some(calls + 1);
        let entered = self
            .calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.is_ok()
    }
}

impl Idle for Gauge {
    fn is_idle(&self, _first: u64) -> bool {
        self.calls.load(Ordering::Acquire) == 0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Self::Own(gauge) = self {
            gauge.calls.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
