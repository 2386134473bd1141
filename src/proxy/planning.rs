//! Which targets may answer a request, and moving on to the next one.
//!
//! A request that no route serves has one target: what its URL names. One that a route serves is
//! turned into a request of its first target here, and of the next one when that fails: the
//! model's name, the address and the credential change, everything else stays.

mod asking;
mod choice;
mod turns;

use std::sync::Arc;

use pingora_proxy::Session;

use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::record::Source;
use crate::routing::known::OfTarget;
use crate::routing::plan::{Plan, Target};
use crate::routing::strategy::Order;

use super::context::{Body, Context, Spend};
use super::{Door, keys, permitting};

pub use asking::withhold;
use asking::{Asked, ask_for, route_to};
use choice::check_compat_path;
pub use choice::{COMPAT, Choice, choose, look_for_model, reads_body};
pub use turns::{enter, is_left_alone, passes_over, put_well_first};

/// A request that a route serves.
#[derive(Clone)]
pub struct Planned {
    /// The route.
    pub plan: Arc<Plan>,
    /// In which order its targets are asked.
    order: Order,
    /// How many of them were asked before.
    pub tried: usize,
    /// The one that is asked now may be.
    has_turn: bool,
    /// The target as which the request was looked up in the cache: its place.
    looked_up: usize,
    /// Those that are left alone have been put last.
    sorted: bool,
    asked: Asked,
}

impl Planned {
    /// The place of the target that is asked, or answered.
    pub fn at(&self) -> usize {
        self.order.get(self.tried).unwrap_or_default()
    }

    /// The target that is asked.
    pub fn target(&self) -> Option<&Target> {
        self.plan.targets.get(self.at())
    }

    /// What is known of the target that is asked.
    pub fn known(&self) -> Option<&OfTarget> {
        let known = self.plan.known.get()?;
        known.targets.get(self.at()).map(|target| &**target)
    }

    /// Another one is left to ask.
    pub fn has_another(&self) -> bool {
        self.tried + 1 < self.plan.targets.len()
    }

    /// The answer is not of the target as which the request was looked up in the cache.
    pub fn is_fallback(&self) -> bool {
        self.at() != self.looked_up
    }

    /// The target that is called so becomes the one that answered, if it is one of these.
    fn answered(&mut self, provider: &str, model: Option<&str>) -> bool {
        let is = |target: &Target| {
            *target.mounted.provider.slug == *provider && Some(&*target.model) == model
        };
        let place = self.plan.targets.iter().position(is);
        let found = place.and_then(|place| self.order.iter().position(|at| at == place));
        self.tried = found.unwrap_or(self.tried);
        found.is_some()
    }

    /// Whether a stored key pays for the target at `place`.
    fn spends(&self, place: usize) -> bool {
        let target = self.plan.targets.get(place);
        target.is_none_or(|target| {
            let asked = self.asked.provider.as_ref();
            let own = asked.is_some_and(|asked| Arc::ptr_eq(asked, &target.mounted));
            !(own && self.asked.pays && target.key.is_none())
        })
    }

    /// The target is not of the provider that the client named, and whose key it may have sent.
    fn is_foreign(&self) -> bool {
        match (self.target(), &self.asked.provider) {
            (Some(target), Some(asked)) => !Arc::ptr_eq(&target.mounted, asked),
            _ => true,
        }
    }
}

/// Turns the request into one of the first target of its route that it may ask.
fn begin(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    plan: Arc<Plan>,
    endpoint: &Endpoint<'_>,
) -> Result<(), Failure> {
    if endpoint.provider == COMPAT {
        check_compat_path(endpoint)?;
    }
    let route = ctx.route.as_ref();
    let asked = Asked {
        // Who asks compat for a route by its name has named none.
        provider: ctx.provider.clone(),
        keyring: route.and_then(|route| route.target.keyring.clone()),
        pays: route.is_some_and(|route| matches!(route.spend, Spend::AsSent | Spend::Account(_))),
        path: endpoint.path.into(),
        query: endpoint.query.map(Into::into),
    };
    let order = turns::order(door, session, ctx, &plan);
    ctx.planned = Some(Box::new(Planned {
        plan,
        order,
        tried: 0,
        has_turn: false,
        looked_up: order.get(0).unwrap_or_default(),
        sorted: false,
        asked,
    }));
    match ask(session, ctx) {
        Ok(()) => {}
        // What is wrong with the request is told, and not hidden by another target.
        Err(failure) if failure.kind.source() == Source::Client => return Err(failure),
        Err(_) if next(session, ctx) => {}
        Err(failure) => return Err(failure),
    }
    pass_over_denied(session, ctx)
}

/// Stands at the first target that the request may ask, and is looked up in the cache as that one:
/// answers of others are not for this client, and its own must not stand for theirs.
fn pass_over_denied(session: &Session, ctx: &mut Context) -> Result<(), Failure> {
    let Err(denied) = permitting::may_ask(ctx) else {
        return Ok(());
    };
    while next(session, ctx) {
        if permitting::may_ask(ctx).is_ok() {
            if let Some(planned) = &mut ctx.planned {
                planned.looked_up = planned.at();
            }
            return Ok(());
        }
    }
    Err(denied)
}

/// An answer that was not asked for by this request is of this provider and model.
pub fn was_answered_by(ctx: &mut Context, provider: &str, named: Option<&str>) {
    let Some(planned) = ctx.planned.as_mut() else {
        return;
    };
    if !planned.answered(provider, named) {
        return;
    }
    let target = planned.target().map(|target| Arc::clone(&target.mounted));
    ctx.provider = target.or(ctx.provider.take());
    if let Some(route) = &mut ctx.route
        && route.model.is_some()
    {
        route.model = named.map(Into::into);
    }
    if let Body::Held { model, .. } = &mut ctx.body {
        *model = named.map(Into::into);
    }
}

/// Moves on to the next target that can be asked; false when there is none.
pub fn next(session: &Session, ctx: &mut Context) -> bool {
    let Some(stood) = ctx.planned.as_ref().map(|planned| planned.tried) else {
        return false;
    };
    ctx.leave_provider();
    while let Some(planned) = ctx.planned.as_mut().filter(|planned| planned.has_another()) {
        planned.tried += 1;
        let place = planned.at();
        if ctx.racer.as_ref().is_some_and(|racer| !racer.takes(place)) {
            continue;
        }
        match ask(session, ctx) {
            Ok(()) => return true,
            // A client can make it so, as often as it likes.
            Err(failure) => log::debug!("a route's target is passed over: {failure}"),
        }
    }
    if let Some(planned) = &mut ctx.planned {
        planned.tried = stood;
    }
    false
}

/// Turns the request into one of the target that its plan stands at.
fn ask(session: &Session, ctx: &mut Context) -> Result<(), Failure> {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return Ok(());
    };
    let (plan, gateway, at) = (Arc::clone(&planned.plan), Arc::clone(gateway), planned.at());
    let Some(target) = plan.targets.get(at) else {
        return Ok(());
    };
    let route = route_to(session, ctx, &gateway, planned, target)?;
    keys::forget(ctx);
    if let Some(planned) = &mut ctx.planned {
        planned.has_turn = false;
    }
    ctx.provider = Some(Arc::clone(&target.mounted));
    let in_path = route.model.is_some();
    ctx.route = Some(route);
    if !in_path {
        ask_for(ctx, &target.model);
    }
    Ok(())
}
