//! Requests and their tries at providers.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::register::Register;
use super::{DURATIONS, Metrics, OVERHEADS};
use crate::gateway::Mounted;
use crate::record::{RequestRecord, Tried};

/// The metrics of requests.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    upstream: HistogramVec,
    overhead: HistogramVec,
    first_token: HistogramVec,
    request_bytes: IntCounterVec,
    response_bytes: IntCounterVec,
    attempts: IntCounterVec,
    failed_attempts: IntCounterVec,
    denials: IntCounterVec,
}

/// The series of one provider in one gateway, looked up once.
#[derive(Debug)]
pub struct Series {
    ok: IntCounter,
    duration: Histogram,
    upstream: Histogram,
    overhead: Histogram,
    first_token: Histogram,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    attempts: IntCounter,
}

impl RequestMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let by_provider = ["gateway", "provider"];
        let counter = |name, help, labels: &[&str]| register.counter(name, help, labels);
        let histogram = |name, help, buckets| register.histogram(name, help, &by_provider, buckets);
        Ok(Self {
            requests: counter(
                "tollgate_requests_total",
                "Requests by the status their client received; status 0: it received none",
                &["gateway", "provider", "status"],
            )?,
            errors: counter(
                "tollgate_errors_total",
                "Requests that failed, or were given a stored answer instead, by who is at fault (client, gateway or provider) and kind",
                &["gateway", "provider", "source", "kind"],
            )?,
            duration: histogram(
                "tollgate_request_duration_seconds",
                "From the request's head to the end of the answer",
                &DURATIONS,
            )?,
            upstream: histogram(
                "tollgate_upstream_duration_seconds",
                "From the start of the first try at the provider to its last byte",
                &DURATIONS,
            )?,
            overhead: histogram(
                "tollgate_gateway_overhead_seconds",
                "Time spent in the gateway itself",
                &OVERHEADS,
            )?,
            first_token: histogram(
                "tollgate_time_to_first_token_seconds",
                "From the request's head to the first byte of a streamed answer",
                &DURATIONS,
            )?,
            request_bytes: counter(
                "tollgate_request_bytes_total",
                "Body bytes received from clients",
                &by_provider,
            )?,
            response_bytes: counter(
                "tollgate_response_bytes_total",
                "Body bytes sent to clients",
                &by_provider,
            )?,
            attempts: counter(
                "tollgate_upstream_attempts_total",
                "Tries at providers",
                &by_provider,
            )?,
            failed_attempts: counter(
                "tollgate_upstream_attempts_failed_total",
                "Tries at providers that failed before the client had anything of an answer, by cause",
                &["gateway", "provider", "cause"],
            )?,
            denials: counter(
                "tollgate_denials_total",
                "Requests that a rule of ours refused, by the rule's id; `key` for all rules of API keys",
                &["gateway", "rule"],
            )?,
        })
    }
}

impl Metrics {
    /// The series of one provider in one gateway.
    pub fn series(&self, gateway: &str, provider: &str) -> Series {
        let labels = [gateway, provider];
        Series {
            ok: self
                .requests
                .requests
                .with_label_values(&[gateway, provider, "200"]),
            duration: self.requests.duration.with_label_values(&labels),
            upstream: self.requests.upstream.with_label_values(&labels),
            overhead: self.requests.overhead.with_label_values(&labels),
            first_token: self.requests.first_token.with_label_values(&labels),
            request_bytes: self.requests.request_bytes.with_label_values(&labels),
            response_bytes: self.requests.response_bytes.with_label_values(&labels),
            attempts: self.requests.attempts.with_label_values(&labels),
        }
    }

    /// Counts a finished request.
    pub fn publish(&self, record: &RequestRecord) {
        let (gateway, provider) = (record.gateway_label(), record.provider_label());
        let unmounted;
        let series = match &record.provider {
            Some(mounted) => mounted
                .series
                .get_or_init(|| self.series(gateway, provider)),
            None => {
                unmounted = self.series(gateway, provider);
                &unmounted
            }
        };
        series.observe(record);
        self.observe_attempts(gateway, &record.asked_before, &record.tried);
        self.observe_route(record);
        self.observe_cache(record);
        self.observe_spending(record);
        if record.status == 200 {
            series.ok.inc();
        } else {
            let mut digits = [0; 3];
            let status = status_label(record.status, &mut digits);
            self.requests
                .requests
                .with_label_values(&[gateway, provider, status])
                .inc();
        }
        if let Some(rule) = record.denied_by() {
            // `key/<rule>`: keys are many, and make their rules' names.
            let rule = rule.split('/').next().unwrap_or(rule);
            let labels = [gateway, rule];
            self.requests.denials.with_label_values(&labels).inc();
        }
        if let Some((source, kind)) = record.error() {
            self.requests
                .errors
                .with_label_values(&[gateway, provider, source.name(), kind])
                .inc();
        }
    }

    /// Counts attempts where they were made, not where the answer came from: those of providers in
    /// whose place another one was asked, and all that failed.
    pub fn observe_attempts(
        &self,
        gateway: &str,
        asked_before: &[(Arc<Mounted>, u32)],
        tried: &[Tried],
    ) {
        for (mounted, attempts) in asked_before {
            let labels = [gateway, &mounted.provider.slug];
            let series = self.requests.attempts.with_label_values(&labels);
            series.inc_by((*attempts).into());
        }
        for tried in tried {
            let asked = tried.provider.as_ref();
            let asked = asked.map_or("", |mounted| &mounted.provider.slug);
            let labels = [gateway, asked, tried.cause.name()];
            self.requests
                .failed_attempts
                .with_label_values(&labels)
                .inc();
        }
    }
}

impl Series {
    fn observe(&self, record: &RequestRecord) {
        self.duration.observe(record.duration.as_secs_f64());
        self.overhead.observe(record.overhead().as_secs_f64());
        if let Some(upstream) = record.upstream {
            self.upstream.observe(upstream.as_secs_f64());
        }
        if let Some(first_token) = record.first_token {
            self.first_token.observe(first_token.as_secs_f64());
        }
        self.request_bytes.inc_by(record.request_bytes);
        self.response_bytes.inc_by(record.response_bytes);
        let before = record.asked_before.iter().map(|(_, attempts)| attempts);
        let before: u32 = before.sum();
        let own = record.attempts.saturating_sub(before);
        self.attempts.inc_by(own.into());
    }
}

/// The status as text; what no HTTP status can be is `other`, so that the set is bounded.
fn status_label(status: u16, digits: &mut [u8; 3]) -> &str {
    match status {
        0 => "0",
        100..=599 => {
            let [hundreds, tens, ones] = [status / 100, status / 10 % 10, status % 10];
            *digits = [hundreds, tens, ones].map(|digit| b'0' + digit as u8);
            std::str::from_utf8(digits).unwrap_or("other")
        }
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_bounded_labels() {
        let label = |status| status_label(status, &mut [0; 3]).to_owned();
        assert_eq!(
            [label(0), label(200), label(429), label(599)],
            ["0", "200", "429", "599"]
        );
        assert_eq!(
            [label(600), label(99), label(65535)],
            ["other", "other", "other"]
        );
    }
}
