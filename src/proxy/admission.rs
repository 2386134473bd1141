//! From a request's head to the decision where it goes: a straight line of checks, each
//! of which can refuse.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use pingora_proxy::Session;

use crate::auth::Authentication;
use crate::cache::policy::Terms;
use crate::call;
use crate::config::schema::Auth;
use crate::credential::{OwnKey, ServiceAccount};
use crate::directives::Directives;
use crate::endpoint::{Endpoint, Unserved};
use crate::error::{Failure, Kind};
use crate::gateway::Gateway;
use crate::lifecycle::phase::{Phase, State};
use crate::lifecycle::threshold;
use crate::metadata;
use crate::provider::{Ask, Keyring, Provider, StoredKey};
use crate::wire;

use super::context::{Context, Route, Spend};
use super::planning::{COMPAT, Choice};
use super::{
    Door, attempt, authentication, body, caching, copied, hedge, limiting, planning, steps,
    subrequest, timed, told,
};

/// What happens after admission.
pub enum Next {
    /// The request goes to the provider.
    Forward,
    /// It has been answered: from the cache, or by a subrequest.
    Answered,
}

/// Takes the request in, and sets the connection's limits before anything is read from it.
pub fn prepare(session: &mut Session, ctx: &Context, phase: &Phase) {
    if let Some(http1) = session.as_http1() {
        threshold::cross(http1.stream());
    }
    let limits = &ctx.snapshot.limits;
    timed::give_read_timeout(session);
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_write_timeout(Some(limits.write_timeout));
    let keepalive =
        (phase.state() < State::HandingOver).then_some(limits.keepalive_timeout.as_secs());
    // A client that asked for `Connection: close` keeps its will.
    if keepalive.is_none() || session.get_keepalive().is_some() {
        session.set_keepalive(keepalive);
    }
}

/// Decides what happens to a request.
pub async fn admit(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<Next, Failure> {
    if ctx.is_subrequest {
        body::read_placeholder(session).await?;
        if ctx.step.is_none() {
            return Ok(Next::Forward);
        }
    } else {
        no_tunnel(session)?;
        head_size(session, ctx.snapshot.limits.max_header)?;
        unambiguous(session)?;
    }
    let target = request_target(session)?;
    if ctx.step.is_none() {
        ctx.path = target.split('?').next().unwrap_or("").into();
    }
    ctx.address = ctx.address.or_else(|| limiting::client(session));
    let endpoint = Endpoint::parse(target.as_bytes()).map_err(unserved)?;
    let gateway = gateway(ctx, &endpoint)?;
    ctx.gateway = Some(Arc::clone(&gateway));
    copied::by_policy(ctx);
    let keys = door.keys.table();
    let named = endpoint.provider;
    let without_token = authentication::pass(session, ctx, &gateway, &keys, named, &target)?;
    drop(keys);
    let endpoint = match &without_token {
        Some(target) => Endpoint::parse(target.as_bytes()).map_err(unserved)?,
        None => endpoint,
    };
    if endpoint.is_universal() {
        limiting::before_steps(door, ctx)?;
        let answered = Box::pin(steps::run(door, session, ctx)).await;
        return answered.map(|()| Next::Answered);
    }
    ctx.directives = Directives::parse(&session.req_header().headers)?;
    if let Some(given) = ctx.directives.metadata.take() {
        ctx.metadata = gateway.metadata.read(&given)?;
    }
    if let Some(consumer) = &ctx.consumer {
        metadata::put(&mut ctx.metadata, &consumer.metadata);
    }
    copied::begin(door, session, ctx);
    if endpoint.provider != COMPAT {
        native(session, ctx, &gateway, &endpoint)?;
    }
    limiting::head(door, ctx)?;
    let terms = caching::terms(session, ctx);
    match ctx.step {
        Some(_) => body::adopt(ctx),
        None => body::admit(door, session, ctx, matches!(terms, Terms::On { .. })).await?,
    }
    let terms = match planning::choose(door, session, ctx, &endpoint)? {
        Choice::AsNamed => terms,
        Choice::Chosen => caching::terms(session, ctx),
    };
    if matches!(terms, Terms::On { .. }) {
        caching::read(ctx).await;
    }
    limiting::target(door, session, ctx)?;
    // What only some requests do lies on the heap: it would make the state of all of them large.
    if terms != Terms::Off
        && let caching::Next::Answered = Box::pin(caching::meet(door, session, ctx, terms)).await?
    {
        return Ok(Next::Answered);
    }
    if let Some(planned) = &ctx.planned
        && planned.plan.hedge.is_some()
        && let Some(answered) = Box::pin(hedge::run(door, session, ctx)).await
    {
        return answered.map(|()| Next::Answered);
    }
    if told::needs_a_carrier(session, ctx) {
        let answered = Box::pin(subrequest::run(door, session, ctx)).await;
        return answered.map(|()| Next::Answered);
    }
    Ok(Next::Forward)
}

/// The provider that the URL names.
fn native(
    session: &Session,
    ctx: &mut Context,
    gateway: &Gateway,
    endpoint: &Endpoint<'_>,
) -> Result<(), Failure> {
    let mounted = gateway.providers.get(endpoint.provider).cloned();
    let mounted = mounted.ok_or_else(|| no_provider(endpoint.provider))?;
    ctx.provider = Some(Arc::clone(&mounted));
    ctx.route = Some(route(session, ctx, gateway, &mounted.provider, endpoint)?);
    Ok(())
}

/// `CONNECT` changes what follows the head, so nothing is read of it, nor after it.
fn no_tunnel(session: &mut Session) -> Result<(), Failure> {
    if session.req_header().method != http::Method::CONNECT {
        return Ok(());
    }
    session.set_keepalive(None);
    Err(Failure::new(Kind::MethodNotAllowed))
}

/// HTTP/1 heads are measured where they are read, before Pingora sees them.
fn head_size(session: &Session, most: usize) -> Result<(), Failure> {
    if session.as_http1().is_some() {
        return Ok(());
    }
    let head = session.req_header();
    let fields: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if fields + head.raw_path().len() > most {
        return Err(Failure::because(
            Kind::HeadTooLarge,
            format!("The request head is larger than the {most} bytes of server.max_header"),
        ));
    }
    Ok(())
}

/// Refuses what two servers could read differently (RFC 9112, 3.2 and 6.1 to 6.3). What
/// Pingora refuses before is not repeated: two hosts, two lengths, unknown transfer codings.
fn unambiguous(session: &mut Session) -> Result<(), Failure> {
    let Some(http1) = session.as_http1() else {
        return Ok(());
    };
    let head = http1.req_header();
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
    let codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let codings: Vec<_> = codings.map(HeaderValue::as_bytes).collect();
    let message = if host.is_none() && head.version == http::Version::HTTP_11 {
        "An HTTP/1.1 request must have a Host header"
    } else if host.is_some_and(|host| http::uri::Authority::try_from(host).is_err()) {
        "The Host header must be a host, or host:port"
    } else if !understood(&codings) {
        "The only transfer coding that is understood is chunked, once"
    } else if !codings.is_empty() && names_length(&http1.get_headers_raw_bytes()) {
        // Pingora has dropped the length already; only the bytes still show it.
        "A request must not have both Content-Length and Transfer-Encoding"
    } else {
        return Ok(());
    };
    session.set_keepalive(None);
    Err(Failure::because(Kind::BadRequest, message))
}

fn understood(codings: &[&[u8]]) -> bool {
    match codings {
        [] => true,
        [coding] => coding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Whether a line of a raw head is a `Content-Length` field.
fn names_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}

/// The target in origin form. In absolute form (RFC 9112, 3.2.2) scheme and authority go.
fn request_target(session: &Session) -> Result<String, Failure> {
    let raw = session.req_header().raw_path();
    let target = std::str::from_utf8(raw).map_err(|_| unserved(Unserved::Encoding))?;
    if target.starts_with('/') {
        return Ok(target.to_owned());
    }
    match target.split_once("://") {
        Some((scheme, rest)) if is_http(scheme) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let slash = if rest[end..].starts_with('/') {
                ""
            } else {
                "/"
            };
            Ok(format!("{slash}{}", &rest[end..]))
        }
        _ => Ok(target.to_owned()),
    }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

fn unserved(reason: Unserved) -> Failure {
    Failure::because(Kind::BadPath, reason.message())
}

fn gateway(ctx: &Context, endpoint: &Endpoint<'_>) -> Result<Arc<Gateway>, Failure> {
    let gateway = ctx
        .snapshot
        .gateway(endpoint.account, endpoint.gateway)
        .cloned();
    gateway.ok_or_else(|| {
        Failure::because(
            Kind::UnknownGateway,
            "Please configure AI Gateway: this account has no such gateway; gateways are configured under accounts.<account>.gateways",
        )
    })
}

/// No provider has this slug.
pub fn no_provider(slug: &str) -> Failure {
    let shown: String = slug
        .chars()
        .filter(|c| c.is_ascii_graphic())
        .take(64)
        .collect();
    Failure::because(
        Kind::UnknownProvider,
        format!(
            "No provider is called `{shown}`; providers of your own are called custom-<slug> and configured under providers"
        ),
    )
}

/// Where a request to `provider` goes, and how it pays.
pub fn route(
    session: &Session,
    ctx: &Context,
    gateway: &Gateway,
    provider: &Provider,
    endpoint: &Endpoint<'_>,
) -> Result<Route, Failure> {
    let headers = &session.req_header().headers;
    let target_header = provider
        .target_header
        .as_ref()
        .and_then(|header| headers.get(&header.name));
    let target = provider.target(&Ask {
        account: endpoint.account,
        path: endpoint.path,
        query: endpoint.query,
        upgrade: attempt::is_websocket(session),
        // What is not text is refused as the empty URL is.
        target_header: target_header.map(|value| value.to_str().unwrap_or("")),
    })?;
    Ok(Route {
        format: wire::format_of(&target.path_and_query, provider.format),
        model: call::model_in_path(&target.path_and_query).map(Into::into),
        spend: spend(
            session,
            ctx,
            gateway,
            provider,
            provider.keyring(&target),
            endpoint.query,
        )?,
        target,
    })
}

/// The key on the request goes before a stored one; a stored one is spent only where the
/// gateway says so.
fn spend(
    session: &Session,
    ctx: &Context,
    gateway: &Gateway,
    provider: &Provider,
    keyring: &Keyring,
    query: Option<&str>,
) -> Result<Spend, Failure> {
    let headers = &session.req_header().headers;
    let own = keyring.places.find(headers, query);
    if own == Some(OwnKey::Header(&AUTHORIZATION)) && keyring.auth == Auth::GoogleServiceAccount {
        return sent_account(headers);
    }
    if own.is_some() || has_subprotocol_key(session, provider, &gateway.authentication) {
        return Ok(Spend::AsSent);
    }
    if keyring.keys.is_empty() || !authentication::may_spend_stored_keys(gateway, ctx) {
        return without_a_key(gateway, provider, keyring);
    }
    default_key(keyring, ctx.directives.key_alias.as_deref())
}

/// Nothing pays: the provider may do without.
fn without_a_key(
    gateway: &Gateway,
    provider: &Provider,
    keyring: &Keyring,
) -> Result<Spend, Failure> {
    if !gateway.byok_only || keyring.auth == Auth::None {
        return Ok(Spend::AsSent);
    }
    let slug = &provider.slug;
    Err(Failure::because(
        Kind::UnknownKey,
        format!(
            "No key for {slug}: this gateway passes no request without one (byok_only). Bring a key, or have one stored (providers.{slug}.keys, or tollgate provider-keys set {slug}) and bring a token of the gateway"
        ),
    ))
}

/// The stored key of this alias; without one a key of the pool, or `default`.
pub fn default_key(keyring: &Keyring, alias: Option<&str>) -> Result<Spend, Failure> {
    match alias {
        None if keyring.pool.is_some() => pool(keyring),
        alias => stored_key(keyring, alias.unwrap_or("default")),
    }
}

/// The pool, unless all of it is unavailable: then nothing else pays in its place.
fn pool(keyring: &Keyring) -> Result<Spend, Failure> {
    let mut first = None;
    for key in keyring.keys.iter().filter(|key| key.weight > 0) {
        if key.credential.is_ok() {
            return Ok(Spend::Pool);
        }
        first = first.or(Some(key));
    }
    first.map_or(Ok(Spend::Pool), |key| Err(unavailable(key)))
}

fn stored_key(keyring: &Keyring, alias: &str) -> Result<Spend, Failure> {
    let mut named = keyring.keys.iter().enumerate();
    match named.find(|(_, key)| *key.alias == *alias) {
        Some((_, key)) if key.credential.is_err() => Err(unavailable(key)),
        Some((index, _)) => Ok(Spend::Stored(index)),
        None => Err(Failure::because(
            Kind::UnknownKey,
            "No key of this alias is stored for this provider; see cf-aig-byok-alias, providers.<slug>.keys and tollgate provider-keys",
        )),
    }
}

/// A key that is stored and cannot be used. No other one pays in its place.
pub fn unavailable(key: &StoredKey) -> Failure {
    let alias = &key.alias;
    let failure = Failure::because(
        Kind::Credential,
        format!(
            "The configured BYOK credentials are unavailable: the stored key `{alias}` cannot be used; the gateway's log says why"
        ),
    );
    let reason = key.credential.as_ref().err();
    failure.with_detail(reason.map_or("", |reason| reason))
}

/// Base64 of a service account's JSON may stand where a token does.
fn sent_account(headers: &http::HeaderMap) -> Result<Spend, Failure> {
    let text = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match text.and_then(ServiceAccount::from_header) {
        None => Ok(Spend::AsSent),
        Some(Ok(account)) => Ok(Spend::Account(Arc::new(account))),
        Some(Err(reason)) => Err(Failure::because(
            Kind::BadRequest,
            format!("The service account in Authorization cannot be used: {reason}"),
        )),
    }
}

fn has_subprotocol_key(session: &Session, provider: &Provider, tokens: &Authentication) -> bool {
    let offered = session.req_header().headers.get_all(attempt::SUBPROTOCOL);
    attempt::subprotocol_key(provider).is_some_and(|name| {
        attempt::subprotocols(offered).any(|offer| {
            attempt::credential_in(offer, name).is_some() && !tokens.is_in_offer(offer)
        })
    })
}

/// The declared length of the body.
pub fn content_length(session: &Session) -> Option<u64> {
    session
        .req_header()
        .headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}
