//! Routes: several targets for the same calls, in the order in which they are asked.

use std::sync::Arc;

use ahash::AHashMap;

use crate::gateway::Mounted;

use super::retry;
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
    /// In the order in which they are asked; 1 to [`MAX_TARGETS`].
    pub targets: Vec<Target>,
}

/// One target of a route.
#[derive(Debug)]
pub struct Target {
    /// Who is asked.
    pub mounted: Arc<Mounted>,
    /// For which model.
    pub model: Box<str>,
    /// Alias of the stored key that pays; the client's own or the default one when `None`.
    pub key: Option<Box<str>>,
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

    /// The route of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Plan>> {
        self.named.get(name)
    }

    /// The route that a call of `provider` for `model` takes.
    pub fn matching(&self, provider: &str, model: &str) -> Option<&Arc<Plan>> {
        self.matching.get(provider)?.get(model)
    }
}

impl Target {
    /// `provider/model`, in traces.
    pub fn label(&self) -> String {
        format!("{}/{}", self.mounted.provider.slug, self.model)
    }
}
