//! Held bodies whose length the client does not tell, longer than Pingora could send twice.

use crate::support::client::{Multiplexed, Told};
use crate::support::conf::{SPENDING, at, path};
use crate::support::metrics::Metrics;
use crate::support::upstream::End;
use crate::support::{
    Answer, Connection, Digest, Ending, Gate, Gateway, Protocol, Reply, Request, Upstream, body,
    ports,
};

const BOTH: [Protocol; 2] = [Protocol::H1, Protocol::H2];

const KEY: &str = r#"keys: [{ value: '{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"very-secret","region":"us-east-1"}' }]"#;

fn yaml(upstream: &Upstream, more: &str) -> String {
    at(upstream, "aws-bedrock", "", &format!("{more}, {KEY}")) + SPENDING
}

/// A request that the gateway signs, of 100,000 bytes that it is not told about.
fn request(protocol: Protocol) -> Request {
    let target = path(
        "aws-bedrock",
        "bedrock-runtime/us-east-1/model/m/invoke?a=%2F",
    );
    Request::post(&target, body::json_of_size("m", 100_000))
        .told(Told::Open)
        .over(protocol)
}

#[tokio::test]
async fn heads_are_the_same() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&yaml(&upstream, "http: h1")).await;
    for protocol in BOTH {
        upstream.script(
            Answer::new(429)
                .header("retry-after", "7")
                .header("x-twice", "a")
                .header("x-twice", "b")
                .text("slow down"),
        );
        let request = request(protocol)
            .header("x-own", "b")
            .header("x-own", "a")
            .header("cf-aig-event-id", "e-1")
            .header("traceparent", "00-1");
        let answer = request.send(&gateway).await;
        assert_eq!((answer.status, answer.text().as_str()), (429, "slow down"));
        for (name, value) in [
            ("retry-after", "7"),
            ("cf-aig-event-id", "e-1"),
            ("cf-aig-step", "0"),
            ("cf-aig-provider", "aws-bedrock"),
            ("cf-aig-model", "m"),
            ("tollgate-error-source", "provider"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!(
            answer
                .headers
                .iter()
                .filter(|(name, _)| name == "x-twice")
                .count(),
            2
        );
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.target, "/model/m/invoke?a=%2F");
        assert_eq!(
            (seen.all("x-own"), seen.all("traceparent")),
            (vec!["b", "a"], vec!["00-1"])
        );
        assert_eq!(
            (seen.all("content-length"), seen.header("transfer-encoding")),
            (vec!["100000"], None)
        );
        assert_eq!(
            seen.digest,
            Some(Digest::of(&body::json_of_size("m", 100_000)))
        );
        assert_eq!(seen.header("cf-aig-event-id"), None);
    }
    let counted = |metrics: &Metrics| metrics.sum("tollgate_request_bytes_total", &[]) == 200_000.0;
    gateway
        .metrics_when("the bytes of both bodies", counted)
        .await;
    for version in ["http=HTTP/1.1", "http=HTTP/2.0"] {
        gateway.logged(version).await;
    }
}

#[tokio::test]
async fn a_frame_is_never_held_back() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&yaml(&upstream, version)).await;
        for protocol in BOTH {
            let gate = Gate::new();
            upstream.script(
                Answer::sse()
                    .wait(&gate)
                    .text("data: 1\n\n")
                    .wait(&gate)
                    .text("data: 2\n\n"),
            );
            let mut live = request(protocol).open(&gateway).await;
            gate.open();
            live.read_past("data: 1\n\n").await;
            gate.open();
            let rest = live.finish().await;
            assert_eq!(
                (rest.text().as_str(), rest.ending),
                ("data: 2\n\n", Ending::Whole)
            );
        }
    }
}

#[tokio::test]
async fn a_broken_answer_is_never_a_clean_end() {
    let moment = std::time::Duration::from_millis(50);
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&yaml(&upstream, "http: h1")).await;
    for protocol in BOTH {
        for answer in [
            Answer::json("{\"partial\":").declaring(50),
            Answer::json("{\"partial\":").chunked(),
        ] {
            upstream.script(answer.pause(moment).end(End::Close));
            let answer = request(protocol).send(&gateway).await;
            assert_eq!(
                (answer.status, answer.ending),
                (200, Ending::Cut),
                "{protocol:?}"
            );
        }
    }
    let cut = |metrics: &Metrics| {
        metrics.sum("tollgate_errors_total", &[("kind", "upstream_cut")]) >= 4.0
    };
    let metrics = gateway.metrics_when("four cut answers", cut).await;
    assert_eq!(
        metrics.sum("tollgate_requests_total", &[]),
        4.0,
        "each is counted once"
    );
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_call() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&yaml(&upstream, "http: h1")).await;
    for (number, protocol) in BOTH.into_iter().enumerate() {
        upstream.script(Reply::Silence);
        let (address, asking) = (gateway.public(), request(protocol));
        let waiting = tokio::spawn(async move { asking.try_open(address).await.is_some() });
        upstream.received(2 * number + 1).await;
        waiting.abort();
        upstream.abandoned(2 * number + 1).await;

        upstream.script(Answer::sse().text("data: 1\n\n").end(End::Hang));
        let mut live = request(protocol).open(&gateway).await;
        live.read_past("1").await;
        drop(live);
        upstream.abandoned(2 * number + 2).await;
    }
    let idle = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) == 0.0;
    gateway.metrics_when("no held bytes", idle).await;
}

#[tokio::test]
async fn failures_are_told_in_the_envelope() {
    let upstream = Upstream::h1().await;
    let closed = ports::refusing();
    let dead = format!(
        "providers: {{ aws-bedrock: {{ base_url: \"http://127.0.0.1:{}\", allow_insecure: true, {KEY} }} }}\n{SPENDING}",
        closed.number()
    );
    let silent = Gateway::start(&yaml(&upstream, "timeouts: { idle: 300ms }")).await;
    let dead = Gateway::start(&dead).await;
    for protocol in BOTH {
        upstream.script(Reply::Silence);
        for (gateway, status) in [(&silent, 504), (&dead, 502)] {
            let answer = request(protocol).send(gateway).await;
            assert_eq!(
                (answer.status, &answer.json()["internalCode"]),
                (status, &2005.into()),
                "{protocol:?}"
            );
            assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
            assert_eq!(answer.ending, Ending::Whole);
        }
    }
}

#[tokio::test]
async fn the_connection_carries_the_next_request() {
    let upstream = Upstream::h1().await;
    upstream.always(Reply::Digest);
    let gateway = Gateway::start(&yaml(&upstream, "http: h1")).await;
    let wanted = Digest::of(&body::json_of_size("m", 100_000)).json();
    let mut one = Connection::open(&gateway).await;
    let mut many = Multiplexed::open(&gateway).await;
    for _ in 0..3 {
        let answer = one.exchange(&request(Protocol::H1)).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, wanted.clone()));
        let answer = many
            .start(&request(Protocol::H2))
            .await
            .unwrap()
            .finish()
            .await;
        assert_eq!((answer.status, answer.text()), (200, wanted.clone()));
    }
}
