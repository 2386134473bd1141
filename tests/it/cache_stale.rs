//! Answers past their time: given while a new one is fetched, or when the provider fails.

use std::time::Duration;

use crate::cache::{BODY, chat, status, store, stored, with_cache};
use crate::observability::errors;
use crate::support::{Answer, Gate, Gateway, Protocol, Reply, Request, Response, Upstream};

/// The shortest time for which an answer may be kept.
const MINUTE: Duration = Duration::from_secs(60);

async fn gateway(upstream: &Upstream, windows: &str, beside: &str) -> Gateway {
    Gateway::start(&with_cache(upstream, &format!("ttl: 60s{windows}"), beside)).await
}

fn answer(text: &str) -> Answer {
    Answer::json(&format!("{{\"text\":\"{text}\"}}"))
}

fn over(protocol: Protocol) -> Request {
    chat(&format!("{{\"v\":\"{protocol:?}\"}}")).over(protocol)
}

/// A universal call, whose step has headers of its own.
fn of_a_step() -> Request {
    let steps = serde_json::json!([{ "provider": "openai", "endpoint": "chat/completions",
        "headers": { "authorization": "Bearer step" }, "query": { "v": "step" } }]);
    Request::post("/v1/default/default", steps.to_string()).header("authorization", "Bearer call")
}

/// One test, so that there is one minute to wait.
#[tokio::test]
async fn an_answer_past_its_time_is_given_only_as_the_gateway_says() {
    let upstreams = [
        Upstream::h1().await,
        Upstream::h1().await,
        Upstream::h1().await,
    ];
    let [plain, revalidating, forgiving] = &upstreams;
    let gateways = [
        gateway(plain, "", "").await,
        // One place: it is for the new answer, and giving the old one needs none.
        gateway(
            revalidating,
            ", stale_while_revalidate: 10m",
            ", in_flight: { max: 1, queue: 0 }",
        )
        .await,
        gateway(forgiving, ", stale_if_error: 10m", "").await,
    ];
    store(&gateways[1], revalidating, &of_a_step(), answer("old")).await;
    for (upstream, gateway) in upstreams.iter().zip(&gateways) {
        for request in [chat(BODY), over(Protocol::H1), over(Protocol::H2)] {
            store(gateway, upstream, &request, answer("old")).await;
            assert_eq!(status(&request.send(gateway).await), "HIT");
        }
    }
    tokio::time::sleep(MINUTE + Duration::from_secs(1)).await;
    is_gone(&gateways[0], plain).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        is_given_while_a_new_one_is_fetched(&gateways[1], revalidating, &over(protocol)).await;
    }
    is_given_while_a_new_one_is_fetched(&gateways[1], revalidating, &of_a_step()).await;
    gateways[1].logged("cache=refresh").await;
    stands_in_for_a_provider_that_fails(&gateways[2], forgiving).await;
}

async fn is_gone(gateway: &Gateway, upstream: &Upstream) {
    upstream.script(answer("new"));
    let second = chat(BODY).send(gateway).await;
    assert_eq!(status(&second), "MISS");
    assert!(second.text().contains("new"));
}

async fn is_given_while_a_new_one_is_fetched(
    gateway: &Gateway,
    upstream: &Upstream,
    request: &Request,
) {
    let before = upstream.requests().len();
    let gate = Gate::new();
    upstream.script(answer("new").after(&gate));
    // Several ask; one call is made, and nobody waits for it.
    for _ in 0..5 {
        let stale = request.send(gateway).await;
        assert_eq!(status(&stale), "HIT");
        assert!(stale.text().contains("old"), "{}", stale.text());
        assert!(stale.header("age").unwrap().parse::<u64>().unwrap() >= 60);
    }
    gate.open();
    upstream.reached(before + 1).await;
    stored(gateway).await;
    let next = request.send(gateway).await;
    assert_eq!(status(&next), "HIT");
    assert!(next.text().contains("new"), "{}", next.text());
    let seen = upstream.requests();
    assert_eq!(seen.len(), before + 1);
    let refresh = &seen[before];
    let first = seen
        .iter()
        .find(|first| first.body == refresh.body)
        .unwrap();
    assert_eq!(first.target, refresh.target);
    assert_eq!(
        first.header("authorization"),
        refresh.header("authorization")
    );
}

async fn stands_in_for_a_provider_that_fails(gateway: &Gateway, upstream: &Upstream) {
    let failures: [(Reply, &str); 5] = [
        (Reply::Close, "error=upstream_unreachable detail="),
        (Reply::Reset, "error=upstream_unreachable detail="),
        (
            Answer::new(500).text("no").into(),
            "error=provider_5xx provider_status=500",
        ),
        (
            Answer::new(503).into(),
            "error=provider_5xx provider_status=503",
        ),
        (
            Answer::new(429).into(),
            "error=provider_429 provider_status=429",
        ),
    ];
    for (failure, told) in failures {
        upstream.always(failure);
        let stale = chat(BODY).send(gateway).await;
        assert_eq!((stale.status, status(&stale)), (200, "HIT"));
        assert!(stale.text().contains("old"));
        let line = line_of(gateway, &stale).await;
        for told in ["status=200", "cache=stale", "error_source=provider", told] {
            assert!(line.contains(&format!(" {told}")), "{told} in {line}");
        }
    }
    let metrics = gateway.metrics().await;
    for (kind, count) in [
        ("upstream_unreachable", 2.0),
        ("provider_5xx", 2.0),
        ("provider_429", 1.0),
    ] {
        assert_eq!(errors(&metrics, "provider", kind), count, "{kind}");
    }
    // An error that blames the request is told.
    upstream.always(Answer::new(400).text("no"));
    assert_eq!(chat(BODY).send(gateway).await.status, 400);
    upstream.always(answer("new"));
    let new = chat(BODY).send(gateway).await;
    assert_eq!(status(&new), "MISS");
    assert!(new.text().contains("new"));
}

/// The access log's line of an answered request.
async fn line_of(gateway: &Gateway, answer: &Response) -> String {
    let start = format!("id={} ", answer.header("cf-aig-log-id").unwrap());
    let log = gateway.logged(&start).await;
    log.lines()
        .find(|line| line.contains(&start))
        .unwrap()
        .to_owned()
}
