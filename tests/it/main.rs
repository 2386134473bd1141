//! Integration tests: the real binary between real sockets, asserted on both ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod bodies;
mod broken_streams;
mod examples;
mod failures;
mod harness;
mod headers;
mod held_of_unknown_length;
mod limits;
mod mappings;
mod observability;
mod routing;
mod safety;
mod smuggling;
mod streams;
mod support;
mod tls;
mod websocket;
