//! Where kept provider keys lie: one SQLite file that every process opens for a moment, to read all
//! of it or to change a row (`write`).
//!
//! A power cut takes nothing that was answered for (`synchronous = FULL`). What was replaced or
//! removed is overwritten (`secure_delete`), though it was encrypted.

mod write;

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use ring::aead::NONCE_LEN;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::master_key::MasterKeys;
use super::seal::{self, Sealed};
use super::{Kept, KeptKey, Name};
use crate::database::{Database, Problem};

pub use write::{Entropy, New};

/// Most keys that it has: with the longest secrets 128 MiB, usually some hundred KiB.
pub const MAX_KEYS: i64 = 4096;

const DATABASE: Database = Database {
    name: "provider-keys.db",
    page_size: 4096,
    tables,
    steps: &[],
};

/// `changes` counts them, so that who has read everything sees by one number that there is more.
fn tables() -> String {
    let counting = ["INSERT", "UPDATE", "DELETE"].map(|event| {
        format!(
            "CREATE TRIGGER counted_{event} AFTER {event} ON keys
             BEGIN UPDATE changes SET count = count + 1; END;"
        )
    });
    format!(
        "CREATE TABLE keys (
             id TEXT PRIMARY KEY,
             scope TEXT NOT NULL,
             provider TEXT NOT NULL,
             alias TEXT NOT NULL,
             weight INTEGER NOT NULL,
             key_id TEXT NOT NULL,
             nonce BLOB NOT NULL,
             ciphertext BLOB NOT NULL,
             preview TEXT NOT NULL,
             created_at INTEGER NOT NULL,
             modified_at INTEGER NOT NULL,
             UNIQUE (scope, provider, alias)
         ) STRICT;
         CREATE TABLE changes (count INTEGER NOT NULL) STRICT;
         INSERT INTO changes VALUES (0);
         {}",
        counting.concat()
    )
}

/// The columns of [`Entry`], in its order.
const COLUMNS: &str =
    "id, scope, provider, alias, weight, preview, key_id, created_at, modified_at";

/// Which state of the file somebody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Device and inode: another file may take its place.
    file: (u64, u64),
    /// How often it was changed.
    changes: i64,
}

/// What may be told of a kept key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id, a UUID.
    pub id: String,
    /// Whose it is.
    pub name: Name,
    /// Its share of the pool's requests; 0 when it is not in the pool.
    pub weight: u32,
    /// The last 4 characters of a long secret; empty otherwise.
    pub preview: String,
    /// The id of the master key that it is encrypted under.
    pub key_id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub modified_at: i64,
}

/// Why something was not done.
#[derive(Debug)]
pub enum Refusal {
    /// There is no master key.
    NoMasterKey,
    /// So many keys are encrypted under a master key that is not there.
    OtherMasterKey(i64),
    /// One of this name is there already.
    Exists(Name),
    /// There are [`MAX_KEYS`] already.
    Full,
    /// The system gives no randomness.
    NoRandomness,
    /// A row does not open, and so it cannot be encrypted anew.
    Damaged(Name),
    /// The file cannot be used.
    File(Problem),
}

/// The store under a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Its place below `data_dir`. Nothing is made before a key is stored.
    pub fn below(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("provider-keys"),
        }
    }

    /// All keys, those opened that `masters` open.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load(&self, masters: &MasterKeys) -> Result<Kept, Problem> {
        let Some(mut connection) = DATABASE.open_to_read(&self.dir)? else {
            return Ok(Kept::new(!masters.is_empty(), None, Vec::new()));
        };
        let file = self.identity();
        let mut read = || {
            let transaction = connection.transaction()?;
            let changes = changes(&transaction)?;
            let mut select = transaction.prepare(
                "SELECT scope, provider, alias, weight, key_id, nonce, ciphertext FROM keys
                 ORDER BY scope, provider, alias",
            )?;
            let rows = select.query_map([], |row| kept_key(row, masters))?;
            Ok((changes, rows.collect::<rusqlite::Result<_>>()?))
        };
        let (changes, keys) = self.told(read())?;
        let seen = file.map(|file| Seen { file, changes });
        Ok(Kept::new(true, seen, keys))
    }

    /// What may be told of all keys, by whose they are and their names; of one scope only, if one
    /// is named.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn list(&self, scope: Option<&str>) -> Result<Vec<Entry>, Problem> {
        let Some(connection) = DATABASE.open_to_read(&self.dir)? else {
            return Ok(Vec::new());
        };
        let read = || {
            let mut select = connection.prepare(&format!(
                "SELECT {COLUMNS} FROM keys WHERE ?1 IS NULL OR scope = ?1
                 ORDER BY scope, provider, alias"
            ))?;
            let rows = select.query_map([scope], entry)?;
            rows.collect()
        };
        self.told(read())
    }

    /// What may be told of one.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn get(&self, scope: Option<&str>, id: Uuid) -> Result<Option<Entry>, Problem> {
        match DATABASE.open_to_read(&self.dir)? {
            None => Ok(None),
            Some(connection) => self.told(find(&connection, scope, id)),
        }
    }

    /// What state it is in now, by a connection that is kept in `open`; `None` while it is not there.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn look(&self, open: &mut Option<Looking>) -> Result<Option<Seen>, Problem> {
        let Some(file) = self.identity() else {
            *open = None;
            return Ok(None);
        };
        if open.as_ref().is_none_or(|looking| looking.file != file) {
            let connection = DATABASE.open_to_read(&self.dir)?;
            *open = connection.map(|connection| Looking { file, connection });
        }
        let Some(looking) = open else { return Ok(None) };
        let changes = self.told(changes(&looking.connection))?;
        Ok(Some(Seen { file, changes }))
    }

    /// Which file it is, if it is there.
    fn identity(&self) -> Option<(u64, u64)> {
        let metadata = std::fs::metadata(DATABASE.path(&self.dir)).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    /// Opened to write; made, for nobody else to read, where it is not there.
    fn open(&self) -> Result<Connection, Problem> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private
            .create(&self.dir)
            .map_err(|error| Problem::File(self.dir.clone(), error))?;
        let connection = DATABASE.open(&self.dir)?;
        let prepared = connection
            .pragma_update(None, "synchronous", "FULL")
            .and_then(|()| connection.pragma_update(None, "secure_delete", true));
        self.told(prepared)?;
        Ok(connection)
    }

    fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, Problem> {
        result.map_err(|error| Problem::Database(DATABASE.path(&self.dir), error))
    }
}

/// A connection of who looks for changes, and the file it has open.
#[derive(Debug)]
pub struct Looking {
    file: (u64, u64),
    connection: Connection,
}

fn changes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count FROM changes", [], |row| row.get(0))
}

fn find(connection: &Connection, scope: Option<&str>, id: Uuid) -> rusqlite::Result<Option<Entry>> {
    let select = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1 AND (?2 IS NULL OR scope = ?2)");
    let found = connection.query_row(&select, (id.to_string(), scope), entry);
    found.optional()
}

fn name(row: &Row<'_>, first: usize) -> rusqlite::Result<Name> {
    Ok(Name {
        scope: row.get(first)?,
        provider: row.get(first + 1)?,
        alias: row.get(first + 2)?,
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get(0)?,
        name: name(row, 1)?,
        weight: row.get(4)?,
        preview: row.get(5)?,
        key_id: row.get(6)?,
        created_at: row.get(7)?,
        modified_at: row.get(8)?,
    })
}

fn kept_key(row: &Row<'_>, masters: &MasterKeys) -> rusqlite::Result<KeptKey> {
    let (name, sealed) = (name(row, 0)?, sealed(row, 4)?);
    Ok(KeptKey {
        weight: row.get(3)?,
        secret: seal::open(&name, &sealed, masters),
        name,
    })
}

/// Reads id of the master key, nonce and ciphertext. A nonce of another length opens nothing.
fn sealed(row: &Row<'_>, first: usize) -> rusqlite::Result<Sealed> {
    let nonce: Vec<u8> = row.get(first + 1)?;
    Ok(Sealed {
        key_id: row.get(first)?,
        nonce: nonce.try_into().unwrap_or([0; NONCE_LEN]),
        ciphertext: row.get(first + 2)?,
    })
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NoMasterKey => out.write_str(
                "nothing can be stored without a master key: set secrets.master_key (make one with `openssl rand -hex 32`), or give the process the credential tollgate-master-key, and reload",
            ),
            Self::OtherMasterKey(count) => write!(
                out,
                "{count} of the stored keys are encrypted under another master key: set that one as secrets.master_key or secrets.previous_master_key and reload, or remove those keys"
            ),
            Self::Exists(name) => write!(
                out,
                "a key {name} is stored already: change that one instead (PUT, or `tollgate provider-keys set`)"
            ),
            Self::Full => write!(out, "{MAX_KEYS} keys are stored already: remove one first"),
            Self::NoRandomness => out.write_str("the system gives no random numbers"),
            Self::Damaged(name) => write!(
                out,
                "the stored key {name} does not open and so it cannot be encrypted anew: store it again, or remove it; nothing was changed"
            ),
            Self::File(problem) => problem.fmt(out),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
