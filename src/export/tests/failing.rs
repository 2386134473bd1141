//! Collectors that are away, slow, busy, or of another opinion.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};

use super::*;

fn only_report(exports: &Exports) -> Report {
    let [report] = &exports.reports()[..] else {
        panic!("not one report");
    };
    report.clone()
}

fn counts(report: &Report) -> (u64, u64, u64) {
    (report.sent, report.dropped, report.failures)
}

/// A port at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_batch_is_sent_again_until_it_is_taken() {
    let replies = [
        Reply::status(503),
        Reply::Answer(429, "retry-after: 0\r\n", vec![]),
        Reply::Hangup,
        Reply::status(502),
        Reply::status(504),
        Reply::status(200),
    ];
    let collector = Collector::answering(move |number, _| replies[number].clone());
    let exports = start(exporter(&collector, Encoding::Protobuf));
    exports.offer(&plain(1), None);
    exports.offer(&plain(2), None);
    assert!(exports.flush(LONG));
    for _ in 0..6 {
        assert_eq!(requests(&collector.next()), [1, 2]);
    }
    let report = only_report(&exports);
    assert_eq!(counts(&report), (2, 0, 5));
    assert_eq!(report.queue_bytes, 0);
    assert!(!report.is_failing);
    assert_eq!(report.problem.as_deref(), Some("answers 504"));
}

#[test]
fn a_collector_says_how_long_to_wait_and_is_not_waited_for_too_long() {
    let reply = |_: usize, _: &Received| Reply::Answer(503, "retry-after: 86400\r\n", vec![]);
    let collector = Collector::answering(reply);
    // Without what it asks for, the next try would follow at once, and never end.
    let exports = start(exporter(&collector, Encoding::Json));
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    let report = only_report(&exports);
    assert_eq!(counts(&report), (0, 1, 1));
    assert!(report.is_failing);
    assert_eq!(report.problem.as_deref(), Some("answers 503"));
    assert_eq!(collector.rest().len(), 1);
}

#[test]
fn a_refused_batch_is_dropped_and_the_next_one_is_not() {
    for status in [301, 400, 401, 404, 413, 500] {
        let reply = move |number, _: &Received| match number {
            0 => Reply::Answer(status, "location: /elsewhere\r\n", b"sk-secret".to_vec()),
            _ => Reply::status(202),
        };
        let collector = Collector::answering(reply);
        let exports = start(exporter(&collector, Encoding::Json));
        for number in 1..=2 {
            exports.offer(&plain(number), None);
            assert!(exports.flush(LONG));
        }
        let report = only_report(&exports);
        assert_eq!(counts(&report), (1, 1, 1), "{status}");
        assert_eq!(report.problem, Some(format!("answers {status}").into()));
        let paths = collector.rest().into_iter().map(|received| received.path);
        assert_eq!(paths.collect::<Vec<_>>(), ["/v1/traces", "/v1/traces"]);
    }
}

#[test]
fn what_a_collector_throws_away_is_counted_and_not_sent_again() {
    let secret = "sk-very-secret";
    let response = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: format!("too\nold for {secret}"),
        }),
    };
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let body = match encoding {
            Encoding::Json => serde_json::to_vec(&response).unwrap(),
            Encoding::Protobuf => response.encode_to_vec(),
        };
        let collector = Collector::answering(move |_, _| Reply::Answer(200, "", body.clone()));
        let exports = start(Exporter {
            headers: vec![header("authorization", "Bearer sk-very-secret")],
            ..exporter(&collector, encoding)
        });
        for number in 1..=5 {
            exports.offer(&plain(number), None);
        }
        assert!(exports.flush(LONG));
        let report = only_report(&exports);
        assert_eq!(counts(&report), (3, 2, 1));
        let problem = report.problem.unwrap();
        assert_eq!(&*problem, "threw 2 of 5 away: too old for ***");
        let received = collector.rest();
        assert_eq!(received.len(), 1);
        let sent = received[0].header("authorization");
        assert_eq!(sent, Some("Bearer sk-very-secret"));
    }
}

#[test]
fn without_a_collector_the_batch_is_given_up_in_the_end() {
    let pace = Pace {
        give_up: Duration::from_millis(50),
        ..pace()
    };
    let exports = start_with(vec![Exporter::new(nobody())], vec![], pace);
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    let report = only_report(&exports);
    assert_eq!((report.sent, report.dropped), (0, 1));
    assert!(report.failures > 0 && report.is_failing);
    assert!(report.problem.is_some());
}

#[test]
fn a_silent_collector_is_not_waited_for() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    let collector = Collector::answering(move |_, _| match silent.load(Ordering::SeqCst) {
        true => Reply::Silence,
        false => Reply::status(200),
    });
    let pace = Pace {
        timeout: Duration::from_millis(100),
        ..pace()
    };
    let exports = start_with(vec![exporter(&collector, Encoding::Json)], vec![], pace);
    exports.offer(&plain(1), None);
    // Somebody who asks for a flush does not wait for ever either.
    assert!(!exports.flush(Duration::ZERO));
    collector.next();
    is_silent.store(false, Ordering::SeqCst);
    assert!(exports.flush(LONG));
    let report = only_report(&exports);
    assert_eq!((report.sent, report.dropped), (1, 0));
    let problem = report.problem.unwrap();
    assert!(problem.starts_with("no answer within"), "{problem}");
}

#[test]
fn the_oldest_go_where_the_queue_is_full() {
    let is_away = Arc::new(AtomicBool::new(true));
    let away = Arc::clone(&is_away);
    let collector = Collector::answering(move |_, _| match away.load(Ordering::SeqCst) {
        true => Reply::status(503),
        false => Reply::status(200),
    });
    let pace = Pace {
        queue_bytes: 16 << 10,
        ..pace()
    };
    let exports = start_with(vec![exporter(&collector, Encoding::Json)], vec![], pace);
    for number in 1..=500 {
        exports.offer(&plain(number), None);
        assert!(only_report(&exports).queue_bytes <= 16 << 10);
    }
    assert!(!exports.flush(Duration::ZERO));
    collector.next();
    is_away.store(false, Ordering::SeqCst);
    assert!(exports.flush(LONG));
    let report = only_report(&exports);
    assert!(report.sent > 0 && report.dropped > 0);
    assert_eq!(report.sent + report.dropped, 500);
    let received = collector.rest();
    let last = requests(received.last().unwrap());
    let expected: Vec<u128> = (u128::from(report.dropped) + 1..=500).collect();
    assert_eq!(last, expected);
}

#[test]
fn a_full_batch_does_not_wait_for_the_others() {
    let collector = Collector::new();
    let exports = start(exporter(&collector, Encoding::Protobuf));
    for number in 1..=512 {
        exports.offer(&plain(number), None);
    }
    // Nobody has asked for a flush, and the time to gather is long.
    let first = requests(&collector.next());
    assert_eq!(first, (1..=512).collect::<Vec<_>>());
}

#[test]
fn what_is_left_is_sent_at_the_end_in_order_and_over_one_connection() {
    let collector = Collector::new();
    let exports = start(exporter(&collector, Encoding::Json));
    for number in 1..=1300 {
        exports.offer(&plain(number), None);
    }
    drop(exports);
    let received = collector.rest();
    let all: Vec<u128> = received.iter().flat_map(requests).collect();
    assert_eq!(all, (1..=1300).collect::<Vec<_>>());
    assert!(received.iter().all(|one| spans(one).len() <= 512));
    assert_eq!(collector.connections(), 1);
}

#[test]
fn the_end_does_not_wait_for_who_is_away() {
    let silent = Collector::answering(|_, _| Reply::Silence);
    let pace = Pace {
        closing: Duration::from_millis(50),
        ..pace()
    };
    let exporters = vec![
        Exporter::new(nobody()),
        exporter(&silent, Encoding::Protobuf),
    ];
    let exports = start_with(exporters, vec![], pace);
    exports.offer(&plain(1), None);
    let outlets: Vec<_> = exports
        .spans
        .iter()
        .map(|spans| Arc::clone(&spans.outlet))
        .collect();
    drop(exports);
    for outlet in outlets {
        assert_eq!(Arc::strong_count(&outlet), 1, "a sender is left");
        assert!(outlet.report().queue_bytes > 0);
    }
}

#[test]
fn what_cannot_be_an_exporter_is_told_without_its_secrets() {
    let secret = || vec![header("authorization", "Bearer sk-very-secret")];
    let started = |exporter| {
        let settings = Settings {
            exporters: vec![exporter],
            ..Settings::default()
        };
        Exports::start(settings, dns()).map(|_| ())
    };
    let bad_url = Exporter {
        headers: secret(),
        ..Exporter::new("collector:4318/sk-very-secret")
    };
    let bad_header = Exporter {
        headers: vec![header("host", "sk-very-secret")],
        ..Exporter::new("http://collector")
    };
    for exporter in [bad_url, bad_header] {
        assert!(!format!("{exporter:?}").contains("sk-very-secret"));
        let error = started(exporter).unwrap_err();
        assert!(error.starts_with("otel[0]: "), "{error}");
        assert!(!error.contains("sk-very-secret"), "{error}");
    }
}

#[test]
fn a_name_that_does_not_resolve_and_a_forbidden_address_are_told() {
    for url in ["http://169.254.169.254/", "http://[fe80::1]/"] {
        let pace = Pace {
            give_up: Duration::ZERO,
            ..pace()
        };
        let exports = start_with(vec![Exporter::new(url)], vec![], pace);
        exports.offer(&plain(1), None);
        assert!(exports.flush(LONG));
        let problem = only_report(&exports).problem.unwrap();
        assert!(problem.contains("link-local"), "{problem}");
    }
}

#[test]
fn without_anybody_to_tell_nothing_runs() {
    let exports = start_with(vec![], vec![], pace());
    assert!(exports.thread.is_none() && !exports.wants_payload());
    exports.offer(&plain(1), None);
    assert!(exports.flush(Duration::ZERO));
    assert!(exports.reports().is_empty());
}
