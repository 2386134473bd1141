//! The clients of a storm: each asks again and again, and tells what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::ask::{Ask, Patience};
use super::chance::Dice;
use super::judge::{Told, ends_with_error_event, judge};
use crate::support::wire::{Framing, Head, Piece, Wire};
use crate::support::{Ending, Response};

/// The longest that a client waits for the end of its answer. A request may wait for others' tries
/// before its own, each of them as long as `timeouts.total`; and over HTTP/2 a body goes 64 KiB at
/// a time, which many share and a busy machine carries slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// Chunks and frames of request bodies of untold length.
const PIECE: usize = 50_000;

/// What all clients know.
pub struct Crowd {
    pub seed: u64,
    pub to: SocketAddr,
    pub until: Instant,
    pub numbers: AtomicU64,
    /// The longest pause between two requests of a client, in milliseconds.
    pub pause: u64,
}

/// How a client is connected.
pub enum Line {
    /// One connection, which is kept as long as it may be.
    Http1(Option<Kept>),
    /// One HTTP/2 connection, which it shares with others.
    Http2(Arc<Shared>),
}

/// An HTTP/1.1 connection that has carried an answer.
pub struct Kept {
    wire: Wire,
    /// The answer was recorded for the cache. The gateway may not have ended that yet, and take
    /// what comes meanwhile for a second request before the first has its answer, which it does
    /// not serve: it ends the connection.
    early: bool,
}

/// An HTTP/2 connection, made anew when it has ended.
#[derive(Default)]
pub struct Shared(Mutex<Option<SendRequest<Sending>>>);

/// What came of a request.
pub enum Got {
    Answer(Response),
    /// The connection, or the stream, ended without an answer.
    Nothing(String),
    /// The stream was reset.
    Reset,
    /// The client left; the status, if it had seen it.
    Left(Option<u16>),
}

/// Asks until the time is over.
pub async fn run(crowd: Arc<Crowd>, mut line: Line, client: u64) -> Vec<Told> {
    let mut told = Vec::new();
    // Not all at the same moment.
    sleep(Dice::of(crowd.seed, &format!("client {client}")).millis(crowd.pause)).await;
    while Instant::now() < crowd.until {
        let number = crowd.numbers.fetch_add(1, Ordering::Relaxed);
        let ask = Ask::new(crowd.seed, number);
        let mut again = false;
        let asking = line.ask(&crowd, &ask, &mut again);
        let got = match timeout(PATIENCE, asking).await {
            Ok(got) => got,
            // A connection that was kept is gone with the request.
            Err(_) => Got::Nothing(format!("no end within {PATIENCE:?}")),
        };
        let judged = judge(crowd.seed, &ask, got);
        told.push(Told { again, ..judged });
        let mut dice = Dice::of(crowd.seed, &format!("pause after {number}"));
        sleep(dice.millis(crowd.pause)).await;
    }
    told
}

impl Line {
    /// Says whether it was sent `again`.
    async fn ask(&mut self, crowd: &Crowd, ask: &Ask, again: &mut bool) -> Got {
        match self {
            Self::Http1(kept) => over_http1(kept, crowd.to, ask, again).await,
            Self::Http2(shared) => over_http2(shared, crowd.to, ask).await,
        }
    }
}

// --- HTTP/1.1

async fn over_http1(kept: &mut Option<Kept>, to: SocketAddr, ask: &Ask, again: &mut bool) -> Got {
    if let Some(used) = usable(kept.take()).await {
        let early = used.early;
        match on_connection(kept, used.wire, to, ask).await {
            Got::Nothing(_) if early => *again = true,
            got => return got,
        }
    }
    match connect(to).await {
        Ok(stream) => on_connection(kept, Wire::new(stream), to, ask).await,
        Err(error) => Got::Nothing(format!("connect: {error}")),
    }
}

async fn on_connection(kept: &mut Option<Kept>, mut wire: Wire, to: SocketAddr, ask: &Ask) -> Got {
    let bytes = http1(ask, to);
    match ask.patience {
        Patience::Stays => {
            // An answer may come before all of an upload is sent.
            let _ = wire.write_listening(&bytes).await;
            let got = read(&mut wire).await;
            if !ask.topic.way.is_upload() {
                *kept = keep(wire, &got);
            }
            got
        }
        Patience::LeavesInBody(part) => {
            let body = ask.body.len() * part / 1000;
            let unsent = ask.body.len() - body;
            let _ = wire.write(&bytes[..bytes.len() - unsent]).await;
            leave(wire, ask);
            Got::Left(None)
        }
        Patience::LeavesAfter(time) => {
            let _ = wire.write_listening(&bytes).await;
            sleep(time).await;
            leave(wire, ask);
            Got::Left(None)
        }
        Patience::LeavesReading => {
            let _ = wire.write_listening(&bytes).await;
            let Some(head) = final_head(&mut wire).await else {
                return Got::Nothing("no head".to_owned());
            };
            let _ = wire.piece(&mut framing(&head)).await;
            leave(wire, ask);
            Got::Left(Some(status(&head)))
        }
    }
}

/// A kept connection that the gateway has not ended meanwhile.
async fn usable(kept: Option<Kept>) -> Option<Kept> {
    let mut kept = kept?;
    (!kept.wire.is_over().await).then_some(kept)
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Some end their connection, some reset it.
fn leave(wire: Wire, ask: &Ask) {
    if ask.number.is_multiple_of(2) {
        wire.reset();
    }
}

fn http1(ask: &Ask, to: SocketAddr) -> Vec<u8> {
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {to}\r\n", ask.path);
    for (name, value) in &ask.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !ask.open {
        head.push_str(&format!("content-length: {}\r\n\r\n", ask.body.len()));
        return [head.as_bytes(), &ask.body].concat();
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    for chunk in ask.body.chunks(PIECE) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

async fn read(wire: &mut Wire) -> Got {
    let Some(head) = final_head(wire).await else {
        let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
        return Got::Nothing(format!("the connection ended: {rest:?}"));
    };
    let mut framing = framing(&head);
    let mut body = Vec::new();
    let ending = loop {
        match wire.piece(&mut framing).await {
            Piece::Data(bytes) => body.extend(bytes),
            Piece::End => break Ending::Whole,
            Piece::EndOfStream => break Ending::EndOfStream,
            Piece::Cut => break Ending::Cut,
        }
    };
    Got::Answer(Response {
        status: status(&head),
        headers: head.headers,
        interim: Vec::new(),
        body,
        ending,
    })
}

async fn final_head(wire: &mut Wire) -> Option<Head> {
    loop {
        let head = wire.head().await?;
        if !matches!(status(&head), 100..=199) {
            return Some(head);
        }
    }
}

/// 0 for what is no status line.
fn status(head: &Head) -> u16 {
    let word = head.start.strip_prefix("HTTP/1.1 ");
    word.and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or(0)
}

fn framing(head: &Head) -> Framing {
    match status(head) {
        204 | 304 => Framing::Length(0),
        _ => head.framing(Framing::UntilClose),
    }
}

/// The connection, if it may be used again. After an answer that broke the gateway ends it, which
/// the head could not tell: who uses it at once, again, may find it closed.
fn keep(wire: Wire, got: &Got) -> Option<Kept> {
    let Got::Answer(answer) = got else {
        return None;
    };
    let closes = answer.header("connection") == Some("close");
    let breaks = ends_with_error_event(&answer.body);
    let early = answer.header("cf-aig-cache-status") == Some("MISS");
    let usable = answer.ending == Ending::Whole && !closes && !breaks;
    usable.then_some(Kept { wire, early })
}

// --- HTTP/2

impl Shared {
    async fn sender(&self, to: SocketAddr) -> Result<SendRequest<Sending>, String> {
        let mut known = self.0.lock().await;
        if let Some(sender) = known.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = connect(to).await.map_err(|error| error.to_string())?;
        let greeting = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = greeting.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        *known = Some(sender.clone());
        Ok(sender)
    }

    /// Ends the connection when the last request on it has ended.
    pub async fn close(&self) {
        *self.0.lock().await = None;
    }
}

async fn over_http2(shared: &Shared, to: SocketAddr, ask: &Ask) -> Got {
    let mut sender = match shared.sender(to).await {
        Ok(sender) => sender,
        Err(error) => return Got::Nothing(error),
    };
    if let Err(error) = sender.ready().await {
        return Got::Nothing(format!("{error:?}"));
    }
    let answer = sender.send_request(http2(ask, to));
    match ask.patience {
        Patience::Stays => match answer.await {
            Ok(answer) => Got::Answer(whole(answer).await),
            Err(error) => without_answer(&error),
        },
        // Dropped, the request is reset.
        Patience::LeavesInBody(part) => {
            let _ = timeout(Duration::from_millis(part as u64 / 5), answer).await;
            Got::Left(None)
        }
        Patience::LeavesAfter(time) => {
            let answer = timeout(time, answer).await;
            let seen = answer.ok().and_then(Result::ok);
            Got::Left(seen.map(|answer| answer.status().as_u16()))
        }
        Patience::LeavesReading => match answer.await {
            Ok(mut answer) => {
                let _ = answer.body_mut().frame().await;
                Got::Left(Some(answer.status().as_u16()))
            }
            Err(error) => without_answer(&error),
        },
    }
}

fn without_answer(error: &hyper::Error) -> Got {
    match format!("{error:?}") {
        reset if reset.contains("Reset(") => Got::Reset,
        other => Got::Nothing(other),
    }
}

fn http2(ask: &Ask, to: SocketAddr) -> http::Request<Sending> {
    let mut request = http::Request::builder()
        .method("POST")
        .version(http::Version::HTTP_2)
        .uri(format!("http://{to}{}", ask.path));
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    let stops = match ask.patience {
        Patience::LeavesInBody(part) => Some(ask.body.len() * part / 1000),
        _ => None,
    };
    let body = Sending {
        left: ask.body.slice(..stops.unwrap_or(ask.body.len())),
        told: (!ask.open).then_some(ask.body.len() as u64),
        stops: stops.is_some(),
    };
    request.body(body).expect("a valid head")
}

async fn whole(answer: http::Response<Incoming>) -> Response {
    let (head, mut incoming) = answer.into_parts();
    let mut body = Vec::new();
    let ending = loop {
        match incoming.frame().await {
            None => break Ending::Whole,
            Some(Err(_)) => break Ending::Cut,
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    body.extend_from_slice(&bytes);
                }
            }
        }
    };
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    Response {
        status: head.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        interim: Vec::new(),
        body,
        ending,
    }
}

/// A request body, of which nothing more comes after a while if its client stops.
pub struct Sending {
    left: Bytes,
    told: Option<u64>,
    stops: bool,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() && self.stops {
            return Poll::Pending;
        }
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.told.is_some() && !self.stops && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.told {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}
