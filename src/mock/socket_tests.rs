//! The mock behind a real socket: framings, keep-alive, pauses, cuts, gone clients.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::serve;

/// A mock on a free port. Its accept loop ends with it.
struct Mock {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Mock {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener));
        Self { address, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_h2(&self) -> SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (client, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn chat(model: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn post_chat(model: &str, stream: bool) -> String {
    post("/v1/chat/completions", &chat(model, stream))
}

fn h2_post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://mock{path}"))
        .body(Full::new(body.into()))
        .unwrap()
}

fn h2_chat(model: &str, stream: bool) -> Request<Full<Bytes>> {
    h2_post("/v1/chat/completions", chat(model, stream))
}

/// Reads until `needle` has come, or the connection ends.
async fn read_until(client: &mut TcpStream, needle: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(needle) {
        if client.read_buf(&mut read).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(read).unwrap()
}

async fn read_to_end(client: &mut TcpStream) -> String {
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    String::from_utf8(read).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    for _ in 0..3 {
        client
            .write_all(post_chat("mock", false).as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut client, "fp_mock\"}").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.to_lowercase().contains("\r\nx-request-id: mock-"),
            "{answer}"
        );
        assert!(
            !answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );

        client
            .write_all(post_chat("mock", true).as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut client, "\r\n0\r\n\r\n").await;
        assert!(
            answer
                .to_lowercase()
                .contains("\r\ntransfer-encoding: chunked"),
            "{answer}"
        );
        assert!(
            answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let both = post_chat("mock-latency-30ms-tokens-1", false) + &post_chat("mock-tokens-2", false);
    client.write_all(both.as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("fp_mock\"}").count() < 2 {
        answers += &read_until(&mut client, "fp_mock\"}").await;
    }
    let (first, second) = (
        answers.find("tokens-1").unwrap(),
        answers.find("tokens-2").unwrap(),
    );
    assert!(first < second, "{answers}");
}

#[tokio::test]
async fn close_and_http_1_0_are_respected() {
    let mock = Mock::start().await;
    let request = post_chat("mock", true);
    for request in [
        request.replace("host: mock", "host: mock\r\nconnection: close"),
        request.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = mock.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut client).await;
        assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
        let chunked = answer.to_lowercase().contains("transfer-encoding: chunked");
        assert_eq!(chunked, request.contains("HTTP/1.1"), "{answer}");
    }
}

#[tokio::test]
async fn a_short_request_is_not_taken_for_a_preface() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client.write_all(b"P").await.unwrap();
    client.write_all(b"UT / HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.contains(" 404 Not Found\r\n"), "{answer}");
    assert!(
        answer.contains("the mock does not serve PUT /;"),
        "{answer}"
    );

    let mut client = mock.connect().await;
    client
        .write_all(b"nonsense that is not HTTP\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body_comes() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let request = post_chat("mock", false);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head = format!("{head}\r\nexpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let go_on = read_until(&mut client, "\r\n\r\n").await;
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    client.write_all(body.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "fp_mock\"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn h2_with_prior_knowledge_says_the_same() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for stream in [false, true] {
        let answer = client.send_request(h2_chat("mock", stream)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let over_h2 = text(answer).await;

        let mut h1 = mock.connect().await;
        let request = post_chat("mock", stream).replace("HTTP/1.1", "HTTP/1.0");
        h1.write_all(request.as_bytes()).await.unwrap();
        let over_h1 = read_to_end(&mut h1).await;
        assert_eq!(over_h1.split_once("\r\n\r\n").unwrap().1, over_h2);
    }
}

#[tokio::test]
async fn h2_streams_do_not_wait_for_each_other() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    let silent = client.send_request(h2_chat("mock-silent", false));
    let answer = client
        .clone()
        .send_request(h2_chat("mock", false))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    drop(silent);
}

#[tokio::test]
async fn errors_have_their_status_and_headers() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for (status, retry_after) in [(429, Some("1")), (503, Some("1")), (401, None), (529, None)] {
        let model = format!("mock-status-{status}");
        let answer = client.send_request(h2_chat(&model, true)).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let header = answer.headers().get("retry-after");
        assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after);
        assert!(text(answer).await.contains(&format!("fail with {status}")));
    }
    let request = h2_post(
        "/v1/messages",
        r#"{"model":"mock-status-529","messages":[]}"#,
    );
    let answer = client.send_request(request).await.unwrap();
    let id = answer.headers()["request-id"].to_str().unwrap().to_owned();
    assert!(
        text(answer)
            .await
            .contains(&format!("\"request_id\":\"{id}\""))
    );
}

#[tokio::test]
async fn events_drip_one_by_one() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    let pauses = Duration::from_millis(40);
    let began = Instant::now();
    let model = "mock-latency-40ms-ttft-40ms-drip-40ms-tokens-1";
    let answer = client.send_request(h2_chat(model, true)).await.unwrap();
    assert!(began.elapsed() >= pauses);
    let mut body = answer.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.unwrap().into_data().unwrap();
        if !frame.is_empty() {
            frames.push(frame);
        }
    }
    assert_eq!(frames.len(), 4, "role, word, finish, [DONE]: {frames:?}");
    assert!(began.elapsed() >= pauses * 5);
}

#[tokio::test]
async fn a_cut_stream_has_its_events_and_no_end() {
    let mock = Mock::start().await;
    for model in [
        "mock-cut-3",
        "mock-cut-3-drip-1ms",
        "mock-cut-0",
        "mock-cut-100",
    ] {
        let (_, events) = model.split_once("cut-").unwrap();
        let events: usize = events.split('-').next().unwrap().parse().unwrap();
        let whole = 7;
        let mut client = mock.connect().await;
        client
            .write_all(post_chat(model, true).as_bytes())
            .await
            .unwrap();
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(
            answer.matches("data: ").count(),
            events.min(whole),
            "{answer}"
        );
        assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{answer}");

        let mut client = mock.connect_h2().await;
        let mut body = client
            .send_request(h2_chat(model, true))
            .await
            .unwrap()
            .into_body();
        let mut read = Vec::new();
        let end = loop {
            match body.frame().await {
                Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        let answer = String::from_utf8(read).unwrap();
        assert_eq!(
            answer.matches("data: ").count(),
            events.min(whole),
            "{answer}"
        );
        let error = format!("{:?}", end.expect("the stream ended well"));
        assert!(error.contains("Reset(StreamId(1), CANCEL"), "{error}");
    }
}

#[tokio::test]
async fn a_cut_answer_is_shorter_than_its_length() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client
        .write_all(post_chat("mock-cut-1", false).as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut client).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (_, length) = head
        .to_lowercase()
        .split_once("content-length: ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    assert_eq!(body.len(), length / 2);

    let mut client = mock.connect_h2().await;
    let answer = client
        .send_request(h2_chat("mock-cut-1", false))
        .await
        .unwrap();
    assert!(answer.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_reset_connection_brings_no_byte() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client
        .write_all(post_chat("mock-reset", false).as_bytes())
        .await
        .unwrap();
    assert_eq!(read_to_end(&mut client).await, "");

    let mut client = mock.connect_h2().await;
    let error = client
        .send_request(h2_chat("mock-reset", true))
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("Reset(StreamId(1)"),
        "{error:?}"
    );
    let answer = client.send_request(h2_chat("mock", false)).await.unwrap();
    assert_eq!(answer.status(), 200, "the connection lives on");
}

/// Waits until nothing but the accept loop and the test's own tasks are left: what a
/// connection's task that sleeps on would never do in time.
async fn until_tasks_are(wanted: usize) {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let patience = Instant::now();
    while alive() > wanted {
        assert!(
            patience.elapsed() < Duration::from_secs(20),
            "{} tasks linger",
            alive()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_gone_client_ends_the_work() {
    let mock = Mock::start().await;
    let idle = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    for model in [
        "mock-silent",
        "mock-latency-10m",
        "mock-ttft-10m",
        "mock-drip-10m",
    ] {
        let mut client = mock.connect().await;
        client
            .write_all(post_chat(model, true).as_bytes())
            .await
            .unwrap();
        if model.contains("ttft") || model.contains("drip") {
            let answer = read_until(&mut client, "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        let mut silence = [0];
        let quiet = Duration::from_millis(20);
        if !model.contains("drip") {
            let read = tokio::time::timeout(quiet, client.read(&mut silence)).await;
            assert!(read.is_err(), "{model} is not silent");
        }
        drop(client);
        until_tasks_are(idle).await;

        let mut client = mock.connect_h2().await;
        let request = client.send_request(h2_chat(model, true));
        assert!(
            tokio::time::timeout(quiet, async { text(request.await.unwrap()).await })
                .await
                .is_err()
        );
        // The request is reset; the connection has two tasks of its own here and one there.
        let answer = client.send_request(h2_chat("mock", false)).await.unwrap();
        text(answer).await;
        drop(client);
        until_tasks_are(idle).await;
    }
}

#[tokio::test]
async fn dropping_the_server_finishes_answers_and_closes_idle_connections() {
    let mock = Mock::start().await;
    let mut idle = mock.connect().await;
    idle.write_all(post_chat("mock", false).as_bytes())
        .await
        .unwrap();
    read_until(&mut idle, "fp_mock\"}").await;
    let mut busy = mock.connect().await;
    busy.write_all(post_chat("mock-drip-20ms", true).as_bytes())
        .await
        .unwrap();
    read_until(&mut busy, "data: ").await;
    drop(mock);
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(
        read_to_end(&mut busy)
            .await
            .ends_with("data: [DONE]\n\n\r\n0\r\n\r\n")
    );
}

#[tokio::test]
async fn bodies_are_echoed_and_digested() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for size in [0, 1, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let body: Vec<u8> = (0..size).map(|i: usize| ((i * 31) >> 3) as u8).collect();
        let hash = super::answer::hex(ring::digest::digest(&ring::digest::SHA256, &body).as_ref());

        let mut request = h2_post("/v1/echo/anything", body.clone());
        let kind = "multipart/form-data; boundary=x".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "multipart/form-data; boundary=x"
        );
        assert_eq!(answer.headers()["mock-body-bytes"], size.to_string());
        let held = answer.headers().get("mock-body-sha256");
        assert_eq!(held.is_some(), size <= 1 << 20);
        assert!(held.is_none_or(|held| *held == hash));
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);

        let answer = client.send_request(h2_post("/digest", body)).await.unwrap();
        assert_eq!(answer.headers()["mock-body-sha256"], hash);
        assert_eq!(
            text(answer).await,
            format!(r#"{{"bytes":{size},"sha256":"{hash}"}}"#)
        );
    }
}

#[tokio::test]
async fn a_large_chunked_body_is_echoed_while_it_comes() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    let head = "POST /v1/echo HTTP/1.1\r\nhost: mock\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 600_000, "x".repeat(600_000));
    client.write_all(chunk.as_bytes()).await.unwrap();
    client.write_all(chunk.as_bytes()).await.unwrap();
    let early = read_until(&mut client, "xxx").await;
    assert!(early.to_lowercase().contains("transfer-encoding: chunked"));

    let (mut reader, mut writer) = client.into_split();
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(reader.read_buf(&mut read).await.unwrap(), 0);
        }
        read.iter().filter(|byte| **byte == b'x').count()
    });
    writer.write_all(chunk.as_bytes()).await.unwrap();
    writer.write_all(b"0\r\n\r\n").await.unwrap();
    let early = early.split_once("\r\n\r\n").unwrap().1.matches('x').count();
    assert_eq!(early + reading.await.unwrap(), 1_800_000);
}
