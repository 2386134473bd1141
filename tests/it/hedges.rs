//! Hedging: a second target is asked where the first is late, and one of the two answers.

use std::time::{Duration, Instant};

use crate::support::conf::entry;
use crate::support::metrics::Metrics;
use crate::support::wait::eventually;
use crate::support::{
    Answer, Digest, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body,
};

const PATH: &str = "/v1/default/default/compat/chat/completions";

/// The route `r` over the targets `a` and `b`.
struct Pair {
    a: Upstream,
    b: Upstream,
    gateway: Gateway,
}

impl Pair {
    async fn start(hedge: &str, gateway: &str) -> Self {
        Self::over(
            Upstream::h1().await,
            Upstream::h1().await,
            "",
            hedge,
            gateway,
        )
        .await
    }

    async fn over(a: Upstream, b: Upstream, provider: &str, hedge: &str, gateway: &str) -> Self {
        a.always(Answer::json(r#"{"from":"a"}"#));
        b.always(Answer::json(r#"{"from":"b"}"#));
        let auth = format!("auth: none{provider}");
        let yaml = format!(
            "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ {gateway} routes: {{ \
             r: {{ hedge: {{ {hedge} }}, targets: [ {{ provider: custom-a, model: ma }}, \
             {{ provider: custom-b, model: mb }} ] }} }} }} }} }} }}\n",
            entry(&a, "custom-a", "", &auth),
            entry(&b, "custom-b", "", &auth),
        );
        let gateway = Gateway::start(&yaml).await;
        Self { a, b, gateway }
    }

    async fn ask(&self) -> Response {
        chat().send(&self.gateway).await
    }

    async fn hedges(&self, result: &str) -> f64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum(
            "tollgate_hedges_total",
            &[("route", "r"), ("result", result)],
        )
    }

    /// Waits until the metrics tell of so many attempts at both.
    async fn attempts(&self, a: f64, b: f64) {
        let told = |metrics: &Metrics, provider: &str| {
            metrics.sum(
                "tollgate_upstream_attempts_total",
                &[("provider", provider)],
            )
        };
        let both =
            |metrics: &Metrics| (told(metrics, "custom-a"), told(metrics, "custom-b")) == (a, b);
        self.gateway.metrics_when("the attempts", both).await;
    }
}

fn chat() -> Request {
    let body = r#"{"model":"dynamic/r","messages":[]}"#;
    Request::post(PATH, body)
}

const ALWAYS: &str = "after: 200ms, budget: 100%";

#[tokio::test]
async fn a_late_target_is_joined_by_the_next_and_the_loser_is_cancelled() {
    for (h2, provider) in [(false, ", http: h1"), (true, ", http: h2")] {
        let upstream = || async {
            match h2 {
                true => Upstream::h2c().await,
                false => Upstream::h1().await,
            }
        };
        let pair = Pair::over(upstream().await, upstream().await, provider, ALWAYS, "").await;
        let never = Gate::new();
        pair.a
            .script(Answer::json(r#"{"from":"late"}"#).after(&never));
        let seen = Gate::new();
        pair.b.script(Answer::json(r#"{"from":"b"}"#).after(&seen));
        let address = pair.gateway.public();
        let asking =
            tokio::spawn(
                async move { chat().header("tollgate-trace", "true").send(address).await },
            );
        // Both are asked at the same time.
        let first = pair.a.received(1).await.remove(0);
        let second = pair.b.received(1).await.remove(0);
        assert!(first.text().contains(r#""ma""#) && second.text().contains(r#""mb""#));
        seen.open();
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"from":"b"}"#));
        assert_eq!(answer.header("cf-aig-step"), Some("1"));
        pair.a.abandoned(1).await;
        let line = pair.gateway.logged("hedged=second").await;
        assert!(
            line.contains("step=1") && line.contains("provider=custom-b"),
            "{line}"
        );
        pair.attempts(1.0, 1.0).await;
        assert_eq!(pair.hedges("second").await, 1.0);
        assert_eq!(
            pair.gateway
                .metrics()
                .await
                .sum("tollgate_requests_total", &[]),
            1.0
        );
    }
}

#[tokio::test]
async fn the_first_may_win_all_the_same() {
    let pair = Pair::start(ALWAYS, "").await;
    let gate = Gate::new();
    let stream = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
    pair.a.script(Answer::sse().text(stream).after(&gate));
    pair.b.script(Reply::Silence);
    let address = pair.gateway.public();
    let asking = tokio::spawn(async move { chat().send(address).await });
    pair.b.received(1).await;
    gate.open();
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, stream));
    assert_eq!(answer.header("cf-aig-step"), Some("0"));
    pair.b.abandoned(1).await;
    pair.gateway.logged("hedged=first").await;
    pair.attempts(1.0, 1.0).await;
    assert_eq!(pair.hedges("first").await, 1.0);
}

#[tokio::test]
async fn who_is_in_time_is_not_hedged() {
    let pair = Pair::start(ALWAYS, "").await;
    for _ in 0..5 {
        let answer = pair.ask().await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"from":"a"}"#));
    }
    pair.b.untouched();
    let line = pair.gateway.logged("route=r").await;
    assert!(!line.contains("hedged"), "{line}");
}

#[tokio::test]
async fn a_failure_of_one_leaves_it_to_the_other() {
    // The second fails at once: the first is waited for.
    let pair = Pair::start(ALWAYS, "").await;
    let gate = Gate::new();
    pair.a.script(Answer::json(r#"{"from":"a"}"#).after(&gate));
    pair.b.script(Answer::new(500).text("b is down"));
    let address = pair.gateway.public();
    let asking = tokio::spawn(async move { chat().send(address).await });
    pair.b.received(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    assert_eq!(asking.await.unwrap().text(), r#"{"from":"a"}"#);
    pair.attempts(1.0, 1.0).await;
    // The first fails late: the second is waited for, and nobody is asked twice.
    let pair = Pair::start(ALWAYS, "").await;
    let (one, other) = (Gate::new(), Gate::new());
    pair.a
        .script(Answer::new(503).text("a is down").after(&one));
    pair.b.script(Answer::json(r#"{"from":"b"}"#).after(&other));
    let address = pair.gateway.public();
    let asking = tokio::spawn(async move { chat().send(address).await });
    pair.b.received(1).await;
    one.open();
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.open();
    assert_eq!(asking.await.unwrap().text(), r#"{"from":"b"}"#);
    pair.attempts(1.0, 1.0).await;
    // Both fail: the client has the answer of the last, once.
    let pair = Pair::start(ALWAYS, "").await;
    let gate = Gate::new();
    pair.a
        .script(Answer::new(503).text("a is down").after(&gate));
    pair.b.script(Answer::new(500).text("b is down"));
    let address = pair.gateway.public();
    let asking = tokio::spawn(async move { chat().send(address).await });
    pair.b.received(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &*answer.text()), (503, "a is down"));
    let line = pair.gateway.logged("route=r").await;
    assert!(line.contains("custom-b/mb:server_error"), "{line}");
    // Before it is late: as without hedging.
    pair.a.script(Answer::new(500));
    assert_eq!(pair.ask().await.text(), r#"{"from":"b"}"#);
}

#[tokio::test]
async fn large_bodies_reach_both_whole() {
    let pair = Pair::start(ALWAYS, "").await;
    for (protocol, size) in [
        (Protocol::H1, 1 << 10),
        (Protocol::H2, (64 << 10) + 1),
        (Protocol::H1, 5 << 20),
    ] {
        pair.a.script(Reply::Silence);
        pair.b.script(Reply::Digest);
        let content = body::json_of_size("dynamic/r", size);
        let request = Request::post(PATH, &content);
        let answer = request.over(protocol).send(&pair.gateway).await;
        let text = String::from_utf8(content).unwrap();
        let of = |model: &str| Digest::of(text.replacen("dynamic/r", model, 1).as_bytes());
        assert_eq!(answer.text(), of("mb").json(), "{size}");
        assert_eq!(
            pair.a.requests().pop().unwrap().digest,
            Some(of("ma")),
            "{size}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_both_with_one_record() {
    let pair = Pair::start(ALWAYS, "").await;
    pair.a.script(Reply::Silence);
    pair.b.script(Reply::Silence);
    let leaving = tokio::time::timeout(Duration::from_millis(800), pair.ask()).await;
    assert!(leaving.is_err());
    pair.a.abandoned(1).await;
    pair.b.abandoned(1).await;
    pair.gateway.logged("error=client_gone").await;
    pair.attempts(1.0, 1.0).await;
    let metrics = pair.gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 1.0);
    let idle = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) == 0.0;
    pair.gateway.metrics_when("no body is held", idle).await;
}

#[tokio::test]
async fn hedges_stay_within_their_budget() {
    let pair = Pair::start("after: 50ms, budget: 20%", "").await;
    pair.a
        .always(Answer::json(r#"{"from":"a"}"#).late(Duration::from_millis(150)));
    for _ in 0..20 {
        assert_eq!(pair.ask().await.status, 200);
    }
    assert_eq!(pair.b.requests().len(), 4);
    assert_eq!(pair.hedges("over_budget").await, 16.0);
}

#[tokio::test]
async fn what_is_late_is_learned() {
    let pair = Pair::start("after: p90, budget: 100%", "").await;
    pair.a
        .always(Answer::json(r#"{"from":"a"}"#).late(Duration::from_millis(50)));
    // Nothing is known yet: a slow one is waited for.
    pair.a
        .script(Answer::json(r#"{"from":"slow"}"#).late(Duration::from_millis(400)));
    assert_eq!(pair.ask().await.text(), r#"{"from":"slow"}"#);
    for _ in 0..25 {
        assert_eq!(pair.ask().await.status, 200);
    }
    let before = pair.b.requests().len();
    pair.a.script(Reply::Silence);
    let began = Instant::now();
    assert_eq!(pair.ask().await.text(), r#"{"from":"b"}"#);
    assert!(began.elapsed() >= Duration::from_millis(40));
    let more = || (pair.b.requests().len() > before).then_some(());
    eventually("a hedge", more).await;
}

#[tokio::test]
async fn an_answer_that_is_recorded_is_asked_for_once() {
    let pair = Pair::start(ALWAYS, "cache: { ttl: 5m },").await;
    let late = Answer::json(r#"{"from":"a"}"#).late(Duration::from_millis(500));
    pair.a.script(late);
    assert_eq!(pair.ask().await.text(), r#"{"from":"a"}"#);
    pair.b.untouched();
}

#[tokio::test]
async fn who_is_left_alone_is_not_asked_as_the_second() {
    let pair = Pair::start(
        "after: 100ms, budget: 100%",
        "health: { failures: 1, open_for: 1m },",
    )
    .await;
    pair.a
        .always(Answer::json(r#"{"from":"a"}"#).late(Duration::from_millis(400)));
    pair.b.always(Answer::new(503));
    for _ in 0..4 {
        assert_eq!(pair.ask().await.text(), r#"{"from":"a"}"#);
    }
    pair.b.received(1).await;
}
