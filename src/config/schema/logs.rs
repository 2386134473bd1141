//! What is kept of requests, and what of them is never written down.

use serde::Deserialize;

use super::super::units::{ByteSize, Duration};

/// Where finished requests are kept, with their bodies: one store for all gateways, under
/// `data_dir`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// How long they are kept. Default `30d`; `1h` to `3650d`. Restart required.
    pub retention: Option<Duration>,
    /// Disk for them, the oldest going first. Default `20GiB`; `0` for no log store, else at least
    /// `64MiB`. Restart required.
    pub max_size: Option<ByteSize>,
    /// Most bytes that are kept of each body; the rest is cut off. Default `1MiB`; `0` to `32MiB`.
    /// Restart required.
    pub max_body: Option<ByteSize>,
    /// What is never written down. Restart required.
    pub redact: Redact,
}

/// What is taken out before anything is written. Headers that carry credentials always are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// Names of headers whose values are taken out.
    pub headers: Vec<String>,
    /// JSON pointers (RFC 6901) to parts of request and answer bodies: `/messages/*/content` (`*` is
    /// every element of a list, and every member of an object). Bodies that are not JSON are then
    /// not kept at all.
    pub json: Vec<String>,
    /// Regular expressions for bodies, header values, metadata and paths. Lines of an answer's
    /// events are looked at one by one.
    pub patterns: Vec<String>,
}

/// What of a gateway's requests is kept in the log store.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLogs {
    /// Keep them at all. Default true. `cf-aig-collect-log` goes before it.
    pub collect: bool,
    /// Keep their heads and bodies too. Default true. `cf-aig-collect-log-payload` goes before it.
    pub payload: bool,
}

impl Default for GatewayLogs {
    fn default() -> Self {
        Self {
            collect: true,
            payload: true,
        }
    }
}
