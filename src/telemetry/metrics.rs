//! The only file that names a Prometheus metric.
//!
//! Label sets are bounded: `gateway`, `provider`, `route`, a target's `model` and a stored key's
//! alias are configured names (or empty), `status` is an HTTP status, `scope` and `name` say
//! which cap of the configuration it is, `kind`, `source`, `cause`, `reason`, `result` and a
//! configuration's `key` come from closed vocabularies. Nothing that a client chooses freely
//! becomes a label.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::cache::tiers::Tier;
use crate::gateway::Mounted;
use crate::limits::concurrency::{Gate, Reason};
use crate::record::{RequestRecord, Tried};
use crate::routing::known::Known;

/// Seconds; a model answers between a tenth of a second and ten minutes.
const DURATIONS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Seconds; the gateway itself needs microseconds.
const OVERHEADS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0,
];

/// Outcome of a reload or an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Success,
    /// Nothing changed.
    Failure,
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
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
    in_flight: IntGauge,
    held_bytes: IntGauge,
    reloads: IntCounterVec,
    last_reload_successful: IntGauge,
    restart_required: IntGaugeVec,
    upgrades: IntCounterVec,
    log_dropped: Gauge,
    cache: CacheMetrics,
    routes: RouteMetrics,
    gates: GateMetrics,
}

/// The metrics of the caps on calls in flight.
#[derive(Debug)]
struct GateMetrics {
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    refused: IntCounterVec,
}

/// The metrics of routes and their targets.
#[derive(Debug)]
struct RouteMetrics {
    requests: IntCounterVec,
    breaker_opened: IntCounterVec,
    breaker_open: IntGaugeVec,
    key_cooled: IntCounterVec,
    key_cooling: IntGaugeVec,
    hedges: IntCounterVec,
    probes: IntCounterVec,
}

/// The metrics of the cache.
#[derive(Debug)]
struct CacheMetrics {
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

/// Makes metrics and registers them.
struct Register<'a>(&'a Registry);

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

impl Metrics {
    /// Registers everything. An error can only be a programming mistake (a name twice).
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let by_provider = ["gateway", "provider"];
        let register = Register(&registry);
        let counter = |name, help, labels: &[&str]| register.counter(name, help, labels);
        let histogram = |name, help, buckets| register.histogram(name, help, &by_provider, buckets);
        let gauge = |name, help| register.gauge(name, help);
        let restart_required = IntGaugeVec::new(
            Opts::new(
                "tollgate_config_restart_required",
                "1 for a configuration key that changed but takes effect only after a restart or an upgrade",
            ),
            &["key"],
        )?;
        registry.register(Box::new(restart_required.clone()))?;
        let log_dropped = Gauge::new(
            "tollgate_log_lines_dropped_total",
            "Log lines dropped because standard error did not keep up",
        )?;
        registry.register(Box::new(log_dropped.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new("tollgate_build_info", "Version of the running binary"),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
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
            in_flight: gauge(
                "tollgate_requests_in_flight",
                "Requests and upgraded connections in flight",
            )?,
            held_bytes: gauge(
                "tollgate_held_body_bytes",
                "Memory reserved for held request bodies",
            )?,
            reloads: counter(
                "tollgate_config_reloads_total",
                "Configuration reloads by result",
                &["result"],
            )?,
            last_reload_successful: {
                let gauge = gauge(
                    "tollgate_config_last_reload_successful",
                    "Whether the last reload took effect",
                )?;
                gauge.set(1);
                gauge
            },
            restart_required,
            upgrades: counter(
                "tollgate_upgrades_total",
                "Binary upgrades by result",
                &["result"],
            )?,
            log_dropped,
            cache: CacheMetrics::new(&register)?,
            routes: RouteMetrics::new(&register)?,
            gates: GateMetrics::new(&register)?,
            registry,
        })
    }

    /// The series of one provider in one gateway.
    pub fn series(&self, gateway: &str, provider: &str) -> Series {
        let labels = [gateway, provider];
        Series {
            ok: self.requests.with_label_values(&[gateway, provider, "200"]),
            duration: self.duration.with_label_values(&labels),
            upstream: self.upstream.with_label_values(&labels),
            overhead: self.overhead.with_label_values(&labels),
            first_token: self.first_token.with_label_values(&labels),
            request_bytes: self.request_bytes.with_label_values(&labels),
            response_bytes: self.response_bytes.with_label_values(&labels),
            attempts: self.attempts.with_label_values(&labels),
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
        if record.status == 200 {
            series.ok.inc();
        } else {
            let mut digits = [0; 3];
            let status = status_label(record.status, &mut digits);
            self.requests
                .with_label_values(&[gateway, provider, status])
                .inc();
        }
        if let Some((source, kind)) = record.error() {
            self.errors
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
            let series = self.attempts.with_label_values(&labels);
            series.inc_by((*attempts).into());
        }
        for tried in tried {
            let asked = tried.provider.as_ref();
            let asked = asked.map_or("", |mounted| &mounted.provider.slug);
            let labels = [gateway, asked, tried.cause.name()];
            self.failed_attempts.with_label_values(&labels).inc();
        }
    }

    /// Counts two targets that were asked at the same time, by the one that gave the answer, and
    /// those that were late but over their route's budget.
    pub fn hedge(&self, gateway: &str, route: &str, result: &str) {
        let labels = [gateway, route, result];
        self.routes.hedges.with_label_values(&labels).inc();
    }

    fn observe_route(&self, record: &RequestRecord) {
        if let Some(route) = &record.route {
            let labels = [record.gateway_label(), route, &record.target.to_string()];
            self.routes.requests.with_label_values(&labels).inc();
        }
    }

    /// Counts a target, or (without a model) a provider, that is left alone from now on.
    pub fn breaker_opened(&self, gateway: &str, provider: &str, model: &str) {
        let labels = [gateway, provider, model];
        self.routes.breaker_opened.with_label_values(&labels).inc();
    }

    /// Counts a stored key that is left alone from now on.
    pub fn key_cooled(&self, provider: &str, key: &str, cause: &str) {
        let labels = [provider, key, cause];
        self.routes.key_cooled.with_label_values(&labels).inc();
    }

    /// Counts a probe of a provider: `ok`, `failed`, or `busy`.
    pub fn probed(&self, provider: &str, result: &'static str) {
        let labels = [provider, result];
        self.routes.probes.with_label_values(&labels).inc();
    }

    /// Who is left alone right now. What no configuration names any more is shown no longer.
    pub fn standings(&self, known: &Known, now: Instant) {
        let (breakers, keys) = (&self.routes.breaker_open, &self.routes.key_cooling);
        breakers.reset();
        for provider in known.providers() {
            let labels = [&*provider.gateway, &provider.provider, ""];
            let open = provider.breaker.standing(now).until().is_some();
            breakers.with_label_values(&labels).set(open.into());
        }
        for target in known.targets() {
            let open = target.breaker.standing(now).until().is_some();
            let labels = [&*target.gateway, &target.provider, &target.model];
            // Targets that differ in their keys are one series: open if one of them is.
            let gauge = breakers.with_label_values(&labels);
            gauge.set(gauge.get().max(open.into()));
        }
        keys.reset();
        for key in known.keys() {
            let labels = [&*key.provider, &key.alias];
            let cooling = key.health.standing("", now).is_some();
            keys.with_label_values(&labels).set(cooling.into());
        }
    }

    fn observe_cache(&self, record: &RequestRecord) {
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

    /// What the gates look like now; of others nothing is told any more.
    pub fn gates(&self, gates: &[Arc<Gate>]) {
        self.gates.forget();
        gates.iter().for_each(|gate| self.gates.tell(gate));
    }

    /// Memory reserved for held bodies, in bytes.
    pub fn held_bytes(&self, bytes: u64) {
        self.held_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a reload.
    pub fn reloaded(&self, outcome: Outcome) {
        self.reloads.with_label_values(&[outcome.label()]).inc();
        self.last_reload_successful
            .set((outcome == Outcome::Success).into());
    }

    /// The configuration keys that wait for a restart; all others no longer do.
    pub fn restart_required(&self, keys: &[&str]) {
        self.restart_required.reset();
        for key in keys {
            self.restart_required.with_label_values(&[key]).set(1);
        }
    }

    /// Counts an upgrade.
    pub fn upgraded(&self, outcome: Outcome) {
        self.upgrades.with_label_values(&[outcome.label()]).inc();
    }

    /// The text that Prometheus scrapes, with `in_flight` requests being answered.
    pub fn render(&self, in_flight: usize) -> String {
        self.in_flight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        self.log_dropped.set(super::log::dropped() as f64);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::error!("cannot render the metrics: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl RouteMetrics {
    fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: register.counter(
                "tollgate_route_requests_total",
                "Requests that a route served, by the target that answered, or was asked last: its place in the route",
                &["gateway", "route", "step"],
            )?,
            hedges: register.counter(
                "tollgate_hedges_total",
                "Requests for which a second target was asked because the first was late, by the one that answered; over_budget: it was not",
                &["gateway", "route", "result"],
            )?,
            probes: register.counter(
                "tollgate_probes_total",
                "Requests of the gateway's own that look whether a provider is there; ok: it is, failed: it is not, busy: its answer says neither",
                &["provider", "result"],
            )?,
            breaker_opened: register.counter(
                "tollgate_breaker_opened_total",
                "Times that a target, or (without a model) a provider, failed so often that it is left alone",
                &["gateway", "provider", "model"],
            )?,
            breaker_open: register.gauges(
                "tollgate_breaker_open",
                "1 while a target, or (without a model) a provider, is left alone",
                &["gateway", "provider", "model"],
            )?,
            key_cooled: register.counter(
                "tollgate_key_cooled_total",
                "Times that a stored key was refused or limited and is left alone, by cause",
                &["provider", "key", "cause"],
            )?,
            key_cooling: register.gauges(
                "tollgate_key_cooling",
                "1 while a stored key is left alone for every model",
                &["provider", "key"],
            )?,
        })
    }
}

impl GateMetrics {
    fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let gauges = |name, help| register.gauges(name, help, &["scope", "name"]);
        Ok(Self {
            in_flight: gauges(
                "tollgate_in_flight",
                "Calls that hold a place at a provider, where there is a cap: of the process, a gateway or a provider",
            )?,
            waiting: gauges(
                "tollgate_in_flight_waiting",
                "Calls that wait for a place, each at the first cap that is reached",
            )?,
            refused: register.counter(
                "tollgate_in_flight_refused_total",
                "Calls that got no place: no turn came in time (wait_over), or too many waited (queue_full)",
                &["scope", "name", "reason"],
            )?,
        })
    }

    fn forget(&self) {
        self.in_flight.reset();
        self.waiting.reset();
        self.refused.reset();
    }

    fn tell(&self, gate: &Gate) {
        let (scope, reading) = (gate.scope(), gate.reading());
        let labels = [scope.kind(), scope.name()];
        let gauge = |gauges: &IntGaugeVec, count: u32| {
            gauges.with_label_values(&labels).set(count.into());
        };
        gauge(&self.in_flight, reading.in_flight);
        gauge(&self.waiting, reading.waiting);
        for reason in Reason::ALL {
            let labels = [labels[0], labels[1], reason.name()];
            let refused = self.refused.with_label_values(&labels);
            refused.inc_by(gate.refused(reason));
        }
    }
}

impl CacheMetrics {
    fn new(register: &Register<'_>) -> prometheus::Result<Self> {
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

impl Register<'_> {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let vec = HistogramVec::new(opts, labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::{Failure, Kind};
    use crate::limits::concurrency::{Scope, Settings, enter_all};
    use crate::telemetry::access::tests::record;

    #[test]
    fn a_finished_request_is_counted_everywhere_once() {
        let metrics = Metrics::new().unwrap();
        metrics.publish(&record());
        let mut failed = record();
        failed.status = 504;
        failed.failure = Some(Failure::new(Kind::UpstreamTimeout));
        metrics.publish(&failed);
        let text = metrics.render(0);
        for line in [
            r#"tollgate_requests_total{gateway="",provider="",status="200"} 1"#,
            r#"tollgate_requests_total{gateway="",provider="",status="504"} 1"#,
            r#"tollgate_errors_total{gateway="",kind="upstream_timeout",provider="",source="provider"} 1"#,
            r#"tollgate_request_bytes_total{gateway="",provider=""} 20"#,
            r#"tollgate_request_duration_seconds_count{gateway="",provider=""} 2"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

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

    #[test]
    fn gates_are_told_as_they_are_now() {
        let metrics = Metrics::new().unwrap();
        let settings = Settings {
            max_in_flight: Some(1),
            max_waiting: Some(0),
            ..Settings::default()
        };
        let gate = Arc::new(Gate::new(Scope::Gateway("a/b".into()), settings));
        let pass = gate.try_enter();
        let refused = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(enter_all(std::slice::from_ref(&gate), None));
        assert!(refused.is_err());
        for _ in 0..2 {
            metrics.gates(std::slice::from_ref(&gate));
        }
        let text = metrics.render(0);
        for line in [
            r#"tollgate_in_flight{name="a/b",scope="gateway"} 1"#,
            r#"tollgate_in_flight_waiting{name="a/b",scope="gateway"} 0"#,
            r#"tollgate_in_flight_refused_total{name="a/b",reason="queue_full",scope="gateway"} 1"#,
            r#"tollgate_in_flight_refused_total{name="a/b",reason="wait_over",scope="gateway"} 0"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        drop(pass);
        metrics.gates(&[]);
        assert!(!metrics.render(0).contains("a/b"));
    }

    #[test]
    fn keys_that_wait_for_a_restart_are_listed_and_forgotten() {
        let metrics = Metrics::new().unwrap();
        metrics.restart_required(&["server.listen"]);
        assert!(
            metrics
                .render(0)
                .contains(r#"tollgate_config_restart_required{key="server.listen"} 1"#)
        );
        metrics.restart_required(&[]);
        assert!(!metrics.render(0).contains("server.listen"));
    }
}
