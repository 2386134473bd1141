//! tollgate: one well-instrumented door in front of all of a company's model traffic.
//!
//! The modules in the order in which a request meets them:
//!
//! 1. [`config`]: YAML to an immutable [`gateway::Snapshot`], swapped on reload.
//! 2. [`endpoint`]: method and path to a gateway, a provider and the provider's path.
//! 3. [`proxy`]: Pingora's phases, the only place that knows Pingora's proxy.
//! 4. [`record`], [`telemetry`]: one record per request, and its views.
//!
//! Around them: [`mock`] (a built-in provider), [`lifecycle`] (start, reload,
//! upgrade, drain) and [`admin`] (the operators' listener).

pub mod config;
pub mod gateway;
pub mod mock;
