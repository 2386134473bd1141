//! What the log store and analytics have of the storm. They are views of the same records as the
//! access log: each request is there once, with the same facts, and the sums are the sums.

use std::collections::BTreeMap;

use serde_json::Value;

use super::journal::{Line, pico};
use crate::support::metrics::Metrics;
use crate::support::{Gateway, Request};

/// Read while the gateway is still there.
pub struct Stores {
    /// Entries of the log store by their ids.
    entries: BTreeMap<String, Value>,
    twice: usize,
    /// All requests added up.
    totals: Value,
}

impl Stores {
    pub async fn read(gateway: &Gateway) -> Self {
        let export = gateway.ask(Request::get("/-/logs/export")).await;
        assert_eq!(export.status, 200, "{}", export.text());
        let (mut entries, mut twice) = (BTreeMap::new(), 0);
        for line in export.text().lines() {
            let entry: Value = serde_json::from_str(line).expect("a line of the export");
            let id = entry["id"].as_str().expect("an id").to_owned();
            twice += usize::from(entries.insert(id, entry).is_some());
        }
        let analytics = gateway.ask(Request::get("/-/analytics")).await;
        assert_eq!(analytics.status, 200, "{}", analytics.text());
        let totals = analytics.json()["result"]["totals"].clone();
        Self {
            entries,
            twice,
            totals,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they say otherwise than the lines of the log and the metrics.
    pub fn differ_from<'a>(
        &self,
        lines: impl Iterator<Item = &'a Line> + Clone,
        metrics: &Metrics,
    ) -> Vec<String> {
        let mut wrongs: Vec<String> = lines
            .clone()
            .filter_map(|line| self.entry_differs_from(line))
            .collect();
        let count = lines.clone().count();
        if (self.entries.len(), self.twice) != (count, 0) {
            let (entries, twice) = (self.entries.len(), self.twice);
            wrongs.push(format!(
                "{entries} entries in the log store ({twice} twice), but {count} lines"
            ));
        }
        wrongs.extend(self.sums_differ_from(lines, metrics));
        wrongs
    }

    fn entry_differs_from(&self, line: &Line) -> Option<String> {
        let Some(entry) = self.entries.get(&line.id) else {
            return Some(format!("not in the log store: {}", line.text));
        };
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        let number = |name: &str| entry[name].as_u64().unwrap_or_default();
        let same = number("status_code") == u64::from(line.status)
            && text("error") == line.error
            && text("provider").unwrap_or_default() == line.provider
            && number("attempts") == line.attempts
            && entry["tried"].as_array().map_or(0, Vec::len) == line.tried.len()
            && number("request_size") == line.bytes_in
            && number("response_size") == line.bytes_out
            && text("cache_status") == line.cache
            && pico(&entry["cost"]) == line.cost
            && pico(&entry["saved"]) == line.saved
            && entry["output_tokens_per_second"].as_u64() == line.rate;
        (!same).then(|| {
            format!(
                "the log store has another of it:\n    {entry}\n    {}",
                line.text
            )
        })
    }

    fn sums_differ_from<'a>(
        &self,
        lines: impl Iterator<Item = &'a Line> + Clone,
        metrics: &Metrics,
    ) -> Vec<String> {
        let sum = |of: fn(&Line) -> u64| lines.clone().map(of).sum::<u64>();
        let dollars = |name: &str| pico(&metrics.sum(name, &[]).into()).unwrap_or_default();
        let total = |name: &str| self.totals[name].as_u64().unwrap_or_default();
        let total_dollars = |name: &str| pico(&self.totals[name]).unwrap_or_default();
        let errors = self.totals["errors"].as_object();
        let errors = errors.into_iter().flat_map(|kinds| kinds.values());
        let hits = ["hit", "stale", "coalesced"];
        let hits = hits.map(|status| self.totals["cache"][status].as_u64().unwrap_or_default());
        let is_hit =
            |line: &Line| matches!(line.cache.as_deref(), Some("hit" | "stale" | "coalesced"));
        let compared = [
            ("requests", total("requests"), sum(|_| 1)),
            ("attempts", total("attempts"), sum(|line| line.attempts)),
            (
                "errors",
                errors.filter_map(Value::as_u64).sum(),
                sum(|line| line.error.is_some().into()),
            ),
            (
                "hits",
                hits.iter().sum(),
                lines.clone().filter(|line| is_hit(line)).count() as u64,
            ),
            (
                "cost",
                total_dollars("cost_usd"),
                sum(|line| line.cost.unwrap_or_default()),
            ),
            (
                "saved",
                total_dollars("saved_usd"),
                sum(|line| line.saved.unwrap_or_default()),
            ),
            (
                "cost in the metrics",
                dollars("tollgate_cost_usd_total"),
                sum(|line| line.cost.unwrap_or_default()),
            ),
            (
                "saved in the metrics",
                dollars("tollgate_saved_usd_total"),
                sum(|line| line.saved.unwrap_or_default()),
            ),
            (
                "entries, as the store counts them",
                metrics.sum("tollgate_log_store_rows_total", &[]) as u64,
                self.entries.len() as u64,
            ),
            (
                "lost entries",
                metrics.sum("tollgate_log_store_dropped_total", &[("what", "row")]) as u64,
                0,
            ),
            (
                "requests that analytics lost",
                metrics.sum("tollgate_analytics_dropped_total", &[]) as u64,
                0,
            ),
        ];
        let differ = compared.into_iter().filter(|(_, one, other)| one != other);
        differ
            .map(|(what, one, other)| format!("{what}: {one}, but {other} by the lines of the log"))
            .collect()
    }
}
