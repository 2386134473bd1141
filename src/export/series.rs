//! What finished requests come to, by provider, model and gateway: OTLP's metrics.
//!
//! Names, units and buckets are those of OpenTelemetry's GenAI conventions. Only what providers
//! were asked for counts: an answer out of the cache took no model's time and no tokens, and what
//! the gateway refused is in its own metrics.
//!
//! Bounded: models and errors are told apart in [`MOST_SERIES`] combinations; then models become
//! `other`, in [`MOST_OTHERS`] combinations more; then everything does. At about 1 KiB each that
//! is 1.3 MiB.

use std::time::Duration;

use ahash::AHashMap;

use super::otlp::{Amount, Attributes, Metric, Point, Value};
use super::words;
use crate::pricing::Cost;
use crate::record::RequestRecord;
use crate::usage::TOKEN_BUCKETS;

/// Most combinations of operation, provider, model, gateway and error.
pub const MOST_SERIES: usize = 1024;
/// Most combinations beyond these, in which the model is `other`.
pub const MOST_OTHERS: usize = 256;
/// In the place of what cannot be told apart any more.
const OTHER: &str = "other";

/// Seconds.
const DURATIONS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Seconds.
const FIRST_TOKENS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// All series, since the start.
#[derive(Debug, Default, Clone)]
pub struct AllSeries(AHashMap<Key, Series>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    operation: &'static str,
    provider: Box<str>,
    model: Box<str>,
    gateway: Box<str>,
    error: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Series {
    duration: Histogram<15>,
    input: Histogram<15>,
    output: Histogram<15>,
    first_token: Histogram<17>,
    cost: Option<Cost>,
}

/// How values are spread; `N` buckets, the last without an upper end.
#[derive(Debug, Clone)]
struct Histogram<const N: usize> {
    bounds: &'static [f64],
    buckets: [u64; N],
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() + 1 == N, "one bucket more than bounds");
        Self {
            bounds,
            buckets: [0; N],
            sum: 0.0,
        }
    }

    /// A value on a bound is in the bucket that ends there.
    fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket] += 1;
        self.sum += value;
    }

    fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| *count == 0)
    }

    fn amount(&self) -> Amount<'_> {
        Amount::Histogram {
            sum: self.sum,
            bounds: self.bounds,
            buckets: &self.buckets,
        }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            duration: Histogram::new(&DURATIONS),
            input: Histogram::new(&TOKEN_BUCKETS),
            output: Histogram::new(&TOKEN_BUCKETS),
            first_token: Histogram::new(&FIRST_TOKENS),
            cost: None,
        }
    }
}

impl Series {
    fn observe(&mut self, record: &RequestRecord) {
        let seconds = Duration::as_secs_f64;
        self.duration.observe(seconds(&record.duration));
        if let Some(first) = &record.first_token {
            self.first_token.observe(seconds(first));
        }
        if let Some(usage) = &record.spent.usage {
            self.input.observe(usage.input as f64);
            self.output.observe(usage.output as f64);
        }
        if let Some(cost) = record.spent.cost {
            let before = self.cost.unwrap_or_default();
            self.cost = Some(before.saturating_add(cost));
        }
    }
}

impl Key {
    fn of(record: &RequestRecord) -> Self {
        Self {
            operation: words::operation(&record.path),
            provider: words::provider(record.provider_label()).into(),
            model: record.model.clone().unwrap_or_default(),
            gateway: record.gateway_label().into(),
            error: record.error().map(|(_, kind)| kind),
        }
    }

    fn of_any_model(self) -> Self {
        Self {
            model: OTHER.into(),
            ..self
        }
    }

    fn of_anything() -> Self {
        Self {
            operation: OTHER,
            provider: OTHER.into(),
            model: OTHER.into(),
            gateway: OTHER.into(),
            error: None,
        }
    }

    fn attributes(&self) -> Attributes<'_> {
        let named = [
            ("gen_ai.operation.name", self.operation),
            ("gen_ai.provider.name", &self.provider),
            ("gen_ai.request.model", &self.model),
            ("tollgate.gateway", &self.gateway),
            ("error.type", self.error.unwrap_or_default()),
        ];
        named
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.into(), Value::text(text)))
            .collect()
    }
}

impl AllSeries {
    /// Counts a finished request.
    pub fn observe(&mut self, record: &RequestRecord) {
        if record.provider.is_none() || record.cache.from.is_some() {
            return;
        }
        let key = self.bounded(Key::of(record));
        self.0.entry(key).or_default().observe(record);
    }

    /// There is a place for it, or it is one of the others.
    fn bounded(&self, key: Key) -> Key {
        if self.0.contains_key(&key) || self.0.len() < MOST_SERIES {
            return key;
        }
        let key = key.of_any_model();
        if self.0.contains_key(&key) || self.0.len() < MOST_SERIES + MOST_OTHERS {
            return key;
        }
        Key::of_anything()
    }

    /// What it has come to.
    pub fn metrics(&self) -> Vec<Metric<'_>> {
        let metrics = [
            Metric {
                name: "gen_ai.client.token.usage",
                description: "Number of input and output tokens used",
                unit: "{token}",
                points: self.token_points(),
            },
            Metric {
                name: "gen_ai.client.operation.duration",
                description: "GenAI operation duration",
                unit: "s",
                points: self.points(|series| &series.duration),
            },
            Metric {
                name: "gen_ai.server.time_to_first_token",
                description: "From the request's head to the first byte of a streamed answer, as the gateway sees it",
                unit: "s",
                points: self.points(|series| &series.first_token),
            },
            Metric {
                name: "tollgate.cost",
                description: "What answers cost, by the price list",
                unit: "USD",
                points: self.cost_points(),
            },
        ];
        let told = metrics.into_iter();
        told.filter(|metric| !metric.points.is_empty()).collect()
    }

    fn points<'a, const N: usize>(
        &'a self,
        histogram: impl Fn(&'a Series) -> &'a Histogram<N>,
    ) -> Vec<Point<'a>> {
        let all = self.0.iter();
        let all = all.map(|(key, series)| (key, histogram(series)));
        all.filter(|(_, histogram)| !histogram.is_empty())
            .map(|(key, histogram)| Point {
                attributes: key.attributes(),
                amount: histogram.amount(),
            })
            .collect()
    }

    fn token_points(&self) -> Vec<Point<'_>> {
        let mut points = Vec::new();
        for (name, of_type) in [
            ("input", self.points(|series| &series.input)),
            ("output", self.points(|series| &series.output)),
        ] {
            points.extend(of_type.into_iter().map(|mut point| {
                let token_type = ("gen_ai.token.type".into(), Value::text(name));
                point.attributes.push(token_type);
                point
            }));
        }
        points
    }

    fn cost_points(&self) -> Vec<Point<'_>> {
        let all = self.0.iter();
        let all = all.filter_map(|(key, series)| Some((key, series.cost?)));
        all.map(|(key, cost)| Point {
            attributes: key.attributes(),
            amount: Amount::Sum(cost.as_dollars()),
        })
        .collect()
    }
}
