//! A counter for each value that a rule tells apart.
//!
//! Values that the configuration or a store of ours names are as many as they are. Those that
//! clients make up are without bound: only so many have a counter of their own, and the rest is
//! left to an estimate.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

/// Values made up by clients that have a counter of their own, in each rule. A counter takes some
/// 200 bytes, with a sliding window up to 480: at most 15 MiB a rule.
pub const MADE_UP: usize = 32_768;

/// Parts of the table that are locked apart, each for the time of one look-up.
const SHARDS: usize = 32;

/// A value, as a digest with keys of this process.
pub type Key = u128;

/// What can be dropped when there is no room.
pub trait Idle {
    /// Nothing is counted any more, where `first` is the first slot of the rule's window that counts.
    fn is_idle(&self, first: u64) -> bool;
}

/// Counters by value.
pub struct Table<C> {
    shards: Box<[Mutex<Shard<C>>]>,
    /// Most counters of a shard.
    most: usize,
}

struct Shard<C> {
    counters: AHashMap<Key, Arc<C>>,
    /// When idle counters were last looked for: at most once a slot.
    swept: u64,
}

impl<C: Idle> Table<C> {
    /// `most`: counters at once; `None` where their values are bounded elsewhere.
    pub fn new(most: Option<usize>) -> Self {
        let shard = || {
            Mutex::new(Shard {
                counters: AHashMap::new(),
                swept: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            most: most.map_or(usize::MAX, |most| most.div_ceil(SHARDS)),
        }
    }

    /// The counter of a value, made if there is room. `first`: the first slot that counts now.
    pub fn counter(&self, key: Key, first: u64, make: impl FnOnce() -> C) -> Option<Arc<C>> {
        let shard = self.shards.get(key as usize % SHARDS)?;
        let mut shard = shard.lock();
        if let Some(counter) = shard.counters.get(&key) {
            return Some(Arc::clone(counter));
        }
        if shard.counters.len() >= self.most && !shard.makes_room(first) {
            return None;
        }
        let counter = Arc::new(make());
        shard.counters.insert(key, Arc::clone(&counter));
        Some(counter)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let length = |shard: &Mutex<Shard<C>>| shard.lock().counters.len();
        self.shards.iter().map(length).sum()
    }
}

impl<C: Idle> Shard<C> {
    /// Drops what nobody uses and nothing counts in.
    fn makes_room(&mut self, first: u64) -> bool {
        if self.swept == first {
            return false;
        }
        self.swept = first;
        let before = self.counters.len();
        self.counters
            .retain(|_, counter| Arc::strong_count(counter) > 1 || !counter.is_idle(first));
        self.counters.len() < before
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Idle from this slot on.
    #[derive(Default)]
    struct Until(AtomicU64);

    impl Idle for Until {
        fn is_idle(&self, first: u64) -> bool {
            first >= self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn there_are_no_more_than_may_be_and_idle_ones_make_room() {
        let table = Table::<Until>::new(Some(SHARDS));
        let counter = |n: u128, first| table.counter(n * SHARDS as u128, first, Until::default);
        let first = counter(1, 5).unwrap();
        first.0.store(7, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&first, &counter(1, 5).unwrap()));
        assert!(counter(2, 6).is_none());
        assert!(counter(2, 8).is_none(), "it is used");
        drop(first);
        assert!(counter(2, 8).is_none(), "once a slot");
        assert!(counter(2, 9).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn bounded_values_all_have_one() {
        let table = Table::<Until>::new(None);
        for key in 0..10_000 {
            assert!(table.counter(key, 0, Until::default).is_some());
        }
        assert_eq!(table.len(), 10_000);
    }
}
