//! The one thread that writes: it takes entries from the queue in batches, redacts and
//! compresses them, appends their payloads to a segment and commits their rows.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, TransactionBehavior};

use super::counters::{Counters, add};
use super::entry::Entry;
use super::insert;
use super::metadata_test;
use super::pace::Pace;
use super::retention::{self, Bounds};
use super::schema::{self, Problem};
use super::segments::{Appender, Place};
use super::store::{AWAKE, DOZING, IDLE, Job, Message, Options, Shared};
use super::times;
use super::words::Words;

/// How long entries are collected: with the commit itself, far less than the second that a
/// kill may cost.
const TICK: Duration = Duration::from_millis(250);

/// How often it is looked whether something expired.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Most entries and bytes of one transaction.
const BATCH_ROWS: usize = 2_000;
const BATCH_BYTES: usize = 2 << 20;

/// Waits for another process's transaction, of [`schema::open`]'s patience each.
const BUSY_TRIES: usize = 12;

/// All that is open of a store.
pub struct Database {
    pub(super) dir: PathBuf,
    pub(super) connection: Connection,
    pub(super) words: Words,
    pub(super) appender: Appender,
}

impl Database {
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, Problem> {
        let connection = schema::open(dir)?;
        let database = |error| Problem::Database(schema::path(dir), error);
        metadata_test::register(&connection).map_err(database)?;
        let most = options.bytes.map_or(u64::MAX, |bytes| bytes / 16);
        let appender = Appender::new(dir, options.segment_bytes.min(most), options.level)
            .map_err(|error| Problem::File(dir.to_owned(), error))?;
        Ok(Self {
            dir: dir.to_owned(),
            connection,
            words: Words::default(),
            appender,
        })
    }

    fn problem(&self, error: rusqlite::Error) -> Problem {
        Problem::Database(schema::path(&self.dir), error)
    }
}

enum State {
    Open(Box<Database>),
    /// Entries are dropped until then.
    Waiting(Instant),
    /// Entries are dropped for good.
    Stopped,
}

/// Boxed as they came: sorting moves a pointer, not a kilobyte.
#[allow(clippy::vec_box)]
type Batch = Vec<Box<Entry>>;

type Prepared = Vec<(Box<Entry>, Option<Place>)>;

/// See the module.
pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    state: State,
    batch: Batch,
    /// What the batch weighs.
    weight: usize,
    tidied: Option<Instant>,
}

/// What the queue had.
enum Drained {
    /// Nothing more.
    All,
    /// More than one transaction takes.
    Some,
    /// Something to do once the batch is written.
    Job(Job),
    /// All stores are gone.
    End,
}

impl Writer {
    pub fn open(
        dir: &Path,
        options: Options,
        shared: Arc<Shared>,
        receiver: Receiver<Message>,
    ) -> Self {
        let mut writer = Self {
            dir: dir.to_owned(),
            options,
            shared,
            receiver,
            state: State::Stopped,
            batch: Batch::new(),
            weight: 0,
            tidied: None,
        };
        writer.reopen();
        writer
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Works until all stores are gone. A panic would be a mistake of this program: it raises
    /// the alarm, as damage does.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let work = std::panic::AssertUnwindSafe(move || self.work());
        if std::panic::catch_unwind(work).is_err() {
            alarm(
                &shared,
                "the log writer panicked: nothing is logged until a restart",
            );
            shared.stopped.store(true, Ordering::Relaxed);
        }
    }

    fn work(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.calm.begin();
        loop {
            let drained = self.drain();
            self.write_batch();
            let more = match drained {
                Drained::All => self.tidy(),
                Drained::Some => true,
                Drained::Job(job) => {
                    self.run_job(job);
                    true
                }
                Drained::End => return,
            };
            match more {
                true => shared.calm.go_on(),
                false => {
                    shared.calm.rest();
                    self.sleep();
                    shared.calm.work();
                }
            }
        }
    }

    fn drain(&mut self) -> Drained {
        while self.batch.len() < BATCH_ROWS && self.weight < BATCH_BYTES {
            match self.receiver.try_recv() {
                Ok(message) => {
                    self.shared.pending.fetch_sub(1, Ordering::SeqCst);
                    match message {
                        Message::Entry(weight, entry) => {
                            self.weight += weight;
                            self.batch.push(entry);
                        }
                        Message::Job(job) => return Drained::Job(job),
                    }
                }
                Err(TryRecvError::Empty) => return Drained::All,
                Err(TryRecvError::Disconnected) => return Drained::End,
            }
        }
        Drained::Some
    }

    fn run_job(&mut self, job: Job) {
        self.shared.jobs.fetch_sub(1, Ordering::Relaxed);
        let problem = |shared: &Shared| {
            let problem = shared
                .problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            problem.clone().unwrap_or_default()
        };
        match &mut self.state {
            State::Open(database) => job(Ok(database)),
            State::Waiting(_) | State::Stopped => job(Err(problem(&self.shared))),
        }
    }

    fn write_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let weight = std::mem::take(&mut self.weight);
        if matches!(self.state, State::Waiting(until) if Instant::now() >= until) {
            self.reopen();
        }
        let (count, written) = (batch.len(), matches!(self.state, State::Open(_)));
        if count > 0 && written {
            // Rows in the order of their keys are appended to the table.
            batch.sort_by_key(|entry| schema::key_of(entry.id));
            self.write(batch);
        } else {
            add(&self.counters().rows_dropped, count);
        }
        self.counters()
            .queue_bytes
            .fetch_sub(weight as u64, Ordering::Relaxed);
    }

    fn write(&mut self, batch: Batch) {
        let State::Open(database) = &mut self.state else {
            return;
        };
        let counters = &self.shared.counters;
        let count = batch.len();
        let mut pace = Pace::new(&self.shared, self.options.queue_bytes);
        let prepared = prepare(database, &self.options, counters, &mut pace, batch);
        let result = prepared.and_then(|(prepared, trouble)| {
            commit(database, &mut pace, &prepared).map_err(|error| database.problem(error))?;
            add(&counters.rows_written, count);
            add(&counters.flushes, 1);
            trouble.map_or(Ok(0), Err)
        });
        match result {
            Ok(_) => self.recovered(),
            Err(problem) => {
                if !matches!(problem, Problem::File(..)) {
                    add(&counters.rows_dropped, count);
                }
                self.fail(&problem);
            }
        }
    }

    fn recovered(&self) {
        if self.counters().alarm.swap(0, Ordering::Relaxed) == 1 {
            log::info!("{}: requests are logged again", self.dir.display());
            *self
                .shared
                .problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn reopen(&mut self) {
        match Database::open(&self.dir, &self.options) {
            Ok(database) => self.state = State::Open(Box::new(database)),
            Err(problem) => self.fail(&problem),
        }
    }

    fn fail(&mut self, problem: &Problem) {
        let lasting = problem.is_lasting();
        let then = if lasting {
            "no request is logged until a restart"
        } else {
            "requests are not logged until it can be written"
        };
        alarm(&self.shared, &format!("log store: {problem}; {then}"));
        self.shared.stopped.store(lasting, Ordering::Relaxed);
        self.state = match lasting {
            true => State::Stopped,
            false => State::Waiting(Instant::now() + self.options.retry),
        };
    }

    /// Removes a little of what expired; says whether there is more.
    fn tidy(&mut self) -> bool {
        let due = self.tidied.is_none_or(|last| last.elapsed() >= TIDY_EVERY);
        let State::Open(database) = &mut self.state else {
            return false;
        };
        if !due {
            return false;
        }
        let bounds = Bounds {
            age: self.options.age,
            bytes: self.options.bytes,
        };
        let now = times::milliseconds(SystemTime::now());
        let step = retention::step(database, bounds, now, &self.shared.counters);
        let step = step.map_err(|error| database.problem(error));
        if !matches!(step, Ok(true)) {
            self.tidied = Some(Instant::now());
        }
        match step {
            Ok(more) => more,
            Err(Problem::Database(_, error)) if schema::is_busy(&error) => false,
            Err(problem) => {
                self.fail(&problem);
                false
            }
        }
    }

    /// Sleeps until something comes, if nothing is there, and then while entries collect.
    fn sleep(&self) {
        let shared = &self.shared;
        let order = Ordering::SeqCst;
        shared.sleep.store(IDLE, order);
        if shared.pending.load(order) == 0 && !shared.urgent.load(order) {
            std::thread::park_timeout(TIDY_EVERY);
        }
        shared.sleep.store(DOZING, order);
        if !shared.urgent.load(order) {
            std::thread::park_timeout(TICK);
        }
        shared.urgent.store(false, order);
        shared.sleep.store(AWAKE, order);
    }
}

fn alarm(shared: &Shared, problem: &str) {
    log::error!("{problem}");
    add(&shared.counters.errors, 1);
    shared.counters.alarm.store(1, Ordering::Relaxed);
    *shared
        .problem
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
}

/// Redacts, compresses and appends. Where payloads cannot be written the rows still may: they
/// come without, and with the trouble.
fn prepare(
    database: &mut Database,
    options: &Options,
    counters: &Counters,
    pace: &mut Pace<'_>,
    batch: Batch,
) -> Result<(Prepared, Option<Problem>), Problem> {
    let now = times::milliseconds(SystemTime::now());
    let wanted = batch.iter().any(|entry| entry.payload.is_some());
    let mut trouble = None;
    if wanted {
        let ready = database.appender.ready(&database.connection, now);
        trouble = ready.map_err(|error| database.problem(error))?.err();
    }
    let mut prepared = Prepared::with_capacity(batch.len());
    for mut entry in batch {
        options.redaction.row(&mut entry);
        let place = append(&mut database.appender, options, counters, pace, &mut entry);
        prepared.push((
            entry,
            place.unwrap_or_else(|error| {
                database.appender.give_up();
                trouble = Some(error);
                None
            }),
        ));
    }
    match database.appender.flush() {
        Ok(written) => add(&counters.stored_bytes, written),
        Err(error) => trouble = Some(error),
    }
    if trouble.is_some() {
        let places = prepared.iter_mut().filter_map(|(_, place)| place.take());
        add(&counters.bodies_dropped, places.count());
    }
    let dir = database.dir.clone();
    Ok((prepared, trouble.map(|error| Problem::File(dir, error))))
}

fn append(
    appender: &mut Appender,
    options: &Options,
    counters: &Counters,
    pace: &mut Pace<'_>,
    entry: &mut Entry,
) -> std::io::Result<Option<Place>> {
    let Some(payload) = entry.payload.take() else {
        return Ok(None);
    };
    let (record, lost) = options
        .redaction
        .payload(&payload, options.decoder, options.body_bytes);
    add(&counters.bodies_dropped, usize::from(lost));
    appender.hurry(pace.is_behind())?;
    let place = appender.append(entry.id, &record)?;
    match place {
        Some((_, length)) => {
            add(&counters.payload_bytes, length);
            pace.step(length);
        }
        None => add(&counters.bodies_dropped, 1),
    }
    Ok(place.map(|(place, _)| place))
}

/// Commits rows; waits for other processes that do the same.
fn commit(
    database: &mut Database,
    pace: &mut Pace<'_>,
    prepared: &Prepared,
) -> rusqlite::Result<()> {
    let mut result = Ok(());
    for _ in 0..BUSY_TRIES {
        result = try_commit(database, pace, prepared);
        match &result {
            Ok(()) => database.words.committed(),
            Err(_) => database.words.rolled_back(),
        }
        if !matches!(&result, Err(error) if schema::is_busy(error)) {
            break;
        }
    }
    result
}

fn try_commit(
    database: &mut Database,
    pace: &mut Pace<'_>,
    prepared: &Prepared,
) -> rusqlite::Result<()> {
    let Database {
        connection,
        words,
        appender,
        ..
    } = database;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut statement = insert::prepare(&transaction)?;
    for (entry, place) in prepared {
        insert::insert(&transaction, &mut statement, words, entry, *place)?;
        pace.step(0);
    }
    drop(statement);
    if let (Some(segment), Some((newest, _))) = (appender.current(), prepared.last()) {
        let newest = schema::id_milliseconds(newest.id);
        transaction
            .prepare_cached("UPDATE segments SET newest = MAX(newest, ?2) WHERE id = ?1")?
            .execute((segment, newest))?;
    }
    transaction.commit()
}
