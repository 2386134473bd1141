//! The end of a process: it exits as soon as nothing is in flight, or when its time is up.
//!
//! Pingora would sleep out a fixed grace period even when idle, and then cut whatever still
//! runs. So its period is set out of reach, and a thread of ours ends the process instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::phase::{Phase, State};
use super::reload::Live;
use super::systemd;
use crate::cache::store::Cache;
use crate::ledger::Ledger;
use crate::limits::spend::Budgets;
use crate::telemetry::log as log_setup;

/// How long a connection on which no request has arrived yet may still bring one: clients
/// that connected before the listeners closed are served, not cut.
pub const LATE_ARRIVALS: Duration = Duration::from_secs(2);

/// The least time between the end of accepting and the exit. Connections that were accepted
/// a moment before are counted only once their task has run.
const SETTLE: Duration = Duration::from_millis(100);

/// How often the drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// How long the end of the process waits until what was spent is written.
const CLOSING: Duration = Duration::from_secs(10);

/// Tells Pingora when to stop accepting, and starts the drain.
pub struct Shutdown {
    phase: Arc<Phase>,
    live: Arc<Live>,
    cache: Arc<Cache>,
    ledger: Arc<Ledger>,
    budgets: Arc<Budgets>,
}

impl Shutdown {
    /// Stops the process that `phase` and `live` describe, and closes its cache, its ledger and its
    /// budgets.
    pub fn new(
        phase: Arc<Phase>,
        live: Arc<Live>,
        cache: Arc<Cache>,
        ledger: Arc<Ledger>,
        budgets: Arc<Budgets>,
    ) -> Self {
        Self {
            phase,
            live,
            cache,
            ledger,
            budgets,
        }
    }

    fn graceful(&self) -> ShutdownSignal {
        let (phase, live) = (self.phase.clone(), self.live.clone());
        let (cache, ledger) = (self.cache.clone(), self.ledger.clone());
        let budgets = self.budgets.clone();
        std::thread::spawn(move || drain(&phase, &live, &cache, &ledger, &budgets));
        ShutdownSignal::GracefulTerminate
    }
}

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        let (mut terminate, mut interrupt) = (
            listen_for(SignalKind::terminate()),
            listen_for(SignalKind::interrupt()),
        );
        tokio::select! {
            _ = terminate.recv() => {
                self.phase.advance(State::Draining);
                systemd::stopping("finishing open requests");
                self.graceful()
            }
            _ = interrupt.recv() => {
                log::info!("interrupted: stopping at once");
                ShutdownSignal::FastShutdown
            }
            () = self.phase.reached(State::HandingOver) => self.graceful(),
        }
    }
}

/// A stream of one signal. Failing to install a handler leaves no way to stop gracefully,
/// and only happens on a broken system.
#[allow(clippy::expect_used)]
fn listen_for(kind: SignalKind) -> Signal {
    signal(kind).expect("the system lets a process handle its signals")
}

fn drain(phase: &Phase, live: &Live, cache: &Cache, ledger: &Ledger, budgets: &Budgets) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot drain, exiting at once: {error}");
            exit();
        }
    };
    runtime.block_on(watch(phase, live));
    ledger.settle();
    end(budgets);
    // What was stored is written, a few seconds at most.
    cache.release_disk();
    exit();
}

/// Leaves the budgets to whoever comes next, with all that was spent of them.
pub fn end(budgets: &Budgets) {
    if let Err(problem) = budgets.end_within(CLOSING) {
        log::error!("budgets may miss what was spent last: {problem}");
    }
}

/// Returns when the process may exit.
async fn watch(phase: &Phase, live: &Live) {
    let snapshot = live.snapshot().load_full();
    let handed_over = phase.state() == State::HandingOver;
    let patience = if handed_over {
        snapshot.drain_timeout
    } else {
        snapshot.grace_period
    };
    let (what, requests) = (phase.state().name(), phase.requests());
    log::info!("{what}: {patience:?} to finish what is in flight (requests: {requests})");
    let mut deadline = Deadline {
        ends: Instant::now() + patience,
        told_to_stop: !handed_over,
    };
    let (mut terminate, mut interrupt) = (
        listen_for(SignalKind::terminate()),
        listen_for(SignalKind::interrupt()),
    );
    let began = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = interrupt.recv() => return cut("interrupted", phase),
            _ = terminate.recv() => {
                if !deadline.terminate(snapshot.grace_period) {
                    return cut("told to stop again", phase);
                }
            }
        }
        if settled(phase, handed_over, began.elapsed()) {
            return log::info!("nothing is in flight any more: exiting");
        }
        if Instant::now() >= deadline.ends {
            return cut("time is up", phase);
        }
    }
}

fn cut(why: &str, phase: &Phase) {
    log::warn!(
        "{why}: exiting, what is in flight is cut (requests: {})",
        phase.requests()
    );
}

/// When the drain must end.
struct Deadline {
    ends: Instant,
    told_to_stop: bool,
}

impl Deadline {
    /// SIGTERM while draining: the first one shortens the long drain of an upgrade to the
    /// grace period, a further one ends it (`false`).
    fn terminate(&mut self, grace_period: Duration) -> bool {
        let first = !std::mem::replace(&mut self.told_to_stop, true);
        if first {
            self.ends = self.ends.min(Instant::now() + grace_period);
        }
        first
    }
}

/// Whether nothing is in flight, `elapsed` after the process stopped accepting.
fn settled(phase: &Phase, handed_over: bool, elapsed: Duration) -> bool {
    // After a hand-over nobody waits for the exit, so late requests get their chance on
    // every connection; on SIGTERM only on those that are known to be in use.
    let least = if handed_over {
        LATE_ARRIVALS + SETTLE
    } else {
        SETTLE
    };
    let arrivals_are_over = phase.arrivals() == 0 || elapsed > LATE_ARRIVALS + SETTLE;
    phase.requests() + phase.operations() == 0 && arrivals_are_over && elapsed >= least
}

/// Ends the process in order: what was logged is written.
fn exit() -> ! {
    log_setup::flush();
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_idle_process_is_settled_at_once_on_sigterm() {
        assert!(settled(&Phase::default(), false, SETTLE));
    }

    #[test]
    fn a_request_holds_the_process_however_long_it_takes() {
        let phase = Phase::default();
        let request = phase.request();
        assert!(!settled(&phase, true, LONG));
        drop(request);
        assert!(settled(&phase, true, LONG));
    }

    #[test]
    fn a_fresh_connection_holds_it_only_for_a_moment() {
        let phase = Phase::default();
        let _fresh = phase.arriving();
        assert!(!settled(&phase, false, SETTLE));
        assert!(settled(&phase, false, LONG));
    }

    #[test]
    fn after_a_hand_over_late_requests_get_their_chance() {
        let phase = Phase::default();
        assert!(!settled(&phase, true, SETTLE));
        assert!(settled(&phase, true, LATE_ARRIVALS + SETTLE));
    }

    #[test]
    fn sigterm_shortens_the_drain_of_an_upgrade_once() {
        let mut deadline = Deadline {
            ends: Instant::now() + LONG * 60,
            told_to_stop: false,
        };
        assert!(deadline.terminate(LONG));
        assert!(deadline.ends <= Instant::now() + LONG);
        assert!(!deadline.terminate(LONG));
    }
}
