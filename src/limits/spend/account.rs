//! What accounts are called, and how one is found again after a reload or a restart.

use std::sync::Arc;

use parking_lot::Mutex;

use super::rule::Partition;
use super::state::State;

/// Whose rules these are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A gateway's, which is called `account/id`.
    Gateway(Box<str>),
    /// Those of a key of our own, by its id.
    Key(Box<str>),
}

/// What an account is found by: it stays the same whatever else of its rule changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    /// Whose rule.
    pub scope: Scope,
    /// The rule's id.
    pub rule: Box<str>,
    /// For which values.
    pub partition: Partition,
}

/// One budget.
#[derive(Debug)]
pub struct Account {
    /// What it is found by.
    pub id: AccountId,
    /// Its money.
    pub state: Mutex<State>,
}

impl Scope {
    /// What kind it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Key(_) => "key",
        }
    }

    /// Which of them.
    pub fn name(&self) -> &str {
        match self {
            Self::Gateway(name) | Self::Key(name) => name,
        }
    }

    /// What [`Scope::kind`] and [`Scope::name`] said.
    pub fn from_words(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "gateway" => Some(Self::Gateway(name.into())),
            "key" => Some(Self::Key(name.into())),
            _ => None,
        }
    }
}

impl AccountId {
    /// Whether clients can make up such accounts.
    pub fn is_open(&self) -> bool {
        let closed = |name: &str| matches!(name, "provider" | "key" | "owner");
        !self.partition.iter().all(|(name, _)| closed(name))
    }
}

impl Account {
    /// An account of that name.
    pub fn new(id: AccountId, state: State) -> Arc<Self> {
        let state = Mutex::new(state);
        Arc::new(Self { id, state })
    }
}
