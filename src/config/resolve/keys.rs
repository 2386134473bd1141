//! Stored provider keys: as they are read, and which of them a gateway has.
//!
//! A gateway with keys of its own for a provider has that provider with another keyring; all
//! gateways without share the deployment's.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;

use super::{Problems, providers};
use crate::config::schema::{self, Auth};
use crate::config::secret::Secret;
use crate::credential::{self, Credential};
use crate::provider::{Keyring, Provider, StoredKey};

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
        credential: credential::parse(auth, secret.expose()).and_then(over_https)?,
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

/// The gateway whose keys are read.
pub(super) struct Owner<'a> {
    /// Where its keys stand.
    pub path: &'a str,
    /// `account/id`.
    pub label: &'a str,
}

impl Owner<'_> {
    /// The deployment's providers by slug, those with the gateway's own keys for which it has some.
    pub(super) fn provide(
        &self,
        own: &BTreeMap<String, schema::GatewayProvider>,
        providers: &AHashMap<Box<str>, Arc<Provider>>,
        problems: &mut Problems,
    ) -> AHashMap<Box<str>, Arc<Provider>> {
        let mut changed = AHashMap::<*const Provider, Arc<Provider>>::new();
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
            let with_own = self.with_own(&path, provider, keys, problems);
            let twice = changed.insert(Arc::as_ptr(provider), Arc::new(with_own));
            if twice.is_some() {
                let slug = &provider.slug;
                problems.add(path, format!("another name of `{slug}` stands here too"));
            }
        }
        let named = providers.iter().map(|(slug, provider)| {
            let own = changed.get(&Arc::as_ptr(provider));
            (slug.clone(), Arc::clone(own.unwrap_or(provider)))
        });
        named.collect()
    }

    fn with_own(
        &self,
        path: &str,
        provider: &Provider,
        keys: &[schema::Key],
        problems: &mut Problems,
    ) -> Provider {
        provider.with_keys(|keyring| {
            let auth = &keyring.auth;
            let keys = read(&format!("{path}.keys"), self.label, auth, keys, problems);
            Keyring::new(auth.clone(), keyring.places.clone(), keys)
        })
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
