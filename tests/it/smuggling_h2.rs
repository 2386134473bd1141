//! HTTP/2 requests that would be two different ones in HTTP/1.1: refused.

use crate::support::client::raw_h2::{self, Verdict};
use crate::support::conf::openai;
use crate::support::metrics::Metrics;
use crate::support::{Answer, Gateway, Upstream};

/// Pseudo-headers of a good request.
const PSEUDO: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/v1/default/default/openai/models"),
    (":authority", "gateway.example"),
];

/// RFC 9113, section 8.2 and 8.3: fields that make a request malformed.
const MALFORMED: &[(&str, &str)] = &[
    ("connection", "close"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("te", "gzip"),
    ("X-Upper", "1"),
    ("x-nul", "a\0b"),
    ("x-crlf", "a\r\nhost: evil"),
    ("x blank", "1"),
    (":late", "pseudo"),
    (":path", "/v1/default/default/openai/second"),
    ("content-length", "5"),
];

#[tokio::test]
async fn malformed_http2_requests_are_refused() {
    let upstream = Upstream::h1().await;
    upstream.script(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    assert_eq!(
        raw_h2::send(&gateway, &PSEUDO).await,
        Verdict::Answered(Some(200))
    );
    for field in MALFORMED {
        let fields = [&PSEUDO[..], &[*field]].concat();
        let verdict = raw_h2::send(&gateway, &fields).await;
        assert_ne!(verdict, Verdict::Answered(Some(200)), "{field:?}");
        assert_eq!(
            upstream.requests().len(),
            1,
            "{field:?} reached the provider"
        );
    }
    for missing in 0..3 {
        let mut fields = PSEUDO.to_vec();
        let (name, _) = fields.remove(missing);
        let verdict = raw_h2::send(&gateway, &fields).await;
        assert_ne!(verdict, Verdict::Answered(Some(200)), "without {name}");
        assert_eq!(upstream.requests().len(), 1, "without {name}");
    }
}

/// Requests that name two hosts or none: whole sets of fields, as one more would not do.
const AMBIGUOUS: &[&[(&str, &str)]] = &[
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/v1/default/default/openai/models"),
        (":authority", "gateway.example"),
        ("host", "other.example"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/v1/default/default/openai/models"),
        ("host", "gateway.example"),
        ("host", "gateway.example"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/v1/default/default/openai/models"),
    ],
];

#[tokio::test]
async fn http2_requests_that_the_engine_refuses_are_counted() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for fields in AMBIGUOUS {
        let verdict = raw_h2::send(&gateway, fields).await;
        assert_eq!(verdict, Verdict::Answered(Some(400)), "{fields:?}");
    }
    let counted = |metrics: &Metrics| {
        metrics.sum("tollgate_errors_total", &[("kind", "bad_request")]) == AMBIGUOUS.len() as f64
    };
    gateway.metrics_when("each refusal", counted).await;
    gateway.logged("error=bad_request").await;
    upstream.untouched();
}

#[tokio::test]
async fn an_http2_connect_is_refused_and_counted() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let fields = [(":method", "CONNECT"), (":authority", "example.com:443")];
    // 405 is none of the statuses that HPACK has a byte for.
    let verdict = raw_h2::send(&gateway, &fields).await;
    assert_eq!(verdict, Verdict::Answered(None));
    let counted = |metrics: &Metrics| {
        metrics.sum("tollgate_requests_total", &[("status", "405")]) == 1.0
            && metrics.sum("tollgate_errors_total", &[("kind", "method_not_allowed")]) == 1.0
    };
    gateway.metrics_when("the refused CONNECT", counted).await;
    gateway.logged("http=HTTP/2.0").await;
    upstream.untouched();
}
