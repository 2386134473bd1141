//! The database file of analytics: its tables, its version, how it is opened.
//!
//! There is a table for each level: `minutes`, `hours`, `days`. Minutes are written by whoever
//! counted them, hours and days are always the sum of the level below. `dirty` names the hours and
//! days that are not, because something below them has changed: it is written in the same
//! transaction as the change, and emptied in the same one as the sum. `levels` tells since when
//! rows of a level are kept; older ones may be there and do not count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::series::Dimension;

/// The version that this program writes.
pub const VERSION: i64 = 1;

/// How long a process waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// Version 1. Times are seconds since 1970, names are JSON arrays. A series is removed once
/// `needed_until` is over.
const VERSION_1: &str = "
    CREATE TABLE series (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- never given again: processes remember them
        dimension INTEGER NOT NULL,
        name TEXT NOT NULL,
        needed_until INTEGER NOT NULL,
        UNIQUE (dimension, name)
    );
    CREATE INDEX series_needed ON series (needed_until);
    CREATE TABLE minutes (
        dimension INTEGER, at INTEGER, series INTEGER, writer INTEGER,
        requests INTEGER NOT NULL, figures BLOB NOT NULL,
        PRIMARY KEY (dimension, at, series, writer)
    ) WITHOUT ROWID;
    CREATE TABLE hours (
        dimension INTEGER, at INTEGER, series INTEGER,
        requests INTEGER NOT NULL, figures BLOB NOT NULL,
        PRIMARY KEY (dimension, at, series)
    ) WITHOUT ROWID;
    CREATE TABLE days (
        dimension INTEGER, at INTEGER, series INTEGER,
        requests INTEGER NOT NULL, figures BLOB NOT NULL,
        PRIMARY KEY (dimension, at, series)
    ) WITHOUT ROWID;
    CREATE TABLE dirty (
        level INTEGER, dimension INTEGER, at INTEGER,
        PRIMARY KEY (level, dimension, at)
    ) WITHOUT ROWID;
    CREATE TABLE levels (level INTEGER PRIMARY KEY, since INTEGER NOT NULL);
    INSERT INTO levels VALUES (0, 0), (1, 0), (2, 0);
";

/// How long a row's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A minute.
    Minute = 0,
    /// An hour.
    Hour = 1,
    /// A day (UTC).
    Day = 2,
}

impl Level {
    /// From the finest.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// As the database has it.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// In seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// Its table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Minute => "minutes",
            Self::Hour => "hours",
            Self::Day => "days",
        }
    }

    /// What its rows are added up to.
    pub const fn coarser(self) -> Option<Self> {
        match self {
            Self::Minute => Some(Self::Hour),
            Self::Hour => Some(Self::Day),
            Self::Day => None,
        }
    }

    /// What its rows are the sums of.
    pub const fn finer(self) -> Option<Self> {
        match self {
            Self::Minute => None,
            Self::Hour => Some(Self::Minute),
            Self::Day => Some(Self::Hour),
        }
    }

    /// The beginning of the minute, hour or day that a time is in.
    pub fn start(self, at: i64) -> i64 {
        at - at.rem_euclid(self.seconds())
    }
}

/// Why the database cannot be used.
#[derive(Debug)]
pub enum Problem {
    /// SQLite says so.
    Database(PathBuf, rusqlite::Error),
    /// The file system says so.
    File(PathBuf, std::io::Error),
    /// A newer tollgate wrote it.
    Newer(PathBuf, i64),
    /// A question took longer than the reader's patience.
    TooSlow,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Database(path, error) if self.is_lasting() => write!(
                out,
                "{} is damaged ({error}): move it away and restart; nothing was deleted",
                path.display()
            ),
            Self::Database(path, error) => write!(out, "{}: {error}", path.display()),
            Self::File(path, error) => write!(out, "{}: {error}", path.display()),
            Self::Newer(path, version) => write!(
                out,
                "{} has version {version} and this tollgate knows versions up to {VERSION}: run a newer one or move the file away",
                path.display()
            ),
            Self::TooSlow => out.write_str(
                "the answer took too long: ask for a shorter time or a coarser interval",
            ),
        }
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// Trying again is of no use before someone did something.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Database(_, error) => is_damage(error),
            Self::File(..) | Self::TooSlow => false,
            Self::Newer(..) => true,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Another process holds the file for longer than the patience lasts.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// The database of a directory.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("analytics.db")
}

/// Opens the database to write, and makes or migrates it.
///
/// WAL with `synchronous = NORMAL`: what is committed survives the process, however it dies.
/// A power cut may take the last seconds before it, never the file.
///
/// # Errors
/// Says which file cannot be used, and why.
pub fn open(dir: &Path) -> Result<Connection, Problem> {
    std::fs::create_dir_all(dir).map_err(|error| Problem::File(dir.to_owned(), error))?;
    let path = path(dir);
    let database = |error| Problem::Database(path.clone(), error);
    let mut connection = Connection::open(&path).map_err(database)?;
    let version = prepare(&mut connection).map_err(database)?;
    if version > VERSION {
        return Err(Problem::Newer(path, version));
    }
    Ok(connection)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found = version(connection)?;
    if found > VERSION {
        return Ok(found);
    }
    if found == 0 {
        // Must come before the first table, and before the WAL. Rows are some hundred bytes, and
        // a page should have several of them.
        connection.pragma_update(None, "page_size", 8_192)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?; // KiB
    migrate(connection)
}

/// Brings a database up to [`VERSION`], step by step; one process at a time.
fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found == 0 {
        transaction.execute_batch(VERSION_1)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(found.max(VERSION))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Opens the database to read; `None` while there is none, or nothing in it.
///
/// # Errors
/// Says which file cannot be used, and why.
pub fn open_to_read(dir: &Path) -> Result<Option<Connection>, Problem> {
    let path = path(dir);
    if !path.exists() {
        return Ok(None);
    }
    let database = |error| Problem::Database(path.clone(), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
    connection.busy_timeout(PATIENCE).map_err(database)?;
    connection
        .pragma_update(None, "mmap_size", 4_i64 << 30)
        .map_err(database)?;
    match version(&connection).map_err(database)? {
        0 => Ok(None),
        VERSION => Ok(Some(connection)),
        newer => Err(Problem::Newer(path, newer)),
    }
}

/// Since when rows of a level count, in seconds since 1970.
pub fn since(connection: &Connection, level: Level) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT since FROM levels WHERE level = ?1")?
        .query_row([level.number()], |row| row.get(0))
}

/// Notes that an hour or day is not the sum of what is below it.
pub fn mark_dirty(
    connection: &Connection,
    level: Level,
    dimension: Dimension,
    at: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO dirty VALUES (?1, ?2, ?3)")?
        .execute((level.number(), dimension.number(), level.start(at)))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open_to_read(dir.path()).unwrap().is_none());
        for _ in 0..2 {
            let connection = open(dir.path()).unwrap();
            let mode: String = connection
                .pragma_query_value(None, "journal_mode", |row| row.get(0))
                .unwrap();
            assert_eq!((version(&connection).unwrap(), &*mode), (VERSION, "wal"));
            assert_eq!(since(&connection, Level::Day).unwrap(), 0);
        }
        assert!(open_to_read(dir.path()).unwrap().is_some());
    }

    #[test]
    fn an_empty_file_is_nothing_yet() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "").unwrap();
        assert!(open_to_read(dir.path()).unwrap().is_none());
        assert!(open(dir.path()).is_ok());
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path())
            .unwrap()
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        for problem in [
            open(dir.path()).unwrap_err(),
            open_to_read(dir.path()).unwrap_err(),
        ] {
            assert!(problem.is_lasting());
            assert!(problem.to_string().contains("has version 2"), "{problem}");
        }
    }

    #[test]
    fn levels_begin_at_their_starts() {
        let at = 1_795_847_423;
        assert_eq!(Level::Minute.start(at), 1_795_847_400);
        assert_eq!(Level::Hour.start(at), 1_795_845_600);
        assert_eq!(Level::Day.start(at) % 86_400, 0);
        assert_eq!(Level::Day.start(at), 1_795_824_000);
    }
}
