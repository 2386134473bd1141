//! Standard error, written by a thread of its own: a request never waits for a terminal,
//! a pipe or a disk. What does not fit the queue is dropped and counted.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use crate::background;
use crate::config::schema::AccessLog;

use super::access;

/// Lines waiting to be written at most. A line is at most a few KiB, usually half a KiB.
const QUEUE: usize = 8192;

static DROPPED: AtomicU64 = AtomicU64::new(0);
static WRITER: OnceLock<SyncSender<Message>> = OnceLock::new();

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Lines dropped because standard error did not keep up.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Sets the process's logger up. `filter` is in env_logger's syntax; `RUST_LOG` overrides it.
/// Calling it again changes nothing.
pub fn init(filter: &str, form: AccessLog) {
    let (sender, receiver) = sync_channel(QUEUE);
    if WRITER.set(sender.clone()).is_err() {
        return;
    }
    let spawned = background::spawn("log", move || write_lines(&receiver));
    if let Err(error) = spawned {
        eprintln!("tollgate: cannot start the log writer: {error}");
        return;
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
    env_logger::Builder::new()
        .parse_filters(&filter)
        .target(env_logger::Target::Pipe(Box::new(Queue(sender))))
        .format(move |out, record| out.write_all(line(form, SystemTime::now(), record).as_bytes()))
        .init();
}

/// Waits until everything logged so far is written, at most two seconds.
pub fn flush() {
    let (done, wait) = sync_channel(1);
    if let Some(writer) = WRITER.get()
        && writer.send(Message::Flush(done)).is_ok()
    {
        let _ = wait.recv_timeout(Duration::from_secs(2));
    }
}

struct Queue(SyncSender<Message>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.try_send(Message::Line(line.to_vec())) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(receiver: &Receiver<Message>) {
    // Locked line by line: others write there too, at the start and at the end.
    let mut stderr = io::stderr();
    while let Ok(message) = receiver.recv() {
        // Nothing can be done about a standard error that cannot be written to.
        match message {
            Message::Line(line) => drop(stderr.write_all(&line)),
            Message::Flush(done) => {
                let _ = stderr.flush();
                let _ = done.send(());
            }
        }
    }
}

fn line(form: AccessLog, now: SystemTime, record: &::log::Record<'_>) -> String {
    let time = humantime::format_rfc3339_micros(now);
    let message = record.args().to_string();
    let is_access = record.target() == access::TARGET;
    match (form, is_access) {
        (AccessLog::Json, true) => format!("{{\"time\":\"{time}\"{message}}}\n"),
        (AccessLog::Json, false) => {
            let mut line = format!(
                "{{\"time\":\"{time}\",\"level\":\"{}\",\"target\":\"{}\",\"message\":",
                record.level(),
                record.target()
            );
            access::push_quoted(&mut line, &message);
            line + "}\n"
        }
        (_, true) => format!("time={time} {message}\n"),
        (_, false) => {
            let level = record.level().as_str().to_ascii_lowercase();
            let mut line = format!(
                "time={time} level={level} target={} message=",
                record.target()
            );
            access::push_quoted(&mut line, &message);
            line + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_lines_are_one_line_each() {
        let render = |form| {
            let args = format_args!("two\nlines");
            let record = ::log::Record::builder()
                .args(args)
                .level(::log::Level::Warn)
                .target("t")
                .build();
            line(form, SystemTime::UNIX_EPOCH, &record)
        };
        assert_eq!(
            render(AccessLog::Logfmt),
            "time=1970-01-01T00:00:00.000000Z level=warn target=t message=\"two\\nlines\"\n"
        );
        assert_eq!(
            render(AccessLog::Json),
            "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"level\":\"WARN\",\"target\":\"t\",\"message\":\"two\\nlines\"}\n"
        );
    }
}
