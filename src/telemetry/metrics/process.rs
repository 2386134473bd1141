//! The process: its configuration, upgrades, log and memory.

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::register::Register;
use crate::telemetry::log;

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

/// The metrics of the process.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    in_flight: IntGauge,
    held_bytes: IntGauge,
    reloads: IntCounterVec,
    last_reload_successful: IntGauge,
    restart_required: IntGaugeVec,
    upgrades: IntCounterVec,
    log_dropped: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let build = register.gauges(
            "tollgate_build_info",
            "Version of the running binary",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let last_reload_successful = register.gauge(
            "tollgate_config_last_reload_successful",
            "Whether the last reload took effect",
        )?;
        last_reload_successful.set(1);
        Ok(Self {
            in_flight: register.gauge(
                "tollgate_requests_in_flight",
                "Requests and upgraded connections in flight",
            )?,
            held_bytes: register.gauge(
                "tollgate_held_body_bytes",
                "Memory reserved for held request bodies",
            )?,
            reloads: register.counter(
                "tollgate_config_reloads_total",
                "Configuration reloads by result",
                &["result"],
            )?,
            last_reload_successful,
            restart_required: register.gauges(
                "tollgate_config_restart_required",
                "1 for a configuration key that changed but takes effect only after a restart or an upgrade",
                &["key"],
            )?,
            upgrades: register.counter(
                "tollgate_upgrades_total",
                "Binary upgrades by result",
                &["result"],
            )?,
            log_dropped: register.fraction(
                "tollgate_log_lines_dropped_total",
                "Log lines dropped because standard error did not keep up",
            )?,
        })
    }

    /// What is looked at only when somebody asks.
    pub(super) fn look(&self, in_flight: usize) {
        self.in_flight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        self.log_dropped.set(log::dropped() as f64);
    }
}

impl Metrics {
    /// Counts a reload.
    pub fn reloaded(&self, outcome: Outcome) {
        self.process
            .reloads
            .with_label_values(&[outcome.label()])
            .inc();
        self.process
            .last_reload_successful
            .set((outcome == Outcome::Success).into());
    }

    /// The configuration keys that wait for a restart; all others no longer do.
    pub fn restart_required(&self, keys: &[&str]) {
        self.process.restart_required.reset();
        for key in keys {
            self.process
                .restart_required
                .with_label_values(&[key])
                .set(1);
        }
    }

    /// Counts an upgrade.
    pub fn upgraded(&self, outcome: Outcome) {
        self.process
            .upgrades
            .with_label_values(&[outcome.label()])
            .inc();
    }

    /// Memory reserved for held bodies, in bytes.
    pub fn held_bytes(&self, bytes: u64) {
        self.process
            .held_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
