//! JSON that is read leniently: a value of an unexpected type counts as absent, and what nobody
//! asks for is skipped unread.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::ServiceTier;

/// Longest name of a model that is believed, in bytes; a longer one counts as absent.
const MAX_NAME: usize = 256;

/// What can be read from the JSON types that it expects, and is nothing for all others.
pub(super) trait Lenient<'de>: Sized {
    fn nothing() -> Self;

    fn of_number(_number: u64) -> Self {
        Self::nothing()
    }

    fn of_text(_text: &str) -> Self {
        Self::nothing()
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::nothing())
    }

    fn of_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::nothing())
    }
}

/// Reads a value of whatever type.
pub(super) fn leniently<'de, T: Lenient<'de>, D: Deserializer<'de>>(
    json: D,
) -> Result<T, D::Error> {
    json.deserialize_any(Leniently(PhantomData))
}

/// A number of tokens. Cohere writes `12.0` at times.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Count(pub Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl Lenient<'_> for Count {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_number(number: u64) -> Self {
        Self(Some(number))
    }
}

/// The first count that is there.
pub(super) fn first<const N: usize>(counts: [Count; N]) -> Option<u64> {
    counts.into_iter().find_map(|count| count.0)
}

/// The sum of the counts that are there.
pub(super) fn sum<const N: usize>(counts: [Count; N]) -> Option<u64> {
    let said = counts.into_iter().filter_map(|count| count.0);
    said.reduce(u64::saturating_add)
}

/// A name, where there is one of 1 to 256 bytes.
#[derive(Debug, Default, Clone)]
pub(super) struct Name(pub Option<Box<str>>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl Lenient<'_> for Name {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_text(text: &str) -> Self {
        // Azure's first event has an empty one.
        Self((1..=MAX_NAME).contains(&text.len()).then(|| text.into()))
    }
}

/// A service tier, as a word or as Bedrock's `{"type": word}`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tier(pub Option<ServiceTier>);

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de> Lenient<'de> for Tier {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_text(text: &str) -> Self {
        Self(ServiceTier::of(text))
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type", default)]
            kind: Tier,
        }
        Typed::deserialize(MapAccessDeserializer::new(map)).map(|typed| typed.kind)
    }
}

/// An object, where there is one: in other events the same key may hold a text.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Object<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Object<T> {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|object| Self(Some(object)))
    }
}

/// A large object that most answers do not have, and that costs a pointer there.
#[derive(Debug, Default, Clone)]
pub(super) struct Boxed<T>(pub Option<Box<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Boxed<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Boxed<T> {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Object::of_map(map).map(|object| Self(object.0.map(Box::new)))
    }
}

struct Leniently<T>(PhantomData<T>);

impl<'de, T: Lenient<'de>> Visitor<'de> for Leniently<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::of_text(text))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok(T::of_number(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // The cast saturates; a fraction of a token cannot be.
        Ok(T::of_number(number as u64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
        T::of_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::of_map(map)
    }
}
