//! Routes: several targets for the same calls, in the order in which they are asked.

use std::sync::{Arc, OnceLock};

use ahash::AHashMap;

use crate::gateway::Mounted;

use super::affinity::Affinity;
use super::hedge::{Budget, Hedge};
use super::known::{Known, OfTarget};
use super::retry;
use super::strategy::{Candidate, Strategy};
use super::timeouts::Timeouts;

/// What a model's name begins with that names a route.
pub const DYNAMIC: &str = "dynamic/";
/// Most targets of a route.
pub const MAX_TARGETS: usize = 16;
/// Tries of a request at all targets together, for whatever reason. Pingora allows no more.
pub const MAX_TRIES: u32 = 16;

/// The routes of one gateway.
#[derive(Debug, Default)]
pub struct Routes {
    named: AHashMap<Box<str>, Arc<Plan>>,
    /// By provider, then by model.
    matching: AHashMap<Box<str>, AHashMap<Box<str>, Arc<Plan>>>,
}

/// The targets of one route.
#[derive(Debug)]
pub struct Plan {
    /// The route's name.
    pub name: Box<str>,
    /// What the order goes by in which they are asked.
    pub strategy: Strategy,
    /// What ties a session to its targets.
    pub affinity: Option<Affinity>,
    /// When a second one is asked because the first is late.
    pub hedge: Option<Hedge>,
    /// As they are configured; 1 to [`MAX_TARGETS`].
    pub targets: Vec<Target>,
    /// What is known of them, looked up with the first call.
    pub known: OnceLock<OfPlan>,
}

/// What is known of a route's targets, in the order in which they are configured.
#[derive(Debug)]
pub struct OfPlan {
    /// For the strategy.
    pub candidates: Vec<Candidate>,
    /// The rest.
    pub targets: Vec<Arc<OfTarget>>,
    /// What is left of the route's budget for hedges.
    pub hedges: Budget,
}

/// One target of a route.
#[derive(Debug)]
pub struct Target {
    /// Who is asked.
    pub mounted: Arc<Mounted>,
    /// For which model.
    pub model: Box<str>,
    /// Alias of the stored key that pays; the client's own, the pool's or the default one when
    /// `None`.
    pub key: Option<Box<str>>,
    /// Its share, relative to the others'; with 0 it comes last.
    pub weight: u32,
    /// What it says of tries.
    pub retry: retry::Wishes,
    /// What it says of time.
    pub timeouts: Timeouts,
}

impl Routes {
    /// Adds a route, and the provider and model whose calls take it.
    pub fn add(&mut self, plan: Arc<Plan>, matching: Option<(&str, &str)>) {
        if let Some((provider, model)) = matching {
            let models = self.matching.entry(provider.into()).or_default();
            models.insert(model.into(), Arc::clone(&plan));
        }
        self.named.insert(plan.name.clone(), plan);
    }

    /// There are none, so no body is read for them.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Plan> {
        self.named.values().map(|plan| &**plan)
    }

    /// The route of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Plan>> {
        self.named.get(name)
    }

    /// The route that a call of `provider` for `model` takes.
    pub fn matching(&self, provider: &str, model: &str) -> Option<&Arc<Plan>> {
        self.matching.get(provider)?.get(model)
    }
}

impl Plan {
    /// What is known of its targets in `gateway` (`account/id`).
    pub fn known(&self, known: &Known, gateway: &str) -> &OfPlan {
        self.known.get_or_init(|| {
            let targets = self.targets.iter();
            let targets: Vec<_> = targets.map(|target| target.known(known, gateway)).collect();
            let both = self.targets.iter().zip(&targets);
            let candidates = both.map(|(target, known)| Candidate {
                id: target.id(),
                weight: target.weight,
                load: Arc::clone(&known.load),
            });
            OfPlan {
                candidates: candidates.collect(),
                targets,
                hedges: Budget::default(),
            }
        })
    }
}

impl Target {
    fn known(&self, known: &Known, gateway: &str) -> Arc<OfTarget> {
        let provider = &self.mounted.provider.slug;
        known.target(gateway, provider, &self.model, self.key.as_deref())
    }

    /// The same in every process for as long as provider, model and key are: sessions are tied
    /// to it.
    fn id(&self) -> u64 {
        let key = self.key.as_deref().unwrap_or_default();
        let name = format!("{}\n{}\n{key}", self.mounted.provider.slug, self.model);
        super::affinity::digest(name.as_bytes())
    }

    /// `provider/model`, in traces.
    pub fn label(&self) -> String {
        format!("{}/{}", self.mounted.provider.slug, self.model)
    }
}
