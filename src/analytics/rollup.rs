//! Hours out of minutes, and days out of hours.
//!
//! An hour is made anew from all its minutes whenever one of them was written since (`dirty` in
//! [`super::schema`]), never added to: so it does not matter how often it is made, by which
//! process, or at which instruction the process before died. Each is one transaction, of one hour
//! or day of one dimension; that of calls writes the marginals too.

use ahash::AHashMap;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::counters::{Counters, add};
use super::figures::Figures;
use super::ids::Ids;
use super::marginals::Marginal;
use super::retention::Kept;
use super::schema::{self, Level};
use super::series::{Dimension, of_text};
use super::table::Table;

/// Seconds after the end of an hour or day before it is made: writers are done with it then.
const GRACE: i64 = 90;

/// An hour or day that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    level: Level,
    dimension: Dimension,
    at: i64,
}

/// Makes one hour or day, if one is over and not made; says whether it did. `now` is in seconds
/// since 1970.
///
/// # Errors
/// SQLite's; nothing has changed then.
pub fn step(
    connection: &mut Connection,
    ids: &mut Ids,
    kept: Kept,
    now: i64,
    counters: &Counters,
) -> rusqlite::Result<bool> {
    if due(connection, now)?.is_none() {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let Some(task) = due(&transaction, now)? else {
        return Ok(true);
    };
    let made = make(&transaction, ids, kept, task, counters);
    match made.and_then(|()| transaction.commit()) {
        Ok(()) => add(&counters.rollups, 1),
        Err(error) => {
            ids.clear();
            return Err(error);
        }
    }
    Ok(true)
}

/// The first that is due: hours, then days of which no hour is missing.
fn due(connection: &Connection, now: i64) -> rusqlite::Result<Option<Task>> {
    let over = |level: Level| now.saturating_sub(GRACE).saturating_sub(level.seconds());
    let found = connection
        .prepare_cached(
            "SELECT level, dimension, at FROM dirty AS one
             WHERE (level = 1 AND at <= ?1) OR (level = 2 AND at <= ?2 AND NOT EXISTS (
                 SELECT 1 FROM dirty AS hour
                 WHERE hour.level = 1 AND hour.dimension = one.dimension
                 AND hour.at >= one.at AND hour.at < one.at + 86400
             ))
             LIMIT 1",
        )?
        .query_row((over(Level::Hour), over(Level::Day)), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(found.and_then(|(level, dimension, at): (i64, i64, i64)| {
        Some(Task {
            level: if level == 1 { Level::Hour } else { Level::Day },
            dimension: Dimension::of_number(dimension)?,
            at,
        })
    }))
}

fn make(
    transaction: &Transaction<'_>,
    ids: &mut Ids,
    kept: Kept,
    task: Task,
    counters: &Counters,
) -> rusqlite::Result<()> {
    let Some(finer) = task.level.finer() else {
        return Ok(());
    };
    // What it would be made of may be gone: then it stays as it is.
    if task.at >= schema::since(transaction, finer)? {
        let sums = sums(transaction, finer, task, counters)?;
        let sums = bounded(transaction, ids, kept, task, sums)?;
        let needed_until = kept.needed_until(task.level, task.at);
        for (series, _) in &sums {
            Ids::keep(transaction, *series, needed_until)?;
        }
        replace(transaction, task, task.dimension.number(), &sums)?;
        if task.dimension == Dimension::Calls {
            replace_marginals(transaction, ids, task, &sums, needed_until)?;
        }
        if let Some(coarser) = task.level.coarser() {
            schema::mark_dirty(transaction, coarser, task.dimension, task.at)?;
        }
    }
    transaction
        .prepare_cached("DELETE FROM dirty WHERE level = ?1 AND dimension = ?2 AND at = ?3")?
        .execute((task.level.number(), task.dimension.number(), task.at))?;
    Ok(())
}

/// The figures of each series.
fn sums(
    transaction: &Transaction<'_>,
    finer: Level,
    task: Task,
    counters: &Counters,
) -> rusqlite::Result<AHashMap<i64, Figures>> {
    let mut select = transaction.prepare_cached(&format!(
        "SELECT series, figures FROM {} WHERE dimension = ?1 AND at >= ?2 AND at < ?3",
        finer.table()
    ))?;
    let until = task.at + task.level.seconds();
    let mut rows = select.query((task.dimension.number(), task.at, until))?;
    let mut sums = AHashMap::<i64, Figures>::new();
    let mut one = Figures::default();
    while let Some(row) = rows.next()? {
        let blob = row.get_ref(1)?.as_blob().unwrap_or_default();
        match one.decode_into(blob) {
            Ok(()) => sums.entry(row.get(0)?).or_default().add(&one),
            Err(damaged) => {
                add(&counters.rows_damaged, 1);
                log::error!(
                    "analytics: a row of {} is left out: {damaged}",
                    finer.table()
                );
            }
        }
    }
    Ok(sums)
}

/// As many series as there may be: those with the most requests. The others are counted together,
/// as those of a minute are that come too late.
fn bounded(
    transaction: &Transaction<'_>,
    ids: &mut Ids,
    kept: Kept,
    task: Task,
    sums: AHashMap<i64, Figures>,
) -> rusqlite::Result<Vec<(i64, Figures)>> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    if sums.len() <= task.dimension.limits().series {
        return Ok(sums);
    }
    sums.sort_unstable_by_key(|(id, figures)| (std::cmp::Reverse(figures.requests), *id));
    let mut table = Table::new(task.dimension);
    for (id, figures) in sums {
        let name = name(transaction, id)?;
        let name: Vec<&str> = name.iter().map(String::as_str).collect();
        table.figures(&name).add(&figures);
    }
    let needed_until = kept.needed_until(task.level, task.at);
    let rows = table.rows().iter().map(|row| {
        let id = ids.id(transaction, task.dimension, &row.key, needed_until)?;
        Ok((id, row.figures.clone()))
    });
    rows.collect()
}

/// The name of a series.
fn name(connection: &Connection, id: i64) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare_cached("SELECT name FROM series WHERE id = ?1")?;
    let text: Option<String> = select.query_row([id], |row| row.get(0)).optional()?;
    Ok(of_text(text.as_deref().unwrap_or_default()))
}

/// Writes the rows of an hour or day in the place of those that were there: of the dimension, or
/// of the marginal, that has this number.
fn replace(
    transaction: &Transaction<'_>,
    task: Task,
    number: i64,
    sums: &[(i64, Figures)],
) -> rusqlite::Result<()> {
    let table = task.level.table();
    transaction
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE dimension = ?1 AND at = ?2"
        ))?
        .execute((number, task.at))?;
    let mut insert =
        transaction.prepare_cached(&format!("INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5)"))?;
    for (series, figures) in sums {
        let requests = i64::try_from(figures.requests).unwrap_or(i64::MAX);
        insert.execute((number, task.at, series, requests, figures.encode()))?;
    }
    Ok(())
}

/// Writes the marginals of an hour or day, of its `sums` of calls as they are written.
fn replace_marginals(
    transaction: &Transaction<'_>,
    ids: &mut Ids,
    task: Task,
    sums: &[(i64, Figures)],
    needed_until: i64,
) -> rusqlite::Result<()> {
    let named = sums
        .iter()
        .map(|(id, figures)| Ok((name(transaction, *id)?, figures)));
    let calls = named.collect::<rusqlite::Result<Vec<_>>>()?;
    for marginal in Marginal::all() {
        let sums = marginal.sums(&calls).into_iter().map(|(key, figures)| {
            let id = ids.id(transaction, Dimension::Calls, &key, needed_until)?;
            Ok((id, figures))
        });
        let sums = sums.collect::<rusqlite::Result<Vec<_>>>()?;
        replace(transaction, task, marginal.number(), &sums)?;
    }
    Ok(())
}

/// Brings a file from version 1 to 2: its hours and days get their marginals, whether they are to
/// be made again or not.
///
/// # Errors
/// SQLite's.
pub fn add_marginals(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let dimension = Dimension::Calls;
    // How long series are kept is not known here. What any of them is needed for is long enough.
    let needed_until = "SELECT COALESCE(MAX(needed_until), 0) FROM series";
    let needed_until: i64 = transaction.query_row(needed_until, [], |row| row.get(0))?;
    let mut ids = Ids::default();
    for level in [Level::Hour, Level::Day] {
        let table = level.table();
        let mut select = transaction.prepare(&format!(
            "SELECT DISTINCT at FROM {table} WHERE dimension = ?1"
        ))?;
        let times = select.query_map([dimension.number()], |row| row.get(0))?;
        for at in times.collect::<rusqlite::Result<Vec<i64>>>()? {
            let task = Task {
                level,
                dimension,
                at,
            };
            // Rows that are damaged are left out of every answer.
            let sums = sums(transaction, level, task, &Counters::default())?;
            let sums: Vec<_> = sums.into_iter().collect();
            replace_marginals(transaction, &mut ids, task, &sums, needed_until)?;
        }
    }
    Ok(())
}
