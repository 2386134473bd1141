//! Integration tests: the real binary between real sockets, asserted on both ends.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

mod bodies;
mod broken_streams;
mod examples;
mod failures;
mod harness;
mod headers;
mod limits;
mod mappings;
mod routing;
mod safety;
mod smuggling;
mod streams;
mod support;
mod websocket;
