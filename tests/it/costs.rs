//! What answers took and cost: in the access log and in the metrics, whatever the answer's form.

use std::io::Write;

use serde_json::Value;

use crate::cache::with_cache;
use crate::support::conf::{CHAT, entry, openai, path};
use crate::support::upstream::End;
use crate::support::{Answer, Gate, Gateway, Reply, Request, Upstream, eventually};

const JSON_LOG: &str = "log: { access: json }\n";

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}]}"#;

/// 400 fresh tokens at 0.15, 600 cached ones at 0.075 and 100 written ones at 0.60 dollars for a
/// million: 60 + 45 + 60 millionths of a dollar.
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":600}}}"#;
const COST: f64 = 0.000_165;

/// The `count`th line of the access log, once it is there.
async fn line(gateway: &Gateway, count: usize) -> Value {
    let what = format!("line {count} of the access log");
    let found = eventually(&what, || {
        let log = gateway.log();
        let mut lines = log.lines().filter(|line| line.contains("\"overhead_ms\""));
        lines.nth(count - 1).map(str::to_owned)
    });
    serde_json::from_str(&found.await).unwrap()
}

async fn start(fragment: &str) -> Gateway {
    Gateway::start(&format!("{JSON_LOG}{fragment}")).await
}

/// Gives the answer every time.
async fn always() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    upstream
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The same answer as one event and the usage in the last.
fn stream() -> String {
    let piece = r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"content":"Because."}}],"usage":null}"#;
    let last = r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":600}}}"#;
    format!("data: {piece}\n\ndata: {last}\n\ndata: [DONE]\n\n")
}

#[tokio::test]
async fn an_answer_costs_the_same_in_every_form() {
    let upstream = Upstream::h1().await;
    let gateway = start(&openai(&upstream)).await;
    let forms: [Reply; 4] = [
        Answer::json(ANSWER).into(),
        Answer::sse().text(&stream()).into(),
        Answer::json("")
            .header("content-encoding", "gzip")
            .bytes(&gzip(ANSWER))
            .into(),
        Answer::sse()
            .header("content-encoding", "gzip")
            .bytes(&gzip(&stream()))
            .into(),
    ];
    for (index, form) in forms.into_iter().enumerate() {
        upstream.script(form);
        Request::post(CHAT, QUESTION).send(&gateway).await;
        let line = line(&gateway, index + 1).await;
        assert_eq!(line["cost_usd"], COST, "{line}");
        assert_eq!(line["cost_source"], "catalogue");
        assert_eq!(
            (&line["input_tokens"], &line["output_tokens"]),
            (&1000.into(), &100.into())
        );
        assert_eq!(line["cached_input_tokens"], 600);
        assert_eq!(line["answer_model"], "gpt-4o-mini-2024-07-18");
        assert!(line["usage_estimated"].is_null());
    }
    let metrics = gateway.metrics().await;
    let tokens = |kind| {
        metrics.sum(
            "tollgate_tokens_total",
            &[("provider", "openai"), ("kind", kind)],
        )
    };
    assert_eq!(
        [tokens("input"), tokens("output"), tokens("cached_input")],
        [4000.0, 400.0, 2400.0]
    );
    let cost = metrics.sum("tollgate_cost_usd_total", &[("provider", "openai")]);
    assert_eq!(cost, 4.0 * COST, "{}", metrics.text());
    assert_eq!(metrics.sum("gen_ai_client_token_usage_count", &[]), 8.0);
}

#[tokio::test]
async fn a_stored_answer_costs_nothing_and_says_what_it_saved() {
    let upstream = always().await;
    let gateway = start(&with_cache(&upstream, "ttl: 5m", "")).await;
    for _ in 0..2 {
        Request::post(CHAT, QUESTION)
            .header("authorization", "Bearer k")
            .send(&gateway)
            .await;
    }
    let hit = line(&gateway, 2).await;
    assert_eq!(
        (&hit["cost_usd"], &hit["saved_usd"]),
        (&0.into(), &COST.into()),
        "{hit}"
    );
    assert_eq!(hit["cost_source"], "cached");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_cost_usd_total", &[]), COST);
    assert_eq!(metrics.sum("tollgate_saved_usd_total", &[]), COST);
    assert_eq!(
        metrics.sum("tollgate_tokens_total", &[("kind", "input")]),
        1000.0
    );
}

/// A name of a deployment, which is in no list, and an answer of another class and model: what
/// it cost first is what it saves then.
#[tokio::test]
async fn a_stored_answer_saves_what_it_cost_at_its_class_and_model() {
    let upstream = Upstream::h1().await;
    let priority = ANSWER.replace(r#""object""#, r#""service_tier":"priority","object""#);
    let asked = QUESTION.replace("gpt-4o-mini", "our-deployment");
    upstream.script(Answer::json(&priority));
    let gateway = start(&with_cache(&upstream, "ttl: 5m", "")).await;
    for _ in 0..2 {
        let request = Request::post(CHAT, &asked).header("authorization", "Bearer k");
        request.send(&gateway).await;
    }
    let (first, hit) = (line(&gateway, 1).await, line(&gateway, 2).await);
    assert!(first["cost_usd"].as_f64().unwrap() > COST, "{first}");
    assert_eq!(
        (&hit["cost_usd"], &hit["saved_usd"]),
        (&0.into(), &first["cost_usd"]),
        "{hit}"
    );
    for fact in ["service_tier", "answer_model"] {
        assert_eq!(hit[fact], first[fact], "{hit}");
    }
}

/// One pays, and the others save it: whole answers and streams.
#[tokio::test]
async fn who_shares_an_answer_that_is_coming_saves_what_it_costs() {
    let upstream = Upstream::h1().await;
    let gateway = start(&with_cache(&upstream, "ttl: 5m", "")).await;
    let (whole, streamed) = (ANSWER.to_owned(), stream());
    for (first, answer, text, body) in [
        (
            1,
            Answer::new(200)
                .chunked()
                .header("content-type", "application/json"),
            whole,
            QUESTION.to_owned(),
        ),
        (
            4,
            Answer::sse(),
            streamed,
            QUESTION.replacen('{', r#"{"stream":true,"#, 1),
        ),
    ] {
        let gate = Gate::new();
        let (begin, rest) = text.split_at(40);
        upstream.script(answer.text(begin).wait(&gate).text(rest));
        let request = Request::post(CHAT, &body).header("authorization", "Bearer k");
        let leader = request.clone().open(&gateway).await;
        let mut followers = Vec::new();
        for _ in 0..2 {
            followers.push(request.clone().open(&gateway).await);
        }
        gate.open();
        leader.finish().await;
        for follower in followers {
            follower.finish().await;
        }
        let mut spent = Vec::new();
        for number in first..first + 3 {
            let line = line(&gateway, number).await;
            spent.push((line["cost_usd"].clone(), line["saved_usd"].clone()));
        }
        spent.sort_by_key(|(cost, _)| cost.as_f64() != Some(0.0));
        let (saves, pays) = ((0.into(), COST.into()), (COST.into(), Value::Null));
        assert_eq!(spent, [saves.clone(), saves, pays]);
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_saved_usd_total", &[]), 4.0 * COST);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_estimated_and_says_so() {
    let upstream = Upstream::h1().await;
    let gateway = start(&openai(&upstream)).await;
    let cut = &stream()[..stream().find("\n\n").unwrap() + 2];
    // The type of `curl -d`, and none at all: providers read the body all the same.
    let types = [
        None,
        Some("application/x-www-form-urlencoded"),
        Some("application/json"),
    ];
    for (before, content_type) in types.into_iter().enumerate() {
        upstream.script(Answer::sse().text(cut).end(End::Close));
        let mut request = Request::new("POST", CHAT).body(QUESTION);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        request.send(&gateway).await;
        let line = line(&gateway, before + 1).await;
        assert_eq!(line["usage_estimated"], true, "{line}");
        for tokens in ["input_tokens", "output_tokens"] {
            let tokens = line[tokens].as_u64().unwrap();
            assert!((1..40).contains(&tokens), "{line}");
        }
        assert!(line["cost_usd"].as_f64().unwrap() > 0.0);
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_usage_estimated_total", &[]), 3.0);
}

#[tokio::test]
async fn the_clients_price_goes_before_the_deployments_and_that_before_the_list() {
    let upstream = always().await;
    let prices = "prices: { overrides: [ { provider: openai, model: \"gpt-4o-*\", rates: { input: 1, output: \"2.5\", cached_input: 0.1 } } ] }\n";
    let gateway = start(&format!("{prices}{}", openai(&upstream))).await;
    Request::post(CHAT, QUESTION).send(&gateway).await;
    // 400 at 1, 600 at 0.1 and 100 at 2.5 dollars for a million.
    let first = line(&gateway, 1).await;
    assert_eq!(
        (&first["cost_usd"], &first["cost_source"]),
        (&0.000_71.into(), &"override".into())
    );
    let custom = r#"{"per_token_in":0.000001,"per_token_out":0.00001}"#;
    Request::post(CHAT, QUESTION)
        .header("cf-aig-custom-cost", custom)
        .send(&gateway)
        .await;
    let second = line(&gateway, 2).await;
    assert_eq!(
        (&second["cost_usd"], &second["cost_source"]),
        (&0.002.into(), &"custom".into())
    );
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.header("cf-aig-custom-cost").is_none())
    );
    let refused = Request::post(CHAT, QUESTION)
        .header("cf-aig-custom-cost", "cheap")
        .send(&gateway)
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("cf-aig-custom-cost"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn what_has_no_price_is_counted_and_not_free() {
    let upstream = always().await;
    let custom = format!(
        "providers:\n{}",
        entry(&upstream, "custom-acme", "/v1", "format: openai-chat")
    );
    let gateway = start(&custom).await;
    Request::post(&path("custom-acme", "chat/completions"), QUESTION)
        .send(&gateway)
        .await;
    let line = line(&gateway, 1).await;
    assert_eq!(
        (&line["cost_source"], &line["cost_usd"]),
        (&"unpriced".into(), &Value::Null),
        "{line}"
    );
    let metrics = gateway.metrics().await;
    assert_eq!(
        metrics.sum("tollgate_unpriced_total", &[("provider", "custom-acme")]),
        1.0
    );
}

#[tokio::test]
async fn metadata_is_in_the_log_and_lost_loudly_where_the_gateway_is_strict() {
    let upstream = always().await;
    let strict = "accounts: { default: { gateways: { default: {}, strict: { metadata: { strict: true } } } } }\n";
    let gateway = start(&format!("{strict}{}", openai(&upstream))).await;
    let seven = r#"{"user":"u-1","a":1,"b":true,"c":"","d":0.5,"e":6,"f":7}"#;
    Request::post(CHAT, QUESTION)
        .header("cf-aig-metadata", seven)
        .header("cf-aig-event-id", "e-1")
        .send(&gateway)
        .await;
    let line = line(&gateway, 1).await;
    assert_eq!(
        line["metadata"],
        r#"{"user":"u-1","a":1,"b":true,"c":"","d":0.5}"#
    );
    assert_eq!(line["event_id"], "e-1");
    let strict = CHAT.replace("/default/openai", "/strict/openai");
    let refused = Request::post(&strict, QUESTION)
        .header("cf-aig-metadata", seven)
        .send(&gateway)
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("at most 5 entries"),
        "{}",
        refused.text()
    );
}
