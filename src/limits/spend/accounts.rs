//! All accounts of the process, found by name: many small maps with a lock each, held for a look-up
//! and never while anything waits.
//!
//! There are at most [`MOST`] accounts that clients make up; those that hold nothing and whose money
//! counts no more go first. What is spent is never forgotten: beyond that, made-up names are refused.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::{AHashSet, RandomState};
use parking_lot::Mutex;

use super::account::{Account, AccountId};
use super::state::{Elder, Figures, State, parts_of};
use super::window::Window;

/// Most accounts that clients can make up. Each takes some 400 bytes, or 1.5 KB where several long
/// values make its name.
pub const MOST: usize = 100_000;

/// Most names of one map that are remembered until they are removed from the store, which may be out
/// of order; those beyond are there still at the next start.
const MOST_REMOVED: usize = 4 * MOST / SHARDS;

/// So many maps. A power of two.
const SHARDS: usize = 64;

/// All accounts.
#[derive(Debug)]
pub struct Accounts {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// How many clients made up.
    open: AtomicUsize,
    most: usize,
}

/// Some of the accounts.
#[derive(Debug, Default)]
struct Shard {
    accounts: AHashSet<Named>,
    /// Those that changed since they were written.
    changed: Vec<Arc<Account>>,
    /// Those that are gone and may be written still.
    removed: Vec<AccountId>,
    sharing: Sharing,
    /// The second in which it was looked for worthless accounts.
    swept: i64,
}

/// What part of limits this process has of accounts that it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Processes that were there before, and have their parts.
    pub elders: Arc<[Elder]>,
    /// It is not the newest process: its part of [`WHOLE`](super::state::WHOLE).
    pub parts: Option<u32>,
}

/// An account, and who had a part of it when it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The account.
    pub account: Arc<Account>,
    /// Since then there may be fewer.
    pub elders: Arc<[Elder]>,
}

/// An account in a map, found by its name.
#[derive(Debug)]
struct Named(Arc<Account>);

impl Borrow<AccountId> for Named {
    fn borrow(&self) -> &AccountId {
        &self.0.id
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Named {}

impl Accounts {
    /// No accounts yet; `most` of them may be made up by clients.
    pub fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default());
        Self {
            shards: shards.collect(),
            hasher: RandomState::new(),
            open: AtomicUsize::new(0),
            most,
        }
    }

    /// The account of that name, made if need be; `None` if there are too many.
    pub fn get_or_make(
        &self,
        id: AccountId,
        window: Window,
        limit: u64,
        now: i64,
    ) -> Option<Found> {
        let mut shard = self.shard(&id).lock();
        let elders = Arc::clone(&shard.sharing.elders);
        if let Some(Named(account)) = shard.accounts.get(&id) {
            let account = Arc::clone(account);
            return Some(Found { account, elders });
        }
        if id.is_open() && !self.has_room(&mut shard, now) {
            return None;
        }
        let slice = shard.sharing.parts.map(|parts| parts_of(limit, parts));
        let account = self.insert(&mut shard, id, State::new(window, limit, slice));
        Some(Found { account, elders })
    }

    /// Whether one more may be made up.
    fn has_room(&self, shard: &mut Shard, now: i64) -> bool {
        if self.open.load(Ordering::Relaxed) < self.most {
            return true;
        }
        self.sweep_once(shard, now)
            || self.shards.iter().any(|other| {
                // Never waits: this thread has a lock already.
                let other = other.try_lock();
                other.is_some_and(|mut other| self.sweep_once(&mut other, now))
            })
    }

    /// Looks once in a second; says whether there is room then.
    fn sweep_once(&self, shard: &mut Shard, now: i64) -> bool {
        shard.swept != now
            && self.sweep_shard(shard, now) > 0
            && self.open.load(Ordering::Relaxed) < self.most
    }

    fn insert(&self, shard: &mut Shard, id: AccountId, state: State) -> Arc<Account> {
        if id.is_open() {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        let account = Account::new(id, state);
        shard.accounts.insert(Named(Arc::clone(&account)));
        // Others must learn what this process has of it.
        if shard.sharing.parts.is_some() {
            account.state.lock().is_listed = true;
            shard.changed.push(Arc::clone(&account));
        }
        account
    }

    /// Changes an account that is there, or puts one there as `make` has it, whatever their number.
    /// `make` is told the part of limits that this process has of accounts that it does not know,
    /// where it is not the newest.
    pub fn change(
        &self,
        id: AccountId,
        change: impl FnOnce(&mut State),
        make: impl FnOnce(Option<u32>) -> State,
    ) {
        let mut shard = self.shard(&id).lock();
        if let Some(Named(account)) = shard.accounts.get(&id) {
            return change(&mut account.state.lock());
        }
        let parts = shard.sharing.parts;
        self.insert(&mut shard, id, make(parts));
    }

    /// The account has changed and is to be written.
    pub fn list(&self, account: &Arc<Account>) {
        let mut shard = self.shard(&account.id).lock();
        shard.changed.push(Arc::clone(account));
    }

    /// What an account looks like.
    pub fn peek(&self, id: &AccountId) -> Option<State> {
        let shard = self.shard(id).lock();
        let Named(account) = shard.accounts.get(id)?;
        Some(account.state.lock().clone())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.lock().accounts.is_empty())
    }

    /// Takes what is to be written: names that are gone, and accounts as they are once `before` is
    /// done to them.
    pub fn take_changed(
        &self,
        mut before: impl FnMut(&mut State),
    ) -> (Vec<AccountId>, Vec<(Arc<Account>, Figures)>) {
        let (mut removed, mut changed) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let mut shard = shard.lock();
            removed.append(&mut shard.removed);
            changed.append(&mut shard.changed);
        }
        let figures = changed.into_iter().map(|account: Arc<Account>| {
            let mut state = account.state.lock();
            before(&mut state);
            state.is_listed = false;
            let figures = state.figures();
            drop(state);
            (account, figures)
        });
        (removed, figures.collect())
    }

    /// Puts back what could not be written.
    pub fn put_back(&self, removed: Vec<AccountId>, changed: Vec<(Arc<Account>, Figures)>) {
        for id in removed {
            let mut shard = self.shard(&id).lock();
            shard.removed.push(id);
        }
        for (account, _) in changed {
            let was_listed = std::mem::replace(&mut account.state.lock().is_listed, true);
            if !was_listed {
                self.list(&account);
            }
        }
    }

    /// Forgets accounts that are worth nothing.
    pub fn sweep(&self, now: i64) {
        for shard in &self.shards {
            self.sweep_shard(&mut shard.lock(), now);
        }
    }

    fn sweep_shard(&self, shard: &mut Shard, now: i64) -> usize {
        shard.swept = now;
        // While budgets are shared others count on what is said of each.
        if shard.sharing != Sharing::default() {
            return 0;
        }
        let Shard {
            accounts,
            changed,
            removed,
            ..
        } = shard;
        let mut gone = 0;
        accounts.retain(|Named(account)| {
            let mut state = account.state.lock();
            // Nobody else has it, and nobody can get it without this shard's lock.
            let is_free = Arc::strong_count(account) == 1 + usize::from(state.is_listed);
            let is_worthless = is_free && state.is_worthless(now);
            if is_worthless {
                gone += 1;
                if removed.len() < MOST_REMOVED {
                    removed.push(account.id.clone());
                }
                let made_up = usize::from(account.id.is_open());
                self.open.fetch_sub(made_up, Ordering::Relaxed);
            }
            !is_worthless
        });
        if gone > 0 {
            changed.retain(|account| accounts.contains(&account.id));
        }
        gone
    }

    /// From now on limits are shared so. `change` is done to every account at the same time; where
    /// it says so, the account is written.
    pub fn share(&self, sharing: &Sharing, mut change: impl FnMut(&mut State) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.sharing = sharing.clone();
            let Shard {
                accounts, changed, ..
            } = &mut *shard;
            for Named(account) in &*accounts {
                let mut state = account.state.lock();
                if change(&mut state) && !std::mem::replace(&mut state.is_listed, true) {
                    changed.push(Arc::clone(account));
                }
            }
        }
    }

    /// How limits are shared.
    pub fn sharing(&self) -> Sharing {
        let first = self.shards.first();
        first.map_or_else(Sharing::default, |shard| shard.lock().sharing.clone())
    }

    /// All accounts of which `wanted` says so.
    pub fn all(&self, wanted: impl Fn(&AccountId) -> bool) -> Vec<Found> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let accounts = shard.accounts.iter().map(|Named(account)| account);
            let found = accounts
                .filter(|account| wanted(&account.id))
                .map(|account| Found {
                    account: Arc::clone(account),
                    elders: Arc::clone(&shard.sharing.elders),
                });
            all.extend(found);
        }
        all
    }

    /// How many of them clients made up.
    pub fn made_up(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn shard(&self, id: &AccountId) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(id);
        // `SHARDS` is a power of two.
        &self.shards[hash as usize & (SHARDS - 1)]
    }
}
