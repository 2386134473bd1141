//! The disk tier: who owns the directory, what is written when, and what happens when the
//! disk is full, slow, read-only or broken (misses, a metric and one line in the log).
//!
//! The engine under it is the file system: one file per entry and an index in memory, as in
//! nginx's proxy cache. `foyer` 0.22.6 was tried first. On a full disk its writes fail without
//! the caller learning of it (neither an error nor a counter, and the traits that one could
//! observe them through are private), a damaged entry is a silent miss, a closed store keeps
//! its files open (its flusher and reclaimer hold each other), and its single-file device
//! prints to standard output. It would also bring 29 crates, one of them C.
//!
//! One thread owns the disk while this process does: it takes the lock, lists what is there,
//! and then sleeps until there is something to write or to delete. Reads happen on the
//! caller's blocking threads, a few at a time. Requests never wait for the thread.
//!
//! Two processes overlap during an upgrade. The lock of a file decides: whoever does not get
//! it works on memory alone and asks again every half second. The kernel drops the lock with
//! its process, so no crash locks anyone out.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;

use super::entry::{Entry, KeyBytes};
use super::files::{Files, Unread, hash};
use super::index::{Index, Slot};
use super::tiers::{Tier, Watch};

/// How often a process that waits for the directory asks for it.
const POLL: Duration = Duration::from_millis(500);
/// How long a disk that cannot be opened is left alone.
const REOPEN: Duration = Duration::from_secs(10);
/// How long a request waits for the disk before it is a miss.
const READ: Duration = Duration::from_millis(250);
/// After so many reads in a row that took too long, the disk is left alone for [`REST`].
const SLOW_READS: u32 = 3;
/// How long a disk is left alone that was slow or could not be written to.
const REST: Duration = Duration::from_secs(5);
/// How long the thread goes on writing what is queued when the disk is handed over.
const FLUSH: Duration = Duration::from_secs(2);
/// The same trouble is logged so often.
const SILENCE: Duration = Duration::from_secs(600);
/// So many reads at a time.
const READERS: usize = 16;
/// So many orders wait at most, however small.
const MOST_ORDERS: usize = 16_384;
/// No entry takes more than this part of the disk.
const LARGEST: u64 = 8;

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
    files: Files,
    /// The bytes that files may take.
    size: u64,
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
}

#[derive(Default)]
struct Queue {
    orders: VecDeque<Order>,
    bytes: usize,
    /// The directory is to be given up.
    releasing: bool,
    /// The thread is gone, and the lock with it.
    ended: bool,
}

enum Order {
    Write(Arc<Entry>),
    Remove(u64),
}

/// The directory, given up when the thread ends, however it ends.
struct Owner<'a> {
    shared: &'a Shared,
    lock: Option<File>,
}

/// Whether one side of the disk works.
#[derive(Default)]
struct Health {
    /// What was wrong last.
    wrong: Option<&'static str>,
    /// What was logged last, and when.
    logged: Option<(&'static str, Instant)>,
    /// Reads in a row that took too long.
    slow: u32,
    rests_until: Option<Instant>,
}

impl Disk {
    /// Starts to open the directory, in the background. At most `most_queued` bytes wait to
    /// be written.
    pub fn start(settings: DiskSettings, most_queued: usize, watch: Arc<dyn Watch>) -> Self {
        let shared = Arc::new(Shared {
            files: Files::new(settings.directory),
            // Directories and the file that is being written take room too.
            size: settings.size - settings.size / 32,
            most_queued,
            watch,
            index: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            reading: Mutex::default(),
            writing: Mutex::default(),
        });
        let thread = shared.clone();
        let builder = std::thread::Builder::new().name("cache disk".into());
        if let Err(error) = builder.spawn(move || thread.run()) {
            shared.wrong(&shared.writing, "disk_open", &error);
            locked(&shared.queue).ended = true;
        }
        Self { shared }
    }

    /// The entry of `key`; a miss if the disk takes too long.
    pub async fn read(&self, key: &KeyBytes) -> Option<Arc<Entry>> {
        let slot = locked(&self.shared.index).as_mut()?.touch(hash(key))?;
        if locked(&self.shared.reading).rests(Instant::now()) {
            self.shared.watch.error("disk_slow");
            return None;
        }
        let read = self.shared.clone().read(slot, *key);
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
        self.shared.order(entry.weight(), Order::Write(entry));
    }

    /// Has the entry of `key` deleted in the background.
    pub fn remove(&self, key: &KeyBytes) {
        if self.is_owned() {
            self.shared.order(0, Order::Remove(hash(key)));
        }
    }

    /// Whether this process owns the directory.
    pub fn is_owned(&self) -> bool {
        locked(&self.shared.index).is_some()
    }

    /// The bytes on disk; none while another process owns it.
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
    fn order(&self, bytes: usize, order: Order) {
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
        self.changed.notify_all();
    }

    async fn read(self: Arc<Self>, slot: Slot, key: KeyBytes) -> Option<Entry> {
        let permit = self.readers.clone().acquire_owned().await.ok()?;
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.files.read(&slot, &key)
        });
        match read.await.ok()? {
            Ok(entry) => {
                self.right(&self.reading);
                Some(entry)
            }
            Err(unread) => {
                self.unread(&slot, &unread);
                None
            }
        }
    }

    fn unread(&self, slot: &Slot, unread: &Unread) {
        match unread {
            Unread::Absent => {}
            Unread::Damaged(damage) => self.wrong(&self.reading, "disk_corrupt", damage),
            Unread::Failed(error) => self.wrong(&self.reading, "disk_read", error),
        }
        if !matches!(unread, Unread::Failed(_)) {
            self.order(0, Order::Remove(slot.hash));
        }
    }

    fn slow(&self) {
        let mut health = locked(&self.reading);
        health.slow += 1;
        if health.slow < SLOW_READS {
            self.watch.error("disk_slow");
            return;
        }
        health.slow = 0;
        health.rests_until = Some(Instant::now() + REST);
        drop(health);
        let reason = "several reads in a row took too long";
        self.wrong(&self.reading, "disk_slow", &reason);
    }

    fn rests_from_writing(&self) -> bool {
        let health = locked(&self.writing);
        let rests = health.rests(Instant::now());
        if let (true, Some(what)) = (rests, health.wrong) {
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

    fn right(&self, side: &Mutex<Health>) {
        let mut health = locked(side);
        health.slow = 0;
        health.rests_until = None;
        health.wrong = None;
    }
}

/// The thread's side.
impl Shared {
    fn run(&self) {
        let mut owner = Owner {
            shared: self,
            lock: self.own(),
        };
        if owner.lock.is_some() {
            self.watch.disk_owned(true);
            self.recover();
            while let Some(order) = self.next() {
                self.carry_out(order);
            }
            owner.give_up();
        }
    }

    /// Waits until the directory is this process's; `None` if it is to be given up before.
    fn own(&self) -> Option<File> {
        loop {
            let pause = match self.files.lock() {
                Ok(Some(lock)) => {
                    self.right(&self.writing);
                    *locked(&self.index) = Some(Index::new(chance()));
                    return Some(lock);
                }
                Ok(None) => POLL,
                Err(error) => {
                    self.wrong(&self.writing, "disk_open", &error);
                    REOPEN
                }
            };
            let queue = locked(&self.queue);
            let goes_on = |queue: &mut Queue| !queue.releasing;
            let waited = self.changed.wait_timeout_while(queue, pause, goes_on);
            if waited.unwrap_or_else(PoisonError::into_inner).0.releasing {
                return None;
            }
        }
    }

    /// Lists what is on disk, and writes in between what has come in.
    fn recover(&self) {
        for first in 0..=u8::MAX {
            match self.files.list(first) {
                Ok(slots) => slots.into_iter().for_each(|slot| self.recover_one(slot)),
                Err(error) => self.wrong(&self.reading, "disk_read", &error),
            }
            while let Some(order) = self.next_now() {
                self.carry_out(order);
            }
            if locked(&self.queue).releasing {
                return;
            }
        }
        // The disk may have been larger before.
        self.make_room(0);
    }

    fn recover_one(&self, slot: Slot) {
        let superfluous = {
            let mut index = locked(&self.index);
            let Some(index) = index.as_mut() else {
                return;
            };
            match index.get(slot.hash) {
                Some(known) if known.is_same_file(&slot) => None,
                // Killed between a new file and the end of the old one.
                Some(known) if known.used > 0 || known.expires >= slot.expires => Some(slot),
                _ if slot.expires <= seconds() => Some(slot),
                _ => index.insert(slot),
            }
        };
        if let Some(slot) = superfluous {
            let _ = self.files.delete(&slot);
        }
    }

    /// The next order; `None` when the directory is to be given up.
    fn next(&self) -> Option<Order> {
        let queue = locked(&self.queue);
        let idle = |queue: &mut Queue| queue.orders.is_empty() && !queue.releasing;
        let waited = self.changed.wait_while(queue, idle);
        let queue = waited.unwrap_or_else(PoisonError::into_inner);
        if !queue.releasing {
            return take(queue);
        }
        drop(queue);
        self.flush();
        None
    }

    fn next_now(&self) -> Option<Order> {
        take(locked(&self.queue))
    }

    fn flush(&self) {
        let latest = Instant::now() + FLUSH;
        while let Some(order) = self.next_now() {
            if Instant::now() > latest || locked(&self.writing).rests(Instant::now()) {
                return;
            }
            self.carry_out(order);
        }
    }

    fn carry_out(&self, order: Order) {
        let done = match order {
            Order::Write(entry) if !self.rests_from_writing() => self.write(&entry),
            Order::Write(_) => Ok(()),
            Order::Remove(hash) => self.remove(hash),
        };
        if let Err(error) = done {
            self.not_written(&error);
        }
    }

    fn remove(&self, hash: u64) -> io::Result<()> {
        let mut index = locked(&self.index);
        let slot = index.as_mut().and_then(|index| index.remove(hash));
        drop(index);
        slot.map_or(Ok(()), |slot| self.delete(slot))
    }

    fn not_written(&self, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => "disk_full",
            _ => "disk_write",
        };
        self.wrong(&self.writing, what, error);
        locked(&self.writing).rests_until = Some(Instant::now() + REST);
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        let expires = expires(entry);
        if expires <= seconds() {
            return Ok(());
        }
        let mut content = Vec::new();
        entry.encode(&mut content)?;
        let slot = Files::slot(&entry.facts.key, &content, expires);
        if slot.bytes() > self.size / LARGEST {
            return Ok(());
        }
        if !self.make_room(slot.bytes()) {
            return Ok(());
        }
        self.files.write(&slot, &content)?;
        self.right(&self.writing);
        self.watch.stored(Tier::Disk, slot.bytes());
        let replaced = self.insert(slot);
        replaced
            .filter(|old| !old.is_same_file(&slot))
            .map_or(Ok(()), |old| self.delete(old))
    }

    fn insert(&self, slot: Slot) -> Option<Slot> {
        let mut index = locked(&self.index);
        let index = index.as_mut()?;
        let replaced = index.insert(slot);
        // What was just written is not what has not been used for longest.
        index.touch(slot.hash);
        replaced
    }

    /// Deletes files until `bytes` more fit; returns whether they do.
    fn make_room(&self, bytes: u64) -> bool {
        loop {
            let victim = {
                let mut index = locked(&self.index);
                let Some(index) = index.as_mut() else {
                    return false;
                };
                if index.bytes() + bytes <= self.size {
                    return true;
                }
                index.victim(seconds())
            };
            let Some(victim) = victim else {
                return false;
            };
            if let Err(error) = self.delete(victim) {
                self.not_written(&error);
                return false;
            }
            self.watch.evicted(Tier::Disk, victim.bytes());
        }
    }

    /// Deletes a file that is no longer in the index; it stays there if it cannot be deleted.
    fn delete(&self, slot: Slot) -> io::Result<()> {
        let deleted = self.files.delete(&slot);
        if deleted.is_err()
            && let Some(index) = locked(&self.index).as_mut()
            && index.get(slot.hash).is_none()
        {
            index.insert(slot);
        }
        deleted
    }
}

impl Owner<'_> {
    /// The requests first, then the lock: whoever gets it must be alone.
    fn give_up(&mut self) {
        *locked(&self.shared.index) = None;
        if self.lock.take().is_some() {
            self.shared.watch.disk_owned(false);
        }
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        self.give_up();
        let mut queue = locked(&self.shared.queue);
        queue.ended = true;
        queue.orders.clear();
        self.shared.changed.notify_all();
    }
}

impl Health {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Whether `what` is worth a line in the log: a disk that is full for an hour is not
    /// worth one per entry.
    fn is_news(&mut self, what: &'static str, now: Instant) -> bool {
        self.wrong = Some(what);
        let known = self
            .logged
            .is_some_and(|(logged, at)| logged == what && now - at < SILENCE);
        if !known {
            self.logged = Some((what, now));
        }
        !known
    }
}

fn take(mut queue: MutexGuard<'_, Queue>) -> Option<Order> {
    let order = queue.orders.pop_front()?;
    if let Order::Write(entry) = &order {
        queue.bytes -= entry.weight();
    }
    Some(order)
}

/// A panic of another thread leaves nothing half done that matters to a cache.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When `entry` is of no use any more, in seconds since 1970.
fn expires(entry: &Entry) -> u32 {
    let stored = Duration::from_millis(entry.facts.stored);
    let expires = stored.saturating_add(entry.facts.ttl).as_secs();
    u32::try_from(expires).unwrap_or(u32::MAX)
}

fn seconds() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u32::try_from(now.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
}

fn chance() -> u64 {
    u64::from(seconds()) << 32 | u64::from(std::process::id())
}
