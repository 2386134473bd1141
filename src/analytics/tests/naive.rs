//! What an answer should be, worked out from the records themselves, as plainly as possible.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::metadata::Value as Label;

/// Sums of records.
#[derive(Default)]
struct Sums {
    requests: u64,
    succeeded: u64,
    streamed: u64,
    attempts: u64,
    fell_back: u64,
    usage_estimated: u64,
    unpriced: u64,
    errors: BTreeMap<String, u64>,
    cache: BTreeMap<String, u64>,
    tokens: BTreeMap<String, u64>,
    cost: u64,
    saved: u64,
    latency: Vec<f64>,
    ttft: Vec<f64>,
    overhead: Vec<f64>,
}

impl Sums {
    fn of<'a>(records: impl Iterator<Item = &'a RequestRecord>) -> Self {
        let mut sums = Self::default();
        records.for_each(|record| sums.add(record));
        sums
    }

    fn add(&mut self, record: &RequestRecord) {
        let error = record.error();
        self.requests += 1;
        self.succeeded += u64::from([200, 304].contains(&record.status) && error.is_none());
        self.streamed += u64::from(record.streamed);
        self.attempts += u64::from(record.attempts);
        self.fell_back += u64::from(record.hedged.is_some() || !record.asked_before.is_empty());
        if let Some((source, kind)) = error {
            let name = format!("{}:{kind}", source.name());
            *self.errors.entry(name).or_default() += 1;
        }
        if let Some(status) = record.cache.status {
            *self.cache.entry(status.name().to_owned()).or_default() += 1;
        }
        self.add_spent(&record.spent);
        let milliseconds = |duration: Duration| duration.as_nanos() as f64 / 1e6;
        self.latency.push(milliseconds(record.duration));
        self.overhead.push(milliseconds(record.overhead()));
        self.ttft.extend(record.first_token.map(milliseconds));
    }

    fn add_spent(&mut self, spent: &Spent) {
        self.cost += spent.cost.unwrap_or_default().0;
        self.saved += spent.saved.unwrap_or_default().0;
        if let Some(usage) = spent.usage
            && spent.source != Some(CostSource::Cached)
        {
            self.usage_estimated += u64::from(spent.is_estimate);
            self.unpriced += u64::from(spent.source == Some(CostSource::Unpriced));
            for (kind, count) in usage.by_kind() {
                if count > 0 {
                    *self.tokens.entry(kind.to_owned()).or_default() += count;
                }
            }
        }
    }

    fn check(self, told: &Value, what: &str) {
        let exact = serde_json::json!({
            "requests": self.requests,
            "succeeded": self.succeeded,
            "streamed": self.streamed,
            "attempts": self.attempts,
            "fell_back": self.fell_back,
            "usage_estimated": self.usage_estimated,
            "unpriced": self.unpriced,
            "errors": self.errors,
            "cache": self.cache,
            "tokens": self.tokens,
            "cost_usd": dollars(self.cost),
            "saved_usd": dollars(self.saved),
        });
        for (name, value) in exact.as_object().unwrap() {
            assert_eq!(&told[name], value, "{name} of {what}");
        }
        check_times(&told["latency_ms"], self.latency, what);
        check_times(&told["ttft_ms"], self.ttft, what);
        check_times(&told["overhead_ms"], self.overhead, what);
    }
}

/// As JSON reads it.
fn dollars(pico: u64) -> Value {
    serde_json::from_str(&Cost(pico).to_string()).unwrap()
}

fn check_times(told: &Value, mut exact: Vec<f64>, what: &str) {
    if exact.is_empty() {
        return assert!(told.is_null(), "{what}");
    }
    exact.sort_unstable_by(f64::total_cmp);
    assert_eq!(told["count"], exact.len(), "{what}");
    let mean = exact.iter().sum::<f64>() / exact.len() as f64;
    assert!(
        (told["mean"].as_f64().unwrap() - mean).abs() < 1e-5,
        "{what}"
    );
    for (name, percent) in [("p50", 50), ("p95", 95), ("p99", 99)] {
        let rank = (exact.len() * percent).div_ceil(100);
        let (told, exact) = (told[name].as_f64().unwrap(), exact[rank - 1]);
        assert!(
            (told - exact).abs() <= exact / 32.0 + 1e-6,
            "{told} for {exact} of {what}"
        );
    }
}

/// The value that a record is grouped by, as it is shown.
pub fn value(record: &RequestRecord, group_by: &str) -> String {
    let label = |key: &str| {
        let found = record.metadata.iter().find(|(name, _)| &**name == key);
        found.map(|(_, value)| match value {
            Label::Text(text) => text.to_string(),
            other => other.to_string(),
        })
    };
    let value = match group_by {
        "gateway" => Some(record.gateway_label().to_owned()),
        "provider" => Some(record.provider_label().to_owned()),
        "model" => {
            let model = record.model.as_ref().or(record.spent.model.as_ref());
            model.map(ToString::to_string)
        }
        "route" => record.route.as_ref().map(ToString::to_string),
        "key" => record.key_alias.as_ref().map(ToString::to_string),
        "owner" => {
            let consumer = record.consumer.as_ref();
            consumer.and_then(|consumer| consumer.owner.as_ref().map(ToString::to_string))
        }
        "user_agent" => record.user_agent.as_deref().map(|agent| {
            let short = match agent {
                "Anthropic/JS 0.9 extra" => "Anthropic/JS 0.9",
                agent if agent.starts_with("Mozilla") => "Chrome/120",
                agent => agent,
            };
            short.to_owned()
        }),
        key => label(key.strip_prefix("metadata.").unwrap()),
    };
    let value = value.filter(|value| !value.is_empty());
    value.unwrap_or_else(|| "(none)".to_owned())
}

fn ended(record: &RequestRecord) -> i64 {
    let ended = record.started + record.duration;
    ended.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Compares an answer with what it should be.
pub fn check(records: &[RequestRecord], answer: &Value, filters: &[(&str, &str)], limit: usize) {
    let time = |name: &str| answer[name].as_i64().unwrap();
    let (start, end, interval) = (time("start"), time("end"), time("interval_s"));
    let wanted: Vec<&RequestRecord> = records
        .iter()
        .filter(|record| (start..end).contains(&ended(record)))
        .filter(|record| {
            let mut filters = filters.iter();
            filters.all(|(name, wanted)| value(record, name) == *wanted)
        })
        .collect();
    let line = |told: &Value, wanted: &[&RequestRecord], what: &str| {
        Sums::of(wanted.iter().copied()).check(&told["totals"], what);
        let points = told["points"].as_array().unwrap();
        assert_eq!(points.len() as i64, (end - start) / interval);
        let mut inside = vec![Vec::new(); points.len()];
        for record in wanted {
            inside[((ended(record) - start) / interval) as usize].push(*record);
        }
        let starts = (start..end).step_by(interval as usize);
        for ((point, at), records) in points.iter().zip(starts).zip(inside) {
            assert_eq!(point["at"], at);
            Sums::of(records.into_iter()).check(point, &format!("{what} at {at}"));
        }
    };
    line(answer, &wanted, "all");
    let groups = answer["groups"].as_array().unwrap();
    let Some(group_by) = answer["group_by"].as_str() else {
        return assert!(groups.is_empty());
    };
    let mut grouped = BTreeMap::<String, Vec<&RequestRecord>>::new();
    for record in wanted {
        grouped
            .entry(value(record, group_by))
            .or_default()
            .push(record);
    }
    let mut grouped: Vec<_> = grouped.into_iter().collect();
    grouped.sort_by_key(|(_, records)| std::cmp::Reverse(records.len()));
    if grouped.len() > limit {
        let rest = grouped.split_off(limit).into_iter();
        let rest = rest.flat_map(|(_, records)| records).collect();
        grouped.push(("(other)".to_owned(), rest));
    }
    let names: Vec<_> = groups
        .iter()
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    let wanted: Vec<_> = grouped.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, wanted, "{group_by}");
    for (group, (name, records)) in groups.iter().zip(&grouped) {
        line(group, records, &format!("{group_by} {name}"));
    }
}
