//! The management API: the tree of Cloudflare's API that belongs to the gateways, at the same
//! paths and in the same envelope (contract of Cloudflare AI Gateway, management API, logs REST
//! API).
//!
//! [`Resource`] is all there is; [`purge`], [`logs`], [`analytics`], [`budgets`],
//! [`keys`] and [`provider_configs`] answer for it. What all gateways have together is at `/-/logs…`,
//! `/-/analytics`, `/-/budgets`, `/-/keys…` and `/-/provider_configs…`, with the same parameters.
//!
//! Keys of either kind are for who is known by a token, also where none is configured
//! ([`identified`]): their modules want to be told who that is.

mod analytics;
mod budgets;
mod export;
mod keys;
mod logs;
mod provider_configs;
mod purge;

use http::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Admin, Answer, json_response, setup};
use crate::config::Problem;
use crate::gateway::Snapshot;
use crate::logs::filter::FieldError;
use crate::logs::reader::Scope;

/// What the paths begin with that name a gateway.
const ROOT: &str = "/client/v4/";
/// What the paths begin with that name none.
const ALL: [&str; 5] = [
    "/-/logs",
    "/-/analytics",
    "/-/budgets",
    "/-/keys",
    "/-/provider_configs",
];

/// A request to the API.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a str,
    /// Its query, or nothing.
    pub query: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// Who asks, where a token said so.
    pub operator: Option<&'a str>,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    /// The stored answers of a gateway.
    Cache(Gateway<'a>),
    /// Finished requests of a gateway, or of all.
    Logs(Option<Gateway<'a>>, logs::Resource),
    /// The same added up.
    Analytics(Option<Gateway<'a>>),
    /// What is left of budgets, of a gateway or of all.
    Budgets(Option<Gateway<'a>>),
    /// API keys of a gateway, of an account, or all.
    Keys(keys::Scope<'a>, keys::Resource<'a>),
    /// The provider keys of a gateway, or of all.
    ProviderConfigs(Option<Gateway<'a>>, provider_configs::Resource),
}

/// Account and gateway, as a path names them.
type Gateway<'a> = (&'a str, &'a str);

/// Why something is not done, and what to do.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: u32,
    message: String,
    /// The parameter that is to blame.
    field: Option<String>,
    /// Other mistakes beside it: parameters and what is wrong with them.
    others: Vec<Problem>,
}

impl Refusal {
    fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: 7000 + u32::from(status.as_u16()),
            message: message.into(),
            field: None,
            others: Vec::new(),
        }
    }

    fn mistake(mistake: Problem) -> Self {
        Self {
            code: 7400,
            field: (!mistake.path.is_empty()).then_some(mistake.path.clone()),
            ..Self::of(StatusCode::BAD_REQUEST, mistake.to_string())
        }
    }

    /// All that is wrong at once.
    fn mistakes(mut mistakes: Vec<Problem>) -> Self {
        let others = mistakes.split_off(mistakes.len().min(1));
        let first = mistakes.pop();
        let first = first.unwrap_or_else(|| Problem::new("", "the request has mistakes"));
        Self {
            others,
            ..Self::mistake(first)
        }
    }

    fn broken(message: &str) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        let code = if error.unknown_key { 7001 } else { 7400 };
        Self {
            code,
            message: error.to_string(),
            field: Some(error.field),
            ..Self::of(StatusCode::BAD_REQUEST, "")
        }
    }
}

/// Whether a path may name one of its resources.
pub fn has(path: &str) -> bool {
    path.starts_with(ROOT) || ALL.iter().any(|all| path.starts_with(all))
}

/// Answers a request for one of its resources.
pub async fn answer(admin: &Admin, asked: &Asked<'_>) -> Answer {
    let result = match resource(asked.path) {
        Ok(resource) => serve(admin, asked, resource).await,
        Err(refusal) => Err(refusal),
    };
    result.unwrap_or_else(|refusal| refused(&refusal))
}

async fn serve(
    admin: &Admin,
    asked: &Asked<'_>,
    resource: Resource<'_>,
) -> Result<Answer, Refusal> {
    let snapshot = admin.live.snapshot().load_full();
    match resource {
        Resource::Cache(gateway) => {
            let label = known(&snapshot, gateway)?;
            only(asked.method, &[Method::DELETE])?;
            let purged = purge::answer(&admin.cache, label, asked.query).await?;
            Ok(done(&purged))
        }
        Resource::Logs(gateway, resource) => {
            let scope = match gateway {
                // Also one that is configured no more: its calls are still there.
                Some((account, gateway)) => Scope::gateway(account, gateway),
                None => Scope::all(),
            };
            logs::answer(admin, asked, scope, resource).await
        }
        Resource::Analytics(gateway) => {
            only(asked.method, &[Method::GET])?;
            analytics::answer(admin, gateway, asked.query).await
        }
        Resource::Budgets(gateway) => {
            let label = gateway
                .map(|gateway| known(&snapshot, gateway))
                .transpose()?;
            only(asked.method, &[Method::GET])?;
            Ok(budgets::answer(admin, &snapshot, label.as_deref()).await)
        }
        Resource::Keys(scope, resource) => {
            let operator = identified(admin, asked)?;
            keys::answer(admin, asked, operator, &snapshot, scope, resource).await
        }
        Resource::ProviderConfigs(gateway, resource) => {
            let operator = identified(admin, asked)?;
            provider_configs::answer(admin, asked, operator, &snapshot, gateway, resource).await
        }
    }
}

/// The label of a gateway that is configured.
fn known(snapshot: &Snapshot, (account, gateway): Gateway<'_>) -> Result<Box<str>, Refusal> {
    let found = snapshot.gateway(account, gateway);
    found.map(|found| found.label.clone()).ok_or_else(|| {
        let message = format!("account `{account}` has no gateway `{gateway}`");
        Refusal::of(StatusCode::NOT_FOUND, message)
    })
}

fn only(method: &Method, allowed: &[Method]) -> Result<(), Refusal> {
    if allowed.contains(method) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
    let message = format!("this resource answers {} only", names.join(" and "));
    Err(Refusal::of(StatusCode::METHOD_NOT_ALLOWED, message))
}

fn resource(path: &str) -> Result<Resource<'_>, Refusal> {
    if let Some(rest) = path.strip_prefix("/-/") {
        return below(rest, None).ok_or_else(unknown);
    }
    let rest = path.strip_prefix(ROOT).unwrap_or("");
    let parts: Vec<_> = rest.splitn(4, '/').collect();
    let ["accounts", account, "ai-gateway", rest] = parts[..] else {
        return Err(unknown());
    };
    let Some(rest) = rest.strip_prefix("gateways/") else {
        let keys = keys::Resource::parse(rest).ok_or_else(unknown)?;
        return Ok(Resource::Keys(keys::Scope::Account(account), keys));
    };
    let (gateway, rest) = rest.split_once('/').ok_or_else(unknown)?;
    let gateway = (account, gateway);
    match rest {
        "cache" => Ok(Resource::Cache(gateway)),
        rest => below(rest, Some(gateway)).ok_or_else(unknown),
    }
}

/// What there is of one gateway and of all together.
fn below<'a>(rest: &'a str, gateway: Option<Gateway<'a>>) -> Option<Resource<'a>> {
    if let Some(keys) = keys::Resource::parse(rest) {
        let scope = gateway.map_or(keys::Scope::All, |(account, gateway)| {
            keys::Scope::Gateway(account, gateway)
        });
        return Some(Resource::Keys(scope, keys));
    }
    match rest.split_once('/') {
        None if rest == "analytics" => Some(Resource::Analytics(gateway)),
        None if rest == "budgets" => Some(Resource::Budgets(gateway)),
        None if rest == "provider_configs" => {
            let list = provider_configs::Resource::List;
            Some(Resource::ProviderConfigs(gateway, list))
        }
        None if rest == "logs" => Some(Resource::Logs(gateway, logs::Resource::List)),
        Some(("logs", rest)) => {
            logs::Resource::parse(rest).map(|found| Resource::Logs(gateway, found))
        }
        Some(("provider_configs", rest)) => {
            let found = provider_configs::Resource::parse(rest, gateway.is_some());
            found.map(|found| Resource::ProviderConfigs(gateway, found))
        }
        _ => None,
    }
}

fn unknown() -> Refusal {
    let message = "no such resource; below /client/v4/accounts/{account}/ai-gateway/gateways/{gateway} there are DELETE /cache, GET and DELETE /logs, GET and PATCH /logs/{id}, GET /logs/{id}/request, GET /logs/{id}/response, GET /logs/export, POST /logs/reprice, GET /analytics, GET /budgets, GET and POST /keys, GET, PATCH and DELETE /keys/{id}, POST /keys/{id}/rotate, GET, POST and PUT /provider_configs and GET, PUT and DELETE /provider_configs/{id}; keys of an account are at /client/v4/accounts/{account}/ai-gateway/keys; logs, analytics, budgets, keys and provider keys of all gateways together are below /-";
    Refusal::of(StatusCode::NOT_FOUND, message)
}

fn refused(refusal: &Refusal) -> Answer {
    Answer::Whole(refused_whole(refusal))
}

fn refused_whole(refusal: &Refusal) -> Response<Vec<u8>> {
    let error = |message: &str, field: Option<&str>| {
        let mut error = json!({ "code": refusal.code, "message": message });
        if let Some(field) = field {
            error["path"] = json!([field]);
        }
        error
    };
    let mut errors = vec![error(&refusal.message, refusal.field.as_deref())];
    for other in &refusal.others {
        let field = (!other.path.is_empty()).then_some(&*other.path);
        errors.push(error(&other.to_string(), field));
    }
    let body = json!({ "success": false, "result": null, "errors": errors, "messages": [] });
    json_response(refusal.status, &body)
}

/// Whether a path is one of Cloudflare's.
pub fn is_cloudflares(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// The answer to who brings no token of an operator.
pub fn unauthorized(message: &str) -> Response<Vec<u8>> {
    refused_whole(&no_operator(message))
}

/// Who asks, which what holds or makes secrets must know.
fn identified<'a>(admin: &Admin, asked: &Asked<'a>) -> Result<&'a str, Refusal> {
    asked.operator.ok_or_else(|| {
        no_operator(&format!(
            "Authentication error: API keys and provider keys want the set-up token in {}, as `Authorization: Bearer <token>`, or admin.tokens in the configuration",
            setup::path(&admin.data_dir).display()
        ))
    })
}

/// Cloudflare's code for it.
fn no_operator(message: &str) -> Refusal {
    Refusal {
        code: 10_000,
        ..Refusal::of(StatusCode::UNAUTHORIZED, message)
    }
}

fn done(result: &Value) -> Answer {
    enveloped(&json!({ "result": result }))
}

/// `parts`, an object, in the envelope.
fn enveloped(parts: &impl Serialize) -> Answer {
    let mut body = json!({ "success": true, "errors": [], "messages": [] });
    match (serde_json::to_value(parts), body.as_object_mut()) {
        (Ok(Value::Object(parts)), Some(body)) => body.extend(parts),
        (other, _) => log::error!("an answer of the management API is no object: {other:?}"),
    }
    Answer::Whole(json_response(StatusCode::OK, &body))
}

/// The id in a path.
fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_these_resources_and_no_others() {
        let gateway = "/client/v4/accounts/a/ai-gateway/gateways/g";
        let of = |path: &str| {
            resource(&format!("{gateway}{path}"))
                .ok()
                .map(|found| format!("{found:?}"))
        };
        let cache = of("/cache").unwrap();
        assert_eq!(cache, r#"Cache(("a", "g"))"#);
        let one = "019ac3e0-0000-7000-8000-000000000001";
        for (path, end) in [
            ("/logs".to_owned(), "List)".to_owned()),
            ("/logs/export".to_owned(), "Export)".to_owned()),
            ("/logs/reprice".to_owned(), "Reprice)".to_owned()),
            (format!("/logs/{one}"), format!("One({one}))")),
            (format!("/logs/{one}/request"), format!("Request({one}))")),
            (format!("/logs/{one}/response"), format!("Response({one}))")),
        ] {
            let found = of(&path).unwrap_or_else(|| panic!("{path}"));
            assert!(found.ends_with(&end), "{path}: {found}");
            let all = format!("/-{path}");
            assert!(
                matches!(resource(&all), Ok(Resource::Logs(None, _))),
                "{all}"
            );
        }
        for (path, end) in [
            ("keys", "List"),
            ("keys/0123456789ab", r#"One("0123456789ab")"#),
            ("keys/0123456789ab/rotate", r#"Rotate("0123456789ab")"#),
        ] {
            let account = "/client/v4/accounts/a/ai-gateway";
            for (root, scope) in [
                (gateway, r#"Gateway("a", "g")"#),
                (account, r#"Account("a")"#),
                ("/-", "All"),
            ] {
                let path = format!("{root}/{path}");
                let found = resource(&path).unwrap();
                assert_eq!(format!("{found:?}"), format!("Keys({scope}, {end})"));
            }
        }
        let configs = of("/provider_configs").unwrap();
        assert_eq!(configs, r#"ProviderConfigs(Some(("a", "g")), List)"#);
        let config = of(&format!("/provider_configs/{one}")).unwrap();
        assert!(config.ends_with(&format!("One({one}))")), "{config}");
        let all = |path| format!("{:?}", resource(path).ok());
        assert_eq!(
            all("/-/provider_configs"),
            "Some(ProviderConfigs(None, List))"
        );
        let reencrypt = all("/-/provider_configs/reencrypt");
        assert_eq!(reencrypt, "Some(ProviderConfigs(None, Reencrypt))");
        for other in [
            "",
            "/",
            "/provider_configs/x",
            "/provider_configs/reencrypt",
            "/cache/",
            "/cache/x",
            "/cachex",
            "/logs/x",
            "/logs/export/x",
            "/logs/reprice/x",
            "/log",
            "/logs/",
            "/keys/",
            "/keys/x",
            "/keys/0123456789ab/rotate/x",
            "/keys/0123456789ab/x",
            "/analytics/",
            "/analytics/x",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        for other in [
            "",
            "/",
            "/x",
            "/client/v4/",
            "/accounts/a/ai-gateway/gateways/g/cache",
            "/-/logsx",
        ] {
            assert!(resource(other).is_err(), "{other}");
        }
    }
}
