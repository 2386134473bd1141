//! Answers questions, by a connection that can only read, on a thread that may block.
//!
//! What is read is the coarsest level that fits the interval, and of calls a marginal where that
//! says enough. An hour or day that is not made yet is read from the level below it; all of it in
//! one transaction, so that nothing is counted twice or missed while the writer moves on.

mod groups;
mod pieces;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::answer::{Answer, Timeline};
use super::figures::Figures;
use super::marginals::Marginal;
use super::query::{GroupBy, Query};
use super::schema::{self, Level, Problem};
use super::series::{Dimension, of_text};
use crate::database::ReadError;
use groups::Grouping;
use pieces::Piece;

/// Rows between two looks at the clock.
const ROWS_PER_LOOK: usize = 1_024;

/// For who asks for too much.
const ADVICE: &str = "ask for a shorter time or a coarser interval";

/// See the module. Cheap to open: one for each question is fine.
pub struct Reader {
    dir: PathBuf,
    patience: Duration,
    /// `None` while there is no database.
    connection: Option<Connection>,
}

impl Reader {
    /// Opens the analytics of a directory. An answer that takes longer than the patience becomes
    /// an error.
    ///
    /// # Errors
    /// Says which file cannot be read, and why. One that does not exist has no requests in it.
    pub fn open(dir: &Path, patience: Duration) -> Result<Self, Problem> {
        Ok(Self {
            dir: dir.to_owned(),
            patience,
            connection: schema::open_to_read(dir)?,
        })
    }

    /// Answers a question.
    ///
    /// # Errors
    /// Says why it cannot be answered.
    pub fn answer(&mut self, query: &Query) -> Result<Answer, ReadError> {
        if self.connection.is_none() {
            self.connection = schema::open_to_read(&self.dir)?;
        }
        let Some(connection) = &mut self.connection else {
            return Ok(groups::answer(query, Timeline::new(query), Vec::new()));
        };
        let database = |error| Problem::Database(schema::path(&self.dir), error);
        let until = Instant::now() + self.patience;
        let transaction = connection.transaction().map_err(database)?;
        match Question::new(&transaction, query, until).and_then(|question| question.answer()) {
            Ok(answer) => Ok(answer),
            Err(Trouble::Database(error)) => Err(database(error).into()),
            Err(Trouble::TooSlow) => Err(ReadError::TooSlow(ADVICE)),
        }
    }
}

/// Why a scan ended early.
enum Trouble {
    Database(rusqlite::Error),
    TooSlow,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// A question that is being answered.
struct Question<'a> {
    connection: &'a Connection,
    /// With the interval that there are rows for.
    query: Query,
    /// What is read of calls by hours and days, where not all is needed.
    marginal: Option<Marginal>,
    until: Instant,
}

impl<'a> Question<'a> {
    fn new(connection: &'a Connection, query: &Query, until: Instant) -> Result<Self, Trouble> {
        let mut query = query.clone();
        for level in [Level::Minute, Level::Hour] {
            let coarser = level.coarser().unwrap_or(level).seconds();
            let is_kept = query.start >= schema::since(connection, level)?;
            if query.interval < coarser && !is_kept {
                query = query.coarsened(coarser);
            }
        }
        let marginal = match schema::has_marginals(connection)? {
            true => Marginal::of(&query),
            false => None,
        };
        Ok(Self {
            connection,
            query,
            marginal,
            until,
        })
    }

    fn answer(&self) -> Result<Answer, Trouble> {
        let query = &self.query;
        match &query.group_by {
            None => {
                let all = self.of_all_calls()?;
                Ok(groups::answer(query, all, Vec::new()))
            }
            Some(GroupBy::Part(place)) => {
                let grouping = Grouping::new(self, Dimension::Calls, |name| {
                    name.get(*place).map(String::as_str)
                });
                let groups = grouping.figures(None)?;
                Ok(groups::answer(query, groups::sum(query, &groups), groups))
            }
            Some(GroupBy::UserAgent) => {
                self.beside_all(Dimension::Agents, |name| name.get(1).map(String::as_str))
            }
            Some(GroupBy::Metadata(key)) => self.beside_all(Dimension::Labels, |name| {
                let value = name.get(2)?;
                (name.get(1) == Some(key)).then_some(value)
            }),
        }
    }

    /// Groups of a dimension in which requests need not be; those that are not are a group too.
    fn beside_all(
        &self,
        dimension: Dimension,
        group: impl Fn(&[String]) -> Option<&str>,
    ) -> Result<Answer, Trouble> {
        let all = self.of_all_calls()?;
        let groups = Grouping::new(self, dimension, group).figures(Some(&all))?;
        Ok(groups::answer(&self.query, all, groups))
    }

    /// Of all requests that the filter lets through.
    fn of_all_calls(&self) -> Result<Timeline, Trouble> {
        let mut all = Timeline::new(&self.query);
        let mut series = Series::new(self, |name| self.is_wanted(name).then_some(()));
        self.scan(Dimension::Calls, &mut series, |at, (), figures| {
            all.add(at, figures);
            true
        })?;
        drop(series);
        Ok(all)
    }

    /// Whether the filter lets a series through. Those of other dimensions than calls begin with
    /// the gateway too, and are asked for nothing else.
    fn is_wanted(&self, name: &[String]) -> bool {
        let mut filter = self.query.filter.iter().enumerate();
        filter.all(|(place, wanted)| wanted.is_none() || name.get(place) == wanted.as_ref())
    }

    /// Goes through the rows of a dimension - time, series, and what `column` has - for as long
    /// as `see` says to go on; says whether it came to the end.
    fn rows(
        &self,
        dimension: Dimension,
        column: &str,
        mut see: impl FnMut(i64, i64, ValueRef<'_>) -> Result<bool, Trouble>,
    ) -> Result<bool, Trouble> {
        let mut seen = 0_usize;
        for Piece { level, from, until } in self.pieces(dimension)? {
            let mut select = self.connection.prepare(&format!(
                "SELECT at, series, {column} FROM {} WHERE dimension = ?1 AND at >= ?2 AND at < ?3",
                level.table()
            ))?;
            let mut rows = select.query((self.number(dimension, level), from, until))?;
            while let Some(row) = rows.next()? {
                if !see(row.get(0)?, row.get(1)?, row.get_ref(2)?)? {
                    return Ok(false);
                }
                seen += 1;
                if seen.is_multiple_of(ROWS_PER_LOOK) && Instant::now() > self.until {
                    return Err(Trouble::TooSlow);
                }
            }
        }
        Ok(true)
    }

    /// Which rows of a level are read.
    fn number(&self, dimension: Dimension, level: Level) -> i64 {
        match (dimension, level, self.marginal) {
            (Dimension::Calls, Level::Hour | Level::Day, Some(marginal)) => marginal.number(),
            _ => dimension.number(),
        }
    }

    /// Goes through the figures of those series that are part of the answer, for as long as
    /// `see` says to go on; says whether it came to the end.
    fn scan<T: Copy, F: FnMut(&[String]) -> Option<T>>(
        &self,
        dimension: Dimension,
        series: &mut Series<'_, T, F>,
        mut see: impl FnMut(i64, T, &Figures) -> bool,
    ) -> Result<bool, Trouble> {
        let mut figures = Figures::default();
        let mut damaged = 0_u64;
        let complete = self.rows(dimension, "figures", |at, id, blob| {
            let Some(group) = series.group(id)? else {
                return Ok(true);
            };
            let decoded = figures.decode_into(blob.as_blob().unwrap_or_default());
            damaged += u64::from(decoded.is_err());
            Ok(decoded.is_err() || see(at, group, &figures))
        })?;
        if damaged > 0 {
            log::warn!("analytics: {damaged} rows are damaged and left out of an answer");
        }
        Ok(complete)
    }

    /// Where the rows of a dimension are read.
    fn pieces(&self, dimension: Dimension) -> rusqlite::Result<Vec<Piece>> {
        let Query {
            start,
            end,
            interval,
            ..
        } = self.query;
        let fits = |level: &&Level| interval % level.seconds() == 0;
        let level = Level::ALL.iter().rev().find(fits);
        let all = Piece {
            level: *level.unwrap_or(&Level::Minute),
            from: start,
            until: end,
        };
        pieces::made(self.connection, dimension, all)
    }
}

/// What series are to an answer, looked up when they come up.
struct Series<'a, T, F> {
    question: &'a Question<'a>,
    known: AHashMap<i64, Option<T>>,
    of: F,
}

impl<'a, T: Copy, F: FnMut(&[String]) -> Option<T>> Series<'a, T, F> {
    fn new(question: &'a Question<'a>, of: F) -> Self {
        Self {
            question,
            known: AHashMap::new(),
            of,
        }
    }

    /// Of a series by its number; `None` where it is not part of the answer.
    fn group(&mut self, id: i64) -> rusqlite::Result<Option<T>> {
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let mut select = self
            .question
            .connection
            .prepare_cached("SELECT name FROM series WHERE id = ?1")?;
        // One that is gone has lost its name and nothing else.
        let name: Option<String> = select.query_row([id], |row| row.get(0)).optional()?;
        let group = (self.of)(&of_text(name.as_deref().unwrap_or_default()));
        self.known.insert(id, group);
        Ok(group)
    }
}
