//! Where connections come in: reads request heads, and hands them complete to Pingora.
//!
//! Pingora's own accept path waits without limit for the first bytes of a connection, limits
//! the time of single reads but not of a request head, and on shutdown drops connections
//! whose request has not quite arrived, even fresh ones. Here a head has one deadline and one
//! size limit, and a shutdown closes only connections that are idle.
//!
//! HTTP/2 goes to Pingora as it is, once its preface has arrived; GOAWAY ends it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
// Tokio's timers wake the runtime through the kernel for every request; Pingora's do not.
use pingora_timeout::timeout as fast_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::drain::LATE_ARRIVALS;
use super::phase::{Counted, Phase, State};
use super::threshold::Keeper;
use super::{head, http2};
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
    speaks_http2: bool,
    count: Count,
    limits: Limits,
    phase: Arc<Phase>,
    closing: ShutdownWatch,
    report: Option<Report>,
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
        let closing = phase.closing();
        Self {
            app: Arc::new(app),
            speaks_http2: false,
            count,
            limits,
            phase,
            closing,
            report: None,
        }
    }

    /// Tells `report` of what is refused, and gives the entrance's answer where the engine
    /// would give its own: an answer passes only after the application has called
    /// [`cross`](super::threshold::cross) for the request.
    pub fn reporting_to(mut self, report: Report) -> Self {
        self.report = Some(report);
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
        self.report(kind);
        refuse(stream, kind).await;
    }

    fn report(&self, kind: Kind) {
        if let Some(report) = &self.report {
            report(kind);
        }
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
    /// Hands a request to the application, counted while it lasts.
    async fn serve(&self, session: ServerSession) -> Option<ReusedHttpStream> {
        let _counted = (self.count)(&self.phase);
        self.app.process_new_http(session, &self.closing).await
    }

    async fn http2(self: &Arc<Self>, stream: Stream) {
        let _counted = self.phase.arriving();
        let serve = |session, busy| {
            let entrance = Arc::clone(self);
            tokio::spawn(async move {
                entrance.serve(session).await;
                drop(busy);
            });
        };
        let refused = || self.report(Kind::BadRequest);
        http2::run(
            stream,
            (self.limits)(),
            self.closing.clone(),
            serve,
            refused,
        )
        .await;
    }

    async fn http1(&self, mut stream: Stream, mut head: BytesMut) {
        let keeper = Arc::new(Keeper::default());
        if self.report.is_some() {
            stream = keeper.watch(stream);
        }
        let mut settings = None;
        loop {
            keeper.expect_request();
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings.take() {
                pingora_core::apps::HttpPersistentSettings::apply_to_session(
                    settings,
                    &mut session,
                );
            }
            session.set_pipelined_prefix(head);
            let Some(reused) = self.serve(session).await else {
                if let Some(stream) = keeper.refused() {
                    self.refuse(stream, Kind::BadRequest).await;
                }
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

/// `http_cleanup` of the application is not called: Pingora's proxy would drop connections whose
/// request is just arriving. The entrance closes the idle ones itself.
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
