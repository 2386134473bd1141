//! The two ends of the channel of an upgrade: what the old and the new process say to each
//! other, line by line. [`super::upgrade`] has the table.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::upgrade::{NotUpgraded, STEP};
use crate::config::Problem;

/// How long the new process waits for `go`. Then it serves: the old process is gone.
const GO: Duration = Duration::from_secs(10);

/// The new process, as the old one sees it.
pub struct Successor {
    child: Child,
    channel: tokio::io::BufReader<tokio::net::UnixStream>,
}

impl Successor {
    /// Runs `command` with its standard input as the channel. Everything else it inherits.
    ///
    /// # Errors
    /// There is no such program, or no process or descriptor left.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = tokio::io::BufReader::new(tokio::net::UnixStream::from_std(ours)?);
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { child, channel })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the message `word`.
    ///
    /// # Errors
    /// It refused, ended, said something else, or took too long.
    pub async fn expect(&mut self, word: &str) -> Result<(), NotUpgraded> {
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

    /// Says `word` to it.
    ///
    /// # Errors
    /// It is gone.
    pub async fn say(&mut self, word: &str) -> io::Result<()> {
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
    pub fn end(mut self) {
        // Fails only if it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it live. It is reaped if it ends before this process does.
    pub fn forget(mut self) {
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
