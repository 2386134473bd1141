//! Writing in small pieces: requests may run on the same processor, and a batch in one go would
//! keep them waiting for many milliseconds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::counters::read;
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
    /// With more than this in the queue there are no pauses.
    calm: u64,
    entries: usize,
    bytes: usize,
    /// When the piece was begun.
    since: Instant,
}

impl<'a> Pace<'a> {
    /// For a queue of at most this many bytes: while a quarter of it is full, or somebody waits
    /// for what is written, there are no pauses.
    pub fn new(shared: &'a Shared, queue_bytes: usize) -> Self {
        Self {
            shared,
            calm: queue_bytes as u64 / 4,
            entries: 0,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// More waits than is written in time: a quarter of the queue.
    pub fn is_behind(&self) -> bool {
        read(&self.shared.counters.queue_bytes) >= self.calm
    }

    /// After each entry, of so many bytes.
    pub fn step(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
        if self.entries < ENTRIES && self.bytes < BYTES {
            return;
        }
        (self.entries, self.bytes) = (0, 0);
        let is_waited_for = self.shared.jobs.load(Ordering::Relaxed) > 0;
        if !is_waited_for && !self.is_behind() {
            std::thread::sleep(self.since.elapsed().max(PAUSE));
        }
        self.since = Instant::now();
    }
}
