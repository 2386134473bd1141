//! Reading a JSON document once, for whoever wants to know something of its values.
//!
//! A [`Listener`] is told of every value where it ends, and where it stood; nothing is built. [`read`]
//! reads a document for one; who reads it anyway tells a listener on the way
//! ([`crate::cache::canonical`]).

use std::borrow::Cow;
use std::fmt;

use serde::de;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value that has no values in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of 64 bits from zero on.
    Unsigned(u64),
    /// A negative one.
    Negative(i64),
    /// Any other number.
    Float(f64),
    /// A string, unescaped.
    Text(&'a str),
}

/// Learns of values.
pub trait Listener {
    /// Where a value stands.
    type Place: Copy;
    /// What a value was.
    type Seen;
    /// What is known of an array while it lasts.
    type Array: Default;
    /// What is known of an object while it lasts.
    type Object: Default;

    /// A value that has no values in it.
    fn scalar(&mut self, value: Scalar<'_>) -> Self::Seen;

    /// Where the elements of an array stand.
    fn element_place(&self, array: Self::Place) -> Self::Place;

    /// An element of an array that stands at `place` has ended.
    fn element(&mut self, place: Self::Place, array: &mut Self::Array, seen: &Self::Seen);

    /// An array has ended.
    fn array(&mut self, array: Self::Array) -> Self::Seen;

    /// Where the value of a member stands; `None` if nothing is to be learnt of it.
    fn member_place(&self, object: Self::Place, key: &str) -> Option<Self::Place>;

    /// A member of an object that stands at `place` has ended; `None`: nothing was learnt of its value.
    fn member(
        &mut self,
        place: Self::Place,
        object: &mut Self::Object,
        key: &str,
        seen: Option<&Self::Seen>,
    );

    /// An object has ended.
    fn object(&mut self, object: Self::Object) -> Self::Seen;
}

/// Nobody listens.
impl Listener for () {
    type Place = ();
    type Seen = ();
    type Array = ();
    type Object = ();

    fn scalar(&mut self, _value: Scalar<'_>) {}

    fn element_place(&self, _array: ()) {}

    fn element(&mut self, _place: (), _array: &mut (), _seen: &()) {}

    fn array(&mut self, _array: ()) {}

    fn member_place(&self, _object: (), _key: &str) -> Option<()> {
        None
    }

    fn member(&mut self, _place: (), _object: &mut (), _key: &str, _seen: Option<&()>) {}

    fn object(&mut self, _object: ()) {}
}

/// Reads all of `document`, whose one value stands at `place`.
///
/// # Errors
/// When it is no JSON, or nested deeper than serde_json follows: then the listener has learnt of a
/// part of it.
pub fn read<L: Listener>(
    document: &[u8],
    place: L::Place,
    listener: &mut L,
) -> Result<(), serde_json::Error> {
    // Checked as a whole at memory speed, UTF-8 need not be checked string by string.
    let text = std::str::from_utf8(document).map_err(serde_json::Error::custom)?;
    let mut json = serde_json::Deserializer::from_str(text);
    Value { listener, place }.deserialize(&mut json)?;
    json.end()
}

/// Reads one value.
struct Value<'l, L: Listener> {
    listener: &'l mut L,
    place: L::Place,
}

impl<L: Listener> Value<'_, L> {
    fn inner(&mut self, place: L::Place) -> Value<'_, L> {
        Value {
            listener: self.listener,
            place,
        }
    }
}

impl<'de, L: Listener> DeserializeSeed<'de> for Value<'_, L> {
    type Value = L::Seen;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<L::Seen, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, L: Listener> Visitor<'de> for Value<'_, L> {
    type Value = L::Seen;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Negative(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<L::Seen, E> {
        Ok(self.listener.scalar(Scalar::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<L::Seen, A::Error> {
        let mut array = L::Array::default();
        let within = self.listener.element_place(self.place);
        while let Some(seen) = elements.next_element_seed(self.inner(within))? {
            self.listener.element(self.place, &mut array, &seen);
        }
        Ok(self.listener.array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<L::Seen, A::Error> {
        let mut object = L::Object::default();
        while let Some(key) = map.next_key_seed(Key)? {
            let seen = match self.listener.member_place(self.place, &key) {
                Some(place) => Some(map.next_value_seed(self.inner(place))?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            self.listener
                .member(self.place, &mut object, &key, seen.as_ref());
        }
        Ok(self.listener.object(object))
    }
}

/// Reads a member's key, which is copied only where it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Writes down what it is told; a place is how deep it is.
    #[derive(Default)]
    struct Scribe(Vec<String>);

    impl Listener for Scribe {
        type Place = usize;
        type Seen = String;
        type Array = Vec<String>;
        type Object = Vec<String>;

        fn scalar(&mut self, value: Scalar<'_>) -> String {
            format!("{value:?}")
        }

        fn element_place(&self, array: usize) -> usize {
            array + 1
        }

        fn element(&mut self, place: usize, array: &mut Vec<String>, seen: &String) {
            array.push(format!("{place}:{seen}"));
        }

        fn array(&mut self, array: Vec<String>) -> String {
            format!("[{}]", array.join(" "))
        }

        fn member_place(&self, object: usize, key: &str) -> Option<usize> {
            (key != "skip").then_some(object + 10)
        }

        fn member(
            &mut self,
            place: usize,
            object: &mut Vec<String>,
            key: &str,
            seen: Option<&String>,
        ) {
            let seen = seen.map_or("-", |seen| seen);
            object.push(format!("{place}:{key}={seen}"));
        }

        fn object(&mut self, object: Vec<String>) -> String {
            let all = format!("{{{}}}", object.join(" "));
            self.0.push(all.clone());
            all
        }
    }

    fn told(document: &[u8]) -> Option<Vec<String>> {
        let mut scribe = Scribe::default();
        read(document, 0, &mut scribe).ok()?;
        Some(scribe.0)
    }

    #[test]
    fn a_listener_learns_of_every_value_where_it_ends() {
        let document = br#"{"a":[1,-2,{"b":null}],"\u0063":1.5,"skip":{"x":[true]},"d":"\n"}"#;
        let inner = "{11:b=Null}";
        let array = format!("[10:Unsigned(1) 10:Negative(-2) 10:{inner}]");
        let all = format!(r#"{{0:a={array} 0:c=Float(1.5) 0:skip=- 0:d=Text("\n")}}"#);
        assert_eq!(told(document), Some(vec![inner.to_owned(), all]));
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let broken = ["", "{", "{} {}", "[1,]", "nul", "\"\u{1}\""];
        for document in broken
            .map(str::as_bytes)
            .into_iter()
            .chain([&b"\"\xff\""[..]])
        {
            assert_eq!(told(document), None, "{}", document.escape_ascii());
        }
    }
}
