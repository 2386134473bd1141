//! The database file of the store: its tables, its version, how it is opened.
//!
//! `entries` is narrow, because lists are scans of it: texts that repeat are numbers of the
//! table `words`, heads and bodies lie in segment files. Its key is made from the entry's
//! UUIDv7 (48 bits of milliseconds, 15 bits of chance), so the table is in the order of time
//! without an index, new rows are appended to it, and an id is found without one too.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use uuid::Uuid;

use crate::database::Database;
pub use crate::database::{Problem, is_busy};

/// The file.
const FILE: Database = Database {
    name: "logs.db",
    page_size: 4_096,
    tables: || format!("CREATE TABLE entries ({});{VERSION_1}", columns()),
    steps: &[],
};

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

/// Without types: every value keeps its own.
fn columns() -> String {
    COLUMNS
        .join(", ")
        .replacen("key", "key INTEGER PRIMARY KEY", 1)
}

/// Opens the database to read.
///
/// # Errors
/// Says which file cannot be used, and why; also when there is none.
pub fn open_to_read(dir: &Path) -> Result<Connection, Problem> {
    let none = || Problem::File(path(dir), std::io::ErrorKind::NotFound.into());
    let connection = FILE.open_to_read(dir)?.ok_or_else(none)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
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
    fn a_database_is_made_with_its_table() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open_to_read(dir.path()).is_err(), "there is none");
        open(dir.path()).unwrap();
        let connection = open_to_read(dir.path()).unwrap();
        let all = connection.prepare("SELECT * FROM entries").unwrap();
        assert_eq!(all.column_names().collect::<Vec<_>>(), COLUMNS);
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
