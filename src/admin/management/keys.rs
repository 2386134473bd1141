//! `…/keys…`: API keys of our own, made, shown, changed, rotated and revoked; of one gateway, of one
//! account (`…/accounts/{account}/ai-gateway/keys`), and all (`/-/keys`). Who asks is known by a token,
//! also where none is configured: then by that of [`crate::admin::setup`].
//!
//! A secret is in the answers to making and rotating and nowhere else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::logs::{blocking, parameters, unavailable};
use super::{Admin, Answer, Asked, Refusal, done, enveloped, known, only};
use crate::config::Problem;
use crate::config::resolve::bounds;
use crate::config::schema::{Access, SpendLimit};
use crate::config::units;
use crate::gateway::Snapshot;
use crate::keys::definition::{self, Definition};
use crate::keys::secret::{Fresh, is_id};
use crate::keys::store::{Failure, Row};
use crate::keys::table::Key;
use crate::keys::{Keys, MOST};
use crate::logs::query::{MOST_PER_PAGE, whole};
use crate::logs::times;
use crate::pattern;

/// Keys of a page when nothing is said.
const PER_PAGE: u32 = 20;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A page of them, or a new one.
    List,
    /// The key with this id.
    One(&'a str),
    /// Its secret.
    Rotate(&'a str),
}

impl<'a> Resource<'a> {
    /// What a path names behind an account or a gateway.
    pub fn parse(rest: &'a str) -> Option<Self> {
        let Some(rest) = rest.strip_prefix("keys/") else {
            return (rest == "keys").then_some(Self::List);
        };
        match rest.split_once('/') {
            None => is_id(rest).then_some(Self::One(rest)),
            Some((id, "rotate")) => is_id(id).then_some(Self::Rotate(id)),
            Some(_) => None,
        }
    }
}

/// Of which keys the path speaks: those that may pass there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All.
    All,
    /// Of an account.
    Account(&'a str),
    /// Of a gateway: its account and its id.
    Gateway(&'a str, &'a str),
}

impl Scope<'_> {
    fn has(self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Account(account) => key.is_of(account),
            Self::Gateway(account, gateway) => key.is_of(account) && key.may_pass(gateway),
        }
    }
}

/// Answers `operator` for a resource of `scope`.
pub async fn answer(
    admin: &Admin,
    asked: &Asked<'_>,
    operator: &str,
    snapshot: &Snapshot,
    scope: Scope<'_>,
    resource: Resource<'_>,
) -> Result<Answer, Refusal> {
    let work = Work {
        keys: &admin.keys,
        snapshot,
        scope,
        operator,
        now: times::milliseconds(SystemTime::now()),
    };
    match resource {
        Resource::List => {
            only(asked.method, &[Method::GET, Method::POST])?;
            match *asked.method {
                Method::POST => work.create(json_of(asked.body)?).await,
                _ => work.list(asked.query).await,
            }
        }
        Resource::One(id) => {
            only(asked.method, &[Method::GET, Method::PATCH, Method::DELETE])?;
            work.is_here(id)?;
            match *asked.method {
                Method::PATCH => work.patch(id, json_of(asked.body)?).await,
                Method::DELETE => work.revoke(id).await,
                _ => work.show(id).await,
            }
        }
        Resource::Rotate(id) => {
            only(asked.method, &[Method::POST])?;
            work.is_here(id)?;
            work.rotate(id, grace(asked.body)?).await
        }
    }
}

/// What a request works with.
struct Work<'a> {
    keys: &'a Arc<Keys>,
    snapshot: &'a Snapshot,
    scope: Scope<'a>,
    operator: &'a str,
    /// Milliseconds since 1970.
    now: i64,
}

impl Work<'_> {
    async fn create(&self, mut said: Value) -> Result<Answer, Refusal> {
        match self.scope {
            Scope::All => {}
            Scope::Account(account) => given(&mut said, "account", account.into())?,
            Scope::Gateway(account, gateway) => {
                known(self.snapshot, (account, gateway))?;
                given(&mut said, "account", account.into())?;
                given(&mut said, "gateways", json!([gateway]))?;
            }
        }
        let definition = definition::read(&said, self.now).map_err(Refusal::mistakes)?;
        self.exists(&definition)?;
        matches(self.snapshot, &definition)?;
        if definition.expires_at.is_some_and(|end| end <= self.now) {
            let problem = Problem::new("expires_at", "is over already");
            return Err(Refusal::mistake(problem));
        }
        let now = self.now;
        let (row, fresh) = self.work(move |keys| keys.create(&definition, now)).await?;
        self.note("made", &row);
        Ok(self.shown_once(&row, &fresh))
    }

    async fn patch(&self, id: &str, patch: Value) -> Result<Answer, Refusal> {
        let field = |name: &str| patch.get(name).cloned();
        if let Scope::Account(account) | Scope::Gateway(account, _) = self.scope {
            fits("account", field("account"), &account.into())?;
        }
        if let Scope::Gateway(_, gateway) = self.scope {
            fits("gateways", field("gateways"), &json!([gateway]))?;
        }
        let (id, now, snapshot) = (id.to_owned(), self.now, self.snapshot);
        let before = self.row(&id).await?;
        let patched = definition::patched(&before.definition, &patch, now);
        let patched = patched.map_err(Refusal::mistakes)?;
        exists(snapshot, &patched)?;
        // What was stored when other providers were configured is in nobody's way.
        if ["access", "spend_limits"]
            .iter()
            .any(|said| patch.get(said).is_some())
        {
            matches(snapshot, &patched)?;
        }
        let row = self.work(move |keys| keys.patch(&id, &patch, now)).await?;
        self.note("changed", &row);
        Ok(done(&shown(&row, self.now)))
    }

    async fn rotate(&self, id: &str, grace: Duration) -> Result<Answer, Refusal> {
        let (id, now) = (id.to_owned(), self.now);
        let (row, fresh) = self.work(move |keys| keys.rotate(&id, grace, now)).await?;
        self.note("rotated", &row);
        Ok(self.shown_once(&row, &fresh))
    }

    async fn revoke(&self, id: &str) -> Result<Answer, Refusal> {
        let (id, now) = (id.to_owned(), self.now);
        let row = self.work(move |keys| keys.revoke(&id, now)).await?;
        self.note("revoked", &row);
        Ok(done(&shown(&row, self.now)))
    }

    async fn show(&self, id: &str) -> Result<Answer, Refusal> {
        let row = self.row(id).await?;
        Ok(done(&shown(&row, self.now)))
    }

    async fn row(&self, id: &str) -> Result<Row, Refusal> {
        let ids = [id.into()];
        let found = self.work(move |keys| keys.rows(&ids)).await?.pop();
        found.ok_or_else(|| no_key(id))
    }

    /// A page of them, the newest first.
    async fn list(&self, query: &str) -> Result<Answer, Refusal> {
        let (mut page, mut per_page) = (1, PER_PAGE);
        for (name, value) in parameters(query) {
            match name.as_str() {
                "page" => page = whole(&name, &value, u32::MAX)?,
                "per_page" => per_page = whole(&name, &value, MOST_PER_PAGE)?,
                _ => {
                    let problem = Problem::new(name, "unknown; known are page and per_page");
                    return Err(Refusal::mistake(problem));
                }
            }
        }
        let ids = self.keys.table().newest(|key| self.scope.has(key));
        let total = ids.len();
        let skipped = (page as usize - 1).saturating_mul(per_page as usize);
        let ids: Vec<_> = ids
            .into_iter()
            .skip(skipped)
            .take(per_page as usize)
            .collect();
        let rows = self.work(move |keys| keys.rows(&ids)).await?;
        let result: Vec<_> = rows.iter().map(|row| shown(row, self.now)).collect();
        let info = json!({
            "count": result.len(), "total_count": total, "page": page, "per_page": per_page,
        });
        Ok(enveloped(&json!({ "result": result, "result_info": info })))
    }

    /// Whether a key is one of those that the path speaks of.
    fn is_here(&self, id: &str) -> Result<(), Refusal> {
        let table = self.keys.table();
        let key = table.get(id).filter(|key| self.scope.has(key));
        match key {
            Some(_) => Ok(()),
            None if self.keys.is_failing() && table.is_empty() => Err(no_store()),
            None => Err(no_key(id)),
        }
    }

    fn exists(&self, definition: &Definition) -> Result<(), Refusal> {
        exists(self.snapshot, definition)
    }

    /// Works with the store, which waits for the disk.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keys) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Refusal> {
        let keys = Arc::clone(self.keys);
        blocking(move || work(&keys).map_err(refusal)).await
    }

    fn shown_once(&self, row: &Row, fresh: &Fresh) -> Answer {
        let mut shown = shown(row, self.now);
        shown["key"] = fresh.text.as_str().into();
        done(&shown)
    }

    /// Who did what stands in the log.
    fn note(&self, what: &str, row: &Row) {
        let name = row.definition["name"].as_str().unwrap_or_default();
        log::info!("{} {what} the API key {} ({name})", self.operator, row.id);
    }
}

/// A key for what is not configured would never let anybody pass: rather a word now.
fn exists(snapshot: &Snapshot, definition: &Definition) -> Result<(), Refusal> {
    let mistake = |path: &str, why: String| Err(Refusal::mistake(Problem::new(path, why)));
    let accounts = match &definition.account {
        None => snapshot.accounts.values().collect(),
        Some(account) => match snapshot.accounts.get(account) {
            Some(found) => vec![found],
            None => return mistake("account", format!("no account `{account}` is configured")),
        },
    };
    let fits = |pattern: &str| {
        let mut gateways = accounts.iter().flat_map(|account| account.keys());
        gateways.any(|gateway| pattern::fits(pattern, gateway))
    };
    match definition.gateways.iter().find(|pattern| !fits(pattern)) {
        None => Ok(()),
        Some(pattern) => mistake("gateways", format!("no gateway `{pattern}` is configured")),
    }
}

/// Nor would a list, or a budget, that names what nobody asks for by this name.
fn matches(snapshot: &Snapshot, definition: &Definition) -> Result<(), Refusal> {
    let accounts = snapshot.accounts.values();
    // All gateways have the same providers.
    let Some(gateway) = accounts.flat_map(|account| account.values()).next() else {
        return Ok(());
    };
    let providers = gateway.providers.iter();
    let names = providers
        .map(|(name, mounted)| (&**name, &*mounted.provider.slug))
        .collect();
    let access: Access = said(definition, "access");
    let spend_limits: Vec<SpendLimit> = said(definition, "spend_limits");
    match bounds::misnamed("", &access, &spend_limits, &names) {
        none if none.is_empty() => Ok(()),
        mistakes => Err(Refusal::mistakes(mistakes)),
    }
}

/// What a definition says there; nothing where it is left out: otherwise it would not have been read as one.
fn said<T: DeserializeOwned + Default>(definition: &Definition, field: &str) -> T {
    serde_json::from_value(definition.said[field].clone()).unwrap_or_default()
}

/// Puts in what the path says, where the body does not say another.
fn given(said: &mut Value, name: &str, value: Value) -> Result<(), Refusal> {
    fits(name, said.get(name).cloned(), &value)?;
    if let Some(fields) = said.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
    Ok(())
}

fn fits(name: &str, said: Option<Value>, value: &Value) -> Result<(), Refusal> {
    match said {
        Some(said) if said != *value => {
            let message = format!("must be {value}, as in the path, or left out");
            Err(Refusal::mistake(Problem::new(name, message)))
        }
        _ => Ok(()),
    }
}

fn json_of(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::mistake(Problem::new("body", format!("must be JSON: {error}"))))
}

/// How long the old secret is to work: `{"grace": "10m"}`; without a body not at all.
fn grace(body: &[u8]) -> Result<Duration, Refusal> {
    if body.is_empty() {
        return Ok(Duration::ZERO);
    }
    // A bare "10m" is surely meant: to take it for nothing would cut off whoever has the old secret.
    let Value::Object(fields) = json_of(body)? else {
        let message = r#"must be a JSON object, such as {"grace":"10m"}, or empty"#;
        return Err(Refusal::mistake(Problem::new("body", message)));
    };
    if let Some(name) = fields.keys().find(|name| *name != "grace") {
        let problem = Problem::new(name.as_str(), "unknown; known is grace");
        return Err(Refusal::mistake(problem));
    }
    let grace = match fields.get("grace") {
        None => return Ok(Duration::ZERO),
        Some(text) => text.as_str().and_then(|text| text.parse().ok()),
    };
    let grace: Option<units::Duration> = grace;
    grace
        .map(|grace| grace.0)
        .ok_or_else(|| Refusal::mistake(Problem::new("grace", "expected a duration such as `10m`")))
}

/// A key as the API shows it.
fn shown(row: &Row, now: i64) -> Value {
    let said = &row.definition;
    let time = |time: Option<i64>| time.map(times::shown);
    let expires_at = said["expires_at"].as_str().and_then(times::parse);
    let status = match (row.revoked_at, expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "active",
    };
    let or = |name: &str, empty: Value| match &said[name] {
        Value::Null => empty,
        said => said.clone(),
    };
    json!({
        "id": row.id, "status": status,
        "name": said["name"], "owner": said["owner"], "metadata": or("metadata", json!({})),
        "account": said["account"], "gateways": said["gateways"],
        "access": or("access", json!({})),
        "rate_limits": or("rate_limits", json!([])),
        "spend_limits": or("spend_limits", json!([])),
        "created_at": times::shown(row.created_at), "modified_at": times::shown(row.changed_at),
        "expires_at": said["expires_at"], "revoked_at": time(row.revoked_at),
        "previous_secret_until": time(row.old_secret_until(now)),
    })
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Store(problem) => unavailable("the store of API keys", &problem.to_string()),
        Failure::Full => Refusal::of(
            StatusCode::CONFLICT,
            format!("there are {MOST} API keys, none of which is revoked: revoke one first"),
        ),
        Failure::NoKey => Refusal::of(StatusCode::NOT_FOUND, "there is no such API key"),
        Failure::Revoked => Refusal::of(
            StatusCode::CONFLICT,
            "this API key is revoked, for good: make another",
        ),
        Failure::Mistakes(problems) => Refusal::mistakes(problems),
        Failure::NoRandomness => Refusal::broken("the system has no randomness"),
    }
}

fn no_key(id: &str) -> Refusal {
    Refusal::of(
        StatusCode::NOT_FOUND,
        format!("there is no API key {id} here"),
    )
}

fn no_store() -> Refusal {
    unavailable(
        "the store of API keys",
        "it cannot be opened; the log says why",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_a_field_of_an_object() {
        for (body, expected) in [("", 0), ("{}", 0), (r#"{"grace":"10m"}"#, 600)] {
            let grace = grace(body.as_bytes()).ok();
            assert_eq!(grace, Some(Duration::from_secs(expected)), "{body}");
        }
        for (body, field) in [
            (r#""10m""#, "body"),
            (r#"["10m"]"#, "body"),
            ("10", "body"),
            ("null", "body"),
            ("10m", "body"),
            (r#"{"grace":10}"#, "grace"),
            (r#"{"graze":"10m"}"#, "graze"),
        ] {
            let refusal = grace(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(refusal.field.as_deref(), Some(field), "{body}");
        }
        let refusal = grace(br#""10m""#).unwrap_err();
        assert!(
            refusal.message.contains(r#"{"grace":"10m"}"#),
            "{}",
            refusal.message
        );
    }
}
