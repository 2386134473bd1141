//! The harness: the real gateway binary, fake upstreams that script replies and
//! record what they received, and clients that see the bytes on the wire.

pub mod body;
pub mod client;
pub mod conf;
pub mod dns;
pub mod emitted;
pub mod gateway;
pub mod metrics;
pub mod notify;
pub mod ports;
pub mod tls;
pub mod upstream;
pub mod wait;
pub mod wire;

pub use body::Digest;
pub use client::{Connection, Ending, Protocol, Request, Response};
pub use dns::NameServer;
pub use gateway::{Gateway, run};
pub use notify::NotifySocket;
pub use tls::Authority;
pub use upstream::{Answer, Gate, Reply, Upstream};
pub use wait::{eventually, within};
