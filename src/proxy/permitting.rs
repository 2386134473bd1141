//! What requests may ask for: the access rules of the gateway and of the key, each of which must be
//! kept. What the head tells is looked at before the body is read.

use http::Method;
use pingora_proxy::Session;

use crate::call;
use crate::error::{Failure, Kind};
use crate::gateway::Mounted;
use crate::limits::access::{Access, Denied};
use crate::limits::bounds::Bounds;
use crate::limits::facts::Facts;
use crate::limits::worst::Worst;

use super::attempt::is_websocket;
use super::context::Context;

/// Within what a request must stay: of its gateway, and of the key that it brought, which comes last.
pub fn bounds(ctx: &Context) -> impl Iterator<Item = &Bounds> {
    let gateway = ctx.gateway.iter().map(|gateway| &gateway.bounds);
    gateway.chain(ctx.consumer.iter().map(|consumer| &consumer.bounds))
}

/// What rules know of a request. `model`: which it asks for, where that is known.
pub fn facts<'a>(ctx: &'a Context, model: Option<&'a str>) -> Facts<'a> {
    let provider = ctx.provider.as_ref();
    let facts = Facts {
        gateway: ctx.gateway.as_ref().map_or("", |gateway| &gateway.label),
        provider: provider.map(|mounted| &*mounted.provider.slug),
        model,
        address: ctx.address,
        ..Facts::of(&ctx.metadata)
    };
    facts.from(ctx.consumer.as_deref())
}

/// How the log calls a rule: those of keys are told apart, as their names are their makers'.
pub fn named(rule: &str, is_of_key: bool) -> String {
    match is_of_key {
        true => format!("key/{rule}"),
        false => rule.to_owned(),
    }
}

/// Before the body is read: from where the request comes, and whom it asks, where no route may ask
/// somebody else.
pub fn head(ctx: &Context) -> Result<(), Failure> {
    let routed = ctx
        .gateway
        .as_ref()
        .is_none_or(|gateway| !gateway.routes.is_empty());
    let asked = ctx.provider.as_ref().filter(|_| !routed);
    each(ctx, |access| {
        access.address(ctx.address)?;
        asked.map_or(Ok(()), |mounted| access.provider(&mounted.provider.slug))
    })
}

/// Whether the body must be known.
pub fn reads_body(ctx: &Context) -> bool {
    bounds(ctx).any(|bounds| bounds.access.needs_body())
}

/// The largest body that is permitted.
pub struct MaxBody {
    /// Its length.
    pub bytes: u64,
    /// Whether the API key says so, and not the gateway.
    pub is_of_key: bool,
}

/// The largest body that is permitted, where a rule says so.
pub fn max_body(ctx: &Context) -> Option<MaxBody> {
    let rules = bounds(ctx).filter_map(|bounds| {
        Some(MaxBody {
            bytes: bounds.access.max_body?,
            is_of_key: bounds.are_a_key_s(),
        })
    });
    rules.min_by_key(|rule| rule.bytes)
}

/// Where the body and the target are known: what is asked for. Of a route one target must be
/// permitted; the others are passed over ([`may_ask`]).
pub fn target(session: &Session, ctx: &Context) -> Result<(), Failure> {
    if !asks_a_model(session) {
        return each(ctx, |access| named_provider(ctx, access));
    }
    let worst = reads_body(ctx).then(|| worst_of(ctx)).flatten();
    let others = worst.as_ref().is_some_and(|worst| worst.other_models);
    let tokens = reads_body(ctx).then(|| asked_tokens(ctx, worst)).flatten();
    each(ctx, |access| {
        if others && !access.models.is_empty() {
            return Err(Denied::Model(None));
        }
        if let Some(asked) = tokens {
            access.tokens(asked)?;
        }
        let Some(planned) = &ctx.planned else {
            named_provider(ctx, access)?;
            return asked_model(ctx, access);
        };
        let of = |target: &crate::routing::plan::Target| {
            permits(access, &target.mounted, Some(&target.model))
        };
        let mut found = planned.plan.targets.iter().map(of);
        let first = found.next().unwrap_or(Ok(()));
        first.or_else(|denied| match found.any(|of| of.is_ok()) {
            true => Ok(()),
            false => Err(denied),
        })
    })
}

/// Before a try at a target of a route.
pub fn may_ask(ctx: &Context) -> Result<(), Failure> {
    let (Some(_), Some(mounted)) = (&ctx.planned, &ctx.provider) else {
        return Ok(());
    };
    let model = ctx.model().map(call::decoded);
    each(ctx, |access| permits(access, mounted, model.as_deref()))
}

fn permits(access: &Access, mounted: &Mounted, model: Option<&str>) -> Result<(), Denied> {
    let slug = &mounted.provider.slug;
    access.provider(slug)?;
    access.model(slug, model)
}

fn named_provider(ctx: &Context, access: &Access) -> Result<(), Denied> {
    let asked = ctx.provider.as_ref();
    asked.map_or(Ok(()), |mounted| access.provider(&mounted.provider.slug))
}

fn asked_model(ctx: &Context, access: &Access) -> Result<(), Denied> {
    let asked = ctx.provider.as_ref();
    let slug = asked.map_or("", |mounted| &mounted.provider.slug);
    let model = ctx.model().filter(|_| is_named_where_it_counts(ctx));
    access.model(slug, model.map(call::decoded).as_deref())
}

/// Whether the model stands where the provider looks for it: a name in a place that it does not read
/// would be permitted, and another one asked.
fn is_named_where_it_counts(ctx: &Context) -> bool {
    ctx.route.as_ref().is_some_and(|route| {
        let path = &route.target.path_and_query;
        route.model.is_some() || call::is_named_in_body(route.format, path)
    })
}

/// What is only looked at, listed or deleted has no model.
pub fn asks_a_model(session: &Session) -> bool {
    let method = &session.req_header().method;
    matches!(*method, Method::POST | Method::PUT | Method::PATCH) || is_websocket(session)
}

/// How many output tokens the request asks for at most, if it is for something that has some.
fn asked_tokens(ctx: &Context, worst: Option<Worst>) -> Option<Option<u64>> {
    let route = ctx.route.as_ref()?;
    let path = &*route.target.path_and_query;
    if call::writes_no_text(path) || call::only_counts_tokens(path) {
        return None;
    }
    let bounded = worst.filter(|worst| worst.output.is_some());
    Some(bounded.map(|worst| worst.most_output(0)))
}

/// What a body that is held can take.
fn worst_of(ctx: &Context) -> Option<Worst> {
    ctx.body.worst(ctx.route.as_ref()?.format)
}

fn each(ctx: &Context, keeps: impl Fn(&Access) -> Result<(), Denied>) -> Result<(), Failure> {
    for (place, bounds) in bounds(ctx).enumerate() {
        keeps(&bounds.access).map_err(|denied| refused(&denied, place > 0))?;
    }
    Ok(())
}

fn refused(denied: &Denied, is_of_key: bool) -> Failure {
    Failure::because(Kind::Denied, denied.to_string()).denied_by(named(denied.field(), is_of_key))
}
