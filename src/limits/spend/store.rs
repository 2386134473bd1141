//! Budgets on disk: what is spent outlives the process, however it ends, and processes that overlap
//! share what is left.
//!
//! One thread writes, every half second, what has changed; nobody waits for it. Every process has rows
//! of its own, and a lock that the kernel takes from it with its life. Who comes next takes over the
//! rows of those that are gone. While two processes live, the older one has an amount of each account
//! that only gets smaller, its slice, and the newer one has the rest of the limit (`state`): so a
//! budget is never overrun, although neither waits for the other. Where processes are more than two,
//! all but the newest have slices.
//!
//! - `schema`: the file; `alive`: who lives.
//! - `keeper`: the thread, and what it writes; `peers`: what it does about other processes.
//!
//! What is set aside is not stored: calls end with their process.

mod alive;
mod keeper;
mod peers;
mod schema;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::budgets::{Budgets, Shared};
use crate::background;
use keeper::Keeper;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How budgets are stored.
#[derive(Clone)]
pub struct Options {
    /// How long changes gather: what a kill may cost; half a second.
    pub flush: Duration,
    /// How often a process that shares budgets with another tells and asks what is left; a tenth of
    /// a second.
    pub exchange: Duration,
    /// After a failure that may pass, such as a full disk, it is tried again so much later; 10
    /// seconds.
    pub retry: Duration,
    /// So long an older process may take to say that it shares what is left, before half of it is
    /// taken for granted: its store must be broken; 5 seconds.
    pub patience: Duration,
    /// What the time is.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush: Duration::from_millis(500),
            exchange: Duration::from_millis(100),
            retry: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            clock: Arc::new(SystemTime::now),
        }
    }
}

/// To the keeper; each is answered when it is done.
pub(super) enum Order {
    /// Write all that has changed, and look who else is there.
    Sync,
    /// This process is on its way out: what it does not need any more goes to the newer one.
    Retire,
    /// Write all, and leave everything to who comes next.
    End,
}

type Message = (Order, mpsc::SyncSender<Result<(), String>>);

/// The keeper's handle. Its end waits until all that was spent is written.
#[derive(Debug)]
pub(super) struct Store {
    /// `None` only while it is dropped.
    sender: Option<mpsc::Sender<Message>>,
    join: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store of a directory and loads what is in it.
    pub fn open(dir: &Path, options: Options, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let keeper = Keeper::open(dir, options, Arc::clone(shared), receiver);
        let join = background::spawn("spend", move || keeper.run())?;
        Ok(Self {
            sender: Some(sender),
            join: Some(join),
        })
    }

    /// Waits until an order is carried out, for a while only.
    fn order(&self, order: Order, patience: Duration) -> Result<(), String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The keeper takes orders for as long as there is a handle.
        let _ = self
            .sender
            .as_ref()
            .map(|keeper| keeper.send((order, sender)));
        let late = |_| Err(format!("not done within {} s", patience.as_secs()));
        receiver.recv_timeout(patience).unwrap_or_else(late)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.sender = None;
        // A panic of the keeper was logged where it happened.
        let _ = self.join.take().map(JoinHandle::join);
    }
}

/// All of these block for as long as the disk takes, `patience` at most: they are for the ends of a
/// process, not for requests.
impl Budgets {
    /// Waits until all that was spent before is written. It then survives the death of the process,
    /// by whatever signal; not yet a power cut.
    ///
    /// # Errors
    /// Says why it cannot be written, or that it is not yet.
    pub fn flush_within(&self, patience: Duration) -> Result<(), String> {
        self.order(Order::Sync, patience)
    }

    /// Finds other processes with the same budgets, and agrees with them on who has what. An old
    /// process does so before it hands its listeners over, to a new one that has opened its budgets;
    /// the new one does so before it accepts; and an old one does so when the new one has failed.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn share_within(&self, patience: Duration) -> Result<(), String> {
        self.order(Order::Sync, patience)
    }

    /// This process has handed over and only finishes its calls: from now on it gives what they do
    /// not need to the newer process, as soon as they end.
    ///
    /// # Errors
    /// Says why the newer process does not know yet.
    pub fn retire_within(&self, patience: Duration) -> Result<(), String> {
        self.order(Order::Retire, patience)
    }

    /// Writes all, and leaves everything to other processes: this one must not spend any more.
    ///
    /// # Errors
    /// Says why it cannot be written, or that it is not yet.
    pub fn end_within(&self, patience: Duration) -> Result<(), String> {
        self.order(Order::End, patience)
    }

    fn order(&self, order: Order, patience: Duration) -> Result<(), String> {
        let ordered = self.store().map(|store| store.order(order, patience));
        ordered.unwrap_or(Ok(()))
    }
}
