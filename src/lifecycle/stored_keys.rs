//! The provider keys that a process keeps: found when the configuration is read, and followed when
//! somebody changes them, here or in another process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::reload::Live;
use crate::background;
use crate::config::resolve::data_dir;
use crate::config::{Environment, Problem, schema};
use crate::database;
use crate::provider_keys::Kept;
use crate::provider_keys::master_key::MasterKeys;
use crate::provider_keys::store::{Looking, Seen, Store};

/// How often it is looked whether keys were changed: it costs one read of a page in memory.
const LOOK: Duration = Duration::from_millis(250);
/// After a change could not be followed it is tried again after so many looks.
const AGAIN: u32 = 20;

/// The keys, with what is needed to read them again.
#[derive(Debug, Clone)]
pub struct StoredKeys {
    /// Where they lie.
    pub store: Store,
    /// What they are encrypted under.
    pub masters: Arc<MasterKeys>,
    /// They themselves.
    pub kept: Kept,
}

impl StoredKeys {
    /// Those of a configuration; `store`: where they lie, if not where it says.
    ///
    /// # Errors
    /// The master key cannot be used, or the store cannot be read.
    pub fn of(
        config: &schema::Config,
        environment: Environment<'_>,
        store: Option<&Store>,
    ) -> Result<Self, Vec<Problem>> {
        let masters = MasterKeys::find(&config.secrets, environment)?;
        let below = || Store::below(&data_dir(config.data_dir.as_ref()));
        let found = Self {
            store: store.cloned().unwrap_or_else(below),
            masters: Arc::new(masters),
            kept: Kept::default(),
        };
        found.again().map_err(|problem| vec![problem])
    }

    /// Read again, under the same master keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn again(&self) -> Result<Self, Problem> {
        let kept = self.store.load(&self.masters).map_err(told)?;
        Ok(Self {
            kept,
            ..self.clone()
        })
    }

    /// For who keeps it: the secrets are in the snapshot, and nowhere else.
    pub fn without_secrets(&self) -> Self {
        let Kept { in_use, seen, .. } = self.kept;
        Self {
            kept: Kept::new(in_use, seen, Vec::new()),
            ..self.clone()
        }
    }

    /// Logs which of them cannot be used.
    pub fn warn(&self) {
        for warning in self.kept.warnings() {
            log::warn!("{warning}");
        }
    }
}

fn told(problem: database::Problem) -> Problem {
    Problem::new("", format!("the stored provider keys: {problem}"))
}

/// Has `live` follow every change of its stored keys, to the end of the process. A process on its
/// way out does it too: whose key was taken away should not spend it there either.
///
/// # Errors
/// There are too many threads.
pub fn follow(live: Arc<Live>) -> io::Result<()> {
    let mut follower = Follower::default();
    let look = move || {
        loop {
            std::thread::sleep(LOOK);
            follower.look(&live);
        }
    };
    background::spawn("provider-keys", look).map(drop)
}

/// Who looks for changes.
#[derive(Default)]
struct Follower {
    open: Option<Looking>,
    /// What could not be followed or read, so that it is told once.
    failed: Option<(Option<Seen>, String)>,
    /// Looks until it is tried again.
    pause: u32,
}

impl Follower {
    fn look(&mut self, live: &Live) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let StoredKeys { store, kept, .. } = live.stored_keys();
        let (now, outcome) = match store.look(&mut self.open) {
            Ok(now) if now == kept.seen => (now, Ok(false)),
            Ok(now) => (now, followed(live)),
            Err(problem) => {
                self.open = None;
                (None, Err(told(problem).to_string()))
            }
        };
        match outcome {
            Ok(changed) => {
                self.failed = None;
                if changed {
                    log::info!("the stored provider keys changed and are in force");
                }
            }
            Err(reason) => self.fail((now, reason)),
        }
    }

    fn fail(&mut self, failed: (Option<Seen>, String)) {
        self.pause = AGAIN;
        if self.failed.as_ref() != Some(&failed) {
            log::error!(
                "the stored provider keys stay as they were in this process: {}",
                failed.1
            );
            self.failed = Some(failed);
        }
    }
}

fn followed(live: &Live) -> Result<bool, String> {
    let followed = live.follow_keys().map(|()| true);
    followed.map_err(|problems| {
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        told.join("; ")
    })
}
