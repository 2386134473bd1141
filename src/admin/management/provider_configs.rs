//! `…/provider_configs…`: the provider keys that the gateway keeps, stored, shown without their
//! secrets, changed and removed (contract, 6.4). What all gateways have is at
//! `/-/provider_configs`, where a new one is the deployment's.
//!
//! A change is in force before it is answered. Beside what Cloudflare has, `PUT` on the collection
//! stores a key whether one of its name is there or not.

mod wanted;

use http::{Method, StatusCode};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use uuid::Uuid;

use super::logs::{blocking, parameters, unavailable};
use super::{Admin, Answer, Asked, Gateway, Refusal, done, enveloped, known, only};
use crate::config::resolve::usable;
use crate::config::secret::Secret;
use crate::gateway::Snapshot;
use crate::lifecycle::stored_keys::StoredKeys;
use crate::logs::times;
use crate::provider::Provider;
use crate::provider_keys::Name;
use crate::provider_keys::master_key::MasterKeys;
use crate::provider_keys::store::{self, Entropy, Entry, New};

use wanted::Wanted;

/// What is meant in messages.
const STORE: &str = "the store of provider keys";
/// How many are on a page unless the query says otherwise, and at most.
const PAGE: usize = 100;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Resource {
    /// All of them.
    List,
    /// One of them.
    One(Uuid),
    /// All of them, encrypted under the current master key.
    Reencrypt,
}

impl Resource {
    /// What stands behind `/provider_configs/`.
    pub fn parse(rest: &str, of_gateway: bool) -> Option<Self> {
        match rest {
            "reencrypt" if !of_gateway => Some(Self::Reencrypt),
            _ => super::id(rest).map(Self::One),
        }
    }
}

/// Answers `operator` for a resource of a gateway, or of all together.
pub async fn answer(
    admin: &Admin,
    asked: &Asked<'_>,
    operator: &str,
    snapshot: &Snapshot,
    gateway: Option<Gateway<'_>>,
    resource: Resource,
) -> Result<Answer, Refusal> {
    let scope = gateway.map(|gateway| known(snapshot, gateway));
    let work = Work {
        admin,
        snapshot,
        operator,
        scope: scope.transpose()?,
    };
    match resource {
        Resource::List => {
            only(asked.method, &[Method::GET, Method::POST, Method::PUT])?;
            if asked.method == Method::GET {
                return work.list(asked.query).await;
            }
            let replace = asked.method == Method::PUT;
            work.add(Wanted::parse(asked.body)?, replace).await
        }
        Resource::One(id) => {
            only(asked.method, &[Method::GET, Method::PUT, Method::DELETE])?;
            work.one(asked, id).await
        }
        Resource::Reencrypt => {
            only(asked.method, &[Method::POST])?;
            work.reencrypt().await
        }
    }
}

/// What a request works with.
struct Work<'a> {
    admin: &'a Admin,
    snapshot: &'a Snapshot,
    operator: &'a str,
    /// The label of the gateway whose keys the path speaks of; without one it speaks of all.
    scope: Option<Box<str>>,
}

impl Work<'_> {
    async fn one(&self, asked: &Asked<'_>, id: Uuid) -> Result<Answer, Refusal> {
        let found = self.find(id).await?.ok_or_else(|| no_key(id))?;
        let (answered, what) = match *asked.method {
            Method::PUT => {
                let wanted = Wanted::parse(asked.body)?;
                (self.update(id, &found, wanted).await?, "changed")
            }
            Method::DELETE => (self.remove(id).await?, "removed"),
            _ => return Ok(self.shown(&found)),
        };
        let answered = answered.ok_or_else(|| no_key(id))?;
        self.tell(what, &found.name);
        Ok(self.shown(&answered))
    }

    async fn find(&self, id: Uuid) -> Result<Option<Entry>, Refusal> {
        let (keys, scope) = (self.admin.live.stored_keys(), self.scope.clone());
        let find = move || keys.store.get(scope.as_deref(), id);
        blocking(move || find().map_err(|why| broken(&why))).await
    }

    async fn update(
        &self,
        id: Uuid,
        found: &Entry,
        wanted: Wanted,
    ) -> Result<Option<Entry>, Refusal> {
        wanted.keeps_its_name(&found.name)?;
        if let Some(secret) = &wanted.secret {
            check(provider(self.snapshot, &found.name.provider)?, secret)?;
        }
        let Wanted { secret, weight, .. } = wanted;
        let scope = self.scope.clone();
        let update = move |keys: &StoredKeys, with: &Entropy<'_>| {
            let scope = scope.as_deref();
            keys.store.update(scope, id, secret.as_ref(), weight, with)
        };
        change(self.admin, update).await
    }

    async fn remove(&self, id: Uuid) -> Result<Option<Entry>, Refusal> {
        let scope = self.scope.clone();
        let remove = move |keys: &StoredKeys, with: &Entropy<'_>| {
            keys.store.remove(scope.as_deref(), id, with)
        };
        change(self.admin, remove).await
    }

    async fn list(&self, query: &str) -> Result<Answer, Refusal> {
        let (page, per_page, of) = paging(query)?;
        let (keys, scope) = (self.admin.live.stored_keys(), self.scope.clone());
        let masters = keys.masters.clone();
        let list = move || keys.store.list(scope.as_deref());
        let mut all = blocking(move || list().map_err(|why| broken(&why))).await?;
        if let Some(of) = of {
            let found = provider(self.snapshot, &of).ok();
            // The name itself too: a key may be older than its provider's present slug.
            let is = |slug: &str| *slug == *of || found.is_some_and(|found| *slug == *found.slug);
            all.retain(|entry| is(&entry.name.provider));
        }
        let some = all
            .iter()
            .skip((page - 1).saturating_mul(per_page))
            .take(per_page);
        let some: Vec<_> = some.map(|entry| shown(entry, &masters)).collect();
        Ok(enveloped(&json!({
            "result_info": {
                "count": some.len(),
                "total_count": all.len(),
                "page": page,
                "per_page": per_page,
            },
            "result": some,
        })))
    }

    /// Stores a new key; with `replace` also in place of the one of its name.
    async fn add(&self, wanted: Wanted, replace: bool) -> Result<Answer, Refusal> {
        let Wanted {
            provider: slug,
            alias,
            secret,
            weight,
        } = wanted;
        let slug = slug.ok_or_else(|| wrong("provider_slug", "is missing"))?;
        let secret = secret.ok_or_else(|| wrong("secret", "is missing"))?;
        let provider = provider(self.snapshot, &slug)?;
        check(provider, &secret)?;
        let name = Name {
            scope: self.scope.clone().unwrap_or_default(),
            provider: provider.slug.clone(),
            alias: alias.unwrap_or_else(|| "default".into()),
        };
        let add = move |keys: &StoredKeys, with: &Entropy<'_>| {
            let new = New {
                id: Uuid::now_v7(),
                name,
                weight: weight.unwrap_or(0),
                secret: &secret,
            };
            match replace {
                true => keys.store.set(&new, weight.is_none(), with),
                false => keys.store.add(&new, with),
            }
        };
        let added = change(self.admin, add).await?;
        self.tell("stored", &added.name);
        Ok(self.shown(&added))
    }

    async fn reencrypt(&self) -> Result<Answer, Refusal> {
        let count = change(self.admin, |keys, with| keys.store.reencrypt(with)).await?;
        let operator = self.operator;
        log::info!("{operator} had {count} provider keys encrypted anew");
        Ok(done(&json!({ "reencrypted": count })))
    }

    fn shown(&self, entry: &Entry) -> Answer {
        done(&shown(entry, &self.admin.live.stored_keys().masters))
    }

    fn tell(&self, what: &str, name: &Name) {
        log::info!("{} {what} the provider key {name}", self.operator);
    }
}

/// Page, length of a page, and the slug or an alias of the provider whose keys are listed.
fn paging(query: &str) -> Result<(usize, usize, Option<String>), Refusal> {
    let (mut page, mut per_page, mut of) = (1, PAGE, None);
    for (name, value) in parameters(query) {
        let number = value.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| wrong(&name, "must be a number above 0"));
        match name.as_str() {
            "page" => page = number?,
            "per_page" => per_page = number?.min(PAGE),
            "provider_slug" => of = Some(value),
            _ => {
                return Err(wrong(
                    &name,
                    "is no parameter here; known are page, per_page and provider_slug",
                ));
            }
        }
    }
    Ok((page, per_page, of))
}

/// Changes the store, and has requests follow before it is answered.
async fn change<T: Send + 'static>(
    admin: &Admin,
    work: impl FnOnce(&StoredKeys, &Entropy<'_>) -> Result<T, store::Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let live = admin.live.clone();
    blocking(move || {
        let keys = live.stored_keys();
        let with = Entropy {
            masters: &keys.masters,
            random: &SystemRandom::new(),
            now: times::milliseconds(std::time::SystemTime::now()),
        };
        let done = work(&keys, &with).map_err(|why| refused(&why))?;
        live.follow_keys().map_err(|problems| {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            let told = told.join("; ");
            Refusal::broken(&format!(
                "it is stored, but requests go by the keys as they were: {told}"
            ))
        })?;
        Ok(done)
    })
    .await
}

/// A key in the form of Cloudflare's API. Nobody is ever shown its secret.
fn shown(entry: &Entry, masters: &MasterKeys) -> Value {
    let Entry {
        id,
        name,
        weight,
        preview,
        key_id,
        created_at,
        modified_at,
    } = entry;
    let gateway = name.scope.split_once('/');
    json!({
        "id": id,
        "account_id": gateway.map(|(account, _)| account),
        "gateway_id": gateway.map(|(_, gateway)| gateway),
        "provider_slug": name.provider,
        "alias": name.alias,
        "default_config": is_default(&name.alias),
        "weight": weight,
        "secret_preview": preview,
        "available": masters.with_id(key_id).is_some(),
        "created_at": times::shown(*created_at),
        "modified_at": times::shown(*modified_at),
    })
}

fn is_default(alias: &str) -> bool {
    alias == "default"
}

/// A provider by slug or alias. All gateways have the same ones.
fn provider<'a>(snapshot: &'a Snapshot, slug: &str) -> Result<&'a Provider, Refusal> {
    let mut gateways = snapshot
        .accounts
        .values()
        .flat_map(|account| account.values());
    let found = gateways.find_map(|gateway| gateway.providers.get(slug));
    let found = found.map(|mounted| &*mounted.provider);
    found.ok_or_else(|| {
        wrong(
            "provider_slug",
            "names no provider; those of your own are custom-<slug>",
        )
    })
}

fn check(provider: &Provider, secret: &Secret) -> Result<(), Refusal> {
    usable(provider, secret).map_err(|why| wrong("secret", &format!("cannot be used: {why}")))
}

fn wrong(field: &str, rule: &str) -> Refusal {
    Refusal {
        field: Some(field.to_owned()),
        ..Refusal::of(StatusCode::BAD_REQUEST, format!("{field} {rule}"))
    }
}

fn no_key(id: Uuid) -> Refusal {
    Refusal::of(
        StatusCode::NOT_FOUND,
        format!("no provider key {id} is stored here"),
    )
}

fn broken(problem: &crate::database::Problem) -> Refusal {
    unavailable(STORE, &problem.to_string())
}

fn refused(refusal: &store::Refusal) -> Refusal {
    match refusal {
        store::Refusal::File(problem) => broken(problem),
        store::Refusal::NoRandomness => Refusal::broken(&refusal.to_string()),
        _ => Refusal::of(StatusCode::CONFLICT, refusal.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_from_one() {
        assert_eq!(paging("").unwrap(), (1, PAGE, None));
        assert_eq!(paging("page=3&per_page=20").unwrap(), (3, 20, None));
        assert_eq!(paging("per_page=9999").unwrap(), (1, PAGE, None));
        let of = Some("xai".to_owned());
        assert_eq!(paging("provider_slug=xai").unwrap(), (1, PAGE, of));
        assert!(paging("page=0").is_err() && paging("order_by=x").is_err());
    }
}
