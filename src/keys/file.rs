//! All keys on disk: a small SQLite file that any number of processes read and write. What is
//! committed is on the disk before it is answered.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior};
use serde_json::Value;

use super::MOST;
use super::definition::Definition;
use crate::auth::Digest;
use crate::config::Problem;
use crate::database::{self, Database};

const DATABASE: Database = Database {
    name: "keys.db",
    page_size: 4096,
    tables: || TABLES.to_owned(),
    steps: &[],
};

/// `revision` grows with every change, so that a reader asks for what it has not seen. `digest` is
/// the SHA-256 of the whole key, `definition` what was said of it, in JSON.
const TABLES: &str = "
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        digest BLOB NOT NULL,
        previous BLOB,
        previous_until INTEGER,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        revoked_at INTEGER,
        definition TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX keys_revision ON keys (revision);";

const COLUMNS: &str = "id, revision, digest, previous, previous_until, created_at, changed_at, revoked_at, definition";

/// A key as the file has it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its public id.
    pub id: Box<str>,
    pub(super) revision: i64,
    pub(super) digest: Digest,
    pub(super) previous: Option<(Digest, i64)>,
    /// When it was made.
    pub created_at: i64,
    /// When it was last changed.
    pub changed_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// What was said of it.
    pub definition: Value,
}

impl Row {
    /// Until when the secret before the last rotation still works.
    pub fn old_secret_until(&self, now: i64) -> Option<i64> {
        let until = self.previous.map(|(_, until)| until);
        until.filter(|until| now < *until)
    }
}

/// Why something is not done.
#[derive(Debug)]
pub enum Failure {
    /// The file cannot be used.
    Store(database::Problem),
    /// There are too many keys.
    Full,
    /// There is no such key.
    NoKey,
    /// It was revoked, for good.
    Revoked,
    /// What is asked for has mistakes.
    Mistakes(Vec<Problem>),
    /// There is no randomness.
    NoRandomness,
}

/// The file, open.
pub struct File {
    connection: Connection,
    path: PathBuf,
    /// Changes when another connection has committed.
    data_version: i64,
    /// The greatest that was read.
    revision: i64,
}

impl File {
    /// Opens the file in a directory, and makes it.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(dir: &Path) -> Result<Self, database::Problem> {
        let connection = DATABASE.open(dir)?;
        let path = DATABASE.path(dir);
        let problem = |error| database::Problem::Database(path.clone(), error);
        // A key that was shown must not be lost, also in a power cut; there are few writes.
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(problem)?;
        Ok(Self {
            connection,
            path,
            data_version: 0,
            revision: 0,
        })
    }

    /// The keys that have changed since this was last asked, and how many there are in all.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn changes(&mut self) -> Result<(Vec<Row>, usize), database::Problem> {
        let changes = self.read_changes();
        changes.map_err(|error| self.problem(error))
    }

    fn read_changes(&mut self) -> rusqlite::Result<(Vec<Row>, usize)> {
        // First, so that what is committed in between is read once more.
        self.data_version = self.read_data_version()?;
        let rows = self.rows_since(self.revision)?;
        let newest = rows.last().map_or(self.revision, |row| row.revision);
        self.revision = newest;
        Ok((rows, count(&self.connection)?))
    }

    /// All keys.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn all(&self) -> Result<Vec<Row>, database::Problem> {
        self.rows_since(0).map_err(|error| self.problem(error))
    }

    /// Whether another connection has changed it since it was last read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has_changed(&self) -> Result<bool, database::Problem> {
        let version = self.read_data_version();
        version
            .map(|version| version != self.data_version)
            .map_err(|error| self.problem(error))
    }

    fn read_data_version(&self) -> rusqlite::Result<i64> {
        self.connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
    }

    fn rows_since(&self, revision: i64) -> rusqlite::Result<Vec<Row>> {
        let select = format!("SELECT {COLUMNS} FROM keys WHERE revision > ?1 ORDER BY revision");
        let mut select = self.connection.prepare_cached(&select)?;
        let rows = select.query_map([revision], row)?;
        rows.collect()
    }

    /// The keys with these ids, in this order; those that are gone are left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn rows(&self, ids: &[Box<str>]) -> Result<Vec<Row>, database::Problem> {
        let rows = ids
            .iter()
            .filter_map(|id| get(&self.connection, id).transpose());
        let rows: rusqlite::Result<Vec<_>> = rows.collect();
        rows.map_err(|error| self.problem(error))
    }

    /// Keeps a new key.
    ///
    /// # Errors
    /// There is no room for it, or the file cannot be written.
    pub fn insert(
        &mut self,
        id: &str,
        digest: &Digest,
        definition: &Definition,
        now: i64,
    ) -> Result<Row, Failure> {
        let definition = &definition.said;
        self.write(|file| {
            let revision = next_revision(file)?;
            if !make_room(file)? {
                return Ok(Err(Failure::Full));
            }
            let row = Row {
                id: id.into(),
                revision,
                digest: *digest,
                previous: None,
                created_at: now,
                changed_at: now,
                revoked_at: None,
                definition: definition.clone(),
            };
            put(file, &row)?;
            Ok(Ok(row))
        })
    }

    /// Changes a key, in one transaction.
    ///
    /// # Errors
    /// There is no such key, `change` refuses, or the file cannot be written.
    pub fn change(
        &mut self,
        id: &str,
        now: i64,
        change: impl FnOnce(&mut Row) -> Result<(), Failure>,
    ) -> Result<Row, Failure> {
        self.write(|file| {
            let Some(mut row) = get(file, id)? else {
                return Ok(Err(Failure::NoKey));
            };
            if let Err(refused) = change(&mut row) {
                return Ok(Err(refused));
            }
            row.revision = next_revision(file)?;
            row.changed_at = now;
            put(file, &row)?;
            Ok(Ok(row))
        })
    }

    /// Runs a transaction that is kept where it ends well.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let immediate = TransactionBehavior::Immediate;
        let written = self
            .connection
            .transaction_with_behavior(immediate)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                if done.is_ok() {
                    transaction.commit()?;
                }
                Ok(done)
            });
        written.unwrap_or_else(|error| Err(Failure::Store(self.problem(error))))
    }

    fn problem(&self, error: rusqlite::Error) -> database::Problem {
        database::Problem::Database(self.path.clone(), error)
    }
}

fn count(file: &Connection) -> rusqlite::Result<usize> {
    let count: i64 = file.query_row("SELECT COUNT(*) FROM keys", [], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn next_revision(file: &Connection) -> rusqlite::Result<i64> {
    file.query_row("SELECT IFNULL(MAX(revision), 0) + 1 FROM keys", [], |row| {
        row.get(0)
    })
}

/// Whether there is room for one more key. The longest revoked is forgotten for it.
fn make_room(file: &Connection) -> rusqlite::Result<bool> {
    if count(file)? < MOST {
        return Ok(true);
    }
    let forgotten = file.execute(
        "DELETE FROM keys WHERE id = (SELECT id FROM keys WHERE revoked_at IS NOT NULL \
         ORDER BY revoked_at LIMIT 1)",
        [],
    )?;
    Ok(forgotten > 0)
}

fn get(file: &Connection, id: &str) -> rusqlite::Result<Option<Row>> {
    let select = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1");
    file.prepare_cached(&select)?
        .query_row([id], row)
        .optional()
}

fn put(file: &Connection, row: &Row) -> rusqlite::Result<()> {
    let Row {
        id,
        revision,
        digest,
        previous,
        created_at,
        changed_at,
        revoked_at,
        definition,
    } = row;
    let (previous, until) = previous.unzip();
    let insert = format!("INSERT OR REPLACE INTO keys ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)");
    file.prepare_cached(&insert)?.execute(rusqlite::params![
        id,
        revision,
        digest,
        previous,
        until,
        created_at,
        changed_at,
        revoked_at,
        definition.to_string()
    ])?;
    Ok(())
}

fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let previous: Option<Digest> = row.get(3)?;
    let until: Option<i64> = row.get(4)?;
    let definition: String = row.get(8)?;
    Ok(Row {
        id: row.get::<_, String>(0)?.into(),
        revision: row.get(1)?,
        digest: row.get(2)?,
        previous: previous.zip(until),
        created_at: row.get(5)?,
        changed_at: row.get(6)?,
        revoked_at: row.get(7)?,
        // What is none lets nobody pass.
        definition: serde_json::from_str(&definition).unwrap_or(Value::Null),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::definition;

    /// As many keys as there may be, the second half of them revoked one after the other.
    fn full(dir: &Path, revoked: bool) -> File {
        let file = File::open(dir).unwrap();
        let revoked_at = if revoked { "i" } else { "NULL" };
        let fill = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MOST}) \
             INSERT INTO keys SELECT 'k' || i, i, zeroblob(32), NULL, NULL, i, i, \
             CASE WHEN i > {MOST} / 2 THEN {revoked_at} END, '{{}}' FROM n"
        );
        file.connection.execute_batch(&fill).unwrap();
        file
    }

    #[test]
    fn the_longest_revoked_key_is_forgotten_where_there_is_no_room() {
        let definition = definition::read(&json!({ "name": "a" }), 0).unwrap();
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut file = full(one.path(), false);
        let refused = file.insert("new", &[7; 32], &definition, 1);
        assert!(matches!(refused, Err(Failure::Full)), "{refused:?}");
        assert_eq!(count(&file.connection).unwrap(), MOST);
        let mut file = full(other.path(), true);
        let row = file.insert("new", &[7; 32], &definition, 1).unwrap();
        assert_eq!(row.revision, MOST as i64 + 1);
        assert_eq!(count(&file.connection).unwrap(), MOST);
        let forgotten = format!("k{}", MOST / 2 + 1);
        assert!(get(&file.connection, &forgotten).unwrap().is_none());
        assert_eq!(get(&file.connection, "new").unwrap(), Some(row));
    }
}
