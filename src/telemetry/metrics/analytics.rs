//! Analytics.

use super::Metrics;
use super::followed::{Shown, follow};
use crate::analytics::counters::{Counters, read};
use crate::analytics::store::Store;

impl Metrics {
    /// Shows what `store` counts from now on.
    pub fn follow_analytics(&self, store: Store) -> prometheus::Result<()> {
        follow(&self.registry, move || shown(store.counters()))
    }
}

fn shown(counters: &Counters) -> Vec<Shown> {
    // Exhaustive: what is counted is shown, or does not compile.
    let Counters {
        requests_observed,
        requests_dropped,
        minutes_dropped,
        rows_written,
        rollups,
        rows_expired,
        rows_damaged,
        errors,
        alarm,
    } = counters;
    let one = |name, help, count| Shown::counter(name, help, read(count));
    vec![
        one(
            "tollgate_analytics_requests_total",
            "Finished requests that analytics have been told of",
            requests_observed,
        ),
        one(
            "tollgate_analytics_dropped_total",
            "Finished requests that analytics have lost, because they could not be written for too long",
            requests_dropped,
        ),
        one(
            "tollgate_analytics_minutes_dropped_total",
            "Minutes that analytics have lost for the same reason, or because they came too late",
            minutes_dropped,
        ),
        one(
            "tollgate_analytics_rows_total",
            "Rows of minutes that were written; one is written again while it changes",
            rows_written,
        ),
        one(
            "tollgate_analytics_rollups_total",
            "Hours and days that were made of minutes and hours",
            rollups,
        ),
        one(
            "tollgate_analytics_expired_total",
            "Rows that were removed because of their age",
            rows_expired,
        ),
        one(
            "tollgate_analytics_damaged_total",
            "Rows that could not be read when hours and days were made of them",
            rows_damaged,
        ),
        one(
            "tollgate_analytics_errors_total",
            "Failures of the database of analytics; the log says which",
            errors,
        ),
        one(
            "tollgate_analytics_alarm",
            "1 while analytics cannot be written, because the disk is full or the database broken",
            alarm,
        )
        .into_gauge(),
    ]
}
