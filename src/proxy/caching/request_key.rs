//! The key of a request, out of its head, its held body, and what the deployment sets itself.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, ORIGIN};
use pingora_proxy::Session;

use super::policy;
use crate::cache::canonical::{self, Pointers};
use crate::cache::key::{Content, Identity, Key, KeyParts};
use crate::cache::recent::Recent;
use crate::call::ModelScan;
use crate::limits::worst::{Judge, Worst};
use crate::proxy::context::{Body, Context, Spend};
use crate::proxy::{budgeting, permitting};
use crate::wire;

/// Bodies over this many bytes are digested on another thread.
const LARGE: usize = 1 << 20;

thread_local! {
    /// What this thread has digested, while its bodies are what its digests are of: without
    /// an `ignore`, which differs from gateway to gateway.
    static RECENT: RefCell<Recent> = RefCell::default();
}

/// Reads the held body, once for all who want to know something of it: the cache its digest, rules
/// its models, both rules and budgets what it can take at most. A large one is read beside the
/// requests: it takes milliseconds.
pub async fn read(ctx: &mut Context) {
    let (Some(gateway), Some(route)) = (&ctx.gateway, &ctx.route) else {
        return;
    };
    let (gateway, format) = (Arc::clone(gateway), route.format);
    let judged = budgeting::reads_body(ctx) || permitting::reads_body(ctx);
    let judge = judged.then(|| Judge::new(format));
    let Body::Held {
        bytes,
        model,
        read,
        worst,
        ..
    } = &mut ctx.body
    else {
        return;
    };
    let (body, judge) = (bytes.clone(), judge.flatten());
    let (digest, most) = if bytes.len() <= LARGE {
        recent(&body, &gateway.cache.ignore, judge)
    } else {
        let reading = move || reading(&body, &gateway.cache.ignore, judge);
        match tokio::task::spawn_blocking(reading).await {
            Ok(read) => read,
            // It does not panic; if it did, the request would not be cached.
            Err(_) => return,
        }
    };
    match &digest.model {
        Some(named) => *model = Some(named.clone()),
        // What is not read as JSON may name one all the same.
        None if !digest.canonical && model.is_none() => *model = ModelScan::default().of(bytes),
        None => {}
    }
    *worst = most.map(|most| (format, most));
    *read = Some(digest);
}

/// [`reading`], unless this thread has read the same before.
fn recent(
    body: &Bytes,
    ignore: &Pointers,
    judge: Option<Judge>,
) -> (canonical::Body, Option<Worst>) {
    if !ignore.is_empty() {
        return reading(body, ignore, judge);
    }
    let mut worst = None;
    let made = || {
        let (digest, most) = reading(body, ignore, judge);
        worst = most;
        digest
    };
    let digest = RECENT.with_borrow_mut(|recent| recent.digest(body, made));
    (digest, worst)
}

/// The digest of a body, and with a judge what it can take at most, unless that takes a reading of
/// its own.
fn reading(
    body: &[u8],
    ignore: &Pointers,
    judge: Option<Judge>,
) -> (canonical::Body, Option<Worst>) {
    // A judge would not learn of what is ignored.
    let Some(mut judge) = judge.filter(|_| ignore.is_empty()) else {
        return (canonical::digest(body, ignore), None);
    };
    let digest = canonical::digest_for(body, ignore, Judge::TOP, &mut judge);
    let worst = digest.canonical.then(|| judge.worst(body));
    (digest, worst)
}

/// The key of a request whose body has been changed for another target than the first. `None`
/// where making it would take too long here.
pub fn of_fallback(session: &Session, ctx: &Context) -> Option<Key> {
    let (Body::Held { bytes, .. }, Some(gateway)) = (&ctx.body, &ctx.gateway) else {
        return None;
    };
    let small = bytes.len() <= LARGE;
    let digest = small.then(|| canonical::digest(bytes, &gateway.cache.ignore))?;
    of(session, ctx, &digest, &ctx.caching.as_ref()?.encodings)
}

/// The key of a request: everything that may change the answer, and who pays for it.
pub fn of(
    session: &Session,
    ctx: &Context,
    digest: &canonical::Body,
    encodings: &str,
) -> Option<Key> {
    let (gateway, route) = (ctx.gateway.as_ref()?, ctx.route.as_ref()?);
    let provider = &ctx.provider.as_ref()?.provider;
    let head = session.req_header();
    let model = route.model.as_deref().or(digest.model.as_deref());
    // A key of the client's own stands for the model too, but not for that of another target.
    let target = ctx.planned.as_ref().and_then(|planned| planned.target());
    let custom = ctx.directives.cache.key.as_ref().map(|key| match target {
        Some(target) => Cow::from(format!("{key}\n{}", target.model)),
        None => Cow::from(&**key),
    });
    let content = match &custom {
        Some(custom) => Content::Custom(custom),
        None => Content::Body {
            model,
            digest: &digest.digest,
        },
    };
    let answer_headers = answer_headers(ctx, &head.headers);
    let path_and_query = match gateway.cache.shared {
        true => {
            let places = &provider.keyring(&route.target).places;
            places.without_keys(&route.target.path_and_query)
        }
        false => Cow::from(&route.target.path_and_query),
    };
    let target = &route.target.origin;
    let scheme = if target.tls { "https://" } else { "http://" };
    let authority = target.authority.to_str().unwrap_or_default();
    // What a deployment sets on every request to the provider changes its answers too.
    let origin = [scheme, authority, " ", &provider.fingerprint];
    Some(Key::of(&KeyParts {
        account: &gateway.account,
        gateway: &gateway.id,
        identity: identity(ctx, &head.headers),
        provider: &provider.slug,
        method: head.method.as_str(),
        origin,
        path_and_query: &path_and_query,
        encodings,
        stream: digest.stream,
        headers: &answer_headers,
        content,
    }))
}

/// Who pays. Nobody is shown an answer that somebody else paid for.
fn identity<'a>(ctx: &'a Context, headers: &'a HeaderMap) -> Identity<'a> {
    let (Some(route), Some(mounted)) = (&ctx.route, &ctx.provider) else {
        return Identity::Anonymous;
    };
    if policy(ctx).shared {
        return Identity::Shared;
    }
    let keyring = mounted.provider.keyring(&route.target);
    if let (Spend::Pool, Some(alias)) = (&route.spend, &keyring.pool) {
        return Identity::Stored { alias };
    }
    if let Some(key) = ctx.stored_key() {
        return Identity::Stored {
            alias: &key.identity,
        };
    }
    match keyring.places.credentials(headers) {
        sent if sent.is_empty() => Identity::Anonymous,
        sent => Identity::Sent(sent),
    }
}

/// The request headers that change the answer.
fn answer_headers<'a>(ctx: &'a Context, headers: &'a HeaderMap) -> Vec<(&'a str, &'a [u8])> {
    let (Some(route), Some(mounted)) = (&ctx.route, &ctx.provider) else {
        return Vec::new();
    };
    // Providers answer browsers with the origin that asked.
    static ALWAYS: [HeaderName; 2] = [ACCEPT, ORIGIN];
    let own = mounted.provider.answer_headers.iter();
    let names = own.chain(wire::answer_headers(route.format)).chain(&ALWAYS);
    let mut found = Vec::new();
    for name in names {
        let values = headers.get_all(name).iter();
        found.extend(values.map(|value| (name.as_str(), value.as_bytes())));
    }
    found
}
