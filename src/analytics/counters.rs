//! What analytics did and had to give up. `telemetry/metrics.rs` names them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start; gauges are marked.
#[derive(Debug, Default)]
pub struct Counters {
    /// Finished requests that were offered.
    pub requests_observed: AtomicU64,
    /// Requests that will be in no answer, as far as is known: they could not be kept in memory
    /// or were offered while nothing could be stored any more. A lower bound where rows were
    /// written in part.
    pub requests_dropped: AtomicU64,
    /// Minutes given up in memory because they could not be written for too long, or that came
    /// so late that their time is not kept by minutes any more.
    pub minutes_dropped: AtomicU64,
    /// Rows of minutes committed; one is written again for as long as it changes.
    pub rows_written: AtomicU64,
    /// Hours and days made.
    pub rollups: AtomicU64,
    /// Rows removed because of their age.
    pub rows_expired: AtomicU64,
    /// Rows that could not be read when hours and days were made of them.
    pub rows_damaged: AtomicU64,
    /// Failures of the database.
    pub errors: AtomicU64,
    /// Gauge: 1 while nothing is stored because the database is full, broken or not writable.
    pub alarm: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Reads one.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
