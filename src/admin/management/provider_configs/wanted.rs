//! What a request for a provider key says. It is read by hand, because serde's messages would quote
//! what may be a secret.

use http::StatusCode;
use serde_json::{Map, Value};

use super::{Refusal, is_default, wrong};
use crate::config::secret::Secret;
use crate::provider_keys::Name;

/// Most characters of an alias.
const LONGEST_ALIAS: usize = 64;
/// The largest weight.
const HEAVIEST: u64 = 1_000_000;

/// The body of a request; of what it does not say, nothing is changed.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub provider: Option<Box<str>>,
    pub alias: Option<Box<str>>,
    pub secret: Option<Secret>,
    pub weight: Option<u32>,
}

impl Wanted {
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let object = serde_json::from_slice::<Map<String, Value>>(body);
        let object = object.map_err(|_| {
            let message = "the body must be a JSON object {provider_slug, alias, secret, weight}";
            Refusal::of(StatusCode::BAD_REQUEST, message)
        })?;
        let (mut wanted, mut default) = (Self::default(), None);
        for (field, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            match field.as_str() {
                "provider_slug" => wanted.provider = Some(text(field, value)?.into()),
                "alias" => wanted.alias = Some(alias(text(field, value)?)?),
                "secret" => wanted.secret = Some(Secret::new(text(field, value)?.trim())),
                "weight" => wanted.weight = Some(weight(value)?),
                "default_config" => {
                    let told = value.as_bool();
                    default = Some(told.ok_or_else(|| wrong(field, "must be true or false"))?);
                }
                _ => return Err(wrong(field, "is no field of a provider config here")),
            }
        }
        wanted.agrees_with(default)?;
        Ok(wanted)
    }

    /// Here the default key is the one that is called so.
    fn agrees_with(&mut self, default: Option<bool>) -> Result<(), Refusal> {
        let alias = self.alias.as_deref().map(is_default);
        match (default, alias) {
            (Some(told), Some(is)) if told != is => Err(wrong(
                "default_config",
                "must be true for the alias `default` and for no other: that key pays for requests that name none",
            )),
            _ => Ok(()),
        }
    }

    /// What a key is for cannot be changed: it is sealed for it.
    pub fn keeps_its_name(&self, name: &Name) -> Result<(), Refusal> {
        let other = |told: &Option<Box<str>>, is: &str| told.as_deref().is_some_and(|it| it != is);
        let field = match () {
            () if other(&self.alias, &name.alias) => "alias",
            () if other(&self.provider, &name.provider) => "provider_slug",
            () => return Ok(()),
        };
        Err(wrong(
            field,
            "of a stored key cannot be changed: store another one",
        ))
    }
}

fn text<'a>(field: &str, value: &'a Value) -> Result<&'a str, Refusal> {
    let text = value.as_str().filter(|text| !text.trim().is_empty());
    text.ok_or_else(|| wrong(field, "must be text"))
}

fn alias(text: &str) -> Result<Box<str>, Refusal> {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good = text.len() <= LONGEST_ALIAS && text.bytes().all(of_name);
    let rule = "must be 1 to 64 letters, digits, `-`, `_` and `.`";
    good.then(|| text.into())
        .ok_or_else(|| wrong("alias", rule))
}

fn weight(value: &Value) -> Result<u32, Refusal> {
    let number = value.as_u64().filter(|weight| *weight <= HEAVIEST);
    let number = number.and_then(|weight| u32::try_from(weight).ok());
    number.ok_or_else(|| wrong("weight", "must be 0 (not in the pool) to 1000000"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_read_without_quoting_it() {
        for (body, expected) in [
            (json!("hunter2"), "the body must be a JSON object"),
            (json!({ "secret": ["hunter2"] }), "secret must be text"),
            (json!({ "secret": " " }), "secret must be text"),
            (json!({ "weight": "hunter2" }), "weight must be 0"),
            (json!({ "weight": 1_000_001 }), "weight must be 0"),
            (json!({ "alias": "hunter2 " }), "alias must be 1 to 64"),
            (json!({ "alias": "a".repeat(65) }), "alias must be 1 to 64"),
            (json!({ "secret_id": "hunter2" }), "secret_id is no field"),
            (
                json!({ "default_config": "hunter2" }),
                "default_config must be true or false",
            ),
            (
                json!({ "alias": "team", "default_config": true }),
                "default_config must be true for",
            ),
            (
                json!({ "alias": "default", "default_config": false }),
                "default_config must be",
            ),
        ] {
            let said = Wanted::parse(body.to_string().as_bytes()).unwrap_err();
            assert!(said.message.starts_with(expected), "{said:?}");
            assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
        }
    }

    #[test]
    fn a_body_in_cloudflares_form_is_understood() {
        let body = json!({
            "provider_slug": "openai", "alias": "default", "default_config": true,
            "secret": "hunter2\n", "weight": 0, "rate_limit": null,
        });
        let wanted = Wanted::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(wanted.provider.as_deref(), Some("openai"));
        assert_eq!(wanted.secret.as_ref().unwrap().expose(), "hunter2");
        assert!(!format!("{wanted:?}").contains("hunter2"));
        let name = Name {
            scope: "".into(),
            provider: "openai".into(),
            alias: "team".into(),
        };
        let said = wanted.keeps_its_name(&name).unwrap_err();
        assert_eq!(said.field.as_deref(), Some("alias"));
    }
}
