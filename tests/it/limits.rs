//! Limits on heads and on clients that take their time.

use crate::support::conf::{CHAT, SPENDING, at, openai, path};
use crate::support::metrics::Metrics;
use crate::support::{Answer, Connection, Gateway, Protocol, Request, Upstream, within};

#[tokio::test]
async fn a_long_head_is_431() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::with(&openai(&upstream))
        .server("max_header: 16KiB")
        .start()
        .await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let with = |size: usize| {
            Request::get(CHAT)
                .header("x-long", &"a".repeat(size))
                .over(protocol)
        };
        assert_eq!(
            with(12 << 10).send(&gateway).await.status,
            200,
            "{protocol:?}"
        );
        let answer = with(20 << 10).try_open(&gateway).await;
        let status = answer.map(|answer| answer.status);
        assert!(
            matches!((protocol, status), (_, Some(431)) | (Protocol::H2, None)),
            "{protocol:?}: {status:?}"
        );
    }
    let long = format!("{CHAT}?{}", "q".repeat(20 << 10));
    assert_eq!(Request::get(&long).send(&gateway).await.status, 431);
    assert_eq!(upstream.requests().len(), 2);
    let refused = |metrics: &Metrics| {
        metrics.sum(
            "tollgate_errors_total",
            &[("kind", "head_too_large"), ("source", "client")],
        ) >= 2.0
    };
    gateway.metrics_when("the refused heads", refused).await;
}

#[tokio::test]
async fn the_default_carries_large_heads() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let long = "a".repeat(48 << 10);
        let answer = Request::get(CHAT)
            .header("x-long", &long)
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(answer.status, 200, "{protocol:?}");
        assert_eq!(
            upstream.requests().pop().unwrap().header("x-long"),
            Some(long.as_str())
        );
    }
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let with = |count: usize| {
        (0..count).fold(Request::get(CHAT), |request, n| {
            request.header(&format!("x-{n}"), "1")
        })
    };
    assert_eq!(with(100).send(&gateway).await.status, 200);
    let status = with(2000).send(&gateway).await.status;
    assert!(matches!(status, 400 | 431), "{status}");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&openai(&upstream))
        .server("header_timeout: 300ms")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    connection
        .write("GET /v1/default/default/openai/models HTTP/1.1\r\nhost: x\r\n")
        .await;
    // Within the patience of the tests, which is far below any default.
    let end = within("the end of a slow connection", connection.rest()).await;
    assert!(
        end.is_empty() || end.starts_with(b"HTTP/1.1 408"),
        "{:?}",
        String::from_utf8_lossy(&end)
    );
    upstream.untouched();
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::with(&openai(&upstream))
        .server("keepalive_timeout: 1s")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    assert_eq!(
        connection
            .exchange(&Request::get(CHAT))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::with(&openai(&upstream))
        .server("body_timeout: 1s")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    connection.write(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{")).await;
    let answer = connection.read().await.unwrap();
    assert_eq!(
        (answer.status, &answer.json()["httpCode"]),
        (408, &408.into())
    );
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.digest.is_none()),
        "nothing arrived whole"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let upstream = Upstream::h1().await;
    let large = crate::support::body::octets(32 << 20);
    upstream.script(Answer::new(200).bytes(&large));
    let gateway = Gateway::with(&openai(&upstream))
        .server("write_timeout: 300ms")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    connection
        .write(format!("GET {CHAT} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    let gone =
        |metrics: &Metrics| metrics.sum("tollgate_errors_total", &[("kind", "client_gone")]) == 1.0;
    gateway
        .metrics_when("the client that does not read", gone)
        .await;
    assert!(
        connection.rest().await.len() < large.len(),
        "the answer was not whole"
    );
}

/// A body that is announced and never comes.
struct Never;

impl hyper::body::Body for Never {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_held_http2_body_that_does_not_come_is_408_and_gives_its_memory_back() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let upstream = Upstream::h1().await;
    let key = r#"keys: [{ value: '{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"very-secret","region":"us-east-1"}' }]"#;
    let yaml = at(&upstream, "aws-bedrock", "", key) + SPENDING;
    let gateway = Gateway::with(&yaml)
        .server("body_timeout: 300ms")
        .start()
        .await;
    let address: std::net::SocketAddr = (&gateway).into();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let target = path("aws-bedrock", "bedrock-runtime/us-east-1/model/m/invoke");
    let request = http::Request::post(format!("http://{address}{target}"))
        .header("content-length", "1000000")
        .body(Never)
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 408);
    let free = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) == 0.0;
    gateway.metrics_when("no memory held", free).await;
    assert!(upstream.requests().is_empty());
}
