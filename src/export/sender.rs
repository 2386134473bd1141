//! What empties one outlet: gathers a batch, sends it, and sends it again where that may help.
//!
//! One batch at a time, so that nothing arrives in another order. Whoever asks for a flush waits
//! for what was queued before; the end of all is a flush that nobody can ask for twice.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, sleep, sleep_until};

use super::Pace;
use super::destination::{Destination, Outcome};
use super::otlp::Partial;
use super::outlet::Outlet;
use super::queue::{Batch, Item};
use crate::routing::retry::{Backoff, Retry};

/// Tells whoever wants a flush that it is done; hung up on by a sender that ends.
pub type Done = mpsc::Sender<()>;

/// Where the batches of an outlet come from.
pub enum Supply {
    /// From what is queued: sent when there is enough, or after a moment.
    Queued,
    /// Written anew each time that it is sent, at these intervals.
    Written(Duration, Box<dyn Fn() -> Option<Item> + Send>),
}

/// What empties one outlet.
pub struct Sender {
    /// What it empties.
    pub outlet: Arc<Outlet>,
    /// Where to.
    pub destination: Destination,
    /// Where from.
    pub supply: Supply,
    /// Who wants it to hurry.
    pub orders: Orders,
    /// How fast, and for how long.
    pub pace: Pace,
}

/// Who wants a flush. All hanging up is the end.
pub struct Orders {
    receiver: UnboundedReceiver<Done>,
    waiting: Vec<Done>,
    is_end: bool,
}

impl Orders {
    /// Orders that come through `receiver`.
    pub fn new(receiver: UnboundedReceiver<Done>) -> Self {
        Self {
            receiver,
            waiting: Vec::new(),
            is_end: false,
        }
    }

    /// Waits for the next one; for ever after the end. Loses nothing when it is given up.
    async fn next(&mut self) {
        if self.is_end {
            return std::future::pending().await;
        }
        match self.receiver.recv().await {
            Some(done) => self.waiting.push(done),
            None => self.is_end = true,
        }
    }

    /// How many wait now, and whether it is the end.
    fn now(&mut self) -> (usize, bool) {
        loop {
            match self.receiver.try_recv() {
                Ok(done) => self.waiting.push(done),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.is_end = true;
                    break;
                }
            }
        }
        (self.waiting.len(), self.is_end)
    }

    /// The first `count` have what they want. Those who do not wait any more do not mind.
    fn done(&mut self, count: usize) {
        for done in self.waiting.drain(..count) {
            let _ = done.send(());
        }
    }

    fn are_pressing(&self) -> bool {
        self.is_end || !self.waiting.is_empty()
    }
}

impl Sender {
    /// Sends until the end.
    pub async fn run(mut self) {
        let mut due = self.first_due();
        loop {
            self.gather(&mut due).await;
            let (waiting, is_end) = self.orders.now();
            if let Supply::Written(_, write) = &self.supply
                && let Some(item) = write()
            {
                self.outlet.push(item);
            }
            self.empty().await;
            self.orders.done(waiting);
            if is_end {
                return;
            }
        }
    }

    fn first_due(&self) -> Instant {
        match &self.supply {
            Supply::Queued => Instant::now(),
            Supply::Written(every, _) => Instant::now() + *every,
        }
    }

    /// Waits until there is something to send, or somebody wants it sent.
    async fn gather(&mut self, due: &mut Instant) {
        if self.orders.are_pressing() {
            return;
        }
        if let Supply::Written(every, _) = &self.supply {
            tokio::select! {
                () = sleep_until(*due) => *due = Instant::now() + *every,
                () = self.orders.next() => {}
            }
            return;
        }
        tokio::select! {
            () = self.outlet.queue.begun() => {}
            () = self.orders.next() => return,
        }
        tokio::select! {
            () = self.outlet.queue.filled() => {}
            () = sleep(self.pace.gather) => {}
            () = self.orders.next() => {}
        }
    }

    /// Sends all that is queued now; what comes meanwhile has its own turn.
    async fn empty(&mut self) {
        let end = self.outlet.queue.end();
        loop {
            let batch = self.outlet.queue.batch(end);
            if batch.items.is_empty() {
                return;
            }
            self.deliver(batch).await;
        }
    }

    /// Sends a batch until it is taken, refused or given up, or until newer ones have pushed all
    /// of it out.
    async fn deliver(&mut self, mut batch: Batch) {
        let (began, end) = (Instant::now(), batch.end());
        let mut failed = 0;
        while !batch.items.is_empty() {
            let (why, patience, taken) = match self.destination.send(&batch.items).await {
                Outcome::Taken(partial) => return self.taken(end, partial),
                Outcome::Refused(why) => return self.refused(end, why),
                Outcome::Later {
                    why,
                    patience,
                    taken,
                } => (why, patience, taken),
            };
            let outlet = &self.outlet;
            outlet.taken(outlet.queue.settle(batch.start + taken as u64));
            outlet.failed(why);
            failed += 1;
            let wait = self.wait(patience, failed);
            if began.elapsed() + wait > self.pace.give_up {
                return outlet.lost(outlet.queue.settle(end));
            }
            self.pause(wait).await;
            batch = self.outlet.queue.batch(end);
        }
    }

    fn taken(&self, end: u64, partial: Partial) {
        let outlet = &self.outlet;
        let all = outlet.queue.settle(end);
        let rejected = partial.rejected.min(all);
        outlet.taken(all - rejected);
        if rejected > 0 {
            outlet.lost(rejected);
            let message = partial.message;
            return outlet.failed(format!("threw {rejected} of {all} away: {message}"));
        }
        outlet.went_well(Some(partial.message).filter(|warning| !warning.is_empty()));
    }

    fn refused(&self, end: u64, why: String) {
        self.outlet.lost(self.outlet.queue.settle(end));
        self.outlet.failed(why);
    }

    /// As long as was asked for, but never as good as not at all: `retry-after: 0` from who is
    /// broken would be a flood.
    fn wait(&self, patience: Option<Duration>, failed: u32) -> Duration {
        let wait = patience.unwrap_or_else(|| self.backoff(failed));
        wait.max(self.pace.first_wait / 2)
    }

    /// Half of the wait is certain, half is by chance: receivers that were away are not run over
    /// by all who waited for them.
    fn backoff(&self, failed: u32) -> Duration {
        let retry = Retry {
            delay: self.pace.first_wait,
            backoff: Backoff::Exponential,
            ..Retry::default()
        };
        retry.wait(failed, (self.pace.chance)())
    }

    /// Waits, unless somebody wants it sent at once.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.orders.next() => {}
        }
    }
}
