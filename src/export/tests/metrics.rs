//! Metrics: what is counted, in both encodings, and the bound on series.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point,
};

use super::*;
use crate::cache::tiers::Tier;
use crate::export::series::{AllSeries, MOST_OTHERS, MOST_SERIES};
use crate::record::AnsweredFrom;

fn only_metrics(collector: &Collector, content_type: Encoding) -> Exporter {
    Exporter {
        traces: false,
        metrics: true,
        ..exporter(collector, content_type)
    }
}

fn metrics(received: &Received) -> Vec<Metric> {
    let request: ExportMetricsServiceRequest = read(received);
    let [resource] = &request.resource_metrics[..] else {
        panic!("{request:?}");
    };
    resource.scope_metrics[0].metrics.clone()
}

fn histogram<'a>(metrics: &'a [Metric], name: &str) -> &'a [HistogramDataPoint] {
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
    let Some(metric::Data::Histogram(histogram)) = &metric.data else {
        panic!("{metric:?}");
    };
    assert_eq!(histogram.aggregation_temporality, 2);
    for point in &histogram.data_points {
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        assert!(point.start_time_unix_nano <= point.time_unix_nano);
    }
    &histogram.data_points
}

fn costs(metrics: &[Metric]) -> &[NumberDataPoint] {
    let metric = metrics.iter().find(|metric| metric.name == "tollgate.cost");
    let Some(metric::Data::Sum(sum)) = &metric.unwrap().data else {
        panic!("{metric:?}");
    };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    &sum.data_points
}

/// The bucket that holds the only value, by its upper end.
fn bucket(point: &HistogramDataPoint) -> f64 {
    let at = point.bucket_counts.iter().position(|count| *count > 0);
    point.explicit_bounds[at.unwrap()]
}

#[test]
fn requests_are_counted_by_what_they_asked_in_both_encodings() {
    let gateway = gateway();
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let collector = Collector::new();
        let exports = start(only_metrics(&collector, encoding));
        exports.offer(&rich(&gateway), None);
        assert!(exports.flush(LONG));
        let received = collector.next();
        assert_eq!(received.path, "/v1/metrics");
        let metrics = metrics(&received);
        let named = metrics.iter().map(|metric| (&*metric.name, &*metric.unit));
        let expected = [
            ("gen_ai.client.token.usage", "{token}"),
            ("gen_ai.client.operation.duration", "s"),
            ("gen_ai.server.time_to_first_token", "s"),
            ("tollgate.cost", "USD"),
        ];
        assert_eq!(named.collect::<Vec<_>>(), expected);
        let tokens = histogram(&metrics, "gen_ai.client.token.usage");
        let by_type = tokens.iter().map(|point| {
            let token_type = text(&point.attributes, "gen_ai.token.type");
            (token_type.unwrap(), point.sum.unwrap(), bucket(point))
        });
        let by_type: Vec<_> = by_type.collect();
        assert_eq!(by_type, [("input", 100.0, 256.0), ("output", 20.0, 64.0)]);
        let [duration] = histogram(&metrics, "gen_ai.client.operation.duration") else {
            panic!("{metrics:?}");
        };
        assert_eq!((duration.sum, bucket(duration)), (Some(0.25), 0.32));
        let [first] = histogram(&metrics, "gen_ai.server.time_to_first_token") else {
            panic!("{metrics:?}");
        };
        // A value on a bound belongs to the bucket that ends there.
        assert_eq!((first.sum, bucket(first)), (Some(0.08), 0.08));
        let [cost] = costs(&metrics) else {
            panic!("{metrics:?}");
        };
        let dollars = number_data_point::Value::AsDouble(0.001_25);
        assert_eq!(cost.value, Some(dollars));
        for attributes in [&duration.attributes, &first.attributes, &cost.attributes] {
            for (name, expected) in [
                ("gen_ai.operation.name", "chat"),
                ("gen_ai.provider.name", "openai"),
                ("gen_ai.request.model", "gpt-5-mini"),
                ("tollgate.gateway", "acc/gw"),
            ] {
                assert_eq!(text(attributes, name), Some(expected), "{name}");
            }
            assert_eq!(attributes.len(), 4);
        }
    }
}

#[test]
fn sums_go_on_from_one_time_to_the_next_and_are_sent_at_the_end() {
    let gateway = gateway();
    let collector = Collector::new();
    let exports = start(only_metrics(&collector, Encoding::Protobuf));
    // Nothing yet: nothing is sent.
    assert!(exports.flush(LONG));
    for _ in 0..2 {
        exports.offer(&rich(&gateway), None);
    }
    assert!(exports.flush(LONG));
    let mut failed = rich(&gateway);
    failed.status = 500;
    failed.spent = Spent::default();
    exports.offer(&failed, None);
    drop(exports);
    let [before, after] = [collector.next(), collector.next()];
    assert!(collector.rest().is_empty());
    let counts = |received| {
        let metrics = metrics(received);
        let durations = histogram(&metrics, "gen_ai.client.operation.duration");
        let mut counts: Vec<_> = durations
            .iter()
            .map(|point| {
                let error = text(&point.attributes, "error.type").map(str::to_owned);
                (error, point.count, point.start_time_unix_nano)
            })
            .collect();
        counts.sort();
        counts
    };
    let (before, after) = (counts(&before), counts(&after));
    assert_eq!(before.len(), 1);
    assert_eq!(after[0], before[0]);
    assert_eq!(
        (after[1].0.as_deref(), after[1].1),
        (Some("provider_5xx"), 1)
    );
}

#[test]
fn what_no_provider_was_asked_for_is_not_counted() {
    let gateway = gateway();
    let mut series = AllSeries::default();
    let mut cached = rich(&gateway);
    cached.cache.from = Some(AnsweredFrom::Stored(Tier::Memory));
    series.observe(&cached);
    series.observe(&plain(1));
    assert!(series.metrics().is_empty());
}

#[test]
fn series_are_bounded_and_nothing_is_lost_by_that() {
    let gateway = gateway();
    let mut series = AllSeries::default();
    let mut record = rich(&gateway);
    let mut count = 0;
    let mut observe = |series: &mut AllSeries, record: &RequestRecord| {
        series.observe(record);
        count += 1;
    };
    for number in 0..MOST_SERIES + 10 {
        record.model = Some(format!("model-{number}").into());
        observe(&mut series, &record);
    }
    // Known ones stay told apart, and new paths and providers are, without their models.
    record.model = Some("model-3".into());
    observe(&mut series, &record);
    record.path = "/v1/acc/gw/openai/embeddings".into();
    observe(&mut series, &record);
    record.gateway = None;
    observe(&mut series, &record);
    let metrics = series.metrics();
    let points = &metrics[1].points;
    let models = points.iter().map(|point| {
        let models = point.attributes.iter();
        let mut models = models.filter(|(name, _)| name == "gen_ai.request.model");
        models.next().unwrap().1.clone()
    });
    let other = models.filter(|model| *model == otlp::Value::text("other"));
    assert_eq!((points.len(), other.count()), (MOST_SERIES + 3, 3));
    let counts = points.iter().map(|point| match point.amount {
        otlp::Amount::Histogram { buckets, .. } => buckets.iter().sum::<u64>(),
        otlp::Amount::Sum(_) => 0,
    });
    assert_eq!(counts.sum::<u64>(), count);
    assert!(points.len() <= MOST_SERIES + MOST_OTHERS + 1);
}
