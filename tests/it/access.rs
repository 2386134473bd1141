//! What requests may ask for: models, providers, from where, how much; who is refused learns which
//! rule it was.

use serde_json::json;

use crate::keys;
use crate::logs;
use crate::support::client::Told;
use crate::support::conf::{CHAT, entry, path};
use crate::support::metrics::Metrics;
use crate::support::{Answer, Connection, Gateway, Request, Response, Upstream};

const ANSWER: &str = r#"{"model":"gpt-5-mini","choices":[]}"#;

struct Guarded {
    openai: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

impl Guarded {
    /// A gateway that says this of access, and more.
    async fn start(access: &str, more: &str) -> Self {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        for upstream in [&openai, &groq] {
            upstream.always(Answer::json(ANSWER));
        }
        let gateway = Gateway::start(&format!(
            "log: {{ access: json }}\nproviders:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ \
             authentication: {{ anyone_may_spend_stored_keys: true }}, access: {{ {access} }}{more} }} }} }} }}\n",
            entry(&openai, "openai", "/v1", "keys: [ { value: sk-stored } ]"),
            entry(&groq, "groq", "/openai/v1", "keys: [ { value: gsk-stored } ]"),
        ))
        .await;
        Self {
            openai,
            groq,
            gateway,
        }
    }

    async fn ask(&self, path: &str, body: &str) -> Response {
        Request::post(path, body).send(&self.gateway).await
    }
}

/// What a refusal says, which must be one by policy.
fn denied(answer: &Response) -> String {
    let said = answer.json();
    assert_eq!((answer.status, &said["internalCode"]), (403, &8014.into()));
    let message = said["message"].as_str().unwrap();
    assert!(
        message.starts_with("Access denied by policy: "),
        "{message}"
    );
    message.to_owned()
}

#[tokio::test]
async fn only_permitted_models_are_asked_for_wherever_their_name_stands() {
    only_permitted_models_are_asked_for("").await;
}

#[tokio::test]
async fn only_permitted_models_are_asked_for_where_answers_are_kept() {
    only_permitted_models_are_asked_for(", cache: {}").await;
}

async fn only_permitted_models_are_asked_for(more: &str) {
    let access = "models: { allow: [ 'gpt-5*', 'groq/llama-*' ], deny: [ '*-pro' ] }";
    let guarded = Guarded::start(access, more).await;
    let groq = path("groq", "chat/completions");
    let compat = path("compat", "chat/completions");
    for (path, body, expected) in [
        (CHAT, r#"{"model":"gpt-5-mini"}"#, None),
        (CHAT, r#"{"messages":[],"model":"gpt-5"}"#, None),
        (&groq, r#"{"model":"llama-3"}"#, None),
        (&compat, r#"{"model":"openai/gpt-5"}"#, None),
        (
            CHAT,
            r#"{"model":"llama-3"}"#,
            Some("the model `llama-3` is not permitted"),
        ),
        (CHAT, r#"{"model":"gpt-5-pro"}"#, Some("`gpt-5-pro` is not")),
        (
            &compat,
            r#"{"model":"openai/gpt-4o"}"#,
            Some("`gpt-4o` is not"),
        ),
        (
            CHAT,
            "{}",
            Some("which one this asks for cannot be told (access.models)"),
        ),
        (CHAT, "model=gpt-5", Some("cannot be told")),
        // What is compared byte by byte for the cache names its model all the same.
        (
            CHAT,
            r#"{"seed":98765432109876543210,"model":"gpt-4o"}"#,
            Some("`gpt-4o` is not"),
        ),
        (
            CHAT,
            r#"{"model":"gpt-5","seed":98765432109876543210}"#,
            None,
        ),
    ] {
        let answer = guarded.ask(path, body).await;
        match expected {
            None => assert_eq!(answer.status, 200, "{path} {body}"),
            Some(expected) => {
                let said = denied(&answer);
                assert!(said.contains(expected), "{body}: {said}");
            }
        }
    }
    let twice = guarded.ask(CHAT, r#"{"model":"gpt-5","model":"o1"}"#).await;
    assert_eq!(
        (twice.status, twice.json()["internalCode"].as_u64()),
        (400, Some(8002))
    );
    // A name is the same with escapes (RFC 8259, section 8.3), and bytes are compared here.
    let escaped = r#"{"seed":98765432109876543210,"model":"gpt-5","mod\u0065l":"o1"}"#;
    for body in [escaped, r#"{"model":"gpt-5","mod\u0065l":"o1"}"#] {
        assert_eq!(guarded.ask(CHAT, body).await.status, 400, "{body}");
    }
    let hidden = path("openai", "%63hat/completions");
    let hidden = guarded.ask(&hidden, r#"{"model":"gpt-5"}"#).await;
    assert_eq!(hidden.status, 400, "{}", hidden.text());
    let others = r#"{"model":"gpt-5","models":["o1"]}"#;
    denied(&guarded.ask(CHAT, others).await);
    assert_eq!(guarded.openai.requests().len(), 4);
    assert_eq!(guarded.groq.requests().len(), 1);
    let listed = Request::get(&path("openai", "models"))
        .send(&guarded.gateway)
        .await;
    assert_eq!(listed.status, 200, "what is only looked at has no model");
    guarded
        .gateway
        .logged("\"denied_by\":\"access.models\"")
        .await;
    guarded.gateway.settled(15).await;
    let metrics = guarded.gateway.metrics().await;
    let denials = metrics.sum("tollgate_denials_total", &[("rule", "access.models")]);
    assert_eq!(denials, 7.0);
}

/// What takes its model from elsewhere is not permitted by a name that it does not read.
#[tokio::test]
async fn a_name_where_nobody_looks_permits_nothing() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ \
         authentication: {{ anyone_may_spend_stored_keys: true }}, \
         access: {{ models: {{ allow: [ 'gpt-5*', 'huggingface/meta-llama/*' ] }} }} }} }} }} }}\n",
        entry(&upstream, "fal", "", "keys: [ { value: fal-stored } ]"),
        entry(
            &upstream,
            "huggingface",
            "",
            "keys: [ { value: hf-stored } ]"
        ),
    ))
    .await;
    let ask = async |provider: &str, rest: &str| {
        Request::post(&path(provider, rest), r#"{"model":"gpt-5-mini"}"#)
            .send(&gateway)
            .await
    };
    let said = denied(&ask("fal", "fal-ai/veo3").await);
    assert!(said.contains("cannot be told"), "{said}");
    let said = denied(&ask("huggingface", "mistralai/Mistral-7B").await);
    assert!(said.contains("`mistralai/Mistral-7B` is not"), "{said}");
    upstream.untouched();
    let permitted = ask("huggingface", "meta-llama/Llama-3.3-70B").await;
    assert_eq!(permitted.status, 200, "{}", permitted.text());
}

/// Others may have had it cooled down: it is still not for who may not ask it.
#[tokio::test]
async fn a_target_that_is_not_permitted_does_not_come_back_when_it_is_left_alone() {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    groq.always(Answer::json(ANSWER));
    let routes = "health: { failures: 1, open_for: 1m }, routes: { chat: { match: { provider: openai, model: gpt-5 }, targets: [ \
        { provider: openai, model: gpt-5 }, { provider: groq, model: llama-3 } ] } }";
    let gateway = Gateway::start(&format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ \
         authentication: {{ required: true }}, {routes} }} }} }} }}\n",
        entry(&openai, "openai", "/v1", "keys: [ { value: sk-stored } ]"),
        entry(
            &groq,
            "groq",
            "/openai/v1",
            "keys: [ { value: gsk-stored } ]"
        ),
    ))
    .await;
    let all = keys::made(&gateway, &[]).await;
    let few = keys::made_with(&gateway, json!({ "models": { "deny": ["gpt-5"] } })).await;
    let ask = async |key: &str| {
        Request::post(CHAT, r#"{"model":"gpt-5"}"#)
            .header("cf-aig-authorization", key)
            .send(&gateway)
            .await
    };
    openai.always(Answer::new(500));
    for key in [&all, &few, &few] {
        let answer = ask(key).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cf-aig-step"), Some("1"));
    }
    assert_eq!(openai.requests().len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_not_permitted_is_refused_before_the_body_is_read() {
    let guarded = Guarded::start("providers: { deny: [ groq ] }", "").await;
    let mut connection = Connection::open(&guarded.gateway).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{",
        path("groq", "chat/completions")
    );
    connection.write(head).await;
    let answer = connection.read().await.unwrap();
    let said = denied(&answer);
    assert!(
        said.contains("the provider `groq` is not permitted (access.providers)"),
        "{said}"
    );
    logs::denied(&guarded.gateway, &answer, "access.providers").await;
    assert_eq!(guarded.ask(CHAT, "{}").await.status, 200);
    guarded.groq.untouched();
}

#[tokio::test]
async fn who_is_elsewhere_may_not_ask() {
    for (list, status) in [
        ("allow: [ 127.0.0.0/8 ]", 200),
        ("allow: [ 10.0.0.0/8, '::1' ]", 403),
        ("deny: [ 127.0.0.1 ]", 403),
    ] {
        let guarded = Guarded::start(&format!("addresses: {{ {list} }}"), "").await;
        let answer = guarded.ask(CHAT, "{}").await;
        assert_eq!(answer.status, status, "{list}");
        if status == 403 {
            assert!(denied(&answer).contains("not from this address (access.addresses)"));
            logs::denied(&guarded.gateway, &answer, "access.addresses").await;
        }
    }
}

#[tokio::test]
async fn a_maximum_of_tokens_and_of_the_body_holds() {
    let guarded = Guarded::start("max_tokens: 100, max_body: 200B", "").await;
    for (body, expected) in [
        (r#"{"model":"m","max_tokens":100}"#, None),
        (r#"{"model":"m","max_completion_tokens":50,"n":2}"#, None),
        (r#"{"model":"m","max_tokens":101}"#, Some("and this is 101")),
        (
            r#"{"model":"m","max_tokens":50,"n":3}"#,
            Some("and this is 150"),
        ),
        (
            r#"{"model":"m"}"#,
            Some("set a maximum, such as max_tokens (access.max_tokens)"),
        ),
    ] {
        let answer = guarded.ask(CHAT, body).await;
        match expected {
            None => assert_eq!(answer.status, 200, "{body}"),
            Some(expected) => {
                assert!(denied(&answer).contains(expected), "{body}");
                logs::denied(&guarded.gateway, &answer, "access.max_tokens").await;
            }
        }
    }
    let embeddings = path("openai", "embeddings");
    let answer = guarded
        .ask(&embeddings, r#"{"model":"e","input":"x"}"#)
        .await;
    assert_eq!(answer.status, 200, "nothing is written");
    let large = format!(
        r#"{{"model":"m","max_tokens":1,"user":"{}"}}"#,
        "x".repeat(200)
    );
    for chunked in [false, true] {
        let request = Request::post(CHAT, &large);
        let request = match chunked {
            true => request.told(Told::Open),
            false => request,
        };
        let answer = request.send(&guarded.gateway).await;
        assert_eq!(answer.status, 413, "chunked: {chunked}");
        assert!(answer.text().contains("200 bytes of access.max_body"));
    }
}

/// Whether it is read before it is sent, or passes as it comes.
#[tokio::test]
async fn a_body_that_is_too_large_is_on_record_with_its_rule() {
    let guarded = Guarded::start("max_body: 200B", ", retry: { max_attempts: 2 }").await;
    let mut refused = Vec::new();
    for told in [Told::Length, Told::Open] {
        let held = Request::post(CHAT, format!(r#"{{"model":"{}"}}"#, "m".repeat(200)));
        refused.push(held.told(told).send(&guarded.gateway).await);
    }
    guarded.openai.untouched();
    let mut connection = Connection::open(&guarded.gateway).await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("96\r\n{}\r\n", "x".repeat(150));
    connection.write(head + &chunk).await;
    guarded.openai.reached(1).await;
    connection.write(chunk).await;
    refused.push(connection.read().await.unwrap());
    for answer in &refused {
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(answer.text().contains("200 bytes of access.max_body"));
        logs::denied(&guarded.gateway, answer, "access.max_body").await;
    }
    let metrics = guarded.gateway.metrics().await;
    let denials = metrics.sum("tollgate_denials_total", &[("rule", "access.max_body")]);
    assert_eq!(denials, 3.0);
}

#[tokio::test]
async fn what_comes_too_fast_is_on_record_with_its_rule() {
    let rates = ", rate_limits: [ { id: few, limit: 1, window: 1h } ]";
    let guarded = Guarded::start("", rates).await;
    assert_eq!(guarded.ask(CHAT, "{}").await.status, 200);
    let answer = guarded.ask(CHAT, "{}").await;
    assert_eq!(answer.status, 429);
    logs::denied(&guarded.gateway, &answer, "few").await;
}

/// A route passes over the targets that are not permitted, and is refused where none is.
#[tokio::test]
async fn a_route_goes_to_a_target_that_is_permitted() {
    let routes = ", routes: { chat: { match: { provider: openai, model: gpt-5 }, targets: [ \
        { provider: openai, model: gpt-5 }, { provider: groq, model: llama-3 } ] } }";
    let guarded = Guarded::start("models: { deny: [ gpt-5 ] }", routes).await;
    let answer = guarded.ask(CHAT, r#"{"model":"gpt-5"}"#).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    guarded.openai.untouched();
    // It is looked up, and kept, as an answer of the target that may be asked.
    let kept = Guarded::start(
        "models: { deny: [ gpt-5 ] }",
        &format!("{routes}, cache: {{}}"),
    )
    .await;
    let compat = path("compat", "chat/completions");
    for (path, model, expected) in [
        (CHAT, "gpt-5", "MISS"),
        (CHAT, "gpt-5", "HIT"),
        (&compat, "openai/gpt-5", "HIT"),
    ] {
        let answer = kept.ask(path, &format!(r#"{{"model":"{model}"}}"#)).await;
        let status = answer.header("cf-aig-cache-status");
        assert_eq!(status, Some(expected), "{path}: {}", answer.text());
        assert_eq!(answer.header("cf-aig-step"), Some("1"));
        let stored = |metrics: &Metrics| metrics.sum("tollgate_cache_stored_total", &[]) >= 1.0;
        kept.gateway.metrics_when("an answer is kept", stored).await;
    }
    assert_eq!(kept.groq.requests().len(), 1);
    let none = Guarded::start("models: { allow: [ 'gpt-4*' ] }", routes).await;
    let said = denied(&none.ask(CHAT, r#"{"model":"gpt-5"}"#).await);
    assert!(said.contains("`gpt-5` is not permitted"), "{said}");
    none.groq.untouched();
}
