//! The log store: one row per finished request in SQLite, heads and bodies beside the rows in
//! segment files, everything under one directory.
//!
//! - `entry`: a finished request as it is offered; [`metadata`]: its labels.
//! - [`store`]: the queue in front, which nobody waits for; `writer`: the thread behind it, at a
//!   `pace` that leaves room for requests.
//! - [`redaction`]: what is never written. `insert`, `words`, `segments`, [`schema`]: how the
//!   rest is. `retention`: how long it stays.
//! - [`settings`], [`policy`]: what is kept at all; `of_record`: the entry of a finished request.
//! - [`query`], [`filter`]: what the API can ask for; [`reader`], [`shown`]: the answers.
//!   `change`: feedback and removal. [`reprice`]: other prices.
//!
//! What is offered is on its way to the file within a quarter of a second. Under pressure bodies
//! are compressed less first; then they are given up, then details, then rows. A store that is full or broken raises
//! [`counters::Counters::alarm`] and loses entries; traffic never waits and never fails for it.
//! Several processes may have one directory open.
//!
//! Left out: HTTP, which is `admin`'s, and the choice of what is logged, which is the caller's.

mod change;
mod columns;
pub mod counters;
pub mod entry;
pub mod filter;
mod insert;
pub mod metadata;
mod metadata_test;
mod of_record;
mod operator;
mod pace;
pub mod policy;
pub mod query;
pub mod reader;
pub mod redaction;
pub mod reprice;
mod retention;
pub mod schema;
pub mod segments;
pub mod settings;
pub mod shown;
pub mod store;
pub mod times;
mod words;
mod writer;

pub use of_record::entry;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
