//! tollgate: one well-instrumented door in front of all of a company's model traffic.
//!
//! The modules in the order in which a request meets them:
//!
//! 1. [`config`]: YAML to an immutable [`gateway::Snapshot`], swapped on reload.
//! 2. [`proxy`]: Pingora's phases, the only place that knows Pingora's proxy. It calls
//! 3. [`endpoint`]: the path to a gateway, a provider and the provider's path;
//! 4. [`directives`], [`universal`] and [`call`]: what the client asks of the gateway and of
//!    providers;
//! 5. [`auth`], [`keys`]: whose token or key it brings; [`provider`]: where the request goes; [`dns`]: at which address;
//! 6. [`credential`]: how it pays; [`provider_keys`]: with which key the gateway keeps itself;
//! 7. [`cache`]: whether it was answered before, or is being answered right now;
//! 8. [`limits`]: whether there is a place for it at the provider, and how long it waits for one;
//! 9. [`routing`]: what a provider's failure means, and when it is tried again;
//! 10. [`wire`]: how its answer can be ended honestly; [`usage`]: what it cost in tokens;
//! 11. [`mod@error`]: what clients can receive from the gateway itself;
//! 12. [`record`], [`metadata`]: one record per request, and what its client says of it;
//! 13. [`ledger`], [`spending`], [`pricing`]: what it cost, worked out beside the requests;
//!     [`telemetry`], [`logs`], [`analytics`] and [`mod@export`]: the record's views.
//!
//! Around them: [`mock`] (a built-in provider), [`lifecycle`] (start, reload,
//! upgrade, drain), [`cache`] (stored answers), [`database`] (files of SQLite), [`json`] (one reading of a document for several), [`background`] (threads beside the requests), [`probe`] (looks whether providers are there), [`allocator`] (where memory comes from),
//! [`admin`] (the operators' listener) and [`cli`].

pub mod admin;
pub mod allocator;
pub mod analytics;
pub mod auth;
pub mod background;
pub mod cache;
pub mod call;
pub mod cli;
pub mod config;
pub mod credential;
pub mod database;
pub mod directives;
pub mod dns;
pub mod endpoint;
pub mod error;
pub mod export;
pub mod gateway;
pub mod json;
pub mod keys;
pub mod ledger;
pub mod lifecycle;
pub mod limits;
pub mod logs;
pub mod memory;
pub mod metadata;
pub mod mock;
pub mod pattern;
pub mod pricing;
pub mod probe;
pub mod provider;
pub mod provider_keys;
pub mod proxy;
pub mod record;
pub mod routing;
pub mod spending;
pub mod telemetry;
pub mod universal;
pub mod usage;
pub mod wire;
