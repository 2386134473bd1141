//! What comes back: watched as it passes, never changed but for the gateway's own headers.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, StatusCode};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::call;
use crate::config::schema::Format;
use crate::directives::PREFIX;
use crate::error::{Failure, Kind};
use crate::record::{self, CacheStatus, Fault, Source};
use crate::routing::patience;
use crate::routing::verdict::Cause;
use crate::usage::Observer;
use crate::wire::{Framing, Watch};

use super::context::Context;
use super::told::{self, Telling};
use super::{Door, again, attempt, blame, caching, cork, hedge, limiting};

/// Who made an error, for every answer that is one.
pub const ERROR_SOURCE: HeaderName = HeaderName::from_static("tollgate-error-source");

// As text: Pingora keeps a static text as it is and copies a name.
const LOG_ID: &str = "cf-aig-log-id";
const REQUEST_ID: &str = "cf-aig-request-id";
const EVENT_ID: &str = "cf-aig-event-id";
const STEP: &str = "cf-aig-step";
const PROVIDER: &str = "cf-aig-provider";
const MODEL: &str = "cf-aig-model";
const CACHE_STATUS: &str = "cf-aig-cache-status";
const CACHE_NOTE: &str = "tollgate-cache-note";
const TRACE: &str = "tollgate-trace";

/// What becomes of a provider's answer.
pub enum Head {
    /// It goes to the client.
    Passes,
    /// It does not: the provider is asked again.
    IsGivenUp,
}

/// The provider's head is there. An error goes no further if the provider is asked again, or a
/// stored answer stands in for it.
pub fn head_arrived(
    door: &Door,
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut Context,
) -> Result<Head, Failure> {
    let upgraded = response.status.as_u16() == 101;
    if response.status.is_informational() && !upgraded {
        return Ok(Head::Passes);
    }
    let status = response.status.as_u16();
    if status >= 400 {
        let asked = patience::asked(status, &response.headers, SystemTime::now());
        if again::is_worth_it(door, session, ctx, Cause::Status(status), asked) {
            ctx.attempt.given_up = true;
            return Ok(Head::IsGivenUp);
        }
    }
    let goes_on = match status {
        400.. => hedge::is_last(ctx, false),
        _ => hedge::wins(ctx),
    };
    if !goes_on {
        return Err(Failure::new(Kind::ClientGone).with_detail("another target answered"));
    }
    match upgraded {
        true => again::ended(ctx),
        false => again::arrived(false, ctx),
    }
    if caching::has_stand_in(door, ctx, status) {
        ctx.cache.stood_in_for = Some(Fault::Status(status));
        return Err(Failure::new(Kind::UpstreamInvalid)
            .with_detail(format!("the provider answered {status}")));
    }
    if status < 400 {
        blame::answered(door, ctx);
    }
    ctx.answer.head = Some(Instant::now());
    ctx.answer.status = status;
    let header = |name| response.headers.get(name).map(HeaderValue::as_bytes);
    let framing = Framing::of(header(CONTENT_TYPE), header(CONTENT_ENCODING));
    ctx.answer.is_framed = response.version == http::Version::HTTP_2
        || header(CONTENT_LENGTH).is_some()
        || header(TRANSFER_ENCODING).is_some();
    ctx.answer.streamed = upgraded || framing != Framing::Other;
    // A declared length leaves no room for a word of ours.
    let room = header(CONTENT_LENGTH).is_none()
        && !upgraded
        && session.req_header().method != http::Method::HEAD;
    ctx.watch(if room { framing } else { Framing::Other });
    if status < 300 && !upgraded {
        ctx.answer.observer = observer(&response.headers, ctx);
    }
    Ok(Head::Passes)
}

/// Sees what an answer tells of tokens that it took, in dialects that tell.
pub fn observer(headers: &HeaderMap, ctx: &Context) -> Option<Observer> {
    let route = ctx.route.as_ref()?;
    if call::only_counts_tokens(&route.target.path_and_query) {
        return None;
    }
    let format = route.format;
    let header = |name| headers.get(name);
    let encoding = header(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let content_type = header(CONTENT_TYPE).map(HeaderValue::as_bytes);
    (format != Format::Opaque).then(|| Observer::new(format, content_type, encoding))
}

/// A piece of the provider's body is there. A stream of events that ends before its first
/// byte was broken off, whatever its framing says.
pub fn body_arrived(
    piece: Option<&Bytes>,
    end_of_stream: bool,
    ctx: &mut Context,
) -> Result<(), Failure> {
    let piece = piece.filter(|piece| !piece.is_empty());
    if piece.is_none() && !end_of_stream {
        return Ok(());
    }
    // A socket that was shut down looks like an end where only the end of the connection tells it.
    if end_of_stream && !ctx.answer.is_framed && again::is_overdue(ctx) {
        // Pieces that came in one go with the end do not go out any more.
        if let Some(watch) = &mut ctx.answer.watch {
            watch.lose_track();
        }
        return Err(Failure::new(Kind::UpstreamTimeout));
    }
    again::arrived(end_of_stream, ctx);
    let now = Instant::now();
    ctx.answer.last_byte = Some(now);
    ctx.answer.ended = end_of_stream;
    let watch = ctx
        .answer
        .watch
        .as_mut()
        .filter(|watch| !matches!(watch, Watch::Other));
    if let Some(piece) = piece {
        ctx.answer.first_byte.get_or_insert(now);
        if let Some(observer) = &mut ctx.answer.observer {
            observer.push(piece);
        } else if let Some(Telling::InTheStream(teller)) = &ctx.telling {
            teller.push(piece);
        }
        if let Some(watch) = watch {
            watch.feed(piece);
        }
    } else if watch.is_some() && ctx.answer.first_byte.is_none() && ctx.answer.status == 200 {
        return Err(
            Failure::new(Kind::UpstreamCut).with_detail("the stream ended before its first byte")
        );
    }
    Ok(())
}

/// The head goes to the client, with the gateway's own headers.
pub fn head_leaves(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> pingora_core::Result<()> {
    if response.status.is_informational() && response.status.as_u16() != 101 {
        return Ok(());
    }
    remove_what_is_not_for_the_client(response);
    if response.status.as_u16() >= 400 {
        response.insert_header(ERROR_SOURCE, Source::Provider.name())?;
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        select_subprotocol(session, response, ctx)?;
        // A tunnel may be silent for as long as both sides like; what bounds it is the
        // provider's idle timeout.
        session.set_read_timeout(None);
    }
    if session.req_header().version == http::Version::HTTP_10 {
        // It knows no chunks: the end of the connection is the end of the answer.
        session.set_keepalive(None);
    }
    own_headers(response, ctx)?;
    if ctx.directives.usage {
        told::begins(session, response, ctx);
    }
    ctx.begins(response);
    cork::answer(session);
    Ok(())
}

/// A piece of the body goes to the client.
pub fn body_leaves(piece: Option<&Bytes>, ctx: &mut Context) {
    piece.into_iter().for_each(|piece| ctx.gives(piece));
}

/// The length that an answer's head tells, in bytes.
pub fn told_length(head: &ResponseHeader) -> Option<u64> {
    let length = head.headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.trim().parse().ok()
}

/// Whether the client has all of its answer: then it may leave, though the request is not over yet.
pub fn is_given(session: &Session, ctx: &Context) -> bool {
    let told = session.response_written().and_then(told_length);
    let length = told.or_else(|| caching::recorded_length(ctx));
    length.is_some_and(|length| session.body_bytes_sent() as u64 >= length)
}

fn select_subprotocol(
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &Context,
) -> pingora_core::Result<()> {
    let provider = ctx.provider.as_ref().map(|mounted| &*mounted.provider);
    let offer = provider.and_then(|provider| attempt::credential_offer(session, provider));
    match offer {
        Some(offer) if !response.headers.contains_key(attempt::SUBPROTOCOL) => {
            response.insert_header(attempt::SUBPROTOCOL, offer)
        }
        _ => Ok(()),
    }
}

/// Removes what speaks of the connection to the provider only (RFC 9110, 7.6.1; the framing
/// and `Connection` itself are Pingora's), and what an upstream that is a gateway too says of
/// itself: it does not speak for this one.
fn remove_what_is_not_for_the_client(response: &mut ResponseHeader) {
    let not_theirs = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with(PREFIX)
            || matches!(
                name,
                "keep-alive" | "proxy-connection" | "tollgate-error-source"
            )
    };
    let mut removed: Vec<HeaderName> = response
        .headers
        .keys()
        .filter(not_theirs)
        .cloned()
        .collect();
    for value in response.headers.get_all(CONNECTION) {
        if !matches!(value.as_bytes(), b"keep-alive" | b"close") {
            removed.extend(nominated(value, response.status.as_u16() == 101));
        }
    }
    for name in removed {
        response.remove_header(&name);
    }
}

/// The headers that a `Connection` header names, but for what makes the upgrade and the framing.
fn nominated(connection: &HeaderValue, switching: bool) -> impl Iterator<Item = HeaderName> {
    let names = connection.to_str().unwrap_or_default().split(',');
    names
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .filter(move |name| !(switching && *name == UPGRADE))
        .filter(|name| *name != TRANSFER_ENCODING && *name != CONTENT_LENGTH)
}

/// The headers by which a client can name its request (contract of Cloudflare AI Gateway,
/// response headers). An upstream that is a gateway too does not get to set them.
pub fn own_headers(response: &mut ResponseHeader, ctx: &Context) -> pingora_core::Result<()> {
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = ctx.id.hyphenated().encode_lower(&mut buffer);
    // Shared by the three headers that carry it.
    let id = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(id.as_bytes()))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    let event_id = ctx.directives.event_id.as_ref().unwrap_or(&id);
    response.insert_header(EVENT_ID, event_id.clone())?;
    response.insert_header(REQUEST_ID, id.clone())?;
    response.insert_header(LOG_ID, id)?;
    let step = match ctx.place() {
        0 => HeaderValue::from_static("0"), // nearly always
        step => HeaderValue::from(step),
    };
    response.insert_header(STEP, step)?;
    if let Some(mounted) = &ctx.provider {
        response.insert_header(PROVIDER, mounted.provider.name.clone())?;
    }
    cache_headers(response, ctx)?;
    limiting::tell(response, ctx)?;
    if ctx.directives.trace {
        response.insert_header(TRACE, trace(ctx))?;
    }
    // A model's name that cannot stand in a header is left out.
    let model = ctx
        .model()
        .map(|model| HeaderValue::from_bytes(model.as_bytes()));
    if let Some(Ok(model)) = model {
        response.insert_header(MODEL, model)?;
    }
    Ok(())
}

/// All attempts in order: what the record tells of those that failed, and the status and the time
/// to the head of the one that answered.
fn trace(ctx: &Context) -> String {
    let mut trace = record::trace(&ctx.tried);
    if let (Some(head), Some(started)) = (ctx.answer.head, ctx.attempt.started) {
        let target = ctx.planned.as_ref().and_then(|planned| planned.target());
        let label = target
            .map(|target| target.label() + ":")
            .unwrap_or_default();
        let took = head.saturating_duration_since(started).as_millis();
        let comma = if trace.is_empty() { "" } else { "," };
        trace += &format!("{comma}{label}{}:{took}ms", ctx.answer.status);
    }
    trace
}

/// `HIT` for every answer that this request did not ask the provider for. Absent where caching
/// is off.
fn cache_headers(response: &mut ResponseHeader, ctx: &Context) -> pingora_core::Result<()> {
    let Some(status) = ctx.cache.status else {
        return Ok(());
    };
    let status = match status {
        CacheStatus::Hit | CacheStatus::Stale | CacheStatus::Coalesced => "HIT",
        CacheStatus::Miss | CacheStatus::Bypass | CacheStatus::Refresh => "MISS",
    };
    response.insert_header(CACHE_STATUS, HeaderValue::from_static(status))?;
    let caching = ctx.caching.as_ref();
    if let Some(age) = caching.and_then(|caching| caching.age) {
        response.insert_header(AGE, age.as_secs())?;
    }
    if let Some(note) = caching.and_then(|caching| caching.note.clone()) {
        response.insert_header(CACHE_NOTE, note)?;
    }
    Ok(())
}
