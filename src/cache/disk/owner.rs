//! The thread that owns the disk: it waits for the lock, lists what is there, and carries out
//! what is ordered, one order at a time.

use std::fs::File;
use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{FLUSH, Order, Queue, Shared, locked};
use crate::cache::entry::Entry;
use crate::cache::files::Files;
use crate::cache::index::{Index, Slot};
use crate::cache::tiers::Tier;

/// How often a process that waits for the directory asks for it.
const POLL: Duration = Duration::from_millis(500);
/// How long a disk that cannot be opened is left alone.
const REOPEN: Duration = Duration::from_secs(10);
/// No entry takes more than this part of the disk.
const LARGEST: u64 = 8;

/// The directory, given up when the thread ends, however it ends.
struct Owner<'a> {
    shared: &'a Shared,
    lock: Option<File>,
}

impl Shared {
    /// Owns the directory until it is to be given up.
    pub(super) fn run(&self) {
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
                    locked(&self.writing).right();
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
        locked(&self.writing).rest(Instant::now());
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
        locked(&self.writing).right();
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

fn take(mut queue: MutexGuard<'_, Queue>) -> Option<Order> {
    let order = queue.orders.pop_front()?;
    if let Order::Write(entry) = &order {
        queue.bytes -= entry.weight();
    }
    Some(order)
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
