//! The only place that names a Prometheus metric.
//!
//! Label sets are bounded: `gateway`, `provider`, `route`, a target's `model` and a stored key's
//! alias are configured names (or empty), `status` is an HTTP status, `scope` and `name` say
//! which cap of the configuration it is, a limit's `rule` and `partition` are configured names
//! (a thousand of them at most), `kind`, `source`, `cause`, `reason`, `result` and a
//! configuration's `key` come from closed vocabularies. Nothing that a client chooses freely
//! becomes a label.

mod analytics;
mod budgets;
mod cache;
mod exports;
mod followed;
mod gates;
mod keys;
mod logs;
mod process;
mod register;
mod requests;
mod routes;
mod spending;

use prometheus::{Encoder, Registry, TextEncoder};

use cache::CacheMetrics;
use gates::GateMetrics;
pub use process::Outcome;
use process::ProcessMetrics;
use register::Register;
use requests::RequestMetrics;
pub use requests::Series;
use routes::RouteMetrics;
use spending::SpendingMetrics;

/// Seconds; a model answers between a tenth of a second and ten minutes.
const DURATIONS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Seconds; the gateway itself needs microseconds.
const OVERHEADS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0,
];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: RequestMetrics,
    process: ProcessMetrics,
    cache: CacheMetrics,
    routes: RouteMetrics,
    gates: GateMetrics,
    spending: SpendingMetrics,
}

impl Metrics {
    /// Registers everything. An error can only be a programming mistake (a name twice).
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = Register(&registry);
        Ok(Self {
            requests: RequestMetrics::new(&register)?,
            process: ProcessMetrics::new(&register)?,
            cache: CacheMetrics::new(&register)?,
            routes: RouteMetrics::new(&register)?,
            gates: GateMetrics::new(&register)?,
            spending: SpendingMetrics::new(&register)?,
            registry,
        })
    }

    /// The text that Prometheus scrapes, with `in_flight` requests being answered.
    pub fn render(&self, in_flight: usize) -> String {
        self.process.look(in_flight);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::error!("cannot render the metrics: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{Failure, Kind};
    use crate::limits::concurrency::{Gate, Scope, Settings, enter_all};
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
    fn dashboard_and_alerts_name_metrics_that_there_are() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let all = |directory: &str| -> String {
            let files = std::fs::read_dir(root.join(directory)).unwrap();
            let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
            texts.collect()
        };
        let (ours, theirs) = (all("src/telemetry/metrics"), all("conf/grafana"));
        let words = theirs.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named = words.filter(|word| word.starts_with("tollgate_"));
        let mut count = 0;
        for name in named {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(ours.contains(&format!("\"{name}\"")), "{name}");
            count += 1;
        }
        assert!(count > 30, "{count}");
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
