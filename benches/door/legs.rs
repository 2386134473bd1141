//! What is compared: the upstream itself, bare Pingora before it, the gateway before it,
//! as it is, with a cache, with a log store, and governed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::answer::CacheStatus;
use crate::figures::{Against, Cell, Tier};
use crate::process::{Cores, Process, Scratch, free_address};
use crate::{Binaries, Outcome, admin};

/// The path the upstream serves, and what a client of the gateway puts before it.
const DIRECT_PATH: &str = "/v1/chat/completions";
const GATEWAY_PATH: &str = "/v1/default/default/openai/chat/completions";

/// How a gateway is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// For tables, errors and files.
    name: &'static str,
    /// The sizes of its cache; none when nothing is cached.
    cache: Option<&'static str>,
    /// Whether it records every call, with its bodies.
    records: bool,
    /// Whether an API key is made for its callers.
    keyed: bool,
    /// What its gateway says.
    gateway: &'static str,
}

/// Longer than any run: what is cached stays so.
const CACHE: &str = "
        cache: { ttl: 1d }
";

/// Nothing switched on.
pub const PLAIN: Setup = Setup {
    name: "gateway",
    cache: None,
    records: false,
    keyed: false,
    gateway: "",
};
/// The log store on, as it is by default: every call with its heads and bodies.
pub const RECORDING: Setup = Setup {
    name: "recording-gateway",
    records: true,
    ..PLAIN
};
/// All that is for the day on which a provider fails, on a day on which none does.
pub const RESILIENT: Setup = Setup {
    name: "resilient-gateway",
    gateway: r#"
        authentication: { anyone_may_spend_stored_keys: true }
        retry: { max_attempts: 3, delay: 200ms, backoff: exponential }
        timeouts: { connect: 5s, first_byte: 60s, idle: 60s, total: 10m }
        health: { failures: 5, window: 30s }
        routes:
          chat:
            match: { provider: openai, model: gpt-4o-mini }
            strategy: latency
            targets:
              - { provider: openai, model: gpt-4o-mini, first_byte: 10s, retry: { max_attempts: 2 } }
              - { provider: groq, model: llama-3.3-70b-versatile, weight: 0 }
"#,
    ..PLAIN
};
/// A cache whose answers lie in memory, on disk too.
pub const CACHING: Setup = Setup {
    name: "caching-gateway",
    cache: Some("memory: 64MiB, disk: 1GiB"),
    gateway: CACHE,
    ..PLAIN
};
/// A cache with the least memory there may be: its answers lie on disk.
const DISK_CACHING: Setup = Setup {
    name: "disk-caching-gateway",
    cache: Some("memory: 1MiB, disk: 1GiB"),
    gateway: CACHE,
    ..PLAIN
};
/// Who may pass, how fast and for how much, what was answered before, and what became of it: all
/// is asked and nothing refuses.
pub const GOVERNED: Setup = Setup {
    name: "governed-gateway",
    records: true,
    keyed: true,
    gateway: r#"
        authentication: { required: true }
        cache: { ttl: 1d }
        rate_limits:
          - { id: all, limit: 1000000000000, window: 1m }
          - { id: tokens, limit: 1000000000000, window: 1m, technique: fixed, count: total_tokens, by: [ key, model ] }
          - { id: calls, limit: 1000, count: concurrent, by: [ metadata.user ] }
        spend_limits:
          - { id: per-user, limit: 9000000, window: 24h, metadata: { user: { mode: partition } } }
"#,
    ..CACHING
};
/// What stands where a key would for those who ask for none.
const NO_KEY: &str = "tg-000000000000-0000000000000000000000000000000000000000000";

/// Everything that is measured.
#[derive(Debug)]
pub struct Legs {
    direct: Leg,
    bare: Leg,
    gateway: Leg,
    resilient: Leg,
    caching: Leg,
    disk_caching: Leg,
    recording: Leg,
    governed: Leg,
}

impl Legs {
    /// Starts all of them before `upstream`.
    pub fn start(
        binaries: &Binaries,
        upstream: SocketAddr,
        cores: Cores,
        scratch: &Scratch,
    ) -> Outcome<Self> {
        let unchanged = |program| program;
        let start = |setup| gateway(binaries, setup, upstream, cores, scratch, &unchanged);
        Ok(Self {
            direct: direct(upstream),
            bare: bare("bare", upstream, cores, scratch, &unchanged)?,
            gateway: start(PLAIN)?,
            resilient: start(RESILIENT)?,
            caching: start(CACHING)?,
            disk_caching: start(DISK_CACHING)?,
            recording: start(RECORDING)?,
            governed: start(GOVERNED)?,
        })
    }

    /// What a round of `cell` visits: direct, what the gateway is held against, and the gateway
    /// it is about.
    pub fn of(&self, cell: Cell) -> [&Leg; 3] {
        let gateway = match cell {
            Cell::Hits(Tier::Disk, _) => &self.disk_caching,
            Cell::Hits(Tier::Memory, _) | Cell::Misses(_) | Cell::CachingProcess => &self.caching,
            Cell::Resilient(_) | Cell::ResilientOpen(_) => &self.resilient,
            Cell::Recorded(_) | Cell::RecordedOpen(_) | Cell::RecordingProcess => &self.recording,
            Cell::Governed(_) | Cell::GovernedAt(..) => &self.governed,
            _ => &self.gateway,
        };
        let against = match cell.against() {
            Against::Bare => &self.bare,
            Against::Unrecorded => &self.gateway,
        };
        [&self.direct, against, gateway]
    }

    /// What callers of the governed gateway bring; all legs are sent the same.
    pub fn key(&self) -> &str {
        self.governed.key()
    }

    /// The processes under test.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let gateways = [
            &self.gateway,
            &self.resilient,
            &self.caching,
            &self.disk_caching,
            &self.recording,
            &self.governed,
        ];
        let all = [&self.direct, &self.bare].into_iter().chain(gateways);
        all.filter_map(|leg| leg.process.as_ref())
    }
}

/// One of the ways to the upstream.
#[derive(Debug)]
pub struct Leg {
    /// For tables and errors.
    pub name: &'static str,
    /// Where the load connects.
    pub address: SocketAddr,
    /// The request path.
    pub path: &'static str,
    /// The process under test; none for the direct way.
    pub process: Option<Process>,
    /// Whether it has a cache.
    pub caches: bool,
    /// What is there of a gateway only.
    pub gateway: Option<Gateway>,
}

/// What a gateway has beside the way to the upstream.
#[derive(Debug)]
pub struct Gateway {
    admin: SocketAddr,
    /// Where its log store lies; none when it has none.
    pub log_store: Option<PathBuf>,
    /// The API key for its callers; none when none was made.
    key: Option<String>,
}

impl Leg {
    /// What its answers say when a cache says `status`.
    pub fn says(&self, status: CacheStatus) -> CacheStatus {
        match self.caches {
            true => status,
            false => CacheStatus::Unsaid,
        }
    }

    /// What its metrics say now; none for what has none.
    pub fn metrics(&self) -> Outcome<Option<String>> {
        let address = self.gateway.as_ref().map(|gateway| gateway.admin);
        let told = address.map(admin::metrics).transpose();
        told.map_err(|why| format!("{}: metrics: {why}", self.name))
    }

    /// US dollars its budgets have spent by now; none for what is no gateway.
    pub fn spent(&self) -> Outcome<Option<f64>> {
        let address = self.gateway.as_ref().map(|gateway| gateway.admin);
        let told = address.map(admin::spent).transpose();
        told.map_err(|why| format!("{}: budgets: {why}", self.name))
    }

    /// The API key for its callers, or what is as long as one.
    pub fn key(&self) -> &str {
        let key = self.gateway.as_ref().and_then(|g| g.key.as_deref());
        key.unwrap_or(NO_KEY)
    }
}

/// How a process under test is started: callgrind puts itself before the program.
pub type Wrapper<'a> = &'a dyn Fn(Vec<String>) -> Vec<String>;

/// The upstream, on the load's core.
pub fn start_upstream(cores: Cores, scratch: &Scratch) -> Outcome<(Process, SocketAddr)> {
    let address = free_address()?;
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = [
        this.display().to_string(),
        "upstream".into(),
        address.to_string(),
    ];
    let process = Process::start("upstream", cores.load, &program, address, scratch.path())?;
    Ok((process, address))
}

/// No proxy.
pub fn direct(upstream: SocketAddr) -> Leg {
    Leg {
        name: "direct",
        address: upstream,
        path: DIRECT_PATH,
        process: None,
        caches: false,
        gateway: None,
    }
}

/// Bare Pingora, named `name` because it can stand in for the gateway.
pub fn bare(
    name: &'static str,
    upstream: SocketAddr,
    cores: Cores,
    scratch: &Scratch,
    wrap: Wrapper,
) -> Outcome<Leg> {
    let address = free_address()?;
    let binary = std::env::current_exe()
        .map_err(|e| e.to_string())?
        .with_file_name("bare");
    let program = wrap(vec![
        binary.display().to_string(),
        address.to_string(),
        upstream.to_string(),
    ]);
    Ok(Leg {
        name,
        address,
        path: DIRECT_PATH,
        process: Some(Process::start(
            name,
            cores.tested,
            &program,
            address,
            scratch.path(),
        )?),
        caches: false,
        gateway: None,
    })
}

/// The gateway with one provider overridden to be the upstream; bare Pingora when asked for.
pub fn gateway(
    binaries: &Binaries,
    setup: Setup,
    upstream: SocketAddr,
    cores: Cores,
    scratch: &Scratch,
    wrap: Wrapper,
) -> Outcome<Leg> {
    if binaries.same {
        return bare(setup.name, upstream, cores, scratch, wrap);
    }
    if !binaries.gateway.is_file() {
        return Err(format!(
            "{} does not exist: run `cargo build --release`, or name the binary with --gateway",
            binaries.gateway.display()
        ));
    }
    let (address, admin) = (free_address()?, free_address()?);
    let directory = scratch.directory(setup.name)?;
    let conf = directory.join("tollgate.yaml");
    let yaml = configuration(setup, address, admin, upstream, &directory);
    std::fs::write(&conf, yaml).map_err(|e| format!("{}: {e}", conf.display()))?;
    let program = wrap(vec![
        binaries.gateway.display().to_string(),
        "--conf".into(),
        conf.display().to_string(),
    ]);
    let tested = cores.tested;
    let mut process = Process::start(setup.name, tested, &program, address, scratch.path())?;
    process.wait_for(admin)?;
    let key = setup.keyed.then(|| admin::make_key(admin, &directory));
    Ok(Leg {
        name: setup.name,
        address,
        path: GATEWAY_PATH,
        process: Some(process),
        caches: setup.cache.is_some(),
        gateway: Some(Gateway {
            admin,
            log_store: setup.records.then(|| directory.join("logs")),
            key: key.transpose()?,
        }),
    })
}

fn configuration(
    setup: Setup,
    listen: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    directory: &Path,
) -> String {
    let directory = directory.display();
    let sizes = setup.cache.unwrap_or_default();
    let logs = match setup.records {
        true => "",
        false => "max_size: 0",
    };
    let gateway = match setup.gateway {
        "" => " {}",
        says => says,
    };
    format!(
        r#"server:
  listen: ["{listen}"]
  threads: 1
  grace_period: 1s
  upgrade_socket: {directory}/upgrade.sock
admin: {{ listen: "{admin}" }}
data_dir: {directory}
cache: {{ {sizes} }}
log: {{ access: "off", level: warn }}
logs: {{ {logs} }}
providers:
  openai: {{ base_url: "http://{upstream}/v1", allow_insecure: true }}
  groq: {{ base_url: "http://{upstream}/v1", allow_insecure: true, keys: [{{ value: none }}] }}
accounts:
  default:
    gateways:
      default:{gateway}
"#
    )
}
