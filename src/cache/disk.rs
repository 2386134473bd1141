//! The disk tier: who owns the directory, what is written when, and what happens when the
//! disk is full, slow, read-only or broken (misses, a metric and one line in the log).
//!
//! The engine under it is a log: records are appended to segment files, an index in memory
//! says where each entry lies, and when room is needed the oldest segment goes as a whole.
//!
//! `foyer` 0.22.6 was tried first. On a full disk its writes fail without the caller learning
//! of it (there are only trace events, and the traits that one could observe them through are
//! private), a damaged entry is a miss like any other, a closed store keeps its files open
//! (its flusher and reclaimer hold each other), and its single-file device prints to standard
//! output. It would also bring 27 crates, one of them C.
//!
//! One file per entry, as nginx has it, came second. It was simple and correct, and cost 60 to
//! 170 µs of processor time in the kernel per small entry, where a whole request costs about
//! 90: ext4 has to find and fill an inode for each, and with a steady eviction it walks past
//! all inodes that were freed in the last seconds before it takes one. In a log a thousand
//! small entries are one write, and giving up as many is one file deleted. What it costs: an
//! entry that nobody asks for lies among others until their segment goes, and who goes first
//! is decided per segment, with a second chance for what was read.
//!
//! One thread owns the disk while this process does: it takes the lock, finds what is there,
//! and then sleeps until there is something to write. It lets orders gather for some
//! milliseconds and writes them with one call; meanwhile they are in memory anyway. Reads
//! happen on the caller's blocking threads, a few at a time. Requests never wait for the
//! thread.
//!
//! Nothing is synced. A process that is killed leaves whole records and at most one torn at
//! the end of a segment, which is where the reading of that segment ends. After a power
//! failure any record may be torn, which its checksum tells, and that is a miss.
//!
//! Two processes overlap during an upgrade. The lock of a file decides: whoever does not get
//! it works on memory alone and asks again every half second. The kernel drops the lock with
//! its process, so no crash locks anyone out.

mod append;
mod health;
mod index;
mod owner;
mod record;
mod segments;

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use append::Bounds;
use health::Health;
use index::{Index, Place};
use segments::{Directory, Unread};

use super::entry::{Entry, KeyBytes};
use super::tiers::Watch;
use crate::background;

/// How long a request waits for the disk before it is a miss.
const READ: Duration = Duration::from_millis(250);
/// How long the thread goes on writing what is queued when the disk is handed over.
const FLUSH: Duration = Duration::from_secs(2);
/// So many reads at a time.
const READERS: usize = 16;
/// So many orders wait at most, however small.
const MOST_ORDERS: usize = 16_384;
/// About so many bytes are written at a time.
const BATCH: usize = 1 << 20;

/// Where the disk tier is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// A directory of its own; made if it is not there.
    pub directory: PathBuf,
    /// The bytes that it may take.
    pub size: u64,
}

/// The disk tier. Dropping it gives the directory up in the background.
pub struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    directory: Directory,
    bounds: Bounds,
    /// The bytes that may wait to be written.
    most_queued: usize,
    watch: Arc<dyn Watch>,
    /// There is one while this process owns the directory.
    index: Mutex<Option<Index>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    readers: Arc<Semaphore>,
    reading: Mutex<Health>,
    writing: Mutex<Health>,
    #[cfg(test)]
    hooks: Hooks,
}

/// What tests do to a disk that no real directory does on demand, and see of it.
#[cfg(test)]
#[derive(Default)]
struct Hooks {
    /// Reads hang while this is set.
    hang: AtomicBool,
    /// How often something was written.
    writes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    orders: VecDeque<Order>,
    bytes: usize,
    /// The thread is to be woken when so many bytes wait. Waking it for each order would cost
    /// each of them a system call.
    wakes_at: usize,
    /// The directory is to be given up.
    releasing: bool,
    /// The thread is gone, and the lock with it.
    ended: bool,
}

enum Order {
    Write(Arc<Entry>),
    /// Removes what is stored under a hash.
    Remove(u64),
    /// Removes it if it is still the record at that place, which is of no use.
    Drop(u64, Place),
}

impl Order {
    /// The bytes that it counts for in the queue.
    fn weight(&self) -> usize {
        match self {
            Self::Write(entry) => entry.weight(),
            Self::Remove(_) | Self::Drop(..) => 0,
        }
    }
}

impl Disk {
    /// Starts to open the directory, in the background. At most `most_queued` bytes wait to
    /// be written.
    pub fn start(settings: DiskSettings, most_queued: usize, watch: Arc<dyn Watch>) -> Self {
        let shared = Arc::new(Shared {
            directory: Directory::new(settings.directory),
            bounds: Bounds::new(settings.size),
            most_queued,
            watch,
            index: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            reading: Mutex::default(),
            writing: Mutex::default(),
            #[cfg(test)]
            hooks: Hooks::default(),
        });
        let thread = shared.clone();
        if let Err(error) = background::spawn("cache disk", move || thread.run()) {
            shared.wrong(&shared.writing, "disk_open", &error);
            locked(&shared.queue).ended = true;
        }
        Self { shared }
    }

    /// The entry of `key`; a miss if the disk takes too long.
    pub async fn read(&self, key: &KeyBytes) -> Option<Arc<Entry>> {
        let found = locked(&self.shared.index).as_mut()?.find(hash(key))?;
        if locked(&self.shared.reading).rests(Instant::now()) {
            self.shared.watch.error("disk_slow");
            return None;
        }
        let read = self.shared.clone().read(found, *key);
        match tokio::time::timeout(READ, read).await {
            Ok(entry) => entry.map(Arc::new),
            Err(_) => {
                self.shared.slow();
                None
            }
        }
    }

    /// Has `entry` written in the background, if there is room in the queue.
    pub fn write(&self, entry: Arc<Entry>) {
        if !self.is_owned() || self.shared.rests_from_writing() {
            return;
        }
        self.shared.order(Order::Write(entry));
    }

    /// Has the entry of `key` deleted in the background.
    pub fn remove(&self, key: &KeyBytes) {
        if self.is_owned() {
            self.shared.order(Order::Remove(hash(key)));
        }
    }

    /// Whether this process owns the directory.
    pub fn is_owned(&self) -> bool {
        locked(&self.shared.index).is_some()
    }

    /// The bytes that segments take on disk, with what is dead in them; none while another
    /// process owns it.
    pub fn bytes(&self) -> u64 {
        locked(&self.shared.index).as_ref().map_or(0, Index::bytes)
    }

    /// Writes what is queued, for a bounded time, and gives the directory up for good. Blocks
    /// until that is done or the disk hangs; returns whether it was done.
    pub fn release(&self) -> bool {
        self.begin_release();
        let queue = locked(&self.shared.queue);
        let waiting = |queue: &mut Queue| !queue.ended;
        let wait = self
            .shared
            .changed
            .wait_timeout_while(queue, FLUSH * 2, waiting);
        wait.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Has reads hang from now on, or no longer.
    #[cfg(test)]
    pub fn hang(&self, hang: bool) {
        self.shared.hooks.hang.store(hang, Ordering::Relaxed);
    }

    /// How often something was written.
    #[cfg(test)]
    pub fn writes(&self) -> u64 {
        self.shared.hooks.writes.load(Ordering::Relaxed)
    }

    fn begin_release(&self) {
        locked(&self.shared.queue).releasing = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.begin_release();
    }
}

/// The request's side.
impl Shared {
    fn order(&self, order: Order) {
        let bytes = order.weight();
        let mut queue = locked(&self.queue);
        let is_full = queue.orders.len() >= MOST_ORDERS
            // Even an entry larger than the queue may wait alone.
            || (bytes > 0 && queue.bytes > 0 && queue.bytes + bytes > self.most_queued);
        if queue.releasing {
            return;
        }
        if is_full {
            self.watch.error("queue_full");
            return;
        }
        queue.bytes += bytes;
        queue.orders.push_back(order);
        if queue.bytes >= queue.wakes_at {
            queue.wakes_at = usize::MAX;
            self.changed.notify_all();
        }
    }

    async fn read(self: Arc<Self>, found: (Place, Arc<File>), key: KeyBytes) -> Option<Entry> {
        let (place, file) = found;
        let permit = self.readers.clone().acquire_owned().await.ok()?;
        #[cfg(test)]
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            #[cfg(test)]
            while shared.hooks.hang.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            segments::read(&file, &place, &key)
        });
        match read.await.ok()? {
            Ok(entry) => {
                locked(&self.reading).right();
                Some(entry)
            }
            Err(unread) => {
                self.unread(&key, place, &unread);
                None
            }
        }
    }

    fn unread(&self, key: &KeyBytes, place: Place, unread: &Unread) {
        match unread {
            Unread::Absent => {}
            Unread::Damaged(damage) => {
                self.wrong(&self.reading, "disk_corrupt", damage);
                self.order(Order::Drop(hash(key), place));
            }
            Unread::Failed(error) => self.wrong(&self.reading, "disk_read", error),
        }
    }

    fn slow(&self) {
        let rests = locked(&self.reading).slow_read(Instant::now());
        if rests {
            let reason = "several reads in a row took too long";
            self.wrong(&self.reading, "disk_slow", &reason);
        } else {
            self.watch.error("disk_slow");
        }
    }

    fn rests_from_writing(&self) -> bool {
        let health = locked(&self.writing);
        let rests = health.rests(Instant::now());
        if let (true, Some(what)) = (rests, health.wrong()) {
            self.watch.error(what);
        }
        rests
    }

    /// Counts what went wrong, and logs it unless it is known.
    fn wrong(&self, side: &Mutex<Health>, what: &'static str, reason: &dyn fmt::Display) {
        self.watch.error(what);
        if locked(side).is_news(what, Instant::now()) {
            log::warn!("the cache's disk tier: {what}: {reason}; what it would have had is a miss");
        }
    }
}

/// What the index knows a key by: its first 8 bytes. Two keys that share them replace each
/// other; each is read only as what it is, because an entry holds its whole key.
fn hash(key: &KeyBytes) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    u64::from_be_bytes(first)
}

/// A panic of another thread leaves nothing half done that matters to a cache.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
