//! The end of a request: its one record is built and entered in the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use pingora_core::Error;
use pingora_proxy::Session;

use crate::error::{Failure, Kind};
use crate::export::trace_context::Given;
use crate::ledger::{Entry, Ledger};
use crate::record::{RequestRecord, Spent};

use super::context::Context;
use super::copied;
use super::overload::{self, Waited};
use super::{Door, caching, failure, hedge, steps, told};

/// Longest header value that goes into the record, in bytes.
const MAX_HEADER: usize = 256;
/// Longest path that goes into the record, in bytes.
const MAX_PATH: usize = 1024;

/// What a client asked, as far as the record shows it.
pub struct Asked {
    method: http::Method,
    version: http::Version,
    client: Option<SocketAddr>,
    content_type: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    traceparent: Option<Box<str>>,
    otel: Given,
}

impl Asked {
    /// Copied out of the session.
    pub fn of(session: &Session, ctx: &Context) -> Self {
        let head = session.req_header();
        static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
        let shown = |name: &HeaderName| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some(cut(value, MAX_HEADER).into())
        };
        Self {
            method: head.method.clone(),
            version: ctx.client_version.unwrap_or(head.version),
            client: session
                .client_addr()
                .and_then(|address| address.as_inet().copied()),
            content_type: essence(head.headers.get(CONTENT_TYPE)),
            user_agent: shown(&USER_AGENT),
            traceparent: shown(&TRACEPARENT),
            otel: Given::read(&head.headers),
        }
    }
}

/// What the client received.
struct Sent {
    status: u16,
    request_bytes: u64,
    response_bytes: u64,
}

/// What settles a request that is ended from outside ([`super::cancel`]): nobody waited for
/// its answer any more.
pub struct Unsettled {
    /// Where the record goes.
    pub ledger: Arc<Ledger>,
    /// What was asked.
    pub asked: Asked,
}

impl Unsettled {
    /// Publishes the record.
    pub fn settle(self, ctx: &mut Context) {
        ctx.failure
            .get_or_insert_with(|| Failure::new(Kind::ClientGone));
        let sent = Sent {
            status: ctx.answer.given.status,
            request_bytes: ctx.received.unwrap_or(0),
            response_bytes: ctx.answer.given.bytes,
        };
        self.ledger.enter(entry(self.asked, sent, ctx));
    }
}

/// Publishes the record; a subrequest that took the request over does it instead.
pub fn publish(door: &Door, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
    if ctx.handed_over || steps::hand_back(session, ctx) {
        return;
    }
    hedge::settle(door, ctx);
    let asked = match ctx.unsettled.take() {
        Some(unsettled) => unsettled.asked,
        None => Asked::of(session, ctx),
    };
    // What went wrong and was answered with a stored answer is no failure.
    if ctx.failure.is_none() && ctx.answered.is_none() {
        ctx.failure = unexplained(error);
    }
    if ctx.failure.is_none() && caching::has_lost_its_client(ctx) {
        ctx.failure = Some(Failure::new(Kind::ClientGone));
    }
    let sent = Sent {
        status: failure::begun(session).map_or(0, |head| head.status.as_u16()),
        request_bytes: ctx
            .received
            .unwrap_or_else(|| session.body_bytes_read() as u64),
        response_bytes: session.body_bytes_sent() as u64,
    };
    let mut entry = entry(asked, sent, ctx);
    told::at_the_end(ctx.telling.take(), &mut entry);
    door.ledger.enter(entry);
}

fn entry(asked: Asked, sent: Sent, ctx: &mut Context) -> Box<Entry> {
    let request = copied::request(&mut ctx.body);
    Box::new(Entry {
        spending: told::spending(&request, ctx),
        logged: ctx.copied.take(request),
        reserved: ctx
            .limited
            .reserved(ctx.attempt.body_sent || ctx.answer.head.is_some()),
        record: record(asked, sent, ctx),
        prices: Arc::clone(&ctx.snapshot.prices),
    })
}

fn record(asked: Asked, sent: Sent, ctx: &mut Context) -> RequestRecord {
    let now = ctx.answered.unwrap_or_else(Instant::now);
    let waited = overload::waited(ctx);
    RequestRecord {
        id: ctx.id,
        started: ctx.started,
        gateway: ctx.gateway.clone(),
        model: ctx.model().map(Into::into),
        consumer: ctx.consumer.take(),
        key_alias: ctx.spent_key().map(|key| key.alias.clone()),
        provider: ctx.provider.clone(),
        method: asked.method,
        path: cut(&ctx.path, MAX_PATH).into(),
        reading: ctx.reading,
        version: asked.version,
        client: asked.client,
        request_content_type: asked.content_type,
        response_content_type: essence(ctx.answer.given.content_type.as_ref()),
        user_agent: asked.user_agent,
        traceparent: asked.traceparent,
        otel: asked.otel,
        event_id: event_id(ctx),
        metadata: std::mem::take(&mut ctx.metadata),
        unbounded: ctx.limited.unbounded(),
        custom_cost: ctx.directives.custom_cost.take(),
        status: sent.status,
        streamed: ctx.answer.streamed,
        failure: ctx.failure.take(),
        route: ctx
            .planned
            .as_ref()
            .map(|planned| planned.plan.name.clone()),
        target: ctx.planned.as_ref().map_or(0, |planned| planned.at()),
        step: ctx.place(),
        hedged: ctx.hedged,
        attempts: ctx.attempt.count,
        asked_before: std::mem::take(&mut ctx.asked_before),
        tried: std::mem::take(&mut ctx.tried),
        reused: ctx.attempt.reused,
        request_bytes: sent.request_bytes,
        response_bytes: sent.response_bytes,
        duration: now.saturating_duration_since(ctx.clock),
        waited: waited.total,
        upstream: upstream(ctx, waited, now),
        first_byte: ctx.since_start(ctx.answer.head),
        first_token: ctx.since_start(ctx.answer.first_byte.filter(|_| ctx.answer.streamed)),
        cache: std::mem::take(&mut ctx.cache),
        spent: Spent::default(),
    }
}

fn event_id(ctx: &Context) -> Option<Box<str>> {
    let id = ctx.directives.event_id.as_ref()?;
    Some(String::from_utf8_lossy(id.as_bytes()).into())
}

/// A content type without its parameters.
fn essence(value: Option<&HeaderValue>) -> Option<Box<str>> {
    let value = value?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or(value).trim();
    Some(cut(essence, MAX_HEADER).into())
}

/// At most `most` bytes of `text`, whole characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// An error that no phase has explained: a client that went away between two requests' phases.
fn unexplained(error: Option<&Error>) -> Option<Failure> {
    error.map(|error| Failure::new(Kind::Internal).with_detail(error.to_string()))
}

/// From the start of the first try to the provider's last byte, or to the end of the request
/// when that never came, without the waits for a place between the tries.
fn upstream(ctx: &Context, waited: Waited, now: Instant) -> Option<Duration> {
    let began = ctx.attempt.began?;
    let ended = ctx
        .answer
        .last_byte
        .filter(|_| ctx.answer.ended)
        .unwrap_or(now);
    let all = ended.saturating_duration_since(began);
    Some(all.saturating_sub(waited.between_tries))
}
