//! Tokens and money.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramVec, IntCounterVec, Opts, Registry};

use super::Metrics;
use super::register::Register;
use crate::pricing::{Cost, CostSource};
use crate::record::{RequestRecord, Spent};
use crate::usage::TOKEN_BUCKETS;

/// The metrics of what requests took and cost.
#[derive(Debug)]
pub(super) struct SpendingMetrics {
    usage: HistogramVec,
    tokens: IntCounterVec,
    estimated: IntCounterVec,
    unpriced: IntCounterVec,
    cost: Dollars,
    saved: Dollars,
}

impl SpendingMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let by_provider = ["gateway", "provider"];
        Ok(Self {
            usage: register.histogram(
                "gen_ai_client_token_usage",
                "Tokens of one answer that a provider gave (gen_ai.client.token.usage of OpenTelemetry); input has the cached input in it, output the reasoning",
                &["gateway", "provider", "gen_ai_token_type"],
                &TOKEN_BUCKETS,
            )?,
            tokens: register.counter(
                "tollgate_tokens_total",
                "Tokens of answers that providers gave, by kind; cached_input, cache_write and input_… are parts of input, reasoning and output_… of output",
                &["gateway", "provider", "kind"],
            )?,
            estimated: register.counter(
                "tollgate_usage_estimated_total",
                "Answers whose provider did not say how many tokens they took: those are estimated",
                &by_provider,
            )?,
            unpriced: register.counter(
                "tollgate_unpriced_total",
                "Answers with tokens for which no price is known: they are missing in tollgate_cost_usd_total",
                &by_provider,
            )?,
            cost: Dollars::new(
                register.0,
                "tollgate_cost_usd_total",
                "What answers cost, by the price list, in US dollars",
            )?,
            saved: Dollars::new(
                register.0,
                "tollgate_saved_usd_total",
                "What answers that no provider was asked for would have cost, in US dollars",
            )?,
        })
    }

    fn observe(&self, labels: [&str; 2], spent: &Spent) {
        let [gateway, provider] = labels;
        if let Some(saved) = spent.saved {
            self.saved.add(&labels, saved);
        }
        let bought = spent.source.filter(|source| *source != CostSource::Cached);
        let (Some(usage), Some(source)) = (spent.usage, bought) else {
            return;
        };
        for (kind, tokens) in [("input", usage.input), ("output", usage.output)] {
            self.usage
                .with_label_values(&[gateway, provider, kind])
                .observe(tokens as f64);
        }
        for (kind, tokens) in usage.by_kind() {
            if tokens > 0 {
                let kind = kind.strip_suffix("_tokens").unwrap_or(kind);
                let labels = [gateway, provider, kind];
                self.tokens.with_label_values(&labels).inc_by(tokens);
            }
        }
        if spent.is_estimate {
            self.estimated.with_label_values(&labels).inc();
        }
        if source == CostSource::Unpriced {
            self.unpriced.with_label_values(&labels).inc();
        }
        if let Some(cost) = spent.cost {
            self.cost.add(&labels, cost);
        }
    }
}

impl Metrics {
    pub(super) fn observe_spending(&self, record: &RequestRecord) {
        let labels = [record.gateway_label(), record.provider_label()];
        self.spending.observe(labels, &record.spent);
    }
}

/// Sums of money, by gateway and provider: whole pico-dollars, so that nothing is lost on the way,
/// shown as dollars. A counter wraps after 18 million dollars, as after a restart.
#[derive(Debug, Clone)]
struct Dollars(IntCounterVec);

impl Dollars {
    fn new(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let counters = IntCounterVec::new(Opts::new(name, help), &["gateway", "provider"])?;
        registry.register(Box::new(Self(counters.clone())))?;
        Ok(Self(counters))
    }

    fn add(&self, labels: &[&str; 2], cost: Cost) {
        self.0.with_label_values(labels).inc_by(cost.0);
    }
}

impl Collector for Dollars {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            for metric in family.mut_metric() {
                let mut counter = metric.get_counter().clone();
                counter.set_value(counter.get_value() / 1e12);
                metric.set_counter(counter);
            }
        }
        families
    }
}
