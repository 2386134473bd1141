//! What an offer costs whoever closes a request. Run it by name, with `--release`:
//! `cargo test --release --lib export::tests::speed -- --ignored --nocapture`.

use super::*;
use crate::logs::entry;

#[test]
#[ignore = "measures"]
fn nanoseconds_per_offer() {
    let collector = Collector::new();
    let record = rich(&gateway());
    let body = Bytes::from(vec![b'x'; 8 << 10]);
    let payload = entry::Payload {
        request: Some(vec![body.clone()]),
        response: Some(vec![body]),
        ..entry::Payload::default()
    };
    let form = |content_type, traces, metrics, payload| Exporter {
        traces,
        metrics,
        payload,
        ..exporter(&collector, content_type)
    };
    use Encoding::{Json, Protobuf};
    for (what, exporters, sinks) in [
        ("nobody", vec![], vec![]),
        (
            "spans, protobuf",
            vec![form(Protobuf, true, false, false)],
            vec![],
        ),
        ("spans, JSON", vec![form(Json, true, false, false)], vec![]),
        (
            "spans with 16 KiB, protobuf",
            vec![form(Protobuf, true, false, true)],
            vec![],
        ),
        (
            "spans with 16 KiB, JSON",
            vec![form(Json, true, false, true)],
            vec![],
        ),
        ("metrics", vec![form(Protobuf, false, true, false)], vec![]),
        ("lines", vec![], vec![Sink::File("/dev/null".into())]),
    ] {
        let exports = start_with(exporters, sinks, pace());
        let began = Instant::now();
        let count = 100_000;
        for _ in 0..count {
            exports.offer(&record, Some(&payload));
        }
        let each = began.elapsed().as_nanos() / count;
        let bytes = exports
            .reports()
            .iter()
            .map(|report| report.queue_bytes)
            .max();
        println!("{what}: {each} ns, {} bytes queued", bytes.unwrap_or(0));
        drop(exports);
        collector.rest();
    }
}

#[test]
#[ignore = "measures"]
fn bytes_and_time_of_all_metrics() {
    let gateway = gateway();
    let mut series = AllSeries::default();
    let mut record = rich(&gateway);
    for number in 0..series::MOST_SERIES {
        record.model = Some(format!("provider/a-model-with-a-long-name-{number}").into());
        series.observe(&record);
    }
    let resource = Resource {
        instance: Uuid::nil().to_string(),
    };
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let began = Instant::now();
        let metrics = series.metrics();
        let request = MetricsRequest {
            resource: &resource,
            metrics: &metrics,
            start: 0,
            now: u64::MAX,
        };
        let bytes = otlp::encode(encoding, &request).len();
        println!("{encoding:?}: {bytes} bytes, {:?}", began.elapsed());
    }
    let began = Instant::now();
    let copy = series.clone();
    println!("a copy: {:?} {}", began.elapsed(), copy.metrics().len());
}

#[test]
#[ignore = "measures"]
fn nanoseconds_of_writing_alone() {
    let record = rich(&gateway());
    let count = 100_000;
    let each = |what: &str, write: &dyn Fn() -> usize| {
        let began = Instant::now();
        let bytes = (0..count).map(|_| write()).max();
        let each = began.elapsed().as_nanos() / count;
        println!("{what}: {each} ns, {} bytes", bytes.unwrap_or(0));
    };
    each("spans", &|| spans::of(&record).len());
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let write = || otlp::encode(encoding, &Spans(&spans::of(&record))).len();
        each(&format!("spans, {encoding:?}"), &write);
    }
    each("line", &|| access::json_line(&record).len());
}
