//! Every price that is publicly listed: which model of which provider a name means, and what
//! it cost when.
//!
//! The list of the `genai-prices` crate is compiled in (`build.rs`), and a provider's part of it is
//! read when its first call is priced: read whole it takes four megabytes, and most companies call
//! a handful of providers. Names are matched by walking a provider's list, so what a name has led
//! to, nothing included, is remembered.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::SystemTime;

use quick_cache::sync::Cache;

use super::rates::Card;
use super::source::{self, Model, Provider};
use super::spellings;
use crate::usage::ServiceTier;

/// Names remembered; beyond it those unused for longest are looked up anew.
const REMEMBERED: usize = 4096;

/// Longest model name looked up, in bytes. Model names come from clients, and what is
/// remembered of them must be bounded.
const LONGEST_NAME: usize = 256;

/// The prices of one snapshot of the public lists. Shared between configurations: a reload
/// needs no new one.
pub struct Catalogue {
    providers: HashMap<String, Listed>,
    known: Cache<(Box<str>, Box<str>), Option<Found>>,
}

/// A provider's part of the list.
struct Listed {
    written: &'static str,
    /// `None` in it: it cannot be read.
    read: OnceLock<Option<Provider>>,
}

impl Listed {
    fn provider(&self) -> Option<&Provider> {
        let read = || {
            // All of them can be read in a binary whose tests have passed.
            let failed = |error| log::error!("the price list cannot be read: {error}");
            source::read_one(self.written).map_err(failed).ok()
        };
        self.read.get_or_init(read).as_ref()
    }
}

/// A model, and whether the provider asked for lists it itself.
#[derive(Clone)]
struct Found {
    model: Arc<Model>,
    own: bool,
    /// Its prices as they stay from then on, worked out once.
    settled: Option<(SystemTime, Arc<[Card]>)>,
}

impl Found {
    fn new(model: &Arc<Model>, own: bool) -> Self {
        let settled = model
            .settled_since()
            .map(|since| (since, model.cards(own, since).into()));
        Self {
            model: Arc::clone(model),
            own,
            settled,
        }
    }

    fn cards(&self, at: SystemTime) -> Arc<[Card]> {
        match &self.settled {
            Some((since, cards)) if at >= *since => Arc::clone(cards),
            _ => self.model.cards(self.own, at).into(),
        }
    }
}

impl Catalogue {
    /// The catalogue that is compiled in, one for all configurations. The first time takes a
    /// millisecond, as does the first time of each provider.
    pub fn bundled() -> &'static Self {
        static BUNDLED: LazyLock<Catalogue> = LazyLock::new(|| {
            let json = include_str!(concat!(env!("OUT_DIR"), "/prices.json"));
            let written = source::parts(json).unwrap_or_else(|error| {
                // Not in a binary whose tests have passed.
                log::error!("nothing is priced, the price list cannot be read: {error}");
                HashMap::new()
            });
            let listed = |(id, written)| {
                let read = OnceLock::new();
                (id, Listed { written, read })
            };
            Catalogue {
                providers: written.into_iter().map(listed).collect(),
                known: Cache::new(REMEMBERED),
            }
        });
        &BUNDLED
    }

    /// Whether there is a provider of this id: what `prices` in a configuration may name.
    pub fn has_provider(&self, id: &str) -> bool {
        self.providers.contains_key(id)
    }

    /// The prices of a model as `provider`, an id of this catalogue, sold it at a time; `None`
    /// if it lists no such model.
    pub fn card(
        &self,
        provider: &str,
        model: &str,
        tier: ServiceTier,
        at: SystemTime,
    ) -> Option<Card> {
        let found = self.find(provider, model)?;
        Some(found.model.card(tier, found.own, at))
    }

    /// The same for every class of service, equal ones once.
    pub fn cards(&self, provider: &str, model: &str, at: SystemTime) -> Option<Arc<[Card]>> {
        Some(self.find(provider, model)?.cards(at))
    }

    /// The catalogue's name for a model; `None` if it knows none.
    pub fn model_id(&self, provider: &str, model: &str) -> Option<String> {
        Some(self.find(provider, model)?.model.id.clone())
    }

    /// Tokens that fit into a model's context; `None` if it is not known.
    pub fn context(&self, provider: &str, model: &str) -> Option<u64> {
        self.find(provider, model)?.model.context
    }

    fn find(&self, provider: &str, model: &str) -> Option<Found> {
        if model.len() > LONGEST_NAME {
            return None;
        }
        let key = (Box::from(provider), Box::from(model));
        if let Some(found) = self.known.get(&key) {
            return found;
        }
        let found = self.search(provider, model);
        self.known.insert(key, found.clone());
        found
    }

    fn search(&self, provider: &str, model: &str) -> Option<Found> {
        let provider = self.providers.get(provider)?.provider()?;
        let fallbacks = provider.fallbacks.iter();
        let others = fallbacks.filter_map(|id| self.providers.get(id)?.provider());
        spellings::of(model).iter().find_map(|name| {
            let sellers = [(provider, true)]
                .into_iter()
                .chain(others.clone().map(|other| (other, false)));
            sellers.into_iter().find_map(|(seller, own)| {
                let model = seller.models.iter().find(|model| model.is_called(name))?;
                Some(Found::new(model, own))
            })
        })
    }
}

#[cfg(test)]
impl Catalogue {
    /// All models: the provider's id and the model's.
    pub fn all(&self) -> Vec<(String, String)> {
        let providers = self.providers.iter();
        let listed = providers.filter_map(|(id, listed)| Some((id, listed.provider()?)));
        listed
            .flat_map(|(id, provider)| {
                let models = provider.models.iter();
                models.map(move |model| (id.clone(), model.id.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_of_the_list_can_be_read() {
        let catalogue = Catalogue::bundled();
        assert!(catalogue.providers.len() > 30);
        for (id, listed) in &catalogue.providers {
            assert!(listed.provider().is_some(), "{id}");
        }
    }

    #[test]
    fn prices_that_were_worked_out_once_are_those_of_any_time() {
        let catalogue = Catalogue::bundled();
        let day = std::time::Duration::from_secs(86_400);
        let now = SystemTime::now();
        let mut settled = 0;
        let providers = catalogue.providers.values().filter_map(Listed::provider);
        for model in providers.flat_map(|provider| &provider.models) {
            for own in [true, false] {
                let found = Found::new(model, own);
                settled += usize::from(found.settled.is_some());
                for days in [0, 100, 400, 1_000] {
                    let at = now - day * days;
                    let cards = found.cards(at);
                    let one_by_one = ServiceTier::ALL.map(|tier| model.card(tier, own, at));
                    assert!(one_by_one.iter().all(|card| cards.contains(card)));
                    assert!(cards.iter().all(|card| one_by_one.contains(card)));
                }
            }
        }
        assert!(settled > 500, "{settled}");
    }

    #[test]
    fn contexts_are_known() {
        let context = |model| Catalogue::bundled().context("openai", model);
        assert_eq!(context("gpt-4o-mini"), Some(128_000));
        assert_eq!(context("gpt-17"), None);
    }
}
