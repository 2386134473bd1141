//! `POST echo…` sends the request's body back, `POST digest` its length and hash:
//! what a test of body sizes and framings compares with. Neither holds more than a
//! megabyte.

use bytes::{Bytes, BytesMut};
use http::{Method, Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::{RequestHeader, ResponseHeader};
use ring::digest::{Context, SHA256};

use super::answer::{hex, split};
use super::server::End;

/// Bodies up to this size are read whole before they are sent back, so that their
/// length and hash stand in the head: 1 MiB.
const MAX_HELD: usize = 1 << 20;

/// What is to be done with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Send it back, byte for byte.
    Echo,
    /// Tell its length and hash.
    Digest,
}

impl Kind {
    /// What a request asks for, if it is one for this module.
    pub(super) fn of(head: &RequestHeader) -> Option<Self> {
        let (_, path, _) = split(head.uri.path());
        match path {
            _ if head.method != Method::POST => None,
            "digest" => Some(Self::Digest),
            path if path.starts_with("echo") => Some(Self::Echo),
            _ => None,
        }
    }
}

/// Answers a request for this module, whose head has been read.
pub(super) async fn run(session: &mut ServerSession, kind: Kind) -> pingora_core::Result<End> {
    match kind {
        Kind::Digest => digest(session).await?,
        Kind::Echo => echo(session).await?,
    }
    Ok(End::Complete)
}

async fn digest(session: &mut ServerSession) -> pingora_core::Result<()> {
    let (mut hash, mut bytes) = (Context::new(&SHA256), 0_u64);
    while let Some(piece) = session.read_request_body().await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
    }
    let hash = hex(hash.finish().as_ref());
    let body = format!(r#"{{"bytes":{bytes},"sha256":"{hash}"}}"#);
    let mut head = ResponseHeader::build(200, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header("mock-body-bytes", bytes)?;
    head.insert_header("mock-body-sha256", hash)?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(body.into(), true).await
}

async fn echo(session: &mut ServerSession) -> pingora_core::Result<()> {
    let mut head = ResponseHeader::build(200, Some(8))?;
    if let Some(content_type) = session.get_header(header::CONTENT_TYPE) {
        head.insert_header(header::CONTENT_TYPE, content_type)?;
    }
    let mut held = BytesMut::new();
    while held.len() <= MAX_HELD {
        let Some(piece) = session.read_request_body().await? else {
            return echo_held(session, head, held.freeze()).await;
        };
        held.extend_from_slice(&piece);
    }
    echo_stream(session, head, held.freeze()).await
}

async fn echo_held(
    session: &mut ServerSession,
    mut head: ResponseHeader,
    body: Bytes,
) -> pingora_core::Result<()> {
    let hash = ring::digest::digest(&SHA256, &body);
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header("mock-body-bytes", body.len())?;
    head.insert_header("mock-body-sha256", hex(hash.as_ref()))?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(body, true).await
}

/// The length stands in the head when the request told it; the hash cannot.
async fn echo_stream(
    session: &mut ServerSession,
    mut head: ResponseHeader,
    first: Bytes,
) -> pingora_core::Result<()> {
    if let Some(length) = session.get_header(header::CONTENT_LENGTH) {
        head.insert_header(header::CONTENT_LENGTH, length)?;
        head.insert_header("mock-body-bytes", length)?;
    } else if session.req_header().version == Version::HTTP_11 {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    // The answer starts before the request has ended, and the connection lives on.
    session.set_close_on_response_before_downstream_finish(false);
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(first, false).await?;
    while let Some(piece) = session.read_request_body().await? {
        session.write_response_body(piece, false).await?;
    }
    session.finish_body().await
}
