//! The database file of the store: its tables, its version, how it is opened.
//!
//! `entries` is narrow, because lists are scans of it: texts that repeat are numbers of the
//! table `words`, heads and bodies lie in segment files. Its key is made from the entry's
//! UUIDv7 (48 bits of milliseconds, 15 bits of chance), so the table is in the order of time
//! without an index, new rows are appended to it, and an id is found without one too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

/// The version that this program writes.
pub const VERSION: i64 = 1;

/// How long a process waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// The columns of `entries` in the order of the table: those that filters read come first,
/// because SQLite reads a row from its start.
pub const COLUMNS: [&str; 72] = [
    "key",
    "gateway",
    "created_at",
    "success",
    "cached",
    "status",
    "provider",
    "model",
    "model_type",
    "cost",
    "input",
    "output",
    "duration",
    "feedback",
    "request_type",
    "request_content_type",
    "response_content_type",
    "user_agent",
    "authentication",
    "byok",
    "event_id",
    "metadata",
    "id",
    "score",
    "route",
    "key_alias",
    "consumer",
    "owner",
    "error",
    "error_source",
    "cache_status",
    "streamed",
    "complete",
    "answer_model",
    "path",
    "method",
    "http_version",
    "client",
    "step",
    "target",
    "provider_status",
    "cache_tier",
    "cache_source",
    "error_detail",
    "denied_by",
    "attempts",
    "tried",
    "request_size",
    "response_size",
    "upstream",
    "overhead",
    "first_byte",
    "first_token",
    "waited",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "output_audio",
    "cached_audio",
    "input_image",
    "output_image",
    "web_searches",
    "usage_estimated",
    "service_tier",
    "saved",
    "cost_source",
    "custom_cost",
    "traceparent",
    "segment",
    "position",
];

/// Version 1. The partial indexes cost nothing for rows they leave out: good answers without
/// feedback or event.
const VERSION_1: &str = "
    CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
    CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, newest INTEGER NOT NULL);
    CREATE INDEX entries_gateway ON entries (gateway);
    CREATE INDEX entries_model ON entries (model);
    CREATE INDEX entries_failed ON entries (success) WHERE success = 0;
    CREATE INDEX entries_feedback ON entries (feedback) WHERE feedback IS NOT NULL;
    CREATE INDEX entries_event ON entries (event_id) WHERE event_id IS NOT NULL;
";

/// Why the store cannot be used.
#[derive(Debug)]
pub enum Problem {
    /// SQLite says so.
    Database(PathBuf, rusqlite::Error),
    /// The file system says so.
    File(PathBuf, std::io::Error),
    /// A newer tollgate wrote it.
    Newer(PathBuf, i64),
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
        }
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// Trying again is of no use before someone did something.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Database(_, error) => is_damage(error),
            Self::File(..) => false,
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
    dir.join("logs.db")
}

/// Opens the database to write, and makes or migrates it.
///
/// WAL with `synchronous = NORMAL`: what is committed survives the process, however it dies.
/// A power cut may take the last seconds before it, never the file.
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
        // Must come before the first table, and before the WAL.
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
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found == 0 {
        let table = format!("CREATE TABLE entries ({});", columns());
        transaction.execute_batch(&(table + VERSION_1))?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(found.max(VERSION))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Without types: every value keeps its own.
fn columns() -> String {
    COLUMNS
        .join(", ")
        .replacen("key", "key INTEGER PRIMARY KEY", 1)
}

/// Opens the database to read.
pub fn open_to_read(dir: &Path) -> Result<Connection, Problem> {
    let path = path(dir);
    let database = |error| Problem::Database(path.clone(), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
    connection.busy_timeout(PATIENCE).map_err(database)?;
    connection.set_prepared_statement_cache_capacity(16);
    connection
        .pragma_update(None, "mmap_size", 4_i64 << 30)
        .map_err(database)?;
    match version(&connection).map_err(database)? {
        VERSION => Ok(connection),
        newer => Err(Problem::Newer(path, newer)),
    }
}

/// Bits of a key below its milliseconds.
const TIE_BITS: u32 = 15;

/// Milliseconds since 1970 in a UUIDv7.
pub fn id_milliseconds(id: Uuid) -> i64 {
    (id.as_u128() >> 80) as i64
}

/// Where an entry stands, unless another one stands there: then behind it.
pub fn key_of(id: Uuid) -> i64 {
    first_key(id_milliseconds(id)) | (id.as_u128() & 0x7fff) as i64
}

/// The first key of a millisecond.
pub fn first_key(milliseconds: i64) -> i64 {
    milliseconds.clamp(0, (1 << 48) - 1) << TIE_BITS
}

/// The millisecond of a key.
pub fn key_milliseconds(key: i64) -> i64 {
    key >> TIE_BITS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let connection = open(dir.path()).unwrap();
            assert_eq!(version(&connection).unwrap(), VERSION);
            let mode: String = connection
                .pragma_query_value(None, "journal_mode", |row| row.get(0))
                .unwrap();
            assert_eq!(mode, "wal");
            let vacuum: i64 = connection
                .pragma_query_value(None, "auto_vacuum", |row| row.get(0))
                .unwrap();
            assert_eq!(vacuum, 2);
        }
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path())
            .unwrap()
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        let before = std::fs::read(path(dir.path())).unwrap();
        for problem in [
            open(dir.path()).unwrap_err(),
            open_to_read(dir.path()).unwrap_err(),
        ] {
            assert!(problem.is_lasting());
            assert!(
                problem
                    .to_string()
                    .contains("has version 2 and this tollgate knows versions up to 1")
            );
        }
        assert!(
            std::fs::read(path(dir.path())).unwrap() == before,
            "not one byte changed"
        );
    }

    #[test]
    fn keys_are_in_the_order_of_time() {
        let early = Uuid::from_u128((5 << 80) | u128::from(u16::MAX));
        let late = Uuid::from_u128(6 << 80);
        assert!(key_of(early) < key_of(late));
        assert_eq!(key_of(late), first_key(6));
        assert_eq!([early, late].map(key_of).map(key_milliseconds), [5, 6]);
        assert!(key_of(Uuid::max()) > 0);
    }
}
