//! The caps on calls in flight.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Metrics;
use super::register::Register;
use crate::limits::concurrency::{Gate, Reason};

/// The metrics of the caps on calls in flight.
#[derive(Debug)]
pub(super) struct GateMetrics {
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    refused: IntCounterVec,
}

impl GateMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
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

impl Metrics {
    /// What the gates look like now; of others nothing is told any more.
    pub fn gates(&self, gates: &[Arc<Gate>]) {
        self.gates.forget();
        gates.iter().for_each(|gate| self.gates.tell(gate));
    }
}
