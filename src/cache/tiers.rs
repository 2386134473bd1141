//! The two places where answers are kept: memory, which is asked first and never waited for,
//! and a directory on disk, which survives restarts. Both are bounded in bytes.
//!
//! Memory is `quick_cache` rather than moka, which is in the binary anyway: moka lets inserts
//! wait in a buffer of hundreds of entries before it evicts, which with entries of a megabyte
//! is far over any bound. quick_cache evicts before it inserts, has no thread, and one pass of
//! rarely asked entries does not sweep out those that are asked for again.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::disk::Disk;
pub use super::disk::DiskSettings;
use super::entry::{Entry, KeyBytes};

/// A shard of memory has at least this much, so that large entries fit: none larger than its
/// shard is kept.
const SHARD: u64 = 32 << 20;
const MOST_SHARDS: u64 = 64;
/// A guess; it only shapes how much is remembered of what was evicted.
const USUAL_ENTRY: u64 = 16 << 10;

/// One of the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The process's memory.
    Memory,
    /// The directory on disk.
    Disk,
}

impl Tier {
    /// The label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Who counts what happens in the tiers.
pub trait Watch: Send + Sync {
    /// An entry of `bytes` was stored.
    fn stored(&self, tier: Tier, bytes: u64);
    /// An entry of `bytes` made room for others.
    fn evicted(&self, tier: Tier, bytes: u64);
    /// Something went wrong, and was a miss or an entry not stored: `disk_open`, `disk_read`,
    /// `disk_write`, `disk_full`, `disk_slow`, `disk_corrupt` or `queue_full`.
    fn error(&self, what: &'static str);
    /// This process has taken the directory, or has given it up.
    fn disk_owned(&self, owned: bool);
}

/// Memory and disk.
pub struct Tiers {
    memory: Cache<KeyBytes, Held, Weight, DefaultHashBuilder, Evictions>,
    disk: Option<Disk>,
    watch: Arc<dyn Watch>,
}

/// An entry in memory and its weight, which is asked for more often than it changes.
#[derive(Clone)]
struct Held {
    entry: Arc<Entry>,
    weight: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<KeyBytes, Held> for Weight {
    fn weight(&self, _: &KeyBytes, held: &Held) -> u64 {
        held.weight
    }
}

#[derive(Clone)]
struct Evictions(Arc<dyn Watch>);

impl Lifecycle<KeyBytes, Held> for Evictions {
    /// What was evicted is freed after the lock is.
    type RequestState = Vec<Held>;

    fn begin_request(&self) -> Vec<Held> {
        Vec::new()
    }

    fn on_evict(&self, evicted: &mut Vec<Held>, _: KeyBytes, held: Held) {
        evicted.push(held);
    }

    fn end_request(&self, evicted: Vec<Held>) {
        for held in evicted {
            self.0.evicted(Tier::Memory, held.weight);
        }
    }
}

impl Tiers {
    /// At most `memory` bytes of memory and, if given, a disk tier, which is opened in the
    /// background by a thread of its own. Never fails: without a disk there is memory.
    pub fn new(memory: u64, disk: Option<DiskSettings>, watch: Arc<dyn Watch>) -> Self {
        // Entries that wait to be written are in memory too, and few of them may be.
        let most_queued = usize::try_from((memory / 16).clamp(1 << 20, SHARD));
        let most_queued = most_queued.unwrap_or(1 << 20);
        Self {
            memory: in_memory(memory, watch.clone()),
            disk: disk.map(|disk| Disk::start(disk, most_queued, watch.clone())),
            watch,
        }
    }

    /// The entry of `key` if it is in memory. Never waits.
    pub fn memory(&self, key: &KeyBytes) -> Option<Arc<Entry>> {
        self.memory.get(key).map(|held| held.entry)
    }

    /// The entry of `key` if it is on disk and the disk is quick enough. From then on it is
    /// in memory.
    pub async fn disk(&self, key: &KeyBytes) -> Option<Arc<Entry>> {
        let entry = self.disk.as_ref()?.read(key).await?;
        self.hold(entry.clone());
        Some(entry)
    }

    /// Stores `entry`: in memory at once, on disk soon after. Never waits; what the disk
    /// cannot keep up with is not written.
    pub fn insert(&self, entry: Arc<Entry>) {
        self.hold(entry.clone());
        if let Some(disk) = &self.disk {
            disk.write(entry);
        }
    }

    fn hold(&self, entry: Arc<Entry>) {
        let weight = entry.weight() as u64;
        self.watch.stored(Tier::Memory, weight);
        self.memory.insert(entry.facts.key, Held { entry, weight });
    }

    /// Removes the entry of `key`: from memory at once, from disk soon after. A purge, which
    /// must hold at once and for good, is a matter of [`super::stamps`].
    pub fn remove(&self, key: &KeyBytes) {
        self.memory.remove(key);
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
    }

    /// Gives the disk to another process, for good, once what is queued is written. Memory
    /// goes on. Blocks for at most a few seconds; returns whether the disk is given up.
    pub fn release_disk(&self) -> bool {
        self.disk.as_ref().is_none_or(Disk::release)
    }

    /// The bytes that entries take in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.weight()
    }

    /// The bytes that are taken on disk, while this process owns it.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::bytes)
    }

    /// The disk tier itself.
    #[cfg(test)]
    pub fn disk_tier(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Whether this process owns the disk.
    pub fn disk_owned(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_owned)
    }
}

fn in_memory(
    bytes: u64,
    watch: Arc<dyn Watch>,
) -> Cache<KeyBytes, Held, Weight, DefaultHashBuilder, Evictions> {
    let shards = (bytes / SHARD).clamp(1, MOST_SHARDS);
    // Rounded down here, because up would make shards too small.
    let shards = 1 << shards.ilog2();
    let entries = usize::try_from(bytes / USUAL_ENTRY).unwrap_or(usize::MAX);
    let watch = Evictions(watch);
    let options = OptionsBuilder::new()
        .shards(shards)
        .estimated_items_capacity(entries.clamp(64, 1 << 20))
        .weight_capacity(bytes)
        .build();
    match options {
        Ok(options) => Cache::with_options(options, Weight, DefaultHashBuilder::default(), watch),
        // Only without a capacity, which it has.
        Err(_) => Cache::with(64, bytes, Weight, DefaultHashBuilder::default(), watch),
    }
}
