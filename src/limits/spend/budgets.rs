//! The budgets of the process: what calls set aside, and what is left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use parking_lot::MutexGuard;

use super::account::{AccountId, Scope};
use super::accounts::{Accounts, Found, MOST};
use super::exceeded::{Exceeded, Lack};
use super::reservation::{Hold, Left, Reservation};
use super::rule::Rule;
use super::state::State;
use super::store::{Options, Store};
use super::window::second;
use crate::limits::facts::Facts;
use crate::pricing::Cost;

/// What a rule is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Whose rule.
    pub scope: &'a Scope,
    /// The rule. Its id stands once in its scope.
    pub rule: &'a Rule,
    /// What the call can cost at most, as far as this rule assumes.
    pub cost: Cost,
}

/// All budgets of the process. They outlive configurations: an account is the same for as long as the
/// id of its rule is.
#[derive(Debug)]
pub struct Budgets {
    pub(super) shared: Arc<Shared>,
    store: Option<Store>,
}

/// What those have who work on the same budgets.
#[derive(Debug)]
pub(super) struct Shared {
    pub accounts: Accounts,
    pub counters: Counters,
}

/// What budgets did, since the start; gauges are marked.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that cost more than was set aside for them.
    pub overruns: AtomicU64,
    /// By so many pico-dollars together.
    pub overrun: AtomicU64,
    /// Failures of the store.
    pub errors: AtomicU64,
    /// Gauge: 1 while nothing is stored because the file is full, broken or not writable.
    pub alarm: AtomicU64,
}

/// An account that must have room, in the order in which accounts are locked.
struct Wanted<'a> {
    found: Found,
    ask: &'a Ask<'a>,
    /// The rule's place among those that were asked.
    place: usize,
}

impl Budgets {
    /// Opens the budgets of a directory, which is made when it is missing, and starts what stores
    /// them. A file that cannot be opened raises the alarm and is tried again: until then budgets
    /// are in memory only.
    ///
    /// # Errors
    /// Of the thread that could not be started.
    pub fn open(dir: &Path, options: Options) -> std::io::Result<Self> {
        let mut budgets = Self::in_memory();
        budgets.store = Some(Store::open(dir, options, &budgets.shared)?);
        Ok(budgets)
    }

    /// Budgets that end with the process.
    pub fn in_memory() -> Self {
        Self::with_at_most(MOST)
    }

    /// The same; clients may make up so many accounts.
    pub(super) fn with_at_most(most: usize) -> Self {
        let shared = Shared {
            accounts: Accounts::new(most),
            counters: Counters::default(),
        };
        Self {
            shared: Arc::new(shared),
            store: None,
        }
    }

    /// Forgets accounts that hold nothing and whose money counts no more.
    pub fn sweep(&self, now: SystemTime) {
        self.shared.accounts.sweep(second(now));
    }

    /// Sets aside what a call can cost at most, in every account that pays for it or in none: what
    /// is spent and set aside there, and this, are at most its limit. Rules that are not about the
    /// call are passed over. Waits for nothing but other threads that do the same.
    ///
    /// # Errors
    /// Says which rule, of those in order the first, has no room.
    pub fn reserve(
        &self,
        asks: &[Ask<'_>],
        facts: &Facts<'_>,
        now: SystemTime,
    ) -> Result<Reservation, Box<Exceeded>> {
        let now = second(now);
        let mut wanted = Vec::new();
        for (place, ask) in asks.iter().enumerate() {
            if let Some(found) = self.account(ask, facts, now)? {
                wanted.push(Wanted { found, ask, place });
            }
        }
        // All calls lock accounts in the same order, so none waits for one that waits for it.
        wanted.sort_unstable_by(|one, other| one.id().cmp(other.id()));
        wanted.dedup_by(|one, other| one.id() == other.id());
        let left = hold_all(&wanted, facts, now)?;
        let holds = wanted.into_iter().zip(left).map(|(wanted, left)| Hold {
            account: wanted.found.account,
            asked: wanted.ask.cost.0,
            left,
        });
        Ok(Reservation::new(&self.shared, holds.collect()))
    }

    /// The account that pays, if the rule is about the call.
    fn account(
        &self,
        ask: &Ask<'_>,
        facts: &Facts<'_>,
        now: i64,
    ) -> Result<Option<Found>, Box<Exceeded>> {
        let Ask { scope, rule, .. } = ask;
        let Some(partition) = rule.partition(facts) else {
            return Ok(None);
        };
        let id = AccountId {
            scope: (*scope).clone(),
            rule: rule.id.clone(),
            partition,
        };
        let accounts = &self.shared.accounts;
        let found = accounts.get_or_make(id, rule.window, rule.limit.0, now);
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(Box::new(no_room(ask, facts, now))),
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How many accounts there are that clients made up; at most [`MOST`].
    pub fn made_up(&self) -> usize {
        self.shared.accounts.made_up()
    }

    /// What stores them, if something does.
    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }
}

impl Wanted<'_> {
    fn id(&self) -> &AccountId {
        &self.found.account.id
    }

    fn cost(&self) -> u64 {
        self.ask.cost.0
    }
}

/// Looks into all accounts and then takes from all, while nobody else can. Says what is left in each.
fn hold_all(
    wanted: &[Wanted<'_>],
    facts: &Facts<'_>,
    now: i64,
) -> Result<Vec<Left>, Box<Exceeded>> {
    let locked = wanted.iter().map(|wanted| {
        let mut state = wanted.found.account.state.lock();
        let rule = wanted.ask.rule;
        state.follow(rule.window, rule.limit.0, now);
        (wanted, state)
    });
    let mut locked: Vec<(&Wanted<'_>, MutexGuard<'_, State>)> = locked.collect();
    let lacking = locked.iter().filter(|(wanted, state)| {
        let elders = &wanted.found.elders;
        !state.fits(wanted.cost(), elders, now)
    });
    if let Some((wanted, state)) = lacking.min_by_key(|(wanted, _)| wanted.place) {
        return Err(Box::new(exceeded(wanted, state, facts, now)));
    }
    let held = locked.iter_mut().map(|(wanted, state)| {
        state.hold(wanted.cost());
        let rule = wanted.ask.rule;
        let look = state.look(&wanted.found.elders, now);
        Left {
            rule: rule.id.clone(),
            limit: rule.limit,
            remaining: Cost(look.remaining),
        }
    });
    Ok(held.collect())
}

fn exceeded(wanted: &Wanted<'_>, state: &State, facts: &Facts<'_>, now: i64) -> Exceeded {
    let look = state.look(&wanted.found.elders, now);
    Exceeded {
        spent: Cost(look.spent),
        reserved: Cost(look.held.saturating_add(look.elsewhere)),
        remaining: Cost(look.remaining),
        retry_after: state.fits_in(wanted.cost(), now),
        ..refusal(wanted.ask, facts, Lack::Money)
    }
}

fn no_room(ask: &Ask<'_>, facts: &Facts<'_>, now: i64) -> Exceeded {
    let turn = ask.rule.window.span(now).end - now;
    Exceeded {
        retry_after: Some(u64::try_from(turn).unwrap_or_default().max(1)),
        ..refusal(ask, facts, Lack::Room)
    }
}

fn refusal(ask: &Ask<'_>, facts: &Facts<'_>, lack: Lack) -> Exceeded {
    let Ask { scope, rule, cost } = ask;
    Exceeded {
        scope: (*scope).clone(),
        rule: rule.id.clone(),
        lack,
        limit: rule.limit,
        window: rule.window,
        spent: Cost::ZERO,
        reserved: Cost::ZERO,
        asked: *cost,
        remaining: Cost::ZERO,
        retry_after: None,
        provider: facts.provider.unwrap_or_default().into(),
        model: facts.model.map(Into::into),
    }
}
