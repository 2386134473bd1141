//! Money that is set aside for a call, until it is known what it costs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::account::Account;
use super::budgets::Shared;
use super::window::second;
use crate::pricing::Cost;

/// What is set aside for one call in all accounts that pay for it. Dropping it gives all of it back.
#[must_use = "dropping it gives the money back"]
pub struct Reservation {
    shared: Arc<Shared>,
    /// None of them twice.
    holds: Vec<Hold>,
}

/// What is left of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The rule.
    pub rule: Box<str>,
    /// Its limit.
    pub limit: Cost,
    /// What calls may still set aside.
    pub remaining: Cost,
}

pub(super) struct Hold {
    pub account: Arc<Account>,
    pub asked: u64,
    /// What was left with it set aside.
    pub left: Left,
}

impl Reservation {
    /// What is set aside already.
    pub(super) fn new(shared: &Arc<Shared>, holds: Vec<Hold>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, holds }
    }

    /// Whether no rule is about the call.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// What was left in each account when this was set aside.
    pub fn left(&self) -> impl Iterator<Item = &Left> {
        self.holds.iter().map(|hold| &hold.left)
    }

    /// The most that is set aside in one account.
    pub fn most(&self) -> Cost {
        let most = self.holds.iter().map(|hold| hold.asked).max();
        Cost(most.unwrap_or_default())
    }

    /// Books what the call really cost, in the windows of `now`, and gives the rest back. What is
    /// above what was set aside is booked too, and counted as an overrun.
    pub fn settle(mut self, cost: Cost, now: SystemTime) {
        let now = second(now);
        for hold in std::mem::take(&mut self.holds) {
            self.book(&hold, cost.0, now);
        }
    }

    /// Books all that is set aside.
    pub fn settle_whole(mut self, now: SystemTime) {
        let now = second(now);
        for hold in std::mem::take(&mut self.holds) {
            self.book(&hold, hold.asked, now);
        }
    }

    fn book(&self, hold: &Hold, cost: u64, now: i64) {
        let Hold { account, asked, .. } = hold;
        if cost > *asked {
            let counters = &self.shared.counters;
            counters.overruns.fetch_add(1, Ordering::Relaxed);
            counters.overrun.fetch_add(cost - asked, Ordering::Relaxed);
        }
        let mut state = account.state.lock();
        if cost == 0 {
            return state.free(*asked);
        }
        state.settle(*asked, cost, now);
        let was_listed = std::mem::replace(&mut state.is_listed, true);
        drop(state);
        if !was_listed {
            self.shared.accounts.list(account);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for hold in &self.holds {
            hold.account.state.lock().free(hold.asked);
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let holds = self.holds.iter().map(|hold| (&hold.account.id, hold.asked));
        out.debug_list().entries(holds).finish()
    }
}
