//! STAND-IN, deleted at the merge: what the run-time shell needs of modules that are being
//! written elsewhere, just enough to run and test it. Replace the imports of `crate::standin`
//! by `config::load::parse`, `config::resolve::{Resolved, resolve}`, `gateway::Snapshot`,
//! `proxy::Door`, `telemetry::metrics::Metrics` and `error::{Failure, Kind}`.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session};

use crate::config::resolve::Settings;
use crate::config::{Environment, Problem, schema};
use crate::lifecycle::entrance::HeadLimits;

pub const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:8788";

pub fn parse(text: &str, _env: Environment<'_>) -> Result<schema::Config, Vec<Problem>> {
    serde_yaml::from_str(text).map_err(|error| vec![Problem::new("", error.to_string())])
}

pub struct Resolved {
    pub settings: Settings,
    pub snapshot: Snapshot,
    pub warnings: Vec<String>,
}

pub struct Snapshot {
    upstreams: HashMap<String, (SocketAddr, String)>,
    head: HeadLimits,
}

pub fn head_limits(snapshot: &Snapshot) -> HeadLimits {
    snapshot.head
}

pub fn resolve(config: &schema::Config, base: &Path) -> Result<Resolved, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut address = |path: &str, text: &str| {
        text.parse().unwrap_or_else(|error| {
            problems.push(Problem::new(path, format!("`{text}`: {error}")));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    };
    let server = &config.server;
    let listen = server
        .listen
        .clone()
        .unwrap_or_else(|| vec!["127.0.0.1:8787".to_owned()]);
    let listen = listen
        .iter()
        .map(|text| address("server.listen", text))
        .collect();
    let admin_listen = address(
        "admin.listen",
        config
            .admin
            .listen
            .as_deref()
            .unwrap_or(DEFAULT_ADMIN_LISTEN),
    );
    let mut upstreams = HashMap::new();
    for (slug, provider) in &config.providers {
        let Some(url) = provider
            .base_url
            .as_deref()
            .and_then(|url| url.strip_prefix("http://"))
        else {
            continue;
        };
        let (host, path) = url.split_once('/').unwrap_or((url, ""));
        upstreams.insert(slug.clone(), (address("base_url", host), path.to_owned()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let time = |time: Option<crate::config::units::Duration>, default| {
        time.map_or(Duration::from_secs(default), |d| d.0)
    };
    let path = |path: &Option<std::path::PathBuf>, default: &str| {
        base.join(path.as_deref().unwrap_or(Path::new(default)))
    };
    let head = HeadLimits {
        timeout: time(server.header_timeout, 30),
        idle: time(server.keepalive_timeout, 75),
        size: server.max_header.map_or(65536, |size| size.0 as usize),
    };
    let tls = server.tls.clone().map(|tls| schema::ServerTls {
        cert: base.join(tls.cert),
        key: base.join(tls.key),
    });
    let settings = Settings {
        listen,
        tls,
        threads: server.threads.max(1),
        admin_listen,
        data_dir: path(&config.data_dir, "/var/lib/tollgate"),
        grace_period: time(server.grace_period, 30),
        drain_timeout: time(server.drain_timeout, 900),
        upgrade_socket: path(&server.upgrade_socket, "/run/tollgate/upgrade.sock"),
        access_log: config.log.access,
        log_filter: config
            .log
            .level
            .clone()
            .unwrap_or_else(|| "info".to_owned()),
        dns_servers: Vec::new(),
    };
    Ok(Resolved {
        settings,
        snapshot: Snapshot { upstreams, head },
        warnings: Vec::new(),
    })
}

#[derive(Default)]
pub struct Metrics {
    good: AtomicI64,
    reloads: AtomicI64,
    restart: AtomicI64,
}

impl Metrics {
    pub fn reload(&self, good: bool) {
        self.good.store(good.into(), Ordering::Relaxed);
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn restart_required(&self, fields: &[&'static str]) {
        self.restart.store(fields.len() as i64, Ordering::Relaxed);
    }

    pub fn render(&self) -> String {
        let [good, reloads, restart] =
            [&self.good, &self.reloads, &self.restart].map(|n| n.load(Ordering::Relaxed));
        format!(
            "last_reload_successful {good}\nreloads_total {reloads}\nrestart_required {restart}\n"
        )
    }
}

pub struct Door {
    live: Arc<ArcSwap<Snapshot>>,
}

impl Door {
    pub fn new(live: Arc<ArcSwap<Snapshot>>, _metrics: Arc<Metrics>) -> Self {
        Self { live }
    }
}

#[async_trait]
impl ProxyHttp for Door {
    type CTX = Option<(SocketAddr, String)>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let path = session.req_header().uri.path().to_owned();
        let mut parts = path.splitn(6, '/').skip(4);
        let snapshot = self.live.load();
        let found = parts.next().and_then(|slug| snapshot.upstreams.get(slug));
        let (address, base) =
            found.ok_or_else(|| Error::explain(ErrorType::HTTPStatus(400), "no such provider"))?;
        *ctx = Some((
            *address,
            format!("/{base}/{}", parts.next().unwrap_or_default()),
        ));
        Ok(Box::new(HttpPeer::new(*address, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        if let Some((address, path)) = ctx {
            request.set_raw_path(path.as_bytes())?;
            request.insert_header("host", address.to_string())?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    ClientTimeout,
    HeadTooLarge,
}

impl Kind {
    pub fn status(self) -> u16 {
        match self {
            Self::ClientTimeout => 408,
            Self::HeadTooLarge => 431,
        }
    }
}

pub struct Failure(Kind);

impl Failure {
    pub fn new(kind: Kind) -> Self {
        Self(kind)
    }

    pub fn body(&self) -> Vec<u8> {
        format!("{{\"httpCode\":{}}}", self.0.status()).into_bytes()
    }
}
