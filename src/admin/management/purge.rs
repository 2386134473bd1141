//! `DELETE …/gateways/{gateway}/cache`: makes stored answers unfindable, all of them or those that
//! the query names.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::Refusal;
use crate::cache::key::Key;
use crate::cache::stamps::Purge;
use crate::cache::store::Cache;

/// Longest name by which answers are purged, in bytes.
const MAX_NAME: usize = 1024;

/// Purges what `query` names of the answers of the gateway with this label.
pub async fn answer(cache: &Arc<Cache>, label: Box<str>, query: &str) -> Result<Value, Refusal> {
    let wanted = purges(query)?;
    let cache = Arc::clone(cache);
    // It is written down before the answer says so.
    let purging = tokio::task::spawn_blocking(move || purge(&cache, &label, &wanted));
    purging
        .await
        .unwrap_or_else(|error| Err(Refusal::broken(&error.to_string())))
}

/// What a query names: every parameter purges what bears its value; no parameter, everything.
fn purges(query: &str) -> Result<Vec<Purge>, Refusal> {
    let mut wanted = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() || value.len() > MAX_NAME {
            let message = format!("the query parameter {name} must have 1 to {MAX_NAME} bytes");
            return Err(Refusal::of(StatusCode::BAD_REQUEST, message));
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
                return Err(Refusal::of(StatusCode::BAD_REQUEST, message));
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
        Some(error) => Err(Refusal::broken(&format!(
            "purged in this process, but not durably: {error}; check data_dir and purge again"
        ))),
    }
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
            let refusal = purges(query).unwrap_err();
            assert_eq!(
                refusal.status,
                StatusCode::BAD_REQUEST,
                "{query}: {refusal:?}"
            );
        }
    }
}
