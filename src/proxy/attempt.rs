//! One try at the provider: whom to connect to, and the head that goes there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::header::{AUTHORIZATION, EXPECT, GetAll, HOST, HeaderValue, UPGRADE};
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::auth::Authentication;
use crate::credential::token_client::{Options, Resolve, TokenClient, TokenEndpoint};
use crate::credential::{Credential, ServiceAccount, TokenError, aws};
use crate::directives;
use crate::dns::{Dns, LookupError};
use crate::error::{Failure, Kind};
use crate::provider::{Connection, Provider, Target};

use super::context::{Body, Context, Spend};
use super::{Door, admission, again, body, keys, planning, told, tunnel};

/// Subprotocols that a WebSocket client offers, or its server selects.
pub const SUBPROTOCOL: http::HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;
/// The header of the gateway's token, and the name under which a browser offers it.
pub const GATEWAY_TOKEN: &str = "cf-aig-authorization";

/// How long an idle connection to a provider is kept: less than the 60 s after which common
/// load balancers drop theirs, so that a request rarely meets one being closed.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Streams at once on one HTTP/2 connection; most servers allow 100 or more.
const MAX_H2_STREAMS: usize = 100;

/// What an HTTP/2 server takes of a request unless it says more, in bytes (RFC 9113, 6.9.2).
const HTTP2_WINDOW: usize = 65_535;

/// Whom to connect to.
pub async fn peer(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
) -> Result<Box<HttpPeer>, Failure> {
    // Nobody is asked any more, and nothing counted, when the client has taken all the time there
    // is to send its request.
    if again::left(ctx).is_some_and(|left| left.is_zero()) {
        return Err(Failure::new(Kind::UpstreamTimeout));
    }
    ctx.attempt.count += 1;
    let now = Instant::now();
    ctx.attempt.began.get_or_insert(now);
    ctx.attempt.started = Some(now);
    ctx.attempt.target_began.get_or_insert(now);
    body::rewind(ctx);
    again::begins(ctx);
    planning::enter(door, ctx);
    keys::choose(door, ctx);
    let (Some(route), Some(mounted)) = (&ctx.route, &ctx.provider) else {
        return Err(Failure::new(Kind::Internal)
            .with_detail("a request without a route reached the provider phase"));
    };
    let provider = Arc::clone(&mounted.provider);
    let connection = &provider.connection;
    let token = token(door, &provider, ctx).await?;
    let origin = &route.target.origin;
    let (host, port) = connection.place(origin);
    let addresses = door
        .dns
        .lookup(host)
        .await
        .map_err(|error| lookup_failure(host, error))?;
    // A connection that failed tries the next address of the name.
    let address = addresses[ctx.attempt.failed_connections as usize % addresses.len()];
    let mut peer = HttpPeer::new(
        SocketAddr::new(address, port),
        origin.tls,
        origin.host.to_string(),
    );
    configure(&mut peer, connection, alpn(connection, &ctx.body));
    ctx.attempt.tunnel = is_websocket(session).then(|| tunnel::prepare(&mut peer));
    again::bound(&mut peer, ctx)?;
    ctx.attempt.addresses = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    ctx.attempt.token = token;
    Ok(Box::new(peer))
}

/// All but its times, which are the attempt's.
fn configure(peer: &mut HttpPeer, connection: &Connection, alpn: ALPN) {
    peer.group_key = connection.group;
    let options = &mut peer.options;
    options.idle_timeout = Some(POOL_IDLE);
    options.ca = connection.ca.clone();
    options.max_h2_streams = MAX_H2_STREAMS;
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(5),
        count: 5,
        user_timeout: Duration::ZERO,
    });
    options.alpn = alpn;
}

/// The HTTP versions that are offered. A held body is written whole before the answer is
/// looked at. A provider that refuses a request early, and reads no more, would never be heard over
/// HTTP/2 where the body does not fit the window; over HTTP/1.1 it is.
fn alpn(connection: &Connection, body: &Body) -> ALPN {
    match (connection.alpn(), body) {
        (ALPN::H2H1, Body::Held { bytes, .. }) if bytes.len() > HTTP2_WINDOW => ALPN::H1,
        (alpn, _) => alpn,
    }
}

fn lookup_failure(host: &str, error: LookupError) -> Failure {
    let kind = match error {
        LookupError::Unresolved(_) => Kind::UpstreamUnreachable,
        LookupError::Forbidden => Kind::UpstreamForbidden,
    };
    Failure::new(kind).with_detail(format!("{host} {error}"))
}

/// The token that the request goes with, when its credential is a service account.
async fn token(
    door: &Door,
    provider: &Provider,
    ctx: &Context,
) -> Result<Option<Arc<str>>, Failure> {
    let account: &Arc<ServiceAccount> = match (
        ctx.route.as_ref().map(|route| &route.spend),
        ctx.stored_credential(),
    ) {
        (Some(Spend::Account(account)), _) | (_, Some(Credential::Google(account))) => account,
        _ => return Ok(None),
    };
    // Tokens are fetched under the same trust as the provider is called.
    let tokens = door
        .tokens
        .through(token_endpoint(&door.dns, Some(&provider.connection)));
    tokens
        .token(account, SystemTime::now())
        .await
        .map(Some)
        .map_err(|error| token_failure(&error))
}

fn token_failure(error: &TokenError) -> Failure {
    Failure::new(Kind::Credential).with_detail(format!("token exchange: {error:?}"))
}

/// How tokens are fetched: over connections of the same trust as the provider's.
pub fn token_endpoint(dns: &Arc<Dns>, connection: Option<&Connection>) -> Arc<dyn TokenEndpoint> {
    static CONNECTOR: std::sync::OnceLock<Arc<Connector>> = std::sync::OnceLock::new();
    let connector = Arc::clone(CONNECTOR.get_or_init(|| Arc::new(Connector::new(None))));
    let options = Options {
        ca: connection.and_then(|connection| connection.ca.clone()),
        connect_to: connection.and_then(|connection| connection.token_connect_to.clone()),
        ..Options::default()
    };
    Arc::new(TokenClient::new(
        connector,
        Arc::new(Resolver(Arc::clone(dns))),
        options,
    ))
}

struct Resolver(Arc<Dns>);

#[async_trait]
impl Resolve for Resolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.0.lookup(host).await;
        let addresses = found.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let with_port = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port));
        Ok(with_port.collect())
    }
}

/// Turns the client's head into the provider's: only what must change changes.
pub fn head(
    session: &Session,
    request: &mut RequestHeader,
    ctx: &mut Context,
) -> Result<(), Failure> {
    let (Some(route), Some(mounted)) = (&ctx.route, &ctx.provider) else {
        return Err(Failure::new(Kind::Internal)
            .with_detail("a request without a route reached the request phase"));
    };
    let provider = &mounted.provider;
    let rewritten = (|| {
        request.set_raw_path(route.target.path_and_query.as_bytes())?;
        remove_what_is_for_the_gateway(request, provider);
        planning::withhold(request, ctx);
        if ctx.directives.usage {
            told::ask_for_identity(request)?;
        }
        request.insert_header(HOST, route.target.origin.authority.clone())?;
        for (name, value) in &provider.headers {
            request.insert_header(name.clone(), value.clone())?;
        }
        body::frame(request, ctx)?;
        if is_websocket(session) {
            let gateway = ctx.gateway.as_ref();
            let tokens = gateway.map(|gateway| &gateway.authentication);
            keys_from_subprotocols(request, provider, tokens)?;
        } else {
            // Left of an upgrade that a proxy before the gateway has lost: tokens may stand there.
            request.remove_header(&SUBPROTOCOL);
        }
        pingora_core::Result::Ok(())
    })();
    rewritten.map_err(|error: Box<pingora_core::Error>| {
        Failure::new(Kind::BadRequest).with_detail(error.to_string())
    })?;
    put_credential(request, provider, &route.target, ctx)
}

fn remove_what_is_for_the_gateway(request: &mut RequestHeader, provider: &Provider) {
    let ours: Vec<_> = request
        .headers
        .keys()
        .filter(|name| directives::is_for_gateway(name))
        .cloned()
        .collect();
    for name in ours {
        request.remove_header(&name);
    }
    // Answered by the gateway already.
    request.remove_header(&EXPECT);
    if let Some(header) = &provider.target_header {
        request.remove_header(&header.name);
    }
}

fn put_credential(
    request: &mut RequestHeader,
    provider: &Provider,
    target: &Target,
    ctx: &Context,
) -> Result<(), Failure> {
    let broken = |error: Box<pingora_core::Error>| {
        Failure::new(Kind::Credential).with_detail(error.to_string())
    };
    if let Some(token) = &ctx.attempt.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::new(Kind::Credential))?;
        value.set_sensitive(true);
        return request.insert_header(AUTHORIZATION, value).map_err(broken);
    }
    let Some(key) = ctx.stored_key() else {
        return Ok(());
    };
    match &key.credential {
        Err(_) => Err(admission::unavailable(key)),
        Ok(Credential::Header { name, value }) => {
            // What holds no key (`Bearer ` alone) would stand beside ours.
            for place in provider.keyring(target).places.headers() {
                request.remove_header(place);
            }
            request
                .insert_header(name.clone(), value.clone())
                .map_err(broken)
        }
        Ok(Credential::Aws { key, service }) => sign(request, key, service, target, ctx),
        Ok(Credential::Google(_)) => Err(Failure::new(Kind::Credential)
            .with_detail("the service account was not exchanged for a token")),
    }
}

fn sign(
    request: &mut RequestHeader,
    key: &aws::AwsKey,
    service: &str,
    target: &Target,
    ctx: &Context,
) -> Result<(), Failure> {
    let Body::Held { bytes, .. } = &ctx.body else {
        return Err(Failure::new(Kind::Internal)
            .with_detail("a request was to be signed before its body was held"));
    };
    for name in &aws::SIGNATURE_HEADERS {
        request.remove_header(name);
    }
    let (path, query) = target
        .path_and_query
        .split_once('?')
        .map_or((&*target.path_and_query, None), |(p, q)| (p, Some(q)));
    let host = target.origin.authority.to_str().unwrap_or_default();
    let unsigned = aws::Unsigned {
        method: request.method.as_str(),
        host,
        path,
        query,
        headers: &request.headers,
        body: bytes,
    };
    let region = target.region.as_deref().unwrap_or(key.region());
    let signed =
        aws::sign(key, service, region, &unsigned, SystemTime::now()).map_err(|error| {
            Failure::new(Kind::Credential).with_detail(format!("signing: {error:?}"))
        })?;
    for (name, value) in signed {
        request
            .insert_header(name, value)
            .map_err(|error| Failure::new(Kind::Credential).with_detail(error.to_string()))?;
    }
    Ok(())
}

/// Whether the client asks for a WebSocket. Pingora takes any `Upgrade` header for one.
pub fn is_websocket(session: &Session) -> bool {
    let upgrade = session.req_header().headers.get(UPGRADE);
    upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && session.is_upgrade_req()
}

/// The subprotocols that a WebSocket client offers.
pub fn subprotocols<'a>(offered: GetAll<'a, HeaderValue>) -> impl Iterator<Item = &'a str> {
    offered
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|offer| !offer.is_empty())
}

/// The credential in an offer of the form `name.credential`.
pub fn credential_in<'a>(offer: &'a str, name: &str) -> Option<&'a str> {
    offer
        .strip_prefix(name)?
        .strip_prefix('.')
        .filter(|credential| !credential.is_empty())
}

/// The first offer that carries a credential. It is selected where the provider selects none
/// of the others: browsers fail a connection on which no subprotocol of theirs is selected.
pub fn credential_offer<'a>(session: &'a Session, provider: &Provider) -> Option<&'a str> {
    let offered = session.req_header().headers.get_all(SUBPROTOCOL);
    let key_name = subprotocol_key(provider);
    subprotocols(offered).find(|offer| {
        let carries = |name| credential_in(offer, name).is_some();
        carries(GATEWAY_TOKEN) || key_name.is_some_and(carries)
    })
}

/// The name under which a browser offers its key for the provider.
pub fn subprotocol_key(provider: &Provider) -> Option<&str> {
    let realtime = provider.realtime.as_ref();
    realtime.and_then(|realtime| realtime.subprotocol_key.as_deref())
}

/// A browser cannot set headers on a WebSocket: it offers credentials as subprotocols,
/// `cf-aig-authorization.<token>` for the gateway and `<header>.<key>` for the provider.
fn keys_from_subprotocols(
    request: &mut RequestHeader,
    provider: &Provider,
    tokens: Option<&Authentication>,
) -> pingora_core::Result<()> {
    let key_name = subprotocol_key(provider);
    let mut kept = Vec::new();
    let mut key = None;
    for offer in subprotocols(request.headers.get_all(SUBPROTOCOL)) {
        if tokens.is_some_and(|tokens| tokens.is_in_offer(offer)) {
            continue;
        }
        if let Some(found) = key_name.and_then(|name| credential_in(offer, name)) {
            key = Some(found.to_owned());
        } else if credential_in(offer, GATEWAY_TOKEN).is_none() {
            kept.push(offer.to_owned());
        }
    }
    if let Some(key) = key
        && let Ok(Credential::Header { name, value }) =
            crate::credential::parse(&provider.keyring.auth, &key)
    {
        request.insert_header(name, value)?;
    }
    if !request.headers.contains_key(SUBPROTOCOL) {
        return Ok(());
    }
    request.remove_header(&SUBPROTOCOL);
    if !kept.is_empty() {
        request.insert_header(SUBPROTOCOL, kept.join(", "))?;
    }
    Ok(())
}
