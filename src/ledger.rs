//! The books of finished requests.
//!
//! A request leaves its record here at its end and is done. One thread of its own reads what the
//! answer tells of tokens, prices it, and publishes the record to all who look at it, so that none
//! of this delays a byte. Nothing is ever left out: where the thread does not keep up, requests
//! close their own entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::analytics;
use crate::background;
use crate::config::schema::AccessLog;
use crate::export::{self, Exports};
use crate::limits::taken;
use crate::logs;
use crate::logs::redaction::Redaction;
use crate::logs::store::Store;
use crate::pricing::Prices;
use crate::record::{Logged, RequestRecord, Seen};
use crate::spending::{self, Reserved, Spending};
use crate::telemetry::access;
use crate::telemetry::metrics::Metrics;
use crate::usage::decoded;

/// Most bytes that wait to be read and priced. Above it requests close their own entries.
const MAX_WAITING: usize = 64 << 20;
/// How long the thread lets entries gather, while there are some: waking it for each would cost the
/// request more than the work does.
const GATHER: Duration = Duration::from_millis(5);
/// With so many entries waiting the thread does not step back between two: where requests take all
/// of the processor it would not keep up.
const BACKLOG: u64 = 64;
/// How long the end of the process waits for the books, and how long somebody who looks at them.
const CLOSING: Duration = Duration::from_secs(10);
const LOOKING: Duration = Duration::from_secs(5);
/// How long others are told of the last requests.
const TELLING: Duration = Duration::from_secs(5);

/// A request that is over.
pub struct Entry {
    /// All that is known of it.
    pub record: RequestRecord,
    /// What tells of its tokens, or what it took, where its client has been told.
    pub spending: Spending,
    /// What they cost.
    pub prices: Arc<Prices>,
    /// What the log store is to have of it.
    pub logged: Logged,
    /// What was set aside for it.
    pub reserved: Option<Reserved>,
}

/// Takes the records of finished requests.
pub struct Ledger {
    /// Emptied at the end, so that the thread ends too.
    sender: Sender<Box<Entry>>,
    waiting: Arc<Waiting>,
    books: Arc<Books>,
}

/// What has not been closed yet.
#[derive(Default)]
struct Waiting {
    entered: AtomicU64,
    closed: AtomicU64,
    bytes: AtomicUsize,
}

/// Where entries are closed, on whatever thread: everybody who has a view of records.
pub struct Books {
    /// Counted.
    pub metrics: Arc<Metrics>,
    /// A line each.
    pub access_log: AccessLog,
    /// An entry each; `None` where there is no log store.
    pub store: Option<Store>,
    /// Added up.
    pub analytics: analytics::store::Store,
    /// Told to others.
    pub exports: Arc<Exports>,
    /// What those are not told of heads and bodies.
    pub redaction: Redaction,
}

impl Ledger {
    /// Closes entries in `books`, from a thread that ends with the ledger.
    pub fn new(books: Books) -> std::io::Result<Self> {
        let books = Arc::new(books);
        let waiting = Arc::new(Waiting::default());
        let (sender, receiver) = channel();
        let (kept, left) = (Arc::clone(&books), Arc::clone(&waiting));
        let _detached = background::spawn("ledger", move || keep(&receiver, &kept, &left))?;
        Ok(Self {
            sender,
            waiting,
            books,
        })
    }

    /// Where records are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.books.metrics
    }

    /// Takes over a request that is over. Waits for nothing.
    pub fn enter(&self, entry: Box<Entry>) {
        let size = entry.size();
        if self.waiting.bytes.load(Ordering::Relaxed) + size > MAX_WAITING {
            return self.books.close(entry);
        }
        self.waiting.add(size);
        // The thread ends with the ledger only; were it gone, the entry still would not be lost.
        if let Err(returned) = self.sender.send(entry) {
            self.waiting.remove(size);
            self.books.close(returned.0);
        }
    }

    /// Waits until all that has been entered is published, ten seconds at most. Blocks.
    pub fn settle(&self) {
        let until = Instant::now() + CLOSING;
        let entered = self.waiting.entered.load(Ordering::Acquire);
        while self.waiting.left_of(entered) > 0 {
            if Instant::now() > until {
                let left = self.waiting.left_of(entered);
                return log::error!("{left} finished requests were not published");
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.books.settle();
    }

    /// Waits, a moment at most, until all that has been entered is published: who looks at the
    /// metrics finds every request in them that is not in flight any more.
    pub async fn caught_up(&self) {
        let until = Instant::now() + LOOKING;
        let entered = self.waiting.entered.load(Ordering::Acquire);
        while self.waiting.left_of(entered) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Waiting {
    fn add(&self, size: usize) {
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.entered.fetch_add(1, Ordering::Release);
    }

    fn remove(&self, size: usize) {
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        self.closed.fetch_add(1, Ordering::Release);
    }

    /// How many are not closed.
    fn left(&self) -> u64 {
        self.left_of(self.entered.load(Ordering::Acquire))
    }

    /// How many of the first `entered` are not closed: they are closed in their order.
    fn left_of(&self, entered: u64) -> u64 {
        entered.saturating_sub(self.closed.load(Ordering::Acquire))
    }
}

/// The thread: sleeps until there is an entry, then closes them in heaps until none comes.
fn keep(entries: &Receiver<Box<Entry>>, books: &Books, waiting: &Waiting) {
    let close = |entry: Box<Entry>| {
        let size = entry.size();
        books.close(entry);
        waiting.remove(size);
        // A heap of them is longer than a request should wait for the processor.
        if waiting.left() < BACKLOG {
            thread::yield_now();
        }
    };
    while let Ok(first) = entries.recv() {
        // Not at once: the next request of the same client comes now, and would share the processor.
        thread::sleep(GATHER);
        close(first);
        while entries.try_iter().map(close).count() > 0 {
            thread::sleep(GATHER);
        }
    }
}

impl Books {
    /// Works out what it cost and publishes it: the one place where a record is made public.
    fn close(&self, mut entry: Box<Entry>) {
        // In place: it is a kilobyte.
        let Entry {
            record,
            spending,
            prices,
            logged,
            reserved,
        } = &mut *entry;
        let spending = std::mem::replace(spending, Spending::Nothing);
        record.spent = spending::spent(record, spending, prices);
        let now = SystemTime::now();
        if let Some(reserved) = reserved.take() {
            reserved.settle(record, prices, now);
        }
        taken::count(record, now);
        self.metrics.publish(record);
        access::write(self.access_log, record);
        self.analytics.observe(record);
        match std::mem::replace(logged, Logged::Nothing) {
            Logged::Nothing => self.exports.count(record),
            Logged::Facts => self.keep(record, None),
            Logged::Whole(seen) => self.keep(record, Some(*seen)),
        }
    }

    /// Hands a record over to those who have it by itself, and not only in sums.
    fn keep(&self, record: &RequestRecord, seen: Option<Seen>) {
        let wants_payload = self.exports.wants_payload();
        if self.store.is_none() && !wants_payload {
            return self.exports.offer(record, None);
        }
        let entry = logs::entry(record, seen);
        let payload = entry.payload.as_deref().filter(|_| wants_payload);
        let told = payload.map(|payload| self.redaction.told(payload, decoded, export::PAYLOAD));
        self.exports.offer(record, told.as_ref());
        if let Some(store) = &self.store {
            store.offer(entry);
        }
    }

    /// Waits until all of it is written and told, as long as each of them may take.
    fn settle(&self) {
        let stored = self.store.as_ref().map(|store| store.flush(CLOSING));
        if let Some(Err(problem)) = stored {
            log::error!("the log store may miss the last requests: {problem}");
        }
        if let Err(problem) = self.analytics.flush_within(CLOSING) {
            log::error!("analytics may miss the last requests: {problem}");
        }
        if !self.exports.flush(TELLING) {
            log::error!("not all who are told of requests were told of the last ones");
        }
    }
}

impl Entry {
    /// Bytes that it holds while it waits.
    fn size(&self) -> usize {
        size_of::<Self>() + self.spending.held() + self.logged.held()
    }
}
