//! How often a target is tried, and how long to wait in between.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

/// Tries per target that a gateway or a request may ask for.
pub const MAX_ATTEMPTS: RangeInclusive<u32> = 1..=5;
/// The longest wait between two tries, in whatever way it grows.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// The wait where tries are asked for and nothing is said of it.
pub const DEFAULT_DELAY: Duration = Duration::from_millis(200);

/// How the wait grows from try to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backoff {
    /// Not at all.
    Constant,
    /// By the delay each time.
    Linear,
    /// It doubles each time.
    #[default]
    Exponential,
}

/// How often a target is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries, the first included; in [`MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// Before the second try; at most [`LONGEST_DELAY`].
    pub delay: Duration,
    /// How it grows from there.
    pub backoff: Backoff,
}

/// What a request says itself (`cf-aig-max-attempts`, `-retry-delay`, `-backoff`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Tries, the first included; in [`MAX_ATTEMPTS`].
    pub max_attempts: Option<u32>,
    /// Before the second try; at most [`LONGEST_DELAY`].
    pub delay: Option<Duration>,
    /// How it grows from there.
    pub backoff: Option<Backoff>,
}

impl Default for Retry {
    /// One try.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            delay: DEFAULT_DELAY,
            backoff: Backoff::default(),
        }
    }
}

impl Retry {
    /// What holds for a request: its wishes go before what its gateway says.
    pub fn with(self, wishes: &Wishes) -> Self {
        Self {
            max_attempts: wishes.max_attempts.unwrap_or(self.max_attempts),
            delay: wishes.delay.unwrap_or(self.delay),
            backoff: wishes.backoff.unwrap_or(self.backoff),
        }
    }

    /// How long to wait after so many failed tries (1 is the first). `chance`, 0 to 1, spreads
    /// those who failed together: half of the wait is certain, the other half is by chance.
    pub fn wait(&self, failed: u32, chance: f64) -> Duration {
        let steps = failed.max(1);
        let factor = match self.backoff {
            Backoff::Constant => 1,
            Backoff::Linear => steps,
            Backoff::Exponential => 1 << (steps - 1).min(16),
        };
        let whole = self.delay.saturating_mul(factor).min(LONGEST_DELAY);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_as_it_is_said_and_never_beyond_a_minute() {
        let wait = |backoff, failed, chance| {
            let retry = Retry {
                max_attempts: 5,
                delay: Duration::from_millis(200),
                backoff,
            };
            retry.wait(failed, chance).as_millis()
        };
        let waits = |backoff| [1, 2, 3, 4].map(|failed| wait(backoff, failed, 1.0));
        assert_eq!(waits(Backoff::Constant), [200, 200, 200, 200]);
        assert_eq!(waits(Backoff::Linear), [200, 400, 600, 800]);
        assert_eq!(waits(Backoff::Exponential), [200, 400, 800, 1600]);
        assert_eq!(wait(Backoff::Exponential, 1, 0.0), 100);
        assert_eq!(wait(Backoff::Exponential, 4, 0.5), 1200);
        assert_eq!(wait(Backoff::Exponential, u32::MAX, 1.0), 60_000);
        assert_eq!(wait(Backoff::Linear, u32::MAX, 1.0), 60_000);
    }

    #[test]
    fn a_request_goes_before_its_gateway() {
        let gateway = Retry {
            max_attempts: 3,
            ..Retry::default()
        };
        assert_eq!(gateway.with(&Wishes::default()), gateway);
        let wishes = Wishes {
            max_attempts: Some(1),
            delay: Some(Duration::ZERO),
            backoff: Some(Backoff::Linear),
        };
        let said = gateway.with(&wishes);
        assert_eq!((said.max_attempts, said.delay), (1, Duration::ZERO));
        assert_eq!(said.backoff, Backoff::Linear);
    }
}
