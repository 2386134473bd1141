//! Analytics as the rest of the gateway sees them: finished requests are counted in memory, and
//! a thread writes once a second what has changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::counters::{Counters, add};
use super::facts::Facts;
use super::minutes::{Dropped, Minutes};
use super::writer::Writer;
use crate::background;
use crate::record::RequestRecord;

const DAY: Duration = Duration::from_secs(86_400);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How analytics are kept.
#[derive(Clone)]
pub struct Options {
    /// Minutes stay so long, 3 hours at least; 2 days.
    pub minutes: Duration,
    /// Hours stay so long, 3 days at least; 90 days.
    pub hours: Duration,
    /// Days stay so long; 800 days.
    pub days: Duration,
    /// After a failure that may pass, such as a full disk, it is tried again so much later; 10
    /// seconds.
    pub retry: Duration,
    /// What the time is.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            minutes: DAY * 2,
            hours: DAY * 90,
            days: DAY * 800,
            retry: Duration::from_secs(10),
            clock: Arc::new(SystemTime::now),
        }
    }
}

/// To the writer.
pub(super) enum Message {
    /// There is something to write again.
    Wake,
    /// Write all; tell when it is done.
    Flush(mpsc::SyncSender<Result<(), String>>),
    /// Make all hours and days that are over and remove what is too old; tell when it is done.
    #[cfg(test)]
    Tidy(mpsc::SyncSender<Result<(), String>>),
}

/// What the writer and the others share.
#[derive(Default)]
pub(super) struct Shared {
    pub minutes: Mutex<Minutes>,
    pub counters: Counters,
    /// The writer waits to be woken.
    pub idle: AtomicBool,
    /// Nothing will be written any more.
    pub stopped: AtomicBool,
    pub problem: Mutex<Option<String>>,
}

impl Shared {
    pub fn dropped(&self, dropped: Dropped) {
        if dropped != Dropped::default() {
            add(&self.counters.minutes_dropped, dropped.minutes);
            add(&self.counters.requests_dropped, dropped.requests);
        }
    }
}

/// Analytics of one directory. Clones are the same ones; the end of the last one waits until
/// everything that was observed is written.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    dir: PathBuf,
    /// `None` only while the handle is dropped.
    sender: Option<mpsc::Sender<Message>>,
    join: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the analytics of a directory, which is made when it is missing, and starts their
    /// writer. A database that cannot be opened raises the alarm and is written to as soon as it
    /// can be: traffic goes on.
    ///
    /// # Errors
    /// Of the thread that could not be started.
    pub fn open(dir: &Path, options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.idle.store(true, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel();
        let writer = Writer::open(dir, options, Arc::clone(&shared), receiver);
        let join = background::spawn("analytics", move || writer.run())?;
        Ok(Self(Arc::new(Handle {
            shared,
            dir: dir.to_owned(),
            sender: Some(sender),
            join: Some(join),
        })))
    }

    /// Where it lies; [`super::reader::Reader::open`] wants to know.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// What it did.
    pub fn counters(&self) -> &Counters {
        &self.0.shared.counters
    }

    /// Why nothing is stored, while nothing is.
    pub fn problem(&self) -> Option<String> {
        self.0.shared.problem.lock().clone()
    }

    /// Counts a finished request. Takes about a microsecond, and never waits for the disk.
    pub fn observe(&self, record: &RequestRecord) {
        let shared = &self.0.shared;
        add(&shared.counters.requests_observed, 1);
        if shared.stopped.load(Ordering::Relaxed) {
            return add(&shared.counters.requests_dropped, 1);
        }
        let facts = Facts::of(record);
        let dropped = shared.minutes.lock().observe(record, &facts);
        shared.dropped(dropped);
        if shared.idle.load(Ordering::SeqCst) && shared.idle.swap(false, Ordering::SeqCst) {
            self.0.send(Message::Wake);
        }
    }

    /// Waits until all that was observed before is written. It then survives the death of the
    /// process, by whatever signal; not yet a power cut.
    ///
    /// # Errors
    /// Says why it cannot be written.
    pub fn flush(&self) -> Result<(), String> {
        self.flush_within(Duration::from_secs(3600))
    }

    /// The same, for a while only.
    ///
    /// # Errors
    /// Says why it cannot be written, or that it is not yet.
    pub fn flush_within(&self, patience: Duration) -> Result<(), String> {
        self.ask(Message::Flush, patience)
    }

    /// Makes all hours and days that are over, and removes what is too old. The writer does so
    /// by itself every ten seconds.
    #[cfg(test)]
    pub(super) fn tidy(&self) -> Result<(), String> {
        self.ask(Message::Tidy, Duration::from_secs(3600))
    }

    fn ask(
        &self,
        message: impl FnOnce(mpsc::SyncSender<Result<(), String>>) -> Message,
        patience: Duration,
    ) -> Result<(), String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.send(message(sender));
        let late = |_| Err(format!("not written within {} s", patience.as_secs()));
        receiver.recv_timeout(patience).unwrap_or_else(late)
    }
}

impl Handle {
    fn send(&self, message: Message) {
        // The writer takes messages for as long as there is a handle.
        let _ = self.sender.as_ref().map(|sender| sender.send(message));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.sender = None;
        // A panic of the writer was logged where it happened.
        let _ = self.join.take().map(JoinHandle::join);
    }
}
