//! How a request meets the cache: answered from it, waiting with others for one answer, or
//! asking the provider and recording what it says.

mod recording;
mod request_key;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use pingora_proxy::Session;

use crate::cache::canonical;
use crate::cache::entry::Entry;
use crate::cache::flight::{Follower, Lead, Listener, Seat, Turn};
use crate::cache::key::{Key, accepts, encodings as normalised_encodings};
use crate::cache::policy::{self, Freshness, Policy, Terms};
use crate::cache::tiers::Tier;
use crate::config::schema::Auth;
use crate::error::{Failure, Kind};
use crate::record::{AnsweredFrom, CacheStatus, Fault, Source};

use super::context::{Body, Context, Spend};
use super::settle::{Asked, Unsettled};
use super::{Door, attempt, cancel, planning, serve, subrequest};

pub use recording::{Keep, Started, record};
pub use request_key::read;

/// What happens after a request has met the cache.
pub enum Next {
    /// It goes to the provider.
    Forward,
    /// It has its answer.
    Answered,
}

/// How a request meets the cache.
pub struct Caching {
    key: Key,
    ttl: Duration,
    /// Codings that the client accepts, normalised.
    encodings: String,
    /// When the request began, by the clock of purges.
    begun: u64,
    /// What the client should know about its wishes.
    pub note: Option<HeaderValue>,
    role: Role,
    /// A stored answer that may be given if the provider fails.
    stale: Option<(Arc<Entry>, AnsweredFrom)>,
    /// Age of the answer that was served.
    pub age: Option<Duration>,
}

/// What a request does for others who ask the same.
enum Role {
    /// Nothing.
    Alone,
    /// It asks the provider.
    Leading(Lead),
    /// The provider answers, and the answer is recorded.
    Recording(Arc<Listener>),
}

/// Whether a request may be answered from the cache, as far as its head tells. Its body must
/// be held then, because the key is made of it.
pub fn terms(session: &Session, ctx: &Context) -> Terms {
    let (Some(gateway), Some(route)) = (&ctx.gateway, &ctx.route) else {
        return Terms::Off;
    };
    let terms = Terms::of(&gateway.cache, &ctx.directives.cache);
    if terms == Terms::Off {
        return Terms::Off;
    }
    let head = session.req_header();
    let asks = head.method == http::Method::POST
        && policy::is_cacheable(&route.target.path_and_query)
        && !is_multipart(&head.headers)
        && !attempt::is_websocket(session);
    match asks && (gateway.cache.shared || !is_signed(ctx, &head.headers)) {
        true => terms,
        false => Terms::Off,
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with(b"multipart/"))
}

/// A signature proves who sends a request only to the provider: an answer given without asking
/// it would be given to whoever names somebody else's key.
fn is_signed(ctx: &Context, headers: &HeaderMap) -> bool {
    let (Some(route), Some(mounted)) = (&ctx.route, &ctx.provider) else {
        return false;
    };
    let auth = &mounted.provider.keyring(&route.target).auth;
    let query = route.target.path_and_query.contains("X-Amz-Signature=");
    let signed = headers
        .get(AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().starts_with(b"AWS4-"));
    matches!(auth, Auth::AwsSigv4 { .. })
        && matches!(route.spend, Spend::AsSent)
        && (query || signed)
}

/// Answers a request whose body is held from the cache, or lets it wait for another that asks
/// the same, or makes it the one that asks.
pub async fn meet(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    terms: Terms,
) -> Result<Next, Failure> {
    let Terms::On { ttl, note } = terms else {
        ctx.cache.status = (terms == Terms::Bypass).then_some(CacheStatus::Bypass);
        return Ok(Next::Forward);
    };
    let Some(caching) = caching(door, session, ctx, ttl, note) else {
        return Ok(Next::Forward);
    };
    let key = caching.key;
    ctx.cache.key = Some(key);
    ctx.caching = Some(Box::new(caching));
    let in_memory = AnsweredFrom::Stored(Tier::Memory);
    if let Some(entry) = door.cache.memory(&key)
        && let Some(status) = may_be_given(ctx, &entry, in_memory)
    {
        give_stored(door, session, ctx, &entry, in_memory, status).await?;
        return Ok(Next::Answered);
    }
    match door.cache.flights.join(key, policy(ctx).when_alone) {
        Seat::Lead(lead) => look_further(door, session, ctx, lead).await,
        Seat::Follow(follower) => follow(door, session, ctx, follower).await,
    }
}

fn policy(ctx: &Context) -> &Policy {
    // Only requests that have a gateway meet the cache.
    static NONE: std::sync::OnceLock<Policy> = std::sync::OnceLock::new();
    let gateway = ctx.gateway.as_ref();
    gateway.map_or_else(
        || NONE.get_or_init(Policy::default),
        |gateway| &gateway.cache,
    )
}

/// The request's key, and its terms. `None` when its body says that the answer is none to keep.
fn caching(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    ttl: Duration,
    note: Option<String>,
) -> Option<Caching> {
    let begun = door.cache.now();
    let digest = match &mut ctx.body {
        Body::Held { read, .. } => read.take()?,
        Body::Unread | Body::Streaming { .. } => return None,
    };
    // What is no JSON does not tell whether it asks for a stream, which a key of the client's
    // own must not hide.
    let hidden = ctx.directives.cache.key.is_some() && !digest.canonical;
    if digest.changes_state || hidden {
        return None;
    }
    let headers = &session.req_header().headers;
    let encodings = normalised_encodings(
        headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .map(HeaderValue::as_bytes),
    );
    let key = request_key::of(session, ctx, &digest, &encodings)?;
    Some(Caching {
        key,
        ttl,
        encodings,
        begun,
        note: note.and_then(|note| HeaderValue::from_str(&note).ok()),
        role: Role::Alone,
        stale: None,
        age: None,
    })
}

/// As what a stored answer may be given to this request. One that may only stand in for a
/// provider that fails is remembered.
fn may_be_given(ctx: &mut Context, entry: &Arc<Entry>, from: AnsweredFrom) -> Option<CacheStatus> {
    let encoding = entry.header("content-encoding").map(HeaderValue::as_bytes);
    let age = entry.age(SystemTime::now());
    let freshness = Freshness::of(policy(ctx), age, entry.facts.ttl);
    let caching = ctx.caching.as_mut()?;
    if !accepts(&caching.encodings, encoding) {
        return None;
    }
    match freshness {
        Freshness::Fresh => Some(CacheStatus::Hit),
        Freshness::Revalidate => Some(CacheStatus::Stale),
        Freshness::IfError => {
            caching.stale = Some((Arc::clone(entry), from));
            None
        }
        Freshness::Gone => None,
    }
}

/// Gives a stored answer; one past its time is fetched anew meanwhile.
async fn give_stored(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    entry: &Arc<Entry>,
    from: AnsweredFrom,
    status: CacheStatus,
) -> Result<(), Failure> {
    if status == CacheStatus::Stale {
        revalidate(door, session, ctx);
    }
    give(session, ctx, entry, from, status).await
}

/// Gives a stored answer.
async fn give(
    session: &mut Session,
    ctx: &mut Context,
    entry: &Arc<Entry>,
    from: AnsweredFrom,
    status: CacheStatus,
) -> Result<(), Failure> {
    ctx.cache.status = Some(status);
    ctx.cache.from = Some(from);
    ctx.cache.source = Some(entry.facts.log_id);
    ctx.cache.told = entry.told.clone();
    planning::was_answered_by(ctx, &entry.facts.provider, entry.facts.model.as_deref());
    if let Some(caching) = &mut ctx.caching {
        caching.age = Some(entry.age(SystemTime::now()));
    }
    serve::entry(session, ctx, entry).await
}

/// Fetches an answer anew while the old one is given, unless somebody does already.
fn revalidate(door: &Door, session: &mut Session, ctx: &Context) {
    let Some(caching) = &ctx.caching else { return };
    let Seat::Lead(lead) = door.cache.flights.join(caching.key, policy(ctx).when_alone) else {
        return;
    };
    let Some(mut refresh) = ctx.again(door) else {
        return;
    };
    refresh.unsettled = Some(Box::new(Unsettled {
        ledger: Arc::clone(&door.ledger),
        asked: Asked::of(session, ctx),
    }));
    refresh.cache.status = Some(CacheStatus::Refresh);
    refresh.cache.key = Some(caching.key);
    refresh.caching = Some(Box::new(Caching {
        key: caching.key,
        ttl: caching.ttl,
        encodings: caching.encodings.clone(),
        begun: caching.begun,
        note: None,
        role: Role::Leading(lead),
        stale: None,
        age: None,
    }));
    subrequest::run_in_background(door, session, refresh);
}

/// Nobody asks the same, and memory has no answer: perhaps the disk has. Who comes meanwhile
/// waits for this request.
async fn look_further(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    lead: Lead,
) -> Result<Next, Failure> {
    let key = *lead.key();
    // An answer may have landed between the look and the join.
    let landed = door
        .cache
        .memory(&key)
        .map(|entry| (entry, AnsweredFrom::Stored(Tier::Memory)));
    let found = match landed {
        None if may_be_on_disk(ctx) => {
            let entry = door.cache.disk(&key).await;
            entry.map(|entry| (entry, AnsweredFrom::Stored(Tier::Disk)))
        }
        landed => landed,
    };
    if let Some((entry, from)) = found
        && let Some(status) = may_be_given(ctx, &entry, from)
    {
        // Who has joined meanwhile does not wait for this client to take it.
        lead.found(Arc::clone(&entry));
        give_stored(door, session, ctx, &entry, from, status).await?;
        return Ok(Next::Answered);
    }
    ask(door, session, ctx, lead);
    Ok(Next::Forward)
}

/// An answer that was found in memory past its time is not on disk in a newer form.
fn may_be_on_disk(ctx: &Context) -> bool {
    ctx.caching
        .as_ref()
        .is_some_and(|caching| caching.stale.is_none())
}

/// This request asks the provider, for all who ask the same.
fn ask(door: &Door, session: &Session, ctx: &mut Context, lead: Lead) {
    ctx.cache.status = Some(CacheStatus::Miss);
    ctx.cache.differs_at = differs_at(door, session, ctx);
    ctx.unsettled = Some(Box::new(Unsettled {
        ledger: Arc::clone(&door.ledger),
        asked: Asked::of(session, ctx),
    }));
    if let Some(caching) = &mut ctx.caching {
        caching.role = Role::Leading(lead);
    }
    watch_over(ctx);
}

/// The call can be ended when nobody wants its answer any more. Said again in a subrequest,
/// which is a future of its own.
pub fn watch_over(ctx: &Context) {
    let role = ctx.caching.as_ref().map(|caching| &caching.role);
    if let (Some(Role::Leading(lead)), Some(switch)) = (role, cancel::current()) {
        lead.cancel_with(switch);
    }
}

/// Where the body differs from one that looked the same before.
fn differs_at(door: &Door, session: &Session, ctx: &Context) -> Option<Box<str>> {
    let Body::Held { bytes, .. } = &ctx.body else {
        return None;
    };
    // A key that the client chose does not depend on the body.
    if ctx.directives.cache.key.is_some() {
        return None;
    }
    let tenant = || request_key::of(session, ctx, &canonical::Body::default(), "");
    door.cache.differs_at(tenant, bytes, SystemTime::now())
}

/// Waits for the one that asks the same.
async fn follow(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    mut follower: Follower,
) -> Result<Next, Failure> {
    let turn = tokio::select! {
        biased;
        turn = follower.turn() => turn,
        gone = serve::client_left(session) => return Err(gone),
    };
    match turn {
        Turn::Read(reader) => {
            ctx.cache.status = Some(CacheStatus::Coalesced);
            ctx.cache.from = Some(AnsweredFrom::Flight);
            serve::live(session, ctx, reader).await?;
            Ok(Next::Answered)
        }
        Turn::Found(entry) => {
            give(
                session,
                ctx,
                &entry,
                AnsweredFrom::Flight,
                CacheStatus::Coalesced,
            )
            .await?;
            Ok(Next::Answered)
        }
        Turn::Failed(failure) => match stand_in(door, session, ctx, &failure).await {
            Some(given) => given.map(|()| Next::Answered),
            None => {
                ctx.cache.status = Some(CacheStatus::Coalesced);
                Err(failure)
            }
        },
        Turn::Lead(lead) => {
            let wait = lead.not_before().saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                tokio::select! {
                    () = pingora_timeout::sleep(wait) => {}
                    gone = serve::client_left(session) => return Err(gone),
                }
            }
            ask(door, session, ctx, lead);
            Ok(Next::Forward)
        }
    }
}

/// Spreads those who try next; nothing depends on it being hard to guess.
pub fn chance() -> f64 {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    f64::from(random) / f64::from(u32::MAX)
}

fn take_lead(ctx: &mut Context) -> Option<Lead> {
    let caching = ctx.caching.as_mut()?;
    match std::mem::replace(&mut caching.role, Role::Alone) {
        Role::Leading(lead) => Some(lead),
        other => {
            caching.role = other;
            None
        }
    }
}

/// Whether a stored answer stands in for a provider that answers with this status.
pub fn has_stand_in(door: &Door, ctx: &Context, status: u16) -> bool {
    let caching = ctx.caching.as_ref();
    let stale = caching.and_then(|caching| caching.stale.as_ref());
    let is_there = stale.is_some_and(|(entry, _)| !door.cache.is_purged(entry));
    is_there && (status >= 500 || status == 429)
}

/// A request that asked the provider, or waited for one that did, failed before its answer
/// began. With a stored answer that may stand in, its client and all who wait get that; the
/// record tells for what.
pub async fn stand_in(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    failure: &Failure,
) -> Option<Result<(), Failure>> {
    if failure.kind.source() != Source::Provider {
        return None;
    }
    let (entry, from) = ctx.caching.as_mut()?.stale.take()?;
    if door.cache.is_purged(&entry) {
        return None;
    }
    if let Some(lead) = take_lead(ctx) {
        lead.found(Arc::clone(&entry));
    }
    // The provider's status, if it has answered, says more.
    ctx.cache
        .stood_in_for
        .get_or_insert_with(|| Fault::Failure(failure.clone()));
    Some(give(session, ctx, &entry, from, CacheStatus::Stale).await)
}

/// A request that asked the provider failed: what becomes of those who wait.
pub fn failed(ctx: &mut Context, failure: &Failure) {
    let Some(lead) = take_lead(ctx) else { return };
    match failure.kind {
        // Its own fault, or its client's: dropped, the place is free for the next.
        Kind::ClientGone | Kind::ClientTimeout | Kind::Overloaded | Kind::Internal => drop(lead),
        // Others may have more left.
        Kind::RateLimited | Kind::SpendLimited | Kind::Denied => drop(lead),
        kind if kind.source() == Source::Provider => {
            let delay = policy::delay(lead.turn(), None, chance()).unwrap_or_default();
            lead.stand_down(delay, failure);
        }
        _ => lead.fail(failure.clone()),
    }
}

/// Whether the request asks the provider for all who ask the same.
pub fn is_leading(ctx: &Context) -> bool {
    let role = ctx.caching.as_ref().map(|caching| &caching.role);
    matches!(role, Some(Role::Leading(_)))
}

/// The length of a recorded answer that has come whole.
pub fn recorded_length(ctx: &Context) -> Option<u64> {
    match ctx.caching.as_ref().map(|caching| &caching.role) {
        Some(Role::Recording(listener)) => listener.whole_length(),
        _ => None,
    }
}

/// The client of a request that is being recorded has left.
pub fn client_left(ctx: &Context) {
    match ctx.caching.as_ref().map(|caching| &caching.role) {
        Some(Role::Leading(lead)) => lead.listener().leave(),
        Some(Role::Recording(listener)) => listener.leave(),
        _ => {}
    }
}

/// Whether the client left while the answer went on being recorded.
pub fn has_lost_its_client(ctx: &Context) -> bool {
    match ctx.caching.as_ref().map(|caching| &caching.role) {
        Some(Role::Leading(lead)) => lead.listener().has_left(),
        Some(Role::Recording(listener)) => listener.has_left(),
        _ => false,
    }
}

/// What has come of a recorded answer and has not been given to the client yet.
pub fn not_yet_given(ctx: &Context) -> Vec<bytes::Bytes> {
    match ctx.caching.as_ref().map(|caching| &caching.role) {
        Some(Role::Recording(listener)) => {
            let mut reader = listener.reader();
            std::iter::from_fn(|| reader.arrived()).collect()
        }
        _ => Vec::new(),
    }
}
