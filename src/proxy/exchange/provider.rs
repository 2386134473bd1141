//! The provider's side of an exchange: HTTP/1.1 and HTTP/2 alike.

use std::os::fd::RawFd;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora_core::protocols::UniqueID;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::connections::Connections;

/// One request and its answer.
pub struct Conversation {
    http: HttpSession,
    /// Something of the request has been written.
    asked: bool,
    /// Why not all of the request has been written: the answer may say more.
    unsent: Option<Box<Error>>,
    stage: Stage,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Head,
    Body,
    Trailers,
    Nothing,
}

impl Conversation {
    /// Nothing has been said yet.
    pub fn new(mut http: HttpSession, peer: &HttpPeer) -> Self {
        http.set_read_timeout(peer.options.read_timeout);
        http.set_write_timeout(peer.options.write_timeout);
        Self {
            http,
            asked: false,
            unsent: None,
            stage: Stage::Head,
        }
    }

    /// The connection's.
    pub fn socket(&self) -> RawFd {
        match &self.http {
            HttpSession::H1(http1) => http1.id(),
            HttpSession::H2(http2) => http2.fd(),
            HttpSession::Custom(()) => -1,
        }
    }

    /// Whether it goes over HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http.as_http2().is_some()
    }

    /// Whether the answer has come whole.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Nothing
    }

    /// Sends the head of a request. `ends`: there is no body.
    pub async fn ask(&mut self, head: RequestHeader, ends: bool) -> Result<()> {
        self.asked = true;
        let head = Box::new(head);
        let written = match &mut self.http {
            HttpSession::H2(http2) => http2.write_request_header(head, ends),
            http => http.write_request_header(head).await,
        };
        written.map_err(up)
    }

    /// Sends its body. One that cannot be sent whole is no error here: a provider that refuses a body
    /// reads no more of it, and has answered.
    pub async fn send(&mut self, body: Bytes) {
        let written = match body.is_empty() {
            true => Ok(()),
            false => self.http.write_request_body(body, true).await,
        };
        let ended = match written {
            Ok(()) if !self.is_http2() => self.http.finish_request_body().await,
            written => written,
        };
        self.unsent = ended.err();
    }

    /// The next of the answer. Of its body it may be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Result<HttpTask> {
        let next = match &mut self.http {
            HttpSession::H1(http1) => http1.read_response_task().await,
            HttpSession::H2(http2) => next_of_http2(http2, self.stage).await,
            HttpSession::Custom(()) => Ok(HttpTask::Done),
        };
        let task = next.map_err(|error| up(self.why(error)))?;
        self.stage = match &task {
            task if task.is_end() => Stage::Nothing,
            HttpTask::Header(head, _) if head.status.is_informational() => Stage::Head,
            HttpTask::Body(None, _) => Stage::Trailers,
            _ => Stage::Body,
        };
        Ok(task)
    }

    /// Why there is no more of the answer: over HTTP/2 the stream itself says it best, but for a
    /// provider that has stopped reading.
    fn why(&mut self, error: Box<Error>) -> Box<Error> {
        match self.unsent.take() {
            Some(unsent) if !self.is_http2() || unsent.etype() == &ErrorType::WriteTimedout => {
                unsent
            }
            _ => error,
        }
    }

    /// All was said: the connection may be used again.
    pub async fn end(self, connections: &Connections, peer: &HttpPeer) {
        let is_clean = self.is_over() && self.unsent.is_none();
        if is_clean || self.is_http2() {
            connections.give_back(self.http, peer).await;
        }
    }

    /// Ends it where it is. HTTP/1.1 has no other way than to close the connection, unless nothing has
    /// been said.
    pub async fn abandon(self, connections: &Connections, peer: &HttpPeer, error: &mut Error) {
        if let HttpSession::H2(http2) = &self.http {
            if error.esource() == &ErrorSource::Upstream
                && error.etype() == &ErrorType::ReadTimedout
            {
                // It may hang as a whole.
                http2.conn.mark_shutdown();
            }
            if matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2) {
                speak_http1(connections, peer, error);
            }
        }
        match self.asked {
            false => connections.give_back_unused(self.http, peer).await,
            true if self.is_http2() => connections.give_back(self.http, peer).await,
            true => {}
        }
    }
}

/// A provider whose HTTP/2 cannot be understood is asked over HTTP/1.1 from now on.
fn speak_http1(connections: &Connections, peer: &HttpPeer, error: &mut Error) {
    let may = peer
        .get_alpn()
        .is_none_or(|alpn| alpn.get_min_http_version() == 1);
    match may {
        true => connections.prefer_http1(peer),
        false => error.set_retry(false),
    }
}

async fn next_of_http2(http2: &mut Http2Session, stage: Stage) -> Result<HttpTask> {
    match stage {
        Stage::Head => {
            http2.read_response_header().await?;
            // What broke behind the head shows where the body is read.
            let ends = http2.check_response_end_or_error().unwrap_or(false);
            let head = http2.response_header().cloned();
            let head = head.ok_or_else(|| Error::explain(ErrorType::H2Error, "no head"))?;
            if ends && lacks_its_body(http2, &head) {
                return Error::e_explain(ErrorType::H2Error, "a length, and no body");
            }
            Ok(HttpTask::Header(Box::new(head), ends))
        }
        Stage::Body => {
            let piece = http2.read_response_body().await?;
            let ends = match &piece {
                Some(_) => http2.check_response_end_or_error()?,
                None => false,
            };
            Ok(HttpTask::Body(piece, ends))
        }
        Stage::Trailers => {
            let trailers = http2.read_trailers().await?;
            Ok(trailers.map_or(HttpTask::Done, |all| HttpTask::Trailer(Some(Box::new(all)))))
        }
        Stage::Nothing => Ok(HttpTask::Done),
    }
}

/// A head that ends its answer, and tells a length where there may be a body (RFC 9113, 8.1.1).
fn lacks_its_body(http2: &Http2Session, head: &ResponseHeader) -> bool {
    let asked = http2.request_header().map(|head| &head.method);
    let may_have_none = asked == Some(&Method::HEAD)
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let length = head.headers.get(CONTENT_LENGTH);
    let is_some = length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'));
    !may_have_none && is_some
}

fn up(error: Box<Error>) -> Box<Error> {
    error.into_up()
}
