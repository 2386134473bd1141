//! Every fact about one finished request.
//!
//! Built up while the request runs, published once at its end: metrics and the access log
//! are views of it and cannot disagree. To add a fact, add a field; [`RequestRecord::fields`]
//! takes the record apart exhaustively and refuses to compile until it is written somewhere.

mod fields;
mod lines;
mod seen;
mod spent;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::auth::Consumer;
use crate::cache::key::Key;
use crate::cache::tiers::Tier;
use crate::error::{Failure, Kind};
use crate::export::trace_context::Given;
use crate::gateway::{Gateway, Mounted};
use crate::metadata::Metadata;
use crate::pricing::{Cost, CustomCost};
use crate::routing::verdict::Cause;
use crate::usage::Told;

pub use lines::Lines;
pub use seen::{Begun, Logged, Seen};
pub use spent::Spent;

/// Who is at fault for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The gateway.
    Gateway,
    /// The provider.
    Provider,
    /// The client.
    Client,
}

impl Source {
    /// The label in metrics and the access log. The header `tollgate-error-source` tells who
    /// wrote the answer instead, which is never the client.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Provider => "provider",
            Self::Client => "client",
        }
    }
}

/// What the cache had to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered with a stored answer.
    Hit,
    /// Answered with a stored answer past its time.
    Stale,
    /// Answered with what another request asked for at the same time.
    Coalesced,
    /// Nothing was stored; the provider was asked.
    Miss,
    /// The request asked to go past the cache.
    Bypass,
    /// No client's request: a stored answer past its time is fetched anew.
    Refresh,
}

impl CacheStatus {
    /// The label in metrics and the access log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Coalesced => "coalesced",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Refresh => "refresh",
        }
    }
}

/// Where an answer lay that the provider was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredFrom {
    /// Stored in this tier.
    Stored(Tier),
    /// It was being given to another request.
    Flight,
}

impl AnsweredFrom {
    /// The label in metrics and the access log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored(tier) => tier.name(),
            Self::Flight => "flight",
        }
    }
}

/// Why there was no answer to give but a stored one past its time.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The provider answered with this status.
    Status(u16),
    /// It did not answer, or could not be asked.
    Failure(Failure),
}

impl Fault {
    const fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(*status),
            Self::Failure(_) => None,
        }
    }

    const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Status(_) => None,
            Self::Failure(failure) => Some(failure),
        }
    }
}

/// What the cache knows of one request.
#[derive(Debug, Clone, Default)]
pub struct CacheFacts {
    /// What it had to do with it; `None` where caching is off.
    pub status: Option<CacheStatus>,
    /// Under which key the answer is, or would be, stored.
    pub key: Option<Key>,
    /// Where its answer lay, unless the provider gave it.
    pub from: Option<AnsweredFrom>,
    /// The request to which the provider gave the answer.
    pub source: Option<Uuid>,
    /// What the provider counted for that answer, and for what.
    pub told: Option<Told>,
    /// The JSON pointer to what made it differ from a similar request before.
    pub differs_at: Option<Box<str>>,
    /// What a stored answer past its time stood in for, unless that was purged meanwhile.
    pub stood_in_for: Option<Fault>,
}

/// Which of two targets that were asked at the same time gave the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedged {
    /// The one that was asked first, late as it was.
    First,
    /// The one that was asked because the first was late.
    Second,
}

impl Hedged {
    /// The label in metrics and the access log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// One attempt at a provider that failed before its answer reached the client.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Why.
    pub cause: Cause,
    /// From asking for a connection to the failure.
    pub took: Duration,
    /// Who was asked.
    pub provider: Option<Arc<Mounted>>,
    /// `provider/model`, where a route has several.
    pub target: Option<Box<str>>,
}

/// One finished request. Durations count from the moment its head was read.
#[derive(Debug)]
pub struct RequestRecord {
    /// UUIDv7; `cf-aig-log-id`.
    pub id: Uuid,
    /// When it began.
    pub started: SystemTime,
    /// Which gateway, when the URL named one.
    pub gateway: Option<Arc<Gateway>>,
    /// Which provider, when the URL named one.
    pub provider: Option<Arc<Mounted>>,
    /// The model, when it was seen.
    pub model: Option<Box<str>>,
    /// Whose token the client brought.
    pub consumer: Option<Arc<Consumer>>,
    /// Alias of the stored key that was spent.
    pub key_alias: Option<Box<str>>,
    /// HTTP method.
    pub method: http::Method,
    /// Path as the client sent it. Never the query: keys may stand in it.
    pub path: Box<str>,
    /// HTTP version of the client's request.
    pub version: http::Version,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// Type of the client's body, without parameters, at most 256 bytes.
    pub request_content_type: Option<Box<str>>,
    /// Type of the answer's, as the client received it.
    pub response_content_type: Option<Box<str>>,
    /// The client's `user-agent`, at most 256 bytes.
    pub user_agent: Option<Box<str>>,
    /// The client's `traceparent`.
    pub traceparent: Option<Box<str>>,
    /// The client's `cf-aig-otel-trace-id` and `cf-aig-otel-parent-span-id`.
    pub otel: Given,
    /// The client's `cf-aig-event-id`.
    pub event_id: Option<Box<str>>,
    /// The client's `cf-aig-metadata`.
    pub metadata: Metadata,
    /// Why a budget that it counts for could not be sure of it, in words that follow "because".
    pub unbounded: Option<&'static str>,
    /// What the client says that it costs (`cf-aig-custom-cost`).
    pub custom_cost: Option<Box<CustomCost>>,
    /// Status that the client received; 0 when it received none.
    pub status: u16,
    /// An answer of events or a protocol upgrade.
    pub streamed: bool,
    /// What went wrong in the gateway, or between it and the provider.
    pub failure: Option<Failure>,
    /// The route that served it.
    pub route: Option<Box<str>>,
    /// Which of its targets answered, or was asked last: its place, from 0.
    pub target: usize,
    /// `cf-aig-step`: which of its targets, or of the steps of the universal endpoint, answered or was asked
    /// last: its place, from 0.
    pub step: u32,
    /// Which of two targets gave the answer, where two were asked at the same time.
    pub hedged: Option<Hedged>,
    /// Attempts, at whatever provider.
    pub attempts: u32,
    /// Those of them that were made at providers which another one was asked in place of.
    pub asked_before: Vec<(Arc<Mounted>, u32)>,
    /// Those of them that failed, in order; one whose answer was given all the same is among them.
    pub tried: Vec<Tried>,
    /// The last try went over a connection that was already open.
    pub reused: bool,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// Time spent reading a held body from the client.
    pub reading: Duration,
    /// Time spent waiting for a place at providers.
    pub waited: Duration,
    /// From the start of the first try to the provider's last byte, without waiting for a place.
    pub upstream: Option<Duration>,
    /// To the provider's response head.
    pub first_byte: Option<Duration>,
    /// To the first body byte of a streamed answer.
    pub first_token: Option<Duration>,
    /// What the cache had to do with it.
    pub cache: CacheFacts,
    /// What it took and cost; the ledger fills it in before the record is published.
    pub spent: Spent,
}

/// `rate_limited:12ms,reset:3ms`; where a route has several targets, with the target before each:
/// `openai/gpt-5-mini:rate_limited:12ms`.
pub fn trace(tried: &[Tried]) -> String {
    let told = tried.iter().map(|tried| {
        let target = tried.target.iter().flat_map(|target| [target, ":"]);
        let end = format!("{}:{}ms", tried.cause.name(), tried.took.as_millis());
        target.collect::<String>() + &end
    });
    told.collect::<Vec<_>>().join(",")
}

/// A value in a view of the record.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A whole number.
    Number(u64),
    /// Milliseconds.
    Milliseconds(f64),
    /// Money.
    Dollars(Cost),
    /// Yes or no.
    Flag(bool),
}

/// Whole tokens per second; `None` where there are no tokens, or no time has passed.
pub fn tokens_per_second(tokens: u64, microseconds: u64) -> Option<u64> {
    let scaled = u128::from(tokens) * 1_000_000 + u128::from(microseconds / 2);
    let rate = scaled.checked_div(microseconds.into())?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX)).filter(|_| tokens > 0)
}

impl RequestRecord {
    /// What was refused before its head could be read as a request.
    pub fn refused(kind: Kind) -> Self {
        Self {
            id: Uuid::now_v7(),
            started: SystemTime::now(),
            gateway: None,
            provider: None,
            model: None,
            consumer: None,
            key_alias: None,
            method: http::Method::default(),
            path: "".into(),
            version: http::Version::HTTP_11,
            client: None,
            request_content_type: None,
            response_content_type: None,
            user_agent: None,
            traceparent: None,
            otel: Given::default(),
            event_id: None,
            metadata: Metadata::new(),
            unbounded: None,
            custom_cost: None,
            status: kind.status(),
            streamed: false,
            failure: Some(Failure::new(kind)),
            route: None,
            target: 0,
            step: 0,
            hedged: None,
            attempts: 0,
            asked_before: Vec::new(),
            tried: Vec::new(),
            reused: false,
            request_bytes: 0,
            response_bytes: 0,
            duration: Duration::ZERO,
            reading: Duration::ZERO,
            waited: Duration::ZERO,
            upstream: None,
            first_byte: None,
            first_token: None,
            cache: CacheFacts::default(),
            spent: Spent::default(),
        }
    }

    /// Time spent in the gateway itself: everything but the tries at the provider, the wait for
    /// a place there and the reading of a held body.
    pub fn overhead(&self) -> Duration {
        self.duration
            .saturating_sub(self.upstream.unwrap_or_default())
            .saturating_sub(self.reading)
            .saturating_sub(self.waited)
    }

    /// Output tokens per second: of a stream from its first byte to the end, of other answers over
    /// the time that the provider took. `None` for answers that it was not asked for.
    pub fn output_rate(&self) -> Option<u64> {
        let asked = self.cache.from.is_none();
        let usage = self.spent.usage.as_ref().filter(|_| asked)?;
        // Each in whole microseconds, as the log store has them.
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let taken = match self.first_token {
            Some(first) => micros(self.duration).saturating_sub(micros(first)),
            None => micros(self.upstream?),
        };
        tokens_per_second(usage.output, taken)
    }

    /// `account/gateway`, empty when the URL named none.
    pub fn gateway_label(&self) -> &str {
        self.gateway.as_ref().map_or("", |gateway| &gateway.label)
    }

    /// The provider's slug, empty when the URL named none.
    pub fn provider_label(&self) -> &str {
        self.provider
            .as_ref()
            .map_or("", |mounted| &mounted.provider.slug)
    }

    /// What went wrong, also where the client was spared it: who is at fault, and the kind out
    /// of a closed vocabulary: [`crate::error::Kind::name`], or a class of provider statuses.
    pub fn error(&self) -> Option<(Source, &'static str)> {
        if let Some(failure) = self.failure() {
            return Some((failure.kind.source(), failure.kind.name()));
        }
        let kind = match self.provider_status().unwrap_or(self.status) {
            429 => "provider_429",
            400..=499 => "provider_4xx",
            500.. => "provider_5xx",
            _ => return None,
        };
        Some((Source::Provider, kind))
    }

    /// The client got a good answer, whole.
    pub fn is_success(&self) -> bool {
        (100..400).contains(&self.status) && self.failure.is_none()
    }

    /// The client got all of an answer, be it an error that the gateway or the provider wrote.
    pub fn is_complete(&self) -> bool {
        let own_answer = |failure: &Failure| {
            failure.kind != Kind::ClientGone && failure.kind.status() == self.status
        };
        self.status != 0 && self.failure.as_ref().is_none_or(own_answer)
    }

    /// The failure of the request, or else the one that a stored answer stood in for.
    pub fn failure(&self) -> Option<&Failure> {
        let stood_in_for = self.cache.stood_in_for.as_ref();
        self.failure
            .as_ref()
            .or_else(|| stood_in_for.and_then(Fault::failure))
    }

    /// The rule of ours that refused it.
    pub fn denied_by(&self) -> Option<&str> {
        self.failure.as_ref()?.denied_by.as_deref()
    }

    /// The provider's status that a stored answer stood in for.
    pub fn provider_status(&self) -> Option<u16> {
        self.cache.stood_in_for.as_ref().and_then(Fault::status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_tokens_and_time() {
        for (tokens, micros, rate) in [
            (100, 1_000_000, Some(100)),
            (1, 3_000_000, Some(0)),
            (2, 3_000_000, Some(1)),
            (0, 1, None),
            (1, 0, None),
            (u64::MAX, 1, Some(u64::MAX)),
        ] {
            assert_eq!(tokens_per_second(tokens, micros), rate, "{tokens} {micros}");
        }
    }
}
