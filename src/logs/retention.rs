//! Removes what is too old, or too much, oldest first and a little at a time.
//!
//! Too much is measured over the pages in use of the database and the segments; the WAL comes
//! on top, at most 16 MiB in the long run. Then the oldest segment goes, while segments take at least half of it all, and otherwise
//! the oldest rows. What rows leave behind is used again by new ones; only more than a
//! twentieth of the database lying free is given back to the file system.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::OptionalExtension;

use super::counters::{Counters, add};
use super::schema;
use super::segments;
use super::writer::Database;

/// Most rows removed in one step: some milliseconds.
const ROWS: usize = 1_000;

/// Most free pages given back in one step.
const PAGES: u32 = 500;

/// What is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// At most so old.
    pub age: Option<Duration>,
    /// At most so many bytes.
    pub bytes: Option<u64>,
}

/// How much there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Pages in use.
    pub rows: u64,
    /// Segment files.
    pub bodies: u64,
    /// Pages not in use.
    pub free: u64,
}

/// Removes a little of what is beyond the bounds at this time (milliseconds since 1970); says
/// whether there may be more.
pub fn step(
    database: &mut Database,
    bounds: Bounds,
    now: i64,
    counters: &Counters,
) -> rusqlite::Result<bool> {
    if let Some(age) = bounds.age {
        let oldest = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let segment = remove_segment(database, Some(oldest), counters)?;
        let rows = remove_rows(database, schema::first_key(oldest), counters)?;
        if segment || rows {
            return Ok(true);
        }
    }
    let sizes = sizes(database)?;
    let most = bounds.bytes.unwrap_or(u64::MAX);
    if sizes.rows + sizes.bodies > most {
        let bodies_first = sizes.bodies >= sizes.rows;
        return Ok(bodies_first && remove_segment(database, None, counters)?
            || remove_rows(database, i64::MAX, counters)?);
    }
    if sizes.free > (sizes.free + sizes.rows) / 20 && sizes.free > 1 << 20 {
        shrink(database)?;
        return Ok(true);
    }
    Ok(false)
}

/// Removes the oldest segment, if nothing in it is as new as this; never the one being written.
fn remove_segment(
    database: &mut Database,
    newest: Option<i64>,
    counters: &Counters,
) -> rusqlite::Result<bool> {
    let mut select = database.connection.prepare_cached(
        "SELECT id FROM segments WHERE newest < ?1 AND id IS NOT ?2 ORDER BY id LIMIT 1",
    )?;
    let bounds = (newest.unwrap_or(i64::MAX), database.appender.current());
    let Some(segment) = select
        .query_row(bounds, |row| row.get::<_, i64>(0))
        .optional()?
    else {
        return Ok(false);
    };
    let path = segments::path(&database.dir, segment);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::error!("cannot remove {}: {error}", path.display());
            return Ok(false);
        }
        _ => add(&counters.segments_expired, 1),
    }
    // Last, so that a file is never forgotten.
    database
        .connection
        .execute("DELETE FROM segments WHERE id = ?1", [segment])?;
    Ok(true)
}

fn remove_rows(
    database: &mut Database,
    before: i64,
    counters: &Counters,
) -> rusqlite::Result<bool> {
    let mut delete = database.connection.prepare_cached(
        "DELETE FROM entries WHERE key IN
            (SELECT key FROM entries WHERE key < ?1 ORDER BY key LIMIT ?2)",
    )?;
    let removed = delete.execute((before, ROWS as i64))?;
    add(&counters.rows_expired, removed);
    Ok(removed > 0)
}

fn shrink(database: &Database) -> rusqlite::Result<()> {
    // The pragma gives one page back per row that it yields.
    let mut pragma = database
        .connection
        .prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = pragma.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Measures a store.
pub fn sizes(database: &Database) -> rusqlite::Result<Sizes> {
    let pragma = |name: &str| -> rusqlite::Result<u64> {
        let number: i64 = database
            .connection
            .pragma_query_value(None, name, |row| row.get(0))?;
        Ok(number.unsigned_abs())
    };
    let (page, pages, free) = (
        pragma("page_size")?,
        pragma("page_count")?,
        pragma("freelist_count")?,
    );
    let mut select = database
        .connection
        .prepare_cached("SELECT id FROM segments")?;
    let segments = select.query_map([], |row| row.get::<_, i64>(0))?;
    let mut bodies = 0;
    for segment in segments {
        bodies += length(&segments::path(&database.dir, segment?));
    }
    Ok(Sizes {
        rows: (pages - free) * page,
        bodies,
        free: free * page,
    })
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
