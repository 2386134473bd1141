//! What comes back: watched as it passes, never changed but for the gateway's own headers.

use std::sync::OnceLock;
use std::time::Instant;

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::directives::PREFIX;
use crate::error::{Failure, Kind};
use crate::record::Source;
use crate::wire::{Framing, Watch};

use super::context::Context;

/// Who made an error, for every answer that is one.
pub const ERROR_SOURCE: HeaderName = HeaderName::from_static("tollgate-error-source");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const LOG_ID: HeaderName = HeaderName::from_static("cf-aig-log-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("cf-aig-request-id");
const EVENT_ID: HeaderName = HeaderName::from_static("cf-aig-event-id");
const STEP: HeaderName = HeaderName::from_static("cf-aig-step");
const PROVIDER: HeaderName = HeaderName::from_static("cf-aig-provider");
const MODEL: HeaderName = HeaderName::from_static("cf-aig-model");

/// The provider's head is there.
pub fn head_arrived(session: &Session, response: &ResponseHeader, ctx: &mut Context) {
    let upgraded = response.status.as_u16() == 101;
    if response.status.is_informational() && !upgraded {
        return;
    }
    ctx.answer.head = Some(Instant::now());
    ctx.answer.status = response.status.as_u16();
    let header = |name| response.headers.get(name).map(HeaderValue::as_bytes);
    let framing = Framing::of(header(CONTENT_TYPE), header(CONTENT_ENCODING));
    ctx.answer.streamed = upgraded || framing != Framing::Other;
    // A declared length leaves no room for a word of ours.
    let room = header(CONTENT_LENGTH).is_none()
        && !upgraded
        && session.req_header().method != http::Method::HEAD;
    ctx.watch(if room { framing } else { Framing::Other });
}

/// A piece of the provider's body is there. A stream of events that ends before its first
/// byte was broken off, whatever its framing says.
pub fn body_arrived(
    piece: Option<&[u8]>,
    end_of_stream: bool,
    ctx: &mut Context,
) -> Result<(), Failure> {
    let piece = piece.unwrap_or_default();
    if piece.is_empty() && !end_of_stream {
        return Ok(());
    }
    let now = Instant::now();
    ctx.answer.last_byte = Some(now);
    let watch = ctx
        .answer
        .watch
        .as_mut()
        .filter(|watch| !matches!(watch, Watch::Other));
    if !piece.is_empty() {
        ctx.answer.first_byte.get_or_insert(now);
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
    ctx: &Context,
) -> pingora_core::Result<()> {
    if response.status.is_informational() && response.status.as_u16() != 101 {
        return Ok(());
    }
    remove_hop_by_hop(response);
    // An upstream that is a gateway too does not speak for this one.
    let theirs: Vec<_> = response
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX))
        .cloned()
        .collect();
    for name in theirs {
        response.remove_header(&name);
    }
    response.remove_header(&ERROR_SOURCE);
    if response.status.as_u16() >= 400 {
        response.insert_header(ERROR_SOURCE, Source::Provider.name())?;
    }
    if session.req_header().version == http::Version::HTTP_10 {
        // It knows no chunks: the end of the connection is the end of the answer.
        response.remove_header(&TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
    own_headers(response, ctx)
}

/// Removes what speaks of the connection to the provider only (RFC 9110, 7.6.1). The framing
/// and `Connection` itself are Pingora's.
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    let switching = response.status.as_u16() == 101;
    let nominated: Vec<_> = response
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .filter(|name| {
            !(switching && *name == UPGRADE)
                && *name != TRANSFER_ENCODING
                && *name != CONTENT_LENGTH
        })
        .collect();
    for name in nominated.iter().chain(&[KEEP_ALIVE, PROXY_CONNECTION]) {
        response.remove_header(name);
    }
}

/// The headers by which a client can name its request (contract of Cloudflare AI Gateway,
/// response headers). An upstream that is a gateway too does not get to set them.
pub fn own_headers(response: &mut ResponseHeader, ctx: &Context) -> pingora_core::Result<()> {
    static ZERO: OnceLock<HeaderValue> = OnceLock::new();
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = HeaderValue::from_str(ctx.id.hyphenated().encode_lower(&mut buffer))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    response.insert_header(EVENT_ID, ctx.directives.event_id.as_ref().unwrap_or(&id))?;
    response.insert_header(REQUEST_ID, &id)?;
    response.insert_header(LOG_ID, id)?;
    response.insert_header(STEP, ZERO.get_or_init(|| HeaderValue::from_static("0")))?;
    match &ctx.provider {
        Some(mounted) => response.insert_header(PROVIDER, &*mounted.provider.slug)?,
        None => drop(response.remove_header(&PROVIDER)),
    }
    // A model's name that cannot stand in a header is left out.
    match ctx
        .model()
        .and_then(|model| HeaderValue::from_bytes(model.as_bytes()).ok())
    {
        Some(model) => response.insert_header(MODEL, model)?,
        None => drop(response.remove_header(&MODEL)),
    }
    Ok(())
}
