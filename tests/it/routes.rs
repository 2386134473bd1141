//! Routes: several targets for the same calls, the next one where one fails.

use std::time::Duration;

use crate::support::client::Told;
use crate::support::conf::{CHAT, entry};
use crate::support::metrics::Metrics;
use crate::support::upstream::{End, Received};
use crate::support::{
    Answer, Digest, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body, ports,
};

const COMPAT: &str = "/v1/default/default/compat/chat/completions";
const SPENDS: &str = "authentication: { anyone_may_spend_stored_keys: true }";
const TARGETS: &str = "targets: [ { provider: openai, model: gpt-5-mini }, \
     { provider: groq, model: llama-3.3-70b-versatile } ]";
const MATCH: &str = "match: { provider: openai, model: gpt-5-mini }";

/// Two providers, and the route `support` over both.
struct Pair {
    openai: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

impl Pair {
    async fn start(more: &str) -> Self {
        Self::with(Upstream::h1().await, Upstream::h1().await, "http: h1", more).await
    }

    async fn with(openai: Upstream, groq: Upstream, version: &str, more: &str) -> Self {
        for provider in [&openai, &groq] {
            provider.always(Answer::json("{}"));
        }
        let routes = format!("routes: {{ support: {{ {MATCH}, {TARGETS} }} }}");
        let gateway = gateway(&openai, &groq, version, &format!("{routes}, {more}")).await;
        Self {
            openai,
            groq,
            gateway,
        }
    }

    async fn ask(&self, model: &str) -> Response {
        chat(CHAT, model).send(&self.gateway).await
    }
}

async fn gateway(openai: &Upstream, groq: &Upstream, version: &str, says: &str) -> Gateway {
    let key = |key: &str| format!("{version}, keys: [ {{ alias: default, value: {key} }} ]");
    let yaml = format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ {SPENDS}, {says} }} }} }} }}\n",
        entry(openai, "openai", "/v1", &key("sk-openai")),
        entry(groq, "groq", "/openai/v1", &key("sk-groq")),
    );
    Gateway::start(&yaml).await
}

fn chat(path: &str, model: &str) -> Request {
    let body = format!(r#"{{ "messages" : [], "model":"{model}", "temperature": 1.0 }}"#);
    Request::post(path, body)
}

fn named(received: &Received) -> String {
    let body: serde_json::Value = serde_json::from_str(&received.text()).unwrap();
    body["model"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_native_call_takes_its_route_and_falls_back_with_only_the_model_changed() {
    let pair = Pair::start("").await;
    pair.openai.script(Answer::new(500).text("down"));
    pair.groq.script(Answer::json(r#"{"from":"groq"}"#));
    let request = chat(&format!("{CHAT}?a=%2F"), "gpt-5-mini")
        .header("authorization", "Bearer sk-clients-own")
        .header("openai-organization", "org-1")
        .header("cookie", "c=1")
        .header("x-kept", "1")
        .header("tollgate-trace", "true");
    let answer = request.send(&pair.gateway).await;
    assert_eq!(
        (answer.status, &*answer.text()),
        (200, r#"{"from":"groq"}"#)
    );
    assert_eq!(answer.header("cf-aig-step"), Some("1"));
    assert_eq!(answer.header("cf-aig-provider"), Some("groq"));
    assert_eq!(
        answer.header("cf-aig-model"),
        Some("llama-3.3-70b-versatile")
    );
    let trace = answer.header("tollgate-trace").unwrap();
    let told: Vec<_> = trace
        .split(',')
        .filter_map(|one| one.rsplit_once(':'))
        .collect();
    let told: Vec<_> = told.iter().map(|(what, _)| *what).collect();
    let expected = [
        "openai/gpt-5-mini:server_error",
        "groq/llama-3.3-70b-versatile:200",
    ];
    assert_eq!(told, expected, "{trace}");
    let first = pair.openai.only().await;
    assert_eq!(first.header("tollgate-trace"), None);
    assert_eq!(first.header("authorization"), Some("Bearer sk-clients-own"));
    assert_eq!(first.target, "/v1/chat/completions?a=%2F");
    let sent = r#"{ "messages" : [], "model":"gpt-5-mini", "temperature": 1.0 }"#;
    assert_eq!(first.text(), sent);
    // What pays one provider is not shown to the other.
    let second = pair.groq.only().await;
    assert_eq!(second.all("authorization"), ["Bearer sk-groq"]);
    assert_eq!(second.target, "/openai/v1/chat/completions?a=%2F");
    assert_eq!(
        second.text(),
        sent.replace("gpt-5-mini", "llama-3.3-70b-versatile")
    );
    for withheld in ["openai-organization", "cookie"] {
        assert_eq!(second.header(withheld), None, "{withheld}");
    }
    assert_eq!(second.header("x-kept"), Some("1"));
    let line = pair.gateway.logged("route=support").await;
    for fact in [
        "step=1",
        "provider=groq",
        "attempts=2",
        "tried=openai/gpt-5-mini:server_error:",
        "model=llama-3.3-70b-versatile",
    ] {
        assert!(line.contains(fact), "{fact}: {line}");
    }
    let metrics = pair.gateway.metrics().await;
    for provider in ["openai", "groq"] {
        let attempts = metrics.sum(
            "tollgate_upstream_attempts_total",
            &[("provider", provider)],
        );
        assert_eq!(attempts, 1.0, "{provider}");
    }
    let fallen = [
        ("gateway", "default/default"),
        ("route", "support"),
        ("step", "1"),
    ];
    assert_eq!(metrics.sum("tollgate_route_requests_total", &fallen), 1.0);
    let failed = [("provider", "openai"), ("cause", "server_error")];
    assert_eq!(
        metrics.sum("tollgate_upstream_attempts_failed_total", &failed),
        1.0
    );
}

#[tokio::test]
async fn while_nothing_fails_the_first_target_answers() {
    let pair = Pair::start("").await;
    let answer = pair.ask("gpt-5-mini").await;
    assert_eq!(answer.header("cf-aig-step"), Some("0"));
    assert_eq!(answer.header("cf-aig-provider"), Some("openai"));
    assert_eq!(
        pair.openai.only().await.header("authorization"),
        Some("Bearer sk-openai")
    );
    pair.groq.untouched();
    // Another model takes no route.
    pair.openai.script(Answer::new(500).text("alone"));
    let answer = pair.ask("gpt-5").await;
    assert_eq!((answer.status, &*answer.text()), (500, "alone"));
    pair.groq.untouched();
}

#[tokio::test]
async fn a_route_is_asked_for_by_its_name() {
    let pair = Pair::start("").await;
    let groq = "/v1/default/default/groq/chat/completions";
    let compat = COMPAT.replace("/chat", "/v1/chat");
    for (number, path) in [CHAT, groq, COMPAT, &compat].into_iter().enumerate() {
        let request = chat(path, "dynamic/support");
        let answer = request.send(&pair.gateway).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("cf-aig-model"), Some("gpt-5-mini"), "{path}");
        let seen = pair.openai.received(number + 1).await;
        let last = seen.last().unwrap();
        assert_eq!(named(last), "gpt-5-mini");
        assert_eq!(last.target, "/v1/chat/completions", "{path}");
        assert_eq!(last.all("authorization"), ["Bearer sk-openai"], "{path}");
    }
    // On compat the key that a client sends is for no provider.
    let request = chat(COMPAT, "dynamic/support").header("authorization", "Bearer gateway-token");
    assert_eq!(request.send(&pair.gateway).await.status, 200);
    let last = pair.openai.received(5).await.pop().unwrap();
    assert_eq!(last.all("authorization"), ["Bearer sk-openai"]);
    let answer = chat(CHAT, "dynamic/other").send(&pair.gateway).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("No route is called `other`"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn compat_takes_the_provider_from_the_model() {
    let pair = Pair::start("").await;
    let request = chat(COMPAT, "groq/openai/gpt-oss-120b").header("authorization", "Bearer own");
    assert_eq!(request.send(&pair.gateway).await.status, 200);
    let seen = pair.groq.only().await;
    assert_eq!(named(&seen), "openai/gpt-oss-120b");
    assert_eq!(seen.all("authorization"), ["Bearer own"]);
    assert_eq!(seen.target, "/openai/v1/chat/completions");
    // A route serves it as it serves the native call.
    pair.openai.script(Answer::new(503));
    let answer = chat(COMPAT, "openai/gpt-5-mini").send(&pair.gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    for (path, body, status, says) in [
        (
            COMPAT,
            r#"{"model":"gpt-5-mini"}"#,
            400,
            "{provider}/{model}",
        ),
        (COMPAT, "not json", 400, "{provider}/{model}"),
        (
            COMPAT,
            r#"{"model":"nobody/m"}"#,
            400,
            "No provider is called `nobody`",
        ),
        (
            COMPAT,
            r#"{"model":"anthropic/m"}"#,
            400,
            "does not speak OpenAI's chat format",
        ),
        (
            "/v1/default/default/compat/embeddings",
            r#"{"model":"openai/m"}"#,
            404,
            "only chat/completions",
        ),
        (
            "/v1/default/default/compat/embeddings",
            r#"{"model":"dynamic/support"}"#,
            404,
            "only chat/completions",
        ),
    ] {
        let request = Request::post(path, body);
        let answer = request.send(&pair.gateway).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(says), "{body}: {}", answer.text());
    }
    let code = chat(COMPAT, "bare").send(&pair.gateway).await.json()["error"][0]["code"].clone();
    assert_eq!(code, 2019);
}

#[tokio::test]
async fn every_cause_that_another_target_may_mend_moves_on_and_others_do_not() {
    for (version, h2) in [("http: h1", false), ("http: h2", true)] {
        let upstream = || async {
            match h2 {
                true => Upstream::h2c().await,
                false => Upstream::h1().await,
            }
        };
        let never = "health: { failures: 1000 }";
        let pair = Pair::with(upstream().await, upstream().await, version, never).await;
        let mending = [
            401, 402, 403, 404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 529,
        ];
        let statuses = mending.map(|status| Reply::from(Answer::new(status).text("{}")));
        let faults = statuses.into_iter().chain([Reply::Close, Reply::Reset]);
        for (number, fault) in faults.enumerate() {
            let size = [1 << 10, (64 << 10) + 1, 5 << 20][number % 3];
            let content = body::json_of_size("gpt-5-mini", size);
            pair.openai.script(fault);
            pair.groq.script(Reply::Digest);
            let protocol = [Protocol::H1, Protocol::H2][number % 2];
            let request = Request::post(CHAT, &content);
            // A key of its own: a stored one would be left alone.
            let request = request.header("authorization", "Bearer own");
            let answer = request.over(protocol).send(&pair.gateway).await;
            assert_eq!(answer.status, 200, "{number} {version}: {}", answer.text());
            let text = String::from_utf8(content).unwrap();
            let changed = text.replacen("gpt-5-mini", "llama-3.3-70b-versatile", 1);
            assert_eq!(
                answer.text(),
                Digest::of(changed.as_bytes()).json(),
                "{number} {version}"
            );
            assert_eq!(
                answer.header("cf-aig-step"),
                Some("1"),
                "{number} {version}"
            );
        }
        for (number, status) in [400, 405, 413, 415, 422].into_iter().enumerate() {
            pair.openai.script(Answer::new(status).text("verbatim"));
            let answer = pair.ask("gpt-5-mini").await;
            assert_eq!((answer.status, &*answer.text()), (status, "verbatim"));
            pair.groq.received(16).await;
            pair.openai.received(17 + number).await;
        }
    }
}

#[tokio::test]
async fn each_target_is_tried_as_often_as_it_says_and_the_last_answer_is_given() {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    let targets = "targets: [ { provider: openai, model: a, retry: { max_attempts: 2 } }, \
         { provider: groq, model: b } ]";
    let says =
        format!("retry: {{ max_attempts: 3, delay: 1ms }}, routes: {{ r: {{ {targets} }} }}");
    let gateway = gateway(&openai, &groq, "http: h1", &says).await;
    openai.always(Answer::new(503).text("first"));
    groq.always(Answer::new(502).header("x-own", "kept").text("last"));
    let answer = chat(CHAT, "dynamic/r").send(&gateway).await;
    assert_eq!((answer.status, &*answer.text()), (502, "last"));
    assert_eq!(answer.header("x-own"), Some("kept"));
    assert_eq!(answer.header("cf-aig-step"), Some("1"));
    openai.received(2).await;
    groq.received(3).await;
    let line = gateway.logged("route=r").await;
    assert!(line.contains("attempts=5"), "{line}");
    // What the request says goes before both.
    let once = chat(CHAT, "dynamic/r").header("cf-aig-max-attempts", "1");
    assert_eq!(once.send(&gateway).await.status, 502);
    openai.received(3).await;
    groq.received(4).await;
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_or_is_late_is_left_for_the_next() {
    let groq = Upstream::answering(Answer::json("{}")).await;
    let port = ports::refusing();
    let late = Upstream::h1().await;
    late.always(Reply::Silence);
    let yaml = format!(
        "providers:\n  custom-gone: {{ base_url: \"http://127.0.0.1:{}\", allow_insecure: true, auth: none }}\n{}{}\
         accounts: {{ default: {{ gateways: {{ default: {{ routes: {{ r: {{ targets: [ \
         {{ provider: custom-gone, model: a }}, {{ provider: custom-late, model: b, first_byte: 300ms }}, \
         {{ provider: custom-good, model: c }} ] }} }} }} }} }} }}\n",
        port.number(),
        entry(&late, "custom-late", "", "auth: none"),
        entry(&groq, "custom-good", "", "auth: none"),
    );
    let gateway = Gateway::start(&yaml).await;
    let path = "/v1/default/default/custom-gone/chat/completions";
    let answer = chat(path, "dynamic/r").send(&gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("2"))
    );
    assert_eq!(named(&groq.only().await), "c");
    let line = gateway.logged("route=r").await;
    for tried in ["custom-gone/a:connect:", "custom-late/b:timeout:"] {
        assert!(line.contains(tried), "{line}");
    }
    // Nobody is left: our own word, with what the last one did.
    groq.always(Reply::Reset);
    let answer = chat(path, "dynamic/r").send(&gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (502, Some("2"))
    );
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
}

#[tokio::test]
async fn nothing_moves_on_once_an_answer_has_begun() {
    let pair = Pair::start("").await;
    let begun = Answer::sse()
        .text("data: {\"choices\":[]}\n\n")
        .end(End::Reset);
    pair.openai.script(begun);
    let answer = pair.ask("gpt-5-mini").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("error"), "{}", answer.text());
    pair.groq.untouched();
}

#[tokio::test]
async fn a_long_wait_is_not_waited_while_another_target_is_left() {
    let pair = Pair::start("retry: { max_attempts: 2 }").await;
    pair.openai
        .script(Answer::new(429).header("retry-after", "30").text("wait"));
    let began = std::time::Instant::now();
    let answer = pair.ask("gpt-5-mini").await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    pair.openai.received(1).await;
}

#[tokio::test]
async fn the_model_in_a_path_is_changed_there() {
    let (one, other) = (Upstream::h1().await, Upstream::h1().await);
    other.always(Answer::json("{}"));
    let yaml = format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ routes: {{ r: {{ \
         match: {{ provider: google-ai-studio, model: gemini-3-pro }}, targets: [ \
         {{ provider: google-ai-studio, model: gemini-3-pro }}, \
         {{ provider: google-ai-studio, model: gemini-3-flash }}, \
         {{ provider: custom-gemini, model: local }} ] }} }} }} }} }} }}\n",
        entry(&one, "google-ai-studio", "", ""),
        entry(
            &other,
            "custom-gemini",
            "",
            "format: gemini-generate, auth: none"
        ),
    );
    let gateway = Gateway::start(&yaml).await;
    one.always(Answer::new(503));
    let path = "/v1/default/default/google-ai-studio/v1beta/models/gemini-3-pro:generateContent?key=own&alt=sse";
    let body = r#"{"contents":[],"model":"not this"}"#;
    let request = Request::post(path, body);
    let answer = request.send(&gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("2"))
    );
    assert_eq!(answer.header("cf-aig-model"), Some("local"));
    let targets: Vec<_> = one
        .received(2)
        .await
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    let to = |model: &str| format!("/v1beta/models/{model}:generateContent?key=own&alt=sse");
    assert_eq!(targets, [to("gemini-3-pro"), to("gemini-3-flash")]);
    let last = other.only().await;
    assert_eq!(last.target, "/v1beta/models/local:generateContent?alt=sse");
    assert_eq!(last.text(), body);
}

#[tokio::test]
async fn a_fallbacks_answer_is_stored_as_its_own_unless_the_gateway_says_so() {
    let cache = "cache: { ttl: 5m }";
    let pair = Pair::start(cache).await;
    pair.openai.script(Answer::new(500));
    pair.groq.script(Answer::json(
        r#"{"id":"1","object":"chat.completion","choices":[]}"#,
    ));
    let first = pair.ask("gpt-5-mini").await;
    assert_eq!(
        (first.status, first.header("cf-aig-step")),
        (200, Some("1"))
    );
    crate::cache::stored(&pair.gateway).await;
    // Not the first target's: it is asked again.
    pair.openai.script(Answer::json(
        r#"{"id":"2","object":"chat.completion","choices":[]}"#,
    ));
    let second = pair.ask("gpt-5-mini").await;
    assert_eq!(second.header("cf-aig-cache-status"), Some("MISS"));
    assert!(second.text().contains(r#""id":"2""#));
    // Its own target's.
    let path = "/v1/default/default/groq/chat/completions";
    let native = chat(path, "llama-3.3-70b-versatile")
        .send(&pair.gateway)
        .await;
    assert_eq!(
        native.header("cf-aig-cache-status"),
        Some("HIT"),
        "{}",
        native.text()
    );
    assert!(native.text().contains(r#""id":"1""#));

    let pair = Pair::start("cache: { ttl: 5m, store_fallback: true }").await;
    pair.openai.script(Answer::new(500));
    pair.groq.script(Answer::json(
        r#"{"id":"1","object":"chat.completion","choices":[]}"#,
    ));
    assert_eq!(pair.ask("gpt-5-mini").await.status, 200);
    crate::cache::stored(&pair.gateway).await;
    for (path, model) in [(CHAT, "gpt-5-mini"), (path, "llama-3.3-70b-versatile")] {
        let again = chat(path, model).send(&pair.gateway).await;
        assert_eq!(again.header("cf-aig-cache-status"), Some("HIT"), "{model}");
        assert!(again.text().contains(r#""id":"1""#));
    }
}

#[tokio::test]
async fn a_target_has_its_own_bounds_of_time() {
    let says = |bounds: &str| {
        format!(
            "timeouts: {{ idle: 60s }}, routes: {{ r: {{ targets: [ {{ provider: openai, model: a, {bounds} }} ] }} }}"
        )
    };
    for bounds in ["idle: 300ms", "total: 400ms"] {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        let gateway = gateway(&openai, &groq, "http: h1", &says(bounds)).await;
        let hanging = Answer::sse()
            .text("data: {\"choices\":[]}\n\n")
            .end(End::Hang);
        openai.script(hanging);
        let answer = chat(CHAT, "dynamic/r").send(&gateway).await;
        assert_eq!(answer.status, 200, "{bounds}");
        assert!(
            answer.text().contains("error"),
            "{bounds}: {}",
            answer.text()
        );
        gateway.logged("error=upstream_timeout").await;
        // Others of the same provider have the gateway's.
        let late = Answer::json("{}").late(Duration::from_millis(700));
        openai.script(late);
        let answer = chat(CHAT, "other").send(&gateway).await;
        assert_eq!((answer.status, &*answer.text()), (200, "{}"), "{bounds}");
    }
}

const GROQ: &str = "/v1/default/default/groq/chat/completions";

#[tokio::test]
async fn a_stored_key_is_spent_only_where_the_gateway_permits_it() {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    let keys = |key: &str| format!("keys: [ {{ alias: default, value: {key} }} ]");
    let yaml = format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ routes: {{ r: {{ \
         match: {{ provider: openai, model: m }}, targets: [ {{ provider: openai, model: n }} ] }} }} }} }} }} }}\n",
        entry(&openai, "openai", "/v1", &keys("sk-openai")),
        entry(&groq, "groq", "/v1", &keys("sk-groq")),
    );
    let gateway = Gateway::start(&yaml).await;
    for path in [COMPAT, GROQ] {
        let request = chat(path, "dynamic/r").header("authorization", "Bearer own");
        let answer = request.send(&gateway).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            answer.text().contains("does not permit"),
            "{}",
            answer.text()
        );
    }
    openai.untouched();
    // The client's own key pays on the provider's own path; without one nothing does.
    openai.always(Answer::json("{}"));
    let own = chat(CHAT, "dynamic/r").header("authorization", "Bearer own");
    assert_eq!(own.send(&gateway).await.status, 200);
    assert_eq!(chat(CHAT, "m").send(&gateway).await.status, 200);
    let seen = openai.received(2).await;
    assert_eq!(seen[0].all("authorization"), ["Bearer own"]);
    assert_eq!(seen[1].all("authorization"), [""; 0]);
}

#[tokio::test]
async fn a_body_that_another_model_makes_shorter_or_longer_arrives_whole() {
    let pair = Pair::start("timeouts: { idle: 5s }").await;
    for protocol in [Protocol::H1, Protocol::H2] {
        for size in [65_535, 65_536, 65_537, 65_543, 65_544] {
            pair.openai.script(Reply::Digest);
            let content = body::json_of_size("openai/gpt-5", size);
            let sent = String::from_utf8(content).unwrap();
            let request = Request::post(COMPAT, &sent);
            let answer = request
                .told(Told::Open)
                .over(protocol)
                .send(&pair.gateway)
                .await;
            let changed = sent.replacen("openai/gpt-5", "gpt-5", 1);
            assert_eq!(
                answer.text(),
                Digest::of(changed.as_bytes()).json(),
                "{size}"
            );
        }
    }
    let line = pair.gateway.logged("bytes_in=65535").await;
    assert!(line.contains("model=gpt-5"), "{line}");
}

#[tokio::test]
async fn an_answer_that_is_not_asked_for_says_who_gave_it() {
    let chat_of = |id: &str| {
        Answer::json(&format!(
            r#"{{"id":"{id}","object":"chat.completion","choices":[]}}"#
        ))
    };
    let told = |answer: &Response| {
        [
            "cf-aig-provider",
            "cf-aig-model",
            "cf-aig-step",
            "cf-aig-cache-status",
        ]
        .map(|name| answer.header(name).unwrap_or_default().to_owned())
    };
    let pair = Pair::start("cache: { ttl: 5m, store_fallback: true }").await;
    pair.openai.script(Answer::new(500));
    pair.groq.script(chat_of("1"));
    pair.ask("gpt-5-mini").await;
    crate::cache::stored(&pair.gateway).await;
    let hit = pair.ask("gpt-5-mini").await;
    assert_eq!(told(&hit), ["groq", "llama-3.3-70b-versatile", "1", "HIT"]);
    let line = pair.gateway.logged("cache=hit").await;
    assert!(
        line.contains("provider=groq") && line.contains("step=1"),
        "{line}"
    );
    // Who waits for one that falls back.
    let pair = Pair::start("cache: { ttl: 5m }").await;
    let gate = Gate::new();
    pair.openai.script(Answer::new(500).after(&gate));
    pair.groq
        .script(chat_of("2").late(Duration::from_millis(300)));
    let address = pair.gateway.public();
    let ask = || tokio::spawn(async move { chat(CHAT, "gpt-5-mini").send(address).await });
    let first = ask();
    pair.openai.reached(1).await;
    let second = ask();
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(told(&first)[..3], ["groq", "llama-3.3-70b-versatile", "1"]);
    assert_eq!(
        told(&second),
        ["groq", "llama-3.3-70b-versatile", "1", "HIT"]
    );
    pair.groq.received(1).await;
}

#[tokio::test]
async fn what_is_cached_is_found_while_its_target_is_left_alone() {
    let pair = Pair::start("health: { failures: 1, open_for: 1m }, cache: { ttl: 5m }").await;
    pair.openai.script(Answer::json(
        r#"{"id":"1","object":"chat.completion","choices":[]}"#,
    ));
    pair.ask("gpt-5-mini").await;
    crate::cache::stored(&pair.gateway).await;
    pair.openai.script(Answer::new(503));
    let other = Request::post(CHAT, r#"{"model":"gpt-5-mini","n":1}"#);
    let other = other.send(&pair.gateway).await;
    assert_eq!(other.header("cf-aig-step"), Some("1"));
    let again = pair.ask("gpt-5-mini").await;
    assert_eq!(again.header("cf-aig-cache-status"), Some("HIT"));
    assert_eq!(again.header("cf-aig-step"), Some("0"));
    // What is not cached goes to the other one at once.
    let third = Request::post(CHAT, r#"{"model":"gpt-5-mini","n":2}"#);
    let third = third.send(&pair.gateway).await;
    assert_eq!(third.header("cf-aig-step"), Some("1"));
    pair.openai.received(2).await;
}

#[tokio::test]
async fn a_key_of_the_clients_own_for_the_cache_is_not_for_other_models() {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    let route = "match: { provider: openai, model: a }, targets: [ { provider: openai, model: a }, { provider: openai, model: b } ]";
    let says = format!("cache: {{ ttl: 5m }}, routes: {{ r: {{ {route} }} }}");
    let gateway = gateway(&openai, &groq, "http: h1", &says).await;
    let answer = |id: &str| {
        Answer::json(&format!(
            r#"{{"id":"{id}","object":"chat.completion","choices":[]}}"#
        ))
    };
    openai.script(Answer::new(500));
    openai.script(answer("of-b"));
    openai.script(answer("of-a"));
    let ask = || chat(CHAT, "a").header("cf-aig-cache-key", "k");
    assert!(ask().send(&gateway).await.text().contains("of-b"));
    crate::cache::stored(&gateway).await;
    assert!(ask().send(&gateway).await.text().contains("of-a"));
    crate::cache::stored(&gateway).await;
    let hit = ask().send(&gateway).await;
    assert_eq!(hit.header("cf-aig-cache-status"), Some("HIT"));
    assert!(hit.text().contains("of-a"));
}

#[tokio::test]
async fn signed_urls_and_accounts_are_withheld_and_models_in_paths_are_decoded() {
    let (bedrock, other) = (Upstream::h1().await, Upstream::h1().await);
    bedrock.always(Answer::new(503));
    other.always(Answer::json("{}"));
    let route = |model: &str| {
        format!(
            "{{ match: {{ provider: aws-bedrock, model: \"{model}\" }}, targets: [ \
             {{ provider: aws-bedrock, model: \"{model}\" }}, {{ provider: custom-b, model: \"a b/c\" }} ] }}"
        )
    };
    let yaml = format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ health: {{ failures: 1000 }}, \
         routes: {{ r: {}, s: {} }} }} }} }} }}\n",
        entry(&bedrock, "aws-bedrock", "", ""),
        entry(&other, "custom-b", "", "format: bedrock, auth: none"),
        route("m"),
        route("c-v1:0"),
    );
    let gateway = Gateway::start(&yaml).await;
    let path = |model: &str| {
        format!("/v1/default/default/aws-bedrock/bedrock-runtime/us-east-1/model/{model}/converse")
    };
    let signed = "?X-Amz-Credential=AKIA&X-Amz-Security-Token=SESSION&X-Amz-Signature=SIG&kept=1";
    let request = Request::post(&(path("m") + signed), "{}").header("chatgpt-account-id", "acc");
    assert_eq!(
        request.send(&gateway).await.header("cf-aig-step"),
        Some("1")
    );
    let seen = other.received(1).await.remove(0);
    assert!(
        seen.target.ends_with("/model/a%20b%2Fc/converse?kept=1"),
        "{}",
        seen.target
    );
    assert_eq!(seen.header("chatgpt-account-id"), None);
    let encoded = Request::post(&path("c-v1%3A0"), "{}");
    assert_eq!(
        encoded.send(&gateway).await.header("cf-aig-step"),
        Some("1")
    );
    // Uploads take no route.
    let upload = Request::new("POST", &path("m"))
        .body(vec![b'x'; 100_000])
        .send(&gateway)
        .await;
    assert_eq!(
        (upload.status, upload.header("cf-aig-step")),
        (503, Some("0"))
    );
    other.received(2).await;
}

#[tokio::test]
async fn a_route_is_not_asked_for_on_a_path_of_another_format() {
    let pair = Pair::start("").await;
    let path = "/v1/default/default/anthropic/v1/messages";
    let answer = chat(path, "dynamic/support").send(&pair.gateway).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("another format"),
        "{}",
        answer.text()
    );
    let secret = chat(&format!("{COMPAT}?key=SECRET&kept=1"), "dynamic/support");
    assert_eq!(secret.send(&pair.gateway).await.status, 200);
    let seen = pair.openai.only().await;
    assert_eq!(seen.target, "/v1/chat/completions?kept=1");
}

#[tokio::test]
async fn a_targets_total_bounds_that_target() {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    let says = |first: &str, second: &str| {
        format!(
            "routes: {{ r: {{ targets: [ {{ provider: openai, model: a, {first} }}, \
             {{ provider: groq, model: b, {second} }} ] }} }}"
        )
    };
    for (first, second) in [
        ("total: 400ms", "total: 10s"),
        ("first_byte: 700ms", "total: 500ms"),
    ] {
        let gateway = gateway(&openai, &groq, "http: h1", &says(first, second)).await;
        openai.always(Reply::Silence);
        groq.always(Answer::json("{}"));
        let answer = chat(COMPAT, "dynamic/r").send(&gateway).await;
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (200, Some("1")),
            "{first}"
        );
    }
}

#[tokio::test]
async fn a_key_that_no_token_comes_for_is_left_for_the_next_target() {
    let (vertex, other) = (Upstream::h1().await, Upstream::h1().await);
    other.always(Answer::json("{}"));
    let refusing = ports::refusing();
    let account = crate::examples::dummy("vertex");
    let yaml = format!(
        "providers:\n  google-vertex-ai: {{ connect_to: \"{}\", token_connect_to: \"127.0.0.1:{}\", allow_insecure: true, \
         keys: [ {{ value: '{account}' }} ] }}\n{}accounts: {{ default: {{ gateways: {{ default: {{ {SPENDS}, routes: {{ r: {{ \
         match: {{ provider: google-vertex-ai, model: g }}, targets: [ {{ provider: google-vertex-ai, model: g }}, \
         {{ provider: custom-b, model: h }} ] }} }} }} }} }} }}\n",
        vertex.address(),
        refusing.number(),
        entry(
            &other,
            "custom-b",
            "",
            "format: gemini-generate, auth: none"
        ),
    );
    let gateway = Gateway::start(&yaml).await;
    let path = "/v1/default/default/google-vertex-ai/v1/projects/p/locations/europe-west4/publishers/google/models/g:generateContent";
    let request = Request::post(path, "{}");
    let answer = request.header("tollgate-trace", "1").send(&gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1")),
        "{}",
        answer.text()
    );
    assert!(
        answer
            .header("tollgate-trace")
            .unwrap()
            .starts_with("google-vertex-ai/g:credential:")
    );
    vertex.untouched();
}

#[tokio::test]
async fn a_body_is_counted_as_the_client_sent_it() {
    let pair = Pair::start("").await;
    let named = r#"{"model":"dynamic/support"}"#;
    let steps = r#"[{"provider":"groq","endpoint":"chat/completions","query":{"model":"m"}}]"#;
    for (path, body) in [(CHAT, named), ("/v1/default/default", steps)] {
        let answer = Request::post(path, body).send(&pair.gateway).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let sent = (named.len() + steps.len()) as f64;
    let counted = |metrics: &Metrics| metrics.sum("tollgate_request_bytes_total", &[]) == sent;
    pair.gateway.metrics_when("what was sent", counted).await;
}

#[tokio::test]
async fn what_is_not_said_to_be_json_takes_no_route_however_small() {
    let pair = Pair::start("").await;
    pair.openai.always(Answer::new(500));
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let own = Request::new("POST", CHAT)
            .body(r#"{"model":"gpt-5-mini"}"#)
            .header("content-type", content_type);
        assert_eq!(own.send(&pair.gateway).await.status, 500, "{content_type}");
    }
    pair.groq.untouched();
    assert_eq!(pair.ask("gpt-5-mini").await.status, 200);
}
