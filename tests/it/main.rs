//! Integration tests: the real binary between real sockets, asserted on both ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod bodies;
mod broken_streams;
mod examples;
mod failures;
mod harness;
mod headers;
mod held_of_unknown_length;
mod lifecycle;
mod lifecycle_connections;
mod lifecycle_reload;
mod lifecycle_systemd;
mod lifecycle_upgrade;
mod limits;
mod mappings;
mod observability;
mod routing;
mod safety;
mod smuggling;
mod smuggling_h2;
mod stalled_bodies;
mod streams;
mod support;
mod tls;
mod upgrade_storm;
mod websocket;
