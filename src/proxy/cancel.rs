//! Ending a request from outside, while it waits for a provider that nobody wants to hear any
//! more.
//!
//! Pingora has no hook between asking a provider and its answer's head. But a request is one
//! future, and dropping it closes (HTTP/1) or resets (HTTP/2) the call. What was not settled
//! by then is settled when its context is dropped (`settle`).

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;

use crate::cache::flight::Cancel;

tokio::task_local! {
    static CURRENT: Arc<Switch>;
}

/// Ends the request that runs under it.
#[derive(Debug, Default)]
pub struct Switch(Notify);

impl Cancel for Switch {
    fn cancel(&self) {
        self.0.notify_one();
    }
}

/// The switch of the request that runs here.
pub fn current() -> Option<Arc<Switch>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Runs `request` to its end, or until its switch is used.
pub async fn until_cancelled<T>(request: impl Future<Output = T>) -> Option<T> {
    let switch = Arc::new(Switch::default());
    let running = CURRENT.scope(Arc::clone(&switch), request);
    tokio::select! {
        biased;
        done = running => Some(done),
        () = switch.0.notified() => None,
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
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        until_cancelled(self.0.process_new_http(session, shutdown))
            .await
            .flatten()
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
}
