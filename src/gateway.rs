//! Everything that requests may read, immutable behind one `Arc`.
//!
//! A [`Snapshot`] is one configuration, resolved. A request takes one at its start and
//! keeps it to its end, so a reload never changes a request in flight.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;

use crate::auth::Authentication;
use crate::cache::policy::Policy;
use crate::limits::bounds::Bounds;
use crate::limits::concurrency::{Gate, Scope, Settings};
use crate::logs::policy;
use crate::metadata;
use crate::pricing::Prices;
use crate::provider::{Provider, StoredKey};
use crate::routing::health;
use crate::routing::known::{Known, OfKey, OfProvider};
use crate::routing::plan::Routes;
use crate::routing::retry::Retry;
use crate::routing::timeouts::Timeouts;
use crate::telemetry::metrics::Series;

/// One configuration, resolved.
#[derive(Debug)]
pub struct Snapshot {
    /// Limits on what clients send.
    pub limits: Limits,
    /// How long streams may finish after SIGTERM.
    pub grace_period: Duration,
    /// How long streams may finish after an upgrade.
    pub drain_timeout: Duration,
    /// Some gateway gives answers that are past their time while it fetches new ones.
    pub revalidates: bool,
    /// Some route asks two targets at the same time.
    pub hedges: bool,
    /// How many calls may be at providers at once.
    pub in_flight: Option<Settings>,
    /// What tokens cost.
    pub prices: Arc<Prices>,
    /// Most bytes of each body that the log store is to have; `None` where there is no store.
    pub logged_body: Option<usize>,
    /// Who may use the listener for operators; empty: who reaches it.
    pub operators: Authentication,
    /// Gateways by account, then by id.
    pub accounts: AHashMap<Box<str>, AHashMap<Box<str>, Arc<Gateway>>>,
}

/// Limits on what clients send.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest JSON body, and largest held body, in bytes.
    pub max_body: u64,
    /// Largest body that streams through, in bytes.
    pub max_upload: u64,
    /// All held bodies together, in bytes.
    pub max_buffered: u64,
    /// Largest request head, in bytes.
    pub max_header: usize,
    /// Longest pause of a client that sends a body.
    pub body_timeout: Duration,
    /// Longest time for one write to a client.
    pub write_timeout: Duration,
    /// How long an idle client connection is kept.
    pub keepalive_timeout: Duration,
}

/// One gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Account id.
    pub account: Box<str>,
    /// Gateway id.
    pub id: Box<str>,
    /// `account/id`, the label in metrics.
    pub label: Box<str>,
    /// Who may pass.
    pub authentication: Authentication,
    /// Requests for which there is no key are refused.
    pub byok_only: bool,
    /// Requests that bring no key may spend the stored ones, and no token either.
    pub anyone_may_spend_stored_keys: bool,
    /// How it keeps answers.
    pub cache: Policy,
    /// How often a target is tried, where a request does not say it.
    pub retry: Retry,
    /// How long providers may take that do not say it themselves.
    pub timeouts: Timeouts,
    /// When targets of routes, and their providers, are left alone.
    pub health: health::Settings,
    /// How many of its calls may be at providers at once.
    pub in_flight: Option<Settings>,
    /// Within what its requests may pass.
    pub bounds: Bounds,
    /// How it reads what clients say of their calls.
    pub metadata: metadata::Settings,
    /// What of its requests is kept in the log store.
    pub logs: policy::Policy,
    /// Calls that more than one target may answer.
    pub routes: Routes,
    /// Providers by slug; aliases lead to the same one.
    pub providers: AHashMap<Box<str>, Arc<Mounted>>,
}

/// A provider as one gateway offers it.
#[derive(Debug)]
pub struct Mounted {
    /// The provider.
    pub provider: Arc<Provider>,
    /// Its metric series in this gateway, registered with the first request.
    pub series: OnceLock<Series>,
    /// Whether it can be reached, looked up with the first call that matters.
    pub known: OnceLock<Arc<OfProvider>>,
    /// What its calls must enter, the narrowest first: looked up with the first of them.
    pub gates: OnceLock<Box<[Arc<Gate>]>>,
}

impl Gateway {
    fn look_up(&self, known: &Known) {
        for mounted in self.providers.values() {
            let pooled = mounted.provider.keyring.pool.is_some();
            if pooled || !self.routes.is_empty() {
                mounted.known(known, self);
            }
        }
        for plan in self.routes.all() {
            plan.known(known, &self.label);
        }
    }
}

impl Mounted {
    /// What is known of it in its gateway.
    pub fn known(&self, known: &Known, gateway: &Gateway) -> &Arc<OfProvider> {
        self.known.get_or_init(|| {
            for stored in &self.provider.keyring.keys {
                self.key(known, stored);
            }
            known.provider(&gateway.label, &self.provider.slug)
        })
    }

    /// What is known of one of its stored keys.
    pub fn key<'a>(&self, known: &Known, stored: &'a StoredKey) -> &'a Arc<OfKey> {
        let slug = &self.provider.slug;
        let look_up = || known.key(slug, stored);
        stored.known.get_or_init(look_up)
    }
}

impl Snapshot {
    /// Whether some gateway keeps answers without being asked to by a request.
    pub fn caches(&self) -> bool {
        let mut gateways = self.accounts.values().flat_map(|account| account.values());
        gateways.any(|gateway| gateway.cache.ttl.is_some())
    }

    /// Looks up what is known of everybody that calls may choose between, so that it is held from
    /// now on: what nobody holds is forgotten.
    pub fn look_up(&self, known: &Known) {
        let gateways = self.accounts.values().flat_map(|account| account.values());
        gateways.for_each(|gateway| gateway.look_up(known));
    }

    /// The gateway a URL names.
    pub fn gateway(&self, account: &str, id: &str) -> Option<&Arc<Gateway>> {
        self.accounts.get(account)?.get(id)
    }

    /// All caps on calls in flight.
    pub fn caps(&self) -> BTreeMap<Scope, Settings> {
        let mut caps = BTreeMap::new();
        let mut cap = |scope, settings: Option<Settings>| {
            settings.map(|settings| caps.insert(scope, settings));
        };
        cap(Scope::Process, self.in_flight);
        for gateway in self.accounts.values().flat_map(|account| account.values()) {
            cap(gateway.scope(), gateway.in_flight);
            for mounted in gateway.providers.values() {
                cap(mounted.provider.scope(), mounted.provider.in_flight);
            }
        }
        caps
    }

    /// The scopes that have a cap which a call of `gateway` at `mounted` must keep, the narrowest
    /// first.
    pub fn capped(&self, gateway: &Gateway, mounted: &Mounted) -> Vec<Scope> {
        let provider = &mounted.provider;
        [
            provider.in_flight.map(|_| provider.scope()),
            gateway.in_flight.map(|_| gateway.scope()),
            self.in_flight.map(|_| Scope::Process),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Gateway {
    /// Its calls, among those in flight.
    pub fn scope(&self) -> Scope {
        Scope::Gateway(self.label.clone())
    }
}
