//! Views of finished requests and of the process: metrics, access log, process log.

pub mod access;
pub mod log;
pub mod metrics;
