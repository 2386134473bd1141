//! The log store.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::Metrics;
use crate::logs::counters::{Counters, read};
use crate::logs::store::Store;

/// What the store counts itself, shown when it is asked for.
struct Followed {
    store: Store,
    descriptions: Vec<Desc>,
}

/// A metric that is read off the store: its name, what it tells, and its series by one label.
struct Shown {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    is_gauge: bool,
    series: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// Shows what `store` counts from now on.
    pub fn follow_logs(&self, store: Store) -> prometheus::Result<()> {
        let descriptions = shown(store.counters())
            .iter()
            .map(|shown| Ok(shown.collector()?.desc()[0].clone()))
            .collect::<prometheus::Result<_>>()?;
        self.registry.register(Box::new(Followed {
            store,
            descriptions,
        }))
    }
}

impl Collector for Followed {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shown = shown(self.store.counters());
        let collected = shown.iter().filter_map(|shown| shown.collector().ok());
        collected.flat_map(|metric| metric.collect()).collect()
    }
}

impl Shown {
    fn collector(&self) -> prometheus::Result<Box<dyn Collector>> {
        let (opts, labels) = (Opts::new(self.name, self.help), [self.label]);
        let labels = if self.label.is_empty() {
            &[][..]
        } else {
            &labels[..]
        };
        let values = |label: &&'static str| {
            if self.label.is_empty() {
                vec![]
            } else {
                vec![*label]
            }
        };
        if self.is_gauge {
            let gauge = IntGaugeVec::new(opts, labels)?;
            for (label, value) in &self.series {
                let value = i64::try_from(*value).unwrap_or(i64::MAX);
                gauge.with_label_values(&values(label)).set(value);
            }
            return Ok(Box::new(gauge));
        }
        let counter = IntCounterVec::new(opts, labels)?;
        for (label, value) in &self.series {
            counter.with_label_values(&values(label)).inc_by(*value);
        }
        Ok(Box::new(counter))
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
    let counter = |name, help, label, series| Shown {
        name,
        help,
        label,
        is_gauge: false,
        series,
    };
    let one = |name, help, count| counter(name, help, "", vec![("", read(count))]);
    let gauge = |name, help, value| Shown {
        is_gauge: true,
        ..one(name, help, value)
    };
    vec![
        one(
            "tollgate_log_store_rows_total",
            "Finished requests that the log store has taken",
            rows_written,
        ),
        counter(
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
        counter(
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
