//! The configuration as the code needs it, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::schema::{AccessLog, ServerTls};

/// What a running process is set up with. Requests read [`crate::gateway::Snapshot`] instead.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where applications connect.
    pub listen: Vec<SocketAddr>,
    /// HTTPS on all of `listen`.
    pub tls: Option<ServerTls>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Where operators connect; loopback.
    pub admin_listen: SocketAddr,
    /// What must survive a restart lies here.
    pub data_dir: PathBuf,
    /// How long streams may finish after SIGTERM.
    pub grace_period: Duration,
    /// How long streams may finish after an upgrade.
    pub drain_timeout: Duration,
    /// Where an upgrade hands the listeners over.
    pub upgrade_socket: PathBuf,
    /// Form of the access log.
    pub access_log: AccessLog,
    /// Filter in env_logger's syntax.
    pub log_filter: String,
    /// Name servers; the system's when empty.
    pub dns_servers: Vec<SocketAddr>,
}
