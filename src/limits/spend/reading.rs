//! What is left, for those who look: the management API, and metrics.

use std::time::SystemTime;

use super::account::{AccountId, Scope};
use super::accounts::Found;
use super::budgets::Budgets;
use super::rule::{Partition, Rule};
use super::state::Look;
use super::window::{Window, second, time};
use crate::pricing::Cost;

/// One account at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whose rule.
    pub scope: Scope,
    /// Its id.
    pub rule: Box<str>,
    /// For which values, with the names of their fields; empty where the rule has one account.
    pub partition: Partition,
    /// The rule's, as its last call found it.
    pub limit: Cost,
    /// The rule's, as its last call found it.
    pub window: Window,
    /// What counts as spent.
    pub spent: Cost,
    /// What is set aside for calls that run, or left to another process while one takes over from
    /// another.
    pub reserved: Cost,
    /// What calls may still set aside.
    pub remaining: Cost,
    /// When the window turns.
    pub ends: SystemTime,
}

impl Budgets {
    /// All accounts that were ever used and are not forgotten, in order.
    pub fn readings(&self, now: SystemTime) -> Vec<Reading> {
        self.readings_of(now, |_| true)
    }

    /// Those of one scope.
    pub fn readings_in(&self, scope: &Scope, now: SystemTime) -> Vec<Reading> {
        self.readings_of(now, |id| id.scope == *scope)
    }

    /// Those that clients cannot make up: as many as there are rules, providers, keys and owners.
    pub fn bounded_readings(&self, now: SystemTime) -> Vec<Reading> {
        self.readings_of(now, |id| !id.is_open())
    }

    fn readings_of(&self, now: SystemTime, wanted: impl Fn(&AccountId) -> bool) -> Vec<Reading> {
        let found = self.shared.accounts.all(wanted);
        let mut readings: Vec<_> = found.iter().map(|found| reading(found, now)).collect();
        readings.sort_unstable_by(|one, other| one.name().cmp(&other.name()));
        readings
    }
}

impl Reading {
    /// Of an account that nothing was spent from.
    pub fn untouched(scope: &Scope, rule: &Rule, now: SystemTime) -> Self {
        Self {
            scope: scope.clone(),
            rule: rule.id.clone(),
            partition: Partition::default(),
            limit: rule.limit,
            window: rule.window,
            spent: Cost::ZERO,
            reserved: Cost::ZERO,
            remaining: rule.limit,
            ends: time(rule.window.span(second(now)).end),
        }
    }

    fn name(&self) -> (&Scope, &str, &Partition) {
        (&self.scope, &self.rule, &self.partition)
    }
}

fn reading(found: &Found, now: SystemTime) -> Reading {
    let AccountId {
        scope,
        rule,
        partition,
    } = &found.account.id;
    let now = second(now);
    let look = found.account.state.lock().look(&found.elders, now);
    let Look {
        window,
        limit,
        spent,
        held,
        elsewhere,
        remaining,
        end,
    } = look;
    Reading {
        scope: scope.clone(),
        rule: rule.clone(),
        partition: partition.clone(),
        limit: Cost(limit),
        window,
        spent: Cost(spent),
        reserved: Cost(held.saturating_add(elsewhere)),
        remaining: Cost(remaining),
        ends: time(end),
    }
}
