//! The one thread that writes: what was spent, twice a second, and more often what processes that
//! share budgets must know of each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::account::AccountId;
use super::super::accounts::Accounts;
use super::super::budgets::Shared;
use super::super::state::{Figures, State};
use super::super::window::second;
use super::alive::Alive;
use super::peers::Peers;
use super::schema::{self, Process};
use super::{Message, Options, Order};
use crate::database::{Problem, is_busy};

/// How often worthless accounts are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often a process that ends looks what its accounts do not need any more.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Keeper {
    dir: PathBuf,
    pub options: Options,
    pub shared: Arc<Shared>,
    receiver: Receiver<Message>,
    /// `None` while it cannot be used, or is not to be any more.
    file: Option<Connection>,
    /// When it is opened, if it is to be.
    opens: Option<Instant>,
    /// This process lives, whatever becomes of the file.
    alive: Option<Alive>,
    /// This process in the file, once it is there.
    pub myself: Option<Myself>,
    pub peers: Peers,
    /// This process only finishes its calls.
    pub retiring: bool,
    swept: Instant,
    gave_back: Instant,
    /// What was told last.
    problem: Option<String>,
}

/// This process in the file.
pub(super) struct Myself {
    pub process: Process,
    /// The last change that was written.
    pub change: i64,
}

impl Keeper {
    pub fn open(
        dir: &Path,
        options: Options,
        shared: Arc<Shared>,
        receiver: Receiver<Message>,
    ) -> Self {
        let now = Instant::now();
        let mut keeper = Self {
            dir: dir.to_owned(),
            options,
            shared,
            receiver,
            file: None,
            opens: Some(now),
            alive: None,
            myself: None,
            peers: Peers::default(),
            retiring: false,
            swept: now,
            gave_back: now,
            problem: None,
        };
        // What is wrong has been told.
        let _ = keeper.sync(true);
        keeper
    }

    /// Works until the store is dropped. A panic would be a mistake of this program: it raises the
    /// alarm, as damage does, and budgets go on in memory.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        if catch_unwind(AssertUnwindSafe(move || self.work())).is_err() {
            log::error!(
                "the keeper of budgets panicked: what is spent is not stored until a restart"
            );
            shared.counters.errors.fetch_add(1, Ordering::Relaxed);
            shared.counters.alarm.store(1, Ordering::Relaxed);
        }
    }

    fn work(&mut self) {
        loop {
            let pause = match self.peers.is_alone() {
                true => self.options.flush,
                false => self.options.exchange,
            };
            match self.receiver.recv_timeout(pause) {
                Ok((order, told)) => {
                    // Nobody may be waiting any more.
                    let _ = told.send(self.carry_out(&order));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.sync(false);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.end();
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, order: &Order) -> Result<(), String> {
        match order {
            Order::Sync => self.sync(true),
            Order::Retire => {
                // Who has come is known, and nothing is given back twice.
                let known = self.sync(true);
                self.retiring = true;
                self.retire();
                known.and_then(|()| self.sync(true))
            }
            Order::End => self.end(),
        }
    }

    /// Writes the rest, whatever became of the last try, and dies.
    fn end(&mut self) -> Result<(), String> {
        self.opens = self.opens.map(|_| Instant::now());
        let written = self.sync(true);
        (self.file, self.opens) = (None, None);
        (self.alive, self.myself) = (None, None);
        written
    }

    /// Looks who else is there, and writes what has changed.
    fn sync(&mut self, thoroughly: bool) -> Result<(), String> {
        if self.opens.is_some_and(|opens| opens <= Instant::now()) {
            self.reopen();
        }
        let Some(mut file) = self.file.take() else {
            return self.problem.clone().map_or(Ok(()), Err);
        };
        self.tidy();
        let looked = self.look(&mut file, thoroughly);
        let done = looked.and_then(|()| self.write(&mut file));
        match done {
            Ok(()) => self.recovered(),
            Err(error) => {
                let is_busy = is_busy(&error);
                let told = self.fail(Problem::Database(schema::path(&self.dir), error));
                if is_busy {
                    // Another process holds it for long: it is tried with the next round.
                    (self.file, self.opens) = (Some(file), None);
                }
                return Err(told);
            }
        }
        self.file = Some(file);
        Ok(())
    }

    fn tidy(&mut self) {
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.shared.accounts.sweep(self.now());
        }
    }

    /// The second that it is now.
    pub fn now(&self) -> i64 {
        second((self.options.clock)())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// Opens what could not be used.
    fn reopen(&mut self) {
        match schema::open(&self.dir) {
            Err(problem) => {
                self.fail(problem);
            }
            Ok(mut file) => match self.enter(&mut file) {
                Ok(()) => (self.file, self.opens) = (Some(file), None),
                Err(problem) => {
                    self.fail(problem);
                }
            },
        }
    }

    /// Is known from now on, or again.
    fn enter(&mut self, file: &mut Connection) -> Result<(), Problem> {
        let problem = |error| Problem::Database(schema::path(&self.dir), error);
        let name = match &self.alive {
            Some(alive) => alive.name.clone(),
            None => {
                let alive = Alive::begin(&self.dir);
                let alive = alive.map_err(|error| Problem::File(self.dir.clone(), error))?;
                self.alive.insert(alive).name.clone()
            }
        };
        let (process, is_known) = self.register(file, &name).map_err(problem)?;
        let change = schema::last_change(file, process.id).map_err(problem)?;
        self.peers.forget();
        self.myself = Some(Myself { process, change });
        // A file that is new or another one has nothing of what is spent.
        if !is_known {
            let sharing = self.accounts().sharing();
            self.accounts().share(&sharing, |_| true);
        }
        Ok(())
    }

    /// Writes all that has changed until now.
    fn write(&mut self, file: &mut Connection) -> rusqlite::Result<()> {
        let now = self.now();
        if self.retiring && self.gave_back.elapsed() >= GIVE_BACK_EVERY {
            self.gave_back = Instant::now();
            let sharing = self.accounts().sharing();
            self.accounts()
                .share(&sharing, |state| state.give_back(now));
        }
        let retiring = self.retiring;
        let before = |state: &mut State| {
            if retiring {
                state.give_back(now);
            }
        };
        let (removed, changed) = self.accounts().take_changed(before);
        let rows = changed
            .iter()
            .map(|(account, figures)| (&account.id, figures));
        let written = self.write_rows(file, &removed, rows);
        if written.is_err() {
            self.accounts().put_back(removed, changed);
        }
        written
    }

    fn write_rows<'a>(
        &mut self,
        file: &mut Connection,
        removed: &[AccountId],
        changed: impl ExactSizeIterator<Item = (&'a AccountId, &'a Figures)>,
    ) -> rusqlite::Result<()> {
        let parts = self.shared.accounts.sharing().parts;
        let Some(myself) = &mut self.myself else {
            return Ok(());
        };
        if removed.is_empty() && changed.len() == 0 && parts == myself.process.parts {
            return Ok(());
        }
        let change = myself.change + 1;
        let rows = schema::begin(file)?;
        for id in removed {
            schema::remove(&rows, myself.process.id, id)?;
        }
        for (id, figures) in changed {
            schema::put(&rows, myself.process.id, change, id, figures)?;
        }
        schema::set_parts(&rows, myself.process.id, parts)?;
        rows.commit()?;
        myself.change = change;
        myself.process.parts = parts;
        Ok(())
    }

    fn recovered(&mut self) {
        if self.problem.take().is_some() {
            log::info!("{}: what is spent is stored again", self.dir.display());
        }
        self.shared.counters.alarm.store(0, Ordering::Relaxed);
    }

    fn fail(&mut self, problem: Problem) -> String {
        let lasting = problem.is_lasting();
        let then = match lasting {
            true => "budgets are not stored until a restart",
            false => "budgets go on in memory until it is",
        };
        let told = format!("what is spent cannot be stored: {problem}; {then}");
        // It is tried again and again, and told once.
        if self.problem.as_deref() != Some(&told) {
            log::error!("{told}");
        }
        self.problem = Some(told.clone());
        let counters = &self.shared.counters;
        counters.errors.fetch_add(1, Ordering::Relaxed);
        counters.alarm.store(1, Ordering::Relaxed);
        let retry = Instant::now() + self.options.retry;
        self.opens = Some(retry).filter(|_| !lasting);
        told
    }
}
