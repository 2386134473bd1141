//! What is tried again, how often, after which wait; and how long a provider may take.

use std::time::{Duration, Instant};

use crate::support::conf::{CHAT, entry, openai, path};
use crate::support::upstream::End;
use crate::support::{
    Answer, Connection, Digest, Ending, Gate, Gateway, Protocol, Reply, Request, Upstream, body,
    ports,
};

/// Causes that another try may mend, as a provider really shows them.
const PASSING: [u16; 9] = [408, 409, 425, 429, 500, 502, 503, 504, 529];
/// Those for which the request or the key is to blame.
const LASTING: [u16; 8] = [400, 401, 402, 403, 404, 413, 415, 422];

/// The openai provider at `upstream`, and what its gateway says.
fn yaml(upstream: &Upstream, provider: &str, gateway: &str) -> String {
    format!(
        "providers:\n{}accounts: {{ default: {{ gateways: {{ default: {{ {gateway} }} }} }} }}\n",
        entry(upstream, "openai", "/v1", provider)
    )
}

/// So many tries, one right after the other.
fn tries(count: u32, body: impl AsRef<[u8]>) -> Request {
    Request::post(CHAT, body)
        .header("content-type", "application/json")
        .header("cf-aig-max-attempts", &count.to_string())
        .header("cf-aig-retry-delay", "0")
}

fn three_tries(body: impl AsRef<[u8]>) -> Request {
    tries(3, body)
}

/// Both kinds of upstream, and what a provider's entry says of each.
async fn upstreams() -> [(Upstream, &'static str); 2] {
    [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ]
}

#[tokio::test]
async fn a_passing_fault_is_tried_again_with_the_whole_body() {
    for (upstream, version) in upstreams().await {
        let gateway = Gateway::start(&yaml(&upstream, version, "")).await;
        let statuses = PASSING.map(|status| Reply::from(Answer::new(status).text("{}")));
        let faults = statuses.into_iter().chain([Reply::Close, Reply::Reset]);
        let mut seen = 0;
        for (number, fault) in faults.enumerate() {
            let size = [1 << 10, (64 << 10) + 1, 5 << 20][number % 3];
            let content = body::json_of_size("gpt-5-mini", size);
            upstream.script(fault.clone());
            upstream.script(fault);
            upstream.script(Reply::Digest);
            let protocol = [Protocol::H1, Protocol::H2][number % 2];
            let answer = three_tries(&content).over(protocol).send(&gateway).await;
            assert_eq!(answer.status, 200, "{number} {version}: {}", answer.text());
            assert_eq!(answer.text(), Digest::of(&content).json());
            assert_eq!(answer.header("cf-aig-model"), Some("gpt-5-mini"));
            seen += 3;
            let requests = upstream.received(seen).await;
            for request in &requests[seen - 3..] {
                let digest = request.digest.as_ref();
                assert_eq!(digest, Some(&Digest::of(&content)), "{number} {version}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_request_or_the_key_is_to_blame_for_is_given_at_once() {
    for (upstream, version) in upstreams().await {
        let gateway = Gateway::start(&yaml(&upstream, version, "")).await;
        for (number, status) in LASTING.into_iter().enumerate() {
            upstream.script(Answer::new(status).header("x-own", "kept").text("verbatim"));
            let answer = three_tries("{}").send(&gateway).await;
            assert_eq!((answer.status, &*answer.text()), (status, "verbatim"));
            assert_eq!(answer.header("x-own"), Some("kept"));
            assert_eq!(answer.header("tollgate-error-source"), Some("provider"));
            upstream.received(number + 1).await;
        }
    }
}

#[tokio::test]
async fn the_last_answer_is_given_as_it_is_and_the_record_tells_of_all() {
    for (upstream, version) in upstreams().await {
        let retry = "retry: { max_attempts: 3, delay: 1ms }";
        let gateway = Gateway::start(&yaml(&upstream, version, retry)).await;
        upstream.script(Answer::new(500).text("first"));
        upstream.script(Answer::new(429).text("second"));
        upstream.script(Answer::new(503).header("x-own", "kept").text("third"));
        let request = Request::post(CHAT, "{}").header("content-type", "application/json");
        let answer = request.send(&gateway).await;
        assert_eq!((answer.status, &*answer.text()), (503, "third"));
        assert_eq!(answer.header("x-own"), Some("kept"));
        upstream.received(3).await;
        let line = gateway.logged("tried=").await;
        let tried = line.split("tried=").nth(1).unwrap_or_default();
        let causes: Vec<_> = tried
            .split([' ', ':', ','])
            .filter(|word| word.starts_with(|letter: char| letter.is_ascii_lowercase()))
            .take(3)
            .collect();
        assert_eq!(
            causes,
            ["server_error", "rate_limited", "overloaded"],
            "{line}"
        );
        assert!(line.contains("attempts=3"), "{line}");
        let metrics = gateway.metrics().await;
        let failed = |cause: &str| {
            metrics.sum(
                "tollgate_upstream_attempts_failed_total",
                &[("cause", cause)],
            )
        };
        let counted = ["server_error", "rate_limited", "overloaded"].map(failed);
        assert_eq!(counted, [1.0; 3]);
        assert_eq!(metrics.sum("tollgate_upstream_attempts_total", &[]), 3.0);
        assert_eq!(metrics.sum("tollgate_requests_total", &[]), 1.0);
    }
}

#[tokio::test]
async fn without_a_word_of_it_nothing_is_tried_again() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    // On a new connection: one that was closed while it was idle is another matter.
    upstream.script(Reply::Reset);
    assert_eq!(Request::post(CHAT, "{}").send(&gateway).await.status, 502);
    upstream.script(Answer::new(503).text("once"));
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert_eq!((answer.status, &*answer.text()), (503, "once"));
    upstream.received(2).await;
    // The request's word goes before its gateway's.
    let retrying = Gateway::start(&yaml(&upstream, "", "retry: { max_attempts: 5 }")).await;
    upstream.script(Answer::new(503).text("once"));
    assert_eq!(tries(1, "{}").send(&retrying).await.status, 503);
    upstream.received(3).await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_tried_as_often_as_is_said() {
    let port = ports::refusing();
    let yaml = format!(
        "providers: {{ openai: {{ base_url: \"http://127.0.0.1:{}/v1\", allow_insecure: true }} }}\n",
        port.number()
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(three_tries("{}").send(&gateway).await.status, 502);
    let line = gateway.logged("tried=").await;
    assert_eq!(line.matches("connect:").count(), 3, "{line}");
}

#[tokio::test]
async fn nothing_is_tried_again_once_an_answer_has_begun() {
    for (upstream, version) in upstreams().await {
        let gateway = Gateway::start(&yaml(&upstream, version, "")).await;
        upstream.script(
            Answer::sse()
                .text("data: {\"choices\":[]}\n\n")
                .end(End::Reset),
        );
        let answer = three_tries(r#"{"stream":true}"#).send(&gateway).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("error"), "{}", answer.text());
        upstream.received(1).await;
    }
}

#[tokio::test]
async fn a_provider_is_left_alone_for_as_long_as_it_asks() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(
        Answer::new(429)
            .header("retry-after-ms", "700")
            .text("wait"),
    );
    upstream.script(Answer::json("{}"));
    let began = Instant::now();
    assert_eq!(three_tries("{}").send(&gateway).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(700));
    // Longer than anybody waits: the client is told instead.
    upstream.script(Answer::new(429).header("retry-after", "3600").text("long"));
    let answer = three_tries("{}").send(&gateway).await;
    assert_eq!((answer.status, &*answer.text()), (429, "long"));
    assert_eq!(answer.header("retry-after"), Some("3600"));
    upstream.received(3).await;
    // Longer than is left.
    let gateway = Gateway::start(&yaml(&upstream, "", "timeouts: { total: 2s }")).await;
    upstream.script(Answer::new(503).header("retry-after", "2").text("late"));
    assert_eq!(three_tries("{}").send(&gateway).await.text(), "late");
    upstream.received(4).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_wait_ends_it() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(Answer::new(503).header("retry-after", "1").text("{}"));
    let asking = three_tries("{}");
    let address = gateway.public();
    let leaving = tokio::time::timeout(Duration::from_millis(500), asking.send(address));
    assert!(leaving.await.is_err());
    let line = gateway.logged("error=client_gone").await;
    assert!(line.contains("overloaded:"), "{line}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    upstream.received(1).await;
}

#[tokio::test]
async fn the_first_byte_and_the_silence_after_it_are_bounded_apart() {
    for (upstream, version) in upstreams().await {
        // Late, then in time but with long pauses within it.
        let says = "timeouts: { first_byte: 400ms, idle: 10s }";
        let gateway = Gateway::start(&yaml(&upstream, version, says)).await;
        upstream.script(Reply::Silence);
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!(answer.status, 504, "{version}: {}", answer.text());
        let paused = Answer::sse()
            .text("data: 1\n\n")
            .pause(Duration::from_millis(900))
            .text("data: [DONE]\n\n");
        upstream.script(paused);
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!(answer.text(), "data: 1\n\ndata: [DONE]\n\n", "{version}");
        // In time after a long wait, then silent.
        let says = "timeouts: { first_byte: 10s, idle: 400ms }";
        let gateway = Gateway::start(&yaml(&upstream, version, says)).await;
        let stalled = Answer::sse()
            .text("data: {\"choices\":[]}\n\n")
            .end(End::Hang);
        upstream.script(stalled);
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!((answer.status, answer.ending), (200, Ending::Whole));
        assert!(
            answer.text().contains("stopped sending"),
            "{version}: {}",
            answer.text()
        );
        gateway.logged("error=upstream_timeout").await;
    }
}

#[tokio::test]
async fn the_whole_of_a_request_is_bounded() {
    for (upstream, version) in upstreams().await {
        let says = "timeouts: { total: 600ms }, retry: { max_attempts: 5, delay: 0ms }";
        let gateway = Gateway::start(&yaml(&upstream, version, says)).await;
        let began = Instant::now();
        upstream.script(Reply::Silence);
        let json = Request::post(CHAT, "{}").header("content-type", "application/json");
        assert_eq!(json.send(&gateway).await.status, 504);
        assert!(began.elapsed() >= Duration::from_millis(600));
        upstream.received(1).await;
        let dripping = (0..20).fold(Answer::sse(), |answer, _| {
            answer.text(": drip\n\n").pause(Duration::from_millis(100))
        });
        upstream.script(dripping);
        let answer = json.send(&gateway).await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.text().contains("stopped sending"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_request_may_ask_for_a_sooner_first_byte_but_the_last_try_has_time() {
    for (upstream, version) in upstreams().await {
        let gateway = Gateway::start(&yaml(&upstream, version, "")).await;
        upstream.script(Reply::Silence);
        upstream.script(Reply::Silence);
        let gate = Gate::new();
        upstream.script(Answer::json("{}").after(&gate));
        let asking = three_tries("{}").header("cf-aig-request-timeout", "200");
        let address = gateway.public();
        let answer = tokio::spawn(async move { asking.send(address).await });
        upstream.reached(3).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.open();
        let answer = answer.await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(answer.status, 200, "{version}: {}", answer.text());
        // One try only: then the time holds, or it would mean nothing.
        upstream.script(Reply::Silence);
        let once = Request::post(CHAT, "{}").header("cf-aig-request-timeout", "200");
        assert_eq!(once.send(&gateway).await.status, 504, "{version}");
    }
}

#[tokio::test]
async fn an_answer_that_took_two_tries_is_kept_and_shared() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&yaml(&upstream, "", "cache: {}")).await;
    upstream.script(Answer::new(503).text("{}"));
    let answer = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
    upstream.script(Answer::json(answer));
    let ask = three_tries(r#"{"model":"m","messages":[]}"#);
    let first = ask.send(&gateway).await;
    assert_eq!(
        (first.status, first.header("cf-aig-cache-status")),
        (200, Some("MISS"))
    );
    // Stored already, or still in flight: nobody asks the provider again.
    let again = ask.send(&gateway).await;
    assert_eq!(
        (again.text().as_str(), again.header("cf-aig-cache-status")),
        (answer, Some("HIT"))
    );
    upstream.received(2).await;
}

#[tokio::test]
async fn an_answer_that_only_its_connection_ends_does_not_look_whole_when_it_is_overdue() {
    for says in [
        "timeouts: { idle: 400ms }",
        "timeouts: { first_byte: 10s, idle: 400ms }",
        "timeouts: { total: 400ms }",
    ] {
        let upstream = Upstream::h1().await;
        let gateway = Gateway::start(&yaml(&upstream, "", says)).await;
        let half = Answer::json("").text("{\"half\":").until_close();
        upstream.script(half.end(End::Hang));
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!((answer.status, answer.ending), (200, Ending::Cut), "{says}");
        gateway.logged("error=upstream_timeout").await;
    }
}

#[tokio::test]
async fn what_ended_one_try_does_not_explain_the_next() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(Reply::Silence);
    upstream.script(Reply::Reset);
    let asking = tries(2, "{}").header("cf-aig-request-timeout", "200");
    assert_eq!(asking.send(&gateway).await.status, 502);
    let line = gateway.logged("tried=timeout:").await;
    assert!(line.contains(",reset:"), "{line}");
}

#[tokio::test]
async fn a_slow_upload_is_no_late_first_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upstream = Upstream::h1().await;
    let says = "timeouts: { first_byte: 400ms }";
    let gateway = Gateway::start(&yaml(&upstream, "", says)).await;
    upstream.script(Reply::Digest);
    let mut call = tokio::net::TcpStream::connect(gateway.public())
        .await
        .expect("the gateway");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: 2\r\n\r\na"
    );
    call.write_all(head.as_bytes()).await.expect("a head");
    tokio::time::sleep(Duration::from_secs(1)).await;
    call.write_all(b"b").await.expect("the rest");
    let mut answer = vec![0; 4096];
    let length = call.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_request_without_a_body_waits_no_longer_for_its_first_byte() {
    for (upstream, version) in upstreams().await {
        let says = "timeouts: { first_byte: 400ms, idle: 60s }";
        let gateway = Gateway::start(&yaml(&upstream, version, says)).await;
        upstream.script(Reply::Silence);
        let models = path("openai", "models");
        let answer = Request::get(&models).send(&gateway).await;
        assert_eq!(answer.status, 504, "{version}");
    }
}

#[tokio::test]
async fn a_recorded_call_whose_only_client_leaves_between_tries_ends() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&yaml(&upstream, "", "cache: {}")).await;
    upstream.script(Answer::new(503).header("retry-after", "1").text("{}"));
    let asking = three_tries(r#"{"model":"m","messages":[]}"#);
    let address = gateway.public();
    let leaving = tokio::time::timeout(Duration::from_millis(500), asking.send(address));
    assert!(leaving.await.is_err());
    gateway.logged("error=client_gone").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    upstream.received(1).await;
}

#[tokio::test]
async fn no_attempt_counts_for_a_request_that_took_all_the_time_to_arrive() {
    let upstream = Upstream::h1().await;
    let says = "timeouts: { total: 400ms }, retry: { max_attempts: 2 }";
    let gateway = Gateway::start(&yaml(&upstream, "", says)).await;
    let mut connection = Connection::open(&gateway).await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    );
    connection.write(head + "{").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    connection.write("}").await;
    assert_eq!(connection.read().await.expect("an answer").status, 504);
    let line = gateway.logged("error=upstream_timeout").await;
    assert!(line.contains(" attempts=0 "), "{line}");
    upstream.untouched();
}
