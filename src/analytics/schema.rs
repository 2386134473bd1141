//! The database file of analytics: its tables, its version, how it is opened.
//!
//! There is a table for each level: `minutes`, `hours`, `days`. Minutes are written by whoever
//! counted them, hours and days are always the sum of the level below. `dirty` names the hours and
//! days that are not, because something below them has changed: it is written in the same
//! transaction as the change, and emptied in the same one as the sum. `levels` tells since when
//! rows of a level are kept; older ones may be there and do not count.
//!
//! Beside the rows of each [`Dimension`], hours and days have those of each marginal, by a number
//! in the same column, written with those of calls and named by series of calls.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::rollup;
use super::series::Dimension;
use crate::database::{self, Database};
pub use crate::database::{Problem, is_busy};

/// The file. Rows are some hundred bytes, and a page should have several of them.
const FILE: Database = Database {
    name: "analytics.db",
    page_size: 8_192,
    tables: || VERSION_1.to_owned(),
    steps: &[rollup::add_marginals],
};

/// The version since which hours and days have marginals.
const WITH_MARGINALS: i64 = 2;

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

/// The database of a directory.
pub fn path(dir: &Path) -> PathBuf {
    FILE.path(dir)
}

/// Opens the database to write, and makes or migrates it.
///
/// # Errors
/// Says which file cannot be used, and why.
pub fn open(dir: &Path) -> Result<Connection, Problem> {
    FILE.open(dir)
}

/// Opens the database to read; `None` while there is none, or nothing in it.
///
/// # Errors
/// Says which file cannot be used, and why.
pub fn open_to_read(dir: &Path) -> Result<Option<Connection>, Problem> {
    FILE.open_to_read(dir)
}

/// Whether hours and days have marginals. A file that nobody has opened to write since an older
/// tollgate did has none.
pub fn has_marginals(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(database::version(connection)? >= WITH_MARGINALS)
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
    fn levels_begin_at_their_starts() {
        let at = 1_795_847_423;
        assert_eq!(Level::Minute.start(at), 1_795_847_400);
        assert_eq!(Level::Hour.start(at), 1_795_845_600);
        assert_eq!(Level::Day.start(at) % 86_400, 0);
        assert_eq!(Level::Day.start(at), 1_795_824_000);
    }
}
