//! What a re-pricing found and did, in numbers.

use serde::{Deserialize, Serialize};

use super::{Kept, Money};
use crate::pricing::Cost;

/// Of all entries that were looked at. With a dry run it is what would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Entries that passed the filter.
    pub looked_at: u64,
    /// Those whose cost, source of cost, or saving is another now.
    pub changed: u64,
    /// Of these, those that had no price before.
    pub newly_priced: u64,
    /// Of these, those that have no price any more.
    pub now_unpriced: u64,
    /// Entries that are not priced by lists.
    pub left_alone: LeftAlone,
    /// What all of them cost.
    pub cost: BeforeAfter,
    /// What all of them saved.
    pub saved: BeforeAfter,
}

/// Entries that stay as they are, whatever the prices are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Their price was the client's own.
    pub custom_cost: u64,
    /// Nothing is known of their tokens.
    pub no_usage: u64,
    /// Their provider is configured no more, and no override has a price for them.
    pub unknown_provider: u64,
}

/// A sum of money in dollars, all digits of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // they say it
pub struct BeforeAfter {
    #[serde(with = "decimal")]
    pub before: Cost,
    #[serde(with = "decimal")]
    pub after: Cost,
}

impl LeftAlone {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.custom_cost + self.no_usage + self.unknown_provider
    }
}

impl Sums {
    /// Counts an entry: what it was, and what it becomes.
    pub(super) fn count(&mut self, before: &Money, after: &Result<Money, Kept>, cached: bool) {
        self.looked_at += 1;
        match after {
            Ok(after) if after != before => {
                self.changed += 1;
                // Of stored answers the price is what they saved.
                let is_priced = |money: &Money| match cached {
                    true => money.saved.is_some(),
                    false => money.cost.is_some(),
                };
                self.newly_priced += u64::from(!is_priced(before) && is_priced(after));
                self.now_unpriced += u64::from(is_priced(before) && !is_priced(after));
            }
            Ok(_) => {}
            Err(Kept::CustomCost) => self.left_alone.custom_cost += 1,
            Err(Kept::NoUsage) => self.left_alone.no_usage += 1,
            Err(Kept::UnknownProvider) => self.left_alone.unknown_provider += 1,
        }
        let after = after.as_ref().unwrap_or(before);
        self.cost.count(before.cost, after.cost);
        self.saved.count(before.saved, after.saved);
    }

    /// Adds those of other entries.
    pub fn add(&mut self, other: &Self) {
        // Exhaustive: a new number does not compile until it is added.
        let Self {
            looked_at,
            changed,
            newly_priced,
            now_unpriced,
            left_alone,
            cost,
            saved,
        } = other;
        self.looked_at += looked_at;
        self.changed += changed;
        self.newly_priced += newly_priced;
        self.now_unpriced += now_unpriced;
        self.left_alone.custom_cost += left_alone.custom_cost;
        self.left_alone.no_usage += left_alone.no_usage;
        self.left_alone.unknown_provider += left_alone.unknown_provider;
        self.cost.add(cost);
        self.saved.add(saved);
    }
}

impl BeforeAfter {
    fn count(&mut self, before: Option<i64>, after: Option<i64>) {
        let cost = |pico: Option<i64>| Cost(pico.unwrap_or(0).unsigned_abs());
        self.add(&Self {
            before: cost(before),
            after: cost(after),
        });
    }

    fn add(&mut self, other: &Self) {
        self.before = self.before.saturating_add(other.before);
        self.after = self.after.saturating_add(other.after);
    }
}

/// Money as a text of decimals: a JSON number would be read as a float, which has too few digits.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::pricing::Cost;

    pub fn serialize<S: Serializer>(cost: &Cost, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cost)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cost, D::Error> {
        let text = String::deserialize(deserializer)?;
        Cost::parse(&text).map_err(de::Error::custom)
    }
}
