//! What happens when a provider fails: what its failure means ([`verdict`]), how long it asks
//! for patience ([`patience`]), how often and when it is tried again ([`retry`]), who is asked
//! instead ([`plan`]), in which order ([`strategy`], [`affinity`]) or at the same time ([`hedge`]), who is left alone for a while
//! ([`health`]), what is known of anybody ([`known`], [`load`], [`latency`]), and how long anything
//! may take ([`timeouts`]).
//!
//! Pure: takes statuses, headers, time and chance. What it leads to is done in `proxy`.

pub mod affinity;
pub mod health;
pub mod hedge;
pub mod known;
pub mod latency;
pub mod load;
pub mod patience;
pub mod plan;
pub mod retry;
pub mod strategy;
pub mod timeouts;
pub mod verdict;
