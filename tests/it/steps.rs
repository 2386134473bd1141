//! The universal endpoint: steps that are asked in order until one succeeds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::conf::entry;
use crate::support::metrics::Metrics;
use crate::support::upstream::{End, Received};
use crate::support::{
    Answer, Digest, Ending, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body,
    within,
};

const UNIVERSAL: &str = "/v1/default/default";

struct Three {
    openai: Upstream,
    anthropic: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

impl Three {
    async fn start(says: &str) -> Self {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        let anthropic = Upstream::h2c().await;
        for provider in [&openai, &anthropic, &groq] {
            provider.always(Answer::json(r#"{"ok":true}"#));
        }
        let yaml = format!(
            "providers:\n{}{}{}accounts: {{ default: {{ gateways: {{ default: {{ {says} }} }} }} }}\n",
            entry(&openai, "openai", "/v1", ""),
            entry(&anthropic, "anthropic", "", "http: h2"),
            entry(
                &groq,
                "groq",
                "/openai/v1",
                "keys: [ { alias: default, value: sk-groq } ]"
            ),
        );
        Self {
            openai,
            anthropic,
            groq,
            gateway: Gateway::start(&yaml).await,
        }
    }

    async fn ask(&self, steps: &Value) -> Response {
        universal(steps).send(&self.gateway).await
    }
}

fn universal(steps: &Value) -> Request {
    Request::post(UNIVERSAL, steps.to_string())
}

fn step(provider: &str, endpoint: &str, headers: Value, query: Value) -> Value {
    json!({ "provider": provider, "endpoint": endpoint, "headers": headers, "query": query })
}

fn openai() -> Value {
    let headers = json!({ "Authorization": "Bearer sk-openai", "x-step": "openai" });
    step(
        "openai",
        "chat/completions?a=%2F",
        headers,
        json!({ "model": "gpt-5-mini" }),
    )
}

fn anthropic() -> Value {
    let headers = json!({ "x-api-key": "sk-ant", "anthropic-version": "2023-06-01" });
    step(
        "anthropic",
        "v1/messages",
        headers,
        json!({ "model": "claude", "max_tokens": 1 }),
    )
}

fn groq() -> Value {
    step(
        "groq",
        "chat/completions",
        json!({}),
        json!({ "model": "llama" }),
    )
}

fn keys(received: &Received) -> Vec<&str> {
    ["authorization", "x-api-key"]
        .iter()
        .flat_map(|name| received.all(name))
        .collect()
}

#[tokio::test]
async fn steps_are_asked_in_order_each_with_its_own_head_and_body() {
    let three = Three::start("authentication: { anyone_may_spend_stored_keys: true }").await;
    // Refused for what is in its body: the next one has another.
    three.openai.script(Answer::new(400).text("bad"));
    three.anthropic.script(Reply::Reset);
    let request = universal(&json!([openai(), anthropic(), groq()]))
        .header("cf-aig-authorization", "Bearer gateway")
        .header("authorization", "Bearer outer")
        .header("cf-aig-event-id", "e-1")
        .header("tollgate-trace", "true");
    let answer = request.send(&three.gateway).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"ok":true}"#));
    for (name, value) in [
        ("cf-aig-step", "2"),
        ("cf-aig-provider", "groq"),
        ("cf-aig-model", "llama"),
        ("cf-aig-event-id", "e-1"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(
        answer
            .header("tollgate-trace")
            .unwrap()
            .starts_with("request:")
    );
    let first = three.openai.only().await;
    assert_eq!(first.target, "/v1/chat/completions?a=%2F");
    assert_eq!(first.text(), r#"{"model":"gpt-5-mini"}"#);
    assert_eq!(
        (keys(&first), first.header("x-step")),
        (vec!["Bearer sk-openai"], Some("openai"))
    );
    let second = three.anthropic.only().await;
    assert_eq!(
        (second.method.as_str(), &*second.target),
        ("POST", "/v1/messages")
    );
    assert_eq!(
        (keys(&second), second.header("x-step")),
        (vec!["sk-ant"], None)
    );
    // A step without a key spends the stored one, as any request does.
    let third = three.groq.only().await;
    assert_eq!(keys(&third), ["Bearer sk-groq"]);
    assert_eq!(third.header("content-type"), Some("application/json"));
    assert_eq!(third.text(), r#"{"model":"llama"}"#);
    for received in [&first, &second, &third] {
        let names: Vec<_> = received.headers.iter().map(|(name, _)| name).collect();
        assert!(
            names.iter().all(|name| !name.starts_with("cf-aig-")),
            "{names:?}"
        );
    }
    // One request, one record.
    let line = three.gateway.logged("status=").await;
    for fact in [
        "provider=groq",
        "step=2",
        "attempts=3",
        "path=/v1/default/default ",
        "tried=request:",
    ] {
        assert!(line.contains(fact), "{fact}: {line}");
    }
    let metrics = three.gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 1.0);
    for provider in ["openai", "anthropic", "groq"] {
        let attempts = metrics.sum(
            "tollgate_upstream_attempts_total",
            &[("provider", provider)],
        );
        assert_eq!(attempts, 1.0, "{provider}");
    }
}

#[tokio::test]
async fn the_last_steps_answer_is_given_whatever_it_is() {
    let three = Three::start("").await;
    for status in [404, 429, 500] {
        three.openai.script(Answer::new(500).text("first"));
        three
            .anthropic
            .script(Answer::new(status).header("x-own", "kept").text("last"));
        let answer = three.ask(&json!([openai(), anthropic()])).await;
        assert_eq!((answer.status, &*answer.text()), (status, "last"));
        assert_eq!(answer.header("x-own"), Some("kept"));
        assert_eq!(answer.header("cf-aig-step"), Some("1"));
        assert_eq!(answer.header("tollgate-error-source"), Some("provider"));
    }
    three.anthropic.script(Reply::Reset);
    let answer = three.ask(&json!([anthropic()])).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (502, Some("0"))
    );
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    // What cannot be asked is passed over too.
    let nobody = step("nobody", "x", json!({}), json!({}));
    let answer = three.ask(&json!([nobody, openai()])).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    let answer = three.ask(&nobody).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("nobody"), "{}", answer.text());
}

#[tokio::test]
async fn a_single_object_is_a_single_step_and_others_are_refused() {
    let three = Three::start("").await;
    assert_eq!(three.ask(&openai()).await.status, 200);
    assert_eq!(
        three.openai.only().await.text(),
        r#"{"model":"gpt-5-mini"}"#
    );
    for (body, says) in [
        ("[]", "an array of at least one step"),
        ("{", "line 1"),
        (r#"[{"endpoint":"x"}]"#, "[0].provider"),
        (
            r#"[{"provider":"openai","endpoint":"a b"}]"#,
            "[0].endpoint",
        ),
    ] {
        let answer = Request::post(UNIVERSAL, body).send(&three.gateway).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(says), "{body}: {}", answer.text());
    }
    let answer = Request::get(UNIVERSAL).send(&three.gateway).await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().contains("array of steps"),
        "{}",
        answer.text()
    );
    let slash = Request::post("/v1/default/default/", openai().to_string());
    assert_eq!(slash.send(&three.gateway).await.status, 200);
    let other = Request::post("/v1/default/other", openai().to_string());
    assert_eq!(
        other.send(&three.gateway).await.json()["error"][0]["code"],
        2001
    );
}

#[tokio::test]
async fn streams_and_large_bodies_pass_whole_over_both_versions() {
    let three = Three::start("").await;
    for (protocol, size) in [
        (Protocol::H1, 1 << 10),
        (Protocol::H2, (64 << 10) + 1),
        (Protocol::H1, 5 << 20),
        (Protocol::H2, 5 << 20),
    ] {
        let text = String::from_utf8(body::json_of_size("gpt-5-mini", size)).unwrap();
        let one = |provider: &str| {
            format!(r#"{{"provider":"{provider}","endpoint":"chat/completions","query":{text}}}"#)
        };
        let steps = format!("[{}, {}]", one("groq"), one("openai"));
        let events = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        three.groq.script(Answer::new(503).text("down"));
        three.openai.script(Answer::sse().text(events));
        let answer = Request::post(UNIVERSAL, &steps)
            .over(protocol)
            .send(&three.gateway)
            .await;
        assert_eq!((answer.status, &*answer.text()), (200, events), "{size}");
        for provider in [&three.groq, &three.openai] {
            let last = provider.requests().pop().unwrap();
            assert_eq!(last.digest, Some(Digest::of(text.as_bytes())), "{size}");
        }
    }
    // A stream that breaks is no step that failed: its answer had begun.
    let broken = Answer::sse()
        .text("data: {\"choices\":[]}\n\n")
        .end(End::Reset);
    three.openai.script(broken);
    let answer = three.ask(&json!([openai(), groq()])).await;
    assert!(answer.text().contains("error"), "{}", answer.text());
    assert_eq!(answer.ending, Ending::Whole);
}

#[tokio::test]
async fn what_a_step_says_goes_before_the_request_and_that_before_the_gateway() {
    let three = Three::start("retry: { max_attempts: 3, delay: 0s }, cache: { ttl: 5m }").await;
    three.openai.always(Answer::new(503));
    three.groq.always(Answer::new(503));
    three.anthropic.always(Answer::new(503));
    let tries = json!({ "cf-aig-max-attempts": 1 });
    let steps = json!([
        step("openai", "chat/completions", tries, json!({})),
        step("groq", "chat/completions", json!({}), json!({})),
    ]);
    let request = universal(&steps).header("cf-aig-max-attempts", "2");
    assert_eq!(request.send(&three.gateway).await.status, 503);
    three.openai.received(1).await;
    three.groq.received(2).await;
    assert_eq!(three.ask(&json!([anthropic()])).await.status, 503);
    three.anthropic.received(3).await;
}

#[tokio::test]
async fn each_step_meets_the_cache_on_its_own_terms() {
    let three = Three::start("cache: { ttl: 5m }").await;
    let chat = |id: &str| {
        Answer::json(&format!(
            r#"{{"id":"{id}","object":"chat.completion","choices":[]}}"#
        ))
    };
    three.openai.always(Answer::new(500));
    three.groq.script(chat("1"));
    let fresh = json!({ "cf-aig-skip-cache": true });
    let steps = json!([openai(), groq()]);
    let first = three.ask(&steps).await;
    assert_eq!(first.header("cf-aig-cache-status"), Some("MISS"));
    crate::cache::stored(&three.gateway).await;
    // The first step is asked again, the second has its answer.
    let second = three.ask(&steps).await;
    assert_eq!(second.header("cf-aig-cache-status"), Some("HIT"));
    assert_eq!(
        (second.header("cf-aig-step"), second.text()),
        (Some("1"), first.text())
    );
    three.openai.received(2).await;
    three.groq.script(chat("2"));
    let skipping = step(
        "groq",
        "chat/completions",
        fresh,
        json!({ "model": "llama" }),
    );
    let third = three.ask(&json!([openai(), skipping])).await;
    assert!(third.text().contains(r#""id":"2""#));
    // The same call on its own path is the same entry.
    let native = Request::post(
        &format!("{UNIVERSAL}/groq/chat/completions"),
        r#"{"model":"llama"}"#,
    );
    let native = native.send(&three.gateway).await;
    assert_eq!(
        (native.header("cf-aig-cache-status"), native.text()),
        (Some("HIT"), first.text())
    );
}

#[tokio::test]
async fn a_step_that_all_who_share_it_give_up_at_its_head_leads_to_the_next() {
    let three = Three::start("cache: { ttl: 5m }").await;
    let (head, rest) = (Gate::new(), Gate::new());
    // The error is shared by those who wait, and its body does not end.
    let refused = Answer::new(404)
        .chunked()
        .text("x")
        .wait(&rest)
        .after(&head);
    three.openai.script(refused);
    let request = universal(&json!([openai(), groq()]));
    let address = three.gateway.public();
    let send = |request: Request| tokio::spawn(async move { request.send(address).await });
    let asked = [send(request.clone()), send(request.clone())];
    three.openai.reached(1).await;
    // The other one joins.
    tokio::time::sleep(Duration::from_millis(500)).await;
    head.open();
    for asked in asked {
        let answer = within("the second step's answer", asked).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (200, Some("1")),
            "{}",
            answer.text()
        );
    }
    let metrics = three.gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 2.0);
    assert_eq!(metrics.sum("tollgate_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn a_shared_answer_that_breaks_off_is_cut_for_all() {
    let three = Three::start("cache: { ttl: 5m }").await;
    let (head, rest) = (Gate::new(), Gate::new());
    let half = Answer::json("[1,").chunked().wait(&rest).end(End::Reset);
    three.openai.script(half.after(&head));
    let address = three.gateway.public();
    let send = || tokio::spawn(async move { universal(&openai()).send(address).await });
    let asked = [send(), send()];
    three.openai.reached(1).await;
    // The other one joins.
    tokio::time::sleep(Duration::from_millis(500)).await;
    head.open();
    tokio::time::sleep(Duration::from_millis(100)).await;
    rest.open();
    for asked in asked {
        let answer = within("half an answer", asked).await.unwrap();
        assert_eq!(
            (answer.status, &*answer.text(), answer.ending),
            (200, "[1,", Ending::Cut)
        );
    }
    let cut = [("kind", "upstream_cut")];
    let all = |metrics: &Metrics| metrics.sum("tollgate_errors_total", &cut) == 2.0;
    three.gateway.metrics_when("both records", all).await;
    let log = three.gateway.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_client_that_leaves_between_or_during_steps_ends_them_with_one_record() {
    let three = Three::start("").await;
    three.openai.script(Answer::new(500).text("down"));
    let gate = Gate::new();
    three.groq.script(Answer::json("{}").after(&gate));
    let request = universal(&json!([openai(), groq()]));
    let address = three.gateway.public();
    let leaving = tokio::time::timeout(Duration::from_millis(700), request.send(address));
    assert!(leaving.await.is_err());
    three.groq.abandoned(1).await;
    let line = three.gateway.logged("error=client_gone").await;
    assert!(line.contains("tried=server_error:"), "{line}");
    let metrics = three.gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 1.0);
    let idle = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) == 0.0;
    three.gateway.metrics_when("no body is held", idle).await;
}

#[tokio::test]
async fn a_step_may_be_a_route() {
    let three = Three::start(
        "authentication: { anyone_may_spend_stored_keys: true }, \
         routes: { r: { targets: [ { provider: groq, model: a }, { provider: groq, model: b } ] } }",
    )
    .await;
    three.groq.script(Answer::new(500));
    let compat = step(
        "compat",
        "chat/completions",
        json!({}),
        json!({ "model": "dynamic/r" }),
    );
    let answer = three.ask(&json!([compat])).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("0"))
    );
    assert_eq!(answer.header("cf-aig-model"), Some("b"));
    three.groq.received(2).await;
    three.openai.untouched();
}

#[tokio::test]
async fn a_kept_connection_that_has_closed_is_replaced_after_any_number_of_steps() {
    for failing in [0, 2, 4] {
        let three = Three::start("").await;
        three.openai.always(Answer::new(500));
        let mut steps = vec![openai(); failing];
        steps.push(groq());
        // Which of the gateway's threads has kept one is chance: a new one is not replaced.
        let mut replaced = false;
        for _ in 0..30 {
            assert_eq!(three.ask(&json!([groq()])).await.status, 200);
            tokio::time::sleep(Duration::from_millis(30)).await;
            three.groq.script(Reply::Close);
            replaced = three.ask(&json!(steps)).await.status == 200;
            if replaced {
                break;
            }
        }
        assert!(replaced, "{failing}: {}", three.gateway.log());
    }
}

#[tokio::test]
async fn a_route_in_a_later_step_counts_by_its_own_target() {
    let three = Three::start(
        "authentication: { anyone_may_spend_stored_keys: true }, \
         routes: { r: { targets: [ { provider: groq, model: a } ] } }",
    )
    .await;
    three.openai.script(Answer::new(500));
    let compat = step(
        "compat",
        "chat/completions",
        json!({}),
        json!({ "model": "dynamic/r" }),
    );
    let answer = three.ask(&json!([openai(), compat])).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    let first = [("route", "r"), ("step", "0")];
    let counted = |metrics: &crate::support::metrics::Metrics| {
        metrics.sum("tollgate_route_requests_total", &first) == 1.0
    };
    three
        .gateway
        .metrics_when("the first target", counted)
        .await;
}
