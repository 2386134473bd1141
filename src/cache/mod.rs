//! Answers that need not be asked for again: what is stored, where, and until when.

mod disk;
pub mod entry;
mod files;
mod form;
mod index;
pub mod stamps;
pub mod tiers;

#[cfg(test)]
mod tests;
