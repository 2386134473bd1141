//! `cf-aig-metadata`: what a client wants to find its calls by again.
//!
//! The contract of Cloudflare AI Gateway (custom metadata): a JSON object of texts, numbers and
//! booleans. Only the first few entries are kept; an entry of another type loses them all; keys
//! that begin with `cf.` are the gateway's own. Loss is silent there, and here too, so that clients
//! written for it keep working, unless the gateway is strict: then it is a 400 that says what is
//! wrong.

use std::fmt;

use http::HeaderValue;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Failure, Kind};

/// Keys that begin with it are the gateway's own.
const RESERVED: &str = "cf.";
/// Longest key, in bytes.
const MAX_KEY: usize = 256;

/// How metadata is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most entries, 1 to 64.
    pub max_entries: usize,
    /// Most bytes of the whole header.
    pub max_bytes: usize,
    /// What would be lost is refused instead.
    pub strict: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_entries: 5,
            max_bytes: 8 << 10,
            strict: false,
        }
    }
}

/// Entries in the client's order, each key once.
pub type Metadata = Vec<(Box<str>, Value)>;

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// A number, as JSON has it.
    Number(serde_json::Number),
    /// Text.
    Text(Box<str>),
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(out),
            Self::Number(number) => number.fmt(out),
            Self::Text(text) => out.write_str(text),
        }
    }
}

/// The entries as one JSON object.
pub fn to_json(metadata: &Metadata) -> String {
    let entries = metadata.iter().map(|(key, value)| {
        let key = serde_json::to_string(key).unwrap_or_default();
        key + ":" + &serde_json::to_string(value).unwrap_or_default()
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

impl Settings {
    /// The entries that are kept. Fails only where the gateway is strict.
    pub fn read(&self, header: &HeaderValue) -> Result<Metadata, Failure> {
        let (mut entries, lost) = match self.parse(header) {
            Ok(parsed) => parsed,
            Err(rule) => (Metadata::new(), Some(rule)),
        };
        if let Some(rule) = lost.filter(|_| self.strict) {
            let message = format!("The header cf-aig-metadata {rule}");
            return Err(Failure::because(Kind::BadRequest, message));
        }
        entries.truncate(self.max_entries);
        Ok(entries)
    }

    /// The entries, and what of them cannot be kept.
    fn parse(&self, header: &HeaderValue) -> Result<(Metadata, Option<String>), String> {
        if header.len() > self.max_bytes {
            return Err(format!("must be at most {} bytes long", self.max_bytes));
        }
        let shape = "must be a JSON object of texts, numbers and booleans";
        let given: Given = serde_json::from_slice(header.as_bytes())
            .map_err(|error| format!("{shape}: {error}"))?;
        let mut entries = given.0;
        let all = entries.len();
        entries.retain(|(key, _)| !key.starts_with(RESERVED) && key.len() <= MAX_KEY);
        let lost = if entries.len() < all {
            Some(format!(
                "must have keys of at most {MAX_KEY} bytes that do not begin with `{RESERVED}`"
            ))
        } else if entries.len() > self.max_entries {
            Some(format!("must have at most {} entries", self.max_entries))
        } else {
            None
        };
        Ok((entries, lost))
    }
}

/// An object's entries in their order. A key that stands twice has its last value.
struct Given(Metadata);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Given;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut entries = Metadata::new();
        while let Some((key, value)) = map.next_entry::<Box<str>, serde_json::Value>()? {
            let value = value_of(value).ok_or_else(|| {
                A::Error::custom(format_args!("`{key}` is no text, number or boolean"))
            })?;
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => entries.push((key, value)),
            }
        }
        Ok(Given(entries))
    }
}

/// Puts these entries before the others and in place of those with the same keys.
pub fn put(metadata: &mut Metadata, others: &Metadata) {
    if others.is_empty() {
        return;
    }
    metadata.retain(|(key, _)| others.iter().all(|(other, _)| other != key));
    metadata.splice(0..0, others.iter().cloned());
}

/// An entry that is not a client's word.
///
/// # Errors
/// What is wrong with it, to be said behind its key.
pub fn entry(key: &str, value: serde_json::Value) -> Result<(Box<str>, Value), String> {
    if key.is_empty() || key.len() > MAX_KEY || key.starts_with(RESERVED) {
        return Err(format!(
            "must have 1 to {MAX_KEY} bytes and not begin with `{RESERVED}`"
        ));
    }
    let value = value_of(value).ok_or_else(|| "is no text, number or boolean".to_owned())?;
    Ok((key.into(), value))
}

fn value_of(json: serde_json::Value) -> Option<Value> {
    match json {
        serde_json::Value::Bool(flag) => Some(Value::Flag(flag)),
        serde_json::Value::Number(number) => Some(Value::Number(number)),
        serde_json::Value::String(text) => Some(Value::Text(text.into())),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(strict: bool, json: &str) -> Result<String, Failure> {
        let settings = Settings {
            strict,
            ..Settings::default()
        };
        let entries = settings.read(&HeaderValue::from_str(json).unwrap())?;
        let shown = entries.iter().map(|(key, value)| format!("{key}={value}"));
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn texts_numbers_and_booleans_are_kept_in_their_order() {
        let json = r#"{"user":"u-1","n":1.50,"z":true,"a":12345678901234567890}"#;
        for strict in [false, true] {
            let read = read(strict, json).unwrap();
            assert_eq!(read, "user=u-1 n=1.5 z=true a=12345678901234567890");
        }
        assert_eq!(read(true, r#"{"a":1,"b":2,"a":3}"#).unwrap(), "a=3 b=2");
        assert_eq!(read(true, "{}").unwrap(), "");
    }

    /// (header, what the contract keeps of it, what a strict gateway says)
    #[test]
    fn loss_is_silent_unless_the_gateway_is_strict() {
        let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(9000));
        for (json, kept, rule) in [
            (
                r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}"#,
                "a=1 b=2 c=3 d=4 e=5",
                "at most 5 entries",
            ),
            (r#"{"a":1,"b":null}"#, "", "`b` is no text"),
            (r#"{"a":1,"b":{"c":2}}"#, "", "`b` is no text"),
            (r#"{"cf.user":1,"b":2}"#, "b=2", "begin with `cf.`"),
            ("not json", "", "must be a JSON object"),
            ("[1]", "", "must be a JSON object"),
            (&long, "", "at most 8192 bytes"),
        ] {
            assert_eq!(read(false, json).unwrap(), kept, "{json}");
            let failure = read(true, json).unwrap_err();
            assert_eq!(failure.kind, Kind::BadRequest);
            assert!(failure.public.contains("cf-aig-metadata"), "{failure}");
            assert!(failure.public.contains(rule), "{json}: {}", failure.public);
        }
    }

    #[test]
    fn entries_of_a_key_go_before_a_clients() {
        let entry = |key: &str, value: &str| entry(key, value.into()).unwrap();
        let mut metadata = vec![entry("a", "1"), entry("b", "2")];
        put(&mut metadata, &vec![entry("b", "3"), entry("c", "4")]);
        assert_eq!(to_json(&metadata), r#"{"b":"3","c":"4","a":"1"}"#);
    }

    #[test]
    fn a_long_value_is_kept_whole() {
        let json = format!(r#"{{"k":"{}"}}"#, "x".repeat(600));
        assert_eq!(read(true, &json).unwrap().len(), 602);
    }
}
