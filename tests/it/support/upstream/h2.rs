//! The HTTP/2 side of a fake provider, on hyper.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{Notify, mpsc};

use super::super::wire::Stream;
use super::reply::Framed;
use super::{Answer, End, Exchange, Part, Received, Reply, Shared};

/// Serves one connection until either side ends it.
pub(super) async fn serve(stream: impl Stream + 'static, connection: usize, shared: Arc<Shared>) {
    let close = Arc::new(Notify::new());
    let hang_up = close.clone();
    let service = service_fn(move |request| {
        let (shared, close) = (shared.clone(), close.clone());
        async move { respond(request, connection, &shared, close).await }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = serving => {}
        () = hang_up.notified() => {}
    }
}

type Response = http::Response<Scripted>;

/// An error makes hyper reset the stream.
async fn respond(
    request: http::Request<Incoming>,
    connection: usize,
    shared: &Shared,
    close: Arc<Notify>,
) -> Result<Response, io::Error> {
    let (exchange, reply) = shared.begin(record(&request, connection));
    // Dropped with the future when the gateway resets the stream or the connection.
    let mut watch = Watch::new(exchange.clone());
    let early = matches!(&reply, Reply::Answer(answer) if answer.before_body);
    if !early {
        read_body(request.into_body(), &exchange).await?;
    }
    let answer = match reply {
        Reply::Answer(answer) => answer,
        Reply::Digest => Answer::json(&exchange.whole().json()),
        Reply::Silence => std::future::pending::<Answer>().await,
        Reply::Close | Reply::Reset => {
            watch.done();
            return Err(io::Error::other("scripted reset"));
        }
        Reply::Upgrade(_) | Reply::Raw(_) => unreachable!("HTTP/1.1 only"),
    };
    tokio::time::sleep(answer.late).await;
    if let Some(gate) = &answer.after {
        gate.passed().await;
    }
    Ok(start(answer, watch, close))
}

fn record(request: &http::Request<Incoming>, connection: usize) -> Received {
    let mut headers = Vec::new();
    if let Some(authority) = request.uri().authority() {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    for (name, value) in request.headers() {
        let value = value.as_bytes().iter().map(|byte| char::from(*byte));
        headers.push((name.to_string(), value.collect()));
    }
    let target = request.uri().path_and_query();
    Received {
        connection,
        method: request.method().to_string(),
        target: target.map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", request.version()),
        headers,
        ..Received::default()
    }
}

async fn read_body(mut body: Incoming, exchange: &Exchange) -> Result<(), io::Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Ok(bytes) = frame.into_data() {
            exchange.take(&bytes);
        }
    }
    exchange.whole();
    Ok(())
}

/// Starts to play `answer` beside the response that carries it.
fn start(answer: Answer, watch: Watch, close: Arc<Notify>) -> Response {
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    if let Framed::Length(length) = answer.framing() {
        response = response.header("content-length", length);
    }
    let (frames, body) = mpsc::channel(1);
    tokio::spawn(play(answer, frames, watch, close));
    response.body(Scripted(body)).expect("a valid head")
}

type Frames = mpsc::Sender<Result<Bytes, io::Error>>;

async fn play(answer: Answer, frames: Frames, mut watch: Watch, close: Arc<Notify>) {
    for part in &answer.parts {
        let gone = match part {
            Part::Bytes(bytes) => frames.send(Ok(bytes.clone())).await.is_err(),
            Part::Pause(duration) => tokio::select! {
                () = tokio::time::sleep(*duration) => false,
                () = frames.closed() => true,
            },
            Part::Wait(gate) => tokio::select! {
                () = gate.passed() => false,
                () = frames.closed() => true,
            },
        };
        if gone {
            return;
        }
    }
    match answer.end {
        End::Clean => {}
        End::Reset => {
            let _ = frames.send(Err(io::Error::other("scripted reset"))).await;
        }
        End::Close => close_after_flush(&frames, &close).await,
        End::Hang => return frames.closed().await,
    }
    watch.done();
}

/// Closes the connection once hyper has taken the last frame.
async fn close_after_flush(frames: &Frames, close: &Notify) {
    let _ = frames.reserve().await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    close.notify_one();
}

/// Marks an exchange as abandoned unless it was played to its end.
struct Watch {
    exchange: Arc<Exchange>,
    done: bool,
}

impl Watch {
    fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            done: false,
        }
    }

    fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.done {
            self.exchange.abandon();
        }
    }
}

/// A response body fed by [`play`].
struct Scripted(mpsc::Receiver<Result<Bytes, io::Error>>);

impl Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|next| next.map(|piece| piece.map(Frame::data)))
    }
}
