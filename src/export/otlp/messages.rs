//! The messages of OTLP that are written, field by field.
//!
//! Source: opentelemetry-proto 1.11 (`trace.proto`, `metrics.proto`, `common.proto`,
//! `resource.proto`, and the two `…_service.proto`).

use bytes::Bytes;

use super::form::{Encoding, Field, Form, Json, Protobuf};
use super::{Amount, Attributes, Metric, Parent, Point, Resource, Span, Value};

/// `SPAN_KIND_CLIENT`, `STATUS_CODE_ERROR`, `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CLIENT: u32 = 3;
const ERROR: u32 = 2;
const CUMULATIVE: u32 = 2;
/// Flags of a span: it is kept (W3C); whether its parent is remote is known; it is.
const SAMPLED: u32 = 0x001;
const KNOWS_PARENT: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// `ScopeSpans.spans`, in which the spans of a request are written before their batch is.
const SPANS: Field = Field(2, "spans");

/// Something that is written.
pub trait Message {
    /// Writes it.
    fn write<F: Form>(&self, form: &mut F);
}

/// The bytes of a message.
pub fn encode(encoding: Encoding, message: &impl Message) -> Vec<u8> {
    fn written<F: Form>(message: &impl Message) -> Vec<u8> {
        let mut form = F::default();
        message.write(&mut form);
        form.finish()
    }
    match encoding {
        Encoding::Json => written::<Json>(message),
        Encoding::Protobuf => written::<Protobuf>(message),
    }
}

/// The spans of one request, to be sent as a part of a [`SpansRequest`].
pub struct Spans<'a>(pub &'a [Span<'a>]);

impl Message for Spans<'_> {
    fn write<F: Form>(&self, form: &mut F) {
        for span in self.0 {
            form.element(SPANS, |form| write_span(form, span));
        }
    }
}

/// `ExportTraceServiceRequest`.
pub struct SpansRequest<'a> {
    /// Who tells it.
    pub resource: &'a Resource,
    /// Of each request what [`Spans`] wrote.
    pub spans: &'a [Bytes],
}

impl Message for SpansRequest<'_> {
    fn write<F: Form>(&self, form: &mut F) {
        form.whole(|form| {
            form.messages(Field(1, "resourceSpans"), [self], |form, request| {
                form.message(Field(1, "resource"), |form| resource(form, self.resource));
                form.messages(Field(2, "scopeSpans"), [request], |form, request| {
                    form.message(Field(1, "scope"), scope);
                    form.open(SPANS);
                    for spans in request.spans {
                        form.elements(spans);
                    }
                    form.close();
                });
            });
        });
    }
}

/// `ExportMetricsServiceRequest`.
pub struct MetricsRequest<'a> {
    /// Who tells it.
    pub resource: &'a Resource,
    /// What it tells.
    pub metrics: &'a [Metric<'a>],
    /// Since when it counts, in nanoseconds since 1970.
    pub start: u64,
    /// Up to when.
    pub now: u64,
}

impl Message for MetricsRequest<'_> {
    fn write<F: Form>(&self, form: &mut F) {
        form.whole(|form| {
            form.messages(Field(1, "resourceMetrics"), [self], |form, request| {
                form.message(Field(1, "resource"), |form| resource(form, self.resource));
                form.messages(Field(2, "scopeMetrics"), [request], |form, request| {
                    form.message(Field(1, "scope"), scope);
                    form.messages(Field(2, "metrics"), request.metrics, |form, metric| {
                        request.metric(form, metric);
                    });
                });
            });
        });
    }
}

impl MetricsRequest<'_> {
    fn metric<F: Form>(&self, form: &mut F, metric: &Metric<'_>) {
        form.text(Field(1, "name"), metric.name);
        form.text(Field(2, "description"), metric.description);
        form.text(Field(3, "unit"), metric.unit);
        let is_sum = matches!(
            metric.points.first().map(|point| &point.amount),
            Some(Amount::Sum(_))
        );
        let kind = match is_sum {
            true => Field(7, "sum"),
            false => Field(9, "histogram"),
        };
        form.message(kind, |form| {
            form.messages(Field(1, "dataPoints"), &metric.points, |form, point| {
                self.point(form, point);
            });
            form.choice(Field(2, "aggregationTemporality"), CUMULATIVE);
            if is_sum {
                form.flag(Field(3, "isMonotonic"), true);
            }
        });
    }

    fn point<F: Form>(&self, form: &mut F, point: &Point<'_>) {
        form.fixed64(Field(2, "startTimeUnixNano"), self.start);
        form.fixed64(Field(3, "timeUnixNano"), self.now);
        match &point.amount {
            Amount::Sum(sum) => {
                attributes(form, Field(7, "attributes"), &point.attributes);
                form.double(Field(4, "asDouble"), *sum);
            }
            Amount::Histogram {
                sum,
                bounds,
                buckets,
            } => {
                attributes(form, Field(9, "attributes"), &point.attributes);
                form.fixed64(Field(4, "count"), buckets.iter().sum());
                form.double(Field(5, "sum"), *sum);
                form.all_fixed64(Field(6, "bucketCounts"), buckets);
                form.doubles(Field(7, "explicitBounds"), bounds);
            }
        }
    }
}

fn resource<F: Form>(form: &mut F, resource: &Resource) {
    let text = |name: &'static str, text| (name.into(), Value::text(text));
    let all = vec![
        text("service.name", env!("CARGO_PKG_NAME")),
        text("service.version", env!("CARGO_PKG_VERSION")),
        // Two processes must not look like one whose sums jump back and forth.
        text("service.instance.id", &resource.instance),
    ];
    attributes(form, Field(1, "attributes"), &all);
}

fn scope<F: Form>(form: &mut F) {
    form.text(Field(1, "name"), env!("CARGO_PKG_NAME"));
    form.text(Field(2, "version"), env!("CARGO_PKG_VERSION"));
}

fn write_span<F: Form>(form: &mut F, span: &Span<'_>) {
    form.id(Field(1, "traceId"), &span.trace_id);
    form.id(Field(2, "spanId"), &span.span_id);
    let remote = match span.parent {
        Some(Parent::Client(id)) => {
            form.id(Field(4, "parentSpanId"), &id);
            PARENT_IS_REMOTE
        }
        Some(Parent::Request(id)) => {
            form.id(Field(4, "parentSpanId"), &id);
            0
        }
        None => 0,
    };
    let flags = SAMPLED | KNOWS_PARENT | remote;
    form.fixed32(Field(16, "flags"), flags);
    form.text(Field(5, "name"), &span.name);
    form.choice(Field(6, "kind"), CLIENT);
    form.fixed64(Field(7, "startTimeUnixNano"), span.start);
    form.fixed64(Field(8, "endTimeUnixNano"), span.end);
    attributes(form, Field(9, "attributes"), &span.attributes);
    if let Some(error) = span.error {
        form.message(Field(15, "status"), |form| {
            form.text(Field(2, "message"), error);
            form.choice(Field(3, "code"), ERROR);
        });
    }
}

fn attributes<F: Form>(form: &mut F, field: Field, attributes: &Attributes<'_>) {
    form.messages(field, attributes, |form, (name, value)| {
        form.text(Field(1, "key"), name);
        form.message(Field(2, "value"), |form| write_value(form, value));
    });
}

/// `AnyValue`.
fn write_value<F: Form>(form: &mut F, value: &Value<'_>) {
    match value {
        Value::Text(text) => form.text(Field(1, "stringValue"), text),
        Value::Flag(flag) => form.flag(Field(2, "boolValue"), *flag),
        Value::Number(number) => form.number(Field(3, "intValue"), *number),
        Value::Double(number) => form.double(Field(4, "doubleValue"), *number),
    }
}
