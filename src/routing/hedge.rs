//! When a second target is asked because the first one is late, and how often that may happen.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::latency::Latencies;

/// Hedges that may be saved up while nothing is late.
const MOST_SAVED: u64 = 10;
/// One hedge, in the smallest share that can be configured.
const HEDGE: u64 = 10_000;

/// A route's hedging.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    /// When a target is late.
    pub after: After,
    /// Hedges per request at most, in ten-thousandths.
    pub budget: u64,
}

/// When a target is late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After {
    /// Later than this share of its own answers of late. Nothing is, before it is known.
    Share(f64),
    /// After so long.
    Time(Duration),
}

impl Hedge {
    /// How long a target may take before another one is asked too; `None` when that is not known.
    pub fn after(&self, latencies: &Latencies) -> Option<Duration> {
        match self.after {
            After::Share(share) => latencies.quantile(share),
            After::Time(time) => Some(time),
        }
    }
}

/// What is left of a route's budget: every request earns its share of a hedge.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

impl Budget {
    /// A request came. `share`: hedges per request, in ten-thousandths.
    pub fn earn(&self, share: u64) {
        let saved = |saved: u64| Some((saved + share).min(MOST_SAVED * HEDGE));
        // It always has something to say.
        let _ = self.0.fetch_update(Relaxed, Relaxed, saved);
    }

    /// Takes a hedge out of it, if there is one.
    pub fn spend(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(HEDGE);
        self.0.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_all_requests_is_hedged_at_most() {
        let budget = Budget::default();
        assert!(!budget.spend());
        let mut hedges = 0;
        for _ in 0..1000 {
            budget.earn(500);
            hedges += u32::from(budget.spend());
        }
        assert_eq!(hedges, 50);
        // Quiet hours do not save up a storm.
        (0..100_000).for_each(|_| budget.earn(500));
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }

    #[test]
    fn lateness_is_a_time_or_a_share_of_what_is_known() {
        let latencies = Latencies::default();
        let budget = 500;
        let after = |after| Hedge { after, budget }.after(&latencies);
        let second = Duration::from_secs(1);
        assert_eq!(after(After::Time(second)), Some(second));
        assert_eq!(after(After::Share(0.95)), None);
        (0..100).for_each(|_| latencies.record(second));
        assert!(after(After::Share(0.95)).is_some_and(|time| time >= second));
    }
}
