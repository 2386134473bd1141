//! What the metrics must say if the access log is right: both are views of one record, so each
//! series is the sum of its lines.

use std::collections::BTreeMap;

use super::journal::Line;
use crate::support::metrics::Metrics;

/// A metric and some of its labels.
type Series = (&'static str, Vec<(&'static str, String)>);

/// Sums over the lines of a log.
#[derive(Default)]
pub struct Sums {
    series: BTreeMap<Series, u64>,
    /// Over all labels.
    totals: BTreeMap<&'static str, u64>,
}

impl Sums {
    pub fn of<'a>(lines: impl Iterator<Item = &'a Line>) -> Self {
        let mut sums = Self::default();
        lines.for_each(|line| sums.take(line));
        sums
    }

    fn take(&mut self, line: &Line) {
        let provider = ("provider", &*line.provider);
        let status = match line.status {
            status @ (0 | 100..=599) => status.to_string(),
            _ => "other".to_owned(),
        };
        let requests = [provider, ("status", &*status)];
        self.add("tollgate_requests_total", &requests, 1);
        self.add("tollgate_request_duration_seconds_count", &[provider], 1);
        if let Some(kind) = &line.error {
            self.add("tollgate_errors_total", &[provider, ("kind", kind)], 1);
        }
        if let Some(cache) = &line.cache {
            let labels = [provider, ("status", &**cache)];
            self.add("tollgate_cache_requests_total", &labels, 1);
        }
        // Where they were made is told by the line only for a route's: see [`super::ledger`].
        self.add("tollgate_upstream_attempts_total", &[], line.attempts);
        for cause in &line.tried {
            let labels = [("cause", &**cause)];
            self.add("tollgate_upstream_attempts_failed_total", &labels, 1);
        }
        self.add("tollgate_request_bytes_total", &[provider], line.bytes_in);
        self.add("tollgate_response_bytes_total", &[provider], line.bytes_out);
    }

    fn add(&mut self, metric: &'static str, labels: &[(&'static str, &str)], count: u64) {
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| (*name, (*value).to_owned()));
        let series = (metric, labels.collect());
        *self.series.entry(series).or_default() += count;
        *self.totals.entry(metric).or_default() += count;
    }

    /// What `metrics` say otherwise.
    pub fn differ_from(&self, metrics: &Metrics) -> Vec<String> {
        let series = self.series.iter().map(|((metric, labels), sum)| {
            let labels = labels.iter().map(|(name, value)| (*name, &**value));
            (*metric, labels.collect::<Vec<_>>(), *sum)
        });
        // No series that the log knows nothing of.
        let totals = self.totals.iter();
        let totals = totals.map(|(metric, sum)| (*metric, Vec::new(), *sum));
        let counted = series.chain(totals).map(|(metric, labels, sum)| {
            let counted = metrics.sum(metric, &labels);
            (counted != sum as f64)
                .then(|| format!("{metric} {labels:?}: {counted}, but {sum} in the log"))
        });
        counted.flatten().collect()
    }
}
