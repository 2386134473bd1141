//! Headers: what is removed, what is kept, what the gateway adds, and whose error it is.

use crate::support::conf::{CHAT, at, openai, path};
use crate::support::upstream::Received;
use crate::support::{Answer, Connection, Gateway, Protocol, Request, Response, Upstream};

/// Sent by the client, never seen by the provider.
const REMOVED: &[(&str, &str)] = &[
    ("cf-aig-authorization", "Bearer gateway-token"),
    ("cf-aig-metadata", r#"{"team":"x"}"#),
    ("Cf-Aig-Cache-TTL", "60"),
    ("cf-aig-event-id", "my-event"),
    ("cf-aig-anything-new", "1"),
    ("Connection", "keep-alive, X-Hop"),
    ("x-hop", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("TE", "trailers"),
];

/// Sent by the client, seen by the provider as it is.
const KEPT: &[(&str, &str)] = &[
    ("Authorization", "Bearer sk-own"),
    ("X-Stainless-Lang", "python"),
    ("openai-beta", "assistants=v2"),
    ("OpenAI-Beta", "realtime=v1"),
    ("x-twice", "b"),
    ("x-twice", "a"),
    ("x-twice", "b"),
    ("user-agent", "OpenAI/Python 1.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ("tracestate", "a=1,b=2"),
    ("baggage", "k=v;p"),
    ("x-empty", ""),
    ("x-inner", "a \t b"),
    ("cookie", "a=1; b=2"),
    ("x-latin", "caf\u{e9}"),
    ("x-forwarded-for", "10.0.0.1"),
    ("idempotency-key", "stainless-1"),
];

/// What HTTP itself puts there.
const FRAMING: &[&str] = &["host", "content-length", "content-type"];

/// One POST with all these headers, sent as exact bytes (Latin-1).
fn raw_post(headers: &[&[(&str, &str)]]) -> Vec<u8> {
    let mut head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway.example\r\ncontent-type: application/json\r\n"
    );
    for (name, value) in headers.iter().copied().flatten() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("content-length: 2\r\n\r\n{}");
    head.chars()
        .map(|letter| u8::try_from(u32::from(letter)).unwrap())
        .collect()
}

fn assert_kept(seen: &Received, kept: &[(&str, &str)]) {
    for (name, _) in kept {
        let same = |(key, _): &&(&str, &str)| key.eq_ignore_ascii_case(name);
        let wanted: Vec<_> = kept.iter().filter(same).map(|(_, value)| *value).collect();
        assert_eq!(seen.all(name), wanted, "{name}");
    }
}

fn assert_nothing_else(seen: &Received, kept: &[(&str, &str)]) {
    for (name, value) in &seen.headers {
        let known = kept
            .iter()
            .map(|(key, _)| *key)
            .chain(FRAMING.iter().copied());
        let known = known.into_iter().any(|key| key.eq_ignore_ascii_case(name));
        assert!(known, "the provider saw {name}: {value}");
    }
}

#[tokio::test]
async fn only_gateway_and_hop_by_hop_headers_are_removed() {
    let upstream = Upstream::answering(Answer::json("{}")).await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    connection.write(raw_post(&[REMOVED, KEPT])).await;
    assert_eq!(connection.read().await.unwrap().status, 200);
    let seen = upstream.only().await;
    assert_kept(&seen, KEPT);
    assert_nothing_else(&seen, KEPT);
}

#[tokio::test]
async fn http2_clients_and_providers_keep_their_headers_too() {
    for client in [Protocol::H1, Protocol::H2] {
        let upstream = Upstream::h2c().await;
        upstream.script(Answer::json("{}").header("x-answer", "1"));
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "http: h2")).await;
        let mut request = Request::post(CHAT, "{}").over(client);
        let ours = [
            ("authorization", "Bearer sk-own"),
            ("x-twice", "b"),
            ("x-twice", "a"),
            ("traceparent", "00-1-2-3"),
        ];
        for (name, value) in ours.iter().chain(&[("cf-aig-metadata", "{}")]) {
            request = request.header(name, value);
        }
        let answer = request.send(&gateway).await;
        assert_eq!((answer.status, answer.header("x-answer")), (200, Some("1")));
        let seen = upstream.only().await;
        assert_eq!(seen.version, "HTTP/2.0");
        assert_eq!(seen.all("host"), [upstream.address().to_string()]);
        assert_kept(&seen, &ours);
        assert_nothing_else(&seen, &ours);
    }
}

#[tokio::test]
async fn configured_headers_are_set() {
    let upstream = Upstream::answering(Answer::json("{}")).await;
    let more = r#"headers: { x-org: "acme", x-team: "${TEAM}" }"#;
    let gateway = Gateway::with(&at(&upstream, "openai", "/v1", more))
        .env("TEAM", "search")
        .start()
        .await;
    Request::post(CHAT, "{}")
        .header("x-org", "client")
        .send(&gateway)
        .await;
    let seen = upstream.only().await;
    assert_eq!(
        (seen.all("x-org"), seen.all("x-team")),
        (vec!["acme"], vec!["search"])
    );
}

/// Asserts `count` values of `name` and returns the first.
fn single<'a>(answer: &'a Response, name: &str) -> &'a str {
    let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
    assert_eq!(
        answer.headers.iter().filter(same).count(),
        1,
        "{name} in {:?}",
        answer.headers
    );
    answer.header(name).unwrap()
}

fn assert_uuid_v7(id: &str) {
    let uuid = uuid::Uuid::parse_str(id).unwrap();
    assert_eq!((uuid.get_version_num(), uuid.to_string().as_str()), (7, id));
}

#[tokio::test]
async fn answers_say_who_served_them() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let request = Request::post(CHAT, r#"{"messages":[],"model":"gpt-5"}"#).over(protocol);
        let answer = request
            .clone()
            .header("cf-aig-event-id", "my event/1")
            .send(&gateway)
            .await;
        let id = single(&answer, "cf-aig-log-id");
        assert_uuid_v7(id);
        assert_eq!(single(&answer, "cf-aig-request-id"), id);
        assert_eq!(single(&answer, "cf-aig-event-id"), "my event/1");
        assert_eq!(single(&answer, "cf-aig-step"), "0");
        assert_eq!(single(&answer, "cf-aig-provider"), "openai");
        assert_eq!(single(&answer, "cf-aig-model"), "gpt-5");
        assert_eq!(answer.header("tollgate-error-source"), None);
        let another = request.send(&gateway).await;
        assert_eq!(
            single(&another, "cf-aig-event-id"),
            single(&another, "cf-aig-log-id")
        );
        assert_ne!(single(&another, "cf-aig-log-id"), id);
    }
}

#[tokio::test]
async fn the_model_is_read_from_the_path_too() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&at(&upstream, "google-ai-studio", "", "")).await;
    let target = path(
        "google-ai-studio",
        "v1beta/models/gemini-2.5-pro:generateContent",
    );
    let answer = Request::post(&target, "{}").send(&gateway).await;
    assert_eq!(single(&answer, "cf-aig-model"), "gemini-2.5-pro");
    assert_eq!(single(&answer, "cf-aig-provider"), "google-ai-studio");
}

/// Sent by the provider, seen by the client as it is.
const ANSWERED: &[(&str, &str)] = &[
    ("content-type", "application/json; charset=utf-8"),
    ("set-cookie", "b=1; Path=/"),
    ("set-cookie", "a=2"),
    ("x-ratelimit-remaining-requests", "59"),
    ("openai-processing-ms", "123"),
    ("x-request-id", "req_1"),
    ("server", "cloudflare"),
    ("alt-svc", "h3=\":443\""),
    ("strict-transport-security", "max-age=1"),
    ("cache-control", "no-store"),
    ("etag", "W/\"1\""),
    ("x-empty", ""),
    ("vary", "origin"),
];

/// Sent by the provider for this hop only, or not the provider's to say.
const SWALLOWED: &[(&str, &str)] = &[
    ("connection", "x-hop"),
    ("x-hop", "1"),
    ("proxy-connection", "keep-alive"),
];

#[tokio::test]
async fn the_providers_headers_reach_the_client() {
    let upstream = Upstream::h1().await;
    let mut scripted = Answer::new(200).text("{}");
    for (name, value) in ANSWERED.iter().chain(SWALLOWED) {
        scripted = scripted.header(name, value);
    }
    upstream.always(scripted);
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let answer = Request::post(CHAT, "{}")
            .over(protocol)
            .send(&gateway)
            .await;
        let values = |name: &str| -> Vec<String> {
            let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
            answer
                .headers
                .iter()
                .filter(same)
                .map(|(_, value)| value.clone())
                .collect()
        };
        for (name, _) in ANSWERED {
            let wanted: Vec<_> = ANSWERED
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| *value)
                .collect();
            assert_eq!(values(name), wanted, "{name}");
        }
        assert_eq!(values("x-hop"), Vec::<String>::new());
        assert_eq!(values("proxy-connection"), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_provider_cannot_pose_as_the_gateway() {
    let scripted = Answer::json("{}")
        .header("cf-aig-log-id", "forged")
        .header("cf-aig-step", "7")
        .header("tollgate-error-source", "gateway");
    let upstream = Upstream::answering(scripted).await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert_uuid_v7(single(&answer, "cf-aig-log-id"));
    assert_eq!(single(&answer, "cf-aig-step"), "0");
    assert_eq!(answer.header("tollgate-error-source"), None);
}

#[tokio::test]
async fn provider_errors_pass_verbatim() {
    let body = "{\"error\": {\"message\":\"Rate limit\\u2026\"} }\r\n \n";
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for status in [
        400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529,
    ] {
        upstream.script(
            Answer::new(status)
                .header("content-type", "application/json")
                .header("retry-after", "17")
                .header("x-should-retry", "true")
                .text(body),
        );
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        assert_eq!(answer.header("retry-after"), Some("17"), "{status}");
        assert_eq!(
            single(&answer, "tollgate-error-source"),
            "provider",
            "{status}"
        );
        assert_eq!(single(&answer, "cf-aig-step"), "0");
    }
    assert_eq!(
        upstream.requests().len(),
        14,
        "an error of the provider is not retried"
    );
}

#[tokio::test]
async fn redirects_pass_and_are_not_followed() {
    let elsewhere = Upstream::h1().await;
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for status in [301, 302, 303, 307, 308] {
        let location = elsewhere.url("/stolen?a=%2F");
        upstream.script(Answer::new(status).header("location", &location));
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(location.as_str()))
        );
    }
    elsewhere.untouched();
}

#[tokio::test]
async fn answers_without_a_body_keep_their_shape() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        for status in [204, 304] {
            upstream.script(Answer::new(status).header("x-kept", "1"));
            let answer = Request::get(&path("openai", "models"))
                .over(protocol)
                .send(&gateway)
                .await;
            assert_eq!(
                (answer.status, answer.header("x-kept"), answer.body.len()),
                (status, Some("1"), 0)
            );
        }
        upstream.script(Answer::new(200).declaring(1234));
        let answer = Request::new("HEAD", &path("openai", "models"))
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (200, Some("1234"))
        );
    }
}
