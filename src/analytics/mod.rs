//! Analytics: every finished request, added up by minute, hour and day, under one file.
//!
//! - [`facts`]: what of a request is added up; [`figures`]: the sums. [`agent`]: user agents,
//!   shortened.
//! - [`series`]: what sums are kept for; `table`: how many of them there may be; `minutes`: those
//!   of now, in memory.
//! - [`store`]: how the gateway hands over requests; `writer`: the thread behind it. [`schema`],
//!   `ids`: the file; `rollup`: hours and days; `marginals`: those of calls by one part of their
//!   names, which is what most questions read; `retention`: how long it all stays.
//! - [`query`]: what can be asked; [`reader`]: finds it; [`answer`]: says it.
//!
//! What is observed is in the file a second later, and several processes may have it open. A file
//! that is full or broken raises [`counters::Counters::alarm`]; then requests are kept in memory
//! for as long as there is room, and traffic never waits and never fails for it. Whatever clients
//! make up, there is a bound to it in memory and on disk: [`series::Dimension::limits`] series for
//! each minute, hour and day, which a flood of made-up names that never ends would bring to some 12 GB
//! (estimated); ten million requests a month in some hundred series take about 340 MB.
//!
//! Left out: HTTP, which is `admin`'s, and single requests, which are [`crate::logs`]'.

pub mod agent;
pub mod answer;
pub mod counters;
pub mod facts;
pub mod figures;
mod ids;
mod marginals;
mod minutes;
pub mod query;
pub mod reader;
mod retention;
mod rollup;
pub mod schema;
pub mod series;
pub mod store;
mod table;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
