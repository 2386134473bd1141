//! One bound on the memory of all held request bodies together (`server.max_buffered`).

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
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.memory.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
        self.memory
            .metrics
            .held_bytes(before.saturating_sub(self.bytes));
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
    fn a_size_that_overflows_is_refused() {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        let mut reservation = memory.reserve_nothing();
        assert!(reservation.grow(10, u64::MAX));
        assert!(!reservation.grow(u64::MAX, u64::MAX));
    }
}
