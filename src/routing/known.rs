//! What is known of providers, targets and keys, beyond the configuration that names them: it
//! survives reloads.
//!
//! Everything is looked up by name once per configuration and then held by it. What no
//! configuration and no call holds any more is forgotten. Providers and targets are known per
//! gateway, because one gateway's bounds of time are not another's; the deployment's keys are known
//! once, because the provider counts them once, and a gateway's own by it alone.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::health::{Breaker, KeyHealth};
use super::latency::Latencies;
use super::load::Load;
use crate::provider::StoredKey;

/// All that is known.
#[derive(Debug, Default)]
pub struct Known {
    providers: Names<OfProvider>,
    targets: Names<OfTarget>,
    keys: Names<OfKey>,
}

/// What is known of a provider, in one gateway.
#[derive(Debug)]
pub struct OfProvider {
    /// `account/id`.
    pub gateway: Box<str>,
    /// The provider's slug.
    pub provider: Box<str>,
    /// Whether it can be reached.
    pub breaker: Breaker,
}

/// What is known of a target, in one gateway.
#[derive(Debug)]
pub struct OfTarget {
    /// `account/id`.
    pub gateway: Box<str>,
    /// The provider's slug.
    pub provider: Box<str>,
    /// The model.
    pub model: Box<str>,
    /// Whether it answers.
    pub breaker: Breaker,
    /// How busy and how fast it is.
    pub load: Arc<Load>,
    /// How long its first bytes took of late.
    pub latencies: Latencies,
}

/// What is known of a stored key.
#[derive(Debug)]
pub struct OfKey {
    /// `account/gateway` whose own it is; empty when it is the deployment's.
    pub gateway: Box<str>,
    /// The provider's slug.
    pub provider: Box<str>,
    /// Its alias.
    pub alias: Box<str>,
    /// Whether the provider takes it.
    pub health: KeyHealth,
}

impl Known {
    /// What is known of a provider.
    pub fn provider(&self, gateway: &str, provider: &str) -> Arc<OfProvider> {
        self.providers
            .named(&format!("{gateway} {provider}"), || OfProvider {
                gateway: gateway.into(),
                provider: provider.into(),
                breaker: Breaker::default(),
            })
    }

    /// What is known of a target. `key`: the alias of the key that pays, where one is named.
    pub fn target(
        &self,
        gateway: &str,
        provider: &str,
        model: &str,
        key: Option<&str>,
    ) -> Arc<OfTarget> {
        let key = key.unwrap_or_default();
        let name = format!("{gateway} {provider} {key} {model}");
        self.targets.named(&name, || OfTarget {
            gateway: gateway.into(),
            provider: provider.into(),
            model: model.into(),
            breaker: Breaker::default(),
            load: Arc::new(Load::new(Instant::now())),
            latencies: Latencies::default(),
        })
    }

    /// What is known of a key. Its identity changes with the secret, or else a key that was put
    /// right would suffer for the wrong one's failures.
    pub fn key(&self, provider: &str, key: &StoredKey) -> Arc<OfKey> {
        self.keys
            .named(&format!("{provider} {}", key.identity), || OfKey {
                gateway: key.owner.clone(),
                provider: provider.into(),
                alias: key.alias.clone(),
                health: KeyHealth::default(),
            })
    }

    /// The providers that some configuration names.
    pub fn providers(&self) -> Vec<Arc<OfProvider>> {
        self.providers.held()
    }

    /// The targets that some configuration names.
    pub fn targets(&self) -> Vec<Arc<OfTarget>> {
        self.targets.held()
    }

    /// The keys that some configuration names.
    pub fn keys(&self) -> Vec<Arc<OfKey>> {
        self.keys.held()
    }
}

/// Things by name, for as long as somebody else holds them.
///
/// The names of those that nobody holds go before the map would grow, so that it has never room
/// for more than about twice as many as were held at once.
#[derive(Debug)]
struct Names<T>(Mutex<HashMap<Box<str>, Weak<T>>>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Names<T> {
    fn named(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut map = self.0.lock();
        if let Some(held) = map.get(name).and_then(Weak::upgrade) {
            return held;
        }
        if map.len() == map.capacity() {
            map.retain(|_, held| held.strong_count() > 0);
        }
        let new = Arc::new(make());
        map.insert(name.into(), Arc::downgrade(&new));
        new
    }

    fn held(&self) -> Vec<Arc<T>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::schema::Auth;
    use crate::credential;

    fn stored(identity: &str) -> StoredKey {
        StoredKey {
            owner: "a/g".into(),
            alias: "team".into(),
            identity: identity.into(),
            credential: Ok(credential::parse(&Auth::Bearer, "hunter2").unwrap()),
            weight: 0,
            known: std::sync::OnceLock::new(),
        }
    }

    #[test]
    fn what_is_known_survives_a_reload_and_is_told_apart() {
        let known = Known::default();
        let (old, other) = (known.provider("a/g", "x"), known.provider("b/g", "x"));
        let new = known.provider("a/g", "x");
        assert!(Arc::ptr_eq(&old, &new) && !Arc::ptr_eq(&old, &other));
        drop(old);
        assert!(Arc::ptr_eq(&new, &known.provider("a/g", "x")));
        assert_eq!(known.providers().len(), 2);
        let one = known.target("a/g", "x", "m", None);
        let two = known.target("a/g", "x", "m", Some("team"));
        assert!(!Arc::ptr_eq(&one, &two));
        let of_key = |identity| known.key("x", &stored(identity));
        let key = of_key("a/g team 12");
        assert!(!Arc::ptr_eq(&key, &of_key("a/g team 34")));
        assert!(!Arc::ptr_eq(&key, &of_key("b/g team 12")));
        assert!(Arc::ptr_eq(&key, &of_key("a/g team 12")));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let known = Known::default();
        drop(known.provider("a/g", "x"));
        assert!(known.providers().is_empty());
    }

    #[test]
    fn names_do_not_pile_up() {
        let names = Names::<u32>::default();
        let held: Vec<_> = (0..50).map(|n| names.named(&n.to_string(), || n)).collect();
        for n in 0..10_000 {
            names.named(&format!("gone {n}"), || n);
        }
        assert!(names.0.lock().len() <= 2 * held.len() + 16);
        for (n, thing) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(thing, &names.named(&n.to_string(), || 0)));
        }
    }
}
