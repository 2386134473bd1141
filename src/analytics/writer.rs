//! The one thread that writes: once a second the rows that changed, and now and then hours, days,
//! and what is too old.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::counters::add;
use super::ids::Ids;
use super::minutes::{MINUTE, Place, Unwritten, seconds};
use super::retention::{self, Kept};
use super::rollup;
use super::schema::{self, Level, Problem};
use super::series::Dimension;
use super::store::{Message, Options, Shared};

/// How long changes gather: what a kill may cost.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked whether an hour is over, or something too old.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Most rows of one transaction, and of one hold of the minutes' lock: a fraction of a
/// millisecond.
const BATCH: usize = 1_000;

/// Seconds for which a minute that is over stays in memory, for requests that are published late.
const LATE: i64 = 5;

/// Waits for another process's transaction, of [`schema::open`]'s patience each.
const BUSY_TRIES: usize = 12;

/// What is open.
struct Database {
    connection: Connection,
    ids: Ids,
}

enum State {
    Open(Box<Database>),
    /// What is observed stays in memory until then, as far as there is room.
    Waiting(Instant),
    /// Nothing is counted any more.
    Stopped,
}

/// See the module.
pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    kept: Kept,
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    state: State,
    /// When changes are written next.
    due: Option<Instant>,
    tidy_at: Instant,
}

impl Writer {
    pub fn open(
        dir: &Path,
        options: Options,
        shared: Arc<Shared>,
        receiver: Receiver<Message>,
    ) -> Self {
        let kept = Kept::new(options.minutes, options.hours, options.days);
        let mut writer = Self {
            dir: dir.to_owned(),
            options,
            kept,
            shared,
            receiver,
            state: State::Stopped,
            due: None,
            tidy_at: Instant::now(),
        };
        writer.reopen();
        writer
    }

    /// Works until all stores are gone. A panic would be a mistake of this program: it raises
    /// the alarm, as damage does.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let work = std::panic::AssertUnwindSafe(move || self.work());
        if std::panic::catch_unwind(work).is_err() {
            alarm(
                &shared,
                "the writer of analytics panicked: nothing is counted until a restart",
            );
            stop(&shared);
        }
    }

    fn work(&mut self) {
        loop {
            let next = self.due.unwrap_or(self.tidy_at).min(self.tidy_at);
            let wait = next.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(wait) {
                Ok(Message::Wake) => self.due = Some(Instant::now() + TICK),
                Ok(Message::Flush(told)) => {
                    // Nobody may be waiting any more.
                    let _ = told.send(self.write());
                }
                #[cfg(test)]
                Ok(Message::Tidy(told)) => {
                    let _ = told.send(self.tidy_all());
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
    }

    /// Writes the rest, whatever became of the last try.
    fn end(&mut self) {
        if let State::Waiting(until) = &mut self.state {
            *until = Instant::now();
        }
        let _ = self.write();
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            let _ = self.write();
            self.due = self.is_more_to_come().then(|| Instant::now() + TICK);
        }
        if self.tidy_at <= now {
            // Between two steps changes are written that are due.
            if !self.tidy() {
                self.tidy_at = Instant::now() + TIDY_EVERY;
                self.forget();
            }
        }
    }

    /// False: the next request wakes the writer.
    fn is_more_to_come(&self) -> bool {
        // In this order: a request that comes in between finds the writer idle and wakes it.
        self.shared.idle.store(true, Ordering::SeqCst);
        let more = !self.shared.minutes.lock().is_unchanged();
        if more {
            self.shared.idle.store(false, Ordering::SeqCst);
        }
        more
    }

    /// Writes all rows that have changed until now.
    fn write(&mut self) -> Result<(), String> {
        self.try_again();
        let shared = Arc::clone(&self.shared);
        let State::Open(database) = &mut self.state else {
            return Err(shared.problem.lock().clone().unwrap_or_default());
        };
        let changed = shared.minutes.lock().take_changed();
        let mut written = 0;
        for places in changed.chunks(BATCH) {
            if let Err(error) = write_batch(database, self.kept, &shared, places) {
                shared.minutes.lock().put_back(&changed[written..]);
                return Err(self.fail(Problem::Database(schema::path(&self.dir), error)));
            }
            written += places.len();
        }
        self.recovered();
        self.forget();
        Ok(())
    }

    /// Forgets minutes that are over and written.
    fn forget(&self) {
        let now = seconds((self.options.clock)());
        let before = now - MINUTE - LATE;
        self.shared.minutes.lock().forget(before);
    }

    fn recovered(&self) {
        if self.shared.counters.alarm.swap(0, Ordering::Relaxed) == 1 {
            log::info!("{}: analytics are stored again", self.dir.display());
            *self.shared.problem.lock() = None;
        }
    }

    /// Opens what could not be used, once it is time to.
    fn try_again(&mut self) {
        if matches!(self.state, State::Waiting(until) if Instant::now() >= until) {
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        match schema::open(&self.dir) {
            Ok(connection) => {
                let ids = Ids::default();
                self.state = State::Open(Box::new(Database { connection, ids }));
            }
            Err(problem) => {
                self.fail(problem);
            }
        }
    }

    fn fail(&mut self, problem: Problem) -> String {
        let lasting = problem.is_lasting();
        let then = match lasting {
            true => "requests are not counted until a restart",
            false => "requests are counted in memory, as far as there is room",
        };
        let told = format!("analytics: {problem}; {then}");
        alarm(&self.shared, &told);
        self.state = match lasting {
            true => State::Stopped,
            false => State::Waiting(Instant::now() + self.options.retry),
        };
        if lasting {
            stop(&self.shared);
        }
        told
    }

    /// Makes an hour or a day, or removes some of what is too old; says whether there is more.
    fn tidy(&mut self) -> bool {
        self.try_again();
        let State::Open(database) = &mut self.state else {
            return false;
        };
        let now = seconds((self.options.clock)());
        match tidy_step(database, self.kept, now, &self.shared) {
            Ok(more) => {
                // What could not be written is written again first.
                if self.shared.minutes.lock().is_unchanged() {
                    self.recovered();
                }
                more
            }
            Err(error) if schema::is_busy(&error) => false,
            Err(error) => {
                self.fail(Problem::Database(schema::path(&self.dir), error));
                false
            }
        }
    }

    #[cfg(test)]
    fn tidy_all(&mut self) -> Result<(), String> {
        while self.tidy() {}
        self.forget();
        self.shared.problem.lock().clone().map_or(Ok(()), Err)
    }
}

fn tidy_step(
    database: &mut Database,
    kept: Kept,
    now: i64,
    shared: &Shared,
) -> rusqlite::Result<bool> {
    let Database { connection, ids } = database;
    let counters = &shared.counters;
    Ok(rollup::step(connection, ids, kept, now, counters)?
        || retention::step(connection, kept, now, counters)?)
}

fn alarm(shared: &Shared, problem: &str) {
    // It is tried again and again, and told once.
    let known = shared.problem.lock().replace(problem.to_owned());
    if known.as_deref() != Some(problem) {
        log::error!("{problem}");
    }
    add(&shared.counters.errors, 1);
    shared.counters.alarm.store(1, Ordering::Relaxed);
}

fn stop(shared: &Shared) {
    shared.stopped.store(true, Ordering::Relaxed);
    let dropped = shared.minutes.lock().clear();
    shared.dropped(dropped);
}

/// Writes some rows as they are now; waits for other processes that do the same.
fn write_batch(
    database: &mut Database,
    kept: Kept,
    shared: &Shared,
    places: &[Place],
) -> rusqlite::Result<()> {
    let rows = shared.minutes.lock().encode(places);
    let mut tries = 0;
    let late = loop {
        let committed = commit(database, kept, &rows);
        match committed {
            Ok(late) => break late,
            Err(error) => {
                database.ids.clear();
                tries += 1;
                if !schema::is_busy(&error) || tries == BUSY_TRIES {
                    return Err(error);
                }
            }
        }
    };
    let calls = late.iter().filter(|row| row.dimension == Dimension::Calls);
    let requests = calls.clone().map(|row| row.requests).sum();
    add(&shared.counters.requests_dropped, requests);
    add(
        &shared.counters.minutes_dropped,
        calls.count().min(1) as u64,
    );
    add(
        &shared.counters.rows_written,
        (rows.len() - late.len()) as u64,
    );
    Ok(())
}

/// Commits rows. Gives those of minutes whose hours have been made for good: they come days late,
/// as after a clock that was set back.
fn commit<'a>(
    database: &mut Database,
    kept: Kept,
    rows: &'a [Unwritten],
) -> rusqlite::Result<Vec<&'a Unwritten>> {
    let Database { connection, ids } = database;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let since = schema::since(&transaction, Level::Minute)?;
    let (rows, late): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.at >= since);
    let mut replace = transaction
        .prepare_cached("INSERT OR REPLACE INTO minutes VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut last = None;
    for row in rows {
        let until = kept.needed_until(Level::Minute, row.at);
        let series = ids.id(&transaction, row.dimension, &row.key, until)?;
        let requests = i64::try_from(row.requests).unwrap_or(i64::MAX);
        let dimension = row.dimension.number();
        replace.execute((
            dimension,
            row.at,
            series,
            row.writer,
            requests,
            &row.figures,
        ))?;
        let hour = Some((row.dimension, Level::Hour.start(row.at)));
        if std::mem::replace(&mut last, hour) != hour {
            schema::mark_dirty(&transaction, Level::Hour, row.dimension, row.at)?;
            schema::mark_dirty(&transaction, Level::Day, row.dimension, row.at)?;
        }
    }
    drop(replace);
    transaction.commit()?;
    Ok(late)
}
