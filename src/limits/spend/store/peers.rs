//! Other processes with the same budgets: who is gone, whose rows are taken over; who is newer, and
//! gets half of what is left; who is older, and what it has.
//!
//! Only the newest process takes over rows, in one transaction that finds no newer one; and one that
//! is the newest again takes back what it gave in the same transaction, so that a newer one either is
//! found there or finds that nothing is shared. An older process that is gone has its part until its
//! money has been taken over by this process.

use std::time::Instant;

use ahash::AHashMap;
use rusqlite::Connection;

use super::super::account::AccountId;
use super::super::accounts::Sharing;
use super::super::state::{Elder, State, WHOLE, parts_of};
use super::alive::{bury, is_alive};
use super::keeper::Keeper;
use super::schema::{self, Process, Written};

/// What a process that ends keeps of its part of accounts that it does not know.
const KEPT_PARTS: u32 = 8;

/// What is known of other processes.
#[derive(Default)]
pub(super) struct Peers {
    /// The file's, when all was as it is known.
    version: Option<i64>,
    /// There are others, alive or not.
    others: bool,
    elders: Vec<Known>,
}

struct Known {
    process: i64,
    /// The last of its changes that was read.
    change: i64,
    since: Instant,
    /// It has been told that it says nothing.
    is_told: bool,
}

impl Peers {
    /// Whether there is nobody to agree with.
    pub fn is_alone(&self) -> bool {
        !self.others
    }

    /// Everything is to be read again.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    fn elder(&mut self, process: i64) -> &mut Known {
        let at = self
            .elders
            .iter()
            .position(|known| known.process == process);
        let at = at.unwrap_or_else(|| {
            self.elders.push(Known {
                process,
                change: 0,
                since: Instant::now(),
                is_told: false,
            });
            self.elders.len() - 1
        });
        &mut self.elders[at]
    }
}

impl Keeper {
    /// Is in the file from now on as the process of that name, and the newest one if it was not
    /// there. Says too whether the file has what is spent.
    pub fn register(&self, file: &mut Connection, name: &str) -> rusqlite::Result<(Process, bool)> {
        let rows = schema::begin(file)?;
        let all = schema::processes(&rows)?;
        if let Some(known) = all.iter().find(|process| process.name == name) {
            return Ok((known.clone(), true));
        }
        // Who has nothing itself comes into the rows of the last one at once.
        let is_fresh = self.accounts().is_empty();
        let gone = all.iter().rev().filter(|_| is_fresh);
        let gone = gone
            .into_iter()
            .find(|other| !is_alive(self.dir(), &other.name));
        let process = schema::register(&rows, name, gone)?;
        let loaded = match gone {
            Some(_) => schema::written(&rows, process.id, 0)?,
            None => Vec::new(),
        };
        rows.commit()?;
        for Written { id, figures } in loaded {
            let state = State::from_figures(figures);
            self.accounts().change(id, |_| {}, |_| state);
        }
        if let Some(gone) = gone {
            bury(self.dir(), &gone.name);
        }
        Ok((process, is_fresh))
    }

    /// Looks who is there, unless nobody was and nothing has changed since.
    pub fn look(&mut self, file: &mut Connection, thoroughly: bool) -> rusqlite::Result<()> {
        let version = schema::data_version(file)?;
        let has_changed = thoroughly || self.peers.version != Some(version);
        let Some(myself) = self.myself.as_ref().map(|myself| myself.process.clone()) else {
            return Ok(());
        };
        if !has_changed && self.peers.is_alone() {
            return Ok(());
        }
        let all = schema::processes(file)?;
        let others: Vec<_> = all
            .into_iter()
            .filter(|other| other.id != myself.id)
            .collect();
        self.peers.others = !others.is_empty();
        let is_shared = self.accounts().sharing().parts.is_some();
        let (live, gone) = self.by_life(&others);
        if live.iter().any(|other| other.born > myself.born) {
            if !is_shared {
                self.give_half();
            }
        } else if !gone.is_empty() || is_shared {
            self.take_over(file, &myself)?;
        }
        self.learn(file, &myself, has_changed)?;
        self.peers.version = Some(version);
        Ok(())
    }

    fn by_life<'a>(&self, others: &'a [Process]) -> (Vec<&'a Process>, Vec<&'a Process>) {
        let all = others.iter();
        all.partition(|other| is_alive(self.dir(), &other.name))
    }

    /// A newer process has come: it has half of what is left, as soon as that is written.
    fn give_half(&self) {
        let Sharing { elders, .. } = self.accounts().sharing();
        let theirs: u32 = elders
            .iter()
            .map(|elder| elder.parts.unwrap_or(WHOLE))
            .sum();
        let sharing = Sharing {
            parts: Some(WHOLE.saturating_sub(theirs) / 2),
            elders: elders.clone(),
        };
        let now = self.now();
        log::info!("budgets are shared with a newer process");
        self.accounts().share(&sharing, |state| {
            state.give_half(&elders, now);
            true
        });
    }

    /// This process is on its way out: of accounts that are new to it, it needs next to nothing.
    pub fn retire(&self) {
        let Sharing { elders, parts } = self.accounts().sharing();
        let Some(parts) = parts else {
            return;
        };
        let sharing = Sharing {
            elders,
            parts: Some(parts / KEPT_PARTS),
        };
        let now = self.now();
        self.accounts()
            .share(&sharing, |state| state.give_back(now));
    }

    /// Takes over the money of all who are gone, and takes back what was given to them; unless there
    /// is a newer process, which does.
    fn take_over(&mut self, file: &mut Connection, myself: &Process) -> rusqlite::Result<()> {
        let rows = schema::begin(file)?;
        let mut others = schema::processes(&rows)?;
        others.retain(|other| other.id != myself.id);
        let (live, gone) = self.by_life(&others);
        if live.iter().any(|other| other.born > myself.born) {
            return Ok(());
        }
        let mut left = Vec::new();
        for process in &gone {
            let written = schema::written(&rows, process.id, 0)?;
            left.extend(written.into_iter().map(|written| (process.id, written)));
            schema::remove_process(&rows, process.id)?;
        }
        let change = self.myself.as_ref().map_or(0, |myself| myself.change) + 1;
        for (id, state) in &self.with(&left) {
            schema::put(&rows, myself.id, change, id, &state.figures())?;
        }
        schema::set_parts(&rows, myself.id, None)?;
        rows.commit()?;
        if let Some(myself) = &mut self.myself {
            myself.change = change;
            myself.process.parts = None;
        }
        let elders = live.iter().map(|other| other.id).collect::<Vec<_>>();
        self.inherit(left, &elders);
        gone.iter()
            .for_each(|process| bury(self.dir(), &process.name));
        Ok(())
    }

    /// Accounts as they are with what others have left.
    fn with(&self, left: &[(i64, Written)]) -> AHashMap<AccountId, State> {
        let mut all = AHashMap::new();
        for (gone, Written { id, figures }) in left {
            if let Some(state) = all.get_mut(id) {
                State::absorb(state, *gone, figures);
                continue;
            }
            let mut state = match self.accounts().peek(id) {
                Some(own) => own,
                None => State::new(figures.window, figures.limit, None),
            };
            state.absorb(*gone, figures);
            state.take_rest();
            all.insert(id.clone(), state);
        }
        all
    }

    /// The same in memory, once it is written; only then is more free.
    fn inherit(&self, left: Vec<(i64, Written)>, elders: &[i64]) {
        for (gone, Written { id, figures }) in left {
            let absorb = |state: &mut State| state.absorb(gone, &figures);
            let make = |parts: Option<u32>| {
                // Nothing more of it is free yet.
                let mut state = State::new(figures.window, figures.limit, parts.map(|_| 0));
                state.absorb(gone, &figures);
                state
            };
            self.accounts().change(id, absorb, make);
        }
        let known = self.accounts().sharing().elders;
        let elders: Vec<_> = elders
            .iter()
            .map(|process| {
                let known = known.iter().find(|elder| elder.process == *process);
                known.copied().unwrap_or(Elder {
                    process: *process,
                    parts: None,
                })
            })
            .collect();
        let sharing = Sharing {
            elders: elders.as_slice().into(),
            parts: None,
        };
        self.accounts().share(&sharing, |state| {
            state.keep_elders(&elders);
            state.take_rest();
            false
        });
    }

    /// Reads what older processes have.
    fn learn(
        &mut self,
        file: &mut Connection,
        myself: &Process,
        has_changed: bool,
    ) -> rusqlite::Result<()> {
        // All of one moment.
        let rows = file.transaction()?;
        let older = schema::processes(&rows)?.into_iter();
        let older: Vec<_> = older.filter(|other| other.born < myself.born).collect();
        let mut elders = Vec::new();
        for elder in &older {
            if elder.parts.is_some() && has_changed {
                self.learn_from(&rows, elder.id)?;
            }
            let parts = elder.parts.or_else(|| self.taken_for_granted(elder.id));
            elders.push(Elder {
                process: elder.id,
                parts,
            });
        }
        let Sharing {
            elders: known,
            parts,
        } = self.accounts().sharing();
        let is_gone = |known: &&Elder| older.iter().all(|elder| elder.id != known.process);
        elders.extend(known.iter().filter(is_gone));
        if *elders != *known {
            let elders = elders.into();
            let sharing = Sharing { elders, parts };
            self.accounts().share(&sharing, |_| false);
        }
        Ok(())
    }

    /// Its accounts first: where it has said nothing of one, it has its part.
    fn learn_from(&mut self, rows: &Connection, elder: i64) -> rusqlite::Result<()> {
        let after = self.peers.elder(elder).change;
        for Written { id, figures } in schema::written(rows, elder, after)? {
            let learn = |state: &mut State| state.learn(elder, &figures);
            let make = |parts: Option<u32>| {
                let slice = parts.map(|parts| parts_of(figures.limit, parts));
                let mut state = State::new(figures.window, figures.limit, slice);
                state.learn(elder, &figures);
                state
            };
            self.accounts().change(id, learn, make);
        }
        self.peers.elder(elder).change = schema::last_change(rows, elder)?;
        Ok(())
    }

    /// The part of an older process that does not say that it shares anything: none while it may
    /// still, and half where it cannot.
    fn taken_for_granted(&mut self, elder: i64) -> Option<u32> {
        let patience = self.options.patience;
        let known = self.peers.elder(elder);
        if known.since.elapsed() < patience {
            return None;
        }
        if !std::mem::replace(&mut known.is_told, true) {
            log::warn!(
                "an older process with the same budgets does not say what it has of them: half is taken for granted"
            );
        }
        Some(WHOLE / 2)
    }
}
