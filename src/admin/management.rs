//! The management API: the tree of Cloudflare's API that belongs to the gateways, at the same
//! paths and in the same envelope (contract of Cloudflare AI Gateway, management API).
//!
//! So far it has one resource: `DELETE …/gateways/{gateway}/cache` makes stored answers
//! unfindable, all of them or those that its query names.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::json_response;
use crate::cache::key::Key;
use crate::cache::stamps::Purge;
use crate::cache::store::Cache;
use crate::gateway::Snapshot;

/// What all its paths begin with.
pub const ROOT: &str = "/client/v4/";

/// Longest name by which answers are purged, in bytes.
const MAX_NAME: usize = 1024;

/// A refusal: status, and what to do.
type Refusal = (StatusCode, String);

/// Answers a request whose path begins with [`ROOT`].
pub async fn answer(
    cache: &Arc<Cache>,
    snapshot: &Snapshot,
    method: &Method,
    path: &str,
    query: &str,
) -> Response<Vec<u8>> {
    let result = match asked(snapshot, method, path, query) {
        Ok((scope, wanted)) => {
            let cache = Arc::clone(cache);
            // It is written down before the answer says so.
            let purging = tokio::task::spawn_blocking(move || purge(&cache, &scope, &wanted));
            let unfinished = |error: tokio::task::JoinError| {
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            };
            purging.await.unwrap_or_else(|error| Err(unfinished(error)))
        }
        Err(refusal) => Err(refusal),
    };
    envelope(result)
}

/// Whose cache, and what of it.
fn asked(
    snapshot: &Snapshot,
    method: &Method,
    path: &str,
    query: &str,
) -> Result<(Box<str>, Vec<Purge>), Refusal> {
    let (account, gateway) = gateway_cache(path)?;
    let gateway = snapshot.gateway(account, gateway).ok_or_else(|| {
        let message = format!("account `{account}` has no gateway `{gateway}`");
        (StatusCode::NOT_FOUND, message)
    })?;
    if method != Method::DELETE {
        let message = "this resource answers DELETE only".to_owned();
        return Err((StatusCode::METHOD_NOT_ALLOWED, message));
    }
    Ok((gateway.label.clone(), purges(query)?))
}

/// Account and gateway of `/client/v4/accounts/{account}/ai-gateway/gateways/{gateway}/cache`.
fn gateway_cache(path: &str) -> Result<(&str, &str), Refusal> {
    let parts: Vec<_> = path.strip_prefix(ROOT).unwrap_or("").split('/').collect();
    match parts[..] {
        [
            "accounts",
            account,
            "ai-gateway",
            "gateways",
            gateway,
            "cache",
        ] => Ok((account, gateway)),
        _ => Err((
            StatusCode::NOT_FOUND,
            "no such resource; there is DELETE /client/v4/accounts/{account}/ai-gateway/gateways/{gateway}/cache"
                .to_owned(),
        )),
    }
}

/// What a query names: every parameter purges what bears its value; no parameter, everything.
fn purges(query: &str) -> Result<Vec<Purge>, Refusal> {
    let mut wanted = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() || value.len() > MAX_NAME {
            let message = format!("the query parameter {name} must have 1 to {MAX_NAME} bytes");
            return Err((StatusCode::BAD_REQUEST, message));
        }
        let value: Box<str> = value.into();
        match &*name {
            "key" => {
                wanted.extend(Key::from_hex(&value).map(|key| Purge::Key(*key.as_bytes())));
                wanted.push(Purge::CustomKey(value));
            }
            "tag" => wanted.push(Purge::Tag(value)),
            "provider" => wanted.push(Purge::Provider(value)),
            "model" => wanted.push(Purge::Model(value)),
            _ => {
                let message = format!(
                    "unknown query parameter `{name}`; known are key, tag, provider and model, and none at all for everything"
                );
                return Err((StatusCode::BAD_REQUEST, message));
            }
        }
    }
    if wanted.is_empty() {
        wanted.push(Purge::All);
    }
    Ok(wanted)
}

fn purge(cache: &Cache, scope: &str, wanted: &[Purge]) -> Result<Value, Refusal> {
    // All of them, also when one cannot be written down.
    let purged: Vec<_> = wanted.iter().map(|what| cache.purge(scope, what)).collect();
    let failed = purged.into_iter().find_map(Result::err);
    match failed {
        None => Ok(json!({ "purged": true })),
        Some(error) => Err((
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "purged in this process, but not durably: {error}; check data_dir and purge again"
            ),
        )),
    }
}

fn envelope(result: Result<Value, Refusal>) -> Response<Vec<u8>> {
    let (status, body) = match result {
        Ok(result) => (
            StatusCode::OK,
            json!({ "success": true, "result": result, "errors": [], "messages": [] }),
        ),
        Err((status, message)) => (
            status,
            json!({
                "success": false,
                "result": null,
                "errors": [{ "code": 7000 + u32::from(status.as_u16()), "message": message }],
                "messages": [],
            }),
        ),
    };
    json_response(status, &body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_is_purged() {
        assert_eq!(purges("").unwrap(), [Purge::All]);
        assert_eq!(
            purges("tag=a%20b&tag=c&model=gpt-5&provider=openai").unwrap(),
            [
                Purge::Tag("a b".into()),
                Purge::Tag("c".into()),
                Purge::Model("gpt-5".into()),
                Purge::Provider("openai".into()),
            ]
        );
        assert_eq!(purges("key=faq").unwrap(), [Purge::CustomKey("faq".into())]);
        let digest = "ab".repeat(32);
        assert_eq!(
            purges(&format!("key={digest}")).unwrap(),
            [
                Purge::Key([0xab; 32]),
                Purge::CustomKey(digest.as_str().into())
            ]
        );
    }

    #[test]
    fn a_mistake_never_purges_everything() {
        for query in ["tags=a", "tag=", "all", "key"] {
            let (status, message) = purges(query).unwrap_err();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {message}");
        }
    }

    #[test]
    fn only_the_path_of_a_gateways_cache_is_one() {
        let path = "/client/v4/accounts/a/ai-gateway/gateways/g/cache";
        assert_eq!(gateway_cache(path).unwrap(), ("a", "g"));
        for other in ["", "/", "/x", "/accounts/a/ai-gateway/gateways/g/cache"] {
            assert!(gateway_cache(&format!("{path}{other}x")).is_err());
            assert!(gateway_cache(other).is_err());
        }
    }
}
