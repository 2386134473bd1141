//! Who else is told of finished requests.

use std::sync::Arc;

use super::Metrics;
use super::followed::{Shown, follow};
use crate::export::{Exports, Report};

impl Metrics {
    /// Shows what becomes of what is told from now on.
    pub fn follow_exports(&self, exports: Arc<Exports>) -> prometheus::Result<()> {
        follow(&self.registry, move || shown(&exports.reports()))
    }
}

/// `name` is `otel[0].traces`, or `sinks[0]`: how it stands in the configuration.
fn shown(reports: &[Report]) -> Vec<Shown> {
    let by_name = |count: fn(&Report) -> u64| {
        let short = |report: &Report| report.name.split(' ').next().unwrap_or("").to_owned();
        let series = reports.iter().map(|report| (short(report), count(report)));
        series.collect::<Vec<_>>()
    };
    let metric = |name, help, count| {
        let series = by_name(count);
        let series = series.iter().map(|(name, count)| (name.as_str(), *count));
        Shown::counters(name, help, "name", series.collect())
    };
    vec![
        metric(
            "tollgate_export_sent_total",
            "Spans, lines, or states of all metrics, that were taken by who is told of requests",
            |report| report.sent,
        ),
        metric(
            "tollgate_export_dropped_total",
            "Those that were not: refused, given up, or pushed out by newer ones",
            |report| report.dropped,
        ),
        metric(
            "tollgate_export_failures_total",
            "Exchanges that failed, whether they were tried again or not; the log says why",
            |report| report.failures,
        ),
        metric(
            "tollgate_export_failing",
            "1 while the last exchange has failed",
            |report| u64::from(report.is_failing),
        )
        .into_gauge(),
        metric(
            "tollgate_export_queue_bytes",
            "Bytes that wait to be sent",
            |report| report.queue_bytes as u64,
        )
        .into_gauge(),
    ]
}
