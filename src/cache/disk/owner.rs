//! The thread that owns the disk: it waits for the lock, finds what is there, and carries out
//! what is ordered, as much at a time as one call can write.

use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::append::{Appender, seconds};
use super::index::{Index, Place};
use super::record::Header;
use super::segments::{self, Found};
use super::{BATCH, FLUSH, Order, Queue, Shared, locked};

/// How often a process that waits for the directory asks for it.
const POLL: Duration = Duration::from_millis(500);
/// How long a disk that cannot be opened is left alone.
const REOPEN: Duration = Duration::from_secs(10);
/// How long the thread waits for more once there is something to do.
const GATHER: Duration = Duration::from_millis(5);
/// So many records that were found are noted before others get at the index again.
const AT_ONCE: usize = 1024;

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
            lock: None,
        };
        if let Some((lock, found)) = self.own() {
            owner.lock = Some(lock);
            let newest = found.last().map_or(0, |(number, _)| *number);
            let mut appender = Appender::new(self, newest.checked_add(1));
            self.open(&found, &mut appender);
            self.watch.disk_owned(true);
            self.recover(newest, &mut appender);
            while let Some(orders) = self.next() {
                self.carry_out(orders, &mut appender);
            }
            self.flush(&mut appender);
            owner.give_up();
        }
    }

    /// Waits until the directory is this process's, and lists the segments in it; `None` if
    /// it is to be given up before.
    fn own(&self) -> Option<(File, Found)> {
        loop {
            let pause = match self.lock_and_list() {
                Ok(Some(owned)) => {
                    locked(&self.writing).right();
                    return Some(owned);
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

    fn lock_and_list(&self) -> io::Result<Option<(File, Found)>> {
        let Some(lock) = self.directory.lock()? else {
            return Ok(None);
        };
        Ok(Some((lock, self.directory.list()?)))
    }

    /// Opens the segments; from then on entries are written and found.
    fn open(&self, found: &[(u32, u64)], appender: &mut Appender<'_>) {
        let mut index = Index::opening();
        for (number, length) in found {
            // Begun when a process was killed.
            if *length == 0 {
                let _ = self.directory.remove(*number);
                continue;
            }
            match self.directory.open(*number) {
                Ok(file) => index.add(*number, Arc::new(file), *length),
                Err(error) => self.wrong(&self.reading, "disk_read", &error),
            }
        }
        *locked(&self.index) = Some(index);
        // The disk may have been larger before.
        if let Err(error) = appender.make_room(0) {
            self.not_written(&error);
        }
    }

    /// Finds what is in the segments, the newest first, and writes in between what has come
    /// in. `newest` is the number of the last segment of the process before.
    fn recover(&self, newest: u32, appender: &mut Appender<'_>) {
        let mut number = newest.saturating_add(1);
        while let Some((next, file, length)) = self.indexed(|index| index.before(number)).flatten()
        {
            number = next;
            match self.recover_segment(number, &file, length) {
                Ok(end) if end < length => self.cut(number, end, number == newest),
                Ok(_) => {}
                Err(error) => self.wrong(&self.reading, "disk_read", &error),
            }
            self.carry_out(self.next_now(), appender);
            if locked(&self.queue).releasing {
                return;
            }
        }
        self.indexed(Index::opened);
    }

    fn recover_segment(&self, number: u32, file: &File, length: u64) -> io::Result<u64> {
        let now = seconds();
        let mut found = Vec::new();
        let end = segments::scan(file, length, |header, offset| {
            let is_over = header.expires <= now;
            // It still replaced what was stored before it.
            let header = if is_over {
                Header::removal(header.hash)
            } else {
                header
            };
            found.push((header.hash, Place::new(number, offset, &header)));
            if found.len() == AT_ONCE {
                self.note(&mut found);
            }
        });
        self.note(&mut found);
        self.indexed(|index| index.seal(number));
        end
    }

    /// Cuts off what cannot be read of a segment, so that it is known to be gone.
    fn cut(&self, number: u32, end: u64, is_newest: bool) {
        // The process before may have been killed while it wrote the newest.
        if !is_newest {
            let reason = format!("segment {number} is damaged at {end}");
            self.wrong(&self.reading, "disk_corrupt", &reason);
        }
        if self.directory.cut(number, end).is_ok() {
            self.indexed(|index| index.resize(number, end));
        }
    }

    fn note(&self, found: &mut Vec<(u64, Place)>) {
        self.indexed(|index| {
            let places = found.drain(..);
            places.for_each(|(hash, place)| index.put(hash, place));
        });
    }

    /// The next orders; `None` when the directory is to be given up.
    fn next(&self) -> Option<Vec<Order>> {
        let mut queue = locked(&self.queue);
        queue.wakes_at = 0;
        let idle = |queue: &mut Queue| queue.orders.is_empty() && !queue.releasing;
        let waited = self.changed.wait_while(queue, idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        // Of a small queue half is left for what comes meanwhile.
        let enough = BATCH.min(self.most_queued / 2);
        queue.wakes_at = enough;
        let few = |queue: &mut Queue| queue.bytes < enough && !queue.releasing;
        let waited = self.changed.wait_timeout_while(queue, GATHER, few);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        queue.wakes_at = usize::MAX;
        (!queue.releasing).then(|| take(queue))
    }

    fn next_now(&self) -> Vec<Order> {
        take(locked(&self.queue))
    }

    /// Writes what is queued, for a bounded time.
    fn flush(&self, appender: &mut Appender<'_>) {
        let latest = Instant::now() + FLUSH;
        loop {
            let orders = self.next_now();
            let rests = locked(&self.writing).rests(Instant::now());
            if orders.is_empty() || rests || Instant::now() > latest {
                return;
            }
            self.carry_out(orders, appender);
        }
    }

    fn carry_out(&self, orders: Vec<Order>, appender: &mut Appender<'_>) {
        let mut done = Ok(());
        for order in orders {
            done = done.and(self.carry_out_one(order, appender));
        }
        if let Err(error) = done.and(appender.flush()) {
            self.not_written(&error);
        }
    }

    fn carry_out_one(&self, order: Order, appender: &mut Appender<'_>) -> io::Result<()> {
        match order {
            Order::Write(_) if self.rests_from_writing() => Ok(()),
            Order::Write(entry) => appender.write(&entry),
            Order::Remove(hash) => self.remove(hash, appender),
            Order::Drop(hash, place) => {
                // A later one may be on its way.
                appender.flush()?;
                let known = self.indexed(|index| index.get(hash)).flatten();
                match known {
                    Some(known) if known.is_same_record(&place) => self.remove(hash, appender),
                    _ => Ok(()),
                }
            }
        }
    }

    fn remove(&self, hash: u64, appender: &mut Appender<'_>) -> io::Result<()> {
        self.indexed(|index| index.remove(hash));
        if locked(&self.writing).rests(Instant::now()) {
            return Ok(());
        }
        appender.remove(hash)
    }

    /// Counts and logs that the disk could not be written to, and leaves it alone for a while.
    pub(super) fn not_written(&self, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => "disk_full",
            _ => "disk_write",
        };
        self.wrong(&self.writing, what, error);
        locked(&self.writing).rest(Instant::now());
    }
}

impl Owner<'_> {
    /// The requests first, then the lock: whoever gets it must be alone.
    fn give_up(&mut self) {
        let index = locked(&self.shared.index).take();
        drop(index);
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

/// What one call may write of the queue; at least one order, if there is one.
fn take(mut queue: MutexGuard<'_, Queue>) -> Vec<Order> {
    let (mut orders, mut bytes) = (Vec::new(), 0);
    while let Some(order) = queue.orders.pop_front_if(|order| {
        let weight = order.weight();
        bytes == 0 || bytes + weight <= BATCH
    }) {
        bytes += order.weight();
        orders.push(order);
    }
    queue.bytes -= bytes;
    orders
}
