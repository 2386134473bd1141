//! Budgets: what is spent and set aside.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, GaugeVec, Opts};

use super::Metrics;
use super::followed::{Shown, follow};
use crate::limits::spend::{Budgets, Counters, Partition, Reading, Scope};
use crate::pricing::Cost;

/// Most accounts that are shown: keys and owners may be many.
const MOST_SHOWN: usize = 1_000;

const LABELS: [&str; 3] = ["gateway", "rule", "partition"];

impl Metrics {
    /// Shows what `budgets` have left from now on, and what went wrong with them.
    pub fn follow_budgets(&self, budgets: Arc<Budgets>) -> prometheus::Result<()> {
        let counted = Arc::clone(&budgets);
        follow(&self.registry, move || {
            shown(counted.counters(), counted.made_up())
        })?;
        let descriptions = Money::new(&[], Cost::ZERO)?.descriptions();
        self.registry.register(Box::new(Accounts {
            budgets,
            descriptions,
        }))
    }
}

fn shown(counters: &Counters, made_up: usize) -> Vec<Shown> {
    // Exhaustive: what budgets count is shown, or does not compile.
    let Counters {
        overruns,
        overrun: _, // in dollars, below
        errors,
        alarm,
    } = counters;
    let read =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    vec![
        Shown::counter(
            "tollgate_budget_overruns_total",
            "Calls that cost more than was set aside for them by a spend limit",
            read(overruns),
        ),
        Shown::counter(
            "tollgate_budget_store_errors_total",
            "Failures of the store of spend limits; the log says which",
            read(errors),
        ),
        Shown::counter(
            "tollgate_budget_store_alarm",
            "1 while what is spent is not stored, because the file is full, broken or cannot be read",
            read(alarm),
        )
        .into_gauge(),
        Shown::counter(
            "tollgate_budget_made_up_accounts",
            "Budgets by values that clients chose (metadata, models); requests with new values are refused above 100000",
            u64::try_from(made_up).unwrap_or(u64::MAX),
        )
        .into_gauge(),
    ]
}

/// The accounts of gateways whose names are configured, read when they are asked for.
struct Accounts {
    budgets: Arc<Budgets>,
    descriptions: Vec<Desc>,
}

/// Their money, in dollars.
struct Money {
    limit: GaugeVec,
    spent: GaugeVec,
    reserved: GaugeVec,
    overrun: Counter,
}

impl Collector for Accounts {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let readings = self.budgets.bounded_readings(SystemTime::now());
        let overrun = &self.budgets.counters().overrun;
        let overrun = Cost(overrun.load(std::sync::atomic::Ordering::Relaxed));
        let money = Money::new(&readings, overrun);
        money.map(|money| money.families()).unwrap_or_default()
    }
}

impl Money {
    fn new(readings: &[Reading], overrun: Cost) -> prometheus::Result<Self> {
        let gauges = |name, help| GaugeVec::new(Opts::new(name, help), &LABELS);
        let money = Self {
            limit: gauges(
                "tollgate_budget_limit_usd",
                "What a spend limit allows in its window, as its last call found it",
            )?,
            spent: gauges(
                "tollgate_budget_spent_usd",
                "What counts as spent by a spend limit now",
            )?,
            reserved: gauges(
                "tollgate_budget_reserved_usd",
                "What is set aside for calls that run, or left to another process during an upgrade",
            )?,
            overrun: Counter::new(
                "tollgate_budget_overrun_usd_total",
                "What calls have cost above what was set aside for them",
            )?,
        };
        money.overrun.inc_by(overrun.as_dollars());
        let readings = readings.iter();
        let of_gateways = readings.filter_map(|reading| match &reading.scope {
            Scope::Gateway(gateway) => Some((&**gateway, reading)),
            Scope::Key(_) => None,
        });
        for (gateway, reading) in of_gateways.take(MOST_SHOWN) {
            money.show(gateway, reading);
        }
        Ok(money)
    }

    fn show(&self, gateway: &str, reading: &Reading) {
        let partition = label(&reading.partition);
        let labels = [gateway, &reading.rule, &partition];
        let set = |gauges: &GaugeVec, cost: Cost| {
            gauges.with_label_values(&labels).set(cost.as_dollars());
        };
        set(&self.limit, reading.limit);
        set(&self.spent, reading.spent);
        set(&self.reserved, reading.reserved);
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [&self.limit, &self.spent, &self.reserved, &self.overrun]
    }

    fn descriptions(&self) -> Vec<Desc> {
        let all = self.all().into_iter();
        all.flat_map(|metric| metric.desc().into_iter().cloned())
            .collect()
    }

    fn families(&self) -> Vec<MetricFamily> {
        let families = self.all().into_iter().flat_map(Collector::collect);
        // A family without series is an error where it is written.
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

/// `provider=openai,key=ci`; empty where a rule has one account.
fn label(partition: &Partition) -> String {
    let parts = partition
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::schema::{SpendAction, Unpriced};
    use crate::limits::facts::Facts;
    use crate::limits::spend::{Ask, Field, Rule, Select, Window};
    use crate::metadata::{Metadata, Value};

    fn rule(id: &str, by: Option<Field>) -> Rule {
        Rule {
            id: id.into(),
            limit: Cost::parse("2.5").unwrap(),
            window: Window::Fixed(86_400),
            selection: by.into_iter().map(|by| (by, Select::Partition)).collect(),
            assume_output: None,
            strict: false,
            unpriced: Unpriced::Allow,
            action: SpendAction::Block,
        }
    }

    #[test]
    fn what_is_left_is_shown_by_configured_names_only() {
        let (metrics, budgets) = (Metrics::new().unwrap(), Arc::new(Budgets::in_memory()));
        metrics.follow_budgets(Arc::clone(&budgets)).unwrap();
        assert!(
            metrics
                .render(0)
                .contains("tollgate_budget_overruns_total 0")
        );
        let user = Field::Metadata("user".into());
        let rules = [
            rule("all", None),
            rule("by-provider", Some(Field::Provider)),
            rule("by-user", Some(user)),
        ];
        let said: Metadata = vec![("user".into(), Value::Text("alice".into()))];
        let facts = Facts {
            provider: Some("openai"),
            ..Facts::of(&said)
        };
        let scopes = [Scope::Gateway("a/g".into()), Scope::Key("k1".into())];
        let asks = |cost: &str| {
            let cost = Cost::parse(cost).unwrap();
            let all = scopes
                .iter()
                .flat_map(|scope| rules.iter().map(move |rule| (scope, rule)));
            let asks = all.map(|(scope, rule)| Ask { scope, rule, cost });
            budgets
                .reserve(&asks.collect::<Vec<_>>(), &facts, SystemTime::now())
                .unwrap()
        };
        asks("0.5").settle(Cost::parse("0.75").unwrap(), SystemTime::now());
        let running = asks("1");
        let text = metrics.render(0);
        for line in [
            "tollgate_budget_limit_usd{gateway=\"a/g\",partition=\"\",rule=\"all\"} 2.5",
            "tollgate_budget_spent_usd{gateway=\"a/g\",partition=\"\",rule=\"all\"} 0.75",
            "tollgate_budget_reserved_usd{gateway=\"a/g\",partition=\"\",rule=\"all\"} 1\n",
            "tollgate_budget_spent_usd{gateway=\"a/g\",partition=\"provider=openai\",rule=\"by-provider\"} 0.75",
            "tollgate_budget_overruns_total 6",
            "tollgate_budget_overrun_usd_total 1.5",
            "tollgate_budget_store_alarm 0",
            "tollgate_budget_made_up_accounts 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("alice") && !text.contains("k1"), "{text}");
        drop(running);
        assert!(
            metrics
                .render(0)
                .contains("partition=\"\",rule=\"all\"} 0\n")
        );
    }
}
