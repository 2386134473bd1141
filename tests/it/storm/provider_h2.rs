//! The HTTP/2 side of a provider in a storm, on hyper.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::provider::{Heard, LISTENS, LONGEST, State, Welcome, add, reset_unread};
use super::script::{Act, Framed, Script};
use super::tap::Tap;

/// Until hyper has written what it was given.
const MOMENT: Duration = Duration::from_millis(50);
/// Before each further read of a body that is read slowly.
const SLOWLY: Duration = Duration::from_millis(20);

/// How an exchange can end its connection.
#[derive(Default)]
struct Ending {
    /// At once.
    hangs_up: Notify,
    /// After what is in flight.
    retires: Notify,
}

/// Serves a connection to its end.
pub async fn serve(stream: TcpStream, state: &Arc<State>) {
    let welcome = state.welcome();
    if matches!(welcome, Welcome::Reset) {
        reset_unread(&stream).await;
    }
    let tap = Tap::new(stream);
    match welcome {
        Welcome::Reset => {}
        Welcome::End => tap.end(LISTENS).await,
        Welcome::Garble => {
            tap.say(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            tap.end(LISTENS).await;
        }
        Welcome::Serve => {
            serve_requests(tap.clone(), state.clone()).await;
            tap.end(LISTENS).await;
        }
    }
    let heads = tap.heads();
    add(&state.tally.heads, heads);
    add(&state.tally.headless, u64::from(heads == 0));
}

async fn serve_requests(tap: Tap, state: Arc<State>) {
    let ending = Arc::new(Ending::default());
    let (ends, over) = (ending.clone(), state.clone());
    let service = service_fn(move |request| {
        let (state, ending) = (state.clone(), ending.clone());
        async move { respond(request, state, ending).await }
    });
    let serving =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tap), service);
    let mut serving = std::pin::pin!(serving);
    let mut retired = false;
    loop {
        tokio::select! {
            _ = &mut serving => return,
            () = ends.hangs_up.notified() => return,
            () = ends.retires.notified(), if !retired => {}
            () = over.over(), if !retired => {}
        }
        retired = true;
        serving.as_mut().graceful_shutdown();
    }
}

/// An error makes hyper reset the stream.
async fn respond(
    request: http::Request<Incoming>,
    state: Arc<State>,
    ending: Arc<Ending>,
) -> Result<http::Response<Told>, io::Error> {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name)?.to_str().ok();
    let heard = state.hear(header);
    let heard = heard.ok_or_else(|| io::Error::other("nobody sent this"))?;
    if heard.script.act != Act::FailsEarly {
        read_body(body, &heard, header("content-length"), &state).await?;
    }
    match heard.script.act {
        Act::ClosesUnanswered => {
            ending.hangs_up.notify_one();
            std::future::pending().await
        }
        Act::ResetsUnanswered => Err(io::Error::other("reset")),
        Act::Stalls => {
            sleep(LONGEST).await;
            state.wrong(format!("{} is waited for", heard.topic.text));
            Err(io::Error::other("waited for"))
        }
        _ => Ok(begin(heard.script, state, ending)),
    }
}

/// Reads the body and looks at it.
async fn read_body(
    mut body: Incoming,
    heard: &Heard,
    length: Option<&str>,
    state: &State,
) -> Result<(), io::Error> {
    // Dropped with this future where the stream is reset.
    let mut got = Got {
        heard,
        state,
        body: Vec::new(),
        whole: false,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Ok(bytes) = frame.into_data() {
            got.body.extend_from_slice(&bytes);
        }
        if heard.script.act == Act::ReadsSlowly {
            sleep(SLOWLY).await;
        }
    }
    got.whole = true;
    state.whole(heard, length, &got.body);
    Ok(())
}

/// What has come of a body.
struct Got<'a> {
    heard: &'a Heard,
    state: &'a State,
    body: Vec<u8>,
    whole: bool,
}

impl Drop for Got<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.state.cut(self.heard, &self.body);
        }
    }
}

/// Begins to tell the answer beside the response that carries it.
fn begin(script: Script, state: Arc<State>, ending: Arc<Ending>) -> http::Response<Told> {
    let mut response = http::Response::builder().status(script.status);
    for (name, value) in &script.headers {
        response = response.header(*name, value);
    }
    if let Framed::Length(length) = script.framed
        && script.status != 204
    {
        response = response.header("content-length", length);
    }
    let (frames, body) = mpsc::channel(1);
    tokio::spawn(tell(script, frames, state, ending));
    response.body(Told { frames: body }).expect("a valid head")
}

type Frames = mpsc::Sender<Result<Bytes, io::Error>>;

async fn tell(script: Script, frames: Frames, state: Arc<State>, ending: Arc<Ending>) {
    let mut start = 0;
    for end in &script.pieces {
        let piece = Bytes::copy_from_slice(&script.sent()[start..*end]);
        start = *end;
        if frames.send(Ok(piece)).await.is_err() {
            return;
        }
        sleep(script.pause).await;
    }
    match script.act {
        Act::ThenCloses => ending.retires.notify_one(),
        Act::ClosesMidway => {
            let _ = frames.reserve().await;
            sleep(MOMENT).await;
            ending.hangs_up.notify_one();
            frames.closed().await;
        }
        Act::ResetsMidway => {
            let _ = frames.send(Err(io::Error::other("reset"))).await;
        }
        Act::StallsMidway => {
            let waiting = timeout(LONGEST, frames.closed()).await;
            waiting.unwrap_or_else(|_| state.wrong("more of an answer is waited for".to_owned()));
        }
        _ => {}
    }
}

/// A response body fed by [`tell`].
struct Told {
    frames: mpsc::Receiver<Result<Bytes, io::Error>>,
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = self.frames.poll_recv(context);
        next.map(|next| next.map(|piece| piece.map(Frame::data)))
    }
}
