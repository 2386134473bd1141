//! Keys of our own: made, changed and revoked by operators while the gateway runs, and brought by
//! requests in place of a gateway's token.
//!
//! | file | |
//! |---|---|
//! | `secret` | what a key looks like, and how one is made |
//! | `definition` | what is said of a key, read and checked |
//! | `table` | all keys in memory: what requests look in |
//! | `file` | all keys on disk |
//! | `store` | both together, and the thread that follows other processes |
//!
//! Where a key may stand on a request is [`crate::auth`]'s business; what its bounds mean is that of
//! the limits.

pub mod definition;
mod file;
pub mod secret;
pub mod store;
pub mod table;

pub use store::Keys;
pub use table::{Refused, Table};

/// Most keys, revoked ones that are remembered included. With it memory is bounded: a key takes at
/// most some three times [`definition::LARGEST`], and usually 1 KiB.
pub const MOST: usize = 100_000;
