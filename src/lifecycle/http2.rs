//! One HTTP/2 connection: its requests, each on its way as soon as it is there, and its end.
//!
//! Pingora's own loop keeps to itself what it refuses, and waits for the first request without
//! limit. This one tells, and does not. How a request is refused stays Pingora's and h2's: by
//! a bare 400 or a reset, for no session has been made of it that could say more.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;

use super::entrance::HeadLimits;

/// Refused requests after which a connection is dropped, as in Pingora: they cost work.
const MOST_REFUSED: usize = 32;

/// Bytes of one request's body that a client may send before some of them are read. By default they
/// are 64 KiB: on a way of 50 ms, not more than 1.3 MB/s.
const REQUEST_WINDOW: u32 = 256 << 10;
/// The same for all requests of one connection together: it bounds what a connection may make the
/// gateway hold. By default they share the 64 KiB of one, and a single upload that its provider does
/// not take holds up all others.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Serves a connection to its end: each request goes to `serve`, which must not wait for it
/// and keeps the [`Busy`] while it lasts; each one that was refused is told to `refused`.
pub async fn run(
    stream: Stream,
    limits: HeadLimits,
    mut closing: ShutdownWatch,
    mut serve: impl FnMut(ServerSession, Busy),
    refused: impl Fn(),
) {
    let began = Instant::now();
    let digest = Arc::new(digest(&stream));
    let mut options = default_h2_options();
    options.initial_window_size(REQUEST_WINDOW);
    options.initial_connection_window_size(CONNECTION_WINDOW);
    options.max_header_list_size(u32::try_from(limits.size).unwrap_or(u32::MAX));
    let greeting = pin!(handshake(stream, Some(options)));
    let Ok(Ok(mut connection)) = pingora_timeout::timeout(limits.timeout, greeting).await else {
        return;
    };
    let active = Arc::new(Active::default());
    let (mut told, mut refusals) = (false, 0);
    let mut patience = limits.timeout.saturating_sub(began.elapsed());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.changed(), if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            () = active.idle(patience) => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                patience = limits.idle;
                serve(ServerSession::new_http2(session), Busy::new(&active));
            }
            Ok(Some(H2Accept::Rejected)) => {
                refusals += 1;
                refused();
                if refusals == MOST_REFUSED {
                    return;
                }
            }
            // The client has closed it, or broken it.
            Ok(None) | Err(_) => return,
        }
    }
}

fn digest(stream: &Stream) -> Digest {
    Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    }
}

/// The requests of a connection that are being answered.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    last_one_left: Notify,
}

impl Active {
    /// Resolves when there has been none for so long.
    async fn idle(&self, patience: Duration) {
        while self.count.load(Ordering::Acquire) != 0 {
            self.last_one_left.notified().await;
        }
        pingora_timeout::sleep(patience).await;
    }
}

/// A request that is being answered.
pub struct Busy(Arc<Active>);

impl Busy {
    fn new(active: &Arc<Active>) -> Self {
        active.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(active))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.last_one_left.notify_one();
        }
    }
}
