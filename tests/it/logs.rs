//! The log store: what it keeps of requests and what it does not, and the API that shows it.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cache::{stored, with_cache};
use crate::support::conf::{CHAT, openai, path};
use crate::support::emitted::is_written;
use crate::support::upstream::End;
use crate::support::{Answer, Gateway, Protocol, Reply, Request, Response, Upstream};

/// The logs of the default gateway.
const ROOT: &str = "/client/v4/accounts/default/ai-gateway/gateways/default/logs";

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;

fn chat() -> Request {
    Request::post(CHAT, QUESTION).header("authorization", "Bearer sk-secret")
}

/// A client has its answer a moment before the request is over.
pub async fn settled(gateway: &Gateway) {
    gateway
        .metrics_when("no request in flight", |metrics| {
            metrics.sum("tollgate_requests_in_flight", &[]) == 0.0
        })
        .await;
}

/// A page of logs, of whatever gateway.
async fn page(gateway: &Gateway, query: &str) -> Value {
    settled(gateway).await;
    let page = gateway.ask(Request::get(&format!("{ROOT}{query}"))).await;
    assert_eq!(page.status, 200, "{}", page.text());
    page.json()
}

async fn entries(gateway: &Gateway, query: &str) -> Vec<Value> {
    page(gateway, query).await["result"]
        .as_array()
        .unwrap()
        .clone()
}

/// The one entry there is, with all that is shown of one.
async fn only(gateway: &Gateway) -> Value {
    let entries = entries(gateway, "").await;
    assert_eq!(entries.len(), 1, "{entries:#?}");
    one(gateway, entries[0]["id"].as_str().unwrap()).await
}

async fn one(gateway: &Gateway, id: &str) -> Value {
    settled(gateway).await;
    let answer = gateway.ask(Request::get(&format!("{ROOT}/{id}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"].clone()
}

/// That a request was denied is on record, with the rule and the status.
pub async fn denied(gateway: &Gateway, answer: &Response, rule: &str) {
    let entry = one(gateway, &id_of(answer)).await;
    assert_eq!(
        (&entry["denied_by"], &entry["status_code"]),
        (&json!(rule), &json!(answer.status)),
        "{entry:#}"
    );
}

async fn stored_body(gateway: &Gateway, id: &str, which: &str) -> Response {
    settled(gateway).await;
    gateway
        .ask(Request::get(&format!("{ROOT}/{id}/{which}")))
        .await
}

fn id_of(answer: &Response) -> String {
    answer.header("cf-aig-log-id").unwrap().to_owned()
}

pub fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A filter of the API as a query.
fn filtered(filters: &Value) -> String {
    let text = filters.to_string();
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    format!("?filters={encoded}")
}

#[tokio::test]
async fn a_request_is_found_with_all_that_is_known_of_it() {
    let upstream = Upstream::answering(Answer::json(ANSWER).header("x-request-id", "req-1")).await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let answer = chat()
        .header("cf-aig-metadata", r#"{"team":"red","paid":true,"seats":3}"#)
        .header("cf-aig-event-id", "event-1")
        .header("user-agent", "probe/1.0")
        .send(&gateway)
        .await;
    let entry = only(&gateway).await;
    assert_eq!(entry["id"], id_of(&answer));
    for (fact, value) in [
        ("gateway", json!("default/default")),
        ("provider", json!("openai")),
        ("model", json!("gpt-4o-mini")),
        ("answer_model", json!("gpt-4o-mini-2024-07-18")),
        ("model_type", json!("chat")),
        ("path", json!(CHAT)),
        ("method", json!("POST")),
        ("status_code", json!(200)),
        ("success", json!(true)),
        ("cached", json!(false)),
        ("complete", json!(true)),
        ("streamed", json!(false)),
        ("tokens_in", json!(1000)),
        ("tokens_out", json!(100)),
        // 1,000 at 0.15 and 100 at 0.60 dollars for a million.
        ("cost", json!(0.00021)),
        ("cost_source", json!("catalogue")),
        ("custom_cost", json!(false)),
        (
            "metadata",
            json!({ "team": "red", "paid": true, "seats": 3 }),
        ),
        ("event_id", json!("event-1")),
        ("user_agent", json!("probe/1.0")),
        ("attempts", json!(1)),
        ("request_content_type", json!("application/json")),
        ("response_content_type", json!("application/json")),
        ("request_size", json!(QUESTION.len())),
        ("response_size", json!(ANSWER.len())),
        ("request_head", json!(QUESTION)),
        ("request_head_complete", json!(true)),
        ("response_head", json!(ANSWER)),
        ("feedback", json!(null)),
    ] {
        assert_eq!(entry[fact], value, "{fact} of {entry:#}");
    }
    assert!(entry["timings"]["upstream"].as_f64().unwrap() > 0.0);
    assert!(entry["timings"]["overhead"].as_f64().unwrap() > 0.0);
    let heads = entry["request_headers"].to_string();
    assert!(
        heads.contains(r#"["authorization","[redacted]"]"#),
        "{heads}"
    );
    assert!(!entry.to_string().contains("sk-secret"));
    assert!(entry["response_headers"].to_string().contains("req-1"));
    for (which, text) in [("request", QUESTION), ("response", ANSWER)] {
        let body = stored_body(&gateway, &id_of(&answer), which).await;
        assert_eq!((body.status, body.text().as_str()), (200, text));
        assert_eq!(body.header("content-type"), Some("application/json"));
        assert_eq!(body.header("tollgate-body-complete"), Some("true"));
    }
}

#[tokio::test]
async fn answers_are_kept_as_they_read_whatever_their_form() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let events = "data: {\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n";
    let forms: [(Reply, &str); 4] = [
        (Answer::json(ANSWER).into(), ANSWER),
        (Answer::sse().text(events).into(), events),
        (
            Answer::json("")
                .header("content-encoding", "gzip")
                .bytes(&gzip(ANSWER))
                .into(),
            ANSWER,
        ),
        (
            Answer::sse()
                .header("content-encoding", "gzip")
                .bytes(&gzip(events))
                .into(),
            events,
        ),
    ];
    for (form, expected) in forms {
        for protocol in [Protocol::H1, Protocol::H2] {
            upstream.script(form.clone());
            let answer = chat().over(protocol).send(&gateway).await;
            let body = stored_body(&gateway, &id_of(&answer), "response").await;
            assert_eq!(body.text(), expected, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_is_on_record_too() {
    let upstream = Upstream::h1().await;
    let conf = format!(
        "{}accounts: {{ default: {{ gateways: {{ default: {{ retry: {{ max_attempts: 3, delay: 1ms }} }} }} }} }}\n",
        openai(&upstream)
    );
    let gateway = Gateway::start(&conf).await;
    // Tried three times, and given up.
    for _ in 0..2 {
        upstream.script(Answer::new(500).text("a"));
    }
    upstream.script(Reply::Reset);
    let failed = chat().send(&gateway).await;
    let entry = one(&gateway, &id_of(&failed)).await;
    assert_eq!(
        (&entry["success"], &entry["attempts"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(entry["error_source"], "provider");
    let causes: Vec<_> = entry["tried"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tried| tried["cause"].clone())
        .collect();
    assert_eq!(
        causes,
        ["server_error", "server_error", "reset"],
        "{entry:#}"
    );
    assert_eq!(entry["response_head"], failed.text());
    // Cut off in the middle.
    upstream.script(Answer::sse().text("data: {}\n\n").end(End::Reset));
    let cut = chat().send(&gateway).await;
    let entry = one(&gateway, &id_of(&cut)).await;
    assert_eq!(
        (&entry["complete"], &entry["success"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(entry["response_head_complete"], false, "{entry:#}");
    assert_eq!(entry["usage_estimated"], true);
    // Refused before anybody was asked.
    let refused = Request::get(&path("nobody", "x")).send(&gateway).await;
    let entry = one(&gateway, &id_of(&refused)).await;
    assert_eq!(
        (&entry["status_code"], &entry["attempts"]),
        (&json!(refused.status), &json!(0))
    );
    assert_eq!(entry["error_source"], "client", "{entry:#}");
    let failures = entries(&gateway, "?success=false").await;
    assert_eq!(failures.len(), 3);
}

#[tokio::test]
async fn a_stored_answer_is_on_record_as_one() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let gateway = Gateway::start(&with_cache(&upstream, "ttl: 5m", "")).await;
    let miss = chat().send(&gateway).await;
    stored(&gateway).await;
    let hit = chat().send(&gateway).await;
    assert_eq!(hit.header("cf-aig-cache-status"), Some("HIT"));
    let entry = one(&gateway, &id_of(&hit)).await;
    assert_eq!(
        (&entry["cached"], &entry["cost"]),
        (&json!(true), &json!(0.0))
    );
    assert_eq!(
        (&entry["saved"], &entry["cache_source"]),
        (&json!(0.00021), &json!(id_of(&miss)))
    );
    for answer in [&miss, &hit] {
        let body = stored_body(&gateway, &id_of(answer), "response").await;
        assert_eq!(body.text(), ANSWER);
    }
    assert_eq!(entries(&gateway, "?cached=true").await.len(), 1);
}

#[tokio::test]
async fn gateways_and_requests_say_what_is_kept() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let conf = format!(
        "{}accounts: {{ default: {{ gateways: {{ default: {{}}, quiet: {{ logs: {{ collect: false }} }}, brief: {{ logs: {{ payload: false }} }} }} }} }}\n",
        openai(&upstream)
    );
    let gateway = Gateway::start(&conf).await;
    for (name, header, value, kept, payload) in [
        ("default", "cf-aig-x", "1", true, true),
        ("default", "cf-aig-collect-log", "false", false, false),
        (
            "default",
            "cf-aig-collect-log-payload",
            "false",
            true,
            false,
        ),
        ("quiet", "cf-aig-x", "1", false, false),
        ("quiet", "cf-aig-collect-log", "true", true, true),
        ("brief", "cf-aig-x", "1", true, false),
        ("brief", "cf-aig-collect-log-payload", "true", true, true),
    ] {
        let path = CHAT.replace("default/default", &format!("default/{name}"));
        let request = Request::post(&path, QUESTION).header(header, value);
        let id = id_of(&request.send(&gateway).await);
        settled(&gateway).await;
        let found = gateway.ask(Request::get(&format!("/-/logs/{id}"))).await;
        assert_eq!(
            found.status == 200,
            kept,
            "{name} {header}: {}",
            found.text()
        );
        let body = gateway
            .ask(Request::get(&format!("/-/logs/{id}/request")))
            .await;
        assert_eq!(body.status == 200, payload, "{name} {header}");
        if kept {
            let entry = &found.json()["result"];
            assert_eq!(
                (&entry["tokens_in"], &entry["cost"]),
                (&json!(1000), &json!(0.00021))
            );
            assert_eq!(entry["request_headers"].is_null(), !payload);
            for fact in ["request_content_type", "response_content_type"] {
                assert_eq!(entry[fact], "application/json", "{name} {header}");
            }
        }
    }
    let refused = chat()
        .header("cf-aig-collect-log", "perhaps")
        .send(&gateway)
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .text()
            .contains("cf-aig-collect-log must be true or false")
    );
    // A request that is wrong in itself is not kept either where nothing is.
    let path = CHAT.replace("default/default", "default/quiet");
    let refused = Request::post(&path, QUESTION)
        .header("cf-aig-cache-ttl", "x")
        .send(&gateway)
        .await;
    let found = gateway
        .ask(Request::get(&format!("/-/logs/{}", id_of(&refused))))
        .await;
    assert_eq!((refused.status, found.status), (400, 404));
}

#[tokio::test]
async fn what_is_redacted_is_never_written() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let conf = format!(
        "logs: {{ redact: {{ headers: [x-team], json: [\"/messages/*/content\", \"/choices/*/message/content\"], patterns: ['card-\\d+'] }} }}\n{}",
        openai(&upstream)
    );
    let gateway = Gateway::start(&conf).await;
    let answer = Request::post(CHAT, r#"{"model":"gpt-4o-mini","user":"card-1234","messages":[{"role":"user","content":"sesame"}]}"#)
        .header("x-team", "tulip")
        .header("authorization", "Bearer sk-secret")
        .header("cf-aig-metadata", r#"{"paid":"card-99"}"#)
        .send(&gateway)
        .await;
    let request = stored_body(&gateway, &id_of(&answer), "request")
        .await
        .json();
    assert_eq!(request["messages"][0]["content"], "[redacted]");
    assert_eq!(request["user"], "[redacted]");
    assert_eq!(request["model"], "gpt-4o-mini");
    let response = stored_body(&gateway, &id_of(&answer), "response")
        .await
        .json();
    assert_eq!(response["choices"][0]["message"]["content"], "[redacted]");
    assert_eq!(answer.text(), ANSWER, "the client has its own bytes");
    let entry = one(&gateway, &id_of(&answer)).await;
    assert_eq!(entry["metadata"]["paid"], "[redacted]");
    drop(upstream);
    let gateway = gateway
        .restarted_after(Signal::SIGTERM, |directory| {
            let rest = r#""role":"user""#;
            assert!(is_written(&directory.join("data/logs"), rest));
            for secret in [
                "sesame",
                "tulip",
                "sk-secret",
                "card-99",
                "card-1234",
                "Because.",
            ] {
                assert!(
                    !is_written(&directory.join("data/logs"), secret),
                    "{secret}"
                );
            }
        })
        .await;
    assert_eq!(entries(&gateway, "").await.len(), 1, "a restart keeps it");
}

#[tokio::test]
async fn long_bodies_are_cut_and_say_so() {
    let upstream = Upstream::h1().await;
    let conf = format!("logs: {{ max_body: 64KiB }}\n{}", openai(&upstream));
    let gateway = Gateway::start(&conf).await;
    let long = String::from_utf8(vec![b'a'; 300 << 10]).unwrap();
    upstream.always(Answer::json(&long));
    let upload =
        Request::post(&path("openai", "files"), &long).header("content-type", "text/plain");
    let held = Request::post(CHAT, format!("{{\"model\":\"m\",\"x\":\"{long}\"}}"));
    let retried = held.clone().header("cf-aig-max-attempts", "2");
    for request in [upload, held, retried] {
        let answer = request.send(&gateway).await;
        assert_eq!(answer.body.len(), long.len());
        let entry = one(&gateway, &id_of(&answer)).await;
        assert!(entry["request_size"].as_u64().unwrap() >= 300 << 10);
        for which in ["request", "response"] {
            let body = stored_body(&gateway, &id_of(&answer), which).await;
            assert_eq!(body.body.len(), 64 << 10, "{which}");
            assert_eq!(body.header("tollgate-body-complete"), Some("false"));
        }
    }
}

#[tokio::test]
async fn stored_bodies_are_no_pages_for_browsers() {
    let upstream = Upstream::answering(
        Answer::new(200)
            .header("content-type", "text/html")
            .text("<script>alert(1)</script>"),
    )
    .await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let answer = chat().send(&gateway).await;
    let body = stored_body(&gateway, &id_of(&answer), "response").await;
    assert_eq!(body.text(), "<script>alert(1)</script>");
    assert_eq!(
        body.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(body.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        body.header("content-security-policy"),
        Some("default-src 'none'; sandbox")
    );
}

#[tokio::test]
async fn entries_are_found_rated_and_removed() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let metadata =
            json!({ "number": number, "parity": if number % 2 == 0 { "even" } else { "odd" } });
        let request = chat().header("cf-aig-metadata", &metadata.to_string());
        ids.push(id_of(&request.send(&gateway).await));
    }
    let pair = json!([
        { "key": "metadata.key", "operator": "eq", "value": ["parity"] },
        { "key": "metadata.value", "operator": "eq", "value": ["odd"] },
    ]);
    assert_eq!(entries(&gateway, &filtered(&pair)).await.len(), 3);
    // By pages, and by cursor: the newest first.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = page(&gateway, &format!("?per_page=3{cursor}")).await;
        assert_eq!(page["result_info"]["total_count"], 7);
        seen.extend(
            page["result"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["id"].as_str().unwrap().to_owned()),
        );
        match page["result_info"]["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.reverse();
    assert_eq!(seen, ids);
    let second = entries(&gateway, "?per_page=3&page=2&order_by_direction=asc").await;
    assert_eq!(second[0]["id"], ids[3]);
    // Rated.
    let rate = |body: &str| {
        Request::new("PATCH", &format!("{ROOT}/{}", ids[0]))
            .header("content-type", "application/json")
            .body(body)
    };
    let rated = gateway
        .ask(rate(
            r#"{"feedback":-1,"score":42,"metadata":{"seen":true}}"#,
        ))
        .await;
    assert_eq!(rated.status, 200, "{}", rated.text());
    let entry = one(&gateway, &ids[0]).await;
    assert_eq!(
        (&entry["feedback"], &entry["score"], &entry["metadata"]),
        (&json!(-1), &json!(42.0), &json!({ "seen": true }))
    );
    assert_eq!(entries(&gateway, "?feedback=-1").await.len(), 1);
    // Removed, with their bodies.
    let removed = gateway
        .ask(Request::new(
            "DELETE",
            &format!("{ROOT}{}", filtered(&pair)),
        ))
        .await;
    assert_eq!(
        (removed.status, &removed.json()["success"]),
        (200, &json!(true))
    );
    assert_eq!(entries(&gateway, "").await.len(), 4);
    assert_eq!(stored_body(&gateway, &ids[1], "request").await.status, 404);
    // Of another gateway there is nothing.
    let other = gateway
        .ask(Request::get(
            &ROOT.replace("gateways/default", "gateways/other"),
        ))
        .await;
    assert_eq!(other.json()["result"], json!([]));
}

#[tokio::test]
async fn mistakes_name_the_parameter() {
    let gateway = Gateway::start("providers: { mock: {} }\n").await;
    let id = "019ac3e0-0000-7000-8000-000000000001";
    for (method, rest, body, status, code, expected) in [
        ("GET", "?per_page=51".to_owned(), "", 400, 7400, "per_page"),
        ("GET", "?colour=red".to_owned(), "", 400, 7400, "colour"),
        (
            "GET",
            filtered(&json!([{ "key": "colour", "operator": "eq", "value": ["x"] }])),
            "",
            400,
            7001,
            "filters[0].key",
        ),
        ("GET", filtered(&json!("x")), "", 400, 7400, "filters"),
        (
            "GET",
            "/export?format=xml".to_owned(),
            "",
            400,
            7400,
            "format",
        ),
        ("DELETE", "?limit=x".to_owned(), "", 400, 7400, "limit"),
        ("POST", String::new(), "", 405, 7405, ""),
        ("DELETE", format!("/{id}"), "", 405, 7405, ""),
        (
            "PATCH",
            format!("/{id}"),
            r#"{"feedback":2}"#,
            400,
            7400,
            "feedback",
        ),
        ("PATCH", format!("/{id}"), "{", 400, 7400, "body"),
        ("PATCH", format!("/{id}"), "{}", 404, 7404, ""),
        ("GET", format!("/{id}"), "", 404, 7404, ""),
        ("GET", format!("/{id}/request"), "", 404, 7404, ""),
        ("GET", "/x".to_owned(), "", 404, 7404, ""),
    ] {
        let answer = gateway
            .ask(Request::new(method, &format!("{ROOT}{rest}")).body(body))
            .await;
        let json = answer.json();
        let error = &json["errors"][0];
        assert_eq!(
            (answer.status, &error["code"]),
            (status, &json!(code)),
            "{method} {rest}: {json}"
        );
        assert_eq!(error["path"][0].as_str().unwrap_or(""), expected, "{json}");
        assert_eq!(
            (&json["success"], &json["result"]),
            (&json!(false), &json!(null))
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn any_number_of_entries_is_exported_while_it_is_read() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for _ in 0..60 {
        chat().header("user-agent", "=cmd()").send(&gateway).await;
    }
    settled(&gateway).await;
    let export = |query: &str| gateway.ask(Request::get(&format!("{ROOT}/export{query}")));
    let lines = export("?bodies=true&order_by_direction=asc").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let entries: Vec<Value> = lines
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(entries.len(), 60);
    assert!(entries.is_sorted_by_key(|entry| entry["id"].as_str().unwrap().to_owned()));
    assert_eq!(entries[0]["request"]["text"], QUESTION);
    assert_eq!(
        entries[0]["response"],
        json!({ "text": ANSWER, "complete": true })
    );
    let table = export("?format=csv&model=gpt-4o-mini").await.text();
    let mut rows = table.split("\r\n");
    assert!(rows.next().unwrap().starts_with("id,created_at,gateway,"));
    let first = rows.next().unwrap();
    assert!(
        first.contains("default/default,openai,gpt-4o-mini,") && first.contains(",'=cmd(),"),
        "{first}"
    );
    assert_eq!(rows.filter(|row| !row.is_empty()).count(), 59);
    assert_eq!(export("?model=other").await.text(), "");
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_told_and_traffic_goes_on() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    // A file where the directory should be.
    let gateway = Gateway::with(&openai(&upstream))
        .file("data", "a file")
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(chat().send(&gateway).await.status, 200);
    }
    gateway
        .metrics_when("the alarm, and five lost rows", |metrics| {
            metrics.sum("tollgate_log_store_alarm", &[]) == 1.0
                && metrics.sum("tollgate_log_store_dropped_total", &[("what", "row")]) == 5.0
        })
        .await;
    let page = gateway.ask(Request::get(ROOT)).await;
    assert_eq!(page.status, 503, "{}", page.text());
    assert!(
        page.text()
            .contains("the log store cannot be used right now")
    );
}

#[tokio::test]
async fn without_a_store_the_api_says_why_there_is_nothing() {
    let gateway = Gateway::start("logs: { max_size: 0 }\nproviders: { mock: {} }\n").await;
    let page = gateway.ask(Request::get(ROOT)).await;
    assert_eq!(page.status, 404);
    assert!(
        page.text().contains("logs.max_size is 0"),
        "{}",
        page.text()
    );
    assert!(!gateway.directory().join("data/logs").exists());
}

#[tokio::test]
async fn an_upgrade_keeps_every_entry() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        for _ in 0..20 {
            ids.push(id_of(&chat().send(&gateway).await));
        }
        if round < 2 {
            let upgraded = gateway.ask(Request::new("POST", "/-/upgrade")).await;
            assert_eq!(upgraded.status, 200, "{}", upgraded.text());
        }
    }
    let total = async || {
        page(&gateway, "").await["result_info"]["total_count"]
            .as_u64()
            .unwrap()
    };
    // An old process writes its last entries when it ends.
    let until = Instant::now() + Duration::from_secs(20);
    while total().await < ids.len() as u64 {
        assert!(Instant::now() < until, "{} of {}", total().await, ids.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(total().await, ids.len() as u64);
    assert_eq!(
        stored_body(&gateway, &ids[0], "response").await.text(),
        ANSWER
    );
}

#[tokio::test]
async fn a_kill_under_load_loses_at_most_a_second_and_nothing_that_was_written() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let mut gateway = Gateway::start(&openai(&upstream)).await;
    for _ in 0..3 {
        let address = gateway.public();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    let mut answered = Vec::new();
                    while !*stopped.borrow() {
                        match chat().try_open(address).await {
                            Some(live) => {
                                let answer = live.finish().await;
                                answered.push((
                                    Instant::now(),
                                    answer.header("cf-aig-log-id").map(str::to_owned),
                                ));
                            }
                            None => break, // it has been killed
                        }
                    }
                    answered
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // Whoever reads the list has it flushed first.
        let flushed = gateway
            .ask(Request::get(&format!("{ROOT}?per_page=50")))
            .await;
        let flushed = flushed.json()["result"].as_array().unwrap().clone();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let killed = Instant::now();
        gateway = gateway.restarted(Signal::SIGKILL).await;
        let _ = stop.send(true);
        let mut missing = Vec::new();
        for client in clients {
            for (when, id) in client.await.unwrap() {
                let Some(id) = id else { continue };
                let found = gateway.ask(Request::get(&format!("{ROOT}/{id}"))).await;
                if found.status != 200 {
                    missing.push(killed.saturating_duration_since(when));
                }
            }
        }
        for entry in flushed {
            one(&gateway, entry["id"].as_str().unwrap()).await;
        }
        let oldest = missing.iter().max().copied().unwrap_or_default();
        assert!(
            oldest < Duration::from_secs(1),
            "{oldest:?} before the end: {} missing",
            missing.len()
        );
    }
}
