//! Finished requests added up over time, and the first page that shows them.

use serde_json::{Value, json};

use crate::cache::with_cache;
use crate::logs::settled;
use crate::support::conf::CHAT;
use crate::support::{Answer, Gateway, Request, Upstream};

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;

pub async fn analytics(gateway: &Gateway, path: &str) -> Value {
    settled(gateway).await;
    let answer = gateway.ask(Request::get(path)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"].clone()
}

/// Three priced answers, one of them stored, and one refusal of the provider.
async fn served() -> (Upstream, Gateway) {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&with_cache(&upstream, "ttl: 5m", "")).await;
    let ask = |team: &str, body: &str| {
        Request::post(CHAT, body)
            .header("authorization", "Bearer k")
            .header("user-agent", "OpenAI/Python 2.9.0")
            .header("cf-aig-metadata", &json!({ "team": team }).to_string())
    };
    upstream.script(Answer::json(ANSWER));
    for team in ["red", "blue"] {
        ask(team, QUESTION).send(&gateway).await;
        crate::cache::stored(&gateway).await;
    }
    upstream.script(Answer::json(ANSWER));
    ask("red", &QUESTION.replace("Why", "How"))
        .send(&gateway)
        .await;
    upstream.script(Answer::new(429).text("{}"));
    ask("red", &QUESTION.replace("gpt-4o-mini", "gpt-4o"))
        .send(&gateway)
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn what_has_ended_is_added_up_at_once() {
    let (_upstream, gateway) = served().await;
    for path in [
        "/-/analytics",
        "/client/v4/accounts/default/ai-gateway/gateways/default/analytics",
    ] {
        let found = analytics(&gateway, path).await;
        let totals = &found["totals"];
        for (figure, value) in [
            ("requests", json!(4)),
            ("succeeded", json!(3)),
            ("attempts", json!(3)),
            ("errors", json!({ "provider:provider_429": 1 })),
            ("cost_usd", json!(0.00042)),
            ("saved_usd", json!(0.00021)),
            ("unpriced", json!(0)),
        ] {
            assert_eq!(totals[figure], value, "{figure} of {totals}");
        }
        assert_eq!(totals["cache"]["hit"], 1, "{totals}");
        // A stored answer's tokens were bought once.
        assert_eq!(totals["tokens"]["output_tokens"].as_u64().unwrap() % 100, 0);
        assert_eq!(totals["latency_ms"]["count"], 4);
        let points = found["points"].as_array().unwrap();
        let sum: u64 = points
            .iter()
            .map(|point| point["requests"].as_u64().unwrap())
            .sum();
        assert_eq!(sum, 4);
    }
}

#[tokio::test]
async fn groups_add_up_to_the_whole() {
    let (_upstream, gateway) = served().await;
    for (group_by, expected) in [
        ("gateway", json!([["default/default", 4]])),
        ("provider", json!([["openai", 4]])),
        ("model", json!([["gpt-4o-mini", 3], ["gpt-4o", 1]])),
        ("user_agent", json!([["OpenAI/Python 2.9.0", 4]])),
        ("metadata.team", json!([["red", 3], ["blue", 1]])),
    ] {
        let found = analytics(&gateway, &format!("/-/analytics?group_by={group_by}")).await;
        let groups = found["groups"].as_array().unwrap().iter();
        let groups: Vec<_> = groups
            .map(|group| json!([group["name"], group["totals"]["requests"]]))
            .collect();
        assert_eq!(json!(groups), expected, "{group_by}");
    }
}

#[tokio::test]
async fn a_restart_and_an_upgrade_keep_the_sums() {
    let (_upstream, gateway) = served().await;
    let upgraded = gateway.ask(Request::new("POST", "/-/upgrade")).await;
    assert_eq!(upgraded.status, 200, "{}", upgraded.text());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while analytics(&gateway, "/-/analytics").await["totals"]["requests"] != 4 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn mistakes_name_the_parameter() {
    let gateway = Gateway::start("providers: { mock: {} }\n").await;
    for (query, field) in [
        ("?interval=2m", "interval"),
        ("?group_by=colour", "group_by"),
        ("?start=tomorrow", "start"),
        ("?colour=red", "colour"),
        ("?limit=0", "limit"),
    ] {
        let answer = gateway
            .ask(Request::get(&format!("/-/analytics{query}")))
            .await;
        let error = &answer.json()["errors"][0];
        assert_eq!(
            (answer.status, &error["path"][0]),
            (400, &json!(field)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn analytics_that_cannot_be_stored_are_told_and_traffic_goes_on() {
    let gateway = Gateway::with("providers: { mock: {} }\n")
        .file("data", "a file")
        .start()
        .await;
    let answer = Request::post("/v1/default/default/mock/chat/completions", QUESTION)
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
    gateway
        .metrics_when("the alarm", |metrics| {
            metrics.sum("tollgate_analytics_alarm", &[]) == 1.0
        })
        .await;
}

#[tokio::test]
async fn the_first_page_is_served_under_a_strict_policy() {
    let gateway = Gateway::start("providers: { mock: {} }\n").await;
    let page = gateway.ask(Request::get("/")).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let script = gateway.ask(Request::get("/-/page/page.js")).await;
    assert_eq!(
        (script.status, script.header("content-type")),
        (200, Some("text/javascript; charset=utf-8"))
    );
    assert_eq!(script.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        gateway.ask(Request::get("/-/page/none.js")).await.status,
        404
    );
}
