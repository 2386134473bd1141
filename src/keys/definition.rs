//! What is said of a key: read from JSON, every mistake named by its field, and kept as it was said.

use serde_json::{Map, Value};

use crate::auth::Consumer;
use crate::config::Problem;
use crate::config::load::parse_as;
use crate::config::resolve;
use crate::config::resolve::bounds::{self, Written};
use crate::config::schema::VirtualKey;
use crate::limits::spend::Scope;
use crate::logs::times;
use crate::metadata;

/// Most bytes of a definition as JSON.
pub const LARGEST: usize = 8 * 1024;
/// Most entries of metadata.
const MOST_METADATA: usize = 16;
/// Most patterns of gateways.
const MOST_GATEWAYS: usize = 32;

/// A definition without a mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// As it was said, without nulls, and with what is kept of times and gateways.
    pub said: Value,
    /// The account whose gateways it may pass; `None` for all.
    pub account: Option<Box<str>>,
    /// Which of them, as patterns.
    pub gateways: Box<[Box<str>]>,
    /// Milliseconds since 1970 from which on it is refused.
    pub expires_at: Option<i64>,
    /// Whose it is, with what, and within which bounds. Its id is not known here.
    pub consumer: Consumer,
}

/// Reads a definition. `now`: milliseconds since 1970, from which `expires_in` counts.
///
/// # Errors
/// Every mistake with its field.
pub fn read(said: &Value, now: i64) -> Result<Definition, Vec<Problem>> {
    let Value::Object(fields) = said else {
        let problem = Problem::new("", "the definition of a key is a JSON object");
        return Err(vec![problem]);
    };
    let mut fields = fields.clone();
    fields.retain(|_, value| !value.is_null());
    let text = Value::Object(fields.clone()).to_string();
    if text.len() > LARGEST {
        let message = format!("the definition of a key may have {LARGEST} bytes of JSON");
        return Err(vec![Problem::new("", message)]);
    }
    // The configuration's reader tells all mistakes by their paths. Nothing is put in for `$`.
    parse_as::<VirtualKey>(&text.replace('$', "$$"), &|_| None)?;
    checked(fields, now)
}

/// What a stored definition says with these fields in place of its own; null takes one away.
///
/// # Errors
/// Every mistake with its field.
pub fn patched(stored: &Value, patch: &Value, now: i64) -> Result<Definition, Vec<Problem>> {
    let Value::Object(changes) = patch else {
        let problem = Problem::new("", "a change of a key is a JSON object of its new fields");
        return Err(vec![problem]);
    };
    let mut fields = stored.as_object().cloned().unwrap_or_default();
    if changes.contains_key("expires_in") {
        fields.remove("expires_at");
    }
    fields.extend(changes.clone());
    read(&Value::Object(fields), now)
}

/// A definition as it was stored.
///
/// # Errors
/// What of it this tollgate does not understand.
pub fn stored(said: Value) -> Result<Definition, Vec<Problem>> {
    match said {
        Value::Object(fields) => checked(fields, 0),
        _ => Err(vec![Problem::new("", "is no JSON object")]),
    }
}

fn checked(mut fields: Map<String, Value>, now: i64) -> Result<Definition, Vec<Problem>> {
    // What the configuration's reader forgives, such as a null deep within, is not kept.
    let key: VirtualKey = serde_json::from_value(Value::Object(fields.clone()))
        .map_err(|error| vec![Problem::new("", error.to_string())])?;
    let mut problems = Vec::new();
    let expires_at = expiry(&key, now, &mut problems);
    let VirtualKey {
        name,
        owner,
        metadata,
        account,
        gateways,
        expires_at: _, // both are read already
        expires_in: _,
        access,
        rate_limits,
        spend_limits,
    } = key;
    let gateways = gateways.unwrap_or_else(|| vec!["*".to_owned()]);
    let metadata = metadata_of(metadata);
    let names = |said: &Option<String>| said.as_deref().map_or(Ok(()), good_name);
    for (path, checked) in [
        ("name", good_name(&name)),
        ("owner", names(&owner)),
        ("account", names(&account)),
        ("gateways", good_gateways(&gateways)),
        (
            "metadata",
            metadata.as_ref().map(|_| ()).map_err(String::clone),
        ),
    ] {
        problems.extend(checked.err().map(|why| Problem::new(path, why)));
    }
    let bounds = bounds::of_key(&Written {
        // Its id is not known yet.
        scope: &Scope::Key(Box::default()),
        path: "",
        access: &access,
        rate_limits: &rate_limits,
        spend_limits: &spend_limits,
    });
    let bounds = bounds.map_err(|wrong| problems.extend(wrong));
    let (true, Ok(bounds)) = (problems.is_empty(), bounds) else {
        return Err(problems);
    };
    fields.remove("expires_in");
    fields.insert("gateways".to_owned(), gateways.as_slice().into());
    if let Some(end) = expires_at {
        fields.insert("expires_at".to_owned(), times::shown(end).into());
    }
    let consumer = Consumer {
        metadata: metadata.unwrap_or_default(),
        owner: owner.map(Into::into),
        bounds,
        ..Consumer::named(&name)
    };
    Ok(Definition {
        said: Value::Object(fields),
        account: account.map(Into::into),
        gateways: gateways.into_iter().map(Into::into).collect(),
        expires_at,
        consumer,
    })
}

fn expiry(key: &VirtualKey, now: i64, problems: &mut Vec<Problem>) -> Option<i64> {
    let mut wrong = |path, why: &str| problems.push(Problem::new(path, why));
    match (key.expires_at.as_deref(), key.expires_in) {
        (None, None) => None,
        (Some(time), None) => {
            let end = times::parse(time);
            if end.is_none() {
                wrong(
                    "expires_at",
                    "expected a time such as `2027-01-31T00:00:00Z` (RFC 3339)",
                );
            }
            end
        }
        (None, Some(length)) if length.0.is_zero() => {
            wrong("expires_in", "must be more than 0s");
            None
        }
        (None, Some(length)) => {
            let length = i64::try_from(length.0.as_millis()).unwrap_or(i64::MAX);
            Some(now.saturating_add(length))
        }
        (Some(_), Some(_)) => {
            wrong("expires_in", "stands beside expires_at: write one of them");
            None
        }
    }
}

fn good_name(name: &str) -> Result<(), String> {
    resolve::good_name(name).map_err(str::to_owned)
}

fn good_gateways(gateways: &[String]) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte);
    let is_pattern = |text: &String| (1..=64).contains(&text.len()) && text.bytes().all(good);
    if !(1..=MOST_GATEWAYS).contains(&gateways.len()) {
        return Err(format!(
            "names 1 to {MOST_GATEWAYS} gateways; [\"*\"] is all"
        ));
    }
    match gateways.iter().find(|text| !is_pattern(text)) {
        None => Ok(()),
        Some(text) => Err(format!(
            "`{text}` is no gateway's id: 1 to 64 letters, digits, -, _, and * for anything"
        )),
    }
}

fn metadata_of(
    said: std::collections::BTreeMap<String, Value>,
) -> Result<metadata::Metadata, String> {
    if said.len() > MOST_METADATA {
        return Err(format!("has at most {MOST_METADATA} entries"));
    }
    let entry = |(key, value): (String, Value)| {
        metadata::entry(&key, value).map_err(|why| format!("`{key}` {why}"))
    };
    said.into_iter().map(entry).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mistakes(said: &Value) -> String {
        let problems = read(said, 0).err().unwrap_or_default();
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        told.join("\n")
    }

    #[test]
    fn a_definition_is_kept_as_it_was_said() {
        let said = json!({
            "name": "app", "owner": "team-a", "metadata": { "team": "a$b", "n": 1.5, "live": true },
            "account": "default", "gateways": ["prod", "stage-*"], "expires_in": "1h",
            "access": { "models": { "allow": ["gpt-4o*"] }, "max_body": "1MiB" },
            "rate_limits": [{ "limit": 100, "window": "1m", "by": ["model"] }],
            "spend_limits": [{ "id": "day", "limit": 10.25, "window": "day" }],
        });
        let read = read(&said, 1_000).unwrap();
        assert_eq!(read.expires_at, Some(3_601_000));
        assert_eq!(read.said["expires_at"], "1970-01-01T01:00:01.000Z");
        assert_eq!(read.said["rate_limits"], said["rate_limits"]);
        assert_eq!(read.consumer.metadata.len(), 3);
        let bounds = &read.consumer.bounds;
        assert_eq!(*bounds.access.models.allow, [Box::from("gpt-4o*")]);
        assert_eq!(bounds.rates[0].limit, 100);
        assert_eq!(stored(read.said.clone()).unwrap(), read);
    }

    #[test]
    fn little_needs_to_be_said() {
        let read = read(&json!({ "name": "app", "owner": null }), 0).unwrap();
        assert_eq!(read.said, json!({ "name": "app", "gateways": ["*"] }));
        assert_eq!((read.account, read.expires_at), (None, None));
    }

    #[test]
    fn every_mistake_is_named_by_its_field() {
        for (said, expected) in [
            (json!([]), "a JSON object"),
            (json!({}), "name: is 1 to 64"),
            (json!({ "name": "a b" }), "name: is 1 to 64"),
            (json!({ "name": "a", "owner": "" }), "owner: is 1 to 64"),
            (json!({ "name": "a", "gateways": [] }), "gateways: names 1"),
            (
                json!({ "name": "a", "gateways": ["a/b"] }),
                "gateways: `a/b`",
            ),
            (
                json!({ "name": "a", "metadata": { "k": [1] } }),
                "metadata: `k` ",
            ),
            (
                json!({ "name": "a", "metadata": { "cf.k": 1 } }),
                "metadata: `cf.k` ",
            ),
            (
                json!({ "name": "a", "expires_at": "soon" }),
                "expires_at: expected",
            ),
            (json!({ "name": "a", "expires_in": "30" }), "expires_in: "),
            (
                json!({ "name": "a", "expires_in": "0s" }),
                "expires_in: must",
            ),
            (
                json!({ "name": "a", "expires_in": "1d", "expires_at": "2030-01-01" }),
                "expires_in: stands beside",
            ),
            (json!({ "name": "a", "nmae": 1 }), "nmae: "),
            (
                json!({ "name": "a", "access": { "models": { "allows": [] } } }),
                "access.models.allows: ",
            ),
            (
                json!({ "name": "a", "rate_limits": [{ "limit": "many" }] }),
                "rate_limits[0].limit: ",
            ),
            (
                json!({ "name": "a", "spend_limits": [{ "window": "fortnight" }] }),
                "spend_limits[0].window: ",
            ),
            (
                json!({ "name": "a", "access": { "models": null } }),
                "invalid type: null",
            ),
            (
                json!({ "name": "a", "metadata": { "k": "x".repeat(9_000) } }),
                "8192 bytes",
            ),
        ] {
            let told = mistakes(&said);
            assert!(told.contains(expected), "{said}: {told}");
        }
        let two = mistakes(&json!({ "name": "", "owner": "ü" }));
        assert_eq!(two.lines().count(), 2, "{two}");
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let before = read(&json!({ "name": "a", "owner": "b", "expires_in": "1h" }), 0).unwrap();
        let change = |patch| patched(&before.said, &patch, 1_000);
        let after = change(json!({ "owner": null, "gateways": ["x"] })).unwrap();
        assert_eq!(
            after.said,
            json!({ "name": "a", "gateways": ["x"], "expires_at": "1970-01-01T01:00:00.000Z" })
        );
        assert_eq!(
            change(json!({ "expires_in": "1s" })).unwrap().expires_at,
            Some(2_000)
        );
        assert_eq!(
            change(json!({ "expires_at": null })).unwrap().expires_at,
            None
        );
        assert!(change(json!({ "id": "x" })).is_err());
        assert!(change(json!("x")).is_err());
    }
}
