//! A serde deserializer over the tree, for errors that people understand.
//!
//! More forgiving than serde's own in three ways: an empty value is an empty mapping or
//! list (`default:` like `default: {}`), a number or boolean may come from a variable
//! (`threads: ${THREADS}`), and values known to be broken are skipped.

use std::slice;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, Visitor};

use super::failure::{Failure, Mistake};
use super::finding::Step;
use super::tree::{Entry, Kind, Node};
use crate::config::secret::Secret;

/// Reads one value of the tree.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a Node);

impl<'a> Reader<'a> {
    fn expected(self, what: impl Into<String>) -> Failure {
        Failure::new(Mistake::Expected(what.into())).at(self.0)
    }

    fn expected_structure(self, what: impl Into<String>) -> Failure {
        Failure::new(Mistake::ExpectedStructure(what.into())).at(self.0)
    }

    /// The text of a value that variables were put into.
    fn interpolated(self) -> Option<&'a str> {
        match &self.0.kind {
            Kind::Text(text) if text.written.is_some() => Some(text.value.trim()),
            _ => None,
        }
    }

    fn boolean(self) -> Option<bool> {
        match self.0.kind {
            Kind::Bool(value) => Some(value),
            _ => self.interpolated()?.parse().ok(),
        }
    }

    fn whole(self) -> Option<i128> {
        match self.0.kind {
            Kind::Whole(value) => Some(value),
            _ => self.interpolated()?.parse().ok(),
        }
    }

    fn fraction(self) -> Option<f64> {
        match self.0.kind {
            Kind::Whole(value) => Some(value as f64),
            Kind::Fraction(value) => Some(value),
            _ => self.interpolated()?.parse().ok(),
        }
    }

    fn text(self) -> Result<&'a str, Failure> {
        match &self.0.kind {
            Kind::Text(text) => Ok(&text.value),
            Kind::Bool(_) | Kind::Whole(_) | Kind::Fraction(_) => {
                Err(self.expected("text (put it in quotes)"))
            }
            _ => Err(self.expected("text")),
        }
    }

    /// The entries of a mapping; of an empty value none.
    fn entries(self) -> Option<Entries<'a>> {
        match &self.0.kind {
            Kind::Mapping(entries) => Some(Entries::new(entries)),
            Kind::Nothing => Some(Entries::new(&[])),
            _ => None,
        }
    }

    /// The one entry of `variant: settings`.
    fn variant(self, known: &[&str]) -> Result<VariantReader<'a>, Failure> {
        let one_of = || format!("one of {}", known.join(", "));
        match &self.0.kind {
            Kind::Text(text) => Ok(VariantReader {
                node: self.0,
                name: &text.value,
                settings: None,
            }),
            Kind::Mapping(entries) if entries.iter().any(|entry| entry.value.is_broken()) => {
                Err(Failure::new(Mistake::Reported).at(self.0))
            }
            Kind::Mapping(entries) => match entries.as_slice() {
                [entry] => Ok(VariantReader {
                    node: self.0,
                    name: &entry.key,
                    settings: Some(entry),
                }),
                _ => Err(self.expected_structure(format!("exactly {} as its key", one_of()))),
            },
            _ => Err(self.expected(one_of())),
        }
    }
}

fn whole_number(least: i128, most: i128) -> String {
    match (least, most > u32::MAX.into()) {
        (0, true) => "a whole number of at least 0".to_owned(),
        (_, true) => "a whole number".to_owned(),
        (_, false) => format!("a whole number from {least} to {most}"),
    }
}

/// Numbers: each type says what it can hold.
macro_rules! whole_numbers {
    ($($method:ident $visit:ident $number:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            match self.whole().and_then(|value| <$number>::try_from(value).ok()) {
                Some(value) => visitor.$visit(value).map_err(|failure: Failure| failure.at(self.0)),
                None => Err(self.expected(whole_number(<$number>::MIN.into(), <$number>::MAX.into()))),
            }
        }
    )*};
}

/// Types that are read like another.
macro_rules! read_like {
    ($($method:ident($($ignored:ident: $type:ty),*) $like:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($ignored: $type,)* visitor: V) -> Result<V::Value, Failure> {
            self.$like(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Failure;

    whole_numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
    }

    read_like! {
        deserialize_f32() deserialize_f64,
        deserialize_char() deserialize_str,
        deserialize_string() deserialize_str,
        deserialize_identifier() deserialize_str,
        deserialize_bytes() deserialize_str,
        deserialize_byte_buf() deserialize_str,
        deserialize_tuple(_length: usize) deserialize_seq,
        deserialize_tuple_struct(_name: &'static str, _length: usize) deserialize_seq,
        deserialize_unit_struct(_name: &'static str) deserialize_unit,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let outcome: Result<V::Value, Failure> = match &self.0.kind {
            Kind::Nothing | Kind::Tagged => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Whole(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Kind::Fraction(value) => visitor.visit_f64(*value),
            Kind::Text(text) => visitor.visit_str(&text.value),
            Kind::List(items) => visitor.visit_seq(Items::new(items)),
            Kind::Mapping(entries) => visitor.visit_map(Entries::new(entries)),
        };
        outcome.map_err(|failure| failure.at(self.0))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.boolean() {
            Some(value) => visitor
                .visit_bool(value)
                .map_err(|failure: Failure| failure.at(self.0)),
            None => Err(self.expected("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.fraction().filter(|value| value.is_finite()) {
            Some(value) => visitor
                .visit_f64(value)
                .map_err(|failure: Failure| failure.at(self.0)),
            None => Err(self.expected("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor
            .visit_str(self.text()?)
            .map_err(|failure: Failure| failure.at(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0.kind {
            Kind::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0.kind {
            Kind::Nothing => visitor.visit_unit(),
            _ => Err(self.expected_structure("nothing")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let outcome = visitor.visit_newtype_struct(self);
        if name == Secret::TYPE_NAME {
            outcome.map_err(Failure::in_secret)
        } else {
            outcome
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let items = match &self.0.kind {
            Kind::List(items) => items.as_slice(),
            Kind::Nothing => &[],
            _ => return Err(self.expected_structure("a list (`[…]`)")),
        };
        visitor
            .visit_seq(Items::new(items))
            .map_err(|failure: Failure| failure.at(self.0))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.entries() {
            Some(entries) => visitor
                .visit_map(entries)
                .map_err(|failure: Failure| failure.at(self.0)),
            None => Err(self.expected_structure("a mapping (`key: value`)")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.entries() {
            Some(entries) => visitor
                .visit_map(entries)
                .map_err(|failure: Failure| failure.at(self.0)),
            None => Err(self.expected_structure(format!(
                "a mapping (`key: value`) with keys of {}",
                keys.join(", ")
            ))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor
            .visit_enum(self.variant(variants)?)
            .map_err(|failure: Failure| failure.at(self.0))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}

/// The entries of a mapping that are not broken.
struct Entries<'a> {
    rest: slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'a> Entries<'a> {
    fn new(entries: &'a [Entry]) -> Self {
        Self {
            rest: entries.iter(),
            current: None,
        }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Failure;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        self.current = self.rest.find(|entry| !entry.value.is_broken());
        let Some(entry) = self.current else {
            return Ok(None);
        };
        match seed.deserialize(StrDeserializer::new(&entry.key)) {
            Ok(key) => Ok(Some(key)),
            Err(failure) => Err(Failure::at_key(failure, entry)),
        }
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Failure> {
        let entry = self
            .current
            .ok_or_else(|| Failure::new(Mistake::Reported))?;
        read_entry(entry, |reader| seed.deserialize(reader))
    }
}

fn read_entry<'a, T>(
    entry: &'a Entry,
    read: impl FnOnce(Reader<'a>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    read(Reader(&entry.value)).map_err(|failure| failure.inside(Step::Key(entry.key.clone())))
}

/// The items of a list that are not broken.
struct Items<'a>(std::iter::Enumerate<slice::Iter<'a, Node>>);

impl<'a> Items<'a> {
    fn new(items: &'a [Node]) -> Self {
        Self(items.iter().enumerate())
    }
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Failure;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let Some((index, item)) = self.0.find(|(_, item)| !item.is_broken()) else {
            return Ok(None);
        };
        match seed.deserialize(Reader(item)) {
            Ok(value) => Ok(Some(value)),
            Err(failure) => Err(failure.inside(Step::Index(index))),
        }
    }
}

/// An enum: `variant`, or `variant: settings`.
struct VariantReader<'a> {
    node: &'a Node,
    name: &'a str,
    settings: Option<&'a Entry>,
}

impl VariantReader<'_> {
    fn needs_settings(&self, keys: &[&str]) -> Failure {
        let (name, keys) = (self.name, keys.join(", "));
        let what = format!("settings for `{name}`, written `{name}: {{…}}`, with keys of {keys}");
        Failure::new(Mistake::ExpectedStructure(what)).at(self.node)
    }
}

impl<'de> de::EnumAccess<'de> for VariantReader<'de> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), Failure> {
        match (
            seed.deserialize(StrDeserializer::<Failure>::new(self.name)),
            self.settings,
        ) {
            (Ok(variant), _) => Ok((variant, self)),
            (Err(failure), Some(entry)) => Err(failure.at_key(entry)),
            (Err(failure), None) => Err(failure.at(self.node)),
        }
    }
}

impl<'de> de::VariantAccess<'de> for VariantReader<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        let Some(entry) = self.settings else {
            return Ok(());
        };
        read_entry(entry, |reader| match &reader.0.kind {
            Kind::Nothing => Ok(()),
            Kind::Mapping(entries) if entries.is_empty() => Ok(()),
            _ => Err(reader.expected_structure("nothing, because it has no settings")),
        })
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Failure> {
        match self.settings {
            Some(entry) => read_entry(entry, |reader| seed.deserialize(reader)),
            None => Err(self.needs_settings(&[])),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.settings {
            Some(entry) => read_entry(entry, |reader| reader.deserialize_seq(visitor)),
            None => Err(self.needs_settings(&[])),
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.settings {
            Some(entry) => read_entry(entry, |reader| reader.deserialize_struct("", keys, visitor)),
            None => Err(self.needs_settings(keys)),
        }
    }
}
