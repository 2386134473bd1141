//! One way out: what waits there, what became of it, and what is wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::queue::{Item, Queue};

/// One way out.
#[derive(Debug)]
pub struct Outlet {
    /// Which one, for the log and for metrics; tells no secret.
    name: Box<str>,
    /// What waits.
    pub queue: Queue,
    sent: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// The last exchange failed.
    now: bool,
    last: Option<Box<str>>,
}

/// What became of all that was to leave by one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `otel[0].traces (https://collector.example:4318)`, `sinks[1] (/var/log/requests.ndjson)`.
    pub name: Box<str>,
    /// Spans, lines, or states of all metrics, that were taken.
    pub sent: u64,
    /// Those that were not: refused, given up, or pushed out by newer ones. One that was pushed
    /// out while it was being sent may have arrived.
    pub dropped: u64,
    /// Exchanges that failed, whether they were tried again or not.
    pub failures: u64,
    /// Bytes that wait.
    pub queue_bytes: usize,
    /// The last exchange failed.
    pub is_failing: bool,
    /// What was wrong the last time that something was.
    pub problem: Option<Box<str>>,
}

impl Outlet {
    /// One with a queue of `most` bytes.
    pub fn new(name: String, most: usize) -> Self {
        Self {
            name: name.into(),
            queue: Queue::new(most),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Puts it into the queue; counts what there is no room for.
    pub fn push(&self, item: Item) {
        let lost = self.queue.push(item);
        if lost > 0 {
            self.dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// So many units were taken.
    pub fn taken(&self, units: u64) {
        self.sent.fetch_add(units, Ordering::Relaxed);
    }

    /// An exchange went well, though something may be said of it.
    pub fn went_well(&self, warning: Option<String>) {
        let mut trouble = self.trouble.lock();
        if trouble.now {
            log::info!("{} takes what it is sent again", self.name);
        }
        trouble.now = false;
        if let Some(warning) = warning {
            self.note(&mut trouble, warning);
        }
    }

    /// So many units are lost.
    pub fn lost(&self, units: u64) {
        self.dropped.fetch_add(units, Ordering::Relaxed);
    }

    /// An exchange failed.
    pub fn failed(&self, why: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock();
        if !trouble.now {
            trouble.last = None; // it is told once for each time that it begins
        }
        trouble.now = true;
        self.note(&mut trouble, why);
    }

    /// The log is told of a problem when it is another than the last.
    fn note(&self, trouble: &mut Trouble, why: String) {
        if trouble.last.as_deref() != Some(&*why) {
            log::warn!("{}: {why}", self.name);
            trouble.last = Some(why.into());
        }
    }

    /// What has become of it all.
    pub fn report(&self) -> Report {
        let trouble = self.trouble.lock();
        Report {
            name: self.name.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            queue_bytes: self.queue.bytes(),
            is_failing: trouble.now,
            problem: trouble.last.clone(),
        }
    }
}
