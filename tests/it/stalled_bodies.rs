//! HTTP/2 bodies that stream through and take their time: bounded by `server.body_timeout`,
//! as over HTTP/1.1, and by nothing else.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::conf::{CHAT, at};
use crate::support::metrics::Metrics;
use crate::support::upstream::End;
use crate::support::{Answer, Digest, Gateway, Reply, Upstream, eventually, within};

/// A body of which the test sends each piece; it ends when the sender is dropped.
struct Dripping {
    pieces: UnboundedReceiver<Bytes>,
    declared: Option<u64>,
}

impl Body for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Pieces of a request's body, and what becomes of it.
struct Sending {
    pieces: UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<hyper::Result<http::Response<Incoming>>>,
    /// Dropping it closes the connection.
    _sender: SendRequest<Dripping>,
}

impl Sending {
    async fn begin(gateway: &Gateway, declared: Option<u64>) -> Self {
        let socket = tokio::net::TcpStream::connect(gateway.public())
            .await
            .unwrap();
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
        tokio::spawn(connection);
        let (pieces, receiver) = unbounded_channel();
        let body = Dripping {
            pieces: receiver,
            declared,
        };
        let request = http::Request::post(gateway.url(CHAT))
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        Self {
            pieces,
            answer,
            _sender: sender,
        }
    }

    fn piece(&self, text: &str) {
        self.pieces.send(Bytes::from(text.to_owned())).unwrap();
    }

    async fn head(&mut self) -> http::Response<Incoming> {
        let answer = within("an answer", &mut self.answer).await;
        answer.unwrap().expect("an answer, not a reset")
    }
}

async fn text(answer: http::Response<Incoming>) -> String {
    let body = within("the answer's body", answer.into_body().collect()).await;
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

async fn gateway(upstream: &Upstream, version: &str, timeout: &str) -> Gateway {
    Gateway::with(&at(upstream, "openai", "/v1", version))
        .server(timeout)
        .start()
        .await
}

async fn both_upstreams() -> [(Upstream, &'static str); 2] {
    [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ]
}

#[tokio::test]
async fn a_streaming_http2_body_that_stalls_is_408() {
    for (upstream, version) in both_upstreams().await {
        upstream.always(Reply::Digest);
        let gateway = gateway(&upstream, version, "body_timeout: 300ms").await;
        for declared in [Some(1_000), Some(1_000_000), None] {
            for begun in [false, true] {
                let mut sending = Sending::begin(&gateway, declared).await;
                if begun {
                    sending.piece("{\"a\":");
                }
                let answer = sending.head().await;
                let what = format!("{version}, {declared:?}, begun: {begun}");
                assert_eq!(answer.status(), 408, "{what}");
                assert_eq!(answer.headers()["tollgate-error-source"], "gateway");
                let envelope: serde_json::Value =
                    serde_json::from_str(&text(answer).await).unwrap();
                assert_eq!(envelope["internalCode"], 8004, "{what}");
            }
        }
        let counted = |metrics: &Metrics| {
            metrics.sum("tollgate_errors_total", &[("kind", "client_timeout")]) == 6.0
        };
        gateway.metrics_when("six stalled bodies", counted).await;
        let whole = upstream.requests().into_iter();
        let whole = whole.filter(|request| request.digest.is_some());
        assert_eq!(whole.count(), 0, "nothing arrived whole");
    }
}

#[tokio::test]
async fn an_http2_body_that_keeps_coming_may_take_longer() {
    for (upstream, version) in both_upstreams().await {
        upstream.always(Reply::Digest);
        let gateway = gateway(&upstream, version, "body_timeout: 1s").await;
        for declared in [Some(50), None] {
            let mut sending = Sending::begin(&gateway, declared).await;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                sending.piece("0123456789");
            }
            sending.pieces = unbounded_channel().0;
            let answer = sending.head().await;
            assert_eq!(answer.status(), 200, "{version}, {declared:?}");
            let wanted = Digest::of("0123456789".repeat(5).as_bytes()).json();
            assert_eq!(text(answer).await, wanted, "{version}, {declared:?}");
        }
    }
}

#[tokio::test]
async fn once_the_body_is_there_the_provider_may_take_its_time() {
    for (upstream, version) in both_upstreams().await {
        let moment = Duration::from_millis(900);
        let slow = Answer::sse().pause(moment).text("data: 1\n\n");
        upstream.script(slow.pause(moment).text("data: 2\n\n"));
        let gateway = gateway(&upstream, version, "body_timeout: 300ms").await;
        let mut sending = Sending::begin(&gateway, None).await;
        sending.piece("{}");
        sending.pieces = unbounded_channel().0;
        let answer = sending.head().await;
        assert_eq!(text(answer).await, "data: 1\n\ndata: 2\n\n", "{version}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_http2_body_is_passed_on() {
    let upstream = Upstream::h1().await;
    let early = Answer::new(401)
        .text("{\"error\":\"no key\"}")
        .before_body();
    upstream.script(early);
    let gateway = gateway(&upstream, "http: h1", "body_timeout: 20s").await;
    let mut sending = Sending::begin(&gateway, None).await;
    sending.piece("{\"a\":");
    let answer = sending.head().await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["tollgate-error-source"], "provider");
    assert_eq!(text(answer).await, "{\"error\":\"no key\"}");
}

#[tokio::test]
async fn a_client_that_leaves_amid_its_http2_body_cancels_the_call() {
    for (upstream, version) in both_upstreams().await {
        upstream.always(Answer::sse().end(End::Hang));
        let gateway = gateway(&upstream, version, "body_timeout: 20s").await;
        let sending = Sending::begin(&gateway, None).await;
        sending.piece("{\"a\":");
        let begun = || upstream.requests().into_iter().next();
        eventually("the beginning at the upstream", begun).await;
        sending.answer.abort();
        drop(sending);
        let gone = |metrics: &Metrics| {
            metrics.sum("tollgate_errors_total", &[("kind", "client_gone")]) == 1.0
        };
        gateway.metrics_when("the client that left", gone).await;
        let whole = upstream.requests().into_iter();
        assert!(whole.map(|seen| seen.digest).all(|digest| digest.is_none()));
    }
}
