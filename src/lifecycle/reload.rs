//! Reading the configuration, at the start and again while serving, and making it again of the same
//! text when the provider keys change that are kept.
//!
//! A reload is all or nothing: a configuration with any mistake changes nothing. Requests
//! in flight keep the snapshot they began with.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::certificate::{self, Certificate};
use super::own_mock::{self, OwnMock};
use super::stored_keys::StoredKeys;
use crate::admin::setup;
use crate::config::load::parse;
use crate::config::resolve::{MOCK, Resolved, Settings, resolve_with};
use crate::config::{Problem, schema};
use crate::gateway::Snapshot;
use crate::limits::concurrency::Registry;
use crate::provider_keys::store::Store;
use crate::routing::known::Known;
use crate::telemetry::metrics::{Metrics, Outcome};

/// A changed file must be the same for this long before it is believed.
const STILL: Duration = Duration::from_millis(100);

/// A configuration that was read and checked.
pub struct Loaded {
    /// As written.
    pub config: schema::Config,
    /// As used.
    pub resolved: Resolved,
    /// The provider keys that go with it.
    pub keys: StoredKeys,
}

/// Reads and checks the file at `path`. `mock` tells where the built-in provider listens, and
/// is asked only if the configuration names it. `store`: where provider keys are kept, if not where
/// the configuration says.
///
/// # Errors
/// Every mistake, each with its place.
pub fn load(
    path: &Path,
    mock: &dyn Fn() -> io::Result<SocketAddr>,
    store: Option<&Store>,
) -> Result<Loaded, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!(
            "cannot read `{}`: {error}; name another file with --conf",
            path.display()
        );
        vec![Problem::new("", message)]
    })?;
    if text.trim().is_empty() {
        let message = format!("`{}` is empty", path.display());
        return Err(vec![Problem::new("", message)]);
    }
    let environment = |name: &str| std::env::var(name).ok();
    let config = parse(&text, &environment)?;
    let keys = StoredKeys::of(&config, &environment, store)?;
    let resolved = resolve_both(&config, mock, &keys)?;
    Ok(Loaded {
        config,
        resolved,
        keys,
    })
}

fn resolve_both(
    config: &schema::Config,
    mock: &dyn Fn() -> io::Result<SocketAddr>,
    keys: &StoredKeys,
) -> Result<Resolved, Vec<Problem>> {
    let mock = if config.providers.contains_key(MOCK) {
        mock()
    } else {
        Ok(own_mock::NOWHERE)
    };
    let mock = mock.map_err(|error| {
        vec![Problem::new(
            "providers.mock",
            format!("cannot be started: {error}"),
        )]
    })?;
    resolve_with(config, mock, &keys.kept)
}

/// What a reload did.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// Fields whose new value only an upgrade or a restart applies. The rest is applied.
    pub restart_required: Vec<&'static str>,
}

/// The configuration that is being served.
pub struct Live {
    path: PathBuf,
    snapshot: Arc<ArcSwap<Snapshot>>,
    settings: ArcSwap<Settings>,
    started_with: Settings,
    certificate: Option<Arc<Certificate>>,
    mock: OwnMock,
    metrics: Arc<Metrics>,
    known: Arc<Known>,
    gates: Arc<Registry>,
    /// What `snapshot` was made of, but for the provider keys' secrets.
    made_of: ArcSwap<MadeOf>,
    /// Serialises reloads; holds the fingerprint of the files at the last attempt.
    attempt: Mutex<u64>,
}

/// What a snapshot is made of.
struct MadeOf {
    config: schema::Config,
    keys: StoredKeys,
}

impl Live {
    /// Serves `loaded`, which was read from the file at `path`.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn new(
        path: PathBuf,
        loaded: Loaded,
        mock: OwnMock,
        metrics: Arc<Metrics>,
        known: Arc<Known>,
    ) -> Result<Self, Problem> {
        let Loaded {
            config,
            resolved,
            keys,
        } = loaded;
        keys.warn();
        let settings = resolved.settings;
        let certificate = settings.tls.as_ref().map(Certificate::read).transpose()?;
        let attempt = Mutex::new(fingerprint(&files(&path, &settings)));
        resolved.snapshot.look_up(&known);
        let gates = Arc::new(Registry::default());
        gates.apply(resolved.snapshot.caps());
        Ok(Self {
            path,
            snapshot: Arc::new(ArcSwap::from_pointee(resolved.snapshot)),
            started_with: settings.clone(),
            settings: ArcSwap::from_pointee(settings),
            certificate,
            mock,
            metrics,
            known,
            gates,
            made_of: ArcSwap::from_pointee(MadeOf {
                config,
                keys: keys.without_secrets(),
            }),
            attempt,
        })
    }

    /// The provider keys that this process keeps.
    pub fn stored_keys(&self) -> StoredKeys {
        self.made_of.load().keys.clone()
    }

    /// Has requests spend the provider keys that are kept now; the configuration stays as it was
    /// last read. It waits for the disk.
    ///
    /// # Errors
    /// Every mistake; then nothing has changed.
    pub fn follow_keys(&self) -> Result<(), Vec<Problem>> {
        let _one_at_a_time = self.attempt.blocking_lock();
        let made_of = self.made_of.load();
        let config = made_of.config.clone();
        let keys = made_of.keys.again().map_err(|problem| vec![problem])?;
        let resolved = resolve_both(&config, &|| self.mock.address(), &keys)?;
        keys.warn();
        self.serve(Loaded {
            config,
            resolved,
            keys,
        });
        Ok(())
    }

    /// What requests read: take one at the start of a request and keep it.
    pub fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        self.snapshot.clone()
    }

    /// The settings in force, as far as they can change in a running process.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Where calls to providers are counted, whatever configuration they began under.
    pub fn gates(&self) -> Arc<Registry> {
        self.gates.clone()
    }

    /// The listener's certificate, if it serves HTTPS.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }

    /// The configuration file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files whose change calls for a reload.
    pub fn files(&self) -> Vec<PathBuf> {
        files(&self.path, &self.settings())
    }

    /// Reads everything again and swaps it in; `cause` is for the log.
    ///
    /// # Errors
    /// Every mistake; then nothing has changed.
    pub async fn reload(self: &Arc<Self>, cause: &str) -> Result<Applied, Vec<Problem>> {
        let mut attempt = self.attempt.lock().await;
        *attempt = fingerprint(&self.files());
        self.attempt(cause).await
    }

    /// Reloads if a file differs from what the last attempt saw.
    pub async fn reload_if_changed(self: &Arc<Self>) {
        let files = self.files();
        let mut now = fingerprint(&files);
        if now == *self.attempt.lock().await {
            return;
        }
        // A writer may stand between emptying a file and filling it.
        loop {
            tokio::time::sleep(STILL).await;
            let before = std::mem::replace(&mut now, fingerprint(&files));
            if before == now {
                break;
            }
        }
        let mut attempt = self.attempt.lock().await;
        if std::mem::replace(&mut *attempt, now) != now {
            // The outcome is logged and counted.
            let _ = self.attempt("a file changed").await;
        }
    }

    async fn attempt(self: &Arc<Self>, cause: &str) -> Result<Applied, Vec<Problem>> {
        super::systemd::reloading();
        let this = self.clone();
        let outcome = tokio::task::spawn_blocking(move || this.apply())
            .await
            .unwrap_or_else(|error| {
                Err(vec![Problem::new(
                    "",
                    format!("the reload itself failed: {error}"),
                )])
            });
        self.report(cause, &outcome);
        outcome
    }

    fn apply(&self) -> Result<Applied, Vec<Problem>> {
        let store = self.made_of.load().keys.store.clone();
        let loaded = load(&self.path, &|| self.mock.address(), Some(&store))?;
        let resolved = &loaded.resolved;
        // Everything that can fail comes first.
        let key = match (&self.certificate, &resolved.settings.tls) {
            (Some(served), Some(tls)) => Some((
                served,
                certificate::read(tls).map_err(|problem| vec![problem])?,
            )),
            _ => None,
        };
        if let Some((served, key)) = key {
            served.replace(key);
        }
        let restart_required = self.started_with.restart_required(&resolved.settings);
        loaded.keys.warn();
        self.serve(loaded);
        Ok(Applied { restart_required })
    }

    /// From now on requests go by `loaded`.
    fn serve(&self, loaded: Loaded) {
        let Loaded {
            config,
            resolved,
            keys,
        } = loaded;
        // While the old one still holds what is known of those that both name.
        resolved.snapshot.look_up(&self.known);
        // Requests of the new snapshot look up what it caps.
        self.gates.apply(resolved.snapshot.caps());
        let is_open = resolved.snapshot.operators.is_empty();
        self.snapshot.store(Arc::new(resolved.snapshot));
        setup::keep(&self.started_with.data_dir, is_open);
        self.settings.store(Arc::new(resolved.settings));
        let keys = keys.without_secrets();
        self.made_of.store(Arc::new(MadeOf { config, keys }));
    }

    fn report(&self, cause: &str, outcome: &Result<Applied, Vec<Problem>>) {
        self.metrics.reloaded(if outcome.is_ok() {
            Outcome::Success
        } else {
            Outcome::Failure
        });
        match outcome {
            Ok(applied) => {
                self.metrics.restart_required(&applied.restart_required);
                log::info!("reloaded {} because {cause}", self.path.display());
                if !applied.restart_required.is_empty() {
                    let fields = applied.restart_required.join(", ");
                    log::warn!("`tollgate upgrade` or a restart is needed to apply: {fields}");
                }
                super::systemd::ready("serving");
            }
            Err(problems) => {
                log::error!(
                    "not reloaded; the last good configuration keeps serving: {}",
                    self.path.display()
                );
                problems.iter().for_each(|problem| log::error!("{problem}"));
                super::systemd::ready("serving the last good configuration: the file has mistakes");
            }
        }
    }
}

fn files(path: &Path, settings: &Settings) -> Vec<PathBuf> {
    let tls = settings
        .tls
        .iter()
        .flat_map(|tls| [tls.cert.clone(), tls.key.clone()]);
    std::iter::once(path.to_owned()).chain(tls).collect()
}

/// Changes when the contents of `files` change. An unreadable file counts as empty.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}
