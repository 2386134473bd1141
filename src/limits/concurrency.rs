//! How many calls may be in flight at once: per provider, per gateway and in the whole process.
//!
//! A provider that stalls keeps every call it is given. Without a bound it would soon hold all
//! the memory and connections there are, and every other provider would be down with it. So a
//! [`Gate`] lets in as many calls as its cap, makes a bounded number wait a bounded time for
//! their turn, and refuses the rest at once with a [`Full`] that says when to come back. A call
//! goes through up to three of them ([`enter_all`]), which outlive the configuration that asks
//! for them ([`Registry`]).
//!
//! A gate counts by itself instead of standing on [`tokio::sync::Semaphore`]: a semaphore locks
//! whenever a permit returns, and can neither say how many it has given out nor owe permits when
//! its size shrinks below that. Here the number in flight is the fact and the cap only what it
//! is compared with, so the cap may change at any time, to and from none.
//!
//! Left out: how often a client may call, what calls may cost, and what a client is answered.

mod registry;
mod several;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub use registry::Registry;
pub use several::{Passes, enter_all, try_enter_all};

/// How long a call may wait for its turn where nothing is said.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for a turn; what is said beyond counts as this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A cap that no number of calls reaches.
const UNCAPPED: u32 = u32::MAX;
const ONE_IN_FLIGHT: u64 = 1;
const ONE_WAITING: u64 = 1 << 32;

/// Whose calls a gate counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of the whole process.
    Process,
    /// One gateway's, which is called `account/id`.
    Gateway(Box<str>),
    /// Those at one provider, by its slug, of all gateways.
    Provider(Box<str>),
}

/// What a gate lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most calls in flight at once; `None` counts them without a bound, 0 refuses all.
    pub max_in_flight: Option<u32>,
    /// How long a call may wait for its turn, at most [`LONGEST_WAIT`]; 0 is not at all.
    pub max_wait: Duration,
    /// Most calls that wait at once, 0 for none; `None` is as many as may be in flight.
    pub max_waiting: Option<u32>,
}

/// One cap on calls in flight, with a bounded line of those that wait for their turn.
#[derive(Debug)]
pub struct Gate {
    scope: Arc<Scope>,
    /// In flight in the low half, waiting in the high half: one word, so that a call that ends
    /// cannot overlook one that begins to wait at the same moment.
    calls: AtomicU64,
    /// What the line's settings say, for those who enter without its lock.
    cap: AtomicU32,
    line: Mutex<Line>,
    refused: [AtomicU64; Reason::ALL.len()],
}

/// A place in flight, given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Pass {
    gate: Arc<Gate>,
}

/// Why a call was not let in, and when it may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Whose gate was full.
    pub scope: Arc<Scope>,
    /// What it lacked.
    pub reason: Reason,
    /// How long to stay away, in whole seconds, 1 to 60: by then everybody who waits now has
    /// had their turn or given up.
    pub retry_after: u32,
}

/// What a full gate lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Room to wait.
    QueueFull,
    /// A turn before the wait was over.
    WaitOver,
}

/// What a gate looked like at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Calls in flight; above the cap for as long as a lowered cap takes effect.
    pub in_flight: u32,
    /// Calls waiting for their turn.
    pub waiting: u32,
    /// Most calls in flight at once, if there is a bound.
    pub max_in_flight: Option<u32>,
}

/// Those who wait, the first to come first; their number is always in `Gate::calls` too.
#[derive(Debug)]
struct Line {
    settings: Settings,
    next_ticket: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    turn: oneshot::Sender<Pass>,
}

/// A call in the line; leaves it when dropped.
struct Waiting {
    gate: Arc<Gate>,
    ticket: u64,
    max_wait: Duration,
    turn: oneshot::Receiver<Pass>,
}

impl Scope {
    /// What kind it is: the label in metrics and logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Gateway(_) => "gateway",
            Self::Provider(_) => "provider",
        }
    }

    /// Which of them; empty for the process, of which there is one.
    pub fn name(&self) -> &str {
        match self {
            Self::Process => "",
            Self::Gateway(name) | Self::Provider(name) => name,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self.name() {
            "" => Ok(()),
            name => write!(f, " {name}"),
        }
    }
}

impl Default for Settings {
    /// No cap.
    fn default() -> Self {
        Self {
            max_in_flight: None,
            max_wait: DEFAULT_WAIT,
            max_waiting: None,
        }
    }
}

impl Settings {
    fn cap(&self) -> u32 {
        self.max_in_flight.unwrap_or(UNCAPPED)
    }

    fn wait(&self) -> Duration {
        self.max_wait.min(LONGEST_WAIT)
    }

    fn has_room_to_wait(&self, waiting: usize) -> bool {
        let most = self.max_waiting.unwrap_or(self.cap());
        usize::try_from(most).is_ok_and(|most| waiting < most)
    }
}

impl Gate {
    /// A gate nobody has entered yet.
    pub fn new(scope: Scope, settings: Settings) -> Self {
        Self {
            scope: Arc::new(scope),
            calls: AtomicU64::new(0),
            cap: AtomicU32::new(settings.cap()),
            line: Mutex::new(Line {
                settings,
                next_ticket: 0,
                queue: VecDeque::new(),
            }),
            refused: Default::default(),
        }
    }

    /// Whose calls it counts.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Changes what is let through from now on. A raised cap lets those in who wait; a lowered
    /// one lets nobody in until enough have left. Who waits already goes on waiting as before.
    pub fn set(self: &Arc<Self>, settings: Settings) {
        {
            let mut line = self.line.lock();
            line.settings = settings;
            self.cap.store(settings.cap(), Ordering::Release);
        }
        self.hand_out();
    }

    /// Enters without waiting and without a lock, when there is room and nobody waits.
    pub fn try_enter(self: &Arc<Self>) -> Option<Pass> {
        let cap = self.cap.load(Ordering::Acquire);
        self.calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |calls| {
                let room = waiting(calls) == 0 && in_flight(calls) < cap;
                room.then(|| calls + ONE_IN_FLIGHT)
            })
            .ok()?;
        Some(self.pass())
    }

    /// What it looks like now.
    pub fn reading(&self) -> Reading {
        let calls = self.calls.load(Ordering::Acquire);
        let cap = self.cap.load(Ordering::Acquire);
        Reading {
            in_flight: in_flight(calls),
            waiting: waiting(calls),
            max_in_flight: (cap != UNCAPPED).then_some(cap),
        }
    }

    /// Calls refused for this reason since the gate was made.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// How long a call may wait for its turn now.
    fn longest_wait(&self) -> Duration {
        self.line.lock().settings.wait()
    }

    /// Waits for its turn in the order of coming. Dropping the future leaves the line.
    async fn wait(self: &Arc<Self>, latest: Instant) -> Result<Pass, Full> {
        let mut waiting = self.stand_in_line()?;
        let now = Instant::now();
        if now > latest {
            return Err(self.refuse(Reason::WaitOver, waiting.max_wait));
        }
        // A place given back just before this call stood there was offered to nobody.
        self.hand_out();
        let deadline = latest.min(now + waiting.max_wait);
        match timeout_at(deadline, &mut waiting.turn).await {
            Ok(Ok(pass)) => Ok(pass),
            _ => Err(self.refuse(Reason::WaitOver, waiting.max_wait)),
        }
    }

    fn stand_in_line(self: &Arc<Self>) -> Result<Waiting, Full> {
        let mut line = self.line.lock();
        let max_wait = line.settings.wait();
        if !line.settings.has_room_to_wait(line.queue.len()) {
            return Err(self.refuse(Reason::QueueFull, max_wait));
        }
        let (ticket, turn) = line.push();
        self.calls.fetch_add(ONE_WAITING, Ordering::AcqRel);
        Ok(Waiting {
            gate: Arc::clone(self),
            ticket,
            max_wait,
            turn,
        })
    }

    /// What stood in the line under this ticket, if it still did.
    fn leave_line(&self, ticket: u64) -> Option<Waiter> {
        let mut line = self.line.lock();
        let waiter = line.remove(ticket)?;
        self.calls.fetch_sub(ONE_WAITING, Ordering::AcqRel);
        Some(waiter)
    }

    /// Lets in those who wait while there is room.
    fn hand_out(self: &Arc<Self>) {
        while let Some(turn) = self.next_turn() {
            // Whoever has gone meanwhile drops the pass, which goes to the next in line.
            drop(turn.send(self.pass()));
        }
    }

    /// Takes the place for the first in line, who must be sent the pass for it.
    fn next_turn(&self) -> Option<oneshot::Sender<Pass>> {
        let mut line = self.line.lock();
        let cap = line.settings.cap();
        let first = line.queue.pop_front_if(|_| self.move_one_in(cap))?;
        Some(first.turn)
    }

    /// Counts one that waits as in flight, if there is room.
    fn move_one_in(&self, cap: u32) -> bool {
        self.calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |calls| {
                (in_flight(calls) < cap).then(|| calls + ONE_IN_FLIGHT - ONE_WAITING)
            })
            .is_ok()
    }

    fn pass(self: &Arc<Self>) -> Pass {
        Pass {
            gate: Arc::clone(self),
        }
    }

    fn refuse(&self, reason: Reason, max_wait: Duration) -> Full {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        Full {
            scope: Arc::clone(&self.scope),
            reason,
            retry_after: max_wait.as_secs_f64().ceil().max(1.0) as u32,
        }
    }
}

fn in_flight(calls: u64) -> u32 {
    calls as u32
}

fn waiting(calls: u64) -> u32 {
    (calls >> 32) as u32
}

impl Line {
    fn push(&mut self) -> (u64, oneshot::Receiver<Pass>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (turn, receiver) = oneshot::channel();
        self.queue.push_back(Waiter { ticket, turn });
        (ticket, receiver)
    }

    fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let place = self
            .queue
            .binary_search_by_key(&ticket, |waiter| waiter.ticket);
        self.queue.remove(place.ok()?)
    }
}

impl Drop for Waiting {
    /// A pass that was sent but not yet taken is dropped with the channel, right after this.
    fn drop(&mut self) {
        // Its sender wakes a task: not under the lock.
        drop(self.gate.leave_line(self.ticket));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let before = self.gate.calls.fetch_sub(ONE_IN_FLIGHT, Ordering::AcqRel);
        if waiting(before) > 0 {
            self.gate.hand_out();
        }
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::QueueFull, Self::WaitOver];

    /// The label in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WaitOver => "wait_over",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            Reason::QueueFull => "as many calls wait for their turn as may",
            Reason::WaitOver => "no turn came in time",
        };
        let (scope, seconds) = (&self.scope, self.retry_after);
        write!(f, "{scope} is full: {what}; try again in {seconds} s")
    }
}

impl std::error::Error for Full {}
