//! Answers that need not be asked for again: what is stored, where, and until when.

pub mod entry;
mod form;
pub mod stamps;
