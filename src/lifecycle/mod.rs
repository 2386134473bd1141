//! The life of a process: start, reload, upgrade, drain.
//!
//! Pingora runs the services and moves the descriptors; when and why is decided here.

pub mod certificate;
pub mod drain;
pub mod entrance;
mod greeting;
mod head;
mod http2;
pub mod own_mock;
pub mod phase;
mod program;
pub mod reload;
mod services;
pub mod start;
pub mod stored_keys;
mod successor;
pub mod systemd;
pub mod threshold;
pub mod upgrade;
mod upgrade_socket;
mod watch;
