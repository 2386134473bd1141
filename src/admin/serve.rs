//! One request to the listener for operators, from its head to the end of its answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode, Version};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::management::Asked;
use super::{Admin, Answer, guard, json_response, operators, setup};
use crate::lifecycle::phase::State;

/// Few endpoints read a body; this is as long as one may be.
const LARGEST_BODY: usize = 64 * 1024;

/// How long sending it may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long an idle connection is kept, in seconds.
const KEEPALIVE: u64 = 60;

#[async_trait]
impl HttpServerApp for Admin {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive((!*shutdown.borrow()).then_some(KEEPALIVE));
        let answer = self.respond(&mut session).await;
        let given = match answer {
            Answer::Whole(answer) => whole(&mut session, answer).await,
            Answer::Streamed(head, pieces) => streamed(&mut session, head, pieces).await,
        };
        if let Err(error) = given {
            log::debug!("an operator did not get an answer whole: {error}");
            session.shutdown().await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

impl Admin {
    async fn respond(&self, session: &mut ServerSession) -> Answer {
        let operator = match self.admit(session.req_header()) {
            Ok(operator) => operator,
            Err(refusal) => {
                session.set_keepalive(None);
                return Answer::Whole(*refusal);
            }
        };
        let request = session.req_header();
        let (method, path) = (request.method.clone(), request.uri.path().to_owned());
        let query = request.uri.query().unwrap_or("").to_owned();
        let body = match read_body(session).await {
            Ok(body) => body,
            Err(refusal) => {
                session.set_keepalive(None);
                return Answer::Whole(refusal);
            }
        };
        let asked = Asked {
            method: &method,
            path: &path,
            query: &query,
            body: &body,
            operator: operator.as_deref(),
        };
        let mut answer = self.answer(&asked).await;
        if self.phase.state() >= State::HandingOver {
            session.set_keepalive(None);
        }
        let (Answer::Whole(head) | Answer::Streamed(head, _)) = &mut answer;
        let never = HeaderValue::from_static("no-store");
        head.headers_mut().entry(CACHE_CONTROL).or_insert(never);
        answer
    }
}

impl Admin {
    /// Who asks, where that is known, or why nobody is answered.
    fn admit(&self, request: &RequestHeader) -> Result<Option<Box<str>>, Box<Response<Vec<u8>>>> {
        let (headers, path) = (&request.headers, request.uri.path());
        let forbidden = |why: String| {
            Box::new(json_response(
                StatusCode::FORBIDDEN,
                &json!({ "error": why }),
            ))
        };
        let snapshot = self.live.snapshot().load_full();
        if snapshot.operators.is_empty() {
            guard::check(self.address, headers).map_err(forbidden)?;
            // They were taken out of the configuration while it ran.
            if !self.address.ip().is_loopback() && !is_probe(path) {
                let why = "this listener is open to other machines and admin.tokens is empty: restart tollgate to apply admin.listen";
                return Err(forbidden(why.to_owned()));
            }
            return Ok(self.by_setup_token(headers));
        }
        if is_probe(path) {
            return Ok(None);
        }
        let operator = operators::whose(&snapshot.operators, headers)
            .ok_or_else(|| Box::new(operators::refusal(&request.method, path)))?;
        guard::check_origin(headers).map_err(forbidden)?;
        Ok(Some(operator.name.clone()))
    }

    fn by_setup_token(&self, headers: &HeaderMap) -> Option<Box<str>> {
        let mut brought = operators::brought(headers);
        let is_it = brought.any(|token| setup::is_it(&self.data_dir, &token));
        is_it.then(|| "who has the set-up token".into())
    }
}

/// Answered to everybody: it tells nothing but that the process lives.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

async fn read_body(session: &mut ServerSession) -> Result<Bytes, Response<Vec<u8>>> {
    let reading = async {
        let mut body = BytesMut::new();
        while let Ok(Some(bytes)) = session.read_request_body().await {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_BODY {
                return None;
            }
        }
        Some(body.freeze())
    };
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err(json_response(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({ "error": format!("a body may have {LARGEST_BODY} bytes here") }),
        )),
        Err(_) => Err(json_response(
            StatusCode::REQUEST_TIMEOUT,
            &json!({ "error": "the body took too long" }),
        )),
    }
}

async fn whole(session: &mut ServerSession, answer: Response<Vec<u8>>) -> pingora_core::Result<()> {
    let (head, body) = answer.into_parts();
    let head: ResponseHeader = head.into();
    session.write_response_header(Box::new(head)).await?;
    match body.is_empty() {
        true => Ok(()),
        false => session.write_response_body(body.into(), true).await,
    }
}

async fn streamed(
    session: &mut ServerSession,
    head: Response<Vec<u8>>,
    mut pieces: Receiver<std::io::Result<Bytes>>,
) -> pingora_core::Result<()> {
    let (mut head, _) = head.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    match session.req_header().version {
        // It knows no chunks: the end of the connection is the end of the answer.
        Version::HTTP_10 => session.set_keepalive(None),
        Version::HTTP_11 => {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
        _ => {}
    }
    session.write_response_header(Box::new(head.into())).await?;
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(|error| {
            pingora_core::Error::explain(pingora_core::ErrorType::ReadError, error.to_string())
        })?;
        if !piece.is_empty() {
            session.write_response_body(piece, false).await?;
        }
    }
    Ok(())
}
