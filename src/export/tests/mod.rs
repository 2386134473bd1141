//! Exports against a fake collector on a real socket. What was sent is read with
//! `opentelemetry-proto`, whose code is generated from OTLP's own files.

mod collector;
mod failing;
mod https;
mod metrics;
mod sinks;
mod speed;
mod traces;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::*;
use crate::config::{load, resolve};
use crate::gateway::Gateway;
use crate::metadata;
use crate::pricing::{Cost, CostSource};
use crate::record::{CacheFacts, CacheStatus, Spent, Tried};
use crate::routing::verdict::Cause;
use crate::telemetry::access::tests::record;
use crate::usage::{ServiceTier, Usage};
use collector::{Collector, Received, Reply};

/// Long enough for a machine with much to do; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);

/// Batches gather until they are flushed, and tries follow each other at once.
fn pace() -> Pace {
    Pace {
        gather: LONG,
        metrics_every: LONG,
        first_wait: Duration::from_millis(1),
        chance: || 0.0,
        ..Pace::default()
    }
}

fn start_with(exporters: Vec<Exporter>, sinks: Vec<Sink>, pace: Pace) -> Exports {
    let settings = Settings {
        exporters,
        sinks,
        pace,
    };
    Exports::start(settings, dns()).unwrap()
}

fn start(exporter: Exporter) -> Exports {
    start_with(vec![exporter], vec![], pace())
}

fn dns() -> Arc<Dns> {
    Arc::new(Dns::new(&[]).unwrap())
}

fn exporter(collector: &Collector, content_type: Encoding) -> Exporter {
    Exporter {
        content_type,
        ..Exporter::new(collector.url())
    }
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

fn gateway() -> Arc<Gateway> {
    let text = "accounts: { acc: { gateways: { gw: {} } } }";
    let config = load::parse(text, &|_| None).unwrap();
    let resolved = resolve::resolve(&config, ([127, 0, 0, 1], 1).into()).unwrap();
    Arc::clone(resolved.snapshot.gateway("acc", "gw").unwrap())
}

/// An answer of OpenAI's that took two tries, of which all is known.
fn rich(gateway: &Arc<Gateway>) -> RequestRecord {
    let openai = &gateway.providers["openai"];
    let usage = Usage {
        input: 100,
        output: 20,
        cached_input: 60,
        cache_write: 5,
        reasoning: 7,
        ..Usage::default()
    };
    RequestRecord {
        id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        gateway: Some(Arc::clone(gateway)),
        provider: Some(Arc::clone(openai)),
        model: Some("gpt-5-mini".into()),
        consumer: None,
        key_alias: Some("default".into()),
        path: "/v1/acc/gw/openai/chat/completions".into(),
        route: Some("cheap".into()),
        streamed: true,
        metadata: vec![
            (
                "team".into(),
                metadata::Value::Text("search \"x\"\n".into()),
            ),
            ("n".into(), metadata::Value::Number(7.into())),
            ("beta".into(), metadata::Value::Flag(true)),
            (
                "gen_ai.usage.cost".into(),
                metadata::Value::Text("0".into()),
            ),
        ],
        attempts: 2,
        tried: vec![Tried {
            cause: Cause::Status(503),
            took: Duration::from_millis(30),
            provider: Some(Arc::clone(openai)),
            target: Some("openai/gpt-5".into()),
        }],
        duration: Duration::from_millis(250),
        upstream: Some(Duration::from_millis(240)),
        first_token: Some(Duration::from_millis(80)),
        cache: CacheFacts {
            status: Some(CacheStatus::Miss),
            ..CacheFacts::default()
        },
        spent: Spent {
            usage: Some(usage),
            is_estimate: true,
            untold: None,
            tier: ServiceTier::Flex,
            model: Some("gpt-5-mini-2025-08-07".into()),
            cost: Some(Cost(1_250_000_000)),
            source: Some(CostSource::Catalogue),
            saved: None,
        },
        ..record()
    }
}

/// A request that fails for want of a provider.
fn plain(number: u128) -> RequestRecord {
    RequestRecord {
        id: Uuid::from_u128(number),
        ..record()
    }
}

fn read<T: Message + Default + DeserializeOwned>(received: &Received) -> T {
    match received.header("content-type") {
        Some("application/json") => serde_json::from_slice(&received.body).unwrap(),
        Some("application/x-protobuf") => T::decode(&received.body[..]).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn spans(received: &Received) -> Vec<Span> {
    let request: ExportTraceServiceRequest = read(received);
    let [resource] = &request.resource_spans[..] else {
        panic!("{request:?}");
    };
    let [scope] = &resource.scope_spans[..] else {
        panic!("{request:?}");
    };
    scope.spans.clone()
}

/// The request ids of all spans that are requests' own.
fn requests(received: &Received) -> Vec<u128> {
    let ids = spans(received);
    let ids = ids.iter().filter_map(|span| {
        let id = text(&span.attributes, "tollgate.request.id")?;
        Some(id.parse::<Uuid>().unwrap().as_u128())
    });
    ids.collect()
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a any_value::Value> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == name);
    let value = found.next()?.value.as_ref()?.value.as_ref();
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match value(attributes, name)? {
        any_value::Value::StringValue(text) => Some(text),
        other => panic!("{name}: {other:?}"),
    }
}

fn pieces(texts: &[&'static str]) -> Option<Vec<Bytes>> {
    Some(texts.iter().map(|text| Bytes::from(*text)).collect())
}
