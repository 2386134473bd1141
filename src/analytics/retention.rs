//! How long rows stay, and how they go: a little at a time, and a level only as far as the next
//! coarser one has been made of it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::counters::{Counters, add};
use super::marginals;
use super::schema::{self, Level};

/// Most rows of one transaction, but for those of one last minute, hour or day.
const ROWS_PER_STEP: usize = 5_000;
/// Most series of one transaction.
const SERIES_PER_STEP: i64 = 5_000;
/// Most pages given back to the file system at once.
const PAGES_PER_STEP: i64 = 1_000;

/// How long the rows of each level stay.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Seconds, by level.
    seconds: [i64; 3],
}

impl Kept {
    /// Minutes stay three hours at least and hours three days, so that what is made of them is
    /// made before they go; and no level goes before a finer one.
    pub fn new(minutes: Duration, hours: Duration, days: Duration) -> Self {
        let seconds = |kept: Duration| i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
        let minutes = seconds(minutes).max(3 * 3_600);
        let hours = seconds(hours).max(3 * 86_400).max(minutes);
        let days = seconds(days).max(hours);
        Self {
            seconds: [minutes, hours, days],
        }
    }

    fn of(self, level: Level) -> i64 {
        self.seconds[level as usize]
    }

    /// When the last row of a level and time is gone, in seconds since 1970.
    pub fn needed_until(self, level: Level, at: i64) -> i64 {
        // A level goes by whole units of the coarser one.
        let unit = level.coarser().unwrap_or(level).seconds();
        at.saturating_add(self.of(level)).saturating_add(2 * unit)
    }

    /// Before when rows of a level have no business any more.
    fn cutoff(self, level: Level, now: i64) -> i64 {
        let unit = level.coarser().unwrap_or(level);
        unit.start(now.saturating_sub(self.of(level))).max(0)
    }
}

/// Removes a little of what is too old; says whether there is more. `now` is in seconds since
/// 1970.
///
/// # Errors
/// SQLite's; nothing has changed then.
pub fn step(
    connection: &mut Connection,
    kept: Kept,
    now: i64,
    counters: &Counters,
) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut removed = 0;
    for level in Level::ALL {
        let since = advance(&transaction, kept, level, now)?;
        for dimension in marginals::numbers() {
            removed += remove(&transaction, level, dimension, since, removed)?;
        }
    }
    let series = transaction
        .prepare_cached(
            "DELETE FROM series WHERE id IN
             (SELECT id FROM series WHERE needed_until < ?1 LIMIT ?2)",
        )?
        .execute((now, SERIES_PER_STEP))?;
    transaction.commit()?;
    add(&counters.rows_expired, removed as u64);
    give_back(connection)?;
    Ok(removed > 0 || series > 0)
}

/// Moves the time since when rows of a level count, unless something is still to be made of
/// those before. Gives that time.
fn advance(connection: &Connection, kept: Kept, level: Level, now: i64) -> rusqlite::Result<i64> {
    let since = schema::since(connection, level)?;
    let cutoff = kept.cutoff(level, now);
    if cutoff <= since {
        return Ok(since);
    }
    if let Some(coarser) = level.coarser() {
        let unmade: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dirty WHERE level = ?1 AND at < ?2)")?
            .query_row((coarser.number(), cutoff), |row| row.get(0))?;
        if unmade {
            return Ok(since);
        }
    }
    connection
        .prepare_cached("UPDATE levels SET since = ?2 WHERE level = ?1")?
        .execute((level.number(), cutoff))?;
    Ok(cutoff)
}

/// Removes the oldest rows of a level and of a dimension or marginal, until there are enough for this step.
fn remove(
    connection: &Connection,
    level: Level,
    dimension: i64,
    since: i64,
    before: usize,
) -> rusqlite::Result<usize> {
    let table = level.table();
    let mut oldest = connection.prepare_cached(&format!(
        "SELECT at FROM {table} WHERE dimension = ?1 AND at < ?2 ORDER BY at LIMIT 1"
    ))?;
    let mut delete = connection.prepare_cached(&format!(
        "DELETE FROM {table} WHERE dimension = ?1 AND at = ?2"
    ))?;
    let mut removed = 0;
    while before + removed < ROWS_PER_STEP {
        let found: Option<i64> = oldest
            .query_row((dimension, since), |row| row.get(0))
            .optional()?;
        let Some(at) = found else { break };
        removed += delete.execute((dimension, at))?;
    }
    Ok(removed)
}

/// New rows take the place of old ones. Only where more than a quarter of the file lies free,
/// some of it goes back to the file system.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("freelist_count")? > pragma("page_count")? / 4 {
        let statement = format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})");
        let mut vacuum = connection.prepare(&statement)?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn no_level_goes_before_a_finer_one() {
        let kept = Kept::new(Duration::ZERO, Duration::ZERO, Duration::ZERO);
        assert_eq!(kept.seconds, [10_800, 259_200, 259_200]);
        let kept = Kept::new(DAY * 7, DAY, DAY * 2);
        assert_eq!(kept.seconds, [604_800; 3]);
        let kept = Kept::new(Duration::MAX, DAY, DAY);
        assert_eq!(kept.seconds, [i64::MAX; 3]);
        assert_eq!(kept.cutoff(Level::Minute, 5_000_000), 0);
        assert_eq!(kept.needed_until(Level::Minute, 60), i64::MAX);
    }

    #[test]
    fn rows_go_by_whole_units_of_the_coarser_level() {
        let kept = Kept::new(DAY, DAY * 10, DAY * 100);
        let now = 86_400 * 1_000 + 5_000;
        assert_eq!(kept.cutoff(Level::Minute, now), 86_400 * 999 + 3_600);
        assert_eq!(kept.cutoff(Level::Hour, now), 86_400 * 990);
        for level in Level::ALL {
            let at = kept.cutoff(level, now);
            assert!(kept.needed_until(level, at) > now, "{level:?}");
        }
    }
}
