//! Reads the store: pages of entries, single ones, their bodies, and exports. To be used on a
//! thread that may block, by a connection that can only read: it holds up nobody who writes.
//!
//! A page is found in the table's own order of time, from a key on, so that any number of rows
//! lies behind it for nothing. What scans more of the table (totals, rare filters, other
//! orders) ends when the reader's patience does, with what was found and a word about it.

mod keys;
mod totals;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params_from_iter};
use serde::Serialize;
use uuid::Uuid;

use super::columns::Known;
use super::filter::Filter;
use super::filter::sql::Sql;
use super::insert::label;
use super::metadata_test;
use super::query::{Order, Query, shown_cursor};
use super::schema::{self, COLUMNS, Problem};
use super::segments::{self, Body, Record};
use super::shown::{self, LogEntry, Preview};

/// SQLite's steps between two looks at the clock: well under a millisecond.
const STEPS: i32 = 10_000;

/// Entries that an export reads at a time.
const EXPORT_PAGE: usize = 500;

pub use crate::database::ReadError;
pub(super) use keys::Keys;
pub use totals::Range;
use totals::Totals;

/// Whose entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Option<String>);

impl Scope {
    /// Those of one gateway.
    pub fn gateway(account: &str, gateway: &str) -> Self {
        Self(Some(label(account, gateway)))
    }

    /// All.
    pub fn all() -> Self {
        Self(None)
    }

    pub(super) fn label(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// For who asks for what is rare.
const ADVICE: &str = "narrow the filter, above all by start_date and end_date";

/// One page.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// Its entries.
    pub result: Vec<LogEntry>,
    /// Of all that pass the filter.
    pub result_info: ResultInfo,
}

/// The contract's `result_info`, and our `cursor` and `total_complete`. Minima and maxima come
/// when `meta_info` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // the names of the API
pub struct ResultInfo {
    pub count: usize,
    pub total_count: u64,
    pub page: u32,
    pub per_page: u32,
    /// `false`: patience ended, and there may be more than `total_count`.
    pub total_complete: bool,
    /// For the next page in the order of time; `None` when there is none.
    pub cursor: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    connection: Connection,
    known: Known,
    patience: Duration,
}

type Read<T> = Result<T, ReadError>;

impl Reader {
    /// Opens the store of a directory to read. `patience` bounds how long one page, and one
    /// total, may be looked for.
    pub fn open(dir: &Path, patience: Duration) -> Read<Self> {
        let connection = schema::open_to_read(dir).map_err(ReadError::Store)?;
        let reader = Self {
            dir: dir.to_owned(),
            connection,
            known: Known::new(),
            patience,
        };
        reader.checked(metadata_test::register(&reader.connection))?;
        Ok(reader)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn checked<T>(&self, result: rusqlite::Result<T>) -> Read<T> {
        result.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => ReadError::TooSlow(ADVICE),
            _ => ReadError::Store(Problem::Database(schema::path(&self.dir), error)),
        })
    }

    /// A page of a scope.
    pub fn list(&mut self, scope: &Scope, query: &Query) -> Read<Page> {
        let sql = self.checked(Sql::new(&self.connection, scope.label(), &query.filter))?;
        let per_page = query.per_page as usize;
        let offset = u64::from(query.page - 1) * u64::from(query.per_page);
        // One more tells whether there is another page.
        let mut keys = Vec::new();
        let wanted = Keys {
            sql: &sql,
            order: query.order,
            after: query.cursor,
            limit: per_page + 1,
            offset,
        };
        let found = self.patiently(|reader| reader.keys(&wanted, &mut keys));
        let cut_short = self.cut_short(found, keys.is_empty())?;
        let more = keys.len() > per_page || cut_short;
        keys.truncate(per_page);
        let result = self.entries(&keys)?;
        let by_time = query.order.by == super::query::OrderBy::CreatedAt;
        let cursor = keys
            .last()
            .filter(|_| more && by_time)
            .map(|key| shown_cursor(*key));
        let totals = self.totals(&sql, query.meta_info)?;
        let (page, per_page) = (query.page, query.per_page);
        let result_info = ResultInfo {
            count: result.len(),
            page,
            per_page,
            cursor,
            ..totals
        };
        Ok(Page {
            result,
            result_info,
        })
    }

    /// Whether patience ended, which is an error when there is nothing to show for it.
    fn cut_short(&self, found: rusqlite::Result<()>, empty: bool) -> Read<bool> {
        match self.checked(found) {
            Ok(()) => Ok(false),
            Err(ReadError::TooSlow(_)) if !empty => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Runs something that SQLite ends when patience does.
    fn patiently<T>(
        &mut self,
        run: impl FnOnce(&Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let end = Instant::now() + self.patience;
        self.connection
            .progress_handler(STEPS, Some(move || Instant::now() >= end))?;
        let result = run(self);
        self.connection
            .progress_handler(STEPS, None::<fn() -> bool>)?;
        result
    }

    fn keys(&self, wanted: &Keys, keys: &mut Vec<i64>) -> rusqlite::Result<()> {
        wanted.read(&self.connection, |key| keys.push(key))
    }

    fn entries(&mut self, keys: &[i64]) -> Read<Vec<LogEntry>> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = self.entry("key = ?1", [Value::Integer(*key)]);
            entries.extend(self.checked(entry)?);
        }
        Ok(entries)
    }

    fn entry(
        &mut self,
        condition: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> rusqlite::Result<Option<LogEntry>> {
        let sql = format!(
            "SELECT {} FROM entries WHERE {condition}",
            COLUMNS.join(",")
        );
        let mut select = self.connection.prepare_cached(&sql)?;
        let known = &mut self.known;
        select
            .query_row(params_from_iter(values), |row| {
                shown::read(&self.connection, known, row)
            })
            .optional()
    }

    fn totals(&mut self, sql: &Sql, meta_info: bool) -> Read<ResultInfo> {
        let columns = if meta_info {
            "cost, duration, input, output"
        } else {
            "1"
        };
        let text = format!("SELECT {columns} FROM entries WHERE {}", sql.text);
        let mut totals = Totals::default();
        let counted = self.patiently(|reader| {
            let mut select = reader.connection.prepare(&text)?;
            let mut rows = select.query(params_from_iter(&sql.values))?;
            while let Some(row) = rows.next()? {
                totals.count += 1;
                if meta_info {
                    totals.add([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
                }
            }
            Ok(())
        });
        let cut_short = self.cut_short(counted, false)?;
        Ok(ResultInfo {
            total_count: totals.count,
            total_complete: !cut_short,
            range: meta_info.then(|| totals.range()),
            ..ResultInfo::default()
        })
    }

    /// One entry with its heads and the begin of its bodies.
    pub fn get(&mut self, scope: &Scope, id: Uuid) -> Read<Option<LogEntry>> {
        let Some(mut entry) = self.find(scope, id)? else {
            return Ok(None);
        };
        entry.preview = Some(Preview::of(self.record(&entry)?));
        Ok(Some(entry))
    }

    fn find(&mut self, scope: &Scope, id: Uuid) -> Read<Option<LogEntry>> {
        let sql = self.checked(Sql::new(&self.connection, scope.label(), &Filter::id(id)))?;
        let entry = self.entry(&sql.text, sql.values);
        self.checked(entry)
    }

    /// Heads and bodies of an entry that was read; `None` when they were not kept or are gone.
    pub fn record(&self, entry: &LogEntry) -> Read<Option<Record>> {
        let read = entry
            .place
            .map(|place| segments::read(&self.dir, entry.id, place));
        read.transpose()
            .map(Option::flatten)
            .map_err(|error| ReadError::Store(Problem::File(self.dir.clone(), error)))
    }

    /// The body of an entry's request; `None` when the entry or the body is not there.
    pub fn request(&mut self, scope: &Scope, id: Uuid) -> Read<Option<Body>> {
        Ok(self.payload(scope, id)?.and_then(|record| record.request))
    }

    /// The body of its answer.
    pub fn response(&mut self, scope: &Scope, id: Uuid) -> Read<Option<Body>> {
        Ok(self.payload(scope, id)?.and_then(|record| record.response))
    }

    fn payload(&mut self, scope: &Scope, id: Uuid) -> Read<Option<Record>> {
        match self.find(scope, id)? {
            Some(entry) => self.record(&entry),
            None => Ok(None),
        }
    }

    /// All that pass a filter, in the order of time, read a few at a time. Entries that come
    /// meanwhile are among them when they are behind the place it has come to.
    pub fn export<'r>(
        &'r mut self,
        scope: &Scope,
        filter: &Filter,
        ascending: bool,
    ) -> Read<Export<'r>> {
        let sql = self.checked(Sql::new(&self.connection, scope.label(), filter))?;
        let order = Order {
            ascending,
            ..Order::default()
        };
        Ok(Export {
            reader: self,
            sql,
            order,
            after: None,
            read: Vec::new().into_iter(),
            ended: false,
        })
    }
}

/// Entries, one after the other.
#[derive(Debug)]
pub struct Export<'r> {
    reader: &'r mut Reader,
    sql: Sql,
    order: Order,
    after: Option<i64>,
    read: std::vec::IntoIter<LogEntry>,
    ended: bool,
}

impl Export<'_> {
    /// Heads and bodies of an entry it gave.
    pub fn record(&self, entry: &LogEntry) -> Read<Option<Record>> {
        self.reader.record(entry)
    }

    fn page(&mut self) -> Read<Vec<LogEntry>> {
        let wanted = Keys {
            sql: &self.sql,
            order: self.order,
            after: self.after,
            limit: EXPORT_PAGE,
            offset: 0,
        };
        let mut keys = Vec::new();
        // However long it takes: whoever exports waits.
        let read = self.reader.keys(&wanted, &mut keys);
        self.reader.checked(read)?;
        self.ended = keys.len() < EXPORT_PAGE;
        self.after = keys.last().copied().or(self.after);
        self.reader.entries(&keys)
    }
}

impl Iterator for Export<'_> {
    type Item = Read<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.read.next() {
                return Some(Ok(entry));
            }
            if self.ended {
                return None;
            }
            match self.page() {
                Ok(entries) => self.read = entries.into_iter(),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
