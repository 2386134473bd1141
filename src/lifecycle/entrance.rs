//! Where connections come in: reads request heads, and hands them complete to Pingora.
//!
//! Pingora's own accept path waits without limit for the first bytes of a connection, limits
//! the time of single reads but not of a request head, and on shutdown drops connections
//! whose request has not quite arrived, even fresh ones. Here a head has one deadline and one
//! size limit, and a shutdown closes only connections that are idle.
//!
//! HTTP/2 goes to Pingora as it is, once its preface has arrived; GOAWAY ends it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
// Tokio's timers wake the runtime through the kernel for every request; Pingora's do not.
use pingora_timeout::timeout as fast_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::drain::LATE_ARRIVALS;
use super::head;
use super::phase::{Counted, Phase, State};
use crate::error::{Failure, Kind};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Usual request heads fit, as in Pingora.
const USUAL_HEAD: usize = 4096;

/// How much of a refused request is still read, so that the refusal is not lost in a reset.
const REFUSED_REST: usize = 256 * 1024;

/// How long that may take.
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// What clients may take and send before a request is known.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// From the first byte (of a fresh connection: from accepting it) to the end of the head.
    pub timeout: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Bytes of a head.
    pub size: usize,
}

/// The limits in force; asked for every head, because a reload may change them.
pub type Limits = Box<dyn Fn() -> HeadLimits + Send + Sync>;

/// As what requests are counted: [`Phase::request`] or [`Phase::operation`].
pub type Count = fn(&Phase) -> Counted<'_>;

/// Learns of what was refused before it became a request.
pub type Report = Box<dyn Fn(Kind) + Send + Sync>;

/// A listener's application `A`, behind the reading of request heads.
pub struct Entrance<A> {
    app: Arc<A>,
    http1: Arc<Counting<A>>,
    speaks_http2: bool,
    count: Count,
    limits: Limits,
    phase: Arc<Phase>,
    closing: ShutdownWatch,
    report: Report,
}

/// What became of waiting for a request head.
enum Arrival {
    /// Complete, perhaps with the beginning of the body.
    Head(BytesMut),
    /// The preface of HTTP/2.
    Preface(BytesMut),
    /// The client went away, or was idle for too long, or the process stops.
    Nothing,
    /// The client is told why, and cut.
    Refused(Kind),
}

impl<A> Entrance<A> {
    /// Puts `app` behind `limits`. Speaks HTTP/1.1 only.
    pub fn new(app: A, limits: Limits, phase: Arc<Phase>, count: Count) -> Self {
        let (app, closing) = (Arc::new(app), phase.closing());
        let http1 = Arc::new(Counting::new(app.clone(), phase.clone(), count, None));
        Self {
            app,
            http1,
            speaks_http2: false,
            count,
            limits,
            phase,
            closing,
            report: Box::new(|_| ()),
        }
    }

    /// Tells `report` of what is refused.
    pub fn reporting_to(mut self, report: Report) -> Self {
        self.report = report;
        self
    }

    /// Speaks HTTP/2 too: by ALPN over TLS, with prior knowledge without.
    pub fn with_http2(mut self) -> Self {
        self.speaks_http2 = true;
        self
    }

    /// Waits for the first request of a connection.
    async fn first(&self, stream: &mut Stream) -> Arrival {
        let _counted = self.phase.arriving();
        let limits = (self.limits)();
        let deadline = Instant::now() + limits.timeout;
        let mut head = BytesMut::with_capacity(USUAL_HEAD);
        let first_byte = tokio::select! {
            biased;
            read = fast_timeout(limits.timeout, stream.read_buf(&mut head)) => read,
            () = self.late() => return Arrival::Nothing,
        };
        match first_byte {
            Ok(Ok(1..)) => complete(stream, head, deadline, limits.size).await,
            _ => Arrival::Nothing,
        }
    }

    /// Waits for another request on a connection.
    async fn next(&self, stream: &mut Stream) -> Arrival {
        let limits = (self.limits)();
        let mut head = BytesMut::with_capacity(USUAL_HEAD);
        let first_byte = tokio::select! {
            biased;
            read = fast_timeout(limits.idle, stream.read_buf(&mut head)) => read,
            () = self.unwanted() => return Arrival::Nothing,
        };
        let _counted = self.phase.arriving();
        match first_byte {
            Ok(Ok(1..)) => {
                complete(stream, head, Instant::now() + limits.timeout, limits.size).await
            }
            _ => Arrival::Nothing,
        }
    }

    async fn refuse(&self, stream: Stream, kind: Kind) {
        (self.report)(kind);
        refuse(stream, kind).await;
    }

    /// Resolves when a fresh connection has had its chance to bring a request.
    async fn late(&self) {
        self.phase.reached(State::HandingOver).await;
        tokio::time::sleep(LATE_ARRIVALS).await;
    }

    /// Resolves when an idle connection should be closed. After a hand-over it may bring one
    /// more request, whose answer closes it: then no request crosses the closing on its way.
    async fn unwanted(&self) {
        self.phase.reached(State::HandingOver).await;
        tokio::select! {
            () = tokio::time::sleep(LATE_ARRIVALS) => {}
            () = self.phase.reached(State::Draining) => {}
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Entrance<A> {
    async fn http2(&self, stream: Stream) {
        let _counted = self.phase.arriving();
        let limits = (self.limits)();
        let app = Arc::new(Counting::new(
            self.app.clone(),
            self.phase.clone(),
            self.count,
            Some(limits),
        ));
        let mut serving = pin!(app.process_new(stream, &self.closing));
        // Pingora closes connections that were idle for too long, but waits for the first
        // request without limit.
        if timeout(limits.timeout, serving.as_mut()).await.is_err() && app.has_begun() {
            serving.await;
        }
    }

    async fn http1(&self, mut stream: Stream, mut head: BytesMut) {
        let mut settings = None;
        loop {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings.take() {
                pingora_core::apps::HttpPersistentSettings::apply_to_session(
                    settings,
                    &mut session,
                );
            }
            session.set_pipelined_prefix(head);
            let Some(reused) = self.http1.process_new_http(session, &self.closing).await else {
                return;
            };
            (stream, settings) = reused.consume();
            head = match self.next(&mut stream).await {
                Arrival::Head(head) | Arrival::Preface(head) => head,
                Arrival::Refused(kind) => return self.refuse(stream, kind).await,
                Arrival::Nothing => return close(stream).await,
            };
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Entrance<A> {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            self.http2(stream).await;
            return None;
        }
        let encrypted = stream.get_ssl_digest().is_some();
        match self.first(&mut stream).await {
            Arrival::Preface(preface) if self.speaks_http2 && !encrypted => {
                self.http2(unread(stream, &preface)).await
            }
            Arrival::Head(head) | Arrival::Preface(head) => self.http1(stream, head).await,
            Arrival::Refused(kind) => self.refuse(stream, kind).await,
            Arrival::Nothing => close(stream).await,
        }
        None
    }
}

/// Reads until `head` is one.
async fn complete(
    stream: &mut Stream,
    mut head: BytesMut,
    deadline: Instant,
    size: usize,
) -> Arrival {
    let mut search = head::Search::default();
    loop {
        if head.starts_with(PREFACE) {
            return Arrival::Preface(head);
        }
        // The preface contains an empty line, so it must be ruled out first.
        let preface_begun = PREFACE.starts_with(&head);
        match search.end(&head) {
            _ if preface_begun => {}
            Some(end) if end > size => return Arrival::Refused(Kind::HeadTooLarge),
            Some(_) if !head::has_plain_request_line(&head) => {
                return Arrival::Refused(Kind::BadRequest);
            }
            Some(_) => return Arrival::Head(head),
            None if head.len() > size => return Arrival::Refused(Kind::HeadTooLarge),
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match fast_timeout(left, stream.read_buf(&mut head)).await {
            Err(_) => return Arrival::Refused(Kind::ClientTimeout),
            Ok(Ok(1..)) => {}
            Ok(_) => return Arrival::Nothing,
        }
    }
}

/// Puts the preface back for Pingora to find. Encrypted streams cannot take it back and never
/// come here: they say HTTP/2 by ALPN.
fn unread(stream: Stream, preface: &[u8]) -> Stream {
    match stream.into_any().downcast::<TcpStream>() {
        Ok(mut tcp) => {
            tcp.rewind(preface);
            tcp
        }
        Err(_) => unreachable!("a stream without TLS is a TCP stream"),
    }
}

async fn close(mut stream: Stream) {
    // The client may have closed it already.
    let _ = AsyncWriteExt::shutdown(&mut stream).await;
}

/// Tells the client why, and closes the connection.
async fn refuse(mut stream: Stream, kind: Kind) {
    let body = Failure::new(kind).body();
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         tollgate-error-source: gateway\r\nConnection: close\r\n\r\n",
        kind.status(),
        http::StatusCode::from_u16(kind.status())
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error"),
        body.len(),
    );
    let telling = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        AsyncWriteExt::shutdown(&mut stream).await?;
        let mut rest = (&mut stream).take(REFUSED_REST as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The client has broken off, or does not read: there is nobody to tell.
    let _ = timeout(REFUSED_TIME, telling).await;
}

/// Counts the requests of an application, over whichever protocol they come.
///
/// `http_cleanup` is not passed on: Pingora's proxy would drop connections whose request is
/// just arriving. The entrance closes the idle ones itself.
struct Counting<A> {
    app: Arc<A>,
    phase: Arc<Phase>,
    count: Count,
    begun: AtomicBool,
    options: HttpServerOptions,
    head_size: u32,
}

impl<A> Counting<A> {
    /// For HTTP/1.1 connections, or for one HTTP/2 connection with its limits.
    fn new(app: Arc<A>, phase: Arc<Phase>, count: Count, http2: Option<HeadLimits>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = http2.is_some();
        options.h2_idle_timeout = http2.map(|limits| limits.idle);
        let head_size = http2.map_or(0, |limits| u32::try_from(limits.size).unwrap_or(u32::MAX));
        Self {
            app,
            phase,
            count,
            begun: AtomicBool::new(false),
            options,
            head_size,
        }
    }

    /// Whether a request has arrived.
    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Counting<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _counted = (self.count)(&self.phase);
        self.begun.store(true, Ordering::Release);
        self.app.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_header_list_size(self.head_size);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
