//! Collects the texts of a request or an answer, of whichever format, without building a tree of
//! it. What stands in front of an error, such as the end of a cut document, is collected too.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Which keys matter. The formats' words do not clash, so there is one set for all of them.
pub(super) struct Keys {
    /// What has text in it, at whatever depth below.
    pub into: &'static [&'static str],
    /// What is written as JSON: arguments of functions.
    pub json: &'static [&'static str],
    /// What describes tools, as JSON.
    pub schema: &'static [&'static str],
    /// What stands for a message, or for a call in an answer, unless it is empty.
    pub message: &'static [&'static str],
    /// Names of which an object may have several for the same: only the first counts.
    pub twins: &'static [&'static [&'static str]],
    /// What stands for an image, a sound or a file.
    pub media: &'static [&'static str],
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub texts: Vec<String>,
    pub schemas: Vec<String>,
    pub messages: usize,
    pub media: usize,
}

impl Found {
    /// Collects from documents that follow each other.
    pub fn collect(&mut self, keys: &'static Keys, documents: &[u8]) {
        let mut json = serde_json::Deserializer::from_slice(documents);
        while json.end().is_err() {
            let walk = Walk { keys, found: self };
            if walk.deserialize(&mut json).is_err() {
                break;
            }
        }
    }
}

struct Walk<'a> {
    keys: &'static Keys,
    found: &'a mut Found,
}

impl Walk<'_> {
    fn again(&mut self) -> Walk<'_> {
        Walk {
            keys: self.keys,
            found: self.found,
        }
    }

    /// Takes JSON, or a text that is JSON.
    fn read_json(&mut self, json: &RawValue) {
        let json = json.get();
        match json.starts_with('"') {
            true => self
                .found
                .texts
                .extend(serde_json::from_str::<String>(json)),
            false if matches!(json, "null" | "{}") => {}
            false => self.found.texts.push(json.to_owned()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !text.is_empty() {
            self.found.texts.push(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut told: Option<&[&str]> = None;
        while let Some(Key(key)) = map.next_key()? {
            let before = self.found.texts.len();
            if told.is_some_and(|twins| twins.contains(&&*key)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.read_value(&key, &mut map)?;
            if self.found.texts.len() > before {
                let mut twins = self.keys.twins.iter().copied();
                told = twins.find(|twins| twins.contains(&&*key)).or(told);
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    fn read_value<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let is_in = |keys: &[&str]| keys.contains(&key);
        let before = self.found.texts.len();
        if is_in(self.keys.into) {
            map.next_value_seed(self.again())?;
        } else if is_in(self.keys.json) {
            self.read_json(map.next_value()?);
        } else if is_in(self.keys.schema) {
            let schema: &RawValue = map.next_value()?;
            self.found.schemas.push(schema.get().to_owned());
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        let is_empty = is_in(self.keys.into) && self.found.texts.len() == before;
        self.found.messages += usize::from(is_in(self.keys.message) && !is_empty);
        self.found.media += usize::from(is_in(self.keys.media));
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
