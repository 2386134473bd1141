//! STAND-IN, deleted at the merge: what the run-time shell needs of modules that are being
//! written elsewhere, just enough to run and test it. Replace the imports of `crate::standin`
//! by `config::load::parse`, `config::resolve::{Resolved, Settings, providers::MOCK, resolve}`,
//! `gateway::Snapshot`, `dns::Dns`, `proxy::Door`, `telemetry::metrics::{Metrics, Outcome}`,
//! `telemetry::log` (here `log_setup`), `mock::serve` (here `mock_serve`) and
//! `error::{Failure, Kind}`.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session};

use crate::config::schema::AccessLog;
use crate::config::{Environment, Problem, schema};
use crate::lifecycle::phase::Phase;

pub fn parse(text: &str, _env: Environment<'_>) -> Result<schema::Config, Vec<Problem>> {
    serde_yaml::from_str(text).map_err(|error| vec![Problem::new("", error.to_string())])
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub tls: Option<schema::ServerTls>,
    pub threads: usize,
    pub header_timeout: Duration,
    pub admin_listen: SocketAddr,
    pub data_dir: PathBuf,
    pub upgrade_socket: PathBuf,
    pub access_log: AccessLog,
    pub log_filter: String,
    pub dns_servers: Vec<SocketAddr>,
}

impl Settings {
    pub fn restart_required(&self, new: &Self) -> Vec<&'static str> {
        [
            ("server.listen", self.listen != new.listen),
            ("server.threads", self.threads != new.threads),
            ("data_dir", self.data_dir != new.data_dir),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

pub struct Resolved {
    pub settings: Settings,
    pub snapshot: Snapshot,
}

pub struct Limits {
    pub max_header: usize,
    pub keepalive_timeout: Duration,
}

pub struct Snapshot {
    upstreams: HashMap<String, (SocketAddr, String)>,
    pub limits: Limits,
    pub grace_period: Duration,
    pub drain_timeout: Duration,
}

pub const MOCK: &str = "mock";

pub async fn mock_serve(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nmocked";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
    }
}

pub fn resolve(config: &schema::Config, mock: SocketAddr) -> Result<Resolved, Vec<Problem>> {
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
        config.admin.listen.as_deref().unwrap_or("127.0.0.1:8788"),
    );
    let mut upstreams = HashMap::from([(MOCK.to_owned(), (mock, String::new()))]);
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
    let path =
        |path: &Option<PathBuf>, default: &str| path.clone().unwrap_or_else(|| default.into());
    let limits = Limits {
        keepalive_timeout: time(server.keepalive_timeout, 75),
        max_header: server.max_header.map_or(65536, |size| size.0 as usize),
    };
    let settings = Settings {
        listen,
        tls: server.tls.clone(),
        threads: server.threads.max(1),
        header_timeout: time(server.header_timeout, 30),
        admin_listen,
        data_dir: path(&config.data_dir, "/var/lib/tollgate"),
        upgrade_socket: path(&server.upgrade_socket, "/run/tollgate/upgrade.sock"),
        access_log: config.log.access,
        log_filter: config
            .log
            .level
            .clone()
            .unwrap_or_else(|| "info,pingora=warn".to_owned()),
        dns_servers: Vec::new(),
    };
    let (grace_period, drain_timeout) = (
        time(server.grace_period, 30),
        time(server.drain_timeout, 900),
    );
    Ok(Resolved {
        settings,
        snapshot: Snapshot {
            upstreams,
            limits,
            grace_period,
            drain_timeout,
        },
    })
}

pub mod log_setup {
    pub fn init(filter: &str, _form: super::AccessLog) {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
        let _ = env_logger::Builder::new().parse_filters(&filter).try_init();
    }

    pub fn flush() {
        log::logger().flush();
    }
}

pub struct Dns;

impl Dns {
    pub fn new(_servers: &[SocketAddr]) -> Result<Self, String> {
        Ok(Self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
}

#[derive(Default)]
pub struct Metrics {
    good: AtomicI64,
    reloads: AtomicI64,
    restart: AtomicI64,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            good: AtomicI64::new(1),
            ..Self::default()
        })
    }

    pub fn reloaded(&self, outcome: Outcome) {
        self.good
            .store((outcome == Outcome::Success).into(), Ordering::Relaxed);
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn upgraded(&self, _outcome: Outcome) {}

    pub fn restart_required(&self, keys: &[&str]) {
        self.restart.store(keys.len() as i64, Ordering::Relaxed);
    }

    pub fn render(&self, in_flight: usize) -> String {
        let [good, reloads, restart] =
            [&self.good, &self.reloads, &self.restart].map(|n| n.load(Ordering::Relaxed));
        format!(
            "tollgate_requests_in_flight {in_flight}\ntollgate_config_last_reload_successful {good}\n\
             reloads {reloads}\nrestart_required {restart}\n"
        )
    }
}

pub struct Door {
    live: Arc<ArcSwap<Snapshot>>,
}

impl Door {
    pub fn new(
        live: Arc<ArcSwap<Snapshot>>,
        _metrics: Arc<Metrics>,
        _phase: Arc<Phase>,
        _dns: Arc<Dns>,
        _access_log: AccessLog,
    ) -> Self {
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
