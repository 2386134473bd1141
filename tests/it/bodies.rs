//! Request bodies: whole in every framing, and bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::client::Told;
use crate::support::conf::{CHAT, SPENDING, at, entry, path};
use crate::support::metrics::Metrics;
use crate::support::wire::Piece;
use crate::support::{
    Answer, Connection, Digest, Gateway, Protocol, Reply, Request, Response, Upstream, body, within,
};

const SIZES: [usize; 7] = [
    0,
    1 << 10,
    (1 << 16) - 1,
    1 << 16,
    (1 << 16) + 1,
    1 << 20,
    20 << 20,
];

/// Every way a client may frame a body.
const FRAMINGS: [(Protocol, Told); 4] = [
    (Protocol::H1, Told::Length),
    (Protocol::H1, Told::Open),
    (Protocol::H2, Told::Length),
    (Protocol::H2, Told::Open),
];

/// Options of a provider whose requests the gateway signs, and must hold therefore.
const SIGNED: &str = r#"keys: [{ value: '{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"very-secret","region":"us-east-1"}' }]"#;

/// A target of that provider.
fn held() -> String {
    path("aws-bedrock", "bedrock-runtime/us-east-1/model/m/invoke")
}

/// Sends every size in every framing to `target` and compares what arrived.
async fn every_size_and_framing(
    gateway: &Gateway,
    upstream: &Upstream,
    target: &str,
    signed: bool,
) {
    for size in SIZES {
        let body = body::json_of_size("m", size);
        let wanted = Digest::of(&body);
        for (protocol, told) in FRAMINGS {
            let what = format!("{size} bytes, {protocol:?}, {told:?}");
            upstream.script(Reply::Digest);
            let request = Request::post(target, &body).over(protocol).told(told);
            let answer = request.send(gateway).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, wanted.json()),
                "{what}"
            );
            let seen = upstream.requests().pop().unwrap();
            assert_eq!(seen.digest, Some(wanted.clone()), "{what}");
            let authorization = seen.header("authorization").unwrap_or_default();
            assert_eq!(
                authorization.starts_with("AWS4-HMAC-SHA256 "),
                signed,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn streamed_bodies_arrive_whole_over_http1() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "http: h1")).await;
    every_size_and_framing(&gateway, &upstream, CHAT, false).await;
}

#[tokio::test]
async fn streamed_bodies_arrive_whole_over_http2() {
    let upstream = Upstream::h2c().await;
    let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "http: h2")).await;
    every_size_and_framing(&gateway, &upstream, CHAT, false).await;
}

#[tokio::test]
async fn held_bodies_arrive_whole_over_http1() {
    let upstream = Upstream::h1().await;
    let yaml = at(&upstream, "aws-bedrock", "", &format!("http: h1, {SIGNED}"));
    let gateway = Gateway::start(&(yaml + SPENDING)).await;
    every_size_and_framing(&gateway, &upstream, &held(), true).await;
}

#[tokio::test]
async fn held_bodies_arrive_whole_over_http2() {
    let upstream = Upstream::h2c().await;
    let yaml = at(&upstream, "aws-bedrock", "", &format!("http: h2, {SIGNED}"));
    let gateway = Gateway::start(&(yaml + SPENDING)).await;
    every_size_and_framing(&gateway, &upstream, &held(), true).await;
}

#[tokio::test]
async fn other_content_streams_through_in_every_framing() {
    let bytes = body::octets(3 << 20);
    let wanted = Digest::of(&bytes);
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&at(&upstream, "openai", "/v1", ""))
        .server("max_body: 64KiB")
        .start()
        .await;
    for content_type in [
        "multipart/form-data; boundary=x",
        "audio/wav",
        "application/octet-stream",
    ] {
        for (protocol, told) in FRAMINGS {
            upstream.script(Reply::Digest);
            let request = Request::new("POST", &path("openai", "audio/transcriptions"))
                .header("content-type", content_type)
                .body(&bytes)
                .over(protocol)
                .told(told);
            let answer = request.send(&gateway).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, wanted.json()),
                "{content_type} {protocol:?} {told:?}"
            );
        }
    }
}

#[tokio::test]
async fn continue_is_answered_before_the_body() {
    let upstream = Upstream::h1().await;
    let yaml = format!(
        "{}{}{SPENDING}",
        at(&upstream, "openai", "/v1", ""),
        entry(&upstream, "aws-bedrock", "", SIGNED)
    );
    let gateway = Gateway::start(&yaml).await;
    for target in [CHAT.to_owned(), held()] {
        for size in [1 << 10, 1 << 20] {
            let body = body::json_of_size("m", size);
            upstream.script(Reply::Digest);
            let answer = Request::post(&target, &body)
                .told(Told::AfterContinue)
                .send(&gateway)
                .await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, Digest::of(&body).json()),
                "{target}, {size}"
            );
            assert_eq!(answer.interim, [100]);
        }
    }
}

#[tokio::test]
async fn a_large_body_passes_before_it_is_whole() {
    let body = body::json_of_size("m", 70_000);
    let (first, rest) = body.split_at(35_000);
    let upstream = Upstream::h1().await;
    upstream.script(Reply::Digest);
    let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "")).await;
    let mut connection = halfway(&gateway, &body, first).await;
    // Nothing more is sent before the provider has the beginning.
    crate::support::eventually("the first half at the upstream", || {
        let requests = upstream.requests();
        let has_it = requests.first()?.body == first;
        has_it.then_some(())
    })
    .await;
    connection.write(rest).await;
    let answer = connection.read().await.unwrap();
    assert_eq!(answer.text(), Digest::of(&body).json());
}

#[tokio::test]
async fn a_small_body_passes_when_it_is_whole() {
    let body = body::json_of_size("m", 60_000);
    let (first, rest) = body.split_at(30_000);
    let upstream = Upstream::h1().await;
    upstream.script(Reply::Digest);
    let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "")).await;
    let mut connection = halfway(&gateway, &body, first).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(upstream.requests().is_empty());
    connection.write(rest).await;
    let answer = connection.read().await.unwrap();
    assert_eq!(answer.text(), Digest::of(&body).json());
}

#[tokio::test]
async fn a_small_body_streams_where_no_room_is_left_to_hold_it() {
    let upstream = Upstream::h1().await;
    upstream.always(Reply::Digest);
    let gateway = Gateway::with(&at(&upstream, "openai", "/v1", ""))
        .server("max_body: 64000B")
        .server("max_buffered: 128000B")
        .start()
        .await;
    let body = body::json_of_size("m", 60_000);
    let (first, rest) = body.split_at(30_000);
    let mut holding = halfway(&gateway, &body, first).await;
    let held_now = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) >= 6e4;
    gateway
        .metrics_when("the first body's share", held_now)
        .await;
    let answer = Request::post(CHAT, &body).send(&gateway).await;
    assert_eq!(answer.text(), Digest::of(&body).json());
    holding.write(rest).await;
    let answer = holding.read().await.unwrap();
    assert_eq!(answer.text(), Digest::of(&body).json());
}

/// A connection over which the head of a request for `body`, and the `first` of it, has been sent.
async fn halfway(gateway: &Gateway, body: &[u8], first: &[u8]) -> Connection {
    let mut connection = Connection::open(gateway).await;
    let length = body.len();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write(head).await;
    connection.write(first).await;
    connection
}

/// A request of `size` bytes of `content_type`.
fn sized(target: &str, content_type: &str, size: usize) -> Request {
    let body = match content_type {
        "application/json" => body::json_of_size("m", size),
        _ => body::octets(size),
    };
    Request::new("POST", target)
        .header("content-type", content_type)
        .body(body)
}

fn assert_refused(answer: &Response, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.json()["httpCode"], status, "{what}");
    assert_eq!(
        answer.header("tollgate-error-source"),
        Some("gateway"),
        "{what}"
    );
}

#[tokio::test]
async fn bodies_over_the_limit_are_413() {
    let upstream = Upstream::h1().await;
    let yaml = format!(
        "{}{}{SPENDING}",
        at(&upstream, "openai", "/v1", ""),
        entry(&upstream, "aws-bedrock", "", SIGNED)
    );
    let gateway = Gateway::with(&yaml)
        .server("max_body: 128KiB")
        .server("max_upload: 512KiB")
        .start()
        .await;
    let cases = [
        (CHAT.to_owned(), "application/json", 128 << 10),
        (held(), "application/json", 128 << 10),
        (
            path("openai", "files"),
            "multipart/form-data; boundary=x",
            512 << 10,
        ),
        (
            path("openai", "audio/transcriptions"),
            "audio/wav",
            512 << 10,
        ),
    ];
    for (target, content_type, limit) in cases {
        for (protocol, told) in FRAMINGS {
            let what = format!("{target} {content_type} {protocol:?} {told:?}");
            upstream.script(Reply::Digest);
            let fits = sized(&target, content_type, limit)
                .over(protocol)
                .told(told)
                .send(&gateway)
                .await;
            assert_eq!(fits.status, 200, "{what}: {}", fits.text());
            // What streams through has begun to arrive when it turns out to be too much.
            let whole = upstream
                .requests()
                .iter()
                .filter(|request| request.digest.is_some())
                .count();
            upstream.always(Reply::Digest);
            let more = sized(&target, content_type, limit + 1)
                .over(protocol)
                .told(told)
                .send(&gateway)
                .await;
            assert_refused(&more, 413, &what);
            let after = upstream
                .requests()
                .iter()
                .filter(|request| request.digest.is_some())
                .count();
            assert_eq!(after, whole, "{what}: nothing over the limit arrives whole");
        }
    }
}

#[tokio::test]
async fn an_announced_excess_is_refused_before_it_is_sent() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&at(&upstream, "openai", "/v1", ""))
        .server("max_body: 64KiB")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n\r\n"
    );
    connection.write(head).await;
    let answer = connection.read().await.unwrap();
    assert_eq!(answer.interim, Vec::<u16>::new(), "no body was asked for");
    assert_refused(&answer, 413, "announced");
    upstream.untouched();
}

#[tokio::test]
async fn held_bodies_beyond_the_common_limit_are_503() {
    let upstream = Upstream::h1().await;
    let yaml = at(&upstream, "aws-bedrock", "", SIGNED) + SPENDING;
    let gateway = Gateway::with(&yaml)
        .server("max_body: 1MiB")
        .server("max_buffered: 1536KiB")
        .start()
        .await;
    let size = 1_000_000;
    let mut holding = Connection::open(&gateway).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n",
        held()
    );
    let body = body::json_of_size("m", size);
    holding
        .write([head.as_bytes(), &body[..size - 1]].concat())
        .await;
    let held_now = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) >= 1e6;
    gateway
        .metrics_when("the first body's share", held_now)
        .await;
    upstream.always(Reply::Digest);
    for (protocol, told) in FRAMINGS {
        let request = Request::post(&held(), &body).over(protocol).told(told);
        let answer = request.send(&gateway).await;
        assert_refused(&answer, 503, &format!("{protocol:?} {told:?}"));
        let after = answer
            .header("retry-after")
            .and_then(|value| value.parse::<u32>().ok());
        assert!(
            after.is_some_and(|seconds| seconds >= 1),
            "{:?}",
            answer.headers
        );
    }
    holding.write(&body[size - 1..]).await;
    assert_eq!(
        holding.read().await.unwrap().status,
        200,
        "who was first is served"
    );
    let nothing_held = |metrics: &Metrics| metrics.sum("tollgate_held_body_bytes", &[]) == 0.0;
    gateway
        .metrics_when("what was held is given back", nothing_held)
        .await;
    let answer = Request::post(&held(), &body).send(&gateway).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn clients_that_leave_give_their_share_back() {
    let upstream = Upstream::h1().await;
    let yaml = at(&upstream, "aws-bedrock", "", SIGNED) + SPENDING;
    let gateway = Gateway::with(&yaml)
        .server("max_body: 1MiB")
        .server("max_buffered: 1MiB")
        .start()
        .await;
    let size = 700_000;
    let body = body::json_of_size("m", size);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n",
        held()
    );
    for _ in 0..5 {
        let mut leaving = Connection::open(&gateway).await;
        leaving
            .write([head.as_bytes(), &body[..size / 2]].concat())
            .await;
        drop(leaving);
    }
    upstream.always(Reply::Digest);
    within("a share that was given back", async {
        while Request::post(&held(), &body).send(&gateway).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Sends one large held body from shared memory; the status, or `None` for a lost connection.
async fn send_large(
    address: std::net::SocketAddr,
    head: Arc<str>,
    body: Arc<[u8]>,
    turn: Arc<Semaphore>,
) -> Option<u16> {
    let mut connection = Connection::open(address).await;
    connection.write(&*head).await;
    // All clients are connected and have asked; only some write at a time.
    let _turn = turn.acquire().await.ok()?;
    connection.write(&*body).await;
    connection.read().await.map(|answer| answer.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_hundred_large_held_bodies_stay_within_the_limit() {
    const CLIENTS: usize = 200;
    const SIZE: usize = 32 << 20;
    const BUFFERED: u64 = 256 << 20;
    let upstream = Upstream::h1().await;
    upstream.always(Reply::Digest);
    let yaml = at(&upstream, "aws-bedrock", "", SIGNED) + SPENDING;
    let gateway = Gateway::with(&yaml)
        .server("max_buffered: 256MiB")
        .start()
        .await;
    let before = gateway.rss();
    let body: Arc<[u8]> = body::json_of_size("m", SIZE).into();
    let wanted = Digest::of(&body);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {SIZE}\r\n\r\n",
        held()
    );
    let (head, turn) = (Arc::<str>::from(head), Arc::new(Semaphore::new(16)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(send_large(
            gateway.public(),
            head.clone(),
            body.clone(),
            turn.clone(),
        ));
    }
    let mut served = 0;
    while let Some(status) = clients.join_next().await {
        match status.unwrap() {
            Some(200) => served += 1,
            status => assert_eq!(status, Some(503)),
        }
    }
    let seen = upstream.requests();
    assert!(served >= 1, "someone is served");
    assert_eq!(
        seen.iter()
            .filter(|request| request.digest.as_ref() == Some(&wanted))
            .count(),
        served
    );
    let grown = gateway.peak_rss().saturating_sub(before);
    assert!(
        grown < BUFFERED + (128 << 20),
        "grew by {} MiB",
        grown >> 20
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    let upstream = Upstream::h1().await;
    let yaml = format!(
        "{}{}{SPENDING}",
        at(&upstream, "openai", "/v1", ""),
        entry(&upstream, "aws-bedrock", "", SIGNED)
    );
    let gateway = Gateway::start(&yaml).await;
    upstream.always(Reply::Digest);
    for target in [CHAT.to_owned(), held()] {
        for framing in [
            "content-length: 100\r\n\r\n{\"a\":",
            "transfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n",
        ] {
            let mut connection = Connection::open(&gateway).await;
            connection.write(format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}")).await;
            drop(connection);
        }
    }
    upstream.always(Reply::Digest);
    assert_eq!(Request::post(CHAT, "{}").send(&gateway).await.status, 200);
    let whole: Vec<_> = upstream
        .requests()
        .into_iter()
        .filter(|request| request.digest.is_some())
        .collect();
    assert_eq!(whole.len(), 1, "only the last request was whole: {whole:?}");
}

#[tokio::test]
async fn a_get_with_a_body_and_a_post_without_one_pass() {
    let upstream = Upstream::h1().await;
    upstream.always(Reply::Digest);
    let gateway = Gateway::start(&at(&upstream, "openai", "/v1", "")).await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let with = Request::get(CHAT)
            .body("{\"a\":1}")
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(with.text(), Digest::of(b"{\"a\":1}").json(), "{protocol:?}");
        let mut without = Request::new("POST", CHAT)
            .over(protocol)
            .open(&gateway)
            .await;
        assert!(
            matches!(without.piece().await, Piece::Data(bytes) if bytes == Digest::of(b"").json().as_bytes())
        );
    }
}

/// A read may bring no more than the head of a chunk: that is not the end of the body.
#[tokio::test]
async fn chunks_that_come_in_bits_are_one_body() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for content_type in ["application/json", "application/octet-stream"] {
            upstream.script(Reply::Digest);
            let mut connection = Connection::open(&gateway).await;
            let head = format!(
                "POST {CHAT} HTTP/1.1\r\nHost: gateway.example\r\nContent-Type: {content_type}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            for bit in [
                &*head,
                "5\r\nhello\r\n",
                "6\r\n",
                " world",
                "\r\n",
                "0\r\n",
                "\r\n",
            ] {
                connection.write(bit).await;
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            }
            let answer = connection.read().await.unwrap();
            let wanted = Digest::of(b"hello world").json();
            assert_eq!((answer.status, answer.text()), (200, wanted), "{version}");
        }
    }
}

/// The end of a held body is read apart: wherever its pieces are cut, none of it is missing, and the
/// next request on the connection is read as ever.
#[tokio::test]
async fn held_bodies_arrive_whole_however_they_are_cut() {
    let upstream = Upstream::h1().await;
    let retries =
        "accounts: { default: { gateways: { default: { retry: { max_attempts: 2 } } } } }\n";
    let yaml = at(&upstream, "openai", "/v1", "") + retries;
    let gateway = Gateway::start(&yaml).await;
    upstream.always(Reply::Digest);
    let mut connection = Connection::open(&gateway).await;
    for size in [30, 900, 3_900, 4_096, 32_768, 65_537, 200_000] {
        let body = body::json_of_size("m", size);
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {size}\r\n\r\n"
        );
        let sent = [head.as_bytes(), &body].concat();
        for left in [0, 1, 2, 10, size / 2, size - 1, size, size + 1] {
            let (first, rest) = sent.split_at(sent.len() - left);
            connection.write(first).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            connection.write(rest).await;
            let answer = connection.read().await.unwrap();
            let wanted = Digest::of(&body).json();
            assert_eq!(
                (answer.status, answer.text()),
                (200, wanted),
                "{size} {left}"
            );
        }
    }
}

/// Less than what one read brings may be allowed, whether a length is announced or not.
#[tokio::test]
async fn a_small_bound_holds_for_held_bodies_of_any_framing() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let retries =
        "accounts: { default: { gateways: { default: { retry: { max_attempts: 2 } } } } }\n";
    let yaml = at(&upstream, "openai", "/v1", "") + retries;
    let gateway = Gateway::with(&yaml).server("max_body: 1KiB").start().await;
    for (protocol, told) in FRAMINGS {
        for (size, status) in [(700, 200), (2000, 413)] {
            let body = format!(r#"{{"x":"{}"}}"#, "y".repeat(size));
            let request = Request::post(CHAT, body).over(protocol).told(told);
            let answer = request.send(&gateway).await;
            assert_eq!(answer.status, status, "{protocol:?} {told:?} {size}");
        }
    }
}

/// Answers requests on one connection, each in one write, and tells what the first read of each
/// brought.
async fn reads(listener: TcpListener, count: usize) -> Vec<String> {
    let (mut socket, _) = listener.accept().await.unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-type: application/json\r\n",
        "h".repeat(900)
    );
    let body = format!("{:900}", "{}");
    let framed = [
        format!("content-length: 900\r\n\r\n{body}"),
        format!("transfer-encoding: chunked\r\n\r\n384\r\n{body}\r\n0\r\n\r\n"),
    ];
    let mut all = Vec::new();
    for number in 0..count {
        let mut read = vec![0; 1 << 16];
        let length = socket.read(&mut read).await.unwrap();
        all.push(String::from_utf8_lossy(&read[..length]).into_owned());
        let answer = head.clone() + &framed[number % 2];
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
    all
}

/// Asks number `number` of [`reads`], and tells what the first read of the answer brought.
async fn first_read(client: &mut TcpStream, number: usize) -> String {
    let body = body::json_of_size(&format!("m{number}"), 1 << 10);
    let path = path("custom-raw", "v1/chat/completions");
    let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 1024\r\n");
    let request = [head.as_bytes(), b"\r\n", &body].concat();
    client.write_all(&request).await.unwrap();
    let mut read = vec![0; 1 << 16];
    let length = client.read(&mut read).await.unwrap();
    String::from_utf8_lossy(&read[..length]).into_owned()
}

#[tokio::test]
async fn head_and_body_leave_as_one() {
    for (gateway, hits) in [("{}", 0), ("{ cache: {} }", 6)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = tokio::spawn(reads(listener, 6));
        let yaml = format!(
            "providers: {{ custom-raw: {{ base_url: \"{url}\", allow_insecure: true, auth: none }} }}\n\
             accounts: {{ default: {{ gateways: {{ default: {gateway} }} }} }}\n"
        );
        let gateway = Gateway::start(&yaml).await;
        let mut client = TcpStream::connect(gateway.public()).await.unwrap();
        for number in 0..6 {
            let answer = first_read(&mut client, number).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("hhhh"), "{answer}");
            let chunks = ["", "384\r\n\r\n0\r\n\r\n"][number % 2];
            assert_eq!(body.len(), 900 + chunks.len(), "{answer}");
        }
        for read in provider.await.unwrap() {
            let (_, body) = read.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), 1024, "{read}");
        }
        if hits > 0 {
            crate::cache::stored(&gateway).await;
        }
        for number in 0..hits {
            let answer = first_read(&mut client, number).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("cf-aig-cache-status: HIT"), "{answer}");
            assert_eq!(body.len(), 900, "{answer}");
        }
    }
}
