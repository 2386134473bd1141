//! What calls may cost: budgets that no number of calls at once overruns.
//!
//! A [`Rule`] says how much in which time, and which calls it is about
//! ([`Facts`](super::facts::Facts)). Before a call goes to its provider [`Budgets::reserve`] sets
//! aside the most that it can cost ([`worst`](super::worst),
//! [`Prices::most`](crate::pricing::Prices::most)) in every account that pays for it, or says which
//! has no room ([`Exceeded`]). When it is known what the call took, its [`Reservation`] settles to
//! that; what was set aside and is not needed is free again. What is spent and set aside in an account
//! never exceeds its limit, but for calls whose cost cannot be bounded.
//!
//! - `rule`: which account pays; [`window`]: when money stops to count; `state`: the arithmetic.
//! - `accounts`: many small maps, one lock each; `budgets`, `reservation`: what calls do with them.
//! - `store`: how it outlives the process, and how two processes share it.
//! - [`Reading`]: what is left, for those who look.
//!
//! Left out: what calls cost, which is [`crate::pricing`]'s, and what clients are answered.

mod account;
mod accounts;
mod budgets;
mod exceeded;
mod reading;
mod reservation;
mod rule;
mod state;
mod store;
pub mod window;

pub use account::Scope;
pub use accounts::MOST;
pub use budgets::{Ask, Budgets, Counters};
pub use exceeded::{Exceeded, Lack};
pub use reading::Reading;
pub use reservation::{Left, Reservation};
pub use rule::{ASSUMED_OUTPUT, Field, Partition, Rule, Select};
pub use store::{Clock, Options};
pub use window::Window;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
