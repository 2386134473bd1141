//! Calls in flight: one call to a provider serves everybody who asks the same meanwhile.
//!
//! Whoever asks first leads: its request calls the provider and records the answer into the
//! flight. Whoever asks while that lasts follows: it gets what has passed at once, then what
//! comes as it comes. A leader that fails with a fault of its own leaves its place to one
//! follower while the others go on waiting; after [`MAX_LEADERS`] all of them get the last
//! outcome. When nobody listens any more the call is cancelled or drained.
//!
//! Left out: what is stored afterwards and for how long ([`super::store`]), and how bytes
//! reach a client (`proxy`).
//!
//! Locks: a shard of the table first, then the state of a flight; never the other way round.

mod reading;
mod recording;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use http::header::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::entry::Entry;
use super::key::Key;
use crate::error::{Failure, Kind};
use crate::memory::Reservation;

pub use reading::{Broken, Reader};
pub use recording::{Bounds, Landing, Overflow, Recorded, Recording};

/// Requests that may try one after the other before everybody who waits gets the last outcome.
pub const MAX_LEADERS: u32 = 3;
/// Requests that may lead one after the other when each gives up before it has asked: their
/// clients leave.
const MOST_LEADERS: u32 = 4 * MAX_LEADERS;
/// What a reader may be behind an answer that is not kept before its memory is accounted for.
const UNACCOUNTED: u64 = 256 << 10;
const SHARDS: usize = 16;

/// Ends a call from outside: nobody wants its answer any more.
pub trait Cancel: Send + Sync {
    /// Ends it, at once and without a word.
    fn cancel(&self);
}

/// What happens to a call when nobody listens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAlone {
    /// It ends.
    #[default]
    Cancel,
    /// It may go on for this long, so that the answer is known and stored.
    Drain(Duration),
}

/// The head of an answer as others than its first reader see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Headers, names with their case.
    pub headers: Vec<(Box<str>, HeaderValue)>,
    /// Provider and model that gave it, where that is not who was asked for.
    pub answerer: Option<(Box<str>, Option<Box<str>>)>,
}

/// All calls in flight.
#[derive(Default)]
pub struct Flights {
    shards: [Mutex<AHashMap<Key, Arc<Flight>>>; SHARDS],
    ids: AtomicU64,
}

/// One call in flight.
pub struct Flight {
    key: Key,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    listeners: AtomicUsize,
    /// How often the last listener has left.
    deserted: AtomicU64,
    when_alone: WhenAlone,
}

struct State {
    phase: Phase,
    /// Requests that have led so far.
    leaders: u32,
    cancel: Option<Arc<dyn Cancel>>,
    head: Option<Arc<Head>>,
    /// What has come; the first of them is number `trimmed`.
    pieces: VecDeque<Bytes>,
    trimmed: usize,
    /// Bytes in `pieces`.
    held: u64,
    /// All of it is kept, and more readers may join.
    recording: bool,
    /// The number of the next piece of each reader.
    readers: AHashMap<u64, usize>,
    /// Keeps the memory of the pieces accounted for when they have all come.
    memory: Option<Reservation>,
}

#[derive(Clone)]
enum Phase {
    /// A leader is on its way to the provider.
    Asking,
    /// Nobody is: whoever waits may lead, but not before this.
    Vacant(Instant),
    /// The answer is coming.
    Open,
    /// It has come whole.
    Whole,
    /// It broke off.
    Broken,
    /// A stored answer was found after all.
    Found(Arc<Entry>),
    /// There will be none.
    Failed(Failure),
}

/// What a request does that has joined a flight.
pub enum Seat {
    /// It calls the provider.
    Lead(Lead),
    /// It waits for the one that does.
    Follow(Follower),
}

/// Keeps a flight wanted until it leaves.
pub struct Listener {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    id: u64,
    left: AtomicBool,
}

/// The duty to call the provider. Dropped unresolved, the place is vacant.
pub struct Lead {
    listener: Arc<Listener>,
    /// The provider asked for patience until then.
    not_before: Instant,
    resolved: bool,
}

/// A request that waits.
pub struct Follower {
    listener: Arc<Listener>,
    changes: watch::Receiver<()>,
}

/// What has become of waiting.
pub enum Turn {
    /// The answer is coming, or has come.
    Read(Reader),
    /// The leader failed: this request leads now.
    Lead(Lead),
    /// A stored answer was found.
    Found(Arc<Entry>),
    /// The leader failed, and so would everybody else.
    Failed(Failure),
}

impl Flights {
    /// Joins the call for `key`, or begins one. `when_alone` is the first one's to say.
    pub fn join(self: &Arc<Self>, key: Key, when_alone: WhenAlone) -> Seat {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(&key);
        if let Some(flight) = shard.get(&key) {
            let listener = self.listen(flight, id);
            drop(shard);
            let changes = listener.flight.changed.subscribe();
            return Seat::Follow(Follower { listener, changes });
        }
        let flight = Arc::new(Flight::new(key, when_alone));
        shard.insert(key, Arc::clone(&flight));
        let listener = self.listen(&flight, id);
        Seat::Lead(Lead {
            listener,
            not_before: Instant::now(),
            resolved: false,
        })
    }

    /// Nobody joins any of these calls any more: what they bring is outdated. Who has joined
    /// goes on.
    pub fn forget_all(&self) {
        self.shards.iter().for_each(|shard| shard.lock().clear());
    }

    /// Calls in flight.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, AHashMap<Key, Arc<Flight>>> {
        self.shards[key.shard(SHARDS)].lock()
    }

    fn listen(self: &Arc<Self>, flight: &Arc<Flight>, id: u64) -> Arc<Listener> {
        flight.listeners.fetch_add(1, Ordering::AcqRel);
        flight.state.lock().readers.insert(id, 0);
        Arc::new(Listener {
            flights: Arc::clone(self),
            flight: Arc::clone(flight),
            id,
            left: AtomicBool::new(false),
        })
    }

    /// Nobody can join it any more; whoever has goes on.
    fn forget(&self, flight: &Arc<Flight>) {
        Self::remove(&mut self.shard(&flight.key), flight);
    }

    fn remove(shard: &mut AHashMap<Key, Arc<Flight>>, flight: &Arc<Flight>) {
        let same = shard
            .get(&flight.key)
            .is_some_and(|known| Arc::ptr_eq(known, flight));
        if same {
            shard.remove(&flight.key);
        }
    }

    /// One listener less. The last one decides what becomes of the call.
    fn leave(self: &Arc<Self>, flight: &Arc<Flight>, id: u64) {
        flight.state.lock().readers.remove(&id);
        let mut shard = self.shard(&flight.key);
        if flight.listeners.fetch_sub(1, Ordering::AcqRel) > 1 || flight.is_whole() {
            // A whole answer can be found here until it is stored.
            return;
        }
        match flight.when_alone {
            WhenAlone::Drain(patience) if flight.is_under_way() => {
                drop(shard);
                self.cancel_later(flight, patience);
            }
            _ => {
                Self::remove(&mut shard, flight);
                drop(shard);
                flight.cancel();
            }
        }
    }

    /// Cancels the call unless somebody listens again by then.
    fn cancel_later(self: &Arc<Self>, flight: &Arc<Flight>, patience: Duration) {
        let deserted = flight.deserted.fetch_add(1, Ordering::AcqRel) + 1;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The process ends: so does the call.
            return;
        };
        let (flights, flight) = (Arc::clone(self), Arc::clone(flight));
        runtime.spawn(async move {
            pingora_timeout::sleep(patience).await;
            let mut shard = flights.shard(&flight.key);
            let still = flight.deserted.load(Ordering::Acquire) == deserted;
            if still && flight.listeners.load(Ordering::Acquire) == 0 {
                Self::remove(&mut shard, &flight);
                drop(shard);
                flight.cancel();
            }
        });
    }
}

impl Flight {
    fn new(key: Key, when_alone: WhenAlone) -> Self {
        Self {
            key,
            state: Mutex::new(State {
                phase: Phase::Asking,
                leaders: 1,
                cancel: None,
                head: None,
                pieces: VecDeque::new(),
                trimmed: 0,
                held: 0,
                recording: true,
                readers: AHashMap::new(),
                memory: None,
            }),
            changed: watch::Sender::new(()),
            listeners: AtomicUsize::new(0),
            deserted: AtomicU64::new(0),
            when_alone,
        }
    }

    fn enter(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.changed.send_replace(());
    }

    fn is_whole(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Whole)
    }

    fn is_under_way(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Asking | Phase::Open)
    }

    fn cancel(&self) {
        let mut state = self.state.lock();
        let under_way = matches!(state.phase, Phase::Asking | Phase::Open);
        let cancel = state.cancel.take().filter(|_| under_way);
        drop(state);
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
    }
}

impl Listener {
    /// This one no longer listens. Saying it twice is the same as once.
    pub fn leave(&self) {
        if !self.left.swap(true, Ordering::AcqRel) {
            self.flights.leave(&self.flight, self.id);
        }
    }

    /// Whether it has left.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Whether others listen too.
    pub fn has_company(&self) -> bool {
        self.flight.listeners.load(Ordering::Acquire) > usize::from(!self.has_left())
    }

    /// The length of the answer, once it has come whole, if all of it is kept.
    pub fn whole_length(&self) -> Option<u64> {
        let state = self.flight.state.lock();
        let is_whole = matches!(state.phase, Phase::Whole) && state.recording;
        is_whole.then_some(state.held)
    }

    /// Reads the answer from where this listener stands.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            listener: Arc::clone(self),
            changes: self.flight.changed.subscribe(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Lead {
    /// How the call can be ended from outside.
    pub fn cancel_with(&self, cancel: Arc<dyn Cancel>) {
        self.listener.flight.state.lock().cancel = Some(cancel);
    }

    /// Under which key it is.
    pub fn key(&self) -> &Key {
        &self.listener.flight.key
    }

    /// This request as one of those who listen.
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// How many requests have led so far, this one included.
    pub fn turn(&self) -> u32 {
        self.listener.flight.state.lock().leaders
    }

    /// When it may ask the provider.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Nobody tries after this one: its outcome is everybody's.
    pub fn is_last(&self) -> bool {
        self.turn() >= MAX_LEADERS
    }

    /// A stored answer was found after all.
    pub fn found(mut self, entry: Arc<Entry>) {
        self.resolve(Phase::Found(entry));
        self.listener.flights.forget(&self.listener.flight);
    }

    /// The answer begins.
    pub fn open(mut self, head: Head, bounds: Bounds, memory: Reservation) -> Recording {
        let flight = Arc::clone(&self.listener.flight);
        flight.state.lock().head = Some(Arc::new(head));
        self.resolve(Phase::Open);
        Recording {
            flights: Arc::clone(&self.listener.flights),
            flight,
            first: self.listener.id,
            memory,
            bounds,
            total: 0,
            began: None,
            marks: Vec::new(),
            finished: false,
        }
    }

    /// This request failed with a fault of its own, or the provider had a bad moment: one who
    /// waits may try after `delay`, unless this was the last to try.
    pub fn stand_down(mut self, delay: Duration, failure: &Failure) {
        if self.is_last() {
            return self.fail(failure.clone());
        }
        self.resolve(Phase::Vacant(Instant::now() + delay));
    }

    /// It failed, and so would everybody else.
    pub fn fail(mut self, failure: Failure) {
        self.resolve(Phase::Failed(failure));
        self.listener.flights.forget(&self.listener.flight);
    }

    fn resolve(&mut self, phase: Phase) {
        self.resolved = true;
        self.listener.flight.enter(phase);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.resolved {
            return;
        }
        // Whoever waits may lead, no sooner than this one might have asked.
        match self.turn() < MOST_LEADERS {
            true => self.listener.flight.enter(Phase::Vacant(self.not_before)),
            false => {
                let failure = Failure::new(Kind::UpstreamCut);
                self.listener.flight.enter(Phase::Failed(failure));
                self.listener.flights.forget(&self.listener.flight);
            }
        }
    }
}

impl Follower {
    /// Waits until there is something to do. May be dropped and called again.
    pub async fn turn(&mut self) -> Turn {
        loop {
            if let Some(turn) = self.look() {
                return turn;
            }
            // The sender lives in the flight, which lives in `self`.
            let _ = self.changes.changed().await;
        }
    }

    /// This request as one of those who listen.
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    fn look(&self) -> Option<Turn> {
        let mut state = self.listener.flight.state.lock();
        match state.phase.clone() {
            Phase::Asking => None,
            Phase::Vacant(not_before) => {
                state.phase = Phase::Asking;
                state.leaders += 1;
                state.cancel = None;
                Some(Turn::Lead(Lead {
                    listener: Arc::clone(&self.listener),
                    not_before,
                    resolved: false,
                }))
            }
            Phase::Open | Phase::Whole => Some(Turn::Read(Reader {
                listener: Arc::clone(&self.listener),
                changes: self.changes.clone(),
            })),
            // Nothing of it has been passed on to this one, so a status can still tell.
            Phase::Broken => Some(Turn::Failed(Failure::new(Kind::UpstreamCut))),
            Phase::Found(entry) => Some(Turn::Found(entry)),
            Phase::Failed(failure) => Some(Turn::Failed(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
