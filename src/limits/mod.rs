//! What keeps one caller or one provider from using up what all share.

pub mod access;
pub mod bounds;
pub mod concurrency;
pub mod facts;
pub mod rate;
pub mod spend;
pub mod taken;
pub mod worst;
