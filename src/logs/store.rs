//! The store as the rest of the gateway sees it: entries are offered and never waited for.
//!
//! The queue is bounded in bytes. Above an eighth of the bound bodies are compressed in a hurry,
//! above a quarter the writer has its fair share of a processor and not only what requests leave,
//! above half of it entries lose their bodies, above three quarters their details, at the bound
//! they are dropped; each loss is counted. The writer takes what is there four times a second, so
//! offering wakes nobody while traffic flows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::counters::{Counters, add, read};
use super::entry::Entry;
use super::redaction::{Decoder, Redaction};
use super::writer::{Database, Writer};
use crate::background::{self, Calm};

/// How a store works.
#[derive(Clone)]
pub struct Options {
    /// Bytes of entries that may wait; 64 MiB.
    pub queue_bytes: usize,
    /// Bytes kept of each body; 1 MiB.
    pub body_bytes: usize,
    /// zstd level of heads and bodies, 1 to 19; 1.
    pub level: i32,
    /// Bytes of a segment file; 64 MiB, and never more than a sixteenth of `bytes`.
    pub segment_bytes: u64,
    /// Entries older than this are removed; `None` keeps them.
    pub age: Option<Duration>,
    /// Bytes of all files together beyond which the oldest are removed; `None` keeps them.
    pub bytes: Option<u64>,
    /// After a failure that may pass, such as a full disk, the store is tried again so much later.
    pub retry: Duration,
    /// What is never written.
    pub redaction: Redaction,
    /// Undoes content encodings.
    pub decoder: Decoder,
}

impl Options {
    /// The usual ones, with retention left off.
    pub fn new(decoder: Decoder) -> Self {
        Self {
            queue_bytes: 64 << 20,
            body_bytes: 1 << 20,
            level: 1,
            segment_bytes: 64 << 20,
            age: None,
            bytes: None,
            retry: Duration::from_secs(10),
            redaction: Redaction::default(),
            decoder,
        }
    }
}

/// What is done on the writer's thread, or why it cannot be.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Database, String>) + Send>;

pub(super) enum Message {
    /// An entry and its weight.
    Entry(usize, Box<Entry>),
    Job(Job),
}

/// The writer works.
pub(super) const AWAKE: u8 = 0;
/// The writer sleeps for a moment, and is not woken but for an urgent matter.
pub(super) const DOZING: u8 = 1;
/// The writer sleeps until something comes.
pub(super) const IDLE: u8 = 2;

/// More bytes in the queue than this wake a dozing writer.
const URGENT_BYTES: u64 = 4 << 20;

/// What the writer and the others share.
#[derive(Default)]
pub(super) struct Shared {
    pub counters: Counters,
    /// Messages sent and not yet taken.
    pub pending: AtomicUsize,
    pub sleep: AtomicU8,
    pub urgent: AtomicBool,
    /// Jobs that somebody waits for.
    pub jobs: AtomicUsize,
    /// Nothing will be written any more.
    pub stopped: AtomicBool,
    pub problem: Mutex<Option<String>>,
    /// How the writer shares the processors with requests.
    pub calm: Calm,
}

impl Shared {
    /// The writer falls behind: an eighth of the queue of so many bytes is full.
    pub fn is_behind(&self, queue_bytes: usize) -> bool {
        read(&self.counters.queue_bytes) >= queue_bytes as u64 / 8
    }

    /// It has to have its share of the processors: a quarter is full, and above the half something
    /// is lost.
    pub fn presses(&self, queue_bytes: usize) -> bool {
        read(&self.counters.queue_bytes) >= queue_bytes as u64 / 4
    }
}

/// A log store that is open, or the reason why it is not. Clones are the same store; the end
/// of the last one waits until everything offered was written.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    dir: PathBuf,
    queue_bytes: usize,
    body_bytes: usize,
    redaction: Redaction,
    /// `None` only while the handle is dropped.
    sender: Option<mpsc::Sender<Message>>,
    writer: Thread,
    join: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store of a directory, which is made when it is missing, and starts its writer.
    /// A store that cannot be opened raises the alarm and takes no entries: traffic goes on.
    /// The error is of the thread that could not be started.
    pub fn open(dir: &Path, options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = mpsc::channel();
        let (queue_bytes, body_bytes) = (options.queue_bytes, options.body_bytes);
        let redaction = options.redaction.clone();
        let writer = Writer::open(dir, options, Arc::clone(&shared), receiver);
        let join = background::spawn("logs", move || writer.run())?;
        Ok(Self(Arc::new(Handle {
            shared,
            dir: dir.to_owned(),
            queue_bytes,
            body_bytes,
            redaction,
            sender: Some(sender),
            writer: join.thread().clone(),
            join: Some(join),
        })))
    }

    /// Where it lies; [`super::reader::Reader::open`] wants to know.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(super) fn redaction(&self) -> Redaction {
        self.0.redaction.clone()
    }

    /// What it did.
    pub fn counters(&self) -> &Counters {
        &self.0.shared.counters
    }

    /// Why it does not log, while it does not.
    pub fn problem(&self) -> Option<String> {
        self.0
            .shared
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Hands over an entry. Never waits; what there is no place for is given up and counted.
    pub fn offer(&self, entry: impl Into<Box<Entry>>) {
        let mut entry = entry.into();
        let counters = self.counters();
        entry.cut_bodies(self.0.body_bytes);
        match self.fit(&mut entry) {
            Some(weight) if !self.0.shared.stopped.load(Ordering::Relaxed) => {
                counters
                    .queue_bytes
                    .fetch_add(weight as u64, Ordering::Relaxed);
                self.0.send(Message::Entry(weight, entry));
                self.0.urge(read(&counters.queue_bytes));
            }
            _ => add(&counters.rows_dropped, 1),
        }
    }

    /// Makes an entry as light as the queue is full; its weight, or `None` without place for it.
    fn fit(&self, entry: &mut Entry) -> Option<usize> {
        let (counters, bound) = (self.counters(), self.0.queue_bytes);
        let queued = usize::try_from(read(&counters.queue_bytes)).unwrap_or(usize::MAX);
        let mut weight = entry.weight();
        if queued.saturating_add(weight) > bound / 2 && entry.shed_bodies() {
            add(&counters.bodies_dropped, 1);
            weight = entry.weight();
        }
        if queued.saturating_add(weight) > bound / 4 * 3 && entry.shed_details() {
            add(&counters.details_dropped, 1);
            weight = entry.weight();
        }
        (queued.saturating_add(weight) <= bound).then_some(weight)
    }

    /// Waits until all that was offered before is written, or given up. It then survives the
    /// death of the process, by whatever signal; not yet a power cut.
    ///
    /// # Errors
    /// When it was not written within `patience`, or cannot be.
    pub fn flush(&self, patience: Duration) -> Result<(), String> {
        let late = |_| format!("not written within {} s", patience.as_secs());
        let receiver = self.start(|_| Ok(()));
        receiver
            .recv_timeout(patience)
            .unwrap_or_else(|error| Err(late(error)))
    }

    /// Does something on the writer's thread, after all that was offered before is written, and
    /// waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let gone = |_| Err("the log writer has ended".to_owned());
        self.start(job).recv().unwrap_or_else(gone)
    }

    /// The same, waiting for nothing.
    fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, String> + Send + 'static,
    ) -> mpsc::Receiver<Result<T, String>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.shared.jobs.fetch_add(1, Ordering::Relaxed);
        self.0.send(Message::Job(Box::new(move |database| {
            // Nobody may be waiting any more.
            let _ = sender.send(database.and_then(job));
        })));
        self.0.hurry();
        self.0.shared.calm.press();
        receiver
    }
}

impl Handle {
    fn send(&self, message: Message) {
        self.shared.pending.fetch_add(1, Ordering::SeqCst);
        // The writer takes messages for as long as there is a handle.
        let _ = self.sender.as_ref().map(|sender| sender.send(message));
        let (idle, awake) = (IDLE, AWAKE);
        let order = Ordering::SeqCst;
        if self.shared.sleep.load(order) == IDLE
            && self
                .shared
                .sleep
                .compare_exchange(idle, awake, order, order)
                .is_ok()
        {
            self.writer.unpark();
        }
    }

    /// After an entry, with so many bytes in the queue.
    fn urge(&self, queued: u64) {
        if queued > URGENT_BYTES {
            self.hurry();
        }
        match self.shared.presses(self.queue_bytes) {
            true => self.shared.calm.press(),
            false => self.shared.calm.press_if_late(),
        }
    }

    fn hurry(&self) {
        let first = !self.shared.urgent.swap(true, Ordering::SeqCst);
        if first || self.shared.sleep.load(Ordering::SeqCst) != AWAKE {
            self.writer.unpark();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.sender = None;
        self.shared.urgent.store(true, Ordering::SeqCst);
        self.writer.unpark();
        self.shared.calm.press();
        // A panic of the writer was logged where it happened.
        let _ = self.join.take().map(JoinHandle::join);
    }
}
