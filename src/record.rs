//! Every fact about one finished request.
//!
//! Built up while the request runs, published once at its end: metrics and the access log
//! are views of it and cannot disagree. To add a fact, add a field; [`RequestRecord::fields`]
//! takes the record apart exhaustively and refuses to compile until it is written somewhere.

mod lines;
mod seen;
mod spent;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::cache::key::Key;
use crate::cache::tiers::Tier;
use crate::error::{Failure, Kind};
use crate::export::trace_context::Given;
use crate::gateway::{Gateway, Mounted};
use crate::metadata::{self, Metadata};
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

impl RequestRecord {
    /// What was refused before its head could be read as a request.
    pub fn refused(kind: Kind) -> Self {
        Self {
            id: Uuid::now_v7(),
            started: SystemTime::now(),
            gateway: None,
            provider: None,
            model: None,
            key_alias: None,
            method: http::Method::default(),
            path: "".into(),
            version: http::Version::HTTP_11,
            client: None,
            user_agent: None,
            traceparent: None,
            otel: Given::default(),
            event_id: None,
            metadata: Metadata::new(),
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

    /// The provider's status that a stored answer stood in for.
    pub fn provider_status(&self) -> Option<u16> {
        self.cache.stood_in_for.as_ref().and_then(Fault::status)
    }

    /// All facts by name, in the order of the access log. Absent ones are left out.
    pub fn fields(&self, mut write: impl FnMut(&'static str, Value<'_>)) {
        let Self {
            id,
            started: _, // the log line has a time stamp of its own
            gateway: _, // written as a label
            provider: _,
            model,
            key_alias,
            method,
            path,
            version,
            client,
            user_agent,
            traceparent,
            otel: Given { trace_id, parent },
            event_id,
            metadata,
            custom_cost: _, // the cost itself is written, and its source
            status,
            streamed,
            failure: _, // written as the error and its detail
            route,
            target: _, // a label in metrics; in the log it is the step, but for a route within a step
            step,
            hedged,
            attempts,
            asked_before: _, // told apart in metrics; the log has them in `tried`
            tried,
            reused,
            request_bytes,
            response_bytes,
            duration,
            reading: _, // taken off the overhead
            waited,
            upstream,
            first_byte,
            first_token,
            cache:
                CacheFacts {
                    status: cache,
                    key: cache_key,
                    from: cache_tier,
                    source: cache_source,
                    told: _, // taken over by `spent`
                    differs_at,
                    stood_in_for: _, // written as the error, with its status or its detail
                },
            spent,
        } = self;
        let text = |text: &str| Value::Text(Cow::Owned(text.to_owned()));
        let milliseconds = |duration: Duration| Value::Milliseconds(duration.as_secs_f64() * 1e3);
        write("id", Value::Text(id.to_string().into()));
        write("gateway", text(self.gateway_label()));
        write("provider", text(self.provider_label()));
        model
            .as_deref()
            .inspect(|model| write("model", text(model)));
        key_alias
            .as_deref()
            .inspect(|alias| write("key", text(alias)));
        write("method", text(method.as_str()));
        write("path", text(path));
        write("http", Value::Text(format!("{version:?}").into()));
        client.inspect(|client| write("client", Value::Text(client.to_string().into())));
        write("status", Value::Number((*status).into()));
        write("streamed", Value::Flag(*streamed));
        self.error().inspect(|(source, kind)| {
            write("error_source", text(source.name()));
            write("error", text(kind));
        });
        self.provider_status()
            .inspect(|status| write("provider_status", Value::Number((*status).into())));
        self.failure()
            .inspect(|failure| write("detail", Value::Text(failure.to_string().into())));
        route
            .as_deref()
            .inspect(|route| write("route", text(route)));
        if route.is_some() || *step > 0 {
            write("step", Value::Number((*step).into()));
        }
        hedged.inspect(|hedged| write("hedged", text(hedged.name())));
        write("attempts", Value::Number((*attempts).into()));
        if !tried.is_empty() {
            write("tried", Value::Text(trace(tried).into()));
        }
        write("reused", Value::Flag(*reused));
        write("bytes_in", Value::Number(*request_bytes));
        write("bytes_out", Value::Number(*response_bytes));
        write("duration_ms", milliseconds(*duration));
        if !waited.is_zero() {
            write("waited_ms", milliseconds(*waited));
        }
        upstream.inspect(|upstream| write("upstream_ms", milliseconds(*upstream)));
        write("overhead_ms", milliseconds(self.overhead()));
        first_byte.inspect(|first| write("first_byte_ms", milliseconds(*first)));
        first_token.inspect(|first| write("ttft_ms", milliseconds(*first)));
        cache.inspect(|status| write("cache", text(status.name())));
        cache_tier.inspect(|tier| write("cache_tier", text(tier.name())));
        cache_key.inspect(|key| write("cache_key", Value::Text(key.hex().into())));
        cache_source.inspect(|id| write("cache_source", Value::Text(id.to_string().into())));
        spent.fields(&mut write);
        differs_at
            .as_deref()
            .inspect(|pointer| write("cache_differs_at", text(pointer)));
        user_agent
            .as_deref()
            .inspect(|agent| write("user_agent", text(agent)));
        traceparent
            .as_deref()
            .inspect(|trace| write("traceparent", text(trace)));
        let hex = |id: u128, digits| Value::Text(format!("{id:0digits$x}").into());
        trace_id.inspect(|id| write("otel_trace_id", hex(u128::from_be_bytes(*id), 32)));
        parent.inspect(|id| {
            write(
                "otel_parent_span_id",
                hex(u64::from_be_bytes(*id).into(), 16),
            )
        });
        event_id
            .as_deref()
            .inspect(|id| write("event_id", text(id)));
        if !metadata.is_empty() {
            write("metadata", Value::Text(metadata::to_json(metadata).into()));
        }
    }
}
