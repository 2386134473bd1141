//! One bound on the memory of all bodies held in the process together, requests and answers
//! (`server.max_buffered`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::Metrics;

/// Bytes reserved by the bodies held right now.
#[derive(Debug)]
pub struct Memory {
    reserved: AtomicU64,
    metrics: Arc<Metrics>,
}

/// A share of the memory, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    /// Nothing reserved yet; the gauge in `metrics` follows.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            reserved: AtomicU64::new(0),
            metrics,
        }
    }

    /// An empty reservation, to be grown.
    pub fn reserve_nothing(self: &Arc<Self>) -> Reservation {
        Reservation {
            memory: Arc::clone(self),
            bytes: 0,
        }
    }

    fn add(&self, bytes: u64, limit: u64) -> bool {
        let added = self
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                now.checked_add(bytes).filter(|sum| *sum <= limit)
            });
        if let Ok(before) = added {
            self.metrics.held_bytes(before + bytes);
        }
        added.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        let before = self.reserved.fetch_sub(bytes, Ordering::AcqRel);
        self.metrics.held_bytes(before.saturating_sub(bytes));
    }
}

impl Reservation {
    /// Reserves `bytes` more, unless all reservations together would exceed `limit`.
    pub fn grow(&mut self, bytes: u64, limit: u64) -> bool {
        let grown = self.memory.add(bytes, limit);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Gives `bytes` of it back, at most all of it.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.give_back(bytes);
    }

    /// An empty one of the same memory.
    pub fn another(&self) -> Self {
        self.memory.reserve_nothing()
    }

    /// Moves all of it into another reservation.
    pub fn split(&mut self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_limit_and_are_given_back() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let memory = Arc::new(Memory::new(Arc::clone(&metrics)));
        let (mut one, mut two) = (memory.reserve_nothing(), memory.reserve_nothing());
        assert!(one.grow(60, 100));
        assert!(!two.grow(41, 100));
        assert!(two.grow(40, 100));
        assert!(!one.grow(1, 100));
        assert!(metrics.render(0).contains("tollgate_held_body_bytes 100"));
        drop(two);
        assert!(one.grow(40, 100));
        drop(one);
        assert!(metrics.render(0).contains("tollgate_held_body_bytes 0"));
    }

    #[test]
    fn a_part_can_be_given_back_or_moved() {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        let (mut one, mut other) = (memory.reserve_nothing(), memory.reserve_nothing());
        assert!(one.grow(100, 100));
        one.shrink(40);
        assert!(other.grow(40, 100));
        let moved = one.split();
        drop(one);
        assert!(!other.grow(1, 100), "what was moved is still reserved");
        drop(moved);
        assert!(other.grow(60, 100));
    }

    #[test]
    fn a_size_that_overflows_is_refused() {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        let mut reservation = memory.reserve_nothing();
        assert!(reservation.grow(10, u64::MAX));
        assert!(!reservation.grow(u64::MAX, u64::MAX));
    }
}
