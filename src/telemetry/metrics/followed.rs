//! What others count themselves, shown when it is asked for.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics that are read where they are counted.
struct Followed<R> {
    read: R,
    descriptions: Vec<Desc>,
}

/// A metric as it is read: its name, what it tells, and its series by one label, or one without.
pub(super) struct Shown {
    pub name: &'static str,
    pub help: &'static str,
    pub label: &'static str,
    pub is_gauge: bool,
    pub series: Vec<(Box<str>, u64)>,
}

impl Shown {
    /// A counter.
    pub fn counter(name: &'static str, help: &'static str, count: u64) -> Self {
        Self::counters(name, help, "", vec![("", count)])
    }

    /// A counter by one label.
    pub fn counters(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        series: Vec<(&str, u64)>,
    ) -> Self {
        let series = series.into_iter();
        Self {
            name,
            help,
            label,
            is_gauge: false,
            series: series.map(|(value, count)| (value.into(), count)).collect(),
        }
    }

    /// The same as a gauge.
    pub fn into_gauge(self) -> Self {
        Self {
            is_gauge: true,
            ..self
        }
    }

    fn collector(&self) -> prometheus::Result<Box<dyn Collector>> {
        let opts = Opts::new(self.name, self.help);
        let label = [self.label];
        let has_label = usize::from(!self.label.is_empty());
        let labels = &label[..has_label];
        if self.is_gauge {
            let gauge = IntGaugeVec::new(opts, labels)?;
            for (value, count) in &self.series {
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                gauge.with_label_values(&[&**value][..has_label]).set(count);
            }
            return Ok(Box::new(gauge));
        }
        let counter = IntCounterVec::new(opts, labels)?;
        for (value, count) in &self.series {
            counter
                .with_label_values(&[&**value][..has_label])
                .inc_by(*count);
        }
        Ok(Box::new(counter))
    }
}

/// Shows what `read` reads from now on: always the same metrics.
pub(super) fn follow(
    registry: &Registry,
    read: impl Fn() -> Vec<Shown> + Send + Sync + 'static,
) -> prometheus::Result<()> {
    let mut descriptions = Vec::new();
    for shown in read() {
        descriptions.extend(shown.collector()?.desc().into_iter().cloned());
    }
    registry.register(Box::new(Followed { read, descriptions }))
}

impl<R: Fn() -> Vec<Shown> + Send + Sync> Collector for Followed<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shown = (self.read)();
        let collected = shown.iter().filter_map(|shown| shown.collector().ok());
        // A family without series is an error where it is written.
        let families = collected.flat_map(|metric| metric.collect());
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}
