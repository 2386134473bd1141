//! Which key of a provider's pool a request spends.

use std::time::Instant;

use crate::provider::StoredKey;
use crate::routing::plan::Target;
use crate::routing::strategy;
use crate::routing::verdict::Blame;

use super::context::{Context, Spend};
use super::{Door, caching};

/// Keys of a pool that one request remembers to have tried; of those beyond, any is as good.
const REMEMBERED: usize = 64;

/// Before an attempt: chooses a key, where the request has none yet.
pub fn choose(door: &Door, ctx: &mut Context) {
    if ctx.attempt.key.is_none() && is_pooled(ctx) {
        ctx.attempt.key = best(door, ctx, Instant::now()).map(|(_, key)| key);
    }
}

/// After one that its key was to blame for: whether another key can be tried. Then it is chosen.
pub fn next(door: &Door, ctx: &mut Context, blame: Blame) -> bool {
    let at_fault = matches!(blame, Blame::Key | Blame::KeyForModel | Blame::Limit);
    if !at_fault || !is_pooled(ctx) {
        return false;
    }
    if let Some(key) = ctx.attempt.key.filter(|key| *key < REMEMBERED) {
        ctx.attempt.keys_tried |= 1 << key;
    }
    // One that is known to be refused too is not worth it.
    match best(door, ctx, Instant::now()) {
        Some((None, key)) if !is_tried(ctx, key) => {
            ctx.attempt.key = Some(key);
            true
        }
        _ => false,
    }
}

fn is_pooled(ctx: &Context) -> bool {
    let spend = ctx.route.as_ref().map(|route| &route.spend);
    matches!(spend, Some(Spend::Pool))
}

fn is_tried(ctx: &Context, key: usize) -> bool {
    key < REMEMBERED && ctx.attempt.keys_tried & (1 << key) != 0
}

/// What keys are compared by, the better one less: whether it was tried, until when it is better
/// left alone, and when it finishes in a race by chance.
type Rank = (bool, Option<Instant>, f64);

/// The key to spend, and until when it would be better left alone: of those that were not tried
/// and are well one by chance, or else the least bad.
fn best(door: &Door, ctx: &Context, now: Instant) -> Option<(Option<Instant>, usize)> {
    let (route, mounted) = (ctx.route.as_ref()?, ctx.provider.as_ref()?);
    let keyring = mounted.provider.keyring(&route.target);
    let model = ctx.model().unwrap_or_default();
    let mut best: Option<(Rank, usize)> = None;
    for (place, stored) in keyring.keys.iter().enumerate() {
        if stored.weight == 0 || stored.credential.is_err() {
            continue;
        }
        let until = mounted.key(&door.known, stored).health.standing(model, now);
        let finish = strategy::finish(caching::chance(), stored.weight);
        let rank = (is_tried(ctx, place), until, finish);
        if best.is_none_or(|(other, _)| rank < other) {
            best = Some((rank, place));
        }
    }
    best.map(|((_, until, _), place)| (until, place))
}

/// Until when the stored keys that a target may be paid with are better left alone; `None` when
/// one of them is well, or when none is spent.
pub fn cooled_until(door: &Door, target: &Target, now: Instant) -> Option<Instant> {
    let keyring = &target.mounted.provider.keyring;
    let pays = |key: &&StoredKey| match (&target.key, &keyring.pool) {
        (Some(alias), _) => key.alias == *alias,
        (None, Some(_)) => key.weight > 0,
        (None, None) => &*key.alias == "default",
    };
    let standing = |key| {
        target
            .mounted
            .key(&door.known, key)
            .health
            .standing(&target.model, now)
    };
    let mut first = None;
    // Those that cannot be used are not waited for: a call that wants one is refused at once.
    let usable = |key: &&StoredKey| key.credential.is_ok();
    for key in keyring.keys.iter().filter(pays).filter(usable) {
        let until = standing(key)?;
        first = Some(first.map_or(until, |first: Instant| first.min(until)));
    }
    first
}

/// Where a target is left for another, its keys are too.
pub fn forget(ctx: &mut Context) {
    ctx.attempt.key = None;
    ctx.attempt.keys_tried = 0;
}
