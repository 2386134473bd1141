//! What becomes of the answer to a request that asks for others too: recorded and kept, shared
//! with those who wait, or its own client's only.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_ENCODING, HeaderValue};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{Role, chance, policy, request_key, take_lead};
use crate::cache::entry::Facts;
use crate::cache::flight::{Bounds, Lead, Reader, Recorded, Recording};
use crate::cache::key::{Key, accepts};
use crate::cache::policy::{self as rules, Verdict};
use crate::cache::store::Made;
use crate::error::{Failure, Kind};
use crate::proxy::context::Context;
use crate::proxy::response::told_length;
use crate::proxy::{Door, serve};
use crate::routing::patience;
use crate::usage::Heard;

/// Receives an answer that came whole and is to be stored.
pub type Keep = Box<dyn FnOnce(Recorded) + Send + Sync>;

/// A recording that begins.
pub struct Started {
    /// Takes the answer in.
    pub recording: Recording,
    /// Stores it when it has come whole; none where it is only shared.
    pub keep: Option<Keep>,
    /// Reads it for the client that asked.
    pub reader: Reader,
    /// The length that was told, in bytes, where the end comes apart from the last byte (HTTP/2).
    pub told: Option<u64>,
}

/// Begins to record the answer whose head is there, for whomever; none where it is its own client's
/// only.
pub fn record(
    door: &Door,
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut Context,
) -> Option<Started> {
    let lead = take_lead(ctx)?;
    let verdict = Verdict::of(response.status.as_u16(), policy(ctx).shared);
    if !is_accepted(response, ctx) {
        // The others do not accept it either; perhaps the next answer comes as it should.
        return None;
    }
    match verdict {
        Verdict::Answer if is_too_large(response, ctx) => share(door, session, response, ctx, lead),
        Verdict::Answer => start(door, session, response, ctx, lead, can_be_kept(response)),
        Verdict::Blame => share(door, session, response, ctx, lead),
        Verdict::Transient => {
            let status = response.status.as_u16();
            let asked = patience::asked(status, &response.headers, SystemTime::now());
            let delay = rules::delay(lead.turn(), asked, chance());
            match delay.filter(|_| !lead.is_last()) {
                None => share(door, session, response, ctx, lead),
                Some(delay) => {
                    lead.stand_down(delay, &Failure::new(Kind::UpstreamCut));
                    None
                }
            }
        }
    }
}

/// Whether the client accepts the encoding in which the answer came: not every provider asks.
fn is_accepted(response: &ResponseHeader, ctx: &Context) -> bool {
    let encoding = response.headers.get(CONTENT_ENCODING);
    ctx.caching
        .as_ref()
        .is_some_and(|caching| accepts(&caching.encodings, encoding.map(HeaderValue::as_bytes)))
}

/// Whether it says that it is larger than what is kept.
fn is_too_large(response: &ResponseHeader, ctx: &Context) -> bool {
    told_length(response).is_some_and(|length| length > policy(ctx).max_body)
}

/// An answer that is none yet (202), has no body or only a part of it is passed on but not
/// kept; so is one whose end cannot be told from a break (RFC 9112, 6.3).
fn can_be_kept(response: &ResponseHeader) -> bool {
    let told = |name| response.headers.contains_key(name);
    if !matches!(response.status.as_u16(), 200 | 201 | 203) {
        return false;
    }
    let varies = response.headers.get_all(http::header::VARY);
    if varies.iter().any(|value| value.as_bytes() == b"*") {
        return false;
    }
    response.version == http::Version::HTTP_2
        || told(http::header::CONTENT_LENGTH)
        || told(http::header::TRANSFER_ENCODING)
}

/// Given to all who wait, and to nobody later.
fn share(
    door: &Door,
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut Context,
    lead: Lead,
) -> Option<Started> {
    match lead.listener().has_company() {
        true => start(door, session, response, ctx, lead, false),
        false => None,
    }
}

fn start(
    door: &Door,
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut Context,
    lead: Lead,
    keep: bool,
) -> Option<Started> {
    let listener = Arc::clone(lead.listener());
    let bounds = Bounds {
        whole: policy(ctx).max_body,
        process: ctx.snapshot.limits.max_buffered,
    };
    let made = keep.then(|| made(session, ctx)).flatten();
    if let (Some(made), Some(observer)) = (&made, &mut ctx.answer.observer) {
        observer.share(Arc::clone(&made.heard));
    }
    let mut head = serve::head_for_others(response, keep);
    head.answerer = answerer(ctx);
    let recording = lead.open(head, bounds, door.memory.reserve_nothing());
    let cache = Arc::clone(&door.cache);
    let keep = made.map(|made| -> Keep { Box::new(move |recorded| cache.keep(made, recorded)) });
    let ends_apart = response.version == http::Version::HTTP_2;
    let started = Started {
        recording,
        keep,
        reader: listener.reader(),
        told: told_length(response).filter(|_| ends_apart),
    };
    if let Some(caching) = &mut ctx.caching {
        caching.role = Role::Recording(listener);
    }
    Some(started)
}

fn is_fallback(ctx: &Context) -> bool {
    let planned = ctx.planned.as_ref();
    planned.is_some_and(|planned| planned.is_fallback())
}

/// Who answers in the place of the target that was asked for.
fn answerer(ctx: &Context) -> Option<(Box<str>, Option<Box<str>>)> {
    let provider = ctx.provider.as_ref().filter(|_| is_fallback(ctx))?;
    Some((provider.provider.slug.clone(), ctx.model().map(Into::into)))
}

/// The keys under which the answer is stored. A fallback's is another model's: it is stored under
/// its own target's key, and under that of the one that was asked for only where the gateway says
/// so.
fn keys(session: &Session, ctx: &Context) -> Option<(Key, Option<Key>)> {
    let asked = ctx.caching.as_ref()?.key;
    if !is_fallback(ctx) {
        return Some((asked, None));
    }
    let own = request_key::of_fallback(session, ctx);
    match policy(ctx).store_fallback {
        true => Some((asked, own)),
        false => Some((own?, None)),
    }
}

fn made(session: &Session, ctx: &Context) -> Option<Made> {
    let (key, also) = keys(session, ctx)?;
    let caching = ctx.caching.as_ref()?;
    let gateway = ctx.gateway.as_ref()?;
    Some(Made {
        also,
        facts: Facts {
            key: *key.as_bytes(),
            scope: gateway.label.clone(),
            provider: ctx.provider.as_ref()?.provider.slug.clone(),
            model: ctx.model().map(Into::into),
            tags: ctx.directives.cache.tags.clone(),
            custom_key: ctx.directives.cache.key.clone(),
            begun: caching.begun,
            ttl: caching.ttl,
            log_id: ctx.id,
        },
        format: ctx.route.as_ref()?.format,
        paced: gateway.cache.replay == rules::Replay::Paced,
        heard: Heard::default(),
    })
}
