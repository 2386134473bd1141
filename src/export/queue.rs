//! What waits to be sent: in order, in bounded memory, the oldest going where there is no room.
//!
//! What is being sent stays here until it is settled, so that it counts against the bound.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most units that are sent at once: the batch of OpenTelemetry's own exporters.
const BATCH_UNITS: u64 = 512;
/// Most bytes of a batch, unless one item is larger: collectors take 20 MiB, and some 4.
const BATCH_BYTES: usize = 2 << 20;

/// One finished request, written.
#[derive(Debug, Clone)]
pub struct Item {
    /// As it is sent.
    pub bytes: Bytes,
    /// What it is counted as: its spans, or 1.
    pub units: u64,
}

impl Item {
    /// Takes over what was written, and no more memory than that.
    pub fn new(written: Vec<u8>, units: u64) -> Self {
        let bytes = Bytes::from(written.into_boxed_slice());
        Self { bytes, units }
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

/// Items that are sent together, the oldest first.
#[derive(Debug)]
pub struct Batch {
    /// What is sent.
    pub items: Vec<Bytes>,
    /// The place of the first in all that has ever been queued.
    pub start: u64,
}

impl Batch {
    /// The place behind the last.
    pub fn end(&self) -> u64 {
        self.start + self.items.len() as u64
    }
}

/// Items that wait.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    /// Whoever sends waits here, alone.
    wake: Notify,
    /// Most bytes, what surrounds the items included.
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<Item>,
    /// The place of the first.
    start: u64,
    bytes: usize,
    units: u64,
}

impl Inner {
    fn pop(&mut self) -> u64 {
        let Some(item) = self.items.pop_front() else {
            return 0;
        };
        self.start += 1;
        self.bytes -= item.weight();
        self.units -= item.units;
        item.units
    }

    fn fills_a_batch(&self) -> bool {
        self.units >= BATCH_UNITS || self.bytes >= BATCH_BYTES
    }
}

impl Queue {
    /// One of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            inner: Mutex::default(),
            wake: Notify::new(),
            most,
        }
    }

    /// Adds one; returns how many units went for it, itself if it is too large. Who sends is woken
    /// only by the first of a batch and the last: to wake it costs more than all the rest.
    pub fn push(&self, item: Item) -> u64 {
        let weight = item.weight();
        if weight > self.most {
            return item.units;
        }
        let mut inner = self.inner.lock();
        let mut lost = 0;
        while inner.bytes + weight > self.most {
            lost += inner.pop();
        }
        let (was_empty, was_full) = (inner.items.is_empty(), inner.fills_a_batch());
        inner.bytes += weight;
        inner.units += item.units;
        inner.items.push_back(item);
        let is_full = inner.fills_a_batch();
        drop(inner);
        if was_empty || (is_full && !was_full) {
            self.wake.notify_one();
        }
        lost
    }

    /// The next batch of those before the place `end`.
    pub fn batch(&self, end: u64) -> Batch {
        let inner = self.inner.lock();
        let room = usize::try_from(end.saturating_sub(inner.start)).unwrap_or(usize::MAX);
        let (mut units, mut bytes) = (0, 0);
        let fits = |item: &&Item| {
            units += item.units;
            bytes += item.weight();
            let is_first = bytes == item.weight();
            is_first || (units <= BATCH_UNITS && bytes <= BATCH_BYTES)
        };
        let waiting = inner.items.iter().take(room).take_while(fits);
        Batch {
            items: waiting.map(|item| item.bytes.clone()).collect(),
            start: inner.start,
        }
    }

    /// Forgets all before the place `end`; returns how many units those were that were still
    /// there.
    pub fn settle(&self, end: u64) -> u64 {
        let mut inner = self.inner.lock();
        let mut units = 0;
        while inner.start < end && !inner.items.is_empty() {
            units += inner.pop();
        }
        units
    }

    /// The place behind the last.
    pub fn end(&self) -> u64 {
        let inner = self.inner.lock();
        inner.start + inner.items.len() as u64
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Waits until there is something.
    pub async fn begun(&self) {
        self.until(|inner| !inner.items.is_empty()).await;
    }

    /// Waits until there is enough for a batch.
    pub async fn filled(&self) {
        self.until(Inner::fills_a_batch).await;
    }

    async fn until(&self, is_so: impl Fn(&Inner) -> bool) {
        while !is_so(&self.inner.lock()) {
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(byte: u8, length: usize, units: u64) -> Item {
        Item::new(vec![byte; length], units)
    }

    /// A queue for `items` of 100 bytes.
    fn queue(items: usize) -> Queue {
        Queue::new(items * item(0, 100, 1).weight())
    }

    fn first_bytes(batch: &Batch) -> Vec<u8> {
        batch.items.iter().map(|bytes| bytes[0]).collect()
    }

    #[test]
    fn the_oldest_goes_where_there_is_no_room() {
        let queue = queue(3);
        for byte in 1..=3 {
            assert_eq!(queue.push(item(byte, 100, 1)), 0);
        }
        assert_eq!(queue.bytes(), queue.most);
        assert_eq!(queue.push(item(4, 100, 5)), 1);
        assert_eq!(first_bytes(&queue.batch(u64::MAX)), [2, 3, 4]);
        // One that needs the place of two.
        assert_eq!(queue.push(item(5, 180, 1)), 2);
        assert_eq!(first_bytes(&queue.batch(u64::MAX)), [4, 5]);
        // One that never fits costs only itself.
        assert_eq!(queue.push(item(6, 1000, 7)), 7);
        assert_eq!(queue.settle(u64::MAX), 6);
        assert_eq!((queue.bytes(), queue.end()), (0, 5));
    }

    #[test]
    fn what_is_being_sent_is_settled_once() {
        let queue = queue(3);
        for byte in 1..=3 {
            queue.push(item(byte, 100, 1));
        }
        let batch = queue.batch(2);
        assert_eq!((batch.start, batch.end()), (0, 2));
        // One of the two is pushed out meanwhile: it is counted there.
        assert_eq!(queue.push(item(4, 100, 1)), 1);
        assert_eq!(first_bytes(&queue.batch(batch.end())), [2]);
        assert_eq!(queue.settle(batch.end()), 1);
        assert_eq!(queue.settle(batch.end()), 0);
        assert_eq!(first_bytes(&queue.batch(u64::MAX)), [3, 4]);
        assert!(queue.batch(batch.end()).items.is_empty());
    }

    #[test]
    fn batches_are_bounded() {
        let queue = Queue::new(16 << 20);
        for _ in 0..100 {
            queue.push(item(1, 10, 10));
        }
        assert_eq!(queue.batch(u64::MAX).items.len(), 51);
        queue.settle(u64::MAX);
        for _ in 0..3 {
            queue.push(item(2, BATCH_BYTES / 2, 1));
        }
        assert_eq!(queue.batch(u64::MAX).items.len(), 1);
        queue.settle(u64::MAX);
        queue.push(item(3, BATCH_BYTES + 1, 1000));
        queue.push(item(4, 1, 1));
        assert_eq!(first_bytes(&queue.batch(u64::MAX)), [3]);
    }

    #[tokio::test]
    async fn who_sends_is_woken_by_the_first_and_by_a_whole_batch() {
        let queue = Queue::new(1 << 20);
        let sender = async {
            queue.begun().await;
            queue.filled().await;
            queue.batch(u64::MAX).items.len()
        };
        let offers = async {
            for _ in 0..BATCH_UNITS {
                queue.push(item(1, 1, 1));
                tokio::task::yield_now().await;
            }
        };
        let (sent, ()) = tokio::join!(sender, offers);
        assert_eq!(sent as u64, BATCH_UNITS);
    }
}
