//! The listener for operators: health, metrics, reload, upgrade.
//!
//! There are no admin tokens yet, so it listens on loopback only and answers only requests
//! that name it as their `Host`, and as their `Origin` if they have one: a web page that a
//! browser on this machine shows cannot reach it, not even by rebinding a DNS name.

pub mod client;
mod guard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::config::Problem;
use crate::lifecycle::entrance::HeadLimits;
use crate::lifecycle::phase::{Phase, State};
use crate::lifecycle::reload::Live;
use crate::lifecycle::upgrade::{NotUpgraded, Upgrader};
use crate::telemetry::metrics::Metrics;

/// No endpoint reads a body; clients that send one all the same may send this much.
const LARGEST_BODY: usize = 16 * 1024;

/// How long sending it may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Path and method of every endpoint, with what it is for.
const ENDPOINTS: [(&str, Method, &str); 5] = [
    ("/healthz", Method::GET, "200 while the process lives"),
    (
        "/readyz",
        Method::GET,
        "200 while it takes new requests, else 503",
    ),
    ("/metrics", Method::GET, "Prometheus metrics"),
    ("/-/reload", Method::POST, "read the configuration again"),
    (
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
    address: SocketAddr,
    phase: Arc<Phase>,
    live: Arc<Live>,
    upgrader: Arc<Upgrader>,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Answers on `address`.
    pub fn new(
        address: SocketAddr,
        phase: Arc<Phase>,
        live: Arc<Live>,
        upgrader: Arc<Upgrader>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            address,
            phase,
            live,
            upgrader,
            metrics,
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> Response<Vec<u8>> {
        match endpoint(method, path) {
            Err(refusal) => refusal,
            Ok("/healthz") => json_response(StatusCode::OK, &json!({ "status": "ok" })),
            Ok("/readyz") => ready(self.phase.state()),
            Ok("/metrics") => response(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                self.metrics.render(self.phase.requests()).into_bytes(),
            ),
            Ok("/-/reload") => self.reload().await,
            Ok(_) => self.upgrade().await,
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

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if let Err(reason) = guard::check(self.address, &request.headers) {
            session.set_keepalive(None);
            return json_response(StatusCode::FORBIDDEN, &json!({ "error": reason }));
        }
        let (method, path) = (request.method.clone(), request.uri.path().to_owned());
        if let Err(refusal) = discard_body(session).await {
            session.set_keepalive(None);
            return refusal;
        }
        let mut response = self.answer(&method, &path).await;
        if self.phase.state() >= State::HandingOver {
            session.set_keepalive(None);
        }
        response.headers_mut().insert(
            header::CACHE_CONTROL,
            header::HeaderValue::from_static("no-store"),
        );
        response
    }
}

/// The path of the endpoint that is asked for, or what to say instead.
fn endpoint(method: &Method, path: &str) -> Result<&'static str, Response<Vec<u8>>> {
    match ENDPOINTS.iter().find(|(known, ..)| *known == path) {
        Some((known, allowed, _)) if allowed == method => Ok(known),
        Some((known, allowed, _)) => Err(wrong_method(known, allowed)),
        None => {
            let list: Vec<_> = ENDPOINTS
                .iter()
                .map(|(path, method, what)| format!("{method} {path}: {what}"))
                .collect();
            Err(json_response(
                StatusCode::NOT_FOUND,
                &json!({ "error": "no such endpoint", "endpoints": list }),
            ))
        }
    }
}

fn wrong_method(path: &str, allowed: &Method) -> Response<Vec<u8>> {
    let error = json!({ "error": format!("{path} answers {allowed} only") });
    let mut response = json_response(StatusCode::METHOD_NOT_ALLOWED, &error);
    if let Ok(allowed) = header::HeaderValue::from_str(allowed.as_str()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn ready(state: State) -> Response<Vec<u8>> {
    let status = if state == State::Serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(status, &json!({ "status": state.name() }))
}

/// Reads the request's body, which means nothing, so that the connection can be used again.
async fn discard_body(session: &mut ServerSession) -> Result<(), Response<Vec<u8>>> {
    let reading = async {
        let mut size = 0;
        while let Ok(Some(bytes)) = session.read_request_body().await {
            size += bytes.len();
            if size > LARGEST_BODY {
                return false;
            }
        }
        true
    };
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(json_response(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({ "error": "send no body" }),
        )),
        Err(_) => Err(json_response(
            StatusCode::REQUEST_TIMEOUT,
            &json!({ "error": "the body took too long" }),
        )),
    }
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
    fn every_endpoint_answers_its_method_only() {
        for (path, method, _) in &ENDPOINTS {
            assert_eq!(endpoint(method, path).ok(), Some(*path));
            let other = if method == Method::GET {
                Method::POST
            } else {
                Method::GET
            };
            let refusal = endpoint(&other, path).err();
            assert_eq!(
                refusal.map(|r| (r.status(), r.headers()[header::ALLOW] == method.as_str())),
                Some((StatusCode::METHOD_NOT_ALLOWED, true))
            );
        }
    }

    #[test]
    fn an_unknown_path_is_answered_with_the_known_ones() {
        let refusal = endpoint(&Method::GET, "/").err().map(Response::into_parts);
        let Some((head, body)) = refusal else {
            panic!("found")
        };
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert!(String::from_utf8_lossy(&body).contains("/-/upgrade"));
    }

    #[test]
    fn only_a_serving_process_is_ready() {
        assert_eq!(ready(State::Serving).status(), StatusCode::OK);
        for state in [State::Starting, State::HandingOver, State::Draining] {
            assert_eq!(ready(state).status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
