//! Streams: the same bytes, at once, and never a clean end for a broken one.

use crate::support::conf::{CHAT, at, openai, path};
use crate::support::upstream::End;
use crate::support::{
    Answer, Connection, Ending, Gate, Gateway, Protocol, Request, Response, Upstream,
};

const BOTH: [Protocol; 2] = [Protocol::H1, Protocol::H2];

/// Everything an event stream may contain and a careless proxy may lose.
const ODD_STREAM: &str = "\u{feff}: comment\r\n\r\nevent: ping\ndata: {}\n\nid: 7\nretry: 10\ndata: a\ndata: b\n\n\
    data:no space\rdata: CR\r\rdata: gr\u{fc}\u{df}e \u{1f600}\n\n\n\n:\n\nevent: \ndata\n\ndata: [DONE]\n\ntrailing without end";

/// Upstreams of both HTTP versions and the provider option that speaks to them.
async fn both_upstreams() -> [(Upstream, &'static str); 2] {
    [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ]
}

/// `bytes` in pieces of 1, 2, 3, … bytes, so that cuts fall everywhere.
fn in_pieces(mut answer: Answer, bytes: &[u8]) -> Answer {
    let mut rest = bytes;
    let mut size = 1;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(size.min(rest.len()));
        answer = answer.bytes(piece);
        (rest, size) = (left, size % 7 + 1);
    }
    answer
}

#[tokio::test]
async fn the_byte_sequence_of_a_stream_is_the_same() {
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for protocol in BOTH {
            for answer in [Answer::sse(), Answer::sse().declaring(ODD_STREAM.len())] {
                upstream.script(in_pieces(answer, ODD_STREAM.as_bytes()));
                let answer = Request::post(CHAT, "{}")
                    .over(protocol)
                    .send(&gateway)
                    .await;
                assert_eq!(
                    (answer.text().as_str(), answer.ending),
                    (ODD_STREAM, Ending::Whole)
                );
                assert_eq!(answer.header("content-type"), Some("text/event-stream"));
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_only_the_connection_ends_is_whole() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in BOTH {
        upstream.script(in_pieces(
            Answer::sse().until_close(),
            ODD_STREAM.as_bytes(),
        ));
        let answer = Request::post(CHAT, "{}")
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(answer.text(), ODD_STREAM);
        assert_ne!(answer.ending, Ending::Cut);
    }
}

#[tokio::test]
async fn a_frame_is_never_held_back() {
    let frames = ["data: 1\n\n", ":\n\n", "data: par", "tial\n\n", "x"];
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for protocol in BOTH {
            let gate = Gate::new();
            let scripted = frames.iter().fold(Answer::sse(), |answer, frame| {
                answer.text(frame).wait(&gate)
            });
            upstream.script(scripted);
            let mut live = Request::post(CHAT, "{}")
                .over(protocol)
                .open(&gateway)
                .await;
            for frame in frames {
                // The upstream sends no further byte before this one has arrived here.
                live.read_past(frame).await;
                gate.open();
            }
            assert_eq!(live.finish().await.ending, Ending::Whole);
        }
    }
}

#[tokio::test]
async fn the_head_does_not_wait_for_the_first_byte() {
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for protocol in BOTH {
            let gate = Gate::new();
            upstream.script(Answer::sse().wait(&gate).text("data: 1\n\n"));
            let live = Request::post(CHAT, "{}")
                .over(protocol)
                .open(&gateway)
                .await;
            assert_eq!(live.status, 200);
            gate.open();
            assert_eq!(live.finish().await.text(), "data: 1\n\n");
        }
    }
}

#[tokio::test]
async fn compressed_answers_pass_as_they_are() {
    let bytes = [
        b"\x1f\x8b\x08\x00".to_vec(),
        crate::support::body::octets(5000),
    ]
    .concat();
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for content_type in ["text/event-stream", "application/json"] {
        for framed in [Answer::new(200), Answer::new(200).chunked()] {
            let scripted = framed
                .header("content-type", content_type)
                .header("content-encoding", "gzip");
            upstream.script(in_pieces(scripted, &bytes));
            let answer = Request::post(CHAT, "{}")
                .header("accept-encoding", "gzip")
                .send(&gateway)
                .await;
            assert_eq!(
                (answer.header("content-encoding"), answer.body.as_slice()),
                (Some("gzip"), bytes.as_slice())
            );
            assert_eq!(answer.ending, Ending::Whole);
        }
    }
}

#[tokio::test]
async fn many_streams_on_one_connection_do_not_mix() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = crate::support::client::Multiplexed::open(&gateway).await;
    let gate = Gate::new();
    let mut streams = Vec::new();
    for number in 0..20 {
        upstream.script(
            Answer::sse()
                .text(&format!("data: {number} a\n\n"))
                .wait(&gate)
                .text(&format!("data: {number} b\n\n")),
        );
        let mut live = connection
            .start(&Request::post(CHAT, "{}").over(Protocol::H2))
            .await
            .unwrap();
        assert_eq!(
            live.read_past("\n\n").await,
            format!("data: {number} a\n\n")
        );
        streams.push(live);
    }
    (0..20).for_each(|_| gate.open());
    for (number, live) in streams.into_iter().enumerate() {
        assert_eq!(live.finish().await.text(), format!("data: {number} b\n\n"));
    }
}

/// Client, upstream: whoever leaves, the other side is told at once.
#[tokio::test]
async fn a_client_that_leaves_mid_stream_cancels_the_call() {
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for (number, protocol) in BOTH.into_iter().enumerate() {
            upstream.script(Answer::sse().text("data: 1\n\n").end(End::Hang));
            let mut live = Request::post(CHAT, "{}")
                .over(protocol)
                .open(&gateway)
                .await;
            live.read_past("1").await;
            drop(live);
            upstream.abandoned(number + 1).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_cancels_the_call() {
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for (number, protocol) in BOTH.into_iter().enumerate() {
            upstream.script(crate::support::Reply::Silence);
            let address = gateway.public();
            let request = Request::post(CHAT, "{}").over(protocol);
            let waiting = tokio::spawn(async move { request.try_open(address).await.is_some() });
            upstream.received(number + 1).await;
            waiting.abort();
            upstream.abandoned(number + 1).await;
        }
    }
}

#[tokio::test]
async fn one_stream_that_is_reset_leaves_its_neighbours_alone() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = crate::support::client::Multiplexed::open(&gateway).await;
    let gate = Gate::new();
    upstream.script(Answer::sse().text("data: 1\n\n").end(End::Hang));
    upstream.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: 2\n\n"),
    );
    let request = Request::post(CHAT, "{}").over(Protocol::H2);
    let mut leaving = connection.start(&request).await.unwrap();
    let mut staying = connection.start(&request).await.unwrap();
    leaving.read_past("1\n\n").await;
    staying.read_past("1\n\n").await;
    drop(leaving);
    upstream.abandoned(1).await;
    gate.open();
    let rest: Response = staying.finish().await;
    assert_eq!(
        (rest.text().as_str(), rest.ending),
        ("data: 2\n\n", Ending::Whole)
    );
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let bytes = crate::support::body::octets(8 << 20);
    for (upstream, version) in both_upstreams().await {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for protocol in BOTH {
            upstream.script(
                Answer::new(200)
                    .header("content-type", "audio/mpeg")
                    .bytes(&bytes),
            );
            let answer = Request::get(&path("openai", "files/f/content"))
                .over(protocol)
                .send(&gateway)
                .await;
            assert_eq!(answer.ending, Ending::Whole);
            assert!(
                answer.body == bytes,
                "{} of {} bytes",
                answer.body.len(),
                bytes.len()
            );
        }
    }
}

/// A provider that answers one request with an interim head, and with the rest when it is told to.
struct Hinting {
    gateway: Gateway,
    go: tokio::sync::oneshot::Sender<()>,
    provider: tokio::task::JoinHandle<()>,
}

impl Hinting {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (go, goes) = tokio::sync::oneshot::channel();
        let yaml = format!(
            "providers: {{ openai: {{ base_url: \"{url}/v1\", allow_insecure: true }} }}\n"
        );
        Self {
            provider: tokio::spawn(hints(listener, goes)),
            gateway: Gateway::start(&yaml).await,
            go,
        }
    }

    /// Asks over this version of HTTP/1.
    async fn asked(&self, version: &str) -> Connection {
        let mut connection = Connection::open(&self.gateway).await;
        let asked = format!(
            "POST {CHAT} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        connection.write(asked).await;
        connection
    }
}

async fn hints(listener: tokio::net::TcpListener, go: tokio::sync::oneshot::Receiver<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"{}") {
        assert_ne!(socket.read_buf(&mut asked).await.unwrap(), 0);
    }
    let hints = b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n";
    socket.write_all(hints).await.unwrap();
    if go.await.is_ok() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        socket.write_all(answer).await.unwrap();
    }
}

#[tokio::test]
async fn an_interim_head_does_not_wait_for_the_answer() {
    let hinting = Hinting::start().await;
    let mut connection = hinting.asked("1.1").await;
    let interim = connection.head().await.unwrap();
    assert!(interim.start.starts_with("HTTP/1.1 103 "), "{interim:?}");
    hinting.go.send(()).unwrap();
    assert_eq!(connection.read().await.unwrap().text(), "ok");
    hinting.provider.await.unwrap();
}

#[tokio::test]
async fn an_interim_head_is_none_for_http10() {
    let hinting = Hinting::start().await;
    let mut connection = hinting.asked("1.0").await;
    hinting.go.send(()).unwrap();
    let answer = connection.read().await.unwrap();
    assert_eq!((answer.interim, answer.status), (Vec::<u16>::new(), 200));
    hinting.provider.await.unwrap();
}

#[tokio::test]
async fn who_leaves_after_an_interim_head_has_had_no_answer() {
    let hinting = Hinting::start().await;
    let mut connection = hinting.asked("1.1").await;
    assert!(connection.head().await.is_some());
    drop(connection);
    let log = hinting.gateway.logged("error=client_gone").await;
    assert!(log.contains(" status=0 "), "{log}");
    drop(hinting.go);
    hinting.provider.await.unwrap();
}
