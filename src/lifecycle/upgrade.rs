//! Replacing the running binary without losing a request.
//!
//! The old process starts the new one inside its own unit and talks to it over the new one's
//! standard input:
//!
//! | old process                         | new process                                      |
//! |-------------------------------------|--------------------------------------------------|
//! | spawns `serve --takeover SOCKET`    | reads and checks its configuration, opens stores |
//! |                                     | `validated`, or `refused …` and exits            |
//! | gives half of what is left of       |                                                  |
//! | budgets away                        |                                                  |
//! | sends the listeners over the socket | receives them, binds what is new, accepts        |
//! |                                     | `ready`, or `refused …` and exits                |
//! | `go`, stops accepting, drains,      | tells the service manager that it is ready       |
//! | gives the rest of budgets away      |                                                  |
//!
//! Both accept from the same listeners for a moment; no connection is ever refused. Until `go`
//! the old process serves as if nothing happened: whatever goes wrong, the new process is
//! killed and the old one says why, and has its budgets back. Pingora's own upgrade (SIGQUIT) would shut the old process
//! down even if the new one had crashed; only its transfer of descriptors is used.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pingora_core::server::{Fds, ListenFds};
use tokio::sync::Mutex;

use super::phase::{Phase, State};
use super::successor::Successor;
use super::{program, systemd, upgrade_socket};
use crate::config::Problem;
use crate::limits::spend::Budgets;
use crate::telemetry::metrics::{Metrics, Outcome};

/// How long the new process may take for each step.
pub const STEP: Duration = Duration::from_secs(30);

/// The kernel ends all processes of a container with its first one.
const FIRST_PROCESS: &str = "this process is the first of its container, which would end with it: \
     replace the container, or run tollgate under an init process";

/// How long the old process waits for what is written of budgets. What is late is told by and by.
const SHARING: Duration = Duration::from_secs(5);

/// How often the old process looks for the upgrade socket.
const MOMENT: Duration = Duration::from_millis(10);

/// Starts the new process and hands over to it.
pub struct Upgrader {
    phase: Arc<Phase>,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    listeners: OnceLock<ListenFds>,
    turn: Mutex<()>,
}

/// Why the old process still serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotUpgraded {
    /// Another upgrade is under way, or the process is about to exit.
    NotNow(&'static str),
    /// The attempt failed; the new process is gone.
    Failed {
        /// What went wrong, for the operator.
        reason: String,
        /// The mistakes in the configuration, if that is what was wrong.
        problems: Vec<Problem>,
    },
}

impl NotUpgraded {
    /// The attempt failed for `reason`.
    pub fn because(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            problems: Vec::new(),
        }
    }
}

impl Upgrader {
    /// Upgrades the process of `phase` to the binary that then stands at the path it was
    /// started from, with the configuration at `config`, over the Unix socket `socket`, and shares
    /// `budgets` with it.
    ///
    /// # Errors
    /// The path of the running program cannot be found.
    pub fn new(
        phase: Arc<Phase>,
        metrics: Arc<Metrics>,
        budgets: Arc<Budgets>,
        config: PathBuf,
        socket: PathBuf,
    ) -> io::Result<Self> {
        let (program, turn) = (program::path()?, Mutex::new(()));
        Ok(Self {
            phase,
            metrics,
            budgets,
            program,
            config,
            socket,
            listeners: OnceLock::new(),
            turn,
        })
    }

    /// The listeners to hand over; known once they are bound.
    pub fn set_listeners(&self, listeners: ListenFds) {
        // The listeners are bound once in the life of a process.
        let _ = self.listeners.set(listeners);
    }

    /// Upgrades; returns the new process's id once it has taken over.
    ///
    /// # Errors
    /// The old process still serves, and why.
    pub async fn upgrade(&self) -> Result<u32, NotUpgraded> {
        let Ok(_turn) = self.turn.try_lock() else {
            return Err(NotUpgraded::NotNow("another upgrade is under way"));
        };
        // Just after an upgrade the old process may not have let go yet.
        let _ = tokio::time::timeout(STEP, self.phase.reached(State::Serving)).await;
        if self.phase.state() != State::Serving {
            return Err(NotUpgraded::NotNow(
                "this process is starting or about to exit",
            ));
        }
        if std::process::id() == 1 {
            return Err(NotUpgraded::NotNow(FIRST_PROCESS));
        }
        log::info!("upgrading to {}", self.program.display());
        let outcome = self.attempt().await;
        self.metrics.upgraded(if outcome.is_ok() {
            Outcome::Success
        } else {
            Outcome::Failure
        });
        match &outcome {
            Ok(pid) => log::info!("process {pid} has taken over"),
            Err(error) => log::error!("not upgraded, this process keeps serving: {error}"),
        }
        outcome
    }

    async fn attempt(&self) -> Result<u32, NotUpgraded> {
        upgrade_socket::prepare(&self.socket).map_err(NotUpgraded::because)?;
        let mut successor = self.spawn()?;
        let outcome = self.hand_over(&mut successor).await;
        if outcome.is_err() {
            successor.end();
            upgrade_socket::remove(&self.socket);
            self.with_budgets(Budgets::share_within).await;
        } else {
            successor.forget();
        }
        outcome
    }

    fn spawn(&self) -> Result<Successor, NotUpgraded> {
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--conf")
            .arg(&self.config)
            .arg("--takeover")
            .arg(&self.socket);
        Successor::start(&mut command).map_err(|error| {
            NotUpgraded::because(format!(
                "cannot start `{}`: {error}",
                self.program.display()
            ))
        })
    }

    async fn hand_over(&self, successor: &mut Successor) -> Result<u32, NotUpgraded> {
        successor.expect("validated").await?;
        self.with_budgets(Budgets::share_within).await;
        let cancelled = Arc::new(AtomicBool::new(false));
        let sending = self.send_listeners(cancelled.clone())?;
        let ready = successor.expect("ready").await;
        cancelled.store(true, Ordering::Release);
        let sent = sending.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(not_sent) = sent {
            log::error!("{not_sent}");
        }
        ready?;
        successor
            .say("go")
            .await
            .map_err(|error| NotUpgraded::because(format!("the new process went away: {error}")))?;
        let pid = successor.id();
        systemd::handed_over(pid);
        self.phase.advance(State::HandingOver);
        self.with_budgets(Budgets::retire_within).await;
        Ok(pid)
    }

    /// Does something to budgets that takes as long as the disk does. An upgrade does not fail for
    /// it: the new process takes less for granted than it may have, or it finds out later.
    async fn with_budgets(&self, something: fn(&Budgets, Duration) -> Result<(), String>) {
        let budgets = Arc::clone(&self.budgets);
        let done = tokio::task::spawn_blocking(move || something(&budgets, SHARING)).await;
        let done = done.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(problem) = done {
            log::error!("budgets are not shared yet with the new process: {problem}");
        }
    }

    /// Sends the listeners as soon as the new process waits for them, from a thread: Pingora's
    /// transfer blocks.
    fn send_listeners(&self, cancelled: Arc<AtomicBool>) -> Result<Sending, NotUpgraded> {
        let Some(listeners) = self.listeners.get() else {
            return Err(NotUpgraded::NotNow("the listeners are not open yet"));
        };
        let mut copy = Fds::new();
        let (addresses, descriptors) = listeners.lock().serialize();
        copy.deserialize(addresses, descriptors);
        let socket = self.socket.clone();
        Ok(tokio::task::spawn_blocking(move || {
            send(&copy, &socket, &cancelled)
        }))
    }
}

type Sending = tokio::task::JoinHandle<Result<(), String>>;

fn send(listeners: &Fds, socket: &Path, cancelled: &AtomicBool) -> Result<(), String> {
    let latest = Instant::now() + STEP;
    while !socket.exists() {
        if cancelled.load(Ordering::Acquire) || Instant::now() > latest {
            // The new process is gone, or has not said that it is ready: that is the error.
            return Ok(());
        }
        std::thread::sleep(MOMENT);
    }
    // Between opening the socket and listening on it lies a moment in which Pingora would
    // be refused, and then wait for a whole second.
    std::thread::sleep(MOMENT);
    let path = socket.display().to_string();
    let sent = listeners.send_to_sock(path.as_str());
    sent.map(drop)
        .map_err(|error| format!("the listeners could not be sent over `{path}`: {error}"))
}

impl std::fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotNow(reason) => f.write_str(reason),
            Self::Failed { reason, problems } => {
                f.write_str(reason)?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
