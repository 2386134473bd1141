//! Whether a request may pass its gateway: finds the token or the key of ours that it brings, says
//! whose it is, and takes off what no provider must see.
//!
//! It stands in `cf-aig-authorization`, for browsers' WebSockets in a subprotocol, and
//! without either where a key for the provider does (contract, 2.1 and 6.3).

use std::sync::Arc;

use pingora_proxy::Session;

use super::attempt::{self, GATEWAY_TOKEN, SUBPROTOCOL};
use super::context::Context;
use crate::auth::{Brought, Consumer, Known, Slots, may_hold_a_key};
use crate::error::{Failure, Kind};
use crate::gateway::Gateway;
use crate::keys::Table;
use crate::keys::table::Gate;
use crate::logs::times;

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

/// Lets a request pass, or refuses it. `keys`: those of now; `target`: its path and query, returned
/// without the token where one stands in it; `provider`: whom its path names.
pub fn pass(
    session: &mut Session,
    ctx: &mut Context,
    gateway: &Gateway,
    keys: &Table,
    provider: &str,
    target: &str,
) -> Result<Option<String>, Failure> {
    let tokens = &gateway.authentication;
    let headers = &session.req_header().headers;
    let query = target.split_once('?').map(|(_, query)| query);
    if tokens.is_empty() && !tokens.required && !may_hold_a_key(headers, query) {
        return Ok(None);
    }
    let gate = Gate {
        account: &gateway.account,
        gateway: &gateway.id,
        now: times::milliseconds(ctx.started),
    };
    let known = Known { tokens, keys, gate };
    let named = gateway.providers.get(provider);
    let places = named.map(|mounted| &mounted.provider.keyring.places);
    let mut slots = known.in_key_slots(places, headers, query);
    let consumer = who(session, &known, &mut slots)?;
    for header in &slots.headers {
        session.req_header_mut().remove_header(header.as_str());
    }
    admit(tokens.required, ctx, consumer)?;
    Ok(slots.in_query.then(|| known.without_tokens(target)))
}

/// Who calls, or why nobody whom the gateway knows. A key that is no good is refused wherever it
/// stands, also where nobody needs one: who brings it does not mean to be nobody.
fn who(
    session: &Session,
    known: &Known<'_>,
    slots: &mut Slots,
) -> Result<Result<Arc<Consumer>, &'static str>, Failure> {
    let said = said(session);
    let nothing_said = matches!(said, Said::Nothing);
    let (brought, otherwise) = match said {
        Said::Nothing => (in_a_key_offer(session, known), NO_TOKEN),
        Said::Token(token) => (known.whose_of_ours(token), NOT_ITS_TOKEN),
        Said::Several => (None, SEVERAL),
    };
    let in_slot = slots.consumer.take().filter(|_| nothing_said);
    match (brought, slots.refused) {
        (Some(Err(why)), _) | (_, Some(why)) => {
            Err(Failure::because(Kind::Unauthorized, why.words()).denied_by("authentication"))
        }
        (Some(Ok(consumer)), None) => Ok(Ok(in_slot.unwrap_or(consumer))),
        (None, None) => Ok(in_slot.ok_or(otherwise)),
    }
}

/// A step of a request that has passed needs no token of its own.
fn admit(
    required: bool,
    ctx: &mut Context,
    consumer: Result<Arc<Consumer>, &'static str>,
) -> Result<(), Failure> {
    match consumer {
        Ok(consumer) => {
            ctx.consumer.get_or_insert(consumer);
        }
        Err(why) if required && ctx.consumer.is_none() => {
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
fn in_a_key_offer(session: &Session, known: &Known<'_>) -> Option<Brought> {
    let websocket = attempt::is_websocket(session);
    let offered = session.req_header().headers.get_all(SUBPROTOCOL);
    let mut offers = attempt::subprotocols(offered).filter(|_| websocket);
    offers.find_map(|offer| known.in_offer(offer))
}

/// Whether a stored key may pay for the request.
pub fn may_spend_stored_keys(gateway: &Gateway, ctx: &Context) -> bool {
    gateway.anyone_may_spend_stored_keys || ctx.consumer.is_some()
}
