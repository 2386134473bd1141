//! Integration tests: the real binary between real sockets, asserted on both ends.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

mod harness;
mod support;
