//! The canonical digest of a JSON body: equal for bodies that differ only in the order of
//! object members, in insignificant white space, in how a string is escaped, and in what the
//! configuration leaves out.
//!
//! One pass of serde_json's streaming parser, no tree: every value is written to a scratch
//! buffer in an encoding of which no two documents share a spelling (a tag, then a length
//! where there can be one), an object's members sorted when it closes. A value whose
//! encoding grows long is replaced by its digest, so that sorting moves little and long
//! texts are hashed where they lie.
//!
//! What cannot be compared this way is compared byte by byte: what is not JSON, is nested
//! deeper than serde_json follows, holds integers that a 64-bit number cannot tell apart, or
//! would need more than `MOST_SCRATCH`. Pointers then leave nothing out. Fractions compare
//! as 64-bit floating-point numbers.

use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::call::MAX_MODEL;
use crate::json::{Listener, Scalar};

use super::pointers::Active;
pub use super::pointers::{Pointers, Problem};

/// Memory that one body may take while it is digested, members' places not counted. Large
/// bodies come nowhere near it unless they are made for it: long values and long arrays
/// shrink to digests, so it takes megabytes of short members in one object.
const MOST_SCRATCH: usize = 8 << 20;

/// Object members that are open at one time, for the same reason.
const MOST_MEMBERS: usize = 1 << 18;

/// Encodings longer than this are replaced by their digest.
const LONG: usize = 16 << 10;

/// An array's elements so far are replaced by their digest when they exceed this.
const MANY: usize = 256 << 10;

/// Keys of the two kinds of digest: one never equals the other.
const CANONICAL: &[u8; 32] = b"tollgate cache body, canonical 1";
const VERBATIM: &[u8; 32] = b"tollgate cache body, verbatim 01";

/// Floating-point numbers from here on are integers that may have lost digits.
const INTEGERS_BLUR: f64 = (1u64 << 53) as f64;

/// What the cache key needs of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// The digest.
    pub digest: [u8; 32],
    /// The string under the top-level key `model`, at most [`MAX_MODEL`] bytes; the last one
    /// where there are several. Read even where a pointer leaves it out of the digest.
    pub model: Option<Box<str>>,
    /// There are several, and they differ: nobody knows which one a provider takes.
    pub names_several: bool,
    /// The top-level key `stream` is `true`.
    pub stream: bool,
    /// It asks for more than an answer: to work in the background, or to add to a conversation
    /// that the provider keeps (OpenAI responses).
    pub changes_state: bool,
    /// Whether the body was read as JSON; otherwise the digest is that of its bytes.
    pub canonical: bool,
}

/// Digests a body, without the parts that `ignore` points at.
///
/// An ignored object member counts as absent, an ignored array element still counts as one.
pub fn digest(body: &[u8], ignore: &Pointers) -> Body {
    digest_for(body, ignore, (), &mut ())
}

/// The same, with a `listener` that learns of the body as of one that stands at `heard_at`: of all
/// of it, if the result is `canonical` and nothing is ignored.
pub fn digest_for<L: Listener>(
    body: &[u8],
    ignore: &Pointers,
    heard_at: L::Place,
    listener: &mut L,
) -> Body {
    let mut scratch = Scratch::with_capacity(body.len());
    let root = Encode {
        scratch: &mut scratch,
        ignore,
        active: ignore.all(),
        depth: 0,
        place: Place::Elsewhere,
        listener,
        heard_at: Some(heard_at),
    };
    match root.read(body) {
        Ok(()) => Body {
            digest: *blake3::keyed_hash(CANONICAL, &scratch.bytes).as_bytes(),
            model: scratch.models.last,
            names_several: scratch.models.differ,
            stream: scratch.stream,
            changes_state: scratch.changes_state,
            canonical: true,
        },
        Err(_) => verbatim(body),
    }
}

fn verbatim(body: &[u8]) -> Body {
    Body {
        digest: *blake3::keyed_hash(VERBATIM, body).as_bytes(),
        model: None,
        names_several: false,
        stream: false,
        changes_state: false,
        canonical: false,
    }
}

/// First byte of every encoded value, key and end of a container.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Null,
    False,
    True,
    Unsigned,
    Negative,
    Float,
    Text,
    LongText,
    Array,
    Object,
    Member,
    End,
    /// Stands for the encoding of a long array or object.
    Digest,
    /// Stands for an ignored array element.
    Ignored,
    /// Stands for the first elements of an array.
    Folded,
}

/// Where one object member lies in the scratch buffer: its key's text, then its value.
struct Span {
    /// Where its encoding begins.
    member: usize,
    key: Range<usize>,
    end: usize,
}

/// The encoding as far as it has been written, and what was noticed in passing.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// Members of the objects that are still open, outermost first.
    members: Vec<Span>,
    /// Where an object's members are put in order.
    sorted: Vec<u8>,
    models: Models,
    stream: bool,
    changes_state: bool,
}

/// The strings under the top-level key `model`; one that is too long counts as no name.
#[derive(Default)]
struct Models {
    is_named: bool,
    last: Option<Box<str>>,
    differ: bool,
}

impl Models {
    fn add(&mut self, name: &str) {
        let name = (name.len() <= MAX_MODEL).then(|| name.into());
        self.differ |= self.is_named && self.last != name;
        (self.is_named, self.last) = (true, name);
    }
}

impl Scratch {
    /// For a body of this length: most need little more, once their long values are digests.
    fn with_capacity(length: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(length.min(4 * LONG)),
            ..Self::default()
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.bytes.push(tag as u8);
    }

    /// A length: seven bits a byte, the last byte below 128.
    fn length(&mut self, mut length: u64) {
        while length >= 0x80 {
            self.bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.bytes.push(length as u8);
    }

    fn text(&mut self, text: &str) {
        let long = text.len() > LONG;
        self.tag(if long { Tag::LongText } else { Tag::Text });
        self.length(text.len() as u64);
        if long {
            let digest = blake3::hash(text.as_bytes());
            self.bytes.extend_from_slice(digest.as_bytes());
        } else {
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }

    /// Replaces the encoding from `start` on by its digest if it is long.
    fn shorten(&mut self, start: usize) {
        if self.bytes.len() - start > LONG {
            let digest = blake3::hash(&self.bytes[start..]);
            self.bytes.truncate(start);
            self.tag(Tag::Digest);
            self.bytes.extend_from_slice(digest.as_bytes());
        }
    }

    /// Shrinks an array that is still open and begins at `start` if it is very long.
    fn fold(&mut self, start: usize) {
        if self.bytes.len() - start > MANY {
            let digest = blake3::hash(&self.bytes[start..]);
            self.bytes.truncate(start);
            self.tag(Tag::Array);
            self.tag(Tag::Folded);
            self.bytes.extend_from_slice(digest.as_bytes());
        }
    }

    /// Puts the members from number `first` on, whose bytes begin at `start`, in order of
    /// their keys. Members of the same key keep their order.
    fn sort(&mut self, first: usize, start: usize) {
        let Self {
            bytes,
            members,
            sorted,
            ..
        } = self;
        let spans = &mut members[first..];
        let key = |span: &Span| &bytes[span.key.clone()];
        if spans.is_sorted_by(|one, next| key(one) <= key(next)) {
            return;
        }
        spans.sort_by(|one, other| key(one).cmp(key(other)));
        sorted.clear();
        sorted.reserve(bytes.len() - start);
        for span in spans {
            sorted.extend_from_slice(&bytes[span.member..span.end]);
        }
        bytes.truncate(start);
        bytes.extend_from_slice(sorted);
    }

    fn check<E: Error>(&self) -> Result<(), E> {
        if self.bytes.len() > MOST_SCRATCH || self.members.len() > MOST_MEMBERS {
            return Err(E::custom("too large to compare"));
        }
        Ok(())
    }
}

/// Which of the values that are read in passing a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Model,
    Stream,
    /// Whatever is truthy here changes something at the provider.
    State,
    Elsewhere,
}

impl Place {
    fn of(key: &[u8], depth: usize) -> Self {
        match (depth, key) {
            (0, b"model") => Self::Model,
            (0, b"stream") => Self::Stream,
            (0, b"background" | b"conversation") => Self::State,
            _ => Self::Elsewhere,
        }
    }
}

/// Writes the encoding of the value that is parsed next.
struct Encode<'s, L: Listener> {
    scratch: &'s mut Scratch,
    ignore: &'s Pointers,
    /// The pointers that lead through this value.
    active: Active,
    depth: usize,
    place: Place,
    /// Learns of the values in passing.
    listener: &'s mut L,
    /// Where this one stands to it; `None`: it does not want to know.
    heard_at: Option<L::Place>,
}

impl<L: Listener> Encode<'_, L> {
    fn read(self, body: &[u8]) -> serde_json::Result<()> {
        // Checked as a whole at memory speed, UTF-8 need not be checked string by string.
        let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
        let mut json = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut json)?;
        json.end()
    }

    fn child(&mut self, active: Active, place: Place, heard_at: Option<L::Place>) -> Encode<'_, L> {
        Encode {
            scratch: self.scratch,
            ignore: self.ignore,
            active,
            depth: self.depth + 1,
            place,
            listener: self.listener,
            heard_at,
        }
    }

    fn hear(&mut self, value: Scalar<'_>) -> Option<L::Seen> {
        self.heard_at.map(|_| self.listener.scalar(value))
    }

    /// The next element of an array; `false` at its end.
    fn element<'de, A: SeqAccess<'de>>(
        &mut self,
        elements: &mut A,
        index: usize,
        array: &mut L::Array,
    ) -> Result<bool, A::Error> {
        let step = self.ignore.element(self.active, self.depth, index);
        if step.ignored {
            let present = elements.next_element::<IgnoredAny>()?.is_some();
            if present {
                self.scratch.tag(Tag::Ignored);
            }
            return Ok(present);
        }
        let within = self.heard_at.map(|at| self.listener.element_place(at));
        let element = self.child(step.active, Place::Elsewhere, within);
        let Some(seen) = elements.next_element_seed(element)? else {
            return Ok(false);
        };
        if let (Some(at), Some(seen)) = (self.heard_at, seen) {
            self.listener.element(at, array, &seen);
        }
        Ok(true)
    }

    /// The value of the member whose key was just written; `false` if it is left out.
    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        key: &Range<usize>,
        object: &mut L::Object,
    ) -> Result<bool, A::Error> {
        let name = &self.scratch.bytes[key.clone()];
        let place = Place::of(name, self.depth);
        let step = self.ignore.member(self.active, self.depth, name);
        let within = self
            .heard_at
            .and_then(|at| self.listener.member_place(at, text(name)));
        if place == Place::Stream {
            // Of a key that comes twice, the last value counts, as it does for most parsers.
            self.scratch.stream = false;
        }
        if step.ignored && place == Place::Elsewhere {
            map.next_value::<IgnoredAny>()?;
            return Ok(false);
        }
        let seen = map.next_value_seed(self.child(step.active, place, within))?;
        if let Some(at) = self.heard_at {
            let name = text(&self.scratch.bytes[key.clone()]);
            self.listener.member(at, object, name, seen.as_ref());
        }
        Ok(!step.ignored)
    }
}

/// A key, which was text when it was written.
fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).unwrap_or_default()
}

impl<'de, L: Listener> DeserializeSeed<'de> for Encode<'_, L> {
    type Value = Option<L::Seen>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, L: Listener> Visitor<'de> for Encode<'_, L> {
    type Value = Option<L::Seen>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(mut self) -> Result<Self::Value, E> {
        self.scratch.tag(Tag::Null);
        Ok(self.hear(Scalar::Null))
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<Self::Value, E> {
        if self.place == Place::Stream {
            self.scratch.stream = value;
        }
        self.scratch.changes_state |= value && self.place == Place::State;
        self.scratch.tag(if value { Tag::True } else { Tag::False });
        Ok(self.hear(Scalar::Bool(value)))
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<Self::Value, E> {
        self.scratch.tag(Tag::Unsigned);
        self.scratch.length(value);
        Ok(self.hear(Scalar::Unsigned(value)))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<Self::Value, E> {
        self.scratch.tag(Tag::Negative);
        self.scratch.length(value.unsigned_abs());
        Ok(self.hear(Scalar::Negative(value)))
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<Self::Value, E> {
        if value.abs() >= INTEGERS_BLUR {
            return Err(E::custom("an integer that lost digits"));
        }
        self.scratch.tag(Tag::Float);
        let bytes = value.to_bits().to_le_bytes();
        self.scratch.bytes.extend_from_slice(&bytes);
        Ok(self.hear(Scalar::Float(value)))
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Self::Value, E> {
        if self.place == Place::Model {
            self.scratch.models.add(text);
        }
        self.scratch.changes_state |= self.place == Place::State;
        self.scratch.text(text);
        Ok(self.hear(Scalar::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Self::Value, A::Error> {
        let start = self.scratch.bytes.len();
        self.scratch.tag(Tag::Array);
        let mut array = L::Array::default();
        let mut index = 0;
        while self.element(&mut elements, index, &mut array)? {
            self.scratch.fold(start);
            self.scratch.check()?;
            index += 1;
        }
        self.scratch.tag(Tag::End);
        self.scratch.shorten(start);
        Ok(self.heard_at.map(|_| self.listener.array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        self.scratch.changes_state |= self.place == Place::State;
        let first = self.scratch.members.len();
        let start = self.scratch.bytes.len();
        self.scratch.tag(Tag::Object);
        let mut object = L::Object::default();
        loop {
            let member = self.scratch.bytes.len();
            let Some(key) = map.next_key_seed(Key(self.scratch))? else {
                break;
            };
            if self.member(&mut map, &key, &mut object)? {
                let end = self.scratch.bytes.len();
                let span = Span { member, key, end };
                self.scratch.members.push(span);
            } else {
                self.scratch.bytes.truncate(member);
            }
            self.scratch.check()?;
        }
        self.scratch.sort(first, start + 1);
        self.scratch.members.truncate(first);
        self.scratch.tag(Tag::End);
        self.scratch.shorten(start);
        Ok(self.heard_at.map(|_| self.listener.object(object)))
    }
}

/// Writes an object key and tells where its text lies.
struct Key<'s>(&'s mut Scratch);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Range<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Range<usize>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Range<usize>, E> {
        self.0.tag(Tag::Member);
        self.0.length(key.len() as u64);
        let start = self.0.bytes.len();
        self.0.bytes.extend_from_slice(key.as_bytes());
        Ok(start..self.0.bytes.len())
    }
}

#[cfg(test)]
mod tests;
