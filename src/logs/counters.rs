//! What the store did and what it had to give up. `telemetry/metrics/logs.rs` names them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start; gauges are marked.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows committed.
    pub rows_written: AtomicU64,
    /// Entries given up: the queue was full, or the store could not take them.
    pub rows_dropped: AtomicU64,
    /// Entries that lost heads, metadata, trace and error detail to pressure.
    pub details_dropped: AtomicU64,
    /// Entries that lost their bodies to pressure, or to redaction that could not be applied.
    pub bodies_dropped: AtomicU64,
    /// Bytes of heads and bodies, before compression.
    pub payload_bytes: AtomicU64,
    /// Bytes of segment files written.
    pub stored_bytes: AtomicU64,
    /// Transactions committed.
    pub flushes: AtomicU64,
    /// Failures of the store.
    pub errors: AtomicU64,
    /// Rows removed because of their age or the store's size.
    pub rows_expired: AtomicU64,
    /// Segment files removed for the same.
    pub segments_expired: AtomicU64,
    /// Gauge: 1 while nothing is logged because the store is full, broken or not readable.
    pub alarm: AtomicU64,
    /// Gauge: bytes waiting to be written.
    pub queue_bytes: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Reads one.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
