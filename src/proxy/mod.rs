//! The rim: the only directory that knows Pingora's proxy.
//!
//! A phase method fetches, calls one function, stores. One file per group of phases:
//!
//! | file | phases |
//! |---|---|
//! | `admission` | `early_request_filter`, `request_filter` |
//! | `caching` | `request_filter`: answers that are there already, or will be for others |
//! | `serve` | answers that come from the cache |
//! | `cancel` | requests that are ended from outside |
//! | `cork` | `connected_to_upstream`, and where answers begin: what is there leaves together |
//! | `body` | `request_body_filter`, holding of bodies |
//! | `timed` | the clock on HTTP/2 bodies |
//! | `subrequest` | re-entry with a held body |
//! | `exchange` | all from `upstream_peer` on, where the body is held |
//! | `carry` | the answer of a subrequest on its way out |
//! | `limiting` | `request_filter`, `upstream_peer`: how much may pass in a time |
//! | `budgeting` | `upstream_peer`: what may be spent |
//! | `permitting` | `request_filter`, `upstream_peer`: what may be asked for |
//! | `overload` | `upstream_peer`: a place for the call |
//! | `attempt` | `upstream_peer`, `upstream_request_filter`, `connected_to_upstream` |
//! | `response` | `upstream_response_filter`, body filters, `response_filter` |
//! | `failure` | `fail_to_connect`, `error_while_proxy`, `fail_to_proxy` |
//! | `outlet` | the last that an answer passes: a module of Pingora's |
//! | `told` | what the client is told of costs |
//! | `reset` | how a broken answer ends for HTTP/1.0 |
//! | `settle` | `logging` |

mod admission;
mod again;
mod attempt;
mod authentication;
mod blame;
mod body;
mod budgeting;
mod caching;
pub mod cancel;
mod carry;
mod context;
mod copied;
mod cork;
mod exchange;
mod failure;
mod hedge;
mod kept;
mod keys;
mod limiting;
mod outlet;
mod overload;
mod permitting;
mod planning;
mod reset;
mod response;
mod serve;
mod settle;
mod steps;
mod subrequest;
mod timed;
mod told;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::cache::store::Cache;
use crate::credential::TokenCache;
use crate::dns::Dns;
use crate::gateway::Snapshot;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::lifecycle::phase::Phase;
use crate::lifecycle::reload::Live;
use crate::limits::concurrency::Registry;
use crate::limits::rate;
use crate::limits::spend::Budgets;
use crate::memory::Memory;
use crate::routing::known::Known;
use crate::telemetry::metrics::Metrics;

use context::Context;
pub use exchange::Connections;

/// The door: what Pingora drives for every request.
pub struct Door {
    live: Arc<ArcSwap<Snapshot>>,
    ledger: Arc<Ledger>,
    phase: Arc<Phase>,
    dns: Arc<Dns>,
    connections: Connections,
    tokens: TokenCache,
    memory: Arc<Memory>,
    cache: Arc<Cache>,
    known: Arc<Known>,
    metrics: Arc<Metrics>,
    gates: Arc<Registry>,
    rates: rate::Registry,
    keys: Arc<Keys>,
    budgets: Arc<Budgets>,
}

/// What the door shares with the rest of the process.
pub struct Shared {
    /// Counts requests.
    pub metrics: Arc<Metrics>,
    /// Tells when to stop keeping connections.
    pub phase: Arc<Phase>,
    /// Finds providers.
    pub dns: Arc<Dns>,
    /// Connects to them.
    pub connections: Connections,
    /// Has answers.
    pub cache: Arc<Cache>,
    /// What is known of providers.
    pub known: Arc<Known>,
    /// Takes the records of requests.
    pub ledger: Arc<Ledger>,
    /// Who may pass beside the tokens of the configuration.
    pub keys: Arc<Keys>,
    /// What may be spent.
    pub budgets: Arc<Budgets>,
}

impl Door {
    /// The configuration of `live` is read anew by each request.
    pub fn new(live: &Live, shared: Shared) -> Self {
        let Shared {
            metrics,
            phase,
            dns,
            connections,
            cache,
            known,
            ledger,
            keys,
            budgets,
        } = shared;
        let tokens = TokenCache::new(attempt::token_endpoint(&dns, None));
        let memory = Arc::new(Memory::new(Arc::clone(&metrics)));
        Self {
            live: live.snapshot(),
            ledger,
            phase,
            dns,
            connections,
            tokens,
            memory,
            cache,
            known,
            metrics,
            gates: live.gates(),
            rates: rate::Registry::default(),
            keys,
            budgets,
        }
    }
}

#[async_trait]
impl ProxyHttp for Door {
    /// Boxed, because Pingora moves it from future to future.
    type CTX = Box<Context>;

    /// In place of Pingora's own module, which could compress and does not.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(outlet::Outlets));
    }

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Context::new(self.live.load_full()))
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        subrequest::take_over(session, ctx);
        admission::prepare(session, ctx, &self.phase);
        Ok(())
    }

    fn allow_spawning_subrequest(&self, session: &Session, ctx: &Self::CTX) -> bool {
        subrequest::may_be_needed(session, ctx)
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        match admission::admit(self, session, ctx).await {
            Ok(admission::Next::Forward) if exchange::takes(session, ctx) => {
                Box::pin(exchange::run(self, session, ctx)).await?;
                Ok(true)
            }
            Ok(admission::Next::Forward) => Ok(false),
            Ok(admission::Next::Answered) => Ok(true),
            Err(failure) => {
                Box::pin(failure::refuse(session, ctx, failure)).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        again::peer(self, session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        socket: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        ctx.attempt.reused = reused;
        cork::request(session, peer, socket);
        again::connected(session, peer, socket, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        attempt::head(session, request, ctx).map_err(|failure| ctx.fail(failure))
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        if end_of_stream && ctx.answer.head.is_none() {
            again::sent(ctx);
        }
        body::pass(body, end_of_stream, ctx).map_err(|failure| ctx.fail(failure))
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        match response::head_arrived(self, session, response, ctx) {
            Ok(response::Head::Passes) => Ok(()),
            Ok(response::Head::IsGivenUp) => Err(again::again()),
            Err(failure) => Err(ctx.fail(failure)),
        }
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        match response::body_arrived(body.as_ref(), end_of_stream, ctx) {
            Ok(()) => Ok(None),
            Err(failure) => Err(ctx.fail(failure)),
        }
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        response::head_leaves(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        response::body_leaves(body.as_ref(), ctx);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        failure::could_not_connect(self, session, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        failure::broke(self, session, ctx, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        failure::give_up(self, session, error, ctx).await
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        // The access log has every failure, once, with its detail.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        again::ended(ctx);
        ctx.places.leave();
        ctx.limited.leave();
        settle::publish(self, session, error, ctx);
    }
}
