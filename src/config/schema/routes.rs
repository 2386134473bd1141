//! Several targets for the same calls, as users write them.

use serde::Deserialize;

use super::Retry;
use crate::config::units::Duration;
use crate::routing::strategy::Strategy;

/// Several targets for the same calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Calls that take this route without asking for it. Without it only `dynamic/<name>` does.
    #[serde(rename = "match")]
    pub matches: Option<RouteMatch>,
    /// In which order the targets are asked: `priority` (default: as they stand), `weighted`,
    /// `least_in_flight` or `latency`. Whoever is cooled comes last, whatever the order.
    pub strategy: Strategy,
    /// What ties a session to its targets, whatever the strategy: `prompt` (the beginning of the
    /// conversation), or `{ header: x-session-id }`. Without it nothing does.
    pub affinity: Option<Affinity>,
    /// Ask the next target too when the first one is late. Without it nobody is asked twice.
    pub hedge: Option<Hedge>,
    /// Where they go: 1 to 16 targets whose providers speak the same format.
    pub targets: Vec<RouteTarget>,
}

/// When the next target is asked too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// When the first byte is later than this: a share of the target's own answers of late
    /// (`p95`, the default; `p50` to `p99`), or a time (`800ms`).
    pub after: Option<String>,
    /// At most for so many of all requests: `5%` (default); `0.01%` to `100%`.
    pub budget: Option<String>,
}

/// What ties a session to its targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// The beginning of the conversation.
    Prompt,
    /// The value of this request header.
    Header(String),
}

/// When a target or a provider that fails is left alone.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Failures within `window` that are at least half of all calls. Default 5, at least 1.
    pub failures: Option<u32>,
    /// Default `30s`; `1s` to `1h`.
    pub window: Option<Duration>,
    /// How long it is left alone then; doubles each time that the first call after it fails.
    /// Default `10s`; at least `100ms`.
    pub open_for: Option<Duration>,
    /// The longest that it is left alone. Default `5m`; at most `24h`.
    pub longest: Option<Duration>,
}

/// Calls that take a route unchanged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatch {
    /// The provider in the URL.
    pub provider: String,
    /// The model in the body, or in the path.
    pub model: String,
}

/// One target of a route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTarget {
    /// The provider that is asked.
    pub provider: String,
    /// The model that it is asked for: stands in the place of the client's.
    pub model: String,
    /// Alias of the stored key that pays. Without it the client's own key does, where the client
    /// named this provider and brought one, and otherwise one of the provider's pool, or `default`.
    pub key: Option<String>,
    /// Its share under the strategies that have shares: 0 to 1000000, default 1; 0 comes last.
    pub weight: Option<i64>,
    /// How often it is tried, where the gateway says otherwise.
    pub retry: Retry,
    /// As `timeouts.connect`.
    pub connect: Option<Duration>,
    /// As `timeouts.first_byte`.
    pub first_byte: Option<Duration>,
    /// As `timeouts.idle`.
    pub idle: Option<Duration>,
    /// As `timeouts.total`, but from this target's first try.
    pub total: Option<Duration>,
}
