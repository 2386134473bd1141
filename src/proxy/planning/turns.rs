//! Which of a route's targets is asked first, and which are left alone for now.

use std::time::Instant;

use bytes::Bytes;
use pingora_proxy::Session;

use super::{ask, next};
use crate::proxy::context::{Body, Context};
use crate::proxy::{Door, blame, caching};
use crate::routing::plan::Plan;
use crate::routing::strategy::{self, Order};

/// In which order the targets are asked, by the strategy. Who is left alone does not count yet: an
/// answer that the cache has is found all the same.
pub(super) fn order(door: &Door, session: &Session, ctx: &Context, plan: &Plan) -> Order {
    let now = Instant::now();
    let Some(gateway) = &ctx.gateway else {
        return strategy::order(plan.strategy, &[], None, || 0.0, now);
    };
    let session = plan.affinity.as_ref().and_then(|affinity| {
        let body = match &ctx.body {
            Body::Held { bytes, .. } => bytes,
            Body::Unread | Body::Streaming { .. } => &Bytes::new(),
        };
        affinity.session(&session.req_header().headers, body)
    });
    let candidates = &plan.known(&door.known, &gateway.label).candidates;
    strategy::order(plan.strategy, candidates, session, caching::chance, now)
}

/// Before an attempt: a target that was left alone is tried with one call first. True where that
/// is another one's, and the next target is asked instead.
pub fn passes_over(door: &Door, session: &Session, ctx: &mut Context) -> bool {
    let (Some(planned), Some(gateway)) = (&mut ctx.planned, &ctx.gateway) else {
        return false;
    };
    if std::mem::replace(&mut planned.has_turn, true) {
        return false;
    }
    let place = planned.at();
    !blame::may_ask(door, gateway, &planned.plan, place, Instant::now()) && next(session, ctx)
}

/// Before the first attempt: those that are left alone come last.
pub fn put_well_first(door: &Door, session: &Session, ctx: &mut Context) {
    let (Some(planned), Some(gateway)) = (&mut ctx.planned, &ctx.gateway) else {
        return;
    };
    if std::mem::replace(&mut planned.sorted, true) {
        return;
    }
    let (now, before) = (Instant::now(), planned.at());
    let until = |place| {
        let spends = planned.spends(place);
        blame::cooled_until(door, gateway, &planned.plan, place, spends, now)
    };
    // Those before it were passed over, and are not to come back.
    let order = planned.order.well_first(planned.tried, until);
    planned.order = order;
    if planned.at() != before && ask(session, ctx).is_err() {
        next(session, ctx);
    }
}

/// Whether the target that is asked is left alone.
pub fn is_left_alone(door: &Door, ctx: &Context) -> bool {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return false;
    };
    let (place, now) = (planned.at(), Instant::now());
    let spends = planned.spends(place);
    blame::cooled_until(door, gateway, &planned.plan, place, spends, now).is_some()
}

/// The attempt counts as in flight at its target.
pub fn enter(door: &Door, ctx: &mut Context) {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return;
    };
    let known = planned.plan.known(&door.known, &gateway.label);
    let target = known.targets.get(planned.at());
    ctx.attempt.in_flight = target.map(|target| target.load.enter());
}
