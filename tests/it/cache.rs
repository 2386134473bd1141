//! The cache: what counts as the same request, what is kept, and for how long.

use std::time::Duration;

use crate::support::conf::{CHAT, entry, path};
use crate::support::upstream::End;
use crate::support::{
    Answer, Ending, Gateway, Protocol, Request, Response, Upstream, body, eventually,
};

/// A gateway `default` that caches, and `shared`, `plain` beside it, in front of `upstream`.
pub fn cached(upstream: &Upstream) -> String {
    with_cache(upstream, "ttl: 5m", "")
}

/// As [`cached`], with these keys under the gateway's `cache` and beside it.
pub fn with_cache(upstream: &Upstream, cache: &str, beside: &str) -> String {
    let providers = [
        entry(upstream, "openai", "/v1", ""),
        entry(upstream, "anthropic", "", ""),
        entry(upstream, "google-ai-studio", "", ""),
        entry(upstream, "aws-bedrock", "", "paths: []"),
    ];
    format!(
        "providers:\n{}accounts: {{ default: {{ gateways: {{ \
         default: {{ cache: {{ {cache} }}{beside} }}, \
         shared: {{ cache: {{ shared: true }} }}, plain: {{}} }} }} }}\n",
        providers.concat()
    )
}

pub const BODY: &str = r#"{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]}"#;

pub fn chat(body: &str) -> Request {
    Request::post(CHAT, body).header("authorization", "Bearer sk-one")
}

pub fn status(answer: &Response) -> &str {
    answer.header("cf-aig-cache-status").unwrap_or("-")
}

/// Sends it, and waits until what came is stored.
pub async fn store(
    gateway: &Gateway,
    upstream: &Upstream,
    request: &Request,
    reply: Answer,
) -> Response {
    upstream.script(reply);
    let answer = request.send(gateway).await;
    assert_eq!(status(&answer), "MISS");
    stored(gateway).await;
    answer
}

/// Waits until no answer is in flight any more.
pub async fn stored(gateway: &Gateway) {
    gateway
        .metrics_when("no flight", |metrics| {
            metrics.sum("tollgate_cache_flights", &[]) == 0.0
        })
        .await;
}

fn answer(text: &str) -> Answer {
    Answer::json(&format!(r#"{{"choices":[],"text":"{text}"}}"#))
}

#[tokio::test]
async fn the_second_of_two_equal_requests_is_a_hit_with_the_same_bytes() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let upstream = Upstream::h1().await;
        let gateway = Gateway::start(&cached(&upstream)).await;
        let request = chat(BODY).over(protocol);
        let reply = answer("one")
            .header("x-request-id", "req_1")
            .header("set-cookie", "a=b")
            .header("X-Custom", "kept");
        let first = store(&gateway, &upstream, &request, reply).await;
        assert_eq!(first.header("x-request-id"), Some("req_1"));
        assert_eq!(first.header("age"), None);
        let second = request.send(&gateway).await;
        assert_eq!((second.status, status(&second)), (200, "HIT"));
        assert_eq!((&second.body, second.ending), (&first.body, Ending::Whole));
        assert_eq!(second.header("x-custom"), Some("kept"));
        assert_eq!(second.header("content-type"), Some("application/json"));
        assert_eq!(second.header("x-request-id"), None);
        assert_eq!(second.header("set-cookie"), None);
        assert!(second.header("age").is_some());
        assert_ne!(
            second.header("cf-aig-log-id"),
            first.header("cf-aig-log-id")
        );
        upstream.only().await;
    }
}

#[tokio::test]
async fn every_change_of_the_request_is_a_miss_and_no_change_of_its_form_is() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let base = r#"{"model":"m","temperature":0.5,"messages":[{"role":"system","content":"S"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:a"}}]}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    store(&gateway, &upstream, &chat(base), answer("base")).await;
    for same in [
        base.to_owned(),
        base.replace(":", " : ").replace("data : a", "data:a"),
        r#"{"tools":[{"function":{"name":"f"},"type":"function"}],"messages":[{"content":"S","role":"system"},{"content":[{"image_url":{"url":"data:a"},"type":"image_url"}],"role":"user"}],"temperature":0.5,"model":"m"}"#.to_owned(),
    ] {
        assert_eq!(status(&chat(&same).send(&gateway).await), "HIT", "{same}");
    }
    let other_ways = [
        chat(&base.replace("0.5", "0.6")),
        chat(&base.replace("data:a", "data:b")),
        chat(&base.replace("\"S\"", "\"T\"")),
        chat(&base.replace("\"f\"", "\"g\"")),
        chat(&base.replace("\"m\"", "\"n\"")),
        Request::post(CHAT, base).header("authorization", "Bearer sk-two"),
        Request::post(CHAT, base),
        Request::post(CHAT, base).header("x-api-key", "sk-one"),
        chat(base).header("openai-organization", "org"),
        chat(base).header("accept", "text/event-stream"),
        chat(base).header("accept-encoding", "gzip"),
        Request::post(&format!("{CHAT}?a=b"), base).header("authorization", "Bearer sk-one"),
    ];
    for (number, request) in other_ways.iter().enumerate() {
        upstream.script(answer(&number.to_string()));
        let other = request.send(&gateway).await;
        assert_eq!(status(&other), "MISS", "change {number}");
        assert!(other.text().contains(&format!("\"{number}\"")));
    }
    // What no provider looks at makes no difference.
    let same = chat(base)
        .header("user-agent", "x")
        .header("traceparent", "00-1");
    assert_eq!(status(&same.send(&gateway).await), "HIT");
}

#[tokio::test]
async fn nobody_sees_what_somebody_else_paid_for_unless_the_gateway_shares() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let shared = CHAT.replace("default/openai", "shared/openai");
    for (path, expected) in [(CHAT, "MISS"), (&shared, "HIT")] {
        let by = |key: &str| Request::post(path, BODY).header("authorization", key);
        store(&gateway, &upstream, &by("Bearer a"), answer("a")).await;
        if expected == "MISS" {
            upstream.script(answer("b"));
        }
        let other = by("Bearer b").send(&gateway).await;
        assert_eq!(status(&other), expected, "{path}");
    }
    // Another gateway is another cache, shared or not.
    upstream.script(answer("plain"));
    let plain = CHAT.replace("default/openai", "plain/openai");
    let answer = Request::post(&plain, BODY).send(&gateway).await;
    assert_eq!(status(&answer), "-");
}

#[tokio::test]
async fn a_key_of_the_clients_own_stands_for_model_and_body_only() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let keyed = |body: &str| chat(body).header("cf-aig-cache-key", "faq");
    store(&gateway, &upstream, &keyed(BODY), answer("faq")).await;
    let other = keyed(r#"{"model":"other"}"#).send(&gateway).await;
    assert_eq!(status(&other), "HIT");
    let others = [
        keyed(r#"{"model":"other","stream":true}"#),
        Request::post(CHAT, BODY)
            .header("cf-aig-cache-key", "faq")
            .header("authorization", "Bearer sk-two"),
        Request::post(&path("openai", "embeddings"), BODY)
            .header("cf-aig-cache-key", "faq")
            .header("authorization", "Bearer sk-one"),
    ];
    for request in others {
        upstream.script(answer("x"));
        assert_eq!(status(&request.send(&gateway).await), "MISS");
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|seen| seen.header("cf-aig-cache-key").is_none())
    );
}

#[tokio::test]
async fn parts_that_are_ignored_make_no_difference() {
    let upstream = Upstream::h1().await;
    let ignoring = with_cache(&upstream, r#"ignore: ["/user", "/messages/*/name"]"#, "");
    let gateway = Gateway::start(&ignoring).await;
    let body = |user: &str, name: &str, content: &str| {
        format!(r#"{{"user":"{user}","messages":[{{"name":"{name}","content":"{content}"}}]}}"#)
    };
    store(
        &gateway,
        &upstream,
        &chat(&body("a", "n", "x")),
        answer("x"),
    )
    .await;
    let same = chat(&body("b", "m", "x")).send(&gateway).await;
    assert_eq!(status(&same), "HIT");
    upstream.script(answer("y"));
    let other = chat(&body("a", "n", "y")).send(&gateway).await;
    assert_eq!(status(&other), "MISS");
}

#[tokio::test]
async fn requests_say_whether_they_meet_the_cache() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let skip = chat(BODY).header("cf-aig-skip-cache", "true");
    let legacy = chat(BODY).header("cf-skip-cache", "true");
    for request in [&skip, &skip, &legacy] {
        upstream.script(answer("skipped"));
        assert_eq!(status(&request.send(&gateway).await), "MISS");
    }
    store(&gateway, &upstream, &chat(BODY), answer("stored")).await;
    upstream.script(answer("skipped again"));
    let skipped = skip.send(&gateway).await;
    assert!(skipped.text().contains("skipped again"));
    assert!(chat(BODY).send(&gateway).await.text().contains("stored"));
    let off = chat(BODY).header("cf-aig-cache-ttl", "0");
    upstream.script(answer("off"));
    assert_eq!(status(&off.send(&gateway).await), "-");
    let seen = upstream.requests();
    let leaked = |name| seen.iter().any(|request| request.header(name).is_some());
    assert!(
        !leaked("cf-skip-cache") && !leaked("cf-aig-skip-cache") && !leaked("cf-aig-cache-ttl")
    );
}

#[tokio::test]
async fn a_gateway_without_a_cache_caches_what_a_request_asks_for() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let plain = CHAT.replace("default/openai", "plain/openai");
    let asked = Request::post(&plain, BODY).header("cf-aig-cache-ttl", "60");
    store(&gateway, &upstream, &asked, answer("kept")).await;
    assert_eq!(status(&asked.send(&gateway).await), "HIT");
    upstream.script(answer("not asked"));
    assert_eq!(
        status(&Request::post(&plain, BODY).send(&gateway).await),
        "-"
    );
    let legacy = Request::post(&plain, "{}").header("cf-cache-ttl", "60");
    store(&gateway, &upstream, &legacy, answer("kept")).await;
    assert_eq!(status(&legacy.send(&gateway).await), "HIT");
}

#[tokio::test]
async fn a_time_out_of_range_is_clamped_and_said_and_nonsense_refused() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    for (asked, taken) in [("1", "60"), ("99999999999", "2592000")] {
        let request = chat(&format!(r#"{{"n":{asked}}}"#)).header("cf-aig-cache-ttl", asked);
        upstream.script(answer("x"));
        let answer = request.send(&gateway).await;
        let note = answer.header("tollgate-cache-note").unwrap_or_default();
        assert!(note.contains(taken), "{note}");
    }
    let refused = chat(BODY)
        .header("cf-aig-cache-ttl", "soon")
        .send(&gateway)
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("cf-aig-cache-ttl"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn what_is_no_whole_answer_is_not_kept() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let error = |code| {
        Answer::new(code)
            .header("content-type", "application/json")
            .text("{}")
    };
    let done = "data: {}\n\ndata: [DONE]\n\n";
    let not_kept = [
        error(400),
        error(404),
        Answer::json(r#"{"error":{"message":"no"}}"#),
        Answer::sse().text("data: {}\n\n"),
        Answer::sse().text("data: {\"error\":{}}\n\ndata: [DONE]\n\n"),
        Answer::json("{\"choices\":["),
        Answer::sse().text(done).until_close(),
        Answer::sse().text(done).end(End::Close),
        Answer::json("{\"a\":1}").declaring(50).end(End::Close),
    ];
    for (number, reply) in not_kept.into_iter().enumerate() {
        let request = chat(&format!(r#"{{"case":{number}}}"#));
        upstream.script(reply);
        upstream.script(answer("second"));
        request.send(&gateway).await;
        stored(&gateway).await;
        let second = request.send(&gateway).await;
        assert_eq!(status(&second), "MISS", "case {number}");
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_arrives_whole_and_is_not_kept() {
    let upstream = Upstream::h1().await;
    let small = with_cache(&upstream, "max_body: 64KiB", "");
    let gateway = Gateway::start(&small).await;
    let bytes = body::octets(1_000_000);
    let pieces = |answer: Answer| bytes.chunks(10_000).fold(answer, Answer::bytes);
    for framed in [Answer::new(200).chunked(), Answer::new(200)] {
        for _ in 0..2 {
            upstream.script(pieces(framed.clone()));
            let answer = chat(BODY).send(&gateway).await;
            assert_eq!((status(&answer), &answer.body), ("MISS", &bytes));
            assert_eq!(answer.ending, Ending::Whole);
            stored(&gateway).await;
        }
    }
}

#[tokio::test]
async fn streams_and_binary_answers_are_given_again_byte_by_byte_in_every_encoding() {
    let sse = "event: message_start\ndata: {\"a\":1}\n\n: ping\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let messages = path("anthropic", "v1/messages");
    let speech = path("openai", "audio/speech");
    let octets = body::octets(70_000);
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        for encoding in ["identity", "gzip", "br", "zstd"] {
            let tag = format!(r#"{{"{protocol:?}":"{encoding}"}}"#);
            let encode = |bytes: &[u8]| body::encoded(encoding, bytes);
            let cases = [
                (&messages, Answer::sse(), encode(sse.as_bytes())),
                (
                    &messages,
                    Answer::new(200).header("content-type", "application/json"),
                    encode(br#"{"type":"message"}"#),
                ),
                (
                    &speech,
                    Answer::new(200)
                        .header("content-type", "audio/mpeg")
                        .chunked(),
                    encode(&octets),
                ),
            ];
            for (number, (path, reply, bytes)) in cases.into_iter().enumerate() {
                let request = Request::post(path, tag.replace('}', &format!(",\"n\":{number}}}")))
                    .header("accept-encoding", encoding)
                    .over(protocol);
                let reply = match encoding {
                    "identity" => reply,
                    encoding => reply.header("content-encoding", encoding),
                };
                let reply = bytes.chunks(1000).fold(reply, Answer::bytes);
                let first = store(&gateway, &upstream, &request, reply).await;
                let again = request.send(&gateway).await;
                assert_eq!(status(&again), "HIT", "{encoding} {path}");
                assert_eq!((&first.body, &again.body), (&bytes, &bytes));
                assert_eq!(again.header("content-type"), first.header("content-type"));
                assert_eq!(
                    again.header("content-encoding"),
                    first.header("content-encoding")
                );
                assert_eq!(again.ending, Ending::Whole);
            }
        }
    }
}

#[tokio::test]
async fn a_paced_replay_keeps_the_pauses() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&with_cache(&upstream, "replay: paced", "")).await;
    let request = chat(r#"{"stream":true}"#);
    let reply = Answer::sse()
        .text("data: 1\n\n")
        .pause(Duration::from_millis(400))
        .text("data: 2\n\n")
        .text("data: [DONE]\n\n");
    let first = store(&gateway, &upstream, &request, reply).await;
    let began = std::time::Instant::now();
    let mut live = request.open(&gateway).await;
    assert_eq!(live.header("cf-aig-cache-status"), Some("HIT"));
    let one = live.read_past("1\n\n").await;
    assert_eq!(one, "data: 1\n\n", "the second event is not there yet");
    let rest = live.finish().await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(format!("{one}{}", rest.text()), first.text());
}

#[tokio::test]
async fn requests_that_change_something_are_never_answered_from_the_cache() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(answer("x"));
    let post = |path_: &str, body: &str| Request::post(&path("openai", path_), body);
    for request in [
        post("files", BODY),
        post("batches", BODY),
        post("threads/t/messages", BODY),
        post("responses", r#"{"background":true}"#),
        post("responses", r#"{"conversation":"c"}"#),
        Request::get(&path("openai", "models")),
        Request::new("POST", CHAT)
            .header("content-type", "multipart/form-data; boundary=x")
            .body("--x--"),
    ] {
        for _ in 0..2 {
            let answer = request.send(&gateway).await;
            assert_eq!(status(&answer), "-");
        }
    }
    assert_eq!(upstream.requests().len(), 14);
}

#[tokio::test]
async fn a_request_that_is_signed_is_cached_only_where_answers_are_shared() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let signed = |gateway: &str| {
        let path = format!("/v1/default/{gateway}/aws-bedrock/model/m/converse");
        Request::post(&path, "{}").header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00",
        )
    };
    for (name, expected) in [("default", "-"), ("shared", "HIT")] {
        upstream.script(answer("one"));
        signed(name).send(&gateway).await;
        stored(&gateway).await;
        if expected == "-" {
            upstream.script(answer("two"));
        }
        assert_eq!(status(&signed(name).send(&gateway).await), expected);
    }
}

#[tokio::test]
async fn a_large_body_of_unknown_length_meets_the_cache_too() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let long = format!(r#"{{"messages":["{}"]}}"#, "x".repeat(200_000));
    for protocol in [Protocol::H1, Protocol::H2] {
        let tagged = long.replace("messages", &format!("{protocol:?}"));
        let request = chat(&tagged)
            .over(protocol)
            .told(crate::support::client::Told::Open);
        store(&gateway, &upstream, &request, answer("long")).await;
        let again = request.send(&gateway).await;
        assert_eq!(status(&again), "HIT");
        assert!(again.text().contains("long"));
    }
    let seen = upstream.received(2).await;
    assert!(seen.iter().all(|request| request.body.len() > 200_000));
}

#[tokio::test]
async fn a_body_that_is_compared_byte_by_byte_names_its_model_all_the_same() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    // A number that 64 bits cannot hold.
    let request = chat(r#"{"model":"gpt-5","seed":98765432109876543210}"#);
    let miss = store(&gateway, &upstream, &request, answer("one")).await;
    let hit = request.send(&gateway).await;
    assert_eq!(status(&hit), "HIT");
    for answer in [miss, hit] {
        assert_eq!(answer.header("cf-aig-model"), Some("gpt-5"));
    }
}

#[tokio::test]
async fn a_hit_has_the_tokens_of_the_original_and_says_where_it_is_from() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::json(
        r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#,
    );
    let first = store(&gateway, &upstream, &chat(BODY), reply).await;
    chat(BODY).send(&gateway).await;
    let id = first.header("cf-aig-log-id").unwrap();
    let log = gateway.logged(&format!("cache_source={id}")).await;
    let line = log.lines().find(|line| line.contains("cache=hit")).unwrap();
    for fact in [
        "cache_tier=memory",
        "input_tokens=11",
        "output_tokens=7",
        "attempts=0",
    ] {
        assert!(line.contains(fact), "{fact} in {line}");
    }
}

#[tokio::test]
async fn the_log_names_what_made_a_request_miss() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(answer("x"));
    for minute in ["10:00", "10:01"] {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"It is 2026-11-24T{minute}:00Z."}}]}}"#
        );
        chat(&body).send(&gateway).await;
    }
    gateway.logged("cache_differs_at=/messages/0/content").await;
}

#[tokio::test]
async fn metrics_tell_hits_from_misses() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    store(&gateway, &upstream, &chat(BODY), answer("x")).await;
    for _ in 0..3 {
        chat(BODY).send(&gateway).await;
    }
    upstream.script(answer("y"));
    let skips = chat(BODY).header("cf-aig-skip-cache", "true");
    skips.send(&gateway).await;
    let count = |status: &'static str| {
        move |metrics: &crate::support::metrics::Metrics| {
            metrics.sum("tollgate_cache_requests_total", &[("status", status)])
        }
    };
    let metrics = gateway
        .metrics_when("three hits", |metrics| {
            count("hit")(metrics) == 3.0 && count("bypass")(metrics) == 1.0
        })
        .await;
    assert_eq!(count("miss")(&metrics), 1.0);
    assert_eq!(metrics.sum("tollgate_upstream_attempts_total", &[]), 2.0);
    assert_eq!(
        metrics.sum("tollgate_cache_serve_seconds_count", &[("tier", "memory")]),
        3.0
    );
    assert!(metrics.sum("tollgate_cache_stored_bytes_total", &[("tier", "memory")]) > 0.0);
}

#[tokio::test]
async fn a_reload_keeps_the_cache() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    store(&gateway, &upstream, &chat(BODY), answer("x")).await;
    let reload = gateway.ask(Request::new("POST", "/-/reload")).await;
    assert_eq!(reload.status, 200);
    assert_eq!(status(&chat(BODY).send(&gateway).await), "HIT");
    eventually("the reload", || {
        gateway.log().contains("reloaded").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_for_all_is_not_asked_for_in_part() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(Answer::json("{}"));
    let conditions = [
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
    ];
    let request = |body| {
        let mut request = chat(body);
        for name in conditions {
            request = request.header(name, "bytes=0-0");
        }
        request
    };
    assert_eq!(status(&request(BODY).send(&gateway).await), "MISS");
    let asked = upstream.only().await;
    assert!(conditions.iter().all(|name| asked.header(name).is_none()));
    // Nobody else has that answer, so it is the client's to say.
    let alone = request(BODY).header("cf-aig-skip-cache", "true");
    alone.send(&gateway).await;
    let asked = upstream.received(2).await.remove(1);
    assert!(conditions.iter().all(|name| asked.header(name).is_some()));
}
