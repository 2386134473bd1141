//! The client's own labels on a request: a few names with a text, a number or a truth value
//! (contract, custom metadata). They keep the order in which the client gave them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries that are kept; the first ones.
pub const MOST_ENTRIES: usize = 5;

/// Names that begin so are the gateway's own.
const RESERVED: &str = "cf.";

/// Names and values, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(pub Vec<(String, MetadataValue)>);

/// A value. Whole numbers stay whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

impl MetadataValue {
    /// As filters compare it: a number as JSON writes it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Self::Whole(number) => Cow::Owned(number.to_string()),
            Self::Number(number) => Cow::Owned(serde_json::json!(number).to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    /// As filters order it: numbers, and texts that are numbers.
    #[allow(clippy::cast_precision_loss)] // a comparison by size
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Flag(_) => None,
            Self::Whole(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Metadata {
    /// The first entries that a client may set: no reserved names, no more than [`MOST_ENTRIES`].
    pub fn of_client(mut self) -> Self {
        self.0.retain(|(name, _)| !name.starts_with(RESERVED));
        self.0.truncate(MOST_ENTRIES);
        self
    }

    pub(super) fn weight(&self) -> usize {
        let text = |value: &MetadataValue| match value {
            MetadataValue::Text(text) => text.len(),
            _ => 0,
        };
        self.0
            .iter()
            .map(|(name, value)| size_of_val(name) + size_of_val(value) + name.len() + text(value))
            .sum()
    }

    /// As the store keeps it; `None` when there is none.
    pub(super) fn json(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::to_string(self).unwrap_or_default())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Metadata;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object whose values are texts, numbers, true or false")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut entries: Vec<(String, MetadataValue)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<MetadataValue>().map_err(|_| {
                A::Error::custom(format!("`{name}` must be a text, a number, true or false"))
            })?;
            match entries.iter_mut().find(|(other, _)| *other == name) {
                Some(entry) => entry.1 = value, // the last one counts, as in any JSON object
                None => entries.push((name, value)),
            }
        }
        Ok(Metadata(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_and_kinds_are_kept() {
        let json = r#"{"z":"x","a":1,"m":1.5,"b":true}"#;
        let metadata: Metadata = serde_json::from_str(json).unwrap();
        assert_eq!(metadata.json().unwrap(), json);
        let texts: Vec<_> = metadata
            .0
            .iter()
            .map(|(_, value)| value.text().into_owned())
            .collect();
        assert_eq!(texts, ["x", "1", "1.5", "true"]);
        assert_eq!(Metadata::default().json(), None);
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for json in [r#"{"a":1,"b":null}"#, r#"{"b":[1]}"#, r#"{"b":{}}"#] {
            let error = serde_json::from_str::<Metadata>(json)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("`b` must be"), "{error}");
        }
    }

    #[test]
    fn a_client_sets_five_and_none_of_ours() {
        let json = r#"{"cf.x":1,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"a":2}"#;
        let metadata = serde_json::from_str::<Metadata>(json).unwrap().of_client();
        assert_eq!(
            metadata.json().unwrap(),
            r#"{"a":2,"b":1,"c":1,"d":1,"e":1}"#
        );
    }
}
