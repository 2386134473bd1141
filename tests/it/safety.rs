//! Addresses that are never connected to, keys that are not spent, secrets that are not told.

use crate::support::conf::{CHAT, SPENDING, at, openai, path};
use crate::support::gateway::check;
use crate::support::metrics::Metrics;
use crate::support::{Answer, Gateway, NameServer, Reply, Request, Upstream, ports};

/// Link-local and metadata addresses, in the spellings that have fooled others.
const FORBIDDEN: &[&str] = &[
    "169.254.169.254",
    "169.254.1.1",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
];

fn insecure(slug: &str, base_url: &str) -> String {
    format!("providers: {{ {slug}: {{ base_url: \"{base_url}\", allow_insecure: true }} }}\n")
}

/// Either the configuration is refused, or the request is, at once and without a connection.
#[tokio::test]
async fn metadata_addresses_are_never_connected_to() {
    let names = NameServer::start(&[]).await;
    for host in FORBIDDEN {
        let yaml = insecure("openai", &format!("http://{host}/v1")) + &names.yaml();
        if !check(&yaml).status.success() {
            continue;
        }
        let gateway = Gateway::start(&yaml).await;
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_eq!(
            (answer.status, &answer.json()["internalCode"]),
            (502, &2005.into()),
            "{host}"
        );
        assert!(!answer.everything().contains("169.254"), "{host}");
    }
}

#[tokio::test]
async fn names_that_resolve_to_metadata_addresses_are_not_connected_to() {
    for addresses in [
        &["169.254.169.254"][..],
        &["::ffff:169.254.169.254"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        &["169.254.169.254", "::ffff:169.254.169.254"],
    ] {
        let names = NameServer::start(addresses).await;
        let gateway =
            Gateway::start(&(insecure("custom-sly", "http://metadata.example") + &names.yaml()))
                .await;
        let answer = Request::get(&path("custom-sly", "latest/meta-data"))
            .send(&gateway)
            .await;
        assert_eq!(
            (answer.status, &answer.json()["internalCode"]),
            (502, &2005.into()),
            "{addresses:?}"
        );
        let forbidden = |metrics: &Metrics| metrics.text().contains("upstream_forbidden");
        gateway
            .metrics_when("a refusal for its address, not for silence", forbidden)
            .await;
    }
}

#[tokio::test]
async fn names_that_resolve_to_a_good_address_are_connected_to() {
    let upstream = Upstream::answering(Answer::json("{}")).await;
    let names = NameServer::start(&["127.0.0.1"]).await;
    let url = format!("http://llm.acme.example:{}/v1", upstream.address().port());
    let gateway = Gateway::start(&(insecure("custom-acme", &url) + &names.yaml())).await;
    assert_eq!(
        Request::get(&path("custom-acme", "models"))
            .send(&gateway)
            .await
            .status,
        200
    );
    let host = format!("llm.acme.example:{}", upstream.address().port());
    assert_eq!(upstream.only().await.all("host"), [host]);
}

#[tokio::test]
async fn plain_http_must_be_allowed_in_so_many_words() {
    let accounts = "accounts: { default: { gateways: { default: {} } } }\n";
    for (yaml, fine) in [
        (
            "providers: { openai: { base_url: \"http://127.0.0.1:1/v1\" } }\n",
            false,
        ),
        (
            "providers: { openai: { base_url: \"http://127.0.0.1:1/v1\", allow_insecure: false } }\n",
            false,
        ),
        (
            "providers: { openai: { base_url: \"http://127.0.0.1:1/v1\", allow_insecure: true } }\n",
            true,
        ),
        (
            "providers: { custom-x: { base_url: \"http://llm.example\" } }\n",
            false,
        ),
        (
            "providers: { custom-x: { base_url: \"https://llm.example\" } }\n",
            true,
        ),
        (
            "providers: { custom-x: { base_url: \"ftp://llm.example\" } }\n",
            false,
        ),
        (
            "providers: { custom-x: { base_url: \"https://user:pw@llm.example\" } }\n",
            false,
        ),
    ] {
        let output = check(&format!("{yaml}{accounts}"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.success(), fine, "{yaml}{said}");
        assert!(
            fine || said.contains("base_url"),
            "the field is named: {said}"
        );
    }
}

/// A provider with two stored keys.
const KEYS: &str = "keys: [{ value: sk-stored }, { alias: second, file: \"{dir}/second.key\" }]";

async fn with_keys(upstream: &Upstream, accounts: &str) -> Gateway {
    let yaml = at(upstream, "openai", "/v1", KEYS) + accounts;
    Gateway::with(&yaml)
        .file("second.key", "  sk-second\n")
        .start()
        .await
}

#[tokio::test]
async fn a_stored_key_is_not_spent_unless_allowed() {
    let upstream = Upstream::answering(Answer::new(401).text("no key")).await;
    let gateway = with_keys(&upstream, "").await;
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert!(answer.status >= 400, "{}", answer.status);
    for seen in upstream.received(1).await {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_stored_key_is_put_on_requests_that_bring_none() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = with_keys(&upstream, SPENDING).await;
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], "Bearer sk-stored"),
        (&[("cf-aig-byok-alias", "default")], "Bearer sk-stored"),
        (&[("cf-aig-byok-alias", "second")], "Bearer sk-second"),
        (&[("authorization", "Bearer sk-own")], "Bearer sk-own"),
        (
            &[
                ("Authorization", "bearer sk-own"),
                ("cf-aig-authorization", "Bearer tok"),
            ],
            "bearer sk-own",
        ),
    ];
    for (headers, wanted) in cases {
        let request = Request::post(CHAT, "{}");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        assert_eq!(request.send(&gateway).await.status, 200, "{headers:?}");
        assert_eq!(
            upstream.requests().pop().unwrap().all("authorization"),
            [wanted],
            "{headers:?}"
        );
    }
    let unknown = Request::post(CHAT, "{}")
        .header("cf-aig-byok-alias", "nobody")
        .send(&gateway)
        .await;
    assert_eq!(unknown.status, 400, "{}", unknown.text());
    assert_eq!(upstream.requests().len(), 5);
}

/// Provider, what the client brings, and the header the provider must see with which value.
type Own = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    &'static str,
    &'static str,
);

const OWN: &[Own] = &[
    ("anthropic", "v1/messages", None, "x-api-key", "stored"),
    (
        "anthropic",
        "v1/messages",
        Some(("x-api-key", "own")),
        "x-api-key",
        "own",
    ),
    (
        "anthropic",
        "v1/messages",
        Some(("authorization", "Bearer oauth")),
        "x-api-key",
        "",
    ),
    (
        "google-ai-studio",
        "v1beta/models/m:generateContent",
        None,
        "x-goog-api-key",
        "stored",
    ),
    (
        "google-ai-studio",
        "v1beta/models/m:generateContent?key=own",
        None,
        "x-goog-api-key",
        "",
    ),
    (
        "google-ai-studio",
        "v1beta/models/m:generateContent",
        Some(("x-goog-api-key", "own")),
        "x-goog-api-key",
        "own",
    ),
    (
        "deepgram",
        "v1/listen",
        None,
        "authorization",
        "Token stored",
    ),
    ("fal", "fal-ai/flux", None, "authorization", "Key stored"),
    ("elevenlabs", "v1/voices", None, "xi-api-key", "stored"),
];

#[tokio::test]
async fn the_clients_own_key_wins_wherever_it_stands() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    for (slug, target, header, name, wanted) in OWN {
        let yaml = at(&upstream, slug, "", "keys: [{ value: stored }]") + SPENDING;
        let gateway = Gateway::start(&yaml).await;
        let mut request = Request::post(&path(slug, target), "{}");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        assert_eq!(request.send(&gateway).await.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            seen.header(name).unwrap_or_default(),
            *wanted,
            "{slug} {target} {header:?}"
        );
    }
}

/// Secrets that must stay where they belong.
const SECRETS: [&str; 5] = [
    "sk-stored-secret",
    "header-secret",
    "client-secret",
    "query-secret",
    "gateway-secret",
];

/// A request that carries every secret a client can have; its own key only if `own`.
fn secretive(slug: &str, own: bool) -> Request {
    let [_, _, client, query, token] = SECRETS;
    let target = path(slug, &format!("chat/completions?key={query}"));
    let request =
        Request::post(&target, "{}").header("cf-aig-authorization", &format!("Bearer {token}"));
    if own {
        request.header("authorization", &format!("Bearer {client}"))
    } else {
        request
    }
}

#[tokio::test]
async fn secrets_are_not_told() {
    let [stored, extra, ..] = SECRETS;
    let upstream = Upstream::h1().await;
    let closed = ports::refusing();
    let more = format!("keys: [{{ value: {stored} }}], headers: {{ x-extra: \"${{EXTRA}}\" }}");
    let dead = format!(
        "  custom-dead: {{ base_url: \"http://127.0.0.1:{}\", allow_insecure: true, keys: [{{ value: {stored} }}] }}\n",
        closed.number()
    );
    let yaml = at(&upstream, "openai", "/v1", &more) + &dead + SPENDING;
    let gateway = Gateway::with(&yaml).env("EXTRA", extra).start().await;
    let mut told = String::new();
    for own in [false, true] {
        for reply in [
            Answer::json("{}").into(),
            Answer::new(401).text("{}").into(),
            Reply::Raw(b"nonsense\r\n\r\n".to_vec()),
        ] {
            upstream.script(reply);
            told += &secretive("openai", own).send(&gateway).await.everything();
        }
        for slug in ["custom-dead", "nobody"] {
            told += &secretive(slug, own).send(&gateway).await.everything();
        }
    }
    let seen = upstream.requests();
    assert!(
        seen.iter()
            .all(|request| request.header("x-extra") == Some(extra)),
        "the secrets were in use"
    );
    let all = |metrics: &Metrics| metrics.sum("tollgate_requests_total", &[]) >= 10.0;
    told += gateway.metrics_when("ten requests", all).await.text();
    told += &gateway.log();
    for secret in SECRETS {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[tokio::test]
async fn secrets_are_not_in_complaints_about_the_configuration() {
    let yaml = "providers: { openai: { keys: [{ value: sk-top-secret, valeu: x }], headers: { \"bad name\": sk-top-secret } }, custom-x: { base_url: \"https://u:sk-top-secret@x\" } }\n";
    let output = check(yaml);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success());
    assert!(!said.contains("sk-top-secret"), "{said}");
}

#[tokio::test]
async fn the_admin_listener_is_for_this_machine_only() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let answer = gateway
            .ask(Request::new("POST", "/-/reload").header(name, value))
            .await;
        assert!(
            matches!(answer.status, 400..=499),
            "{name}: {}",
            answer.status
        );
    }
    assert_eq!(gateway.ask(Request::get("/healthz")).await.status, 200);
    let output = check("admin: { listen: \"0.0.0.0:8788\" }\n");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && said.contains("admin.listen"),
        "{said}"
    );
}
