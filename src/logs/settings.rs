//! How the log store is set up, as the configuration has it.

use std::time::Duration;

use super::redaction::{BadRule, Redaction, Rules};
use super::store::Options;

/// Set up once for a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long entries are kept.
    pub retention: Duration,
    /// Most bytes of all its files.
    pub max_size: u64,
    /// Most bytes kept of each body.
    pub max_body: usize,
    /// What is never written.
    pub redact: Rules,
}

impl Settings {
    /// How a store works by them; the error names the rule that cannot be used.
    pub fn options(&self) -> Result<Options, BadRule> {
        Ok(Options {
            age: Some(self.retention),
            bytes: Some(self.max_size),
            body_bytes: self.max_body,
            redaction: Redaction::new(&self.redact)?,
            ..Options::new(crate::usage::decoded)
        })
    }
}
