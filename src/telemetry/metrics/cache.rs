//! The cache.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::register::Register;
use super::{Metrics, OVERHEADS};
use crate::cache::tiers::Tier;
use crate::record::RequestRecord;

/// The metrics of the cache.
#[derive(Debug)]
pub(super) struct CacheMetrics {
    requests: IntCounterVec,
    serve: HistogramVec,
    stored: IntCounterVec,
    stored_bytes: IntCounterVec,
    bytes: IntGaugeVec,
    evicted: IntCounterVec,
    errors: IntCounterVec,
    disk_owned: IntGauge,
    flights: IntGauge,
}

impl CacheMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: register.counter(
                "tollgate_cache_requests_total",
                "Requests by what the cache had to do with them: hit, stale, coalesced, miss, bypass, refresh",
                &["gateway", "provider", "status"],
            )?,
            serve: register.histogram(
                "tollgate_cache_serve_seconds",
                "From the request's head to the first byte of an answer out of the cache",
                &["tier"],
                &OVERHEADS,
            )?,
            stored: register.counter(
                "tollgate_cache_stored_total",
                "Answers written to a tier",
                &["tier"],
            )?,
            stored_bytes: register.counter(
                "tollgate_cache_stored_bytes_total",
                "Bytes of answers written to a tier",
                &["tier"],
            )?,
            bytes: register.gauges("tollgate_cache_bytes", "Bytes of stored answers", &["tier"])?,
            evicted: register.counter(
                "tollgate_cache_evictions_total",
                "Answers that made room for others",
                &["tier"],
            )?,
            errors: register.counter(
                "tollgate_cache_errors_total",
                "Faults of the store; each was a miss or an answer that was not stored",
                &["kind"],
            )?,
            disk_owned: register.gauge(
                "tollgate_cache_disk_owned",
                "1 while this process has the disk tier; a predecessor may still have it",
            )?,
            flights: register.gauge(
                "tollgate_cache_flights",
                "Calls to providers whose answers are recorded, and answers about to be stored",
            )?,
        })
    }
}

impl Metrics {
    pub(super) fn observe_cache(&self, record: &RequestRecord) {
        let Some(status) = record.cache.status else {
            return;
        };
        let labels = [
            record.gateway_label(),
            record.provider_label(),
            status.name(),
        ];
        self.cache.requests.with_label_values(&labels).inc();
        if let (Some(tier), Some(first)) = (record.cache.from, record.first_byte) {
            self.cache
                .serve
                .with_label_values(&[tier.name()])
                .observe(first.as_secs_f64());
        }
    }

    /// Counts an answer written to a tier.
    pub fn cache_stored(&self, tier: Tier, bytes: u64) {
        self.cache.stored.with_label_values(&[tier.name()]).inc();
        self.cache
            .stored_bytes
            .with_label_values(&[tier.name()])
            .inc_by(bytes);
    }

    /// The bytes of stored answers in a tier.
    pub fn cache_bytes(&self, tier: Tier, bytes: u64) {
        self.cache
            .bytes
            .with_label_values(&[tier.name()])
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts an answer that made room for others.
    pub fn cache_evicted(&self, tier: Tier) {
        self.cache.evicted.with_label_values(&[tier.name()]).inc();
    }

    /// Counts a fault of the store.
    pub fn cache_error(&self, kind: &'static str) {
        self.cache.errors.with_label_values(&[kind]).inc();
    }

    /// How many calls are in flight.
    pub fn cache_flights(&self, count: usize) {
        self.cache
            .flights
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether this process has the disk tier.
    pub fn cache_disk_owned(&self, owned: bool) {
        self.cache.disk_owned.set(owned.into());
    }
}
