//! What happens to requests: they are counted, looked at, entered and settled.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::calls::Permit;
use super::rule::{Refused, Rule, Standing};
use super::state::{Place, Registry, State, Windows};
use super::window::Counts;
use crate::limits::facts::Facts;

/// A rule that is about a request, and where it counts it.
struct Entry<'a> {
    rule: &'a Rule,
    windows: &'a Windows,
    /// What time it is for its counters, and their slot.
    now: SystemTime,
    slot: u64,
    place: Place<'a>,
}

/// Counts one request with all these rules, or with none of them where one is full. Exact, however
/// many come at once: all counters are held while they are compared and raised, in the order of the
/// rules' states, so that nobody waits for somebody who waits.
pub fn take<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    registry: &Registry,
    facts: &Facts<'_>,
    now: SystemTime,
) -> Result<Option<Standing>, Refused> {
    let mut entries: Vec<_> = rules
        .filter_map(|rule| entry(rule, registry, facts, now))
        .collect();
    entries.sort_unstable_by_key(|entry| entry.windows.order);
    let mut held: Vec<Option<MutexGuard<'_, Counts>>> = Vec::with_capacity(entries.len());
    let mut least: Option<Standing> = None;
    for entry in &entries {
        let mut guard = entry.own().map(|own| own.lock());
        let standing = entry.standing(guard.as_deref_mut())?;
        least = tightest(least, Some(standing));
        held.push(guard);
    }
    for (entry, guard) in entries.iter().zip(held) {
        entry.add(guard, 1);
    }
    Ok(least)
}

/// Whether all these rules have something left, and which leaves least. Nothing is counted: what a
/// request takes is known at its end.
pub fn check<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    registry: &Registry,
    facts: &Facts<'_>,
    now: SystemTime,
) -> Result<Option<Standing>, Refused> {
    let mut least = None;
    for entry in rules.filter_map(|rule| entry(rule, registry, facts, now)) {
        let mut guard = entry.own().map(|own| own.lock());
        let counted = entry.standing(guard.as_deref_mut())?;
        let left = counted.left + 1;
        least = tightest(least, Some(Standing { left, ..counted }));
    }
    Ok(least)
}

/// Counts what a request has taken.
pub fn count(rule: &Rule, facts: &Facts<'_>, amount: u64, now: SystemTime) {
    // A rule that nobody has asked was about no request that took something.
    let state = rule.state.get().map(|state| &**state);
    let (Some(State::Windows(windows)), Some(key)) = (state, rule.key(facts)) else {
        return;
    };
    let slot = windows.window.slot(windows.moment(now));
    match windows.place(key, slot) {
        Place::Own(own) => own.lock().add(slot, amount),
        Place::Estimated(sketch, key) => sketch.add(key, slot, amount),
    }
}

/// Counts one call with all these rules until its permits are dropped, or with none of them.
pub fn enter<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    registry: &Registry,
    facts: &Facts<'_>,
) -> Result<Vec<Permit>, Refused> {
    let mut permits = Vec::new();
    for rule in rules {
        let State::Calls(calls) = &**rule.state(registry) else {
            continue;
        };
        if let Some(key) = rule.key(facts) {
            // Nobody knows when one ends.
            permits.push(
                calls
                    .enter(key, rule.limit)
                    .ok_or_else(|| rule.refused(0, 1))?,
            );
        }
    }
    Ok(permits)
}

/// The one of two rules that leaves less of its limit; the first where they leave as much.
pub fn tightest(one: Option<Standing>, other: Option<Standing>) -> Option<Standing> {
    match (one, other) {
        (Some(one), Some(other)) if is_tighter(&other, &one) => Some(other),
        (one, other) => one.or(other),
    }
}

fn is_tighter(one: &Standing, other: &Standing) -> bool {
    let share = |of: &Standing, by: &Standing| u128::from(of.left) * u128::from(by.limit);
    share(one, other) < share(other, one)
}

/// Where a rule counts a request; `None` if it is not about it, or has no window.
fn entry<'a>(
    rule: &'a Rule,
    registry: &Registry,
    facts: &Facts<'_>,
    now: SystemTime,
) -> Option<Entry<'a>> {
    let State::Windows(windows) = &**rule.state(registry) else {
        return None;
    };
    let now = windows.moment(now);
    let slot = windows.window.slot(now);
    let place = windows.place(rule.key(facts)?, slot);
    Some(Entry {
        rule,
        windows,
        now,
        slot,
        place,
    })
}

impl Entry<'_> {
    fn own(&self) -> Option<&Arc<Mutex<Counts>>> {
        match &self.place {
            Place::Own(own) => Some(own),
            Place::Estimated(..) => None,
        }
    }

    /// Where a request stands once it is counted, if there is room for it. `counts`: its own
    /// counter, held.
    fn standing(&self, counts: Option<&mut Counts>) -> Result<Standing, Refused> {
        let (used, leaves) = self.used(counts);
        let reset = self.windows.window.forgets(leaves, self.now);
        let limit = self.rule.limit;
        match limit.checked_sub(used).and_then(|left| left.checked_sub(1)) {
            None => Err(self.rule.refused(0, reset)),
            Some(left) => Ok(Standing { limit, left, reset }),
        }
    }

    /// What counts now, and the slot that must be forgotten before more is left.
    fn used(&self, counts: Option<&mut Counts>) -> (u64, u64) {
        let (window, slot) = (&self.windows.window, self.slot);
        let (used, leaves) = match (counts, &self.place) {
            (Some(counts), _) => {
                let used = counts.used(window, slot);
                let fewer = used.min(self.rule.limit).saturating_sub(1);
                (used, counts.leaves(fewer))
            }
            (None, Place::Estimated(sketch, key)) => {
                (sketch.used(*key, window, slot), window.first(slot))
            }
            // Own counters are held: nothing is known of one that is not.
            (None, Place::Own(_)) => (self.rule.limit, slot),
        };
        // Nothing counts yet: this request will be the first to be forgotten.
        let leaves = if used == 0 { slot } else { leaves };
        (used, leaves)
    }

    fn add(&self, counts: Option<MutexGuard<'_, Counts>>, amount: u64) {
        match (counts, &self.place) {
            (Some(mut counts), _) => counts.add(self.slot, amount),
            (None, Place::Estimated(sketch, key)) => sketch.add(*key, self.slot, amount),
            (None, Place::Own(_)) => {}
        }
    }
}
