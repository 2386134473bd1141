//! What keeps one caller or one provider from using up what all share.

pub mod concurrency;
pub mod spend;
pub mod worst;
