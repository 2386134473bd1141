//! The response cache: an answer that was paid for once is given again.
//!
//! In the order in which a request meets them: [`policy`] (may it be cached?), [`canonical`]
//! and [`key`] (what is the same request?), [`store`] (the cache of the process), [`flight`]
//! (is somebody asking already?), [`tiers`] (memory and disk), [`stamps`] (was it purged?),
//! [`entry`] (a stored answer), [`near`] (why was it a miss?). How bytes come and go is in
//! `proxy`.

pub mod canonical;
mod disk;
pub mod entry;
pub mod flight;
mod form;
mod keeper;
pub mod key;
pub mod near;
pub mod pointers;
pub mod policy;
pub mod recent;
pub mod stamps;
pub mod store;
pub mod tiers;

#[cfg(test)]
mod tests;
