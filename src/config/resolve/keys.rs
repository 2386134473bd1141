//! Stored provider keys: as they are read, and which of them a gateway has.
//!
//! For one alias a gateway's kept key goes before its configured one, that before the deployment's
//! kept one, and that before the deployment's configured one; but a gateway's configured list stands
//! in place of everything of the deployment's. A gateway with keys of its own for a provider has that
//! provider with another keyring; all gateways without share the deployment's.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;

use super::{Problems, providers};
use crate::config::schema::{self, Auth};
use crate::config::secret::Secret;
use crate::credential::{self, Credential};
use crate::provider::{Keyring, Provider, StoredKey};
use crate::provider_keys::{KeptKey, Name};

/// The keys of a list at `path`, for a provider that takes them by `auth`. `owner`: the label of
/// the gateway whose own they are, or nothing.
pub(super) fn read(
    path: &str,
    owner: &str,
    auth: &Auth,
    keys: &[schema::Key],
    problems: &mut Problems,
) -> Vec<StoredKey> {
    let mut stored: Vec<StoredKey> = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let schema::Key {
            alias,
            weight,
            value,
            file,
        } = key;
        let field = format!("{path}[{index}]");
        let alias = alias.as_deref().unwrap_or("default");
        if stored.iter().any(|key| *key.alias == *alias) {
            problems.add(&field, format!("the alias `{alias}` stands twice"));
        }
        let secret = match (value, file) {
            (Some(value), None) => value.read(),
            (None, Some(file)) => Secret::from_file(file),
            _ => Err("write exactly one of `value` and `file`".to_owned()),
        };
        let weight = weight.map_or(0, |number| weight_of(&field, number, problems));
        let key = secret.and_then(|secret| stored_key(owner, alias, weight, auth, &secret));
        stored.extend(problems.ok(&field, key));
    }
    stored
}

fn weight_of(field: &str, weight: i64, problems: &mut Problems) -> u32 {
    let good = u32::try_from(weight)
        .ok()
        .filter(|weight| (1..=1_000_000).contains(weight));
    let good = good.ok_or_else(|| "must be 1 to 1000000".to_owned());
    problems.ok(&format!("{field}.weight"), good).unwrap_or(0)
}

fn stored_key(
    owner: &str,
    alias: &str,
    weight: u32,
    auth: &Auth,
    secret: &Secret,
) -> Result<StoredKey, String> {
    Ok(StoredKey {
        owner: owner.into(),
        alias: alias.into(),
        identity: identity(owner, alias, secret.expose()),
        credential: Ok(credential::parse(auth, secret.expose()).and_then(over_https)?),
        weight,
        known: OnceLock::new(),
    })
}

/// Who pays with a stored key. The digest is short: it tells keys apart and nothing about them.
fn identity(owner: &str, alias: &str, key: &str) -> Box<str> {
    let digest = &blake3::hash(key.as_bytes()).to_hex()[..16];
    match owner {
        "" => format!("{alias} {digest}").into(),
        _ => format!("{owner} {alias} {digest}").into(),
    }
}

/// Tokens are bought over HTTPS only.
fn over_https(credential: Credential) -> Result<Credential, String> {
    match &credential {
        Credential::Google(account) if !account.is_https() => {
            Err("`token_uri` of the service account must be https".to_owned())
        }
        _ => Ok(credential),
    }
}

/// Those of `kept` that are for a provider.
pub(super) fn of_provider<'a>(kept: &'a [KeptKey], slug: &str) -> Vec<&'a KeptKey> {
    let of_it = kept.iter().filter(|key| *key.name.provider == *slug);
    of_it.collect()
}

/// Puts kept keys beside configured ones, in place of those with the same alias. One that cannot be
/// used stays, so that no other one is spent for it.
pub(super) fn overlay(keys: &mut Vec<StoredKey>, kept: &[&KeptKey], auth: &Auth) {
    for kept in kept {
        let key = kept_key(kept, auth);
        match keys.iter_mut().find(|other| other.alias == key.alias) {
            Some(configured) => *configured = key,
            None => keys.push(key),
        }
    }
}

fn kept_key(kept: &KeptKey, auth: &Auth) -> StoredKey {
    let Name { scope, alias, .. } = &kept.name;
    let weight = kept.weight;
    let key = match &kept.secret {
        Ok(secret) => stored_key(scope, alias, weight, auth, secret),
        Err(cause) => Err(cause.message().to_owned()),
    };
    key.unwrap_or_else(|reason| StoredKey {
        owner: scope.clone(),
        alias: alias.clone(),
        identity: format!("{scope} {alias} unavailable").into(),
        credential: Err(reason.into()),
        weight,
        known: OnceLock::new(),
    })
}

/// Whether a secret can be a key of a provider, wherever that takes one.
///
/// # Errors
/// What is wrong with it, without any of it.
pub fn usable(provider: &Provider, secret: &Secret) -> Result<(), String> {
    let of_rules = provider.address.rules.iter();
    let of_rules = of_rules.filter_map(|rule| rule.keyring.as_deref());
    let mut keyrings = std::iter::once(&*provider.keyring).chain(of_rules);
    keyrings.try_for_each(|keyring| stored_key("", "", 0, &keyring.auth, secret).map(drop))
}

/// The gateway whose keys are read.
pub(super) struct Owner<'a> {
    /// Where its keys stand.
    pub path: &'a str,
    /// `account/id`.
    pub label: &'a str,
    /// Those of its own that are kept.
    pub kept: &'a [KeptKey],
}

/// The lists that a gateway has in the configuration, by the provider's own slug; each with the
/// slug under which it stands.
type Lists<'a> = AHashMap<Box<str>, (&'a str, &'a [schema::Key])>;

impl Owner<'_> {
    /// The deployment's providers by slug, those with the gateway's own keys for which it has some.
    pub(super) fn provide(
        &self,
        own: &BTreeMap<String, schema::GatewayProvider>,
        providers: &AHashMap<Box<str>, Arc<Provider>>,
        problems: &mut Problems,
    ) -> AHashMap<Box<str>, Arc<Provider>> {
        let lists = self.lists(own, providers, problems);
        let mut changed = AHashMap::<*const Provider, Arc<Provider>>::new();
        let mut of_gateway = |provider: &Arc<Provider>| {
            let change = || match self.with_own(provider, &lists, problems) {
                Some(own) => Arc::new(own),
                None => Arc::clone(provider),
            };
            let entry = changed.entry(Arc::as_ptr(provider));
            Arc::clone(entry.or_insert_with(change))
        };
        let named = providers.iter();
        named
            .map(|(slug, provider)| (slug.clone(), of_gateway(provider)))
            .collect()
    }

    fn lists<'a>(
        &self,
        own: &'a BTreeMap<String, schema::GatewayProvider>,
        providers: &AHashMap<Box<str>, Arc<Provider>>,
        problems: &mut Problems,
    ) -> Lists<'a> {
        let mut lists = Lists::new();
        for (slug, schema::GatewayProvider { keys }) in own {
            let path = format!("{}.{slug}", self.path);
            let Some(provider) = known(&path, slug, providers, problems) else {
                continue;
            };
            let Some(keys) = keys else {
                problems.add(
                    format!("{path}.keys"),
                    "is missing; write `keys: []` to spend none of the deployment's",
                );
                continue;
            };
            let list = (slug.as_str(), keys.as_slice());
            if lists.insert(provider.slug.clone(), list).is_some() {
                let slug = &provider.slug;
                problems.add(path, format!("another name of `{slug}` stands here too"));
            }
        }
        lists
    }

    /// The provider with the gateway's keys; `None` where it has no own ones.
    fn with_own(
        &self,
        provider: &Provider,
        lists: &Lists<'_>,
        problems: &mut Problems,
    ) -> Option<Provider> {
        let list = lists.get(&provider.slug);
        let kept = of_provider(self.kept, &provider.slug);
        if list.is_none() && kept.is_empty() {
            return None;
        }
        Some(provider.with_keys(|keyring| {
            let auth = &keyring.auth;
            let mut keys = match list {
                Some((slug, keys)) => {
                    let path = format!("{}.{slug}.keys", self.path);
                    read(&path, self.label, auth, keys, problems)
                }
                None => Vec::new(),
            };
            overlay(&mut keys, &kept, auth);
            if list.is_none() {
                share(&mut keys, &keyring.keys);
            }
            Keyring::new(auth.clone(), keyring.places.clone(), keys)
        }))
    }
}

/// Puts the deployment's keys beside a gateway's own, but for aliases that those have. Where the
/// own ones say what pays for requests that name no key, the deployment's pool does not.
fn share(own: &mut Vec<StoredKey>, deployments: &[StoredKey]) {
    let decided = own
        .iter()
        .any(|key| key.weight > 0 || &*key.alias == "default");
    for key in deployments {
        if own.iter().all(|other| other.alias != key.alias) {
            let mut key = key.clone();
            if decided {
                key.weight = 0;
            }
            own.push(key);
        }
    }
}

fn known<'a>(
    path: &str,
    slug: &str,
    providers: &'a AHashMap<Box<str>, Arc<Provider>>,
    problems: &mut Problems,
) -> Option<&'a Arc<Provider>> {
    let found = providers.get(slug);
    if found.is_none() {
        let hint = providers::hint(slug, providers.keys().map(|known| &**known));
        problems.add(
            path,
            format!(
                "no such provider; {hint}A provider of your own is configured under providers.custom-<slug>"
            ),
        );
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
