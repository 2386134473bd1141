//! The response cache: what makes two requests the same, as pure functions.

pub mod canonical;
pub mod key;
pub mod near;
pub mod pointers;
