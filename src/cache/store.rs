//! The cache of the process: answers in flight, stored answers, purges. One for all gateways;
//! it survives reloads.
//!
//! The tiers begin with the process if a gateway caches, else with the first request that may
//! be answered from them: a process that caches nothing has no thread and no memory for it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;

use super::entry::{Entry, Facts};
use super::flight::{Flights, Head, Recorded};
use super::keeper::Keeper;
use super::key::Key;
use super::near::{Near, Sample};
use super::stamps::{Purge, Stamps};
use super::tiers::{DiskSettings, Tier, Tiers, Watch};
use crate::config::schema::Format;
use crate::telemetry::metrics::Metrics;
use crate::usage::{self, Heard};
use crate::wire::{Framing, complete};

/// Largest decoded answer that is looked into, in bytes.
const LOOKED_INTO: usize = 32 << 20;
/// Similar requests that are remembered, to tell what made one miss.
const NEAR: usize = 1024;

/// Where answers are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Memory for them, in bytes.
    pub memory: u64,
    /// Disk for them, in bytes; 0 for none.
    pub disk: u64,
    /// Directory of the process's data.
    pub data_dir: PathBuf,
}

/// The cache of the process.
pub struct Cache {
    /// Calls in flight.
    pub flights: Arc<Flights>,
    settings: Settings,
    metrics: Arc<Metrics>,
    tiers: OnceLock<Tiers>,
    stamps: Arc<Stamps>,
    keeper: OnceLock<Keeper>,
    near: Mutex<Near>,
    sample: Sample,
}

/// What is known of a request whose answer is to be stored.
#[derive(Debug, Clone)]
pub struct Made {
    /// What stays with the answer.
    pub facts: Facts,
    /// Another key under which it is found: it was given in the place of another target's.
    pub also: Option<Key>,
    /// The dialect of the answer.
    pub format: Format,
    /// The pauses with which it came are kept.
    pub paced: bool,
    /// What it tells of tokens: who settles its request reads the same.
    pub heard: Heard,
}

impl Cache {
    /// Reads what was purged; opens the tiers when they are needed.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        // What lies in memory only does not outlive the process: no more do its purges.
        let durable = (settings.disk > 0).then(|| settings.directory().join("purges"));
        Self {
            flights: Arc::default(),
            settings,
            metrics,
            tiers: OnceLock::new(),
            stamps: Arc::new(Stamps::open(durable)),
            keeper: OnceLock::new(),
            near: Mutex::new(Near::new(NEAR)),
            sample: Sample::default(),
        }
    }

    /// Opens the tiers, in the background, so that the first request finds what is on disk.
    pub fn open(&self) {
        self.tiers();
    }

    /// Now, by the clock of purges.
    pub fn now(&self) -> u64 {
        self.stamps.now()
    }

    /// A stored answer that lies in memory.
    pub fn memory(&self, key: &Key) -> Option<Arc<Entry>> {
        let found = self.tiers().memory(key.as_bytes());
        found.filter(|entry| !self.stamps.is_purged(&entry.facts))
    }

    /// A stored answer that lies on disk. Takes a moment, never long.
    pub async fn disk(&self, key: &Key) -> Option<Arc<Entry>> {
        let found = self.tiers().disk(key.as_bytes()).await;
        found.filter(|entry| !self.stamps.is_purged(&entry.facts))
    }

    /// Stores an answer, off the path of its request: it is looked into first.
    pub fn keep(self: &Arc<Self>, made: Made, recorded: Recorded) {
        let cache = Arc::clone(self);
        let keep = move || {
            let also = made.also;
            let entry = entry(made, &recorded, SystemTime::now());
            // One that was purged meanwhile must not take the place of a newer one.
            if let Some(entry) = entry.filter(|entry| !cache.is_purged(entry)) {
                let other = also.map(|key| entry.under(*key.as_bytes()));
                let all = other.into_iter().chain([entry]);
                all.for_each(|entry| cache.tiers().insert(Arc::new(entry)));
            }
            // Only now: whoever comes meanwhile finds either the flight or the entry.
            drop(recorded.landing);
        };
        let keeper = self.keeper.get_or_init(Keeper::start);
        if keeper.submit(keep).is_err() {
            self.metrics.cache_error("keep_full");
        }
    }

    /// Tells the metrics what there is right now.
    pub fn gauge(&self) {
        self.metrics.cache_flights(self.flights.len());
        if let Some(tiers) = self.tiers.get() {
            self.metrics.cache_bytes(Tier::Memory, tiers.memory_bytes());
            self.metrics.cache_bytes(Tier::Disk, tiers.disk_bytes());
        }
    }

    /// Makes stored answers, and those on their way, unfindable. Waits for the disk.
    ///
    /// # Errors
    /// When that could not be written down durably; it holds until the process ends.
    pub fn purge(&self, scope: &str, what: &Purge) -> std::io::Result<()> {
        let purged = self.stamps.purge(scope, what);
        // What is on its way is outdated for whoever asks from now on, and stored for nobody.
        self.flights.forget_all();
        purged
    }

    /// Whether a stored answer was purged since it was found.
    pub fn is_purged(&self, entry: &Entry) -> bool {
        self.stamps.is_purged(&entry.facts)
    }

    /// Where this request differs from a similar one seen before. Only a [`Sample`] is compared.
    /// `tenant` tells everything of the request but its body.
    pub fn differs_at(
        &self,
        tenant: impl FnOnce() -> Option<Key>,
        body: &[u8],
        now: SystemTime,
    ) -> Option<Box<str>> {
        if !self.sample.takes(body.len(), now) {
            return None;
        }
        // Somebody else is at it: this one is not of the sample.
        let mut near = self.near.try_lock()?;
        let tenant = *tenant()?.as_bytes().first_chunk()?;
        near.observe(u64::from_le_bytes(tenant), body)
            .map(Into::into)
    }

    /// Writes down what a clock that is set back must not undo, if anything was stored. Waits
    /// for the disk.
    pub fn save(&self) {
        if self.tiers.get().is_none() {
            return;
        }
        if let Err(error) = self.stamps.save() {
            log::warn!("the clock of purges is not written down: {error}");
        }
    }

    /// Learns what another process has purged. Waits for the disk.
    pub fn learn_purges(&self) {
        self.stamps.reload();
    }

    /// Writes what is still to be written and gives the disk up, for good. Waits for the disk,
    /// a few seconds at most.
    pub fn release_disk(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.flush();
        }
        if let Some(tiers) = self.tiers.get() {
            tiers.release_disk();
        }
        self.save();
    }

    fn tiers(&self) -> &Tiers {
        self.tiers.get_or_init(|| {
            let disk = (self.settings.disk > 0).then(|| DiskSettings {
                directory: self.settings.directory(),
                size: self.settings.disk,
            });
            let watcher = Watcher {
                metrics: Arc::clone(&self.metrics),
                stamps: Arc::clone(&self.stamps),
            };
            Tiers::new(self.settings.memory, disk, Arc::new(watcher))
        })
    }
}

impl Settings {
    fn directory(&self) -> PathBuf {
        self.data_dir.join("cache")
    }
}

/// The answer as it is stored; `None` when it is none to be given again.
fn entry(made: Made, recorded: &Recorded, now: SystemTime) -> Option<Entry> {
    let head = &recorded.head;
    let body = joined(&recorded.pieces);
    let content_type = text(head, CONTENT_TYPE.as_str());
    let encoding = text(head, CONTENT_ENCODING.as_str());
    let framing = Framing::of(Some(content_type.as_bytes()), None);
    let told = match usage::decoded(encoding, &body, LOOKED_INTO) {
        Some(decoded) if !complete::is_complete(made.format, content_type, &decoded) => {
            return None;
        }
        Some(decoded) => usage::of_answer(made.format, content_type, &decoded, &made.heard),
        // What cannot be looked into may have an error in it.
        None => return None,
    };
    let streamed = framing != Framing::Other;
    let pieces = if streamed && made.paced {
        recorded.marks.clone().into()
    } else {
        Box::default()
    };
    Some(Entry {
        facts: made.facts,
        stored: milliseconds(now),
        streamed,
        told,
        status: head.status,
        headers: compact(&head.headers),
        pieces,
        body,
    })
}

/// The body in a buffer of its own size: pieces lie in the larger ones they were read into.
fn joined(pieces: &[Bytes]) -> Bytes {
    let mut body = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces
        .iter()
        .for_each(|piece| body.extend_from_slice(piece));
    body.freeze()
}

/// The headers with their values in one buffer of their own, for the same reason.
fn compact(headers: &[(Box<str>, HeaderValue)]) -> Vec<(Box<str>, HeaderValue)> {
    let length = headers.iter().map(|(_, value)| value.len()).sum();
    let mut all = BytesMut::with_capacity(length);
    let copied: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            all.extend_from_slice(value.as_bytes());
            (name.clone(), all.split().freeze())
        })
        .collect();
    copied
        .into_iter()
        // The same bytes are a value again.
        .filter_map(|(name, value)| Some((name, HeaderValue::from_maybe_shared(value).ok()?)))
        .collect()
}

fn milliseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The value of a header, empty when there is none or it is no text.
fn text<'a>(head: &'a Head, name: &str) -> &'a str {
    let mut headers = head.headers.iter();
    let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found
        .and_then(|(_, value)| value.to_str().ok())
        .unwrap_or("")
}

/// Learns what happens in the tiers.
struct Watcher {
    metrics: Arc<Metrics>,
    stamps: Arc<Stamps>,
}

impl Watch for Watcher {
    fn stored(&self, tier: Tier, bytes: u64) {
        self.metrics.cache_stored(tier, bytes);
    }

    fn evicted(&self, tier: Tier, _bytes: u64) {
        self.metrics.cache_evicted(tier);
    }

    fn error(&self, what: &'static str) {
        self.metrics.cache_error(what);
    }

    fn disk_owned(&self, owned: bool) {
        if owned {
            // The process that owned it before may have purged since this one began.
            self.stamps.reload();
        }
        self.metrics.cache_disk_owned(owned);
    }
}
