//! The listener for operators: health, metrics, reload, upgrade, and finished requests.
//!
//! With `admin.tokens` it answers who brings one (`operators`). Without, it listens on loopback
//! only and answers only requests that name it as their `Host`, and as their `Origin` if they have
//! one: a web page that a browser on this machine shows cannot reach it, not even by rebinding a DNS
//! name. What concerns API keys or provider keys wants a token in any case,
//! at first that of [`setup`].

pub mod client;
mod guard;
mod management;
mod operators;
mod page;
mod serve;
pub mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::analytics;
use crate::cache::store::Cache;
use crate::config::Problem;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::lifecycle::entrance::HeadLimits;
use crate::lifecycle::phase::{Phase, State};
use crate::lifecycle::reload::Live;
use crate::lifecycle::upgrade::{NotUpgraded, Upgrader};
use crate::limits::spend::Budgets;
use crate::logs::store::Store;
use crate::routing::known::Known;
use crate::telemetry::metrics::Metrics;

use management::Asked;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Health,
    Ready,
    Metrics,
    Reload,
    Upgrade,
}

/// Every endpoint with its path, its method, and what it is for.
const ENDPOINTS: [(Endpoint, &str, Method, &str); 5] = [
    (
        Endpoint::Health,
        "/healthz",
        Method::GET,
        "200 while the process lives",
    ),
    (
        Endpoint::Ready,
        "/readyz",
        Method::GET,
        "200 while it takes new requests, else 503",
    ),
    (
        Endpoint::Metrics,
        "/metrics",
        Method::GET,
        "Prometheus metrics",
    ),
    (
        Endpoint::Reload,
        "/-/reload",
        Method::POST,
        "read the configuration again",
    ),
    (
        Endpoint::Upgrade,
        "/-/upgrade",
        Method::POST,
        "hand over to the binary now on disk",
    ),
];

/// What operators' clients may take and send before a request is known.
pub fn head_limits() -> HeadLimits {
    HeadLimits {
        timeout: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        size: 16 * 1024,
    }
}

/// The application behind the listener for operators.
pub struct Admin {
    /// Where it answers.
    pub address: SocketAddr,
    /// Where the set-up token lies.
    pub data_dir: PathBuf,
    /// Tells whether the process takes new requests.
    pub phase: Arc<Phase>,
    /// Is reloaded.
    pub live: Arc<Live>,
    /// Upgrades.
    pub upgrader: Arc<Upgrader>,
    /// Are shown.
    pub metrics: Arc<Metrics>,
    /// Is purged.
    pub cache: Arc<Cache>,
    /// Whose standings are shown.
    pub known: Arc<Known>,
    /// What is shown has all finished requests in it.
    pub ledger: Arc<Ledger>,
    /// Has finished requests; `None` where there is no log store.
    pub logs: Option<Store>,
    /// Has them added up.
    pub analytics: analytics::store::Store,
    /// Are made, shown and revoked.
    pub keys: Arc<Keys>,
    /// Has what calls may cost.
    pub budgets: Arc<Budgets>,
}

/// What is answered.
enum Answer {
    /// All of it is there.
    Whole(Response<Vec<u8>>),
    /// A head, and pieces of a body as they come; an error ends it as one that is broken off.
    Streamed(Response<Vec<u8>>, Receiver<std::io::Result<Bytes>>),
}

impl Admin {
    async fn answer(&self, asked: &Asked<'_>) -> Answer {
        if management::has(asked.path) {
            return management::answer(self, asked).await;
        }
        if let Some(page) = page::answer(asked.method, asked.path) {
            return Answer::Whole(page);
        }
        Answer::Whole(self.operate(asked.method, asked.path).await)
    }

    async fn operate(&self, method: &Method, path: &str) -> Response<Vec<u8>> {
        let Some((endpoint, path, allowed, _)) =
            ENDPOINTS.iter().find(|(_, known, ..)| *known == path)
        else {
            return unknown_path();
        };
        if method != allowed {
            return wrong_method(path, allowed);
        }
        match endpoint {
            Endpoint::Health => json_response(StatusCode::OK, &json!({ "status": "ok" })),
            Endpoint::Ready => ready(self.phase.state()),
            Endpoint::Metrics => {
                // In this order, so that a request is either in flight or counted.
                let in_flight = self.phase.requests();
                self.ledger.caught_up().await;
                self.cache.gauge();
                self.metrics.standings(&self.known, Instant::now());
                self.metrics.gates(&self.live.gates().gates());
                let text = self.metrics.render(in_flight);
                response(
                    StatusCode::OK,
                    "text/plain; version=0.0.4",
                    text.into_bytes(),
                )
            }
            Endpoint::Reload => self.reload().await,
            Endpoint::Upgrade => self.upgrade().await,
        }
    }

    async fn reload(&self) -> Response<Vec<u8>> {
        match self.live.reload("an operator asked for it").await {
            Ok(applied) => json_response(
                StatusCode::OK,
                &json!({
                    "result": "reloaded",
                    "restart_required": applied.restart_required,
                }),
            ),
            Err(problems) => json_response(
                StatusCode::BAD_REQUEST,
                &json!({
                    "result": "not reloaded",
                    "reason": "the configuration has mistakes; the last good one keeps serving",
                    "problems": list(&problems),
                }),
            ),
        }
    }

    async fn upgrade(&self) -> Response<Vec<u8>> {
        let (status, reason, problems) = match self.upgrader.upgrade().await {
            Ok(pid) => {
                return json_response(StatusCode::OK, &json!({ "result": "upgraded", "pid": pid }));
            }
            Err(NotUpgraded::NotNow(reason)) => {
                (StatusCode::CONFLICT, reason.to_owned(), Vec::new())
            }
            Err(NotUpgraded::Failed { reason, problems }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, reason, problems)
            }
        };
        json_response(
            status,
            &json!({ "result": "not upgraded", "reason": reason, "problems": list(&problems) }),
        )
    }
}

fn unknown_path() -> Response<Vec<u8>> {
    let endpoints = ENDPOINTS.iter();
    let endpoints = endpoints.map(|(_, path, method, what)| format!("{method} {path}: {what}"));
    let others = [
        "GET /: the first page, for a browser",
        "GET /-/logs: finished requests",
        "GET /-/analytics: the same added up",
        "GET and POST /-/keys: API keys",
        "GET and POST /-/provider_configs: stored provider keys",
    ];
    let list: Vec<_> = endpoints.chain(others.map(str::to_owned)).collect();
    json_response(
        StatusCode::NOT_FOUND,
        &json!({ "error": "no such endpoint", "endpoints": list }),
    )
}

fn wrong_method(path: &str, allowed: &Method) -> Response<Vec<u8>> {
    let error = json!({ "error": format!("{path} answers {allowed} only") });
    let mut response = json_response(StatusCode::METHOD_NOT_ALLOWED, &error);
    if let Ok(allowed) = header::HeaderValue::from_str(allowed.as_str()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A process that is starting is ready: all listeners are open before this one answers, and
/// in an upgrade either process may be the one that is asked.
fn ready(state: State) -> Response<Vec<u8>> {
    let (status, name) = match state {
        State::Starting | State::Serving => (StatusCode::OK, State::Serving.name()),
        State::HandingOver | State::Draining => (StatusCode::SERVICE_UNAVAILABLE, state.name()),
    };
    json_response(status, &json!({ "status": name }))
}

fn list(problems: &[Problem]) -> Value {
    problems
        .iter()
        .map(|problem| json!({ "path": problem.path, "message": problem.message }))
        .collect()
}

fn json_response(status: StatusCode, body: &Value) -> Response<Vec<u8>> {
    response(status, "application/json", format!("{body}\n").into_bytes())
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_method_is_answered_with_the_right_one() {
        let refusal = wrong_method("/-/reload", &Method::POST);
        assert_eq!(refusal.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refusal.headers()[header::ALLOW], "POST");
    }

    #[test]
    fn an_unknown_path_is_answered_with_the_known_ones() {
        let refusal = unknown_path();
        assert_eq!(refusal.status(), StatusCode::NOT_FOUND);
        let body = String::from_utf8_lossy(refusal.body());
        assert!(
            ENDPOINTS.iter().all(|(_, path, ..)| body.contains(path)),
            "{body}"
        );
    }

    #[test]
    fn a_process_on_its_way_out_is_not_ready() {
        for (state, status) in [
            (State::Starting, 200),
            (State::Serving, 200),
            (State::HandingOver, 503),
            (State::Draining, 503),
        ] {
            assert_eq!(ready(state).status(), status, "{state:?}");
        }
    }
}
