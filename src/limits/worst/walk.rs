//! One pass over a request's JSON that builds nothing: each value is judged where it ends, by what
//! it was and under which name it stood (`found`).

use std::fmt;

use serde::de;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;

use super::found::{Found, Object, Seen};
use super::text::Start;
use super::words::{self, Bound, bound};
use crate::config::schema::Format;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The request, and its fields.
    Top,
    /// An object whose fields are as good as the request's: `additionalModelRequestFields`.
    Fields,
    /// An object that says how to generate: `generationConfig`, `inferenceConfig`.
    Config,
    /// What has the tools: `toolConfig`.
    ToolConfig,
    /// The list of tools, and each of them.
    Tools,
    Tool,
    /// The list of items that OpenAI's responses take.
    Items,
    /// All else.
    Content,
}

/// Reads all of `body`, which must be JSON.
pub(super) fn find(body: &[u8], format: Format) -> Result<Found, serde_json::Error> {
    let mut found = Found::default();
    let mut json = Deserializer::from_slice(body);
    let walk = Walk {
        found: &mut found,
        format,
        at: At::Top,
    };
    walk.deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

/// Reads one value.
struct Walk<'w> {
    found: &'w mut Found,
    format: Format,
    at: At,
}

impl Walk<'_> {
    fn inner(&mut self, at: At) -> Walk<'_> {
        Walk {
            found: self.found,
            format: self.format,
            at,
        }
    }

    fn field(&mut self, key: &str, seen: &Seen) -> bool {
        if matches!(self.at, At::Top | At::Fields) {
            self.found.top(self.format, key, seen);
        }
        self.found.content(key, seen);
        let bound = bound(self.format, self.at, key);
        if let Some(bound) = bound {
            self.found.number(bound, seen);
        }
        matches!(bound, Some(Bound::Output(_)))
    }

    /// Where the value of a field stands.
    fn below(&self, key: &str) -> At {
        match (self.at, key) {
            (At::Top | At::Fields | At::ToolConfig, "tools") => At::Tools,
            (At::Top, "toolConfig") => At::ToolConfig,
            (At::Top, "additionalModelRequestFields") => At::Fields,
            (At::Top, "input") => At::Items,
            (At::Top, "generationConfig" | "generation_config" | "parameters") => At::Config,
            (At::Top, "inferenceConfig" | "textGenerationConfig") => At::Config,
            _ => At::Content,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Seen;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Seen, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Seen;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Nothing)
    }

    fn visit_bool<E>(self, said: bool) -> Result<Seen, E> {
        Ok(if said { Seen::Flag } else { Seen::Nothing })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seen, E> {
        Ok(Seen::Number(Some(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Seen, E> {
        Ok(Seen::Number(u64::try_from(number).ok()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Seen, E> {
        // As good as the provider's rounding; what is too large stays at the largest.
        let number = (number >= 0.0).then(|| number.ceil() as u64);
        Ok(Seen::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(Seen::Text(Start::of(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Seen, A::Error> {
        let within = match self.at {
            At::Tools => At::Tool,
            _ => At::Content,
        };
        let (mut length, mut prompts) = (0, 0);
        while let Some(seen) = list.next_element_seed(self.inner(within))? {
            length += 1;
            prompts += u64::from(matches!(seen, Seen::Text(_) | Seen::List { .. }));
            match (self.at, &seen) {
                (At::Tools, Seen::Object(tool)) => self.found.tool(tool),
                (At::Items, Seen::Object(item)) => self.found.item(item),
                _ => {}
            }
        }
        Ok(Seen::List { length, prompts })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Seen, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key_seed(Word)? {
            let key = key.word();
            if words::is_made_up(self.at, key) {
                map.next_value::<IgnoredAny>()?;
                object.fields = object.fields.saturating_add(1);
                continue;
            }
            let seen = map.next_value_seed(self.inner(self.below(key)))?;
            object.has_bound |= self.field(key, &seen);
            object.learn(key, &seen);
        }
        Ok(Seen::Object(object))
    }
}

/// Reads a name.
struct Word;

impl<'de> DeserializeSeed<'de> for Word {
    type Value = Start;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Start, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Word {
    type Value = Start;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Start, E> {
        Ok(Start::of(name))
    }
}
