//! The keys of a process: its table, the file behind it, and the thread that reads the file again
//! when another process has changed it.
//!
//! A change through this process is in its table before it is answered. What another process has
//! changed is there within `EVERY` and the time of reading it. While the file cannot be read, the
//! keys that are known stay good, and the log and a metric say so; where none could be read at all,
//! no key is good. Requests only ever load a pointer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use serde_json::Value;

use super::definition::{self, Definition};
use super::file::File;
pub use super::file::{Failure, Row};
use super::secret::Fresh;
use super::table::{Key, Table};
use crate::background;
use crate::config::Problem;
use crate::database;

/// How often the file is looked at for what other processes have changed.
const EVERY: Duration = Duration::from_millis(250);

/// Longest time for which an old secret works beside a new one.
const LONGEST_GRACE: Duration = Duration::from_secs(31 * 86_400);

/// The keys of a process.
pub struct Keys {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    _end: Sender<()>,
}

struct Shared {
    dir: PathBuf,
    table: ArcSwap<Table>,
    file: Mutex<Option<File>>,
    is_failing: AtomicBool,
}

impl Keys {
    /// The keys in a directory, which is made. A file that cannot be opened is told, and tried again.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            dir,
            table: ArcSwap::from_pointee(Table::missing()),
            file: Mutex::new(None),
            is_failing: AtomicBool::new(false),
        });
        shared.follow();
        let (end, ended) = channel();
        let followed = Arc::clone(&shared);
        background::spawn("keys", move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                followed.follow();
            }
        })?;
        Ok(Self { shared, _end: end })
    }

    /// The keys as they are now.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.shared.table.load()
    }

    /// The file cannot be read, or written.
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Makes a key. `now`: milliseconds since 1970, as everywhere here. Waits for the disk, as all
    /// that follows does.
    ///
    /// # Errors
    /// There are too many, or the file cannot be written.
    pub fn create(&self, definition: &Definition, now: i64) -> Result<(Row, Fresh), Failure> {
        let random = SystemRandom::new();
        let fresh = Fresh::new(&random).map_err(|_| Failure::NoRandomness)?;
        let digest = fresh.digest();
        let row = self
            .shared
            .write(|file| file.insert(&fresh.id, &digest, definition, now))?;
        Ok((row, fresh))
    }

    /// Changes what is said of a key: `patch` has the new fields, null takes one away.
    ///
    /// # Errors
    /// There is no such key, `patch` has mistakes, or the file cannot be written.
    pub fn patch(&self, id: &str, patch: &Value, now: i64) -> Result<Row, Failure> {
        self.change(id, now, |row| {
            let patched = definition::patched(&row.definition, patch, now);
            row.definition = patched.map_err(Failure::Mistakes)?.said;
            Ok(())
        })
    }

    /// Gives a key a new secret; the old one works for `grace` more, the one before no longer.
    ///
    /// # Errors
    /// There is no such key, `grace` is too long, or the file cannot be written.
    pub fn rotate(&self, id: &str, grace: Duration, now: i64) -> Result<(Row, Fresh), Failure> {
        if grace > LONGEST_GRACE {
            let problem = Problem::new("grace", "is at most 31d");
            return Err(Failure::Mistakes(vec![problem]));
        }
        let fresh = Fresh::of(id, &SystemRandom::new()).map_err(|_| Failure::NoRandomness)?;
        let until = now.saturating_add(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let row = self.change(id, now, |row| {
            let old = std::mem::replace(&mut row.digest, fresh.digest());
            row.previous = (!grace.is_zero()).then_some((old, until));
            Ok(())
        })?;
        Ok((row, fresh))
    }

    /// Revokes a key, for good; one that is revoked already stays as it is.
    ///
    /// # Errors
    /// There is no such key, or the file cannot be written.
    pub fn revoke(&self, id: &str, now: i64) -> Result<Row, Failure> {
        self.shared.write(|file| {
            file.change(id, now, |row| {
                row.revoked_at.get_or_insert(now);
                row.previous = None;
                Ok(())
            })
        })
    }

    fn change(
        &self,
        id: &str,
        now: i64,
        change: impl FnOnce(&mut Row) -> Result<(), Failure>,
    ) -> Result<Row, Failure> {
        self.shared.write(|file| {
            file.change(id, now, |row| match row.revoked_at {
                Some(_) => Err(Failure::Revoked),
                None => change(row),
            })
        })
    }

    /// The keys with these ids, in this order; those that are gone are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rows(&self, ids: &[Box<str>]) -> Result<Vec<Row>, Failure> {
        self.shared
            .with(|file| file.rows(ids).map_err(Failure::Store))
    }
}

impl Shared {
    /// Reads what others have changed.
    fn follow(&self) {
        let followed = self.with(|file| match file.has_changed() {
            Ok(false) => Ok(()),
            Ok(true) => self.reread(file).map_err(Failure::Store),
            Err(problem) => Err(Failure::Store(problem)),
        });
        if followed.is_ok() && self.is_failing.swap(false, Ordering::Relaxed) {
            log::info!("the store of API keys can be used again");
        }
    }

    /// Writes, and knows what was written.
    fn write<T>(&self, work: impl FnOnce(&mut File) -> Result<T, Failure>) -> Result<T, Failure> {
        self.with(|file| {
            let done = work(file)?;
            self.reread(file).map_err(Failure::Store)?;
            Ok(done)
        })
    }

    /// Works with the file, which is opened where it is not; one that fails is opened anew.
    fn with<T>(&self, work: impl FnOnce(&mut File) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut open = self.file.lock();
        let done = match &mut *open {
            Some(file) => work(file),
            none => File::open(&self.dir)
                .map_err(Failure::Store)
                .and_then(|file| {
                    let file = none.insert(file);
                    self.reread(file).map_err(Failure::Store)?;
                    work(file)
                }),
        };
        if let Err(Failure::Store(problem)) = &done {
            *open = None;
            self.fails(problem);
        }
        done
    }

    fn fails(&self, problem: &database::Problem) {
        if self.is_failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let so = match self.table.load().is_missing {
            true => "no API key is accepted",
            false => "the API keys that are known stay as they are",
        };
        log::error!("the store of API keys cannot be used, and {so}: {problem}");
    }

    /// Brings the table up to the file.
    fn reread(&self, file: &mut File) -> Result<(), database::Problem> {
        let (rows, count) = file.changes()?;
        let known = self.table.load();
        if rows.is_empty() && known.len() == count && !known.is_missing {
            return Ok(());
        }
        let mut table = Table {
            keys: known.keys.clone(),
            is_missing: false,
        };
        add(&mut table, rows);
        // Some were forgotten.
        if table.len() != count {
            table.keys.clear();
            add(&mut table, file.all()?);
        }
        self.table.store(Arc::new(table));
        Ok(())
    }
}

fn add(table: &mut Table, rows: Vec<Row>) {
    let keys = rows.into_iter().map(|row| Arc::new(key(row)));
    table.keys.extend(keys.map(|key| (key.id.clone(), key)));
}

/// What requests need of a key.
fn key(row: Row) -> Key {
    let understood = definition::stored(row.definition);
    let definition = understood.inspect_err(|problems| {
        let why: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let (id, why) = (&row.id, why.join("; "));
        log::error!(
            "nobody passes by the API key {id}, for its definition is not understood: {why}"
        );
    });
    let definition = definition.ok();
    let shown = definition.as_ref();
    Key {
        created_at: row.created_at,
        digest: row.digest,
        previous: row.previous,
        account: shown.and_then(|known| known.account.clone()),
        gateways: shown.map_or_else(|| ["*".into()].into(), |known| known.gateways.clone()),
        expires_at: shown.and_then(|known| known.expires_at),
        revoked_at: row.revoked_at,
        consumer: definition.map(|known| {
            let mut consumer = known.consumer;
            consumer.bounds.are_of_key(&row.id);
            consumer.id = Some(row.id.clone());
            Arc::new(consumer)
        }),
        id: row.id,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
