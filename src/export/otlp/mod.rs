//! OTLP: what OpenTelemetry's collectors read, version 1.11 of its messages.
//!
//! Each message is described once, in `messages`, field by field with the number that protobuf
//! knows it by and the name that JSON has for it; `form` turns that into bytes of either kind.
//! The few fields that are written need no generated code and no crate: tests read them with
//! `opentelemetry-proto`.

mod answer;
mod form;
mod messages;

use std::borrow::Cow;

use super::trace_context::{SpanId, TraceId};
pub use answer::Partial;
pub use form::Encoding;
pub use messages::{MetricsRequest, Spans, SpansRequest, encode};

/// The largest value of an attribute in an answer's or a request's own words, in bytes.
pub const MOST_TEXT: usize = 1024;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Any other.
    Double(f64),
}

/// Names and values; each name once, never an empty one.
pub type Attributes<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// One span: always of kind `CLIENT`.
#[derive(Debug, Clone)]
pub struct Span<'a> {
    /// The trace.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// What it belongs under.
    pub parent: Option<Parent>,
    /// What was done, in a few words.
    pub name: String,
    /// In nanoseconds since 1970.
    pub start: u64,
    /// In nanoseconds since 1970.
    pub end: u64,
    /// What is known of it.
    pub attributes: Attributes<'a>,
    /// What went wrong.
    pub error: Option<&'static str>,
}

/// What a span belongs under.
#[derive(Debug, Clone, Copy)]
pub enum Parent {
    /// A span of the client's.
    Client(SpanId),
    /// Another span of the request.
    Request(SpanId),
}

/// One metric with its points.
#[derive(Debug)]
pub struct Metric<'a> {
    /// Its name.
    pub name: &'static str,
    /// What it tells.
    pub description: &'static str,
    /// Its unit, by UCUM.
    pub unit: &'static str,
    /// The points: all histograms, or all sums.
    pub points: Vec<Point<'a>>,
}

/// What one series of a metric has come to, since the start.
#[derive(Debug)]
pub struct Point<'a> {
    /// Of what.
    pub attributes: Attributes<'a>,
    /// How much.
    pub amount: Amount<'a>,
}

/// How much.
#[derive(Debug)]
pub enum Amount<'a> {
    /// A sum that only grows.
    Sum(f64),
    /// How the values are spread.
    Histogram {
        /// Of all values.
        sum: f64,
        /// Upper ends of all buckets but the last, which has none.
        bounds: &'static [f64],
        /// Values in each bucket: one more than there are bounds.
        buckets: &'a [u64],
    },
}

/// Who tells it.
#[derive(Debug)]
pub struct Resource {
    /// The process, among others of the same service.
    pub instance: String,
}

impl<'a> Value<'a> {
    /// A count; beyond 2⁶³ the largest there is.
    pub fn count(count: u64) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Text of at most [`MOST_TEXT`] bytes, whole characters.
    pub fn text(text: &'a str) -> Self {
        Self::Text(text[..text.floor_char_boundary(MOST_TEXT)].into())
    }
}
