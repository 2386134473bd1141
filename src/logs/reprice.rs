//! Prices stored entries again, by the prices of another configuration: a step of bounded time
//! per call, from a place in the table on, so that whoever calls can stop at any time.
//!
//! Entries are walked in the table's own order of time, all of them within the filter's dates, so
//! that a step always gets somewhere, however rare what passes the filter is. They are read by a
//! connection that can only read, and changed on the writer's thread, a few at a time: new entries
//! are written in between.
//!
//! What an entry costs is decided by [`Prices`] from the same facts as at the end of its request;
//! without a change of prices nothing changes. Metrics are not touched: they are counters.

mod row;
mod sums;

use std::time::{Duration, Instant};

use ahash::AHashMap;
use rusqlite::TransactionBehavior;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::filter::Filter;
use super::query::{Repricing, shown_cursor};
use super::reader::Scope;
use super::schema;
use super::store::Store;
use super::times;
use super::writer::Database;
use crate::gateway::Snapshot;
use crate::pricing::{CostSource, Prices, Sale};

use row::{Money, Row, Walk};
pub use sums::{BeforeAfter, LeftAlone, Sums};

/// Entries walked at a time, and so most of one transaction: some tens of milliseconds.
const BATCH: usize = 1_000;

/// What entries are priced by.
#[derive(Debug)]
pub struct Book<'a> {
    prices: &'a Prices,
    /// The provider's id in the catalogue, if it has one, of every provider there is.
    providers: AHashMap<&'a str, Option<&'a str>>,
}

impl<'a> Book<'a> {
    /// The prices of a configuration.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let gateways = snapshot
            .accounts
            .values()
            .flat_map(|account| account.values());
        let mounted = gateways.flat_map(|gateway| gateway.providers.values());
        let providers = mounted.map(|mounted| {
            let provider = &mounted.provider;
            (&*provider.slug, provider.prices.as_deref())
        });
        Self {
            prices: &snapshot.prices,
            providers: providers.collect(),
        }
    }
}

/// What one call did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Of the entries that this call looked at.
    #[serde(flatten)]
    pub sums: Sums,
    /// Nothing was changed.
    pub dry_run: bool,
    /// When the last entry that it came to began.
    pub reached: Option<String>,
    /// For the next call; `None` when there is nothing left to do.
    pub cursor: Option<String>,
}

impl Store {
    /// Prices entries again until the budget of time is spent, or all are. Blocks.
    ///
    /// # Errors
    /// The store cannot be read or written. What was done before is done, and told first: the
    /// error is that of a call that did nothing.
    pub fn reprice(
        &self,
        scope: &Scope,
        repricing: &Repricing,
        book: &Book<'_>,
        budget: Duration,
    ) -> Result<Step, String> {
        let end = Instant::now() + budget;
        let mut walk = Walk::new(self.dir(), scope, &repricing.filter, repricing.cursor)?;
        let mut step = Step {
            dry_run: repricing.dry_run,
            ..Step::default()
        };
        loop {
            match self.batch(&mut walk, book, repricing.dry_run) {
                Ok(sums) => step.sums.add(&sums),
                Err(error) if step.reached.is_none() => return Err(error),
                Err(_) => return Ok(step),
            }
            step.came_to(&walk);
            if walk.ended || Instant::now() >= end {
                return Ok(step);
            }
        }
    }

    fn batch(&self, walk: &mut Walk, book: &Book<'_>, dry_run: bool) -> Result<Sums, String> {
        let rows = walk.next(BATCH)?;
        let mut sums = Sums::default();
        let mut changes = Vec::new();
        for row in rows {
            let verdict = again(&row, book);
            sums.count(&row.money, &verdict, row.cached);
            match verdict {
                Ok(money) if money != row.money => changes.push(Change {
                    key: row.key,
                    id: row.id,
                    money,
                }),
                _ => {}
            }
        }
        if !dry_run && !changes.is_empty() {
            self.run(move |database| write(database, &changes).map_err(|error| error.to_string()))?;
        }
        walk.done();
        Ok(sums)
    }
}

impl Step {
    fn came_to(&mut self, walk: &Walk) {
        let time = |key| times::shown(schema::key_milliseconds(key));
        self.reached = walk.last.map(time).or(self.reached.take());
        self.cursor = walk.last.filter(|_| !walk.ended).map(shown_cursor);
    }
}

/// Why an entry stays as it is, whatever the prices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Its price is the client's own, which is not kept.
    CustomCost,
    /// Nothing is known of its tokens.
    NoUsage,
    /// Its provider is configured no more, and no override has a price for it.
    UnknownProvider,
}

/// What an entry costs by these prices.
fn again(row: &Row, book: &Book<'_>) -> Result<Money, Kept> {
    if row.custom_cost {
        return Err(Kept::CustomCost);
    }
    let usage = row.usage.as_ref().ok_or(Kept::NoUsage)?;
    let provider = row.provider.as_deref();
    let known = provider.and_then(|provider| book.providers.get(provider));
    let sale = provider.map(|provider| Sale {
        provider,
        id: known.copied().flatten(),
        answered: row.answered.as_deref(),
        asked: row.asked.as_deref(),
        tier: row.tier,
        at: row.at,
    });
    let bill = if row.cached {
        book.prices.given_again(sale, Some(usage))
    } else {
        book.prices.bought(sale, usage, None)
    };
    let priceless = bill.source == CostSource::Unpriced || (row.cached && bill.saved.is_none());
    match known.is_none() && priceless {
        true => Err(Kept::UnknownProvider),
        false => Ok(Money::of(&bill)),
    }
}

/// What becomes of an entry.
struct Change {
    key: i64,
    id: Uuid,
    money: Money,
}

/// Within one transaction. Entries that are gone stay gone.
fn write(database: &mut Database, changes: &[Change]) -> rusqlite::Result<()> {
    let written = try_write(database, changes);
    match written {
        Ok(()) => database.words.committed(),
        Err(_) => database.words.rolled_back(),
    }
    written
}

fn try_write(database: &mut Database, changes: &[Change]) -> rusqlite::Result<()> {
    let Database {
        connection, words, ..
    } = database;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut update = transaction.prepare_cached(
        "UPDATE entries SET cost = ?3, saved = ?4, cost_source = ?5 WHERE key = ?1 AND id = ?2",
    )?;
    for Change { key, id, money } in changes {
        let source = money.source.as_deref();
        let source = source.map(|source| words.word(&transaction, source));
        let id = &id.as_bytes()[..];
        update.execute((key, id, money.cost, money.saved, source.transpose()?))?;
    }
    drop(update);
    transaction.commit()
}
