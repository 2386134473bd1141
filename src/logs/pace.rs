//! Writing in small pieces: requests may run on the same processor, and a batch in one go would
//! keep them waiting for many milliseconds. Between two pieces the writer steps back. Where it has
//! only what requests leave of the processors ([`Calm`](crate::background::Calm)) it yields: even
//! of that the kernel now and then gives it a turn of some milliseconds. Elsewhere it pauses.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::store::Shared;

/// Entries and bytes of a piece: some hundred microseconds of work.
const ENTRIES: usize = 8;
const BYTES: usize = 64 << 10;

/// Shortest pause between two pieces; it is as long as the piece took where that is longer, so
/// that writing never takes more than half of a processor.
const PAUSE: Duration = Duration::from_micros(200);

/// See the module.
pub struct Pace<'a> {
    shared: &'a Shared,
    /// Most bytes that may wait in the queue.
    queue_bytes: usize,
    entries: usize,
    bytes: usize,
    /// When the piece was begun.
    since: Instant,
}

impl<'a> Pace<'a> {
    /// For a queue of at most this many bytes. The writer goes on at once while the queue presses
    /// and while somebody waits for what is written.
    pub fn new(shared: &'a Shared, queue_bytes: usize) -> Self {
        Self {
            shared,
            queue_bytes,
            entries: 0,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// See [`Shared::is_behind`].
    pub fn is_behind(&self) -> bool {
        self.shared.is_behind(self.queue_bytes)
    }

    /// After each entry, of so many bytes.
    pub fn step(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
        if self.entries < ENTRIES && self.bytes < BYTES {
            return;
        }
        (self.entries, self.bytes) = (0, 0);
        self.step_back();
        self.since = Instant::now();
    }

    fn step_back(&self) {
        let calm = &self.shared.calm;
        let is_waited_for = self.shared.jobs.load(Ordering::Relaxed) > 0;
        match calm.is_possible() {
            true if calm.is_calm() => std::thread::yield_now(),
            false if !is_waited_for && !self.shared.presses(self.queue_bytes) => {
                std::thread::sleep(self.since.elapsed().max(PAUSE));
            }
            _ => {}
        }
    }
}
