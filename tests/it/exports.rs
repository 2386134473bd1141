//! Collectors, webhooks and files that are told of finished requests.

use serde_json::Value;

use crate::support::conf::{CHAT, openai};
use crate::support::{Answer, Gateway, Request, Upstream, eventually};

const QUESTION: &str =
    r#"{"model":"gpt-4o-mini","user":"card-1234","messages":[{"role":"user","content":"Why?"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;

fn attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == name);
    found.map_or(&Value::Null, |attribute| &attribute["value"])
}

async fn provider() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    upstream
}

#[tokio::test]
async fn a_collector_has_a_span_for_every_request() {
    let upstream = provider().await;
    let collector = Upstream::h1().await;
    collector.always(Answer::json("{}"));
    let conf = format!(
        "{}logs: {{ redact: {{ patterns: ['card-\\d+'] }} }}\notel: [{{ url: \"{}\", headers: {{ x-key: s3cret }}, payload: true }}]\n",
        openai(&upstream),
        collector.url("")
    );
    let gateway = Gateway::start(&conf).await;
    let answer = Request::post(CHAT, QUESTION)
        .header("cf-aig-otel-trace-id", "0af7651916cd43dd8448eb211c80319c")
        .header("cf-aig-otel-parent-span-id", "b7ad6b7169203331")
        .header("cf-aig-metadata", r#"{"team":"red"}"#)
        .send(&gateway)
        .await;
    let told = collector.received(1).await.remove(0);
    assert_eq!(told.target, "/v1/traces");
    assert_eq!(told.header("x-key"), Some("s3cret"));
    assert_eq!(told.header("content-type"), Some("application/json"));
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    let span = &told["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(
        attribute(span, "gen_ai.request.model")["stringValue"],
        "gpt-4o-mini"
    );
    assert_eq!(
        attribute(span, "gen_ai.usage.input_tokens")["intValue"],
        "1000"
    );
    assert_eq!(attribute(span, "gen_ai.usage.cost")["doubleValue"], 0.00021);
    assert_eq!(attribute(span, "team")["stringValue"], "red");
    let prompt = attribute(span, "gen_ai.prompt_json")["stringValue"]
        .as_str()
        .unwrap();
    assert!(
        prompt.contains("[redacted]") && prompt.contains("Why?"),
        "{prompt}"
    );
    let id = answer.header("cf-aig-log-id").unwrap();
    assert!(span.to_string().contains(id), "{span}");
    // Who is not to be logged is not told of either.
    Request::post(CHAT, QUESTION)
        .header("cf-aig-collect-log", "false")
        .send(&gateway)
        .await;
    Request::post(CHAT, QUESTION)
        .header("user-agent", "last")
        .send(&gateway)
        .await;
    let next = collector.received(2).await;
    let texts: Vec<_> = next.iter().map(|told| told.text()).collect();
    assert_eq!(
        texts.concat().matches("\"traceId\"").count(),
        2,
        "{texts:?}"
    );
}

#[tokio::test]
async fn a_file_and_a_webhook_have_a_line_for_every_request() {
    let upstream = provider().await;
    let hook = Upstream::h1().await;
    hook.always(Answer::new(204));
    let conf = format!(
        "{}sinks: [{{ file: \"{{dir}}/requests.ndjson\" }}, {{ webhook: \"{}\" }}]\n",
        openai(&upstream),
        hook.url("/in")
    );
    let gateway = Gateway::start(&conf).await;
    let answer = Request::post(CHAT, QUESTION).send(&gateway).await;
    let file = gateway.directory().join("requests.ndjson");
    let line = eventually("a line in the file", || {
        std::fs::read_to_string(&file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let line: Value = serde_json::from_str(line.await.trim()).unwrap();
    assert_eq!(line["id"], answer.header("cf-aig-log-id").unwrap());
    assert_eq!(
        (&line["cost_usd"], &line["input_tokens"]),
        (&0.00021.into(), &1000.into())
    );
    let posted = hook.received(1).await.remove(0);
    assert_eq!(
        (posted.target.as_str(), posted.header("content-type")),
        ("/in", Some("application/x-ndjson"))
    );
    let posted: Value = serde_json::from_str(posted.text().trim()).unwrap();
    assert_eq!(posted["id"], line["id"]);
    gateway
        .metrics_when("both told", |metrics| {
            ["sinks[0]", "sinks[1]"]
                .iter()
                .all(|name| metrics.sum("tollgate_export_sent_total", &[("name", name)]) == 1.0)
        })
        .await;
}

#[tokio::test]
async fn a_collector_that_is_down_costs_nothing_but_is_told_by_metrics() {
    let upstream = provider().await;
    let conf = format!(
        "{}otel: [{{ url: \"http://127.0.0.1:1\" }}]\n",
        openai(&upstream)
    );
    let mut gateway = Gateway::start(&conf).await;
    for _ in 0..3 {
        assert_eq!(
            Request::post(CHAT, QUESTION).send(&gateway).await.status,
            200
        );
    }
    gateway
        .metrics_when("a failing collector", |metrics| {
            metrics.sum("tollgate_export_failing", &[("name", "otel[0].traces")]) == 1.0
        })
        .await;
    assert!(
        gateway.stop().await.success(),
        "its end is not held up for long"
    );
}
