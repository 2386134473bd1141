//! The configuration as the code needs it, checked.
//!
//! [`resolve`] takes the whole schema apart, field by field and exhaustively: a field added
//! to the schema does not compile until it is used here.

pub mod bounds;
mod cache;
mod exports;
mod in_flight;
mod keys;
mod prices;
mod providers;
mod rates;
mod records;
mod routes;
mod routing;
mod spend;
mod tokens;

pub use exports::Exports;
pub use keys::usable;
pub use providers::MOCK;
#[cfg(test)]
pub(crate) use providers::built_in as built_in_providers;
pub(crate) use tokens::good_name;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;

use super::Problem;
use super::schema::{self, AccessLog, ServerTls};
use super::units::ByteSize;
use crate::gateway::{Gateway, Limits, Mounted, Snapshot};
use crate::limits::spend::Scope;
use crate::logs;
use crate::provider::Provider;
use crate::provider_keys::Kept;
use crate::routing::retry::Retry;

/// Where what must survive a restart lies, unless the configuration says otherwise.
pub const DATA_DIR: &str = "/var/lib/tollgate";

/// What a running process is set up with. Requests read [`Snapshot`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where applications connect.
    pub listen: Vec<SocketAddr>,
    /// HTTPS on all of `listen`.
    pub tls: Option<ServerTls>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// How long a client may take to send a request head.
    pub header_timeout: Duration,
    /// Where operators connect; loopback, where they have no tokens.
    pub admin_listen: SocketAddr,
    /// What must survive a restart lies here.
    pub data_dir: PathBuf,
    /// Where an upgrade hands the listeners over.
    pub upgrade_socket: PathBuf,
    /// Memory for cached answers, in bytes.
    pub cache_memory: u64,
    /// Disk for cached answers, in bytes; 0 for none.
    pub cache_disk: u64,
    /// The log store; `None` for none.
    pub logs: Option<logs::settings::Settings>,
    /// What of them is never written down, nor told with their bodies.
    pub redact: logs::redaction::Rules,
    /// Who else is told of finished requests.
    pub exports: Exports,
    /// Form of the access log.
    pub access_log: AccessLog,
    /// Filter in env_logger's syntax.
    pub log_filter: String,
    /// Name servers; the system's when empty.
    pub dns_servers: Vec<SocketAddr>,
}

/// A configuration that passed every check.
#[derive(Debug)]
pub struct Resolved {
    /// For the process.
    pub settings: Settings,
    /// For requests.
    pub snapshot: Snapshot,
}

impl Settings {
    /// The keys in which `new` differs in a way that a running process cannot follow.
    pub fn restart_required(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            listen,
            tls,
            threads,
            header_timeout,
            admin_listen,
            data_dir,
            upgrade_socket,
            cache_memory,
            cache_disk,
            logs,
            redact,
            exports,
            access_log,
            log_filter,
            dns_servers,
        } = self;
        [
            ("server.listen", *listen != new.listen),
            // Other files of a certificate are followed; whether there is one is not.
            ("server.tls", tls.is_some() != new.tls.is_some()),
            ("server.threads", *threads != new.threads),
            (
                "server.header_timeout",
                *header_timeout != new.header_timeout,
            ),
            (
                "server.upgrade_socket",
                *upgrade_socket != new.upgrade_socket,
            ),
            ("admin.listen", *admin_listen != new.admin_listen),
            ("data_dir", *data_dir != new.data_dir),
            ("cache.memory", *cache_memory != new.cache_memory),
            ("cache.disk", *cache_disk != new.cache_disk),
            ("logs", *logs != new.logs || *redact != new.redact),
            ("otel", exports.otel != new.exports.otel),
            ("sinks", exports.sinks != new.exports.sinks),
            ("log.access", *access_log != new.access_log),
            ("log.level", *log_filter != new.log_filter),
            ("dns.servers", *dns_servers != new.dns_servers),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// Collects problems, so that every mistake is reported and not only the first.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(path, message));
    }

    /// The value, or `None` and a problem at `path`.
    fn ok<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(path, message)).ok()
    }
}

/// As [`resolve_with`], where no provider keys are kept.
///
/// # Errors
/// Every mistake by its path.
pub fn resolve(config: &schema::Config, mock: SocketAddr) -> Result<Resolved, Vec<Problem>> {
    resolve_with(config, mock, &Kept::default())
}

/// Checks `config` and builds what the process and its requests need. `mock` is where the
/// built-in mock provider listens; it is used only when the configuration names it. `kept`: the
/// provider keys that the gateway keeps itself. Whether there are mistakes does not depend on
/// which they are.
///
/// # Errors
/// Every mistake by its path.
pub fn resolve_with(
    config: &schema::Config,
    mock: SocketAddr,
    kept: &Kept,
) -> Result<Resolved, Vec<Problem>> {
    let mut problems = Problems::default();
    let schema::Config {
        server,
        admin,
        data_dir,
        // Needed before: `kept` is what they open.
        secrets: _,
        cache,
        logs,
        otel,
        sinks,
        prices,
        log,
        dns,
        providers,
        accounts,
    } = config;
    let mut settings = settings(server, admin, data_dir.as_ref(), log, dns, &mut problems);
    (settings.cache_memory, settings.cache_disk) = cache::store(cache, &mut problems);
    settings.logs = records::store(logs, &mut problems);
    settings.redact = records::rules(&logs.redact);
    settings.exports = exports::resolve(otel, sinks, &mut problems);
    let operators = tokens::operators(&admin.tokens, &mut problems);
    let providers = providers::resolve(providers, mock, kept, &mut problems);
    let prices = Arc::new(prices::resolve(prices, &providers, &mut problems));
    let named = providers.iter();
    let offered = Offered {
        providers: &providers,
        names: named
            .map(|(name, provider)| (&**name, &*provider.slug))
            .collect(),
        kept,
    };
    let accounts = resolve_accounts(accounts, &offered, &mut problems);
    let limits = limits(server, &mut problems);
    let in_flight = in_flight::cap("server.in_flight", server.in_flight, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let seconds = |value: &Option<super::units::Duration>, default| {
        value.map_or(Duration::from_secs(default), |d| d.0)
    };
    let snapshot = Snapshot {
        limits,
        grace_period: seconds(&server.grace_period, 30),
        drain_timeout: seconds(&server.drain_timeout, 15 * 60),
        revalidates: any(&accounts, |gateway| {
            !gateway.cache.stale_while_revalidate.is_zero()
        }),
        hedges: any(&accounts, |gateway| {
            gateway.routes.all().any(|plan| plan.hedge.is_some())
        }),
        in_flight,
        prices,
        logged_body: logged_body(&settings),
        operators,
        accounts,
    };
    Ok(Resolved { settings, snapshot })
}

/// Most bytes of each body that somebody wants: the log store, or a collector.
fn logged_body(settings: &Settings) -> Option<usize> {
    let stored = settings.logs.as_ref().map(|logs| logs.max_body);
    let wanted = settings
        .exports
        .otel
        .iter()
        .any(|collector| collector.payload);
    stored.max(wanted.then_some(crate::export::PAYLOAD))
}

fn any(accounts: &Accounts, is: impl Fn(&Gateway) -> bool) -> bool {
    let mut gateways = accounts.values().flat_map(|account| account.values());
    gateways.any(|gateway| is(gateway))
}

fn settings(
    server: &schema::Server,
    admin: &schema::Admin,
    data_dir: Option<&PathBuf>,
    log: &schema::Log,
    dns: &schema::Dns,
    problems: &mut Problems,
) -> Settings {
    let schema::Admin {
        listen: admin_listen,
        tokens,
    } = admin;
    let schema::Log { access, level } = log;
    let schema::Dns { servers } = dns;
    let default_listen = vec!["127.0.0.1:8787".to_owned()];
    let listen = addresses(
        "server.listen",
        server.listen.as_ref().unwrap_or(&default_listen),
        problems,
    );
    if server.listen.as_ref().is_some_and(Vec::is_empty) {
        problems.add(
            "server.listen",
            "names no address; write at least one, such as \"127.0.0.1:8787\"",
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Settings {
        listen,
        tls: server.tls.clone(),
        threads: if server.threads == 0 {
            cores
        } else {
            server.threads
        },
        header_timeout: server
            .header_timeout
            .map_or(Duration::from_secs(30), |d| d.0),
        admin_listen: admin_address(admin_listen.as_deref(), tokens.is_empty(), problems),
        data_dir: self::data_dir(data_dir),
        upgrade_socket: server
            .upgrade_socket
            .clone()
            .unwrap_or_else(|| "/run/tollgate/upgrade.sock".into()),
        cache_memory: 0,
        cache_disk: 0,
        logs: None,
        redact: logs::redaction::Rules::default(),
        exports: Exports::default(),
        access_log: *access,
        log_filter: log_filter(level.as_deref(), problems),
        dns_servers: addresses("dns.servers", servers, problems),
    }
}

/// Where what must survive a restart lies.
pub fn data_dir(configured: Option<&PathBuf>) -> PathBuf {
    let configured = configured.cloned();
    configured.unwrap_or_else(|| DATA_DIR.into())
}

fn addresses(path: &str, texts: &[String], problems: &mut Problems) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(address) if addresses.contains(&address) => {
                problems.add(format!("{path}[{index}]"), format!("`{text}` stands twice"))
            }
            Ok(address) => addresses.push(address),
            Err(_) => problems.add(
                format!("{path}[{index}]"),
                format!(
                    "`{text}` is not an address and a port such as 127.0.0.1:8787 or [::1]:8787"
                ),
            ),
        }
    }
    addresses
}

/// Where there are no tokens, whoever reaches the listener may use it.
fn admin_address(text: Option<&str>, is_open: bool, problems: &mut Problems) -> SocketAddr {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8788);
    let Some(text) = text else { return default };
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() || !is_open => address,
        Ok(_) => {
            problems.add("admin.listen", format!("`{text}` is not a loopback address; without admin.tokens the admin listener must stay on 127.0.0.1 or [::1]"));
            default
        }
        Err(_) => {
            problems.add(
                "admin.listen",
                format!("`{text}` is not an address and a port such as 127.0.0.1:8788"),
            );
            default
        }
    }
}

/// Pingora reports every failed request at `error`; the access log has it already.
fn log_filter(level: Option<&str>, problems: &mut Problems) -> String {
    let level = level.unwrap_or("info");
    if level.parse::<log::LevelFilter>().is_err() {
        problems.add(
            "log.level",
            format!("`{level}` is not a level; use error, warn, info, debug or trace"),
        );
    }
    // What the engines print at debug holds clients' keys. The wait that is part of every
    // upgrade is an error to Pingora; real ones are told by the upgrade itself.
    let verbose = matches!(level, "debug" | "trace");
    let engines = if verbose { "info" } else { "warn" };
    let mut filter = format!("{level},pingora_core::server::transfer_fd=off");
    for engine in [
        "pingora_core",
        "pingora_proxy",
        "pingora_http",
        "h2",
        "rustls",
        // Tells of every line that is written to a log beside the files that it watches.
        "notify",
    ] {
        filter += &format!(",{engine}={engines}");
    }
    filter + ",hickory_resolver=error,hickory_net=error"
}

fn limits(server: &schema::Server, problems: &mut Problems) -> Limits {
    let schema::Server {
        listen: _,
        tls: _,
        threads: _,
        max_body,
        max_upload,
        max_buffered,
        max_header,
        header_timeout: _,
        body_timeout,
        write_timeout,
        keepalive_timeout,
        grace_period: _,
        drain_timeout: _,
        upgrade_socket: _,
        in_flight: _,
    } = server;
    const MIB: u64 = 1 << 20;
    let bytes = |size: &Option<ByteSize>, default| size.map_or(default, |size| size.0);
    let time = |value: &Option<super::units::Duration>, default| {
        value.map_or(Duration::from_secs(default), |d| d.0)
    };
    let limits = Limits {
        max_body: bytes(max_body, 32 * MIB),
        max_upload: bytes(max_upload, 1024 * MIB),
        max_buffered: bytes(max_buffered, 1024 * MIB),
        max_header: usize::try_from(bytes(max_header, 64 << 10)).unwrap_or(usize::MAX),
        body_timeout: time(body_timeout, 60),
        write_timeout: time(write_timeout, 60),
        keepalive_timeout: time(keepalive_timeout, 75),
    };
    if limits.max_buffered < limits.max_body {
        problems.add(
            "server.max_buffered",
            "must be at least server.max_body, or the largest permitted body could never be held",
        );
    }
    // Pingora itself refuses heads over 1 MiB.
    if !(1024..=1 << 20).contains(&limits.max_header) {
        problems.add("server.max_header", "must be between 1KiB and 1MiB");
    }
    for (path, value) in [
        ("server.body_timeout", limits.body_timeout),
        ("server.write_timeout", limits.write_timeout),
        ("server.keepalive_timeout", limits.keepalive_timeout),
    ] {
        if value.is_zero() {
            problems.add(path, "must be more than 0s");
        }
    }
    limits
}

type Accounts = AHashMap<Box<str>, AHashMap<Box<str>, Arc<Gateway>>>;

/// What a deployment has for its gateways.
struct Offered<'a> {
    /// Providers by slug and alias.
    providers: &'a AHashMap<Box<str>, Arc<Provider>>,
    /// Their slugs by slug and alias.
    names: bounds::Names<'a>,
    /// The provider keys that it keeps.
    kept: &'a Kept,
}

fn resolve_accounts(
    accounts: &std::collections::BTreeMap<String, schema::Account>,
    offered: &Offered<'_>,
    problems: &mut Problems,
) -> Accounts {
    if accounts.is_empty() {
        problems.add("accounts", "no gateway is configured; write `accounts: { default: { gateways: { default: {} } } }`");
    }
    let mut resolved = Accounts::new();
    for (account, schema::Account { gateways }) in accounts {
        check_id(&format!("accounts.{account}"), account, problems);
        let of_account = resolved.entry(account.as_str().into()).or_default();
        for (id, gateway) in gateways {
            check_id(&format!("accounts.{account}.gateways.{id}"), id, problems);
            of_account.insert(
                id.as_str().into(),
                Arc::new(resolve_gateway(account, id, gateway, offered, problems)),
            );
        }
    }
    resolved
}

fn resolve_gateway(
    account: &str,
    id: &str,
    gateway: &schema::Gateway,
    offered: &Offered<'_>,
    problems: &mut Problems,
) -> Gateway {
    let schema::Gateway {
        access,
        authentication,
        byok_only,
        providers: own_keys,
        cache,
        on_client_disconnect,
        retry,
        timeouts,
        health,
        in_flight,
        logs,
        metadata,
        rate_limits,
        routes,
        spend_limits,
    } = gateway;
    let at = |key| format!("accounts.{account}.gateways.{id}.{key}");
    let anyone_may_spend_stored_keys = authentication.anyone_may_spend_stored_keys;
    let authentication = tokens::resolve(&at("authentication"), authentication, problems);
    let cache = cache::policy(
        &at("cache"),
        cache.as_ref(),
        *on_client_disconnect,
        problems,
    );
    let retry = Retry::default().with(&routing::retry(&at("retry"), retry, problems));
    let timeouts = routing::timeouts(&at("timeouts"), timeouts, problems);
    let health = routing::health(&at("health"), health, problems);
    let in_flight = in_flight::cap(&at("in_flight"), *in_flight, problems);
    let metadata = records::metadata(&at("metadata"), metadata, problems);
    let label: Box<str> = format!("{account}/{id}").into();
    let bounds = bounds::Written {
        scope: &Scope::Gateway(label.clone()),
        path: &at(""),
        access,
        rate_limits,
        spend_limits,
    };
    let bounds = bounds::resolve(&bounds, problems);
    let misnamed = bounds::misnamed(&at(""), access, spend_limits, &offered.names);
    problems.0.extend(misnamed);
    let owner = keys::Owner {
        path: &at("providers"),
        label: &label,
        kept: offered.kept.of(&label),
    };
    let providers = mount(&owner.provide(own_keys, offered.providers, problems));
    let terms = routes::Terms {
        path: &at("routes"),
        retry,
        may_be_kept: offered.kept.in_use,
        providers: &providers,
    };
    let routes = routes::resolve(routes, &terms, problems);
    Gateway {
        account: account.into(),
        id: id.into(),
        label,
        authentication,
        byok_only: *byok_only,
        anyone_may_spend_stored_keys,
        cache,
        retry,
        timeouts,
        health,
        in_flight,
        metadata,
        bounds,
        logs: records::policy(*logs),
        routes,
        providers,
    }
}

/// The providers as one gateway offers them.
fn mount(providers: &AHashMap<Box<str>, Arc<Provider>>) -> AHashMap<Box<str>, Arc<Mounted>> {
    let mut mounts: AHashMap<*const Provider, Arc<Mounted>> = AHashMap::new();
    let mut mount = |provider: &Arc<Provider>| {
        let mounted = mounts.entry(Arc::as_ptr(provider)).or_insert_with(|| {
            Arc::new(Mounted {
                provider: Arc::clone(provider),
                series: OnceLock::new(),
                known: OnceLock::new(),
                gates: OnceLock::new(),
            })
        });
        Arc::clone(mounted)
    };
    let named = providers.iter();
    named
        .map(|(slug, provider)| (slug.clone(), mount(provider)))
        .collect()
}

/// Ids stand in URLs and labels: 1 to 64 letters, digits, `-` and `_`, as Cloudflare's clients check them.
fn check_id(path: &str, id: &str, problems: &mut Problems) {
    let good = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && id.as_bytes()[0].is_ascii_alphanumeric();
    if !good {
        problems.add(
            path,
            "an id is 1 to 64 letters, digits, - and _, and begins with a letter or digit",
        );
    }
}
