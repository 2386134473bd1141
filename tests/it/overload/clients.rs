//! Clients over a cap: they leave while they wait, have streams and tunnels, or still send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{BOTH, Caps, OF_PROVIDER, PATIENT, Says, answered, assert_busy};
use crate::cache::{BODY, chat};
use crate::support::client::Multiplexed;
use crate::support::conf::{CHAT, path};
use crate::support::metrics::Metrics;
use crate::support::{Answer, Connection, Gate, Reply, Request, body, within};

/// The requests of a client that may leave while it waits: their bodies stream, or are held
/// because they may be sent again, or are recorded.
fn leaving() -> Vec<Request> {
    let large = Request::post(CHAT, body::json_of_size("m", 100_000));
    let small = Request::post(CHAT, "{}");
    let bodiless = Request::get(&path("openai", "models"));
    let all = [
        small.clone().header("cf-aig-max-attempts", "2"),
        small.clone().header("cf-aig-cache-ttl", "60"),
        small,
        large,
        bodiless,
    ];
    let over = |protocol| all.clone().map(|request| request.over(protocol));
    BOTH.into_iter().flat_map(over).collect()
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_leaves_no_trace() {
    let caps = Caps::at_openai(&format!("max: 1, {PATIENT}")).await;
    let (gate, held) = caps.hold().await;
    for (number, request) in leaving().into_iter().enumerate() {
        let call = caps.ask(&request);
        caps.counts("provider", (1, 1)).await;
        call.abort();
        caps.counts("provider", (1, 0)).await;
        let counted = |metrics: &Metrics| {
            let gone = metrics.sum("tollgate_errors_total", &[("kind", "client_gone")]);
            gone == number as f64 + 1.0
        };
        let what = format!("client {number} is recorded as gone");
        caps.gateway.metrics_when(&what, counted).await;
    }
    gate.open();
    assert_eq!(answered(held).await.status, 200);
    caps.counts("provider", (0, 0)).await;
    caps.openai.received(1).await;
}

#[tokio::test]
async fn a_recorded_call_goes_on_waiting_for_others_when_its_own_client_leaves() {
    let caps = Caps::start(Says {
        openai: "max: 1, wait: 60s",
        gateway: "cache: { ttl: 5m }",
        ..Says::default()
    })
    .await;
    let (gate, held) = caps.hold().await;
    let leader = caps.ask(&chat(BODY));
    caps.counts("provider", (1, 1)).await;
    let follower = caps.ask(&chat(BODY));
    let all = |metrics: &Metrics| metrics.sum("tollgate_requests_in_flight", &[]) == 3.0;
    caps.gateway.metrics_when("three requests", all).await;
    // Counted when its head is read; then it joins.
    tokio::time::sleep(Duration::from_millis(500)).await;
    leader.abort();
    tokio::time::sleep(Duration::from_millis(500)).await;
    caps.counts("provider", (1, 1)).await;
    caps.openai.script(Answer::json(r#"{"a":1}"#));
    gate.open();
    answered(held).await;
    assert_eq!(answered(follower).await.text(), r#"{"a":1}"#);
    caps.openai.received(2).await;
    caps.counts("provider", (0, 0)).await;
}

#[tokio::test]
async fn streams_and_tunnels_count_until_their_end() {
    let caps = Caps::at_openai("max: 2, queue: 0").await;
    let upgrade = [("Upgrade".to_owned(), "websocket".to_owned())];
    caps.openai.script(Reply::Upgrade(upgrade.to_vec()));
    let mut tunnel = Connection::open(&caps.gateway).await;
    let realtime = path("openai", "realtime?model=m");
    let handshake = format!(
        "GET {realtime} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    tunnel.write(&handshake).await;
    assert!(tunnel.head().await.unwrap().start.contains(" 101 "));
    tunnel.write("ping").await;
    assert_eq!(tunnel.exactly(4).await, b"ping");
    let gate = Gate::new();
    caps.openai.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: [DONE]\n\n"),
    );
    let mut stream = Request::post(CHAT, r#"{"stream":true}"#)
        .open(&caps.gateway)
        .await;
    stream.read_past("1\n\n").await;
    caps.counts("provider", (2, 0)).await;
    let over = Request::post(CHAT, "{}").send(&caps.gateway).await;
    assert_busy(&over, "1", OF_PROVIDER);
    // Another tunnel is refused in the envelope too.
    let mut second = Connection::open(&caps.gateway).await;
    second.write(&handshake).await;
    assert_busy(&second.read().await.unwrap(), "1", OF_PROVIDER);
    drop(tunnel);
    caps.counts("provider", (1, 0)).await;
    gate.open();
    assert!(stream.finish().await.text().contains("[DONE]"));
    caps.counts("provider", (0, 0)).await;
    // A client that leaves its stream gives its place back.
    caps.openai
        .script(Answer::sse().text("data: 1\n\n").wait(&gate));
    let mut stream = Request::post(CHAT, "{}").open(&caps.gateway).await;
    stream.read_past("1\n\n").await;
    caps.counts("provider", (1, 0)).await;
    drop(stream);
    caps.counts("provider", (0, 0)).await;
}

#[tokio::test]
async fn each_stream_of_one_http2_connection_waits_for_itself() {
    let caps = Caps::at_openai(&format!("max: 2, queue: 3, {PATIENT}")).await;
    let gate = Gate::new();
    caps.openai.always(Answer::json("{}").after(&gate));
    let many = Multiplexed::open(&caps.gateway).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let mut many = many.clone();
            tokio::spawn(async move { many.start(&Request::post(CHAT, "{}")).await.unwrap() })
        })
        .collect();
    caps.counts("provider", (2, 3)).await;
    let refused = many
        .clone()
        .start(&Request::post(CHAT, "{}"))
        .await
        .unwrap();
    assert_busy(&refused.finish().await, "60", OF_PROVIDER);
    (0..5).for_each(|_| gate.open());
    for call in calls {
        let live = within("an answer", call).await.unwrap();
        assert_eq!(
            (live.status, live.finish().await.text()),
            (200, "{}".to_owned())
        );
    }
    caps.counts("provider", (0, 0)).await;
}

#[tokio::test]
async fn who_still_sends_when_it_is_refused_can_read_the_refusal() {
    let caps = Caps::at_openai("max: 1, queue: 0").await;
    let (gate, held) = caps.hold().await;
    let mut client = TcpStream::connect(caps.gateway.public()).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.readable().await.unwrap();
    // A connection that is closed under it would be reset by the first of these.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.write_all(&[b'x'; 50_000]).await.unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    gate.open();
    assert_eq!(answered(held).await.status, 200);
}
