//! Who may pass a gateway, what a token lets a request spend, and that no provider ever sees one.

use serde_json::Value;

use crate::analytics::analytics;
use crate::support::client::Told;
use crate::support::conf::{CHAT, at, entry, openai, path};
use crate::support::upstream::Received;
use crate::support::wire::Head;
use crate::support::{Answer, Connection, Gateway, Reply, Request, Response, Upstream, eventually};

const TOKEN: &str = "tg-ci-0123456789abcdef";
const OTHER: &str = "tg-app-0123456789abcdef";
const NONE_OF_THEM: &str = "no-token-0123456789abcdef";
const QUESTION: &str = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A gateway whose `authentication` says this beside its two tokens.
fn with_tokens(says: &str) -> String {
    format!(
        "log: {{ access: json }}\naccounts: {{ default: {{ gateways: {{ default: {{ authentication: {{ {says} tokens: [ \
         {{ name: ci, owner: team-a, value: {TOKEN} }}, {{ name: app, value: {OTHER} }} ] }} }} }} }} }}\n"
    )
}

/// With a stored key.
fn stored(upstream: &Upstream) -> String {
    let keys = "keys: [ { value: sk-stored } ]";
    format!("providers:\n{}", entry(upstream, "openai", "/v1", keys))
}

async fn upstream() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(r#"{"ok":true}"#));
    upstream
}

fn ask(headers: &[(&str, &str)]) -> Request {
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(Request::post(CHAT, QUESTION), with)
}

/// The envelope of a refusal, and its message.
fn refused(answer: &Response) -> String {
    let said = answer.json();
    assert_eq!((answer.status, &said["internalCode"]), (401, &2009.into()));
    assert_eq!(said["error"][0]["code"], 2009);
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    let message = said["message"].as_str().unwrap();
    assert!(message.starts_with("Unauthorized"), "{message}");
    message.to_owned()
}

/// Nothing of what the provider received holds a token.
fn no_token_in(requests: &[Received]) {
    for request in requests {
        let all = format!("{request:?} {}", request.text());
        assert!(!all.contains("tg-"), "{all}");
    }
}

#[tokio::test]
async fn only_who_brings_a_token_passes() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&(with_tokens("required: true,") + &stored(&upstream))).await;
    for (headers, expected) in [
        (vec![], "wants one of its tokens"),
        (
            vec![("cf-aig-authorization", NONE_OF_THEM)],
            "no token of this gateway",
        ),
        (
            vec![("cf-aig-authorization", "Bearer")],
            "no token of this gateway",
        ),
        (
            vec![("cf-aig-authorization", "")],
            "no token of this gateway",
        ),
        (
            vec![("cf-aig-authorization", &TOKEN[1..])],
            "no token of this gateway",
        ),
        (
            vec![("authorization", "Bearer sk-own")],
            "wants one of its tokens",
        ),
        (
            vec![
                ("cf-aig-authorization", TOKEN),
                ("cf-aig-authorization", TOKEN),
            ],
            "stands twice",
        ),
        // Both: then the key's place holds a key (contract, 2.1).
        (
            vec![
                ("cf-aig-authorization", NONE_OF_THEM),
                ("authorization", TOKEN),
            ],
            "no token of this gateway",
        ),
    ] {
        let said = refused(&ask(&headers).send(&gateway).await);
        assert!(said.contains(expected), "{headers:?}: {said}");
    }
    upstream.untouched();
    // Also before anything else is said: what there is, is not told to strangers.
    for target in ["/v1/default/default/nobody/x", "/v1/default/default"] {
        refused(&Request::post(target, "[]").send(&gateway).await);
    }
    for token in [
        TOKEN,
        OTHER,
        &format!("Bearer {TOKEN}"),
        &format!("bearer {OTHER}"),
    ] {
        let answer = ask(&[("cf-aig-authorization", token)]).send(&gateway).await;
        assert_eq!(answer.status, 200, "{token}");
    }
    let metrics = gateway.metrics().await;
    let refusals = metrics.sum("tollgate_errors_total", &[("kind", "unauthorized")]);
    assert_eq!(refusals, 10.0);
}

/// What the request brings, and the key that the provider is to receive; none where it is refused.
type Case = (Vec<(&'static str, &'static str)>, Option<&'static str>);

/// Precedence: a key on the request, then the stored one, for who may spend it.
#[tokio::test]
async fn a_key_on_the_request_goes_before_the_stored_one_which_a_token_may_spend() {
    let upstream = upstream().await;
    const HEADER: &str = "cf-aig-authorization";
    const KEY: &str = "authorization";
    let token_in_slot: Case = (
        vec![(KEY, "Bearer tg-ci-0123456789abcdef")],
        Some("Bearer sk-stored"),
    );
    let cases: [(&str, Vec<Case>); 3] = [
        (
            "required: true,",
            vec![
                (vec![(HEADER, TOKEN)], Some("Bearer sk-stored")),
                (
                    vec![(HEADER, TOKEN), (KEY, "Bearer sk-own")],
                    Some("Bearer sk-own"),
                ),
                (vec![(KEY, "Bearer sk-own")], None),
                token_in_slot.clone(),
                (vec![("x-api-key", OTHER)], Some("Bearer sk-stored")),
                // A token beside a token is no key either.
                (
                    vec![(HEADER, TOKEN), (KEY, OTHER)],
                    Some("Bearer sk-stored"),
                ),
            ],
        ),
        (
            "required: false,",
            vec![
                (vec![(HEADER, TOKEN)], Some("Bearer sk-stored")),
                (vec![(KEY, "Bearer sk-own")], Some("Bearer sk-own")),
                (vec![], Some("")),
                (vec![(HEADER, NONE_OF_THEM)], Some("")),
                token_in_slot.clone(),
            ],
        ),
        (
            "anyone_may_spend_stored_keys: true,",
            vec![(vec![], Some("Bearer sk-stored")), token_in_slot],
        ),
    ];
    for (says, cases) in cases {
        let gateway = Gateway::start(&(with_tokens(says) + &stored(&upstream))).await;
        for (headers, received) in cases {
            let before = upstream.requests().len();
            let answer = ask(&headers).send(&gateway).await;
            let requests = upstream.requests();
            let Some(received) = received else {
                refused(&answer);
                assert_eq!(requests.len(), before, "{says} {headers:?}");
                continue;
            };
            assert_eq!(answer.status, 200, "{says} {headers:?}");
            let seen = requests.last().unwrap().header("authorization");
            assert_eq!(seen.unwrap_or(""), received, "{says} {headers:?}");
        }
    }
    no_token_in(&upstream.requests());
}

#[tokio::test]
async fn a_token_in_the_query_is_one_and_stays_here() {
    let upstream = upstream().await;
    let keys = "keys: [ { value: stored-key } ]";
    let google = format!(
        "providers:\n{}",
        entry(&upstream, "google-ai-studio", "", keys)
    );
    let gateway = Gateway::start(&(with_tokens("required: true,") + &google)).await;
    let target = |query: &str| {
        path(
            "google-ai-studio",
            &format!("v1beta/models/gemini-2.5-flash:generateContent?{query}"),
        )
    };
    let answer = Request::post(&target(&format!("alt=sse&key={TOKEN}")), "{}")
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
    let seen = upstream.only().await;
    assert_eq!(seen.header("x-goog-api-key"), Some("stored-key"));
    assert!(
        seen.target.ends_with(":generateContent?alt=sse"),
        "{}",
        seen.target
    );
    refused(
        &Request::post(&target("key=sk-own"), "{}")
            .send(&gateway)
            .await,
    );
    no_token_in(&upstream.requests());
}

/// A proxy before the gateway may lose an upgrade and leave what was offered with it.
#[tokio::test]
async fn a_subprotocol_without_an_upgrade_stays_here() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&stored(&upstream)).await;
    let offered = "realtime, cf-aig-authorization.tg-no-0123456789abcdef";
    let answer = Request::get(&path("openai", "realtime?model=m"))
        .header("Sec-WebSocket-Protocol", offered)
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = upstream.requests();
    assert_eq!(asked[0].header("sec-websocket-protocol"), None);
}

/// A browser cannot set headers on a WebSocket.
#[tokio::test]
async fn a_websocket_brings_its_token_as_a_subprotocol() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&(with_tokens("required: true,") + &stored(&upstream))).await;
    let handshake = |offered: &str| {
        format!(
            "GET {} HTTP/1.1\r\nHost: gateway.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {offered}\r\n\r\n",
            path("openai", "realtime?model=m"),
        )
    };
    let open = async |offered: &str| -> Head {
        let mut connection = Connection::open(&gateway).await;
        connection.write(handshake(offered)).await;
        connection.head().await.unwrap()
    };
    let head = open("realtime, cf-aig-authorization.tg-no-0123456789abcdef").await;
    assert!(head.start.starts_with("HTTP/1.1 401 "), "{head:?}");
    upstream.untouched();
    let accepts = Reply::Upgrade(vec![
        ("Upgrade".into(), "websocket".into()),
        (
            "Sec-WebSocket-Accept".into(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
        ),
        ("Sec-WebSocket-Protocol".into(), "realtime".into()),
    ]);
    upstream.script(accepts.clone());
    let head = open(&format!("realtime, cf-aig-authorization.{TOKEN}")).await;
    assert!(head.start.starts_with("HTTP/1.1 101 "), "{head:?}");
    // Where a browser has its only key.
    upstream.script(accepts);
    let head = open(&format!("realtime, openai-insecure-api-key.{TOKEN}")).await;
    assert!(head.start.starts_with("HTTP/1.1 101 "), "{head:?}");
    for seen in upstream.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-stored"));
        assert_eq!(seen.header("sec-websocket-protocol"), Some("realtime"));
    }
    no_token_in(&upstream.requests());
}

/// What enters Pingora again has the head that the client sent: also there no token goes on.
#[tokio::test]
async fn a_token_stays_here_also_where_a_request_is_carried_or_its_length_is_unknown() {
    let upstream = upstream().await;
    for providers in [stored(&upstream), openai(&upstream)] {
        let gateway = Gateway::start(&(with_tokens("required: true,") + &providers)).await;
        for slot in ["authorization", "x-api-key"] {
            let call = ask(&[(slot, TOKEN)]);
            let carried = call.clone().header("cf-aig-usage", "true");
            assert_eq!(carried.send(&gateway).await.status, 200);
            let long = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(200_000));
            let retried = call
                .body(long)
                .told(Told::Open)
                .header("cf-aig-max-attempts", "2");
            assert_eq!(retried.send(&gateway).await.status, 200);
        }
    }
    assert_eq!(upstream.requests().len(), 8);
    no_token_in(&upstream.requests());
}

#[tokio::test]
async fn a_gateway_may_pass_nothing_without_a_key() {
    let upstream = upstream().await;
    let with = |says: &str| {
        with_tokens("").replace("authentication:", &format!("{says}, authentication:"))
    };
    let (own, token) = (
        ("authorization", "Bearer sk-own"),
        ("cf-aig-authorization", TOKEN),
    );
    let one = |brought: (&'static str, &'static str)| vec![brought];
    for (says, providers, headers, status) in [
        ("byok_only: true", openai(&upstream), vec![], 400),
        ("byok_only: true", openai(&upstream), one(token), 400),
        ("byok_only: true", openai(&upstream), one(own), 200),
        ("byok_only: true", stored(&upstream), vec![], 400),
        ("byok_only: true", stored(&upstream), one(token), 200),
        (
            "byok_only: true",
            at(&upstream, "openai", "/v1", "auth: none"),
            vec![],
            200,
        ),
        ("byok_only: false", openai(&upstream), vec![], 200),
    ] {
        let gateway = Gateway::start(&(with(says) + &providers)).await;
        let answer = ask(&headers).send(&gateway).await;
        assert_eq!(
            answer.status,
            status,
            "{says} {providers} {headers:?}: {}",
            answer.text()
        );
        if status == 400 {
            assert_eq!(answer.json()["internalCode"], 8009);
            assert!(answer.text().contains("byok_only"), "{}", answer.text());
        }
    }
    assert_eq!(upstream.requests().len(), 4);
}

/// A route whose targets stored keys pay for is open to who brings a token.
#[tokio::test]
async fn a_route_that_stored_keys_pay_for_wants_a_token() {
    let upstream = upstream().await;
    let routes =
        "routes: { r: { targets: [ { provider: openai, model: gpt-5-mini } ] } }, authentication:";
    let conf = with_tokens("").replace("authentication:", routes) + &stored(&upstream);
    let gateway = Gateway::start(&conf).await;
    let call = Request::post(
        &path("compat", "chat/completions"),
        QUESTION.replace("gpt-5-mini", "dynamic/r"),
    );
    let refused = call.clone().send(&gateway).await;
    assert_eq!(
        (refused.status, &refused.json()["internalCode"]),
        (400, &8009.into())
    );
    assert!(
        refused.text().contains("cf-aig-authorization"),
        "{}",
        refused.text()
    );
    for (header, token) in [("cf-aig-authorization", TOKEN), ("authorization", OTHER)] {
        let answer = call.clone().header(header, token).send(&gateway).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for seen in upstream.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-stored"));
    }
    no_token_in(&upstream.requests());
}

/// One token lets all steps pass, and none of them carries it on.
#[tokio::test]
async fn the_steps_of_a_universal_call_pass_by_its_token() {
    let upstream = Upstream::h1().await;
    upstream.script(Answer::new(500));
    upstream.script(Answer::json(r#"{"ok":true}"#));
    let gateway = Gateway::start(&(with_tokens("required: true,") + &stored(&upstream))).await;
    let step = |headers: Value| {
        serde_json::json!({ "provider": "openai", "endpoint": "chat/completions",
            "headers": headers, "query": { "model": "m", "messages": [] } })
    };
    let steps = serde_json::json!([
        step(serde_json::json!({ "authorization": format!("Bearer {OTHER}") })),
        step(serde_json::json!({ "authorization": "Bearer sk-own" })),
    ]);
    let call = Request::post("/v1/default/default", steps.to_string());
    refused(&call.clone().send(&gateway).await);
    upstream.untouched();
    let answer = call
        .header("cf-aig-authorization", TOKEN)
        .send(&gateway)
        .await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    let requests = upstream.requests();
    let keys: Vec<_> = requests
        .iter()
        .map(|seen| seen.header("authorization"))
        .collect();
    assert_eq!(keys, [Some("Bearer sk-stored"), Some("Bearer sk-own")]);
    no_token_in(&requests);
}

/// The record knows who called and why somebody was refused; nothing says a token.
#[tokio::test]
async fn the_log_says_who_called_and_no_token() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&(with_tokens("required: true,") + &openai(&upstream))).await;
    for brought in [
        ("cf-aig-authorization", TOKEN),
        ("authorization", OTHER),
        ("cf-aig-authorization", NONE_OF_THEM),
    ] {
        ask(&[brought]).send(&gateway).await;
    }
    let lines = eventually("three lines", || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("\"overhead_ms\""));
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() == 3).then_some(lines)
    });
    let consumers: Vec<_> = lines
        .await
        .iter()
        .map(|line| line["consumer"].clone())
        .collect();
    assert_eq!(
        consumers,
        [Value::from("ci"), Value::from("app"), Value::Null]
    );
    let logs =
        "/client/v4/accounts/default/ai-gateway/gateways/default/logs?order_by_direction=asc";
    let found = gateway.ask(Request::get(logs)).await.json();
    let entries = found["result"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{found}");
    for (entry, (consumer, denied_by)) in entries.iter().zip([
        (Value::from("ci"), Value::Null),
        (Value::from("app"), Value::Null),
        (Value::Null, Value::from("authentication")),
    ]) {
        assert_eq!(entry["authentication"], !consumer.is_null(), "{entry}");
        assert_eq!(
            (&entry["consumer"], &entry["denied_by"]),
            (&consumer, &denied_by)
        );
    }
    assert_eq!(entries[0]["owner"], "team-a");
    assert!(entries[1]["owner"].is_null(), "{}", entries[1]);
    let of_team = analytics(&gateway, "/-/analytics?owner=team-a").await;
    assert_eq!(of_team["totals"]["requests"], 1, "{of_team}");
    for entry in entries {
        let one = format!("/-/logs/{}", entry["id"].as_str().unwrap());
        let whole = gateway.ask(Request::get(&one)).await.everything();
        assert!(!whole.contains("0123456789abcdef"), "{whole}");
    }
    assert!(!gateway.log().contains("0123456789abcdef"));
    assert!(!gateway.metrics().await.text().contains("0123456789abcdef"));
}

/// Tokens change without a restart.
#[tokio::test]
async fn a_token_is_taken_away_by_a_reload() {
    let upstream = upstream().await;
    let rest = openai(&upstream);
    let gateway = Gateway::start(&(with_tokens("required: true,") + &rest)).await;
    let with = async || ask(&[("cf-aig-authorization", TOKEN)]).send(&gateway).await;
    assert_eq!(with().await.status, 200);
    let now = std::fs::read_to_string(gateway.conf())
        .unwrap()
        .replace(TOKEN, NONE_OF_THEM);
    std::fs::write(gateway.conf(), now).unwrap();
    let reloaded = gateway.ask(Request::post("/-/reload", "")).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    refused(&with().await);
}
