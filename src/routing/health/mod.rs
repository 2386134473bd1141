//! Health with blame: who is left alone for a while after failures, and who is tried first.
//!
//! Blame falls where it belongs, so that one bad key does not cost a provider, nor one busy model
//! a key: a [`Breaker`] is of one target or one provider, and a [`KeyHealth`] of one stored key
//! and its models. What is learned comes from the calls that clients make, and of providers that
//! are probed ([`crate::probe`]) from that too. That a thing is cooled is advice: where all are,
//! the least bad is tried ([`super::strategy::Order::well_first`]).
//!
//! A call counts by when it began, not only by when it ended: many are in flight when trouble
//! starts, and what they meet is the same trouble once, not new trouble each time. So whoever
//! reports a call gives its `began`, which is the `now` it was let in at.
//!
//! Time is an argument, and where nothing is wrong every call costs one relaxed load at each
//! place. That is enough, for what is loaded only says whether to look under the lock: who loads
//! it too early acts as if it had come a moment sooner.
//!
//! Leaves out what a failure means (`verdict`) and how long a provider asks to be left alone
//! (`patience`).

mod breaker;
mod key;

use std::time::Duration;

pub use breaker::{Breaker, Opened, Settings, Standing};
pub use key::{KeyHealth, limited_for, refused_for};

/// Nothing is left alone for longer, whatever is configured: a time that far off is still one
/// that a clock can tell.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// `first`, doubled with each further time in a row (1 is the first), up to `longest`.
fn doubling(first: Duration, longest: Duration, in_row: u32) -> Duration {
    let factor = 1 << in_row.saturating_sub(1).min(31);
    first.saturating_mul(factor).min(longest).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_double_up_to_the_longest() {
        let doubled = |in_row| doubling(Duration::from_secs(10), Duration::from_secs(60), in_row);
        let seconds = [0, 1, 2, 3, 4, u32::MAX].map(|in_row| doubled(in_row).as_secs());
        assert_eq!(seconds, [10, 10, 20, 40, 60, 60]);
        assert_eq!(doubling(Duration::MAX, Duration::MAX, 9), LONGEST);
    }
}
