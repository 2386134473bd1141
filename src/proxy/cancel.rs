//! Ending a request from outside, while it waits for a provider that nobody wants to hear any
//! more.
//!
//! A request is one future, and dropping it closes (HTTP/1) or resets (HTTP/2) the call. What was
//! not settled by then is settled when its context is dropped (`settle`).
//!
//! Likewise for a provider that takes too long. Pingora has one timeout for every read, the
//! head's and the body's; what is to be bounded apart is bounded here, by shutting down the
//! provider's socket under the request, which then fails as if the provider had closed it.

use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;

use super::cork;
use crate::cache::flight::Cancel;

tokio::task_local! {
    static CURRENT: Arc<Switch>;
}

/// Ends the request that runs under it, or its call to the provider.
#[derive(Debug, Default)]
pub struct Switch {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    watched: Option<Watched>,
    /// The call was ended because it took too long.
    overdue: bool,
}

/// A call whose provider must do something by a certain time.
#[derive(Debug)]
struct Watched {
    socket: Socket,
    due: Instant,
}

/// The connection of a call, which carries nothing else.
#[derive(Debug)]
pub enum Socket {
    /// Open as long as the request says it watches it: nobody but the request closes it.
    Own(RawFd),
    /// An HTTP/2 connection, which its own task may close at any time.
    Shared(OwnedFd),
}

impl Socket {
    fn number(&self) -> RawFd {
        match self {
            Self::Own(socket) => *socket,
            Self::Shared(socket) => socket.as_raw_fd(),
        }
    }
}

impl Cancel for Switch {
    fn cancel(&self) {
        self.state.lock().cancelled = true;
        self.changed.notify_one();
    }
}

impl Switch {
    /// From now on, until [`let_be`](Self::let_be) is said, the call over `socket` ends at `due`.
    pub fn watch(&self, socket: Socket, due: Instant) {
        let mut state = self.state.lock();
        state.watched = Some(Watched { socket, due });
        state.overdue = false;
        drop(state);
        self.changed.notify_one();
    }

    /// The provider has done something: it has until `due` for the next.
    pub fn extend(&self, due: Instant) {
        // Whoever sleeps until the earlier time looks again then.
        if let Some(watched) = &mut self.state.lock().watched {
            watched.due = due;
        }
    }

    /// The call is over.
    pub fn let_be(&self) {
        self.state.lock().watched = None;
    }

    /// Whether the last call was ended because it took too long.
    pub fn is_overdue(&self) -> bool {
        self.state.lock().overdue
    }

    /// Resolves when the request is to end; ends calls that take too long meanwhile.
    async fn used(&self) {
        loop {
            let due = {
                let state = self.state.lock();
                if state.cancelled {
                    return;
                }
                state.watched.as_ref().map(|watched| watched.due)
            };
            let Some(due) = due else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(due.into()) => self.end_what_is_overdue(),
            }
        }
    }

    /// The request does not run meanwhile: it is polled by the same task, so the socket is
    /// still the one that it is waiting for.
    fn end_what_is_overdue(&self) {
        let mut state = self.state.lock();
        let overdue = state
            .watched
            .take_if(|watched| watched.due <= Instant::now());
        if let Some(watched) = overdue {
            state.overdue = true;
            // It may be closed by the provider already.
            let _ = shutdown(watched.socket.number(), Shutdown::Both);
        }
    }
}

/// The switch of the request that runs here.
pub fn current() -> Option<Arc<Switch>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Runs `request` to its end, or until its switch is used.
pub async fn until_cancelled<T>(request: impl Future<Output = T>) -> Option<T> {
    let switch = Arc::new(Switch::default());
    let running = CURRENT.scope(Arc::clone(&switch), cork::sending(request));
    let used = pin!(switch.used());
    tokio::select! {
        biased;
        done = running => Some(done),
        () = used => None,
    }
}

/// An application whose requests can be ended from outside.
pub struct Cancellable<A>(Arc<A>);

impl<A> Cancellable<A> {
    /// Puts a switch on every request of `app`.
    pub fn new(app: A) -> Self {
        Self(Arc::new(app))
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cancellable<A> {
    /// Not an `async fn`: the session, some kilobytes, moves into the future of the application, and not
    /// into one around that first.
    fn process_new_http<'me, 'watch, 'future>(
        self: &'me Arc<Self>,
        session: ServerSession,
        shutdown: &'watch ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'future>>
    where
        'me: 'future,
        'watch: 'future,
    {
        let request = self.0.process_new_http(session, shutdown);
        Box::pin(async { until_cancelled(request).await.flatten() })
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.0.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }

    async fn http_cleanup(&self) {
        self.0.http_cleanup().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_request_runs_to_its_end_or_until_its_switch_is_used() {
        assert_eq!(until_cancelled(async { 7 }).await, Some(7));
        let cancelled = until_cancelled(async {
            current().unwrap().cancel();
            std::future::pending::<()>().await;
        });
        assert_eq!(cancelled.await, None);
        assert!(current().is_none());
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_ends_and_its_request_learns_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let done = until_cancelled(async {
            let mut call = tokio::net::TcpStream::connect(address).await.unwrap();
            let _silent = listener.accept().await.unwrap();
            let switch = current().unwrap();
            let soon = |millis| Instant::now() + Duration::from_millis(millis);
            switch.watch(Socket::Own(call.as_raw_fd()), soon(30));
            tokio::time::sleep(Duration::from_millis(10)).await;
            switch.extend(soon(60));
            tokio::time::sleep(Duration::from_millis(40)).await;
            assert!(!switch.is_overdue());
            assert_eq!(call.read(&mut [0]).await.unwrap(), 0);
            assert!(switch.is_overdue());
            switch.watch(Socket::Own(call.as_raw_fd()), soon(10_000));
            assert!(!switch.is_overdue());
            switch.let_be();
            7
        });
        assert_eq!(done.await, Some(7));
    }
}
