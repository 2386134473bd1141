//! Who else is told of finished requests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::secret::Secret;
use crate::export::Encoding;

/// An OpenTelemetry collector that is told of the requests of all gateways, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collector {
    /// Where it is: `/v1/traces` and `/v1/metrics` are added, unless it ends in `/traces` or
    /// `/metrics`. `http` is permitted: collectors are mostly on the same machine. Restart required.
    pub url: String,
    /// Sent with every request. Values may be secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// `json` (default) or `protobuf`.
    #[serde(default)]
    pub content_type: Encoding,
    /// Send a span for every request. Default true.
    #[serde(default = "yes")]
    pub traces: bool,
    /// Send metrics every minute. Default false.
    #[serde(default)]
    pub metrics: bool,
    /// Put the beginnings of bodies on spans (`gen_ai.prompt_json`, `gen_ai.completion_json`), redacted
    /// as in the log store. Default false.
    #[serde(default)]
    pub payload: bool,
    /// PEM file of the authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Where a JSON object goes for every request, one a line, with the facts of the access log: exactly
/// one of `file` and `webhook`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sink {
    /// A file that lines are added to; opened again when it was moved away. Restart required.
    pub file: Option<PathBuf>,
    /// A URL that lines are posted to, some at a time (`application/x-ndjson`). Restart required.
    pub webhook: Option<String>,
    /// Sent with every post. Values may be secrets.
    pub headers: BTreeMap<String, Secret>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

fn yes() -> bool {
    true
}
