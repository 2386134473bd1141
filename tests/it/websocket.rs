//! Protocol upgrades: realtime APIs on the same paths, bytes both ways.

use crate::support::conf::{SPENDING, at, openai, path};
use crate::support::metrics::Metrics;
use crate::support::wire::Head;
use crate::support::{Answer, Connection, Gateway, Reply, Request, Upstream};

/// The client's side of a WebSocket handshake.
pub fn handshake(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: gateway.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The provider's side.
pub fn accepting(more: &[(&str, &str)]) -> Reply {
    let own = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];
    let headers = own.iter().chain(more);
    Reply::Upgrade(
        headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    )
}

/// Opens an upgraded connection.
pub async fn upgraded(gateway: &Gateway, target: &str, headers: &str) -> (Connection, Head) {
    let mut connection = Connection::open(gateway).await;
    connection.write(handshake(target, headers)).await;
    let head = connection.head().await.unwrap();
    assert!(head.start.starts_with("HTTP/1.1 101 "), "{head:?}");
    (connection, head)
}

#[tokio::test]
async fn an_upgrade_passes_through_on_the_same_path() {
    let upstream = Upstream::answering(accepting(&[("x-provider", "1")])).await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let target = path("openai", "v1/realtime?model=gpt-realtime&a=%2F");
    let own = "Authorization: Bearer sk-own\r\nOpenAI-Beta: realtime=v1\r\ncf-aig-authorization: Bearer gateway-token\r\n";
    let (mut connection, head) = upgraded(&gateway, &target, own).await;
    for (name, value) in [
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("x-provider", "1"),
        ("cf-aig-provider", "openai"),
        ("cf-aig-step", "0"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    assert!(
        head.header("upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    );
    assert!(
        head.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
    );
    assert!(head.header("cf-aig-log-id").is_some());
    for bytes in [
        vec![0x81, 0x05],
        b"hello".to_vec(),
        crate::support::body::octets(300_000),
    ] {
        connection.write(&bytes).await;
        assert!(connection.exactly(bytes.len()).await == bytes);
    }
    let seen = upstream.only().await;
    assert_eq!(seen.target, "/v1/realtime?model=gpt-realtime&a=%2F");
    for (name, value) in [
        ("authorization", "Bearer sk-own"),
        ("openai-beta", "realtime=v1"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert!(
        seen.header("upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    );
    assert!(
        seen.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
    );
    assert_eq!(seen.header("cf-aig-authorization"), None);
}

#[tokio::test]
async fn bytes_behind_the_handshake_are_not_lost() {
    let upstream = Upstream::answering(accepting(&[])).await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let (mut connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
    connection.write("first").await;
    assert_eq!(connection.exactly(5).await, b"first");
}

/// Offered subprotocols, and those the provider may see.
const PROTOCOLS: &[(&str, Option<&str>)] = &[
    (
        "realtime, openai-insecure-api-key.sk-own, cf-aig-authorization.tok",
        Some("realtime, openai-insecure-api-key.sk-own"),
    ),
    ("cf-aig-authorization.tok, realtime", Some("realtime")),
    (
        "realtime,cf-aig-authorization.tok,openai-beta.realtime-v1",
        Some("realtime, openai-beta.realtime-v1"),
    ),
    ("cf-aig-authorization.tok", None),
    ("realtime", Some("realtime")),
];

#[tokio::test]
async fn gateway_credentials_leave_the_subprotocols() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for (offered, wanted) in PROTOCOLS {
        upstream.script(accepting(&[("Sec-WebSocket-Protocol", "realtime")]));
        let header = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let (_connection, head) =
            upgraded(&gateway, &path("openai", "realtime?model=m"), &header).await;
        assert_eq!(head.header("sec-websocket-protocol"), Some("realtime"));
        let seen = upstream.requests().pop().unwrap();
        let seen = seen
            .header("sec-websocket-protocol")
            .map(|value| value.replace(", ", ",").replace(',', ", "));
        assert_eq!(seen.as_deref(), *wanted, "{offered}");
    }
}

#[tokio::test]
async fn a_subprotocol_is_selected_where_the_provider_selects_none() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let target = path("openai", "v1/realtime");
    let credential = "cf-aig-authorization.token";
    for (offered, theirs, selected) in [
        (credential.to_owned(), None, Some(credential)),
        (
            format!("realtime, {credential}"),
            Some("realtime"),
            Some("realtime"),
        ),
        ("realtime".to_owned(), None, None),
    ] {
        let more: Vec<_> = theirs
            .map(|theirs| ("Sec-WebSocket-Protocol", theirs))
            .into_iter()
            .collect();
        upstream.script(accepting(&more));
        let header = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let (_connection, head) = upgraded(&gateway, &target, &header).await;
        assert_eq!(head.header("sec-websocket-protocol"), selected, "{offered}");
    }
}

#[tokio::test]
async fn an_empty_path_is_the_providers_realtime_path() {
    let upstream = Upstream::h1().await;
    let cases = [
        (
            "openai",
            "/v1",
            "openai?model=gpt-realtime",
            "/v1/realtime?model=gpt-realtime",
        ),
        (
            "openai",
            "/v1",
            "openai/?model=gpt-realtime",
            "/v1/realtime?model=gpt-realtime",
        ),
        (
            "google-ai-studio",
            "",
            "google-ai-studio?api_key=k%2F1",
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k%2F1",
        ),
        (
            "elevenlabs",
            "",
            "elevenlabs?agent_id=a",
            "/v1/convai/conversation?agent_id=a",
        ),
        (
            "deepgram",
            "",
            "deepgram/?model=nova-3",
            "/v1/listen?model=nova-3",
        ),
    ];
    for (slug, base, sent, wanted) in cases {
        upstream.script(accepting(&[]));
        let gateway = Gateway::start(&at(&upstream, slug, base, "")).await;
        let (_connection, _) = upgraded(&gateway, &format!("/v1/default/default/{sent}"), "").await;
        assert_eq!(upstream.requests().pop().unwrap().target, wanted, "{sent}");
    }
}

#[tokio::test]
async fn a_key_in_a_subprotocol_becomes_the_providers_header() {
    let upstream = Upstream::answering(accepting(&[])).await;
    let gateway = Gateway::start(&at(&upstream, "elevenlabs", "", "")).await;
    let header = "Sec-WebSocket-Protocol: xi-api-key.own-key, convai\r\n";
    let (_connection, _) = upgraded(
        &gateway,
        "/v1/default/default/elevenlabs?agent_id=a",
        header,
    )
    .await;
    let seen = upstream.only().await;
    assert_eq!(
        (
            seen.header("xi-api-key"),
            seen.header("sec-websocket-protocol")
        ),
        (Some("own-key"), Some("convai"))
    );
}

#[tokio::test]
async fn a_stored_key_is_put_on_an_upgrade() {
    let upstream = Upstream::answering(accepting(&[])).await;
    let yaml = at(&upstream, "openai", "/v1", "keys: [{ value: sk-stored }]") + SPENDING;
    let gateway = Gateway::start(&yaml).await;
    let (_connection, _) = upgraded(&gateway, &path("openai", "realtime?model=m"), "").await;
    assert_eq!(
        upstream.only().await.all("authorization"),
        ["Bearer sk-stored"]
    );
}

/// One that the provider's own machine answers before Pingora has passed on the request's end.
#[tokio::test]
async fn an_upgrade_that_is_answered_at_once_stays_open() {
    let upstream = Upstream::h1().await;
    upstream.always(accepting(&[]));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for _ in 0..60 {
        let (mut connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
        for _ in 0..2 {
            connection.write(b"hello").await;
            assert_eq!(connection.exactly(5).await, b"hello");
        }
    }
}

#[tokio::test]
async fn a_refused_upgrade_passes_verbatim() {
    let upstream = Upstream::answering(
        Answer::new(401)
            .header("www-authenticate", "Bearer")
            .text("no"),
    )
    .await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    connection
        .write(handshake(&path("openai", "realtime"), ""))
        .await;
    let answer = connection.read().await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (401, "no"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert_eq!(answer.header("tollgate-error-source"), Some("provider"));
}

#[tokio::test]
async fn either_side_may_end_it() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    upstream.script(accepting(&[]));
    let (connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
    drop(connection);
    // The echo ends with its connection; the gateway then has nothing in flight and still serves.
    upstream.script(Answer::json("{}"));
    assert_eq!(
        Request::get(&path("openai", "models"))
            .send(&gateway)
            .await
            .status,
        200
    );

    let leaving = Upstream::answering(accepting(&[])).await;
    let gateway = Gateway::start(&openai(&leaving)).await;
    let (mut connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
    drop(leaving);
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn a_silent_tunnel_stays_open() {
    let upstream = Upstream::answering(accepting(&[])).await;
    let gateway = Gateway::with(&openai(&upstream))
        .server("body_timeout: 200ms")
        .start()
        .await;
    let (mut connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    connection.write(b"still there").await;
    assert_eq!(connection.exactly(11).await, b"still there");
}

#[tokio::test]
async fn a_tunnel_outlives_the_time_that_a_request_may_take() {
    let upstream = Upstream::answering(accepting(&[])).await;
    let times = "{ timeouts: { total: 300ms, first_byte: 200ms } }";
    let accounts = format!("accounts: {{ default: {{ gateways: {{ default: {times} }} }} }}\n");
    let yaml = openai(&upstream) + &accounts;
    let gateway = Gateway::start(&yaml).await;
    let (mut connection, _) = upgraded(&gateway, &path("openai", "realtime"), "").await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    connection.write(b"still there").await;
    assert_eq!(connection.exactly(11).await, b"still there");
}

/// Accepts one upgrade, sends two bytes, and resets the connection.
async fn reset_after_upgrade(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0);
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi";
    socket.write_all(answer).await.unwrap();
    let mut one = [0];
    socket.read_exact(&mut one).await.unwrap();
    socket.set_zero_linger().unwrap();
}

#[tokio::test]
async fn a_tunnel_that_breaks_ends_without_a_word_of_ours() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let provider = tokio::spawn(reset_after_upgrade(listener));
    let yaml =
        format!("providers: {{ custom-talk: {{ base_url: \"{url}\", allow_insecure: true }} }}\n");
    let gateway = Gateway::start(&yaml).await;
    let (mut connection, _) = upgraded(&gateway, &path("custom-talk", "live"), "").await;
    assert_eq!(connection.exactly(2).await, b"hi");
    connection.write(b"!").await;
    assert_eq!(connection.rest().await, b"");
    provider.await.unwrap();
    let cut = |metrics: &Metrics| {
        metrics.sum("tollgate_errors_total", &[("kind", "upstream_cut")]) == 1.0
    };
    gateway.metrics_when("a cut tunnel", cut).await;
}

#[tokio::test]
async fn a_handshake_with_a_body_is_refused() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    let own = "Content-Length: 2\r\nContent-Type: application/json\r\n";
    let asked = handshake(&path("openai", "v1/realtime"), own);
    connection.write([asked.as_bytes(), b"{}"].concat()).await;
    let answer = connection.read().await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("must not have a body"),
        "{}",
        answer.text()
    );
    upstream.untouched();
}
