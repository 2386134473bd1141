//! Whether a request may pass its gateway: finds the token that it brings, says whose it is, and
//! takes off what no provider must see.
//!
//! The token stands in `cf-aig-authorization`, for browsers' WebSockets in a subprotocol, and
//! without either where a key for the provider does (contract, 2.1 and 6.3).

use std::sync::Arc;

use pingora_proxy::Session;

use super::attempt::{self, GATEWAY_TOKEN, SUBPROTOCOL};
use super::context::Context;
use crate::auth::{Authentication, Consumer};
use crate::error::{Failure, Kind};
use crate::gateway::Gateway;

const NO_TOKEN: &str =
    "Unauthorized: this gateway wants one of its tokens, as `cf-aig-authorization: Bearer <token>`";
const NOT_ITS_TOKEN: &str =
    "Unauthorized: what cf-aig-authorization says is no token of this gateway";
const SEVERAL: &str = "Unauthorized: cf-aig-authorization stands twice";

/// What a request says of itself where only a gateway's token may stand.
enum Said<'a> {
    Nothing,
    Token(&'a [u8]),
    Several,
}

/// Lets a request pass, or refuses it. `target`: its path and query, returned without the token
/// where one stands in it; `provider`: whom its path names.
pub fn pass(
    session: &mut Session,
    ctx: &mut Context,
    gateway: &Gateway,
    provider: &str,
    target: &str,
) -> Result<Option<String>, Failure> {
    let tokens = &gateway.authentication;
    if tokens.is_empty() && !tokens.required {
        return Ok(None);
    }
    let named = gateway.providers.get(provider);
    let places = named.map(|mounted| &mounted.provider.keyring.places);
    let query = target.split_once('?').map(|(_, query)| query);
    let slots = tokens.in_key_slots(places, &session.req_header().headers, query);
    let consumer = match said(session) {
        Said::Nothing => {
            let offered = || in_a_key_offer(session, tokens);
            slots.consumer.or_else(offered).ok_or(NO_TOKEN)
        }
        Said::Token(token) => tokens.consumer(token).cloned().ok_or(NOT_ITS_TOKEN),
        Said::Several => Err(SEVERAL),
    };
    for header in &slots.headers {
        session.req_header_mut().remove_header(header.as_str());
    }
    admit(tokens, ctx, consumer)?;
    Ok(slots.in_query.then(|| tokens.without_tokens(target)))
}

/// A step of a request that has passed needs no token of its own.
fn admit(
    tokens: &Authentication,
    ctx: &mut Context,
    consumer: Result<Arc<Consumer>, &'static str>,
) -> Result<(), Failure> {
    match consumer {
        Ok(consumer) => {
            ctx.consumer.get_or_insert(consumer);
        }
        Err(why) if tokens.required && ctx.consumer.is_none() => {
            return Err(Failure::because(Kind::Unauthorized, why).denied_by("authentication"));
        }
        Err(_) => {}
    }
    Ok(())
}

fn said(session: &Session) -> Said<'_> {
    let headers = &session.req_header().headers;
    let mut values = headers.get_all(GATEWAY_TOKEN).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => Said::Token(only.as_bytes()),
        (Some(_), Some(_)) => Said::Several,
        (None, _) if attempt::is_websocket(session) => {
            let mut offers = attempt::subprotocols(headers.get_all(SUBPROTOCOL));
            let token = offers.find_map(|offer| attempt::credential_in(offer, GATEWAY_TOKEN));
            token.map_or(Said::Nothing, |token| Said::Token(token.as_bytes()))
        }
        (None, _) => Said::Nothing,
    }
}

/// The token in a subprotocol that carries a key for the provider: `xi-api-key.<token>`.
fn in_a_key_offer(session: &Session, tokens: &Authentication) -> Option<Arc<Consumer>> {
    let websocket = attempt::is_websocket(session);
    let offered = session.req_header().headers.get_all(SUBPROTOCOL);
    let mut offers = attempt::subprotocols(offered).filter(|_| websocket);
    offers.find_map(|offer| tokens.in_offer(offer).cloned())
}

/// Whether a stored key may pay for the request.
pub fn may_spend_stored_keys(gateway: &Gateway, ctx: &Context) -> bool {
    gateway.anyone_may_spend_stored_keys || ctx.consumer.is_some()
}
