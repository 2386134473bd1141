//! The response cache: what makes two requests the same, as pure functions, and where answers
//! are kept.

pub mod canonical;
mod disk;
pub mod entry;
mod files;
mod form;
mod index;
pub mod key;
pub mod near;
pub mod pointers;
pub mod stamps;
pub mod tiers;

#[cfg(test)]
mod tests;
