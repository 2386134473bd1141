//! From the command line to a serving process, and to its end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pingora_core::apps::HttpServerOptions;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::listeners::ListenerConfig;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::listening::Service;

use super::drain::{self, Shutdown};
use super::entrance::{Entrance, HeadLimits, Limits};
use super::greeting::greeting;
use super::own_mock::OwnMock;
use super::phase::Phase;
use super::reload::{Live, Loaded, load};
use super::services::{Binder, Control, Listening, SharedPredecessor};
use super::stored_keys;
use super::successor::Predecessor;
use super::upgrade::Upgrader;
use crate::admin::{Admin, setup};
use crate::analytics;
use crate::cache::store::{self, Cache};
use crate::config::Problem;
use crate::config::resolve::Settings;
use crate::dns::Dns;
use crate::export::Exports;
use crate::keys::Keys;
use crate::ledger::{Books, Entry, Ledger};
use crate::limits::spend::{self, Budgets};
use crate::logs::redaction::Redaction;
use crate::logs::store::Store;
use crate::probe::Prober;
use crate::proxy::cancel::Cancellable;
use crate::proxy::{self, Door};
use crate::record::{Logged, RequestRecord};
use crate::routing::known::Known;
use crate::spending::Spending;
use crate::telemetry::log as log_setup;
use crate::telemetry::metrics::Metrics;

/// How long a new process waits to learn what it has of budgets. Until it knows, that is nothing.
const LEARNING: Duration = Duration::from_secs(5);

/// Longer than any process lives: the drain ends it, not Pingora's fixed sleep.
const OUT_OF_REACH: u64 = u32::MAX as u64;

/// Serves the configuration at `path` until told to stop. With `takeover`, takes the
/// listeners over from the process that started this one.
pub fn serve(path: &Path, takeover: Option<&Path>) -> ExitCode {
    let predecessor = match takeover.map(|_| Predecessor::on_stdin()).transpose() {
        Ok(predecessor) => predecessor,
        Err(error) => return fail(None, &format!("cannot take over: {error}"), &[]),
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mock = OwnMock::new(std::thread::available_parallelism().map_or(1, usize::from));
    let loaded = match load(&path, &|| mock.address(), None) {
        Ok(loaded) => loaded,
        Err(problems) => {
            return fail(
                predecessor,
                &format!("{} has mistakes", path.display()),
                &problems,
            );
        }
    };
    log_setup::init(
        &loaded.resolved.settings.log_filter,
        loaded.resolved.settings.access_log,
    );
    match Shell::new(&path, loaded, mock, takeover.is_some()) {
        Ok(shell) => shell.run(takeover, predecessor),
        Err(problem) => fail(predecessor, "cannot start", &[problem]),
    }
}

/// Says why this process does not serve.
fn fail(predecessor: Option<Predecessor>, reason: &str, problems: &[Problem]) -> ExitCode {
    eprintln!("tollgate: {reason}");
    problems.iter().for_each(|problem| eprintln!("  {problem}"));
    if let Some(mut predecessor) = predecessor {
        predecessor.refuse(reason, problems);
    }
    ExitCode::FAILURE
}

/// What the services share.
struct Shell {
    phase: Arc<Phase>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    dns: Arc<Dns>,
    cache: Arc<Cache>,
    known: Arc<Known>,
    ledger: Arc<Ledger>,
    logs: Option<Store>,
    analytics: analytics::store::Store,
    keys: Arc<Keys>,
    budgets: Arc<Budgets>,
    upgrader: Arc<Upgrader>,
    settings: Settings,
    greeting: String,
}

impl Shell {
    fn new(path: &Path, loaded: Loaded, mock: OwnMock, takeover: bool) -> Result<Self, Problem> {
        let settings = loaded.resolved.settings.clone();
        let metrics =
            Metrics::new().map_err(|error| Problem::new("", format!("metrics: {error}")))?;
        let (phase, metrics) = (Arc::new(Phase::default()), Arc::new(metrics));
        let cache = Cache::new(
            store::Settings {
                memory: settings.cache_memory,
                disk: settings.cache_disk,
                data_dir: settings.data_dir.clone(),
            },
            metrics.clone(),
        );
        let books = books(&settings, &metrics)?;
        let (logs, analytics) = (books.store.clone(), books.analytics.clone());
        let ledger = Ledger::new(books)
            .map_err(|error| Problem::new("", format!("cannot start a thread: {error}")))?;
        let keys = keys(&settings, &metrics)?;
        let is_open = loaded.resolved.snapshot.operators.is_empty();
        setup::keep(&settings.data_dir, is_open);
        let budgets = budgets(&settings, &metrics)?;
        let dns = Dns::new(&settings.dns_servers).map_err(|error| Problem::new("dns", error))?;
        // Whoever asked for an upgrade knows already where tollgate listens.
        let greeting = if takeover {
            String::new()
        } else {
            greeting(&loaded.config, &settings)
        };
        let socket = settings.upgrade_socket.clone();
        let upgrader = Upgrader::new(
            phase.clone(),
            metrics.clone(),
            budgets.clone(),
            path.to_owned(),
            socket,
        )
        .map_err(|error| Problem::new("", format!("cannot find the running program: {error}")))?;
        let known: Arc<Known> = Arc::default();
        let live = Live::new(
            path.to_owned(),
            loaded,
            mock,
            metrics.clone(),
            known.clone(),
        )?;
        let (dns, live, upgrader) = (Arc::new(dns), Arc::new(live), Arc::new(upgrader));
        stored_keys::follow(live.clone())
            .map_err(|error| Problem::new("", format!("cannot start a thread: {error}")))?;
        Ok(Self {
            phase,
            live,
            metrics,
            dns,
            cache: Arc::new(cache),
            known,
            ledger: Arc::new(ledger),
            logs,
            analytics,
            keys,
            budgets,
            upgrader,
            settings,
            greeting,
        })
    }

    fn run(self, takeover: Option<&Path>, mut predecessor: Option<Predecessor>) -> ExitCode {
        let conf = server_conf(&self.settings, takeover);
        let opt = Opt {
            upgrade: takeover.is_some(),
            ..Opt::default()
        };
        let mut server = Server::new_with_opt_and_conf(opt, conf);
        if let Some(predecessor) = &mut predecessor {
            predecessor.validated();
        }
        // Receives the listeners of the old process, or exits if they do not come.
        server.bootstrap();
        if takeover.is_some()
            && let Err(problem) = self.budgets.share_within(LEARNING)
        {
            log::error!("the old process may have all that is left of budgets: {problem}");
        }
        if let Err(error) = self.add_services(&mut server, Arc::new(Mutex::new(predecessor))) {
            eprintln!("tollgate: {error}");
            return ExitCode::FAILURE;
        }
        let (ledger, budgets) = (self.ledger.clone(), self.budgets.clone());
        let shutdown = Shutdown::new(self.phase, self.live, self.cache, self.ledger, self.budgets);
        let shutdown_signal = Box::new(shutdown);
        server.run(RunArgs { shutdown_signal });
        ledger.settle();
        drain::end(&budgets);
        log_setup::flush();
        ExitCode::SUCCESS
    }

    fn add_services(
        &self,
        server: &mut Server,
        predecessor: SharedPredecessor,
    ) -> pingora_core::Result<()> {
        let settings = &self.settings;
        let accepting = Arc::new(AtomicUsize::new(0));
        let mut addresses = settings.listen.clone();
        addresses.push(settings.admin_listen);
        let (upgrader, accepts) = (self.upgrader.clone(), accepting.clone());
        let binder = server.add_service(Binder {
            addresses,
            upgrader,
            predecessor: predecessor.clone(),
        });
        let door = Listening {
            service: self.door(server)?,
            accepting: accepting.clone(),
        };
        let admin = Listening {
            service: self.admin(),
            accepting,
        };
        let listening = [server.add_service(door), server.add_service(admin)];
        let control = server.add_service(Control {
            phase: self.phase.clone(),
            live: self.live.clone(),
            predecessor,
            accepting: accepts,
            expected: listening.len(),
            cache: self.cache.clone(),
            prober: self.prober(),
            greeting: self.greeting.clone(),
        });
        for service in &listening {
            service.add_dependency(&binder);
            control.add_dependency(service);
        }
        Ok(())
    }

    fn prober(&self) -> Prober {
        Prober::new(
            self.live.snapshot(),
            self.known.clone(),
            self.metrics.clone(),
            self.dns.clone(),
        )
    }

    /// To providers.
    fn connections(&self, server: &Server) -> proxy::Connections {
        let options = ConnectorOptions::from_server_conf(&server.configuration);
        let idle = IDLE_CONNECTIONS * self.settings.threads;
        proxy::Connections::new(Connector::new(Some(options)), idle)
    }

    /// The listeners for applications.
    fn door(
        &self,
        server: &Server,
    ) -> pingora_core::Result<Service<Entrance<Cancellable<pingora_proxy::HttpProxy<Door>>>>> {
        let shared = proxy::Shared {
            metrics: self.metrics.clone(),
            phase: self.phase.clone(),
            dns: self.dns.clone(),
            connections: self.connections(server),
            cache: self.cache.clone(),
            known: self.known.clone(),
            ledger: self.ledger.clone(),
            keys: self.keys.clone(),
            budgets: self.budgets.clone(),
        };
        let door = Door::new(&self.live, shared);
        let mut proxy = pingora_proxy::http_proxy(&server.configuration, door);
        proxy.server_options = Some(leave_connect_to_the_door());
        let proxy = Cancellable::new(proxy);
        let snapshot = self.live.snapshot();
        let timeout = self.settings.header_timeout;
        let limits: Limits = Box::new(move || {
            let limits = &snapshot.load().limits;
            HeadLimits {
                timeout,
                idle: limits.keepalive_timeout,
                size: limits.max_header,
            }
        });
        let (ledger, snapshot) = (self.ledger.clone(), self.live.snapshot());
        let report = Box::new(move |kind| {
            ledger.enter(Box::new(Entry {
                record: RequestRecord::refused(kind),
                spending: Spending::Nothing,
                logged: Logged::Facts,
                reserved: None,
                prices: Arc::clone(&snapshot.load().prices),
            }));
        });
        let entrance = Entrance::new(proxy, limits, self.phase.clone(), Phase::request)
            .with_http2()
            .reporting_to(report);
        let mut service = Service::new("door".to_owned(), entrance);
        for address in &self.settings.listen {
            let mut listener = ListenerConfig::tcp(address.to_string());
            if let Some(certificate) = self.live.certificate() {
                listener = listener.tls(certificate.settings()?);
            }
            service.add_listener(listener);
        }
        Ok(service)
    }

    /// The listener for operators.
    fn admin(&self) -> Service<Entrance<Admin>> {
        let address = self.settings.admin_listen;
        let admin = Admin {
            address,
            data_dir: self.settings.data_dir.clone(),
            phase: self.phase.clone(),
            live: self.live.clone(),
            upgrader: self.upgrader.clone(),
            metrics: self.metrics.clone(),
            cache: self.cache.clone(),
            known: self.known.clone(),
            ledger: self.ledger.clone(),
            logs: self.logs.clone(),
            analytics: self.analytics.clone(),
            keys: self.keys.clone(),
            budgets: self.budgets.clone(),
        };
        let entrance = Entrance::new(
            admin,
            Box::new(crate::admin::head_limits),
            self.phase.clone(),
            Phase::operation,
        );
        let mut service = Service::new("admin".to_owned(), entrance);
        service.threads = Some(1);
        service.add_tcp(&address.to_string());
        service
    }
}

/// Everybody who has a view of finished requests.
fn books(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Books, Problem> {
    let store = log_store(settings, metrics)?;
    let directory = settings.data_dir.join("analytics");
    let analytics = analytics::store::Store::open(&directory, analytics::store::Options::default())
        .map_err(|error| Problem::new("analytics", format!("cannot start a thread: {error}")))?;
    let exports = Arc::new(exports(settings)?);
    let followed = metrics
        .follow_analytics(analytics.clone())
        .and_then(|()| metrics.follow_exports(exports.clone()));
    followed.map_err(|error| Problem::new("", format!("metrics: {error}")))?;
    let redaction = Redaction::new(&settings.redact);
    Ok(Books {
        metrics: metrics.clone(),
        access_log: settings.access_log,
        store,
        analytics,
        exports,
        redaction: redaction.map_err(|rule| Problem::new("logs.redact", rule.to_string()))?,
    })
}

/// Opens the budgets. A store that cannot be opened is told and tried again later.
fn budgets(settings: &Settings, metrics: &Metrics) -> Result<Arc<Budgets>, Problem> {
    let directory = settings.data_dir.join("limits");
    let budgets = Budgets::open(&directory, spend::Options::default())
        .map_err(|error| Problem::new("", format!("cannot start a thread: {error}")))?;
    let budgets = Arc::new(budgets);
    metrics
        .follow_budgets(budgets.clone())
        .map_err(|error| Problem::new("", format!("metrics: {error}")))?;
    Ok(budgets)
}

/// Those who are told of finished requests. What they ask of name servers ends with them.
fn exports(settings: &Settings) -> Result<Exports, Problem> {
    let first = |problems: Vec<Problem>| {
        let mut problems = problems.into_iter();
        problems.next().unwrap_or_else(|| Problem::new("otel", ""))
    };
    let told = settings.exports.settings().map_err(first)?;
    let dns = Dns::new(&settings.dns_servers).map_err(|error| Problem::new("dns", error))?;
    Exports::start(told, Arc::new(dns)).map_err(|error| Problem::new("", error))
}

/// Opens the log store, if there is to be one. One that cannot be opened is told and tried again
/// later: traffic goes on without it.
fn log_store(settings: &Settings, metrics: &Metrics) -> Result<Option<Store>, Problem> {
    let Some(logs) = &settings.logs else {
        return Ok(None);
    };
    let options = logs
        .options()
        .map_err(|rule| Problem::new("logs.redact", rule.to_string()))?;
    let store = Store::open(&settings.data_dir.join("logs"), options)
        .map_err(|error| Problem::new("logs", format!("cannot start a thread: {error}")))?;
    metrics
        .follow_logs(store.clone())
        .map_err(|error| Problem::new("", format!("metrics: {error}")))?;
    Ok(Some(store))
}

/// Opens the store of API keys. One that cannot be opened is told and tried again: traffic goes on
/// without keys.
fn keys(settings: &Settings, metrics: &Metrics) -> Result<Arc<Keys>, Problem> {
    let keys = Keys::open(settings.data_dir.join("keys"))
        .map_err(|error| Problem::new("", format!("cannot start a thread: {error}")))?;
    let keys = Arc::new(keys);
    metrics
        .follow_keys(keys.clone())
        .map_err(|error| Problem::new("", format!("metrics: {error}")))?;
    Ok(keys)
}

/// The engine would refuse `CONNECT` with a bare 405; the door refuses it as it does the rest.
fn leave_connect_to_the_door() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.allow_connect_method_proxying = true;
    options
}

/// Idle connections to providers that are kept for each thread, those that have waited longest going
/// first. Pingora's 128 would make more requests at a time than that pay for a new connection
/// and its TLS; an idle one costs some 30 KiB.
const IDLE_CONNECTIONS: usize = 1024;

fn server_conf(settings: &Settings, takeover: Option<&Path>) -> ServerConf {
    let socket = takeover.map_or_else(|| settings.upgrade_socket.clone(), PathBuf::from);
    ServerConf {
        threads: settings.threads,
        // With one thread there is nobody to steal from, and the simpler runtime is cheaper.
        work_stealing: settings.threads > 1,
        upgrade_sock: socket.display().to_string(),
        grace_period_seconds: Some(OUT_OF_REACH),
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        ..ServerConf::default()
    }
}
