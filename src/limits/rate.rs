//! Rate limits: at most so many requests, tokens or calls at the same time, in a window of time, for
//! each gateway, key, owner, provider, model, address or word of the client's.
//!
//! A [`Rule`] is what the configuration says; what it has counted (`State`) outlives the
//! configuration ([`Registry`]), but not the process. Values that we ourselves name are counted
//! exactly: of any number of requests at the same time exactly as many pass as may. Of those that
//! clients make up, the first `MADE_UP` at a time are, and the rest is estimated
//! (`sketch`).
//!
//! Time is an argument, wall-clock time, so that windows align to it, also when it is set back
//! (`clock`). Left out: what calls cost
//! (`limits::spend`), and waiting for a place (`limits::concurrency`): who is over a rate is refused
//! at once.

mod calls;
mod clock;
mod counting;
mod rule;
mod sketch;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub use calls::Permit;
pub use counting::{check, count, enter, take, tightest};
pub use rule::{Dimension, Refused, Rule, Standing};
pub use state::Registry;
