//! Routes, their targets, and the health of those.

use std::time::Instant;

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Metrics;
use super::register::Register;
use crate::record::RequestRecord;
use crate::routing::known::{Known, OfKey};

/// The metrics of routes and their targets.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    requests: IntCounterVec,
    breaker_opened: IntCounterVec,
    breaker_open: IntGaugeVec,
    key_cooled: IntCounterVec,
    key_cooling: IntGaugeVec,
    hedges: IntCounterVec,
    probes: IntCounterVec,
}

impl RouteMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
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
                "Times that a stored key was refused or limited and is left alone, by cause; gateway: whose own it is, if not the deployment's",
                &["gateway", "provider", "key", "cause"],
            )?,
            key_cooling: register.gauges(
                "tollgate_key_cooling",
                "1 while a stored key is left alone for every model; gateway: whose own it is, if not the deployment's",
                &["gateway", "provider", "key"],
            )?,
        })
    }
}

impl Metrics {
    /// Counts two targets that were asked at the same time, by the one that gave the answer, and
    /// those that were late but over their route's budget.
    pub fn hedge(&self, gateway: &str, route: &str, result: &str) {
        let labels = [gateway, route, result];
        self.routes.hedges.with_label_values(&labels).inc();
    }

    pub(super) fn observe_route(&self, record: &RequestRecord) {
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
    pub fn key_cooled(&self, key: &OfKey, cause: &str) {
        let labels = [&*key.gateway, &key.provider, &key.alias, cause];
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
            let labels = [&*key.gateway, &key.provider, &key.alias];
            let cooling = key.health.standing("", now).is_some();
            // The key that an alias had before may still be held by a request.
            let gauge = keys.with_label_values(&labels);
            gauge.set(gauge.get().max(cooling.into()));
        }
    }
}
