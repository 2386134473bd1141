//! Who is left alone because of what happened, and who is well.
//!
//! Told of what a gateway with routes, or with a pool of keys, has learned from a call; the others
//! have no choice, and so nothing to learn.

use std::time::{Duration, Instant};

use crate::gateway::Gateway;
use crate::routing::health::{Breaker, Standing};
use crate::routing::known::{OfKey, OfProvider, OfTarget};
use crate::routing::plan::Plan;
use crate::routing::verdict::{Blame, Cause};

use super::Door;
use super::context::Context;

/// An attempt has failed. `asked`: for how long the provider wants to be left alone.
pub fn failed(door: &Door, ctx: &Context, cause: Cause, asked: Option<Duration>) {
    // Who was not asked has neither failed nor answered.
    let asked_nobody = matches!(cause, Cause::Full | Cause::Limited);
    let Some(call) = Call::of(door, ctx).filter(|_| !asked_nobody) else {
        return;
    };
    let blame = cause.blame();
    // Who answers is there, whatever the answer is.
    if matches!(cause, Cause::Status(_)) && blame != Blame::Provider {
        call.provider_is_there();
    }
    match blame {
        Blame::Provider => call.blame_provider(),
        Blame::Target => call.blame_target(),
        Blame::Nobody => call.target_is_there(),
        Blame::Key | Blame::KeyForModel | Blame::Limit => {
            call.blame_key(blame, cause, asked);
            call.target_is_there();
        }
    }
}

/// The provider answered, and its answer passes.
pub fn answered(door: &Door, ctx: &mut Context) {
    let now = Instant::now();
    if let Some(call) = Call::of(door, ctx) {
        call.provider_is_there();
        call.target_is_there();
        if let Some(key) = &call.key {
            key.health.worked(call.model, call.began);
        }
        if let Some(target) = call.target {
            target.latencies.record(now - call.began);
        }
    }
    first_byte_came(ctx, now);
}

/// What took too long took at least so long.
pub fn was_late(ctx: &mut Context) {
    first_byte_came(ctx, Instant::now());
}

fn first_byte_came(ctx: &mut Context, now: Instant) {
    let began = ctx.attempt.started.unwrap_or(ctx.clock);
    if let Some(in_flight) = &mut ctx.attempt.in_flight {
        in_flight.measured(now - began, now);
    }
}

/// The answer broke off after it had begun.
pub fn broke_off(door: &Door, ctx: &Context) {
    if let Some(call) = Call::of(door, ctx) {
        call.blame_target();
    }
}

/// A call, and what is known of whom it asks.
struct Call<'a> {
    door: &'a Door,
    gateway: &'a Gateway,
    provider: &'a OfProvider,
    target: Option<&'a OfTarget>,
    key: Option<&'a OfKey>,
    model: &'a str,
    began: Instant,
}

impl<'a> Call<'a> {
    fn of(door: &'a Door, ctx: &'a Context) -> Option<Self> {
        let (gateway, mounted) = (ctx.gateway.as_ref()?, ctx.provider.as_ref()?);
        let pooled = mounted.provider.keyring.pool.is_some();
        if gateway.routes.is_empty() && !pooled {
            return None;
        }
        let planned = ctx.planned.as_ref();
        let target = planned.and_then(|planned| {
            let known = planned.plan.known(&door.known, &gateway.label);
            known.targets.get(planned.at())
        });
        Some(Self {
            door,
            gateway,
            provider: mounted.known(&door.known, gateway),
            target: target.map(|target| &**target),
            key: ctx
                .stored_key()
                .map(|stored| &**mounted.key(&door.known, stored)),
            model: ctx.model().unwrap_or_default(),
            began: ctx.attempt.started.unwrap_or(ctx.clock),
        })
    }

    fn provider_is_there(&self) {
        self.provider.breaker.succeeded(self.began, Instant::now());
    }

    fn target_is_there(&self) {
        if let Some(target) = self.target {
            target.breaker.succeeded(self.began, Instant::now());
        }
    }

    fn blame_provider(&self) {
        self.blame(&self.provider.breaker, "");
    }

    fn blame_target(&self) {
        if let Some(target) = self.target {
            self.blame(&target.breaker, &target.model);
        }
    }

    fn blame(&self, breaker: &Breaker, model: &str) {
        let settings = &self.gateway.health;
        let Some(opened) = breaker.failed(self.began, Instant::now(), settings) else {
            return;
        };
        let (gateway, provider) = (&self.gateway.label, &self.provider.provider);
        log::warn!(
            "{provider} {model} of {gateway} is left alone for {:?}: {} of {} calls failed",
            opened.open_for,
            opened.failures,
            opened.calls
        );
        self.door.metrics.breaker_opened(gateway, provider, model);
    }

    fn blame_key(&self, blame: Blame, cause: Cause, asked: Option<Duration>) {
        let Some(key) = &self.key else {
            return;
        };
        let now = Instant::now();
        match blame {
            Blame::Key => key.health.refused(self.began, now),
            Blame::Limit => key.health.limited(self.model, asked, self.began, now),
            _ => key.health.refused_model(self.model, self.began, now),
        };
        let metrics = &self.door.metrics;
        metrics.key_cooled(key, cause.name());
    }
}

/// Until when a target is better left alone; `None` when it is well. `spends`: a stored key pays.
pub fn cooled_until(
    door: &Door,
    gateway: &Gateway,
    plan: &Plan,
    place: usize,
    spends: bool,
    now: Instant,
) -> Option<Instant> {
    let target = plan.targets.get(place)?;
    let known = plan.known(&door.known, &gateway.label).targets.get(place)?;
    let of_target = known.breaker.standing(now).until();
    let of_provider = target.mounted.known(&door.known, gateway);
    let of_provider = of_provider.breaker.standing(now).until();
    of_target.max(of_provider).max(match spends {
        true => super::keys::cooled_until(door, target, now),
        false => None,
    })
}

/// A target that was left alone is tried with one call first: false where that is another one's.
/// One that is left alone still comes when nobody better is left.
pub fn may_ask(door: &Door, gateway: &Gateway, plan: &Plan, place: usize, now: Instant) -> bool {
    let known = plan.known(&door.known, &gateway.label).targets.get(place);
    let (Some(target), Some(known)) = (plan.targets.get(place), known) else {
        return true;
    };
    let of_provider = target.mounted.known(&door.known, gateway);
    let breakers = [&of_provider.breaker, &known.breaker];
    // All are looked at before any is entered: a turn that is taken and not used is lost.
    let cooled = |breaker: &&Breaker| matches!(breaker.standing(now), Standing::Cooled { .. });
    breakers.iter().any(cooled) || breakers.iter().all(|breaker| breaker.enter(now))
}
