//! The SQLite files that tollgate keeps, each with one writer in every process and any number of
//! readers: how they are made and opened, and why one cannot be used. What is in them is
//! [`crate::logs`]' and [`crate::analytics`]' business.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

/// How long a process waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings a file from one version to the next, within the transaction that notes so.
pub type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// A file, as this program knows it.
#[derive(Debug)]
pub struct Database {
    /// Its name in its directory.
    pub name: &'static str,
    /// Bytes of a page; some rows should fit into one.
    pub page_size: i64,
    /// What makes its tables, as they were in version 1.
    pub tables: fn() -> String,
    /// What brings it from version 1 to 2, from 2 to 3, and so on. New files take these steps
    /// too, so that they are what older ones become.
    pub steps: &'static [Step],
}

/// Why a database cannot be used.
#[derive(Debug)]
pub enum Problem {
    /// SQLite says so.
    Database(PathBuf, rusqlite::Error),
    /// The file system says so.
    File(PathBuf, std::io::Error),
    /// A newer tollgate wrote it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The one that this program knows.
        known: i64,
    },
}

/// Why something could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The store is not there, or broken.
    Store(Problem),
    /// Nothing was found within the reader's patience; what would help.
    TooSlow(&'static str),
}

impl Database {
    /// The version that this program writes.
    pub fn version(&self) -> i64 {
        self.steps.len() as i64 + 1
    }

    /// Where it lies in a directory.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name)
    }

    /// Opens it to write, and makes or migrates it.
    ///
    /// WAL with `synchronous = NORMAL`: what is committed survives the process, however it dies.
    /// A power cut may take the last seconds before it, never the file.
    ///
    /// # Errors
    /// Says which file cannot be used, and why.
    pub fn open(&self, dir: &Path) -> Result<Connection, Problem> {
        std::fs::create_dir_all(dir).map_err(|error| Problem::File(dir.to_owned(), error))?;
        let path = self.path(dir);
        let problem = |error| Problem::Database(path.clone(), error);
        let mut connection = Connection::open(&path).map_err(problem)?;
        let version = self.prepare(&mut connection).map_err(problem)?;
        self.known(path, version).map(|()| connection)
    }

    /// Opens it to read; `None` while there is none, or nothing in it.
    ///
    /// # Errors
    /// Says which file cannot be used, and why.
    pub fn open_to_read(&self, dir: &Path) -> Result<Option<Connection>, Problem> {
        let path = self.path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let problem = |error| Problem::Database(path.clone(), error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(problem)?;
        connection.busy_timeout(PATIENCE).map_err(problem)?;
        connection
            .pragma_update(None, "mmap_size", 4_i64 << 30)
            .map_err(problem)?;
        match version(&connection).map_err(problem)? {
            0 => Ok(None),
            version => self.known(path, version).map(|()| Some(connection)),
        }
    }

    fn known(&self, path: PathBuf, version: i64) -> Result<(), Problem> {
        let known = self.version();
        match version > known {
            false => Ok(()),
            true => Err(Problem::Newer {
                path,
                version,
                known,
            }),
        }
    }

    fn prepare(&self, connection: &mut Connection) -> rusqlite::Result<i64> {
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(64);
        let found = version(connection)?;
        if found > self.version() {
            return Ok(found); // not one byte of it is changed
        }
        if found == 0 {
            // Must come before the first table, and before the WAL.
            connection.pragma_update(None, "page_size", self.page_size)?;
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        // Rows are mostly added at the end; what is behind it the kernel has in its own cache.
        connection.pragma_update(None, "cache_size", -2_048)?; // KiB
        self.migrate(connection)
    }

    /// Brings it up to the version of this program, step by step; one process at a time.
    fn migrate(&self, connection: &mut Connection) -> rusqlite::Result<i64> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = version(&transaction)?;
        if found == 0 {
            transaction.execute_batch(&(self.tables)())?;
        }
        let taken = usize::try_from(found - 1).unwrap_or_default();
        for step in self.steps.iter().skip(taken) {
            step(&transaction)?;
        }
        if found < self.version() {
            transaction.pragma_update(None, "user_version", self.version())?;
        }
        transaction.commit()?;
        Ok(found.max(self.version()))
    }
}

/// The version of a file, or of what a transaction sees of it; 0 while nothing is in it.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Database(path, error) if self.is_lasting() => write!(
                out,
                "{} is damaged ({error}): move it away and restart; nothing was deleted",
                path.display()
            ),
            Self::Database(path, error) => write!(out, "{}: {error}", path.display()),
            Self::File(path, error) => write!(out, "{}: {error}", path.display()),
            Self::Newer {
                path,
                version,
                known,
            } => write!(
                out,
                "{} has version {version} and this tollgate knows versions up to {known}: run a newer one or move the file away",
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
            Self::Newer { .. } => true,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Store(problem) => problem.fmt(out),
            Self::TooSlow(advice) => write!(out, "nothing was found in time: {advice}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Problem> for ReadError {
    fn from(problem: Problem) -> Self {
        Self::Store(problem)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: Database = Database {
        name: "one.db",
        page_size: 8192,
        tables: || "CREATE TABLE one (a);".to_owned(),
        steps: &[],
    };

    /// The same, three versions later; each step needs the one before.
    const FOUR: Database = Database {
        steps: &[
            |file| file.execute_batch("ALTER TABLE one ADD COLUMN b"),
            |file| file.execute_batch("ALTER TABLE one RENAME b TO c"),
            |file| file.execute_batch("INSERT INTO one (c) SELECT COUNT(*) FROM one"),
        ],
        ..ONE
    };

    fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> T {
        let read = connection.pragma_query_value(None, name, |row| row.get(0));
        read.unwrap()
    }

    #[test]
    fn a_database_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ONE.open_to_read(dir.path()).unwrap().is_none());
        for _ in 0..2 {
            let connection = ONE.open(dir.path()).unwrap();
            assert_eq!(version(&connection).unwrap(), 1);
            assert_eq!(pragma::<String>(&connection, "journal_mode"), "wal");
            assert_eq!(pragma::<i64>(&connection, "auto_vacuum"), 2);
            assert_eq!(pragma::<i64>(&connection, "page_size"), 8192);
            assert!(ONE.open_to_read(dir.path()).unwrap().is_some());
        }
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let connection = ONE.open(dir.path()).unwrap();
        connection.pragma_update(None, "user_version", 2).unwrap();
        drop(connection);
        let before = std::fs::read(ONE.path(dir.path())).unwrap();
        for problem in [
            ONE.open(dir.path()).unwrap_err(),
            ONE.open_to_read(dir.path()).unwrap_err(),
        ] {
            let told = problem.to_string();
            assert!(problem.is_lasting());
            assert!(told.contains("has version 2 and this tollgate knows versions up to 1"));
        }
        let after = std::fs::read(ONE.path(dir.path())).unwrap();
        assert!(after == before, "not one byte changed");
    }

    /// What the last step of [`FOUR`] found.
    fn counted(connection: &Connection) -> Vec<i64> {
        let mut select = connection
            .prepare("SELECT c FROM one WHERE c IS NOT NULL")
            .unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn an_older_database_takes_the_steps_that_it_lacks_and_each_once() {
        for steps in 0..FOUR.steps.len() {
            let dir = tempfile::tempdir().unwrap();
            let older = Database {
                steps: &FOUR.steps[..steps],
                ..FOUR
            };
            let connection = older.open(dir.path()).unwrap();
            connection
                .execute("INSERT INTO one (a) VALUES (7)", [])
                .unwrap();
            assert_eq!(version(&connection).unwrap(), steps as i64 + 1);
            assert!(FOUR.open_to_read(dir.path()).unwrap().is_some());
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(|| FOUR.open(dir.path()).unwrap());
                }
            });
            assert_eq!(counted(&FOUR.open(dir.path()).unwrap()), [1]);
            assert_eq!(version(&connection).unwrap(), 4);
            assert!(older.open(dir.path()).unwrap_err().is_lasting());
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(counted(&FOUR.open(dir.path()).unwrap()), [0], "a new one");
    }

    #[test]
    fn a_step_that_fails_leaves_the_database_as_it_was() {
        const FAILING: Database = Database {
            steps: &[FOUR.steps[0], |file| file.execute_batch("no statement")],
            ..ONE
        };
        let dir = tempfile::tempdir().unwrap();
        let connection = ONE.open(dir.path()).unwrap();
        assert!(FAILING.open(dir.path()).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        connection
            .execute("INSERT INTO one VALUES (7)", [])
            .unwrap();
        assert_eq!(counted(&FOUR.open(dir.path()).unwrap()), [1]);
    }

    #[test]
    fn what_is_no_database_is_damaged_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            ONE.path(dir.path()),
            "not a database at all, but quite long enough",
        )
        .unwrap();
        let problem = ONE.open(dir.path()).unwrap_err();
        assert!(
            problem.is_lasting() && problem.to_string().contains("move it away"),
            "{problem}"
        );
    }
}
