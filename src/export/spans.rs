//! A finished request as spans: one for itself, one below it for each attempt that failed.
//!
//! Its own span is what OpenTelemetry's GenAI conventions call an inference span: of kind
//! `CLIENT`, named `{operation} {model}`, covering all tries. It is no `SERVER` span, though it
//! covers what a server did: tools that show calls of models look for the client's. The spans of
//! attempts have no `gen_ai.operation.name`, so that nothing is counted twice.
//!
//! Leaves out addresses (the client's and the provider's) and the detail of errors, which may name
//! one: a collector may belong to somebody else.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::CONTENT_ENCODING;

use super::otlp::{Attributes, Parent, Span, Value};
use super::trace_context::{TraceContext, span_id};
use super::words;
use crate::logs::entry::Payload;
use crate::metadata;
use crate::pricing::Cost;
use crate::record::{Lines, RequestRecord, Tried};
use crate::routing::verdict::Cause;
use crate::usage::{ServiceTier, Usage};

/// Most of a body that is told, in bytes.
pub const MOST_BODY: usize = 64 << 10;
/// Most attempts of one request that are told.
const MOST_ATTEMPTS: usize = 64;
/// Names that mean something to whoever reads a span; a client's metadata may not forge them.
const RESERVED: [&str; 9] = [
    "gen_ai.",
    "tollgate.",
    "error.",
    "http.",
    "url.",
    "server.",
    "service.",
    "otel.",
    "cf.",
];
/// What stands before the name of metadata that would be one of these, or none.
const APART: &str = "tollgate.metadata.";

/// The spans of a request, its own first.
pub fn of(record: &RequestRecord) -> Vec<Span<'_>> {
    let context = TraceContext::of(record);
    let own = Span {
        trace_id: context.trace_id,
        span_id: span_id(record.id, 0),
        parent: context.parent.map(Parent::Client),
        name: name(record),
        start: nanoseconds(record.started),
        end: nanoseconds(record.started + record.duration),
        attributes: attributes(record),
        error: record.error().map(|(_, kind)| kind),
    };
    let tried = record.tried.iter().take(MOST_ATTEMPTS);
    let mut spans = Vec::with_capacity(1 + tried.len());
    // The record knows how long attempts took, not when they began: they follow each other here,
    // without the waits between them, and never outlast the request.
    let mut began = own.start.saturating_add(span_of(record.reading));
    let attempts: Vec<_> = (1..)
        .zip(tried)
        .map(|(number, tried)| {
            let start = began.min(own.end);
            began = start.saturating_add(span_of(tried.took));
            Span {
                trace_id: context.trace_id,
                span_id: span_id(record.id, number),
                parent: Some(Parent::Request(own.span_id)),
                name: format!("attempt {}", asked(tried)).trim_end().to_owned(),
                start,
                end: began.min(own.end),
                attributes: attempt_attributes(number, tried),
                error: Some(tried.cause.name()),
            }
        })
        .collect();
    spans.push(own);
    spans.extend(attempts);
    spans
}

/// The bodies, to be added to a request's own span where they may be told. Ones that are encoded
/// or that are no text are left out; of a long one there is its beginning.
pub fn bodies(payload: &Payload) -> Attributes<'static> {
    let request = body(&payload.request_head, payload.request.as_deref());
    let response = body(&payload.response_head, payload.response.as_deref());
    let named = [
        ("gen_ai.prompt_json", request),
        ("gen_ai.completion_json", response),
    ];
    named
        .into_iter()
        .filter_map(|(name, body)| Some((name.into(), Value::Text(body?.into()))))
        .collect()
}

fn body(head: &Lines, pieces: Option<&[bytes::Bytes]>) -> Option<String> {
    let coding = head.get(&CONTENT_ENCODING).unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        return None;
    }
    let mut bytes = Vec::new();
    for piece in pieces? {
        let room = MOST_BODY - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let whole = match std::str::from_utf8(&bytes) {
        Ok(_) => bytes.len(),
        // A character that the end cuts in two.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return None,
    };
    bytes.truncate(whole);
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

/// `{operation} {model}`.
fn name(record: &RequestRecord) -> String {
    let operation = words::operation(&record.path);
    match record.model.as_deref() {
        Some(model) => format!("{operation} {model}"),
        None => operation.to_owned(),
    }
}

/// Nanoseconds since 1970, which end in 2554.
pub fn nanoseconds(time: SystemTime) -> u64 {
    span_of(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn span_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Attributes under way.
#[derive(Default)]
struct Told<'a>(Attributes<'a>);

impl<'a> Told<'a> {
    fn add(&mut self, name: &'static str, value: Value<'a>) {
        self.0.push((name.into(), value));
    }

    fn text(&mut self, name: &'static str, text: Option<&'a str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.add(name, Value::text(text));
        }
    }

    fn count(&mut self, name: &'static str, count: u64) {
        self.add(name, Value::count(count));
    }

    fn flag(&mut self, name: &'static str, is_so: bool) {
        if is_so {
            self.add(name, Value::Flag(true));
        }
    }

    fn milliseconds(&mut self, name: &'static str, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.add(name, Value::Double(duration.as_secs_f64() * 1e3));
        }
    }

    fn dollars(&mut self, name: &'static str, cost: Option<Cost>) {
        if let Some(cost) = cost {
            self.add(name, Value::Double(cost.as_dollars()));
        }
    }
}

fn attributes(record: &RequestRecord) -> Attributes<'_> {
    let mut told = Told(Vec::with_capacity(40));
    model(&mut told, record);
    http(&mut told, record);
    if let Some(usage) = &record.spent.usage {
        tokens(&mut told, usage);
    }
    money(&mut told, record);
    gateway(&mut told, record);
    cache(&mut told, record);
    times(&mut told, record);
    for (key, value) in &record.metadata {
        told.0.push((metadata_name(key), metadata_value(value)));
    }
    told.0
}

fn model<'a>(told: &mut Told<'a>, record: &'a RequestRecord) {
    let slug = record.provider_label();
    let operation = words::operation(&record.path);
    told.text("gen_ai.operation.name", Some(operation));
    told.text("gen_ai.provider.name", Some(words::provider(slug)));
    // Cloudflare's name for it.
    told.text("gen_ai.model.provider", Some(slug));
    told.text("gen_ai.request.model", record.model.as_deref());
    told.text("gen_ai.response.model", record.spent.model.as_deref());
    told.flag("gen_ai.request.stream", record.streamed);
    if let Some(first) = record.first_token {
        let seconds = Value::Double(first.as_secs_f64());
        told.add("gen_ai.response.time_to_first_chunk", seconds);
    }
}

fn http<'a>(told: &mut Told<'a>, record: &'a RequestRecord) {
    told.text("http.request.method", Some(record.method.as_str()));
    told.text("url.path", Some(&record.path));
    // 0: the client received none.
    if record.status > 0 {
        told.count("http.response.status_code", record.status.into());
    }
    let error = record.error();
    told.text("error.type", error.map(|(_, kind)| kind));
    told.text(
        "tollgate.error.source",
        error.map(|(source, _)| source.name()),
    );
}

/// The conventions count as [`Usage`] does: parts are contained in their whole. Parts of nothing
/// are left out.
fn tokens(told: &mut Told<'_>, usage: &Usage) {
    told.count("gen_ai.usage.input_tokens", usage.input);
    told.count("gen_ai.usage.output_tokens", usage.output);
    for (name, count) in [
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_input),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            usage.cache_write,
        ),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
        ("gen_ai.usage.audio.input_tokens", usage.input_audio),
        ("gen_ai.usage.audio.output_tokens", usage.output_audio),
        ("gen_ai.usage.image.input_tokens", usage.input_image),
        ("tollgate.usage.image.output_tokens", usage.output_image),
        ("tollgate.usage.web_searches", usage.web_searches),
    ] {
        if count > 0 {
            told.count(name, count);
        }
    }
}

fn money<'a>(told: &mut Told<'a>, record: &'a RequestRecord) {
    let spent = &record.spent;
    // Cloudflare's name for it.
    told.dollars("gen_ai.usage.cost", spent.cost);
    told.dollars("tollgate.cost.saved", spent.saved);
    let source = spent.source.map(|source| source.name());
    told.text("tollgate.cost.source", source);
    told.flag("tollgate.usage.estimated", spent.is_estimate);
    let tier = Some(spent.tier).filter(|tier| *tier != ServiceTier::Standard);
    told.text("tollgate.service_tier", tier.map(ServiceTier::name));
}

fn gateway<'a>(told: &mut Told<'a>, record: &'a RequestRecord) {
    let id = Cow::Owned(record.id.to_string());
    told.add("tollgate.request.id", Value::Text(id));
    told.text("tollgate.gateway", Some(record.gateway_label()));
    if let Some(consumer) = &record.consumer {
        told.text("tollgate.consumer", Some(&consumer.name));
        told.text("tollgate.owner", consumer.owner.as_deref());
    }
    told.text("tollgate.key.alias", record.key_alias.as_deref());
    told.text("tollgate.event_id", record.event_id.as_deref());
    told.text("tollgate.route", record.route.as_deref());
    if record.route.is_some() || record.step > 0 {
        told.count("tollgate.step", record.step.into());
    }
    told.text("tollgate.hedged", record.hedged.map(|hedged| hedged.name()));
    told.count("tollgate.attempts", record.attempts.into());
}

fn cache<'a>(told: &mut Told<'a>, record: &'a RequestRecord) {
    let cache = &record.cache;
    told.text(
        "tollgate.cache.status",
        cache.status.map(|status| status.name()),
    );
    told.text("tollgate.cache.tier", cache.from.map(|from| from.name()));
    if let Some(source) = cache.source {
        let id = Value::Text(source.to_string().into());
        told.add("tollgate.cache.source", id);
    }
}

fn times(told: &mut Told<'_>, record: &RequestRecord) {
    let waited = Some(record.waited).filter(|waited| !waited.is_zero());
    told.milliseconds("tollgate.overhead_ms", Some(record.overhead()));
    told.milliseconds("tollgate.upstream_ms", record.upstream);
    told.milliseconds("tollgate.waited_ms", waited);
    told.milliseconds("tollgate.first_byte_ms", record.first_byte);
    told.milliseconds("tollgate.ttft_ms", record.first_token);
    if let Some(rate) = record.output_rate() {
        told.count("tollgate.output_tokens_per_second", rate);
    }
}

/// As the client calls it, but never one of our names, nor none: names are there once.
fn metadata_name(key: &str) -> Cow<'_, str> {
    let is_ours = RESERVED.iter().any(|reserved| key.starts_with(reserved));
    match key.is_empty() || is_ours {
        true => format!("{APART}{key}").into(),
        false => key.into(),
    }
}

/// As long as the client's header may be.
fn metadata_value(value: &metadata::Value) -> Value<'_> {
    match value {
        metadata::Value::Flag(flag) => Value::Flag(*flag),
        metadata::Value::Text(text) => Value::Text((&**text).into()),
        metadata::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Number(whole),
            (None, Some(double)) if double.is_finite() => Value::Double(double),
            _ => Value::Text(number.to_string().into()),
        },
    }
}

/// `provider/model` where a route has several, else the provider.
fn asked(tried: &Tried) -> &str {
    let slug = || {
        tried
            .provider
            .as_ref()
            .map(|mounted| &*mounted.provider.slug)
    };
    tried.target.as_deref().or_else(slug).unwrap_or_default()
}

fn attempt_attributes(number: u32, tried: &Tried) -> Attributes<'_> {
    let mut told = Told(Vec::with_capacity(5));
    told.count("tollgate.attempt.number", number.into());
    told.text("tollgate.attempt.target", Some(asked(tried)));
    told.text("error.type", Some(tried.cause.name()));
    if let Cause::Status(status) = tried.cause {
        told.count("http.response.status_code", status.into());
    }
    // The span's own length may have been cut to the request's.
    told.milliseconds("tollgate.attempt.duration_ms", Some(tried.took));
    told.0
}
