//! API keys of our own: made, shown, rotated and revoked while the gateway runs; where they may stand,
//! what they let pass, and that no provider and no log ever has one. Who may do so: the tokens of
//! operators, and the set-up token before there are any.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::logs::settled;
use crate::support::conf::{CHAT, entry, path};
use crate::support::emitted::{assert_nowhere, assert_searched, told, written};
use crate::support::gateway::run;
use crate::support::{
    Answer, Connection, Gateway, Reply, Request, Response, Upstream, eventually, within,
};

const QUESTION: &str = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const ADMIN: &str = "ops-0123456789abcdef";
pub const KEYS: &str = "/-/keys";

/// Two gateways, of which one wants a token or a key, and a stored key.
fn conf(upstream: &Upstream) -> String {
    let stored = entry(upstream, "openai", "/v1", "keys: [ { value: sk-stored } ]");
    let google = entry(
        upstream,
        "google-ai-studio",
        "",
        "keys: [ { value: stored } ]",
    );
    format!(
        "log: {{ access: json }}\nproviders:\n{stored}{google}accounts: {{ default: {{ gateways: {{ \
         default: {{}}, closed: {{ authentication: {{ required: true }} }} }} }} }}\n"
    )
}

async fn upstream() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(r#"{"ok":true}"#));
    upstream
}

/// Runs `tollgate keys …` against a gateway; what it said, where that is expected to go well.
async fn keys(gateway: &Gateway, arguments: &[&str]) -> String {
    let conf = gateway.conf();
    let all = [&["keys"], arguments, &["--conf", conf.to_str().unwrap()]].concat();
    let output = run(&all).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A new key, as the command prints it.
pub async fn made(gateway: &Gateway, arguments: &[&str]) -> String {
    let key = keys(gateway, &[&["create", "--name", "app"], arguments].concat()).await;
    assert!(key.starts_with("tg-") && key.len() == 59, "{key}");
    key
}

fn id(key: &str) -> &str {
    key.split('-').nth(1).unwrap()
}

async fn chat(gateway: &Gateway, key: &str) -> Response {
    let call = Request::post(CHAT, QUESTION).header("cf-aig-authorization", key);
    call.send(gateway).await
}

/// Is refused, and says this.
fn refused(answer: &Response, expected: &str) {
    let said = answer.json();
    assert_eq!((answer.status, &said["internalCode"]), (401, &2009.into()));
    let message = said["message"].as_str().unwrap();
    assert!(message.contains(expected), "{expected}: {message}");
}

/// Asks the API as who has the set-up token.
pub async fn asks(gateway: &Gateway, method: &str, path: &str, body: Value) -> Response {
    let token = std::fs::read_to_string(gateway.directory().join("data/setup-token")).unwrap();
    let request = Request::new(method, path)
        .header("authorization", &format!("Bearer {}", token.trim()))
        .body(body.to_string());
    gateway.ask(request).await
}

#[tokio::test]
async fn a_key_passes_wherever_it_stands_and_no_provider_sees_it() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let key = made(&gateway, &["--owner", "team-a", "--metadata", "team=a"]).await;
    let bearer = format!("Bearer {key}");
    for (header, value) in [
        ("cf-aig-authorization", &key),
        ("cf-aig-authorization", &bearer),
        ("authorization", &bearer),
        ("x-api-key", &key),
        ("api-key", &key),
    ] {
        for target in [
            CHAT.to_owned(),
            CHAT.replacen("default/default", "default/closed", 1),
        ] {
            let call = Request::post(&target, QUESTION).header(header, value);
            let call = call.header("cf-aig-metadata", r#"{"team":"b","user":"u"}"#);
            assert_eq!(call.send(&gateway).await.status, 200, "{header} {target}");
        }
    }
    for seen in upstream.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-stored"));
    }
    let google = format!("v1beta/models/gemini-2.5-flash:generateContent?alt=sse&key={key}");
    let call = Request::post(&path("google-ai-studio", &google), "{}");
    assert_eq!(call.send(&gateway).await.status, 200);
    let requests = upstream.requests();
    let last = requests.last().unwrap();
    assert!(last.target.ends_with("?alt=sse"), "{}", last.target);
    assert_eq!(last.header("x-goog-api-key"), Some("stored"));
    // A key of the client's own goes before the stored one.
    let own = Request::post(CHAT, QUESTION)
        .header("cf-aig-authorization", &key)
        .header("authorization", "Bearer sk-own");
    assert_eq!(own.send(&gateway).await.status, 200);
    let requests = upstream.requests();
    let last = requests.last().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer sk-own"));
    for request in requests {
        let all = format!("{request:?} {}", request.text());
        assert!(!all.contains("tg-"), "{all}");
    }
    let line = gateway.logged("\"consumer_id\"").await;
    assert!(
        line.contains(&format!("\"consumer_id\":\"{}\"", id(&key))),
        "{line}"
    );
    let filter = r#"[{"key":"metadata.team","operator":"eq","value":["a"]}]"#;
    let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    let logs = gateway
        .ask(Request::get(&format!("/-/logs?filters={filter}")))
        .await
        .json();
    let entry = &logs["result"][0];
    assert_eq!(
        (&entry["consumer"], &entry["owner"]),
        (&json!("app"), &json!("team-a"))
    );
}

#[tokio::test]
async fn a_websocket_brings_its_key_as_a_subprotocol() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let key = made(&gateway, &[]).await;
    let open = async |offered: &str| {
        let mut connection = Connection::open(&gateway).await;
        let target = path("openai", "realtime?model=m");
        let handshake = format!(
            "GET {target} HTTP/1.1\r\nHost: g.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: realtime, {offered}\r\n\r\n"
        );
        connection.write(handshake).await;
        connection.head().await.unwrap().start
    };
    let accepts = Reply::Upgrade(vec![
        ("Upgrade".into(), "websocket".into()),
        (
            "Sec-WebSocket-Accept".into(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
        ),
        ("Sec-WebSocket-Protocol".into(), "realtime".into()),
    ]);
    for name in ["cf-aig-authorization", "openai-insecure-api-key"] {
        upstream.script(accepts.clone());
        let start = open(&format!("{name}.{key}")).await;
        assert!(start.starts_with("HTTP/1.1 101 "), "{name}: {start}");
        let start = open(&format!("{name}.{}", &key[..40])).await;
        assert!(start.starts_with("HTTP/1.1 401 "), "{name}: {start}");
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    for seen in requests {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-stored"));
        assert_eq!(seen.header("sec-websocket-protocol"), Some("realtime"));
    }
}

/// Also where nobody needs one: who brings a key does not mean to be nobody.
#[tokio::test]
async fn a_key_that_is_no_good_is_refused_and_says_why() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let key = made(&gateway, &["--gateway", "closed"]).await;
    refused(&chat(&gateway, &key).await, "not of this gateway");
    let target = CHAT.replacen("default/default", "default/closed", 1);
    let call = Request::post(&target, QUESTION).header("cf-aig-authorization", &key);
    assert_eq!(call.clone().send(&gateway).await.status, 200);
    // Anything that is meant to be a key and is none.
    for bad in [
        &key[..58],
        &format!("{key}x"),
        &key[..20],
        "tg-ci",
        "Bearer tg-x",
    ] {
        refused(&chat(&gateway, bad).await, "unknown");
    }
    let slot = Request::post(CHAT, QUESTION).header("x-api-key", &key[..40]);
    refused(&slot.send(&gateway).await, "unknown");
    let half = Request::post(CHAT, QUESTION)
        .header("cf-aig-authorization", &key)
        .header("authorization", &key[..40]);
    refused(&half.send(&gateway).await, "API key");
    let one = format!("{KEYS}/{}", id(&key));
    let expired = asks(
        &gateway,
        "PATCH",
        &one,
        json!({ "expires_at": "2020-01-01" }),
    )
    .await;
    assert_eq!(
        expired.json()["result"]["status"],
        "expired",
        "{}",
        expired.text()
    );
    refused(&call.clone().send(&gateway).await, "has expired");
    let prolonged = asks(&gateway, "PATCH", &one, json!({ "expires_in": "1d" })).await;
    assert_eq!(prolonged.json()["result"]["status"], "active");
    assert_eq!(call.clone().send(&gateway).await.status, 200);
    keys(&gateway, &["revoke", id(&key)]).await;
    refused(&call.send(&gateway).await, "has been revoked");
    assert_eq!(upstream.requests().len(), 2);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_api_keys", &[]), 1.0);
}

#[tokio::test]
async fn an_old_secret_works_as_long_as_it_is_said() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let first = made(&gateway, &[]).await;
    let second = keys(&gateway, &["rotate", id(&first), "--grace", "10m"]).await;
    assert!(id(&first) == id(&second) && first != second);
    for key in [&first, &second] {
        assert_eq!(chat(&gateway, key).await.status, 200);
    }
    let third = keys(&gateway, &["rotate", id(&first)]).await;
    for key in [&first, &second] {
        refused(&chat(&gateway, key).await, "unknown");
    }
    assert_eq!(chat(&gateway, &third).await.status, 200);
}

/// Runs `tollgate keys …` with this in place of standard output; whether that was a success, and what it
/// said.
async fn keys_into(out: Stdio, gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("keys").args(arguments);
    command.arg("--conf").arg(gateway.conf());
    command.env_remove("RUST_LOG").stdout(out);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within("the end of a command", run).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

/// A disk that is full.
fn full() -> Stdio {
    let full = std::fs::File::options().write(true).open("/dev/full");
    full.unwrap().into()
}

/// A pipe whose reader has seen enough.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

#[tokio::test]
async fn a_key_that_could_not_be_written_is_no_success() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let key = made(&gateway, &[]).await;
    for (arguments, done) in [
        (&["create", "--name", "b"][..], "is made"),
        (&["create", "--name", "c", "--json"], "is made"),
        (&["rotate", id(&key)], "has a new secret"),
    ] {
        for (out, why) in [(full(), "No space left"), (closed(), "Broken pipe")] {
            let (success, said) = keys_into(out, &gateway, arguments).await;
            assert!(!success, "{arguments:?}: {said}");
            let expected = format!("{done}, but it could not be written: {why}");
            assert!(said.contains(&expected), "{said}");
            assert!(said.contains("tollgate keys rotate "), "{said}");
        }
    }
    // Nothing is lost with a list.
    let (success, said) = keys_into(closed(), &gateway, &["list"]).await;
    assert!(success, "{said}");
}

/// What was shown is on the disk, and what was revoked stays so.
#[tokio::test]
async fn keys_survive_a_kill() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let revoked = made(&gateway, &[]).await;
    keys(&gateway, &["revoke", id(&revoked)]).await;
    let key = made(&gateway, &[]).await;
    let gateway = gateway.restarted(Signal::SIGKILL).await;
    assert_eq!(chat(&gateway, &key).await.status, 200);
    refused(&chat(&gateway, &revoked).await, "has been revoked");
}

#[tokio::test]
async fn the_api_shows_keys_by_where_they_pass_and_never_a_secret() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let account = "/client/v4/accounts/default/ai-gateway";
    let closed = format!("{account}/gateways/closed/keys");
    let made = asks(&gateway, "POST", &closed, json!({ "name": "one" })).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let one = made.json()["result"].clone();
    assert_eq!(
        (&one["account"], &one["gateways"]),
        (&json!("default"), &json!(["closed"]))
    );
    let said = json!({ "name": "two", "rate_limits": [{ "limit": 9, "window": "1m" }] });
    let two = asks(&gateway, "POST", &format!("{account}/keys"), said)
        .await
        .json();
    let three = asks(&gateway, "POST", KEYS, json!({ "name": "three" }))
        .await
        .json();
    assert_eq!(three["result"]["account"], Value::Null);
    let names = async |path: &str| {
        let page = asks(&gateway, "GET", path, Value::Null).await;
        let secret = one["key"]
            .as_str()
            .unwrap()
            .rsplit_once(id(one["key"].as_str().unwrap()));
        assert!(!page.text().contains(secret.unwrap().1), "{}", page.text());
        let page = page.json();
        let named = page["result"].as_array().unwrap().iter();
        let mut names: Vec<_> = named
            .map(|key| key["name"].to_string().replace('"', ""))
            .collect();
        names.sort();
        names.join(" ") + &format!(" of {}", page["result_info"]["total_count"])
    };
    for (path, expected) in [
        (closed.as_str(), "one three two of 3"),
        (
            &format!("{account}/gateways/default/keys"),
            "three two of 2",
        ),
        (&format!("{account}/keys"), "one three two of 3"),
        ("/client/v4/accounts/other/ai-gateway/keys", "three of 1"),
        (KEYS, "one three two of 3"),
    ] {
        assert_eq!(names(path).await, expected, "{path}");
    }
    assert!(
        names(&format!("{KEYS}?per_page=2&page=2"))
            .await
            .ends_with("of 3")
    );
    let of_two = two["result"]["id"].as_str().unwrap();
    let shown = asks(&gateway, "GET", &format!("{KEYS}/{of_two}"), Value::Null)
        .await
        .json();
    assert_eq!(
        shown["result"]["rate_limits"],
        json!([{ "limit": 9, "window": "1m" }])
    );
    assert_eq!(shown["result"].get("key"), None);
    let elsewhere = format!(
        "{account}/gateways/default/keys/{}",
        one["id"].as_str().unwrap()
    );
    assert_eq!(
        asks(&gateway, "GET", &elsewhere, Value::Null).await.status,
        404
    );
    let listed = keys(&gateway, &["list"]).await;
    assert!(
        listed.lines().count() == 3 && listed.contains("default/closed"),
        "{listed}"
    );
}

#[tokio::test]
async fn every_mistake_is_told_by_its_field() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let closed = "/client/v4/accounts/default/ai-gateway/gateways/closed/keys";
    for (path, body, field) in [
        (KEYS, json!({}), "name"),
        (KEYS, json!({ "name": "a", "account": "nobody" }), "account"),
        (
            KEYS,
            json!({ "name": "a", "gateways": ["nowhere-*"] }),
            "gateways",
        ),
        (
            KEYS,
            json!({ "name": "a", "expires_at": "2020-01-01" }),
            "expires_at",
        ),
        (
            KEYS,
            json!({ "name": "a", "spend_limits": [{ "limits": 1 }] }),
            "spend_limits[0].limits",
        ),
        (
            KEYS,
            json!({ "name": "a", "access": { "providers": { "deny": ["openai", "xai"] } } }),
            "access.providers.deny[1]",
        ),
        (
            KEYS,
            json!({ "name": "a", "access": { "providers": { "allow": ["nowhere"] } } }),
            "access.providers.allow[0]",
        ),
        (
            closed,
            json!({ "name": "a", "spend_limits": [{ "id": "a", "limit": 1, "window": "day",
                "provider": { "mode": "filter", "values": ["xai"] } }] }),
            "spend_limits[0].provider.values[0]",
        ),
        (
            closed,
            json!({ "name": "a", "access": { "models": { "deny": ["xai/*"] } } }),
            "access.models.deny[0]",
        ),
        (
            closed,
            json!({ "name": "a", "gateways": ["*"] }),
            "gateways",
        ),
        (closed, json!({ "name": "a", "account": "b" }), "account"),
    ] {
        let answer = asks(&gateway, "POST", path, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        let errors = answer.json()["errors"].clone();
        assert_eq!(errors[0]["path"], json!([field]), "{body}: {errors}");
        assert_eq!(errors.as_array().unwrap().len(), 1, "{errors}");
    }
    let key = made(&gateway, &[]).await;
    let rotate = format!("{KEYS}/{}/rotate", id(&key));
    for body in [
        json!({ "grace": "32d" }),
        json!({ "grace": 1 }),
        json!({ "graze": "1m" }),
        json!("10m"),
    ] {
        assert_eq!(asks(&gateway, "POST", &rotate, body).await.status, 400);
    }
    let one = format!("{KEYS}/{}", id(&key));
    let change = json!({ "access": { "providers": { "deny": ["xai"] } } });
    let answer = asks(&gateway, "PATCH", &one, change).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("write `grok`"), "{}", answer.text());
    let page = asks(&gateway, "GET", &format!("{KEYS}?per_page=51"), Value::Null).await;
    assert_eq!(page.json()["errors"][0]["path"], json!(["per_page"]));
    assert_eq!(chat(&gateway, &key).await.status, 200);
}

/// Where there are no tokens the API of keys wants one all the same.
#[tokio::test]
async fn the_set_up_token_is_for_one_user_and_until_there_are_tokens() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let file = gateway.directory().join("data/setup-token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    for wrong in [
        "",
        "Bearer",
        "Bearer x",
        &format!("Bearer {token}x"),
        &token[1..],
    ] {
        let request = Request::get(KEYS).header("authorization", wrong);
        let answer = gateway.ask(request).await;
        let said = answer.json();
        assert_eq!(
            (answer.status, &said["errors"][0]["code"]),
            (401, &10_000.into())
        );
        assert!(answer.text().contains("setup-token"), "{}", answer.text());
    }
    for header in ["authorization", "x-auth-key"] {
        let request = Request::get(KEYS).header(header, &token);
        assert_eq!(gateway.ask(request).await.status, 200, "{header}");
    }
    // Nothing else wants it.
    assert_eq!(gateway.ask(Request::get("/-/logs")).await.status, 200);
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    let with = text.replace(
        "admin: {",
        &format!("admin: {{ tokens: [{{ name: ops, value: {ADMIN} }}], "),
    );
    std::fs::write(gateway.conf(), with).unwrap();
    let conf = gateway.conf();
    let reload = ["reload", "--conf", conf.to_str().unwrap()];
    run(&reload).await;
    gateway.logged("reloaded").await;
    assert!(!file.exists());
    let request = Request::get(KEYS).header("authorization", &token);
    assert_eq!(gateway.ask(request).await.status, 401);
    // The command reads the new token in the configuration.
    assert_eq!(keys(&gateway, &["list"]).await, "");
    assert!(run(&reload).await.status.success());
    assert!(!gateway.log().contains(&token) && gateway.log().contains("setup-token"));
}

#[tokio::test]
async fn with_tokens_the_listener_is_for_who_brings_one() {
    let upstream = upstream().await;
    let tokens = format!("tokens: [{{ name: ops, value: {ADMIN} }}]");
    let gateway = Gateway::with(&conf(&upstream)).admin(&tokens).start().await;
    let key = made(&gateway, &["--account", "default"]).await;
    gateway.logged("ops made the API key").await;
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("me:{password}")));
    let good = [
        ("authorization", format!("Bearer {ADMIN}")),
        ("x-auth-key", ADMIN.to_owned()),
        ("authorization", basic(ADMIN)),
    ];
    let bad = [
        ("x-nothing", String::new()),
        ("authorization", format!("Bearer {}", &ADMIN[1..])),
        ("authorization", basic("wrong")),
        // A key of ours is for applications.
        ("authorization", format!("Bearer {key}")),
    ];
    let ask = async |method: &str, path: &str, (name, value): &(&str, String)| {
        gateway
            .ask(Request::new(method, path).header(name, value))
            .await
    };
    let cloudflares = "/client/v4/accounts/default/ai-gateway/gateways/default/logs";
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/-/logs"),
        ("GET", "/-/analytics"),
        ("GET", KEYS),
        ("POST", "/-/reload"),
        ("GET", cloudflares),
    ] {
        for token in &good {
            assert_eq!(
                ask(method, path, token).await.status,
                200,
                "{path} {token:?}"
            );
        }
        for token in &bad {
            let answer = ask(method, path, token).await;
            assert_eq!(answer.status, 401, "{path} {token:?}");
            let asks = answer.header("www-authenticate").is_some();
            assert_eq!(asks, path == "/", "{path}");
            if path == cloudflares {
                let said = answer.json();
                assert_eq!(said["success"], false);
                assert_eq!(said["errors"][0]["code"], 10_000);
            }
        }
    }
    for path in ["/healthz", "/readyz"] {
        let probe = Request::get(path).header("host", "10.0.0.5:8788");
        assert_eq!(gateway.ask(probe).await.status, 200);
    }
    // By whatever name it is called, but not from another page.
    for (origin, status) in [("https://gate.example", 200), ("https://evil.example", 403)] {
        let request = Request::get("/-/logs").header("host", "gate.example");
        let request = request.header("origin", origin).header("x-auth-key", ADMIN);
        assert_eq!(gateway.ask(request).await.status, status, "{origin}");
    }
    assert!(!gateway.directory().join("data/setup-token").exists());
}

/// Neither in what it prints and answers nor in what it keeps, where it logs all it can.
#[tokio::test]
async fn secrets_are_nowhere() {
    const MASTER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";
    const TOKEN: &str = "ci-fedcba9876543210";
    let upstream = upstream().await;
    let tokens = format!("required: true, tokens: [ {{ name: ci, value: {TOKEN} }} ]");
    let conf = conf(&upstream)
        .replace("access: json", "access: json, level: trace")
        .replace("required: true", &tokens);
    let conf = "secrets: { master_key: \"${MASTER}\" }\n".to_owned() + &conf;
    let gateway = Gateway::with(&conf).env("MASTER", MASTER).start().await;
    let data = gateway.directory().join("data");
    let file = data.join("setup-token");
    let setup = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let first = made(&gateway, &[]).await;
    let second = keys(&gateway, &["rotate", id(&first), "--grace", "1h"]).await;
    let closed = CHAT.replacen("default/default", "default/closed", 1);
    let question = QUESTION.replace("hi", "nutmeg");
    let call = |secret: &str| {
        Request::post(&format!("{closed}?key={secret}"), &question)
            .header("authorization", secret)
            .header("cf-aig-authorization", secret)
    };
    let mut emitted = String::new();
    for secret in [&first, &second, TOKEN] {
        let answer = call(secret).send(&gateway).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let offered = format!("realtime, cf-aig-authorization.{secret}");
        let socket = Request::get(&closed.replace("chat/completions", "realtime?model=m"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", &offered);
        emitted += &answer.everything();
        emitted += &socket.send(&gateway).await.everything();
    }
    let seen = upstream.requests();
    let paid = seen.iter().map(|seen| seen.header("authorization"));
    let paid = paid.filter(|key| *key == Some("Bearer sk-stored"));
    assert_eq!(paid.count(), 6, "the secrets were in use");
    for arguments in [
        &["list", "--json"] as &[_],
        &["revoke", id(&first), "--json"],
        &["show", id(&first)],
    ] {
        emitted += &keys(&gateway, arguments).await;
    }
    for wrong in [&second, &second[..40], &TOKEN[1..], &setup] {
        let answer = call(wrong).send(&gateway).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        emitted += &answer.everything();
    }
    let paths = [KEYS, "/-/provider_configs", "/nowhere"];
    settled(&gateway).await;
    emitted += &told(&gateway, &setup, &paths).await;
    emitted += &gateway.log();
    // While the process lives the newest rows are in the WAL.
    let mut files = written(&data);
    let add_a_token = |directory: &Path| {
        let conf = directory.join("tollgate.yaml");
        let text = std::fs::read_to_string(&conf).unwrap();
        let tokens = format!("admin: {{ tokens: [{{ name: ops, value: {ADMIN} }}], ");
        std::fs::write(conf, text.replace("admin: {", &tokens)).unwrap();
    };
    let gateway = gateway.restarted_after(Signal::SIGTERM, add_a_token).await;
    emitted += &call(ADMIN).send(&gateway).await.everything();
    gateway.logged("\"denied_by\":\"authentication\"").await;
    emitted += &told(&gateway, ADMIN, &paths).await;
    emitted += &told_to_nobody(&gateway, &[&ADMIN[1..], TOKEN, &second]).await;
    emitted += &gateway.log();
    emitted += &gateway.printed();
    files.extend(written(&data));
    // This one is there to have a secret.
    files.retain(|(path, _)| *path != file);

    let secret = |key: &str| key.rsplit_once(id(key)).unwrap().1[1..17].to_owned();
    for secret in [
        &secret(&first),
        &secret(&second),
        &TOKEN[1..],
        &ADMIN[1..],
        &MASTER[..16],
        "sk-stored",
        &setup[..16],
    ] {
        assert_nowhere(secret, &emitted, &files);
    }
    assert_searched("nutmeg", &emitted, &files);
}

/// What the API says to those whose token is none of its.
async fn told_to_nobody(gateway: &Gateway, tokens: &[&str]) -> String {
    let mut told = String::new();
    for token in tokens {
        let request = Request::get(KEYS).header("authorization", &format!("Bearer {token}"));
        let answer = gateway.ask(request).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        told += &answer.everything();
    }
    told
}

/// What a key may ask for, how fast and for how much: beside what its gateway says, and apart from
/// what other keys do.
#[tokio::test]
async fn a_key_has_limits_of_its_own() {
    let upstream = upstream().await;
    let told = r#"{"model":"gpt-5-mini","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
    upstream.always(Answer::json(told));
    let gateway = Gateway::start(&conf(&upstream)).await;
    let bounded = json!({
        "name": "app",
        "access": { "models": { "allow": ["gpt-5*"] } },
        "rate_limits": [{ "limit": 2, "window": "1h" }],
    });
    let keys =
        [bounded.clone(), bounded.clone(), bounded].map(|said| asks(&gateway, "POST", KEYS, said));
    let [one, other, third] = keys;
    let secret = |answer: Response| answer.json()["result"]["key"].as_str().unwrap().to_owned();
    let (one, other) = (secret(one.await), secret(other.await));
    let third = secret(third.await);
    for key in [&one, &other] {
        for status in [200, 200, 429] {
            let answer = chat(&gateway, key).await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
    }
    gateway.logged("\"denied_by\":\"key/rate-1\"").await;
    let question = QUESTION.replace("gpt-5-mini", "gpt-4o");
    let call = Request::post(CHAT, question).header("cf-aig-authorization", &third);
    let answer = call.send(&gateway).await;
    assert_eq!(
        (answer.status, &answer.json()["internalCode"]),
        (403, &8014.into())
    );
    // A change is in force at once, and what was counted is not forgotten.
    let path = format!("{KEYS}/{}", id(&one));
    let wider = json!({ "rate_limits": [{ "limit": 3, "window": "1h" }] });
    assert_eq!(asks(&gateway, "PATCH", &path, wider).await.status, 200);
    for status in [200, 429] {
        assert_eq!(chat(&gateway, &one).await.status, status);
    }
    // One by the rate of each key, one by a model, one by the wider rate.
    gateway.settled(9).await;
    let metrics = gateway.metrics().await;
    let denials = metrics.sum("tollgate_denials_total", &[("rule", "key")]);
    assert_eq!(denials, 4.0);
    // Money: one call can cost more than it has.
    let poor = json!({ "name": "poor", "spend_limits": [{ "id": "day", "limit": "0.000001", "window": "day" }] });
    let poor = secret(asks(&gateway, "POST", KEYS, poor).await);
    let answer = chat(&gateway, &poor).await;
    assert_eq!(
        (answer.status, &answer.json()["internalCode"]),
        (429, &2045.into())
    );
    gateway.logged("\"denied_by\":\"key/day\"").await;
    let wrong = json!({ "name": "x", "rate_limits": [{ "limit": 0, "window": "1h" }] });
    let wrong = asks(&gateway, "POST", KEYS, wrong).await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.text().contains("rate_limits[0].limit"),
        "{}",
        wrong.text()
    );
}

/// By which rule the request was refused that has this place in the access log.
async fn denied_by(gateway: &Gateway, place: usize) -> Value {
    let line = eventually("a line of the access log", || {
        let log = gateway.log();
        let mut lines = log.lines().filter(|line| line.contains("\"overhead_ms\""));
        lines.nth(place).map(str::to_owned)
    });
    serde_json::from_str::<Value>(&line.await).unwrap()["denied_by"].clone()
}

/// A key that says this of access.
pub async fn made_with(gateway: &Gateway, access: Value) -> String {
    let answer = asks(
        gateway,
        "POST",
        KEYS,
        json!({ "name": "app", "access": access }),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"]["key"].as_str().unwrap().to_owned()
}

/// Where its gateway says nothing of access.
#[tokio::test]
async fn a_key_has_access_rules_of_its_own() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let google = path(
        "google-ai-studio",
        "v1beta/models/gemini-2.5-flash:generateContent",
    );
    let modest = r#"{"model":"gpt-5-mini","max_tokens":100}"#;
    let greedy = r#"{"model":"gpt-5-mini","max_tokens":101}"#;
    let mut requests = 0;
    let not_openai = json!({ "providers": { "deny": ["openai"] } });
    let here = json!({ "addresses": { "allow": ["127.0.0.0/8"] } });
    let elsewhere = json!({ "addresses": { "allow": ["10.0.0.0/8"] } });
    let little = json!({ "max_tokens": 100 });
    let whole = json!({ "max_body": format!("{}B", modest.len()) });
    let less = json!({ "max_body": format!("{}B", modest.len() - 1) });
    for (access, path, body, refused) in [
        (&not_openai, &*google, "{}", None),
        (&not_openai, CHAT, "{}", Some("providers")),
        (&here, CHAT, "{}", None),
        (&elsewhere, CHAT, "{}", Some("addresses")),
        (&little, CHAT, modest, None),
        (&little, CHAT, greedy, Some("max_tokens")),
        (&little, CHAT, QUESTION, Some("max_tokens")),
        (&whole, CHAT, modest, None),
        (&less, CHAT, modest, Some("max_body")),
    ] {
        let key = made_with(&gateway, access.clone()).await;
        let call = Request::post(path, body).header("cf-aig-authorization", &key);
        let before = upstream.requests().len();
        let answer = call.send(&gateway).await;
        let by = denied_by(&gateway, requests).await;
        requests += 1;
        let Some(rule) = refused else {
            assert_eq!((answer.status, by), (200, Value::Null), "{access}");
            continue;
        };
        let (status, code) = match rule {
            "max_body" => (413, 8006),
            _ => (403, 8014),
        };
        assert_eq!(
            (answer.status, &answer.json()["internalCode"]),
            (status, &code.into()),
            "{access}"
        );
        assert!(
            answer.text().contains(&format!("access.{rule}")),
            "{}",
            answer.text()
        );
        assert_eq!(by, format!("key/access.{rule}"));
        assert_eq!(upstream.requests().len(), before, "{access}");
    }
    gateway.settled(requests).await;
    let metrics = gateway.metrics().await;
    let denials = metrics.sum("tollgate_denials_total", &[("rule", "key")]);
    assert_eq!(denials, 5.0);
}

#[tokio::test]
async fn the_rules_of_the_gateway_and_of_the_key_both_hold() {
    let upstream = upstream().await;
    let denies = "default: { access: { models: { deny: [ '*-pro' ] } } }";
    let gateway = Gateway::start(&conf(&upstream).replace("default: {}", denies)).await;
    let key = made_with(&gateway, json!({ "models": { "allow": ["gpt-*"] } })).await;
    for (place, (model, rule)) in [
        ("gpt-5", None),
        ("gpt-5-pro", Some("access.models")),
        ("o3", Some("key/access.models")),
        // The gateway's comes first.
        ("o3-pro", Some("access.models")),
    ]
    .into_iter()
    .enumerate()
    {
        let question = QUESTION.replace("gpt-5-mini", model);
        let call = Request::post(CHAT, question).header("cf-aig-authorization", &key);
        let answer = call.send(&gateway).await;
        let expected = if rule.is_some() { 403 } else { 200 };
        assert_eq!(answer.status, expected, "{model}: {}", answer.text());
        assert_eq!(denied_by(&gateway, place).await, json!(rule), "{model}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

/// Asks until the status is this; for how long that was.
async fn until(gateway: &Gateway, key: &str, status: u16) -> Duration {
    let begun = Instant::now();
    within("the other status", async {
        while chat(gateway, key).await.status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    begun.elapsed()
}

/// Also in one that only shares the directory, as during an upgrade.
#[tokio::test]
async fn a_revocation_holds_within_a_second_in_another_process() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let shared = gateway.directory().join("data");
    let other = Gateway::start(&conf(&upstream)).await;
    let share = |directory: &Path| {
        let own = directory.join("data");
        std::fs::remove_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(&shared, own).unwrap();
    };
    let other = other.restarted_after(Signal::SIGTERM, share).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let key = made(&gateway, &[]).await;
        until(&other, &key, 200).await;
        keys(&gateway, &["revoke", id(&key)]).await;
        took.push(until(&other, &key, 401).await);
        refused(&chat(&other, &key).await, "has been revoked");
        refused(&chat(&gateway, &key).await, "has been revoked");
    }
    // The second is the contract. One of five may be late, as a busy machine may stop a process for so
    // long; where the file is read too seldom, more are.
    let late = took.iter().filter(|took| **took >= Duration::from_secs(1));
    assert!(late.count() <= 1, "{took:?}");
}

#[tokio::test]
async fn a_rate_of_a_key_is_for_all_its_gateways_together_unless_it_is_by_gateway() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&conf(&upstream)).await;
    let closed = CHAT.replacen("default/default", "default/closed", 1);
    for (by, elsewhere) in [(json!([]), 429), (json!(["gateway"]), 200)] {
        let said =
            json!({ "name": "app", "rate_limits": [{ "limit": 1, "window": "1h", "by": by }] });
        let answer = asks(&gateway, "POST", KEYS, said).await.json();
        let key = answer["result"]["key"].as_str().unwrap();
        for (target, status) in [
            (CHAT, 200),
            (CHAT, 429),
            (&closed, elsewhere),
            (&closed, 429),
        ] {
            let call = Request::post(target, QUESTION).header("cf-aig-authorization", key);
            let answer = call.send(&gateway).await;
            assert_eq!(answer.status, status, "{by} {target}: {}", answer.text());
        }
    }
}
