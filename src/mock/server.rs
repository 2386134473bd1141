//! The mock's socket side: reads requests, sends answers at the pace that their
//! model's name asks for, and stops at once when the client goes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Version, header};
use log::{debug, warn};
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::answer::{self, Answer, Body, Request};
use super::connection::Connection;
use super::echo;
use super::models::Caller;

/// The largest request body that is held: 256 MiB.
const MAX_HELD: usize = 256 << 20;
/// How long the connection's task has to send a stream's last events before its reset.
const H2_FLUSH: Duration = Duration::from_millis(20);
/// How long to wait after a failed accept, which usually means no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the mock on a bound listener, HTTP/1.1 and h2c with prior knowledge, until
/// the future is dropped. Then idle connections close, and answers that are under way
/// are finished by their own tasks. Needs a Tokio runtime with I/O and time.
pub async fn serve(listener: TcpListener) {
    let app = Arc::new(App::default());
    // Dropped with this future, which the connections notice.
    let (_serving, shutdown) = watch::channel(false);
    loop {
        let connection = match listener.accept().await {
            Ok((socket, _)) => Connection::new(socket),
            Err(error) => {
                warn!("mock: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(connection) = connection else {
            continue;
        };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        tokio::spawn(async move { app.process_new(Box::new(connection), &shutdown).await });
    }
}

/// How an exchange ended, as far as the connection is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The answer is whole.
    Complete,
    /// The answer was broken off, as it was asked to be.
    Aborted,
}

struct App {
    options: HttpServerOptions,
}

impl Default for App {
    fn default() -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        Self { options }
    }
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        next_request(&mut session, shutdown.clone()).await?;
        match exchange(&mut session).await {
            Ok(End::Complete) => finish(session).await,
            Ok(End::Aborted) => abort(session).await,
            Err(error) => {
                debug!("mock: the client is gone or broke its request: {error}");
                None
            }
        }
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options
            .max_concurrent_streams(1000)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20);
        Some(options)
    }
}

/// Waits for a request's head; `None` when the connection has no more.
async fn next_request(session: &mut ServerSession, mut shutdown: ShutdownWatch) -> Option<()> {
    session.set_pipelining_enabled(true);
    let read = tokio::select! {
        biased;
        read = session.read_request() => read,
        _ = shutdown.changed() => return None,
    };
    match read {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            debug!("mock: not a request: {error}");
            let _ = session.respond_error(400).await;
            return None;
        }
    }
    // The client decides when an idle connection ends, unless it cannot say so.
    let persistent = session.req_header().version >= Version::HTTP_11;
    session.set_keepalive(persistent.then_some(0));
    Some(())
}

async fn exchange(session: &mut ServerSession) -> pingora_core::Result<End> {
    if session.get_header(header::EXPECT).is_some() && !session.is_http2() {
        session.write_continue_response().await?;
    }
    if let Some(echo) = echo::Kind::of(session.req_header()) {
        return echo::run(session, echo).await;
    }
    let body = read_body(session).await?;
    let answer = answer_to(session, body.as_deref());
    send(session, answer).await
}

/// The request's body, or nothing when it is more than the mock holds.
async fn read_body(session: &mut ServerSession) -> pingora_core::Result<Option<Bytes>> {
    let Some(first) = session.read_request_body().await? else {
        return Ok(Some(Bytes::new()));
    };
    let Some(second) = session.read_request_body().await? else {
        return Ok(Some(first)); // most bodies: nothing is copied
    };
    let mut body = BytesMut::from(first);
    body.extend_from_slice(&second);
    while let Some(more) = session.read_request_body().await? {
        if body.len() + more.len() > MAX_HELD {
            return Ok(None);
        }
        body.extend_from_slice(&more);
    }
    Ok(Some(body.freeze()))
}

fn answer_to(session: &ServerSession, body: Option<&[u8]>) -> Answer {
    let head = session.req_header();
    let target = head.uri.path_and_query().map_or("/", |t| t.as_str());
    let request = Request {
        method: &head.method,
        target,
        caller: Caller::of(&head.headers),
        body: body.unwrap_or_default(),
    };
    match body {
        Some(_) => answer::answer(&request),
        None => answer::too_large(&request, MAX_HELD),
    }
}

/// Sends an answer the way its model's name asks for.
async fn send(session: &mut ServerSession, answer: Answer) -> pingora_core::Result<End> {
    let behaviour = &answer.behaviour;
    if behaviour.reset {
        return Ok(End::Aborted);
    }
    if behaviour.silent {
        return until_gone(session).await;
    }
    pause(session, behaviour.latency).await?;
    let head = head(&answer)?;
    match answer.body {
        Body::Whole(body) => {
            pause(session, behaviour.ttft).await?;
            send_whole(session, head, body, behaviour.cut.is_some()).await
        }
        Body::Events { bytes, ends } => {
            let mut stream = EventStream {
                session,
                drip: behaviour.drip,
                cut: behaviour.cut,
            };
            stream.start(head, behaviour.ttft).await?;
            stream.send(bytes, &ends).await
        }
    }
}

fn head(answer: &Answer) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(answer.status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, answer.content_type)?;
    head.insert_header(answer.request_id.0, &answer.request_id.1)?;
    if answer.retry_after() {
        head.insert_header(header::RETRY_AFTER, "1")?;
    }
    match &answer.body {
        Body::Whole(body) => head.insert_header(header::CONTENT_LENGTH, body.len())?,
        Body::Events { .. } => head.insert_header(header::CACHE_CONTROL, "no-cache")?,
    }
    Ok(head)
}

async fn send_whole(
    session: &mut ServerSession,
    head: ResponseHeader,
    body: Bytes,
    cut: bool,
) -> pingora_core::Result<End> {
    session.write_response_header(Box::new(head)).await?;
    if cut {
        let half = body.slice(..body.len() / 2);
        session.write_response_body(half, false).await?;
        return Ok(End::Aborted);
    }
    session.write_response_body(body, true).await?;
    Ok(End::Complete)
}

struct EventStream<'a> {
    session: &'a mut ServerSession,
    drip: Option<Duration>,
    cut: Option<usize>,
}

impl EventStream<'_> {
    async fn start(
        &mut self,
        mut head: ResponseHeader,
        ttft: Duration,
    ) -> pingora_core::Result<()> {
        // An HTTP/1.0 client gets the stream until the connection closes.
        if self.session.req_header().version == Version::HTTP_11 {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        self.session.write_response_header(Box::new(head)).await?;
        pause(self.session, ttft).await
    }

    async fn send(&mut self, bytes: Bytes, ends: &[usize]) -> pingora_core::Result<End> {
        let ends = &ends[..self.cut.unwrap_or(ends.len()).min(ends.len())];
        match self.drip {
            Some(drip) => self.one_by_one(bytes, ends, drip).await?,
            None => {
                let all = bytes.slice(..ends.last().copied().unwrap_or(0));
                self.session.write_response_body(all, false).await?;
            }
        }
        if self.cut.is_some() {
            return Ok(End::Aborted);
        }
        self.session.finish_body().await?;
        Ok(End::Complete)
    }

    async fn one_by_one(
        &mut self,
        bytes: Bytes,
        ends: &[usize],
        drip: Duration,
    ) -> pingora_core::Result<()> {
        let mut start = 0;
        for &end in ends {
            if start > 0 {
                pause(self.session, drip).await?;
            }
            let event = bytes.slice(start..end);
            self.session.write_response_body(event, false).await?;
            start = end;
        }
        Ok(())
    }
}

/// Waits, unless the client goes before.
async fn pause(session: &mut ServerSession, duration: Duration) -> pingora_core::Result<()> {
    if duration.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(duration) => Ok(()),
        gone = until_gone(session) => gone.map(|_| ()),
    }
}

/// Waits for the client to go, which is an error.
async fn until_gone(session: &mut ServerSession) -> pingora_core::Result<End> {
    loop {
        session.read_body_or_idle(true).await?;
    }
}

/// Ends an exchange; the connection is there for the next one, if it can be.
async fn finish(session: ServerSession) -> Option<ReusedHttpStream> {
    let settings = HttpPersistentSettings::for_session(&session);
    match session.finish().await {
        Ok(stream) => stream.map(|s| ReusedHttpStream::from_reusable_stream(s, settings)),
        Err(error) => {
            debug!("mock: the client is gone: {error}");
            None
        }
    }
}

/// Breaks an answer off so that no client can take it for whole: HTTP/1.1 closes the
/// connection in the middle of the framing, HTTP/2 resets the stream.
async fn abort(mut session: ServerSession) -> Option<ReusedHttpStream> {
    if session.is_http2() && session.response_written().is_some() {
        // What is still queued when a stream is reset is thrown away.
        let _ = pause(&mut session, H2_FLUSH).await;
    }
    session.shutdown().await;
    None
}
