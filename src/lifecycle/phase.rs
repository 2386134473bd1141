//! Where in its life the process is, and how many requests it is busy with.
//!
//! One value, shared by everything: the listeners (do I still accept?), the entrance
//! (may this connection be used again?), readiness, and the drain (may I exit?).

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Where in its life the process is. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The listeners are being opened; in an upgrade, the old process has not let go yet.
    Starting,
    /// The unit's main process, ready for requests.
    Serving,
    /// A new process has taken the listeners over; this one finishes what it has begun.
    HandingOver,
    /// Told to stop; finishes what it has begun.
    Draining,
}

impl State {
    /// The word in `/readyz` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::HandingOver => "handing over",
            Self::Draining => "draining",
        }
    }
}

/// The process's state and load. Cheap to read for every request.
#[derive(Debug)]
pub struct Phase {
    state: watch::Sender<State>,
    closing: watch::Sender<bool>,
    requests: AtomicUsize,
    operations: AtomicUsize,
    arriving: AtomicUsize,
}

impl Default for Phase {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::Starting),
            closing: watch::Sender::new(false),
            requests: AtomicUsize::new(0),
            operations: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
        }
    }
}

impl Phase {
    /// The current state.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Moves on to `next`. Does nothing, and says so with `false`, if that is no step forward.
    pub fn advance(&self, next: State) -> bool {
        let moved = self.state.send_if_modified(|state| {
            let forward = next > *state;
            if forward {
                *state = next;
            }
            forward
        });
        if moved && next >= State::HandingOver {
            self.closing.send_replace(true);
        }
        moved
    }

    /// Resolves once the state is `state` or a later one.
    pub async fn reached(&self, state: State) {
        let mut watch = self.state.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = watch.wait_for(|now| *now >= state).await;
    }

    /// Turns true when no connection may be used again. In the form that Pingora takes, so
    /// that it answers HTTP/1.1 with `Connection: close` and HTTP/2 with GOAWAY.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Counts a request until the guard is dropped: HTTP/1.1, HTTP/2 and upgraded connections.
    pub fn request(&self) -> Counted<'_> {
        Counted::new(&self.requests)
    }

    /// Counts an operator's request until the guard is dropped.
    pub fn operation(&self) -> Counted<'_> {
        Counted::new(&self.operations)
    }

    /// Counts a connection from which a request may arrive any moment.
    pub fn arriving(&self) -> Counted<'_> {
        Counted::new(&self.arriving)
    }

    /// Requests that are being answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Operators' requests that are being answered.
    pub fn operations(&self) -> usize {
        self.operations.load(Ordering::Acquire)
    }

    /// Connections from which a request may arrive any moment: fresh ones, half-sent request
    /// heads, and HTTP/2 connections that the client has not closed yet.
    pub fn arrivals(&self) -> usize {
        self.arriving.load(Ordering::Acquire)
    }
}

/// Adds one while it lives.
#[derive(Debug)]
pub struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_only_moves_forward() {
        let phase = Phase::default();
        assert!(phase.advance(State::Serving));
        assert!(!phase.advance(State::Serving));
        assert!(phase.advance(State::Draining));
        assert!(!phase.advance(State::HandingOver));
        assert_eq!(phase.state(), State::Draining);
    }

    #[test]
    fn connections_are_kept_until_the_hand_over() {
        let phase = Phase::default();
        let closing = phase.closing();
        phase.advance(State::Serving);
        assert!(!*closing.borrow());
        phase.advance(State::HandingOver);
        assert!(*closing.borrow());
    }

    #[test]
    fn guards_count_while_they_live() {
        let phase = Phase::default();
        let first = phase.request();
        let second = phase.request();
        assert_eq!((phase.requests(), phase.arrivals()), (2, 0));
        drop((first, second));
        assert_eq!(phase.requests(), 0);
    }
}
