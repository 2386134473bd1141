//! Reads entries in the order of time: all that their price depends on.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use uuid::Uuid;

use super::super::columns::{Columns, Known};
use super::super::filter::sql::Sql;
use super::super::metadata_test;
use super::super::of_record::whole_pico;

use super::{Filter, Scope, schema};
use crate::pricing::Bill;
use crate::usage::{ServiceTier, Usage};

/// What an entry's price depends on, and what it is now.
#[derive(Debug)]
pub struct Row {
    pub key: i64,
    pub id: Uuid,
    pub at: SystemTime,
    pub cached: bool,
    pub custom_cost: bool,
    pub provider: Option<String>,
    pub asked: Option<String>,
    pub answered: Option<String>,
    pub tier: ServiceTier,
    pub usage: Option<Usage>,
    pub money: Money,
}

/// The columns that a re-pricing may change, in pico-dollars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    pub cost: Option<i64>,
    pub saved: Option<i64>,
    pub source: Option<String>,
}

impl Money {
    pub fn of(bill: &Bill) -> Self {
        Self {
            cost: bill.cost.map(whole_pico),
            saved: bill.saved.map(whole_pico),
            source: Some(bill.source.name().to_owned()),
        }
    }
}

/// In the order in which [`Columns::row`] reads them; the last twelve are counts.
const SELECT: &str = "SELECT key, id, created_at, cached, custom_cost, provider, model, \
    answer_model, service_tier, cost, saved, cost_source, input, output, cached_input, \
    cache_write, cache_write_1h, reasoning, input_audio, output_audio, cached_audio, \
    input_image, output_image, web_searches FROM entries WHERE key = ?1";

/// A place in the table that moves on.
pub struct Walk {
    connection: Connection,
    known: Known,
    sql: Sql,
    /// Behind it nothing can pass.
    end: i64,
    /// The last key that is done with.
    pub last: Option<i64>,
    /// Where the next batch begins.
    after: i64,
    /// The last key of the batch that is being done.
    walked: Option<i64>,
    /// There is nothing behind `last`.
    pub ended: bool,
}

impl Walk {
    /// From behind `after`, or from the first entry that can pass.
    pub fn new(
        dir: &Path,
        scope: &Scope,
        filter: &Filter,
        after: Option<i64>,
    ) -> Result<Self, String> {
        let connection = schema::open_to_read(dir).map_err(|problem| problem.to_string())?;
        let sql = metadata_test::register(&connection)
            .and_then(|()| Sql::new(&connection, scope.label(), filter))
            .map_err(|error| error.to_string())?;
        let (begin, end) = filter.stretch();
        Ok(Self {
            connection,
            known: Known::new(),
            sql,
            end,
            last: after,
            after: after.unwrap_or(i64::MIN).max(begin - 1),
            walked: None,
            ended: false,
        })
    }

    /// Those of the next entries that pass.
    pub fn next(&mut self, batch: usize) -> Result<Vec<Row>, String> {
        self.read(batch).map_err(|error| error.to_string())
    }

    /// The batch that [`Self::next`] gave has been done.
    pub fn done(&mut self) {
        self.last = self.walked.or(self.last);
        self.after = self.last.unwrap_or(self.after);
    }

    fn read(&mut self, batch: usize) -> rusqlite::Result<Vec<Row>> {
        let (mut count, mut passing) = (0, Vec::new());
        {
            // As one term, so that SQLite goes by the keys and by no index: what is behind
            // `after` is then never walked again, and a batch never takes long.
            let text = format!(
                "SELECT key, ({}) IS TRUE FROM entries WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
                self.sql.text
            );
            let bounds = [
                self.after,
                self.end,
                i64::try_from(batch).unwrap_or(i64::MAX),
            ];
            let values = self.sql.values.iter().cloned();
            let values = values.chain(bounds.map(Value::Integer));
            let mut select = self.connection.prepare_cached(&text)?;
            let mut rows = select.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                count += 1;
                let key = row.get(0)?;
                self.walked = Some(key);
                if row.get(1)? {
                    passing.push(key);
                }
            }
        }
        self.ended = count < batch;
        passing
            .into_iter()
            .filter_map(|key| self.row(key).transpose())
            .collect()
    }

    /// `None` when it has gone meanwhile.
    fn row(&mut self, key: i64) -> rusqlite::Result<Option<Row>> {
        let mut select = self.connection.prepare_cached(SELECT)?;
        let (connection, known) = (&self.connection, &mut self.known);
        let read = |row: &rusqlite::Row| {
            let mut columns = Columns::new(connection, known, row);
            columns.row()
        };
        select.query_row([key], read).optional()
    }
}

impl Columns<'_> {
    fn row(&mut self) -> rusqlite::Result<Row> {
        let (key, id) = (self.plain()?, self.id()?.unwrap_or_default());
        let since = Duration::from_millis(self.plain::<i64>()?.unsigned_abs());
        Ok(Row {
            key,
            id,
            at: UNIX_EPOCH + since,
            cached: self.plain()?,
            custom_cost: self.plain()?,
            provider: self.word()?,
            asked: self.word()?,
            answered: self.word()?,
            tier: self
                .word()?
                .and_then(|word| ServiceTier::of(&word))
                .unwrap_or_default(),
            money: Money {
                cost: self.plain()?,
                saved: self.plain()?,
                source: self.word()?,
            },
            usage: self.usage()?,
        })
    }

    /// Input and output are there when anything is.
    fn usage(&mut self) -> rusqlite::Result<Option<Usage>> {
        let mut some = false;
        let mut next = || {
            let count: Option<i64> = self.plain()?;
            some |= count.is_some();
            Ok::<_, rusqlite::Error>(count.map_or(0, i64::unsigned_abs))
        };
        let usage = Usage {
            input: next()?,
            output: next()?,
            cached_input: next()?,
            cache_write: next()?,
            cache_write_1h: next()?,
            reasoning: next()?,
            input_audio: next()?,
            output_audio: next()?,
            cached_audio: next()?,
            input_image: next()?,
            output_image: next()?,
            web_searches: next()?,
        };
        Ok(some.then_some(usage))
    }
}
