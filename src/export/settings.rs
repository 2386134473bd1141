//! Who is told of finished requests, and how fast.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::tls::CaType;

use super::otlp::Encoding;
use super::place::{Headers, Place};

/// Who is told.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Collectors. Each is told of the requests of all gateways.
    pub exporters: Vec<Exporter>,
    /// Files and webhooks.
    pub sinks: Vec<Sink>,
    /// How fast.
    pub pace: Pace,
}

/// An OpenTelemetry collector that is spoken to by OTLP over HTTP.
#[derive(Clone)]
pub struct Exporter {
    /// `https://collector.example:4318`, to which `/v1/traces` and `/v1/metrics` are added, behind
    /// whatever path it has; or one that ends in `/traces`, which is used as it is for traces, the
    /// one that ends in `/metrics` instead for metrics. `http` is permitted: collectors are mostly
    /// on the same machine.
    pub url: String,
    /// Sent with every request, `authorization` among them. Never shown.
    pub headers: Headers,
    /// What bodies look like.
    pub content_type: Encoding,
    /// Send spans.
    pub traces: bool,
    /// Send metrics.
    pub metrics: bool,
    /// Put the beginnings of bodies on spans, where they are offered.
    pub payload: bool,
    /// Authorities to trust instead of the system's.
    pub ca: Option<Arc<CaType>>,
}

/// Where lines go: a JSON object for each finished request.
#[derive(Clone)]
pub enum Sink {
    /// A file that they are added to.
    File(PathBuf),
    /// A URL that batches of them are posted to (`application/x-ndjson`).
    Webhook {
        /// The URL.
        url: String,
        /// Sent with every request. Never shown.
        headers: Headers,
        /// Authorities to trust instead of the system's.
        ca: Option<Arc<CaType>>,
    },
}

/// How fast things are sent, and for how long.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long a batch gathers that is not full. Default 1 s.
    pub gather: Duration,
    /// How often metrics are sent. Default 60 s.
    pub metrics_every: Duration,
    /// How long one exchange may take. Default 10 s.
    pub timeout: Duration,
    /// Before the second try; it doubles with each, up to a minute. Default 1 s.
    pub first_wait: Duration,
    /// How long a batch is tried. Default 5 minutes.
    pub give_up: Duration,
    /// How long [`super::Exports`] may take to end. Default 5 s.
    pub closing: Duration,
    /// Most bytes that wait at each way out. Default 16 MiB.
    pub queue_bytes: usize,
    /// A number from 0 to 1, by chance, for each wait.
    pub chance: fn() -> f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gather: Duration::from_secs(1),
            metrics_every: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            first_wait: Duration::from_secs(1),
            give_up: Duration::from_secs(300),
            closing: Duration::from_secs(5),
            queue_bytes: 16 << 20,
            chance,
        }
    }
}

impl Settings {
    /// What is wrong with it, by path: all that [`super::Exports::start`] would refuse.
    pub fn faults(&self) -> Vec<(String, String)> {
        let exporters = self.exporters.iter().map(|exporter| {
            let Exporter {
                url, headers, ca, ..
            } = exporter;
            Place::new(url, headers, "", ca.clone()).err()
        });
        let sinks = self.sinks.iter().map(|sink| match sink {
            Sink::File(_) => None,
            Sink::Webhook { url, headers, ca } => Place::new(url, headers, "", ca.clone()).err(),
        });
        let exporters = exporters
            .enumerate()
            .map(|(index, fault)| (format!("otel[{index}]"), fault));
        let sinks = sinks
            .enumerate()
            .map(|(index, fault)| (format!("sinks[{index}]"), fault));
        let all = exporters.chain(sinks);
        all.filter_map(|(path, fault)| Some((path, fault?)))
            .collect()
    }
}

fn chance() -> f64 {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    f64::from(random) / f64::from(u32::MAX)
}

impl Exporter {
    /// A collector at `url` that is sent spans, without bodies.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Headers::new(),
            content_type: Encoding::default(),
            traces: true,
            metrics: false,
            payload: false,
            ca: None,
        }
    }
}

/// Neither URLs nor values of headers: keys may stand in both.
impl fmt::Debug for Exporter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter().map(|(name, _)| name.as_str());
        out.debug_struct("Exporter")
            .field("headers", &headers.collect::<Vec<_>>())
            .field("content_type", &self.content_type)
            .field("traces", &self.traces)
            .field("metrics", &self.metrics)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => out.debug_tuple("File").field(path).finish(),
            Self::Webhook { headers, .. } => {
                let headers = headers.iter().map(|(name, _)| name.as_str());
                let headers = headers.collect::<Vec<_>>();
                let mut shown = out.debug_struct("Webhook");
                shown.field("headers", &headers).finish_non_exhaustive()
            }
        }
    }
}
