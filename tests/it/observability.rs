//! Metrics and the access log: every request once, failures as failures, bounded labels.

use crate::support::conf::{CHAT, openai, path};
use crate::support::metrics::Metrics;
use crate::support::upstream::End;
use crate::support::{Answer, Gate, Gateway, Reply, Request, Upstream};

/// Requests of the default gateway to openai that ended with `status`.
fn requests(metrics: &Metrics, status: &str) -> f64 {
    let labels = [
        ("gateway", "default/default"),
        ("provider", "openai"),
        ("status", status),
    ];
    metrics.sum("tollgate_requests_total", &labels)
}

/// Failed requests of `kind` that `source` is to blame for.
pub fn errors(metrics: &Metrics, source: &str, kind: &str) -> f64 {
    metrics.sum(
        "tollgate_errors_total",
        &[("source", source), ("kind", kind)],
    )
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    // A connection that ends is tried again only where it was an old one: it comes first.
    for reply in [
        Reply::Close,
        Answer::json("{\"a\":1}").into(),
        Answer::new(429).into(),
        Answer::new(503).into(),
    ] {
        upstream.script(reply);
        Request::post(CHAT, "{}").send(&gateway).await;
    }
    Request::get("/v1/default/default/nobody/x")
        .send(&gateway)
        .await;
    Request::get("/v1/nobody/default/openai/x")
        .send(&gateway)
        .await;
    let metrics = gateway
        .metrics_when("six requests", |metrics| {
            metrics.sum("tollgate_requests_total", &[]) >= 6.0
        })
        .await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 6.0);
    for (status, count) in [("200", 1.0), ("429", 1.0), ("503", 1.0), ("502", 1.0)] {
        assert_eq!(requests(&metrics, status), count, "{status}");
    }
    for (source, kind) in [
        ("provider", "provider_429"),
        ("provider", "provider_5xx"),
        ("provider", "upstream_unreachable"),
        ("client", "unknown_provider"),
        ("client", "unknown_gateway"),
    ] {
        assert_eq!(
            errors(&metrics, source, kind),
            1.0,
            "{source} {kind} in {}",
            metrics.text()
        );
    }
    assert_eq!(metrics.sum("tollgate_errors_total", &[]), 5.0);
    let by_provider = [("provider", "openai")];
    assert_eq!(
        metrics.sum("tollgate_request_bytes_total", &by_provider),
        8.0
    );
    assert_eq!(
        metrics.sum("tollgate_upstream_attempts_total", &by_provider),
        4.0
    );
    for histogram in [
        "tollgate_request_duration_seconds_count",
        "tollgate_gateway_overhead_seconds_count",
    ] {
        assert_eq!(metrics.sum(histogram, &by_provider), 4.0, "{histogram}");
    }
}

#[tokio::test]
async fn a_broken_stream_is_a_failure() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(Answer::sse().text("data: 1\n\n").end(End::Close));
    Request::post(CHAT, "{}").send(&gateway).await;
    upstream.script(Answer::json("{}").declaring(100).end(End::Close));
    Request::post(CHAT, "{}").send(&gateway).await;
    let metrics = gateway
        .metrics_when("two cut answers", |metrics| {
            errors(metrics, "provider", "upstream_cut") >= 2.0
        })
        .await;
    assert_eq!(metrics.sum("tollgate_errors_total", &[]), 2.0);
    assert_eq!(
        requests(&metrics, "200"),
        2.0,
        "that is what their clients received"
    );
    let log = gateway.logged("upstream_cut").await;
    assert!(
        log.lines()
            .any(|line| line.contains("error=upstream_cut") && line.contains("status=200")),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_as_such() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(Answer::sse().text("data: 1\n\n").end(End::Hang));
    let mut live = Request::post(CHAT, "{}").open(&gateway).await;
    live.read_past("1").await;
    drop(live);
    upstream.abandoned(1).await;
    let metrics = gateway
        .metrics_when("a client that left", |metrics| {
            errors(metrics, "client", "client_gone") >= 1.0
        })
        .await;
    assert_eq!(metrics.sum("tollgate_errors_total", &[]), 1.0);
}

#[tokio::test]
async fn streams_in_flight_and_their_first_token_are_seen() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let gate = Gate::new();
    upstream.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: [DONE]\n\n"),
    );
    let mut live = Request::post(CHAT, "{}").open(&gateway).await;
    live.read_past("1").await;
    let in_flight = |metrics: &Metrics| metrics.sum("tollgate_requests_in_flight", &[]);
    gateway
        .metrics_when("one in flight", |metrics| in_flight(metrics) == 1.0)
        .await;
    gate.open();
    live.finish().await;
    let metrics = gateway
        .metrics_when("none in flight", |metrics| in_flight(metrics) == 0.0)
        .await;
    assert_eq!(
        metrics.sum(
            "tollgate_time_to_first_token_seconds_count",
            &[("provider", "openai")]
        ),
        1.0
    );
}

#[tokio::test]
async fn clients_cannot_invent_labels() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for number in 0..50 {
        for target in [
            format!("/v1/acct{number}/gw{number}/openai/x"),
            path(&format!("slug{number}"), "x"),
            format!("/junk{number}"),
        ] {
            Request::new(&format!("M{number}"), &target)
                .send(&gateway)
                .await;
        }
        Request::post(CHAT, format!("{{\"model\":\"model{number}\"}}"))
            .send(&gateway)
            .await;
    }
    let all = |metrics: &Metrics| metrics.sum("tollgate_requests_total", &[]) >= 200.0;
    let metrics = gateway.metrics_when("200 requests", all).await;
    for invented in ["acct1", "gw1", "slug1", "junk1", "model1", "M1"] {
        assert!(
            !metrics.text().contains(invented),
            "{invented} in {}",
            metrics.text()
        );
    }
    let series = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("tollgate_requests_total{"))
        .count();
    assert!(series < 20, "{series} series");
}

#[tokio::test]
async fn the_access_log_has_one_line_per_request_in_json_too() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&(openai(&upstream) + "log: { access: json }\n")).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::post(CHAT, r#"{"model":"gpt-5"}"#)
        .header("traceparent", trace)
        .header("user-agent", "test \"agent\"\t\u{e9}");
    let answer = request.send(&gateway).await;
    let id = answer.header("cf-aig-log-id").unwrap();
    let log = gateway.logged(id).await;
    let lines: Vec<_> = log.lines().filter(|line| line.contains(id)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let line: serde_json::Value =
        serde_json::from_str(lines[0]).unwrap_or_else(|error| panic!("{error}: {}", lines[0]));
    for (key, value) in [
        ("id", id),
        ("gateway", "default/default"),
        ("provider", "openai"),
        ("model", "gpt-5"),
        ("method", "POST"),
        ("path", CHAT),
        ("traceparent", trace),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert_eq!(
        (&line["status"], &line["attempts"], &line["bytes_in"]),
        (&200.into(), &1.into(), &17.into())
    );
}

#[tokio::test]
async fn counters_survive_a_reload() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for _ in 0..2 {
        Request::post(CHAT, "{}").send(&gateway).await;
        let reloaded = gateway.ask(Request::new("POST", "/-/reload")).await;
        assert_eq!(reloaded.status, 200);
    }
    let both = |metrics: &Metrics| requests(metrics, "200") == 2.0;
    gateway
        .metrics_when("the requests before and after", both)
        .await;
}

/// As where it lies beside the configuration, whose directory is watched.
#[tokio::test]
async fn a_log_of_all_there_is_does_not_tell_of_its_own_writing() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let conf = format!("log: {{ level: trace }}\n{}", openai(&upstream));
    let gateway = Gateway::start(&conf).await;
    let beside = gateway.directory().join("beside.log");
    for _ in 0..20 {
        std::fs::write(&beside, "a line").unwrap();
        assert_eq!(Request::post(CHAT, "{}").send(&gateway).await.status, 200);
    }
    gateway.settled(20).await;
    let log = gateway.log();
    assert!(log.contains("level=trace"), "{log}");
    let of_itself = log.lines().filter(|line| line.contains("notify"));
    assert_eq!(of_itself.count(), 0, "{log}");
}
