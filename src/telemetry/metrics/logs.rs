//! The log store.

use super::Metrics;
use super::followed::{Shown, follow};
use crate::logs::counters::{Counters, read};
use crate::logs::store::Store;

impl Metrics {
    /// Shows what `store` counts from now on.
    pub fn follow_logs(&self, store: Store) -> prometheus::Result<()> {
        follow(&self.registry, move || shown(store.counters()))
    }
}

fn shown(counters: &Counters) -> Vec<Shown> {
    // Exhaustive: what the store counts is shown, or does not compile.
    let Counters {
        rows_written,
        rows_dropped,
        details_dropped,
        bodies_dropped,
        payload_bytes,
        stored_bytes,
        flushes,
        errors,
        rows_expired,
        segments_expired,
        alarm,
        queue_bytes,
    } = counters;
    let one = |name, help, count| Shown::counter(name, help, read(count));
    let gauge = |name, help, value| one(name, help, value).into_gauge();
    vec![
        one(
            "tollgate_log_store_rows_total",
            "Finished requests that the log store has taken",
            rows_written,
        ),
        Shown::counters(
            "tollgate_log_store_dropped_total",
            "What the log store has lost of finished requests, because it was too slow, full or broken: whole rows, details (heads, bodies, metadata, attempts) or bodies",
            "what",
            vec![
                ("row", read(rows_dropped)),
                ("details", read(details_dropped)),
                ("body", read(bodies_dropped)),
            ],
        ),
        one(
            "tollgate_log_store_payload_bytes_total",
            "Bytes of heads and bodies that the log store has taken, before compression",
            payload_bytes,
        ),
        one(
            "tollgate_log_store_stored_bytes_total",
            "Bytes of heads and bodies that the log store has written, compressed",
            stored_bytes,
        ),
        one(
            "tollgate_log_store_flushes_total",
            "Transactions of the log store",
            flushes,
        ),
        one(
            "tollgate_log_store_errors_total",
            "Failures of the log store; the log says which",
            errors,
        ),
        Shown::counters(
            "tollgate_log_store_expired_total",
            "What the log store has removed because of logs.retention or logs.max_size: rows, and files of bodies",
            "what",
            vec![
                ("row", read(rows_expired)),
                ("file", read(segments_expired)),
            ],
        ),
        gauge(
            "tollgate_log_store_alarm",
            "1 while the log store takes nothing, because it is full, broken or cannot be read",
            alarm,
        ),
        gauge(
            "tollgate_log_store_queue_bytes",
            "Bytes of finished requests that wait for the log store",
            queue_bytes,
        ),
    ]
}
