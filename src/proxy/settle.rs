//! The end of a request: its one record is built and published.

use std::time::{Duration, Instant};

use http::header::USER_AGENT;
use pingora_core::Error;
use pingora_proxy::Session;

use crate::record::{RequestRecord, Source};
use crate::telemetry::access;

use super::Door;
use super::context::{Body, Context};

/// Longest header value that goes into the record, in bytes.
const MAX_HEADER: usize = 256;
/// Longest path that goes into the record, in bytes.
const MAX_PATH: usize = 1024;

/// Publishes the record; a subrequest that took the request over does it instead.
pub fn publish(door: &Door, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
    if ctx.handed_over {
        return;
    }
    let record = record(session, error, ctx);
    door.metrics.publish(&record);
    access::write(door.access_log, &record);
}

fn record(session: &Session, error: Option<&Error>, ctx: &mut Context) -> RequestRecord {
    let head = session.req_header();
    let now = ctx.answered.unwrap_or_else(Instant::now);
    let status = session
        .response_written()
        .map_or(0, |head| head.status.as_u16());
    let failure = ctx.failure.take().or_else(|| unexplained(error));
    let error_source = match (&failure, status) {
        (Some(failure), _) => Some(failure.kind.source()),
        (None, 400..) => Some(Source::Provider),
        (None, _) => None,
    };
    let shown = |name: &str| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(cut(value, MAX_HEADER).into())
    };
    RequestRecord {
        id: ctx.id,
        started: ctx.started,
        gateway: ctx.gateway.clone(),
        model: ctx.model().map(Into::into),
        key_alias: ctx.stored_key().map(|key| key.alias.clone()),
        provider: ctx.provider.clone(),
        method: head.method.clone(),
        path: cut(&ctx.path, MAX_PATH).into(),
        reading: ctx.reading,
        version: ctx.client_version.unwrap_or(head.version),
        client: session
            .client_addr()
            .and_then(|address| address.as_inet().copied()),
        user_agent: shown(USER_AGENT.as_str()),
        traceparent: shown("traceparent"),
        status,
        streamed: ctx.answer.streamed,
        failure,
        error_source,
        attempts: ctx.attempt.count,
        reused: ctx.attempt.reused,
        request_bytes: request_bytes(session, ctx),
        response_bytes: session.body_bytes_sent() as u64,
        duration: now.saturating_duration_since(ctx.clock),
        upstream: upstream(ctx, now),
        first_byte: ctx.since_start(ctx.answer.head),
        first_token: ctx.since_start(ctx.answer.first_byte.filter(|_| ctx.answer.streamed)),
    }
}

/// At most `most` bytes of `text`, whole characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// An error that no phase has explained: a client that went away between two requests' phases.
fn unexplained(error: Option<&Error>) -> Option<crate::error::Failure> {
    use crate::error::{Failure, Kind};
    error.map(|error| Failure::new(Kind::Internal).with_detail(error.to_string()))
}

/// What the client sent; in a subrequest one byte stands for the held body.
fn request_bytes(session: &Session, ctx: &Context) -> u64 {
    match &ctx.body {
        Body::Held { bytes, .. } => bytes.len() as u64,
        Body::Unread | Body::Streaming { .. } => session.body_bytes_read() as u64,
    }
}

/// From the start of the first try to the provider's last byte, or to the end of the request
/// when that never came.
fn upstream(ctx: &Context, now: Instant) -> Option<Duration> {
    let began = ctx.attempt.began?;
    let ended = ctx
        .answer
        .last_byte
        .filter(|_| ctx.answer.ended)
        .unwrap_or(now);
    Some(ended.saturating_duration_since(began))
}
