//! Replacing the running binary without losing a request.
//!
//! The old process starts the new one inside its own unit and talks to it over the new one's
//! standard input:
//!
//! | old process                         | new process                                      |
//! |-------------------------------------|--------------------------------------------------|
//! | spawns `serve --takeover SOCKET`    | reads and checks its configuration               |
//! |                                     | `validated`, or `refused …` and exits            |
//! | sends the listeners over the socket | receives them, binds what is new, accepts        |
//! |                                     | `ready`, or `refused …` and exits                |
//! | `go`, stops accepting, drains       | tells the service manager that it is ready       |
//!
//! Both accept from the same listeners for a moment; no connection is ever refused. Until `go`
//! the old process serves as if nothing happened: whatever goes wrong, the new process is
//! killed and the old one says why. Pingora's own upgrade (SIGQUIT) would shut the old process
//! down even if the new one had crashed; only its transfer of descriptors is used.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pingora_core::server::{Fds, ListenFds};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::phase::{Phase, State};
use super::{program, systemd, upgrade_socket};
use crate::config::Problem;
use crate::telemetry::metrics::{Metrics, Outcome};

/// How long the new process may take for each step.
const STEP: Duration = Duration::from_secs(30);

/// How long the new process waits for `go`. Then it serves: the old process is gone.
const GO: Duration = Duration::from_secs(10);

/// The kernel ends all processes of a container with its first one.
const FIRST_PROCESS: &str = "this process is the first of its container, which would end with it: \
     replace the container, or run tollgate under an init process";

/// How often the old process looks for the upgrade socket.
const MOMENT: Duration = Duration::from_millis(10);

/// Starts the new process and hands over to it.
pub struct Upgrader {
    phase: Arc<Phase>,
    metrics: Arc<Metrics>,
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
    fn because(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            problems: Vec::new(),
        }
    }
}

impl Upgrader {
    /// Upgrades the process of `phase` to the binary that then stands at the path it was
    /// started from, with the configuration at `config`, over the Unix socket `socket`.
    ///
    /// # Errors
    /// The path of the running program cannot be found.
    pub fn new(
        phase: Arc<Phase>,
        metrics: Arc<Metrics>,
        config: PathBuf,
        socket: PathBuf,
    ) -> io::Result<Self> {
        let (program, turn) = (program::path()?, Mutex::new(()));
        Ok(Self {
            phase,
            metrics,
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
        } else {
            successor.forget();
        }
        outcome
    }

    fn spawn(&self) -> Result<Successor, NotUpgraded> {
        let spawned = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            let child = Command::new(&self.program)
                .arg("serve")
                .arg("--conf")
                .arg(&self.config)
                .arg("--takeover")
                .arg(&self.socket)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()?;
            Ok(Successor {
                channel: tokio::io::BufReader::new(tokio::net::UnixStream::from_std(ours)?),
                child,
            })
        });
        spawned.map_err(|error| {
            NotUpgraded::because(format!(
                "cannot start `{}`: {error}",
                self.program.display()
            ))
        })
    }

    async fn hand_over(&self, successor: &mut Successor) -> Result<u32, NotUpgraded> {
        successor.expect("validated").await?;
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
        let pid = successor.child.id();
        systemd::handed_over(pid);
        self.phase.advance(State::HandingOver);
        Ok(pid)
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

/// The new process, as the old one sees it.
struct Successor {
    child: Child,
    channel: tokio::io::BufReader<tokio::net::UnixStream>,
}

impl Successor {
    /// Waits for the message `word`.
    async fn expect(&mut self, word: &str) -> Result<(), NotUpgraded> {
        use tokio::io::AsyncBufReadExt;
        let mut line = String::new();
        match tokio::time::timeout(STEP, self.channel.read_line(&mut line)).await {
            Err(_) => Err(NotUpgraded::because(format!(
                "the new process was not {word} within {STEP:?}"
            ))),
            Ok(Err(error)) => Err(NotUpgraded::because(format!(
                "the new process went away: {error}"
            ))),
            Ok(Ok(0)) => Err(NotUpgraded::because(self.epitaph(word).await)),
            Ok(Ok(_)) if line.trim_end() == word => Ok(()),
            Ok(Ok(_)) => Err(read_refusal(line.trim_end())),
        }
    }

    async fn say(&mut self, word: &str) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        self.channel
            .get_mut()
            .write_all(format!("{word}\n").as_bytes())
            .await
    }

    /// Why a process that closed its channel is gone. It may still be exiting.
    async fn epitaph(&mut self, word: &str) -> String {
        for _ in 0..100 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!(
                    "the new process ended before it was {word} ({status}); its messages are on standard error"
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        format!("the new process closed its control channel before it was {word}")
    }

    /// Kills and reaps it.
    fn end(mut self) {
        // Fails only if it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it live. It is reaped if it ends before this process does.
    fn forget(mut self) {
        std::thread::spawn(move || self.child.wait());
    }
}

/// The new process's end of the channel.
pub struct Predecessor(BufReader<UnixStream>);

impl Predecessor {
    /// The old process at the other end of standard input.
    ///
    /// # Errors
    /// Standard input is not the channel.
    pub fn on_stdin() -> io::Result<Self> {
        let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(BufReader::new(UnixStream::from(descriptor))))
    }

    /// The configuration can be served.
    pub fn validated(&mut self) {
        self.say("validated");
    }

    /// The new process cannot serve and exits; `problems` are the configuration's.
    pub fn refuse(&mut self, reason: &str, problems: &[Problem]) {
        let problems: Vec<_> = problems
            .iter()
            .map(|p| json!({ "path": p.path, "message": p.message }))
            .collect();
        self.say(&format!(
            "refused {}",
            json!({ "reason": reason, "problems": problems })
        ));
    }

    /// All listeners accept. Returns when the old process stops accepting; if it is gone,
    /// which it never is on purpose, at the latest after ten seconds.
    pub fn ready(&mut self) {
        self.say("ready");
        let mut line = String::new();
        let answer = self
            .0
            .get_ref()
            .set_read_timeout(Some(GO))
            .and_then(|()| self.0.read_line(&mut line));
        if line.trim_end() != "go" {
            log::warn!("the old process did not answer, serving all the same: {answer:?}");
        }
    }

    fn say(&mut self, message: &str) {
        if let Err(error) = writeln!(self.0.get_mut(), "{message}") {
            log::warn!("the old process cannot be told `{message}`: {error}");
        }
    }
}

/// Reads `refused {"reason": …, "problems": […]}`.
fn read_refusal(line: &str) -> NotUpgraded {
    let refusal = line
        .strip_prefix("refused ")
        .and_then(|json| serde_json::from_str::<Value>(json).ok());
    let Some(refusal) = refusal else {
        return NotUpgraded::because(format!(
            "the new process said `{line}`, which this one does not understand"
        ));
    };
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let problems = refusal["problems"].as_array().into_iter().flatten();
    NotUpgraded::Failed {
        reason: text(&refusal, "reason"),
        problems: problems
            .map(|problem| Problem::new(text(problem, "path"), text(problem, "message")))
            .collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Both ends of a channel; the successor's process is `/bin/sh -c script`.
    fn pair(script: &str) -> (Successor, Predecessor) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let channel = tokio::io::BufReader::new(tokio::net::UnixStream::from_std(ours).unwrap());
        (
            Successor { child, channel },
            Predecessor(BufReader::new(theirs)),
        )
    }

    #[tokio::test]
    async fn the_words_of_a_hand_over_arrive() {
        let (mut successor, mut predecessor) = pair("exit 0");
        let new = std::thread::spawn(move || {
            predecessor.validated();
            predecessor.ready();
        });
        successor.expect("validated").await.unwrap();
        successor.expect("ready").await.unwrap();
        successor.say("go").await.unwrap();
        new.join().unwrap();
        successor.end();
    }

    #[tokio::test]
    async fn a_refusal_arrives_with_every_problem() {
        let (mut successor, mut predecessor) = pair("exit 0");
        let problems = vec![
            Problem::new("server.listen", "two\nlines"),
            Problem::new("", "more"),
        ];
        predecessor.refuse("the configuration has mistakes", &problems);
        let expected = NotUpgraded::Failed {
            reason: "the configuration has mistakes".to_owned(),
            problems,
        };
        assert_eq!(successor.expect("validated").await.unwrap_err(), expected);
        successor.end();
    }

    #[tokio::test]
    async fn a_process_that_dies_is_told_with_its_status() {
        let (mut successor, predecessor) = pair("exit 7");
        drop(predecessor);
        let error = successor.expect("ready").await.unwrap_err().to_string();
        assert!(error.contains("exit status: 7"), "{error}");
    }

    #[test]
    fn nonsense_is_no_success() {
        assert!(read_refusal("hello").to_string().contains("`hello`"));
        assert!(
            read_refusal("refused {")
                .to_string()
                .contains("does not understand")
        );
    }
}
