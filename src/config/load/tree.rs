//! The file as a tree that remembers what it needs for good error messages.
//!
//! Unlike `serde_yaml::Value` it keeps duplicate keys, the order of the file, and for
//! interpolated text what was written. Building it fails only where the text is no YAML.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess};

use crate::config::Problem;

/// Values a file may hold once its aliases are expanded: aliases of aliases grow
/// exponentially, and no gateway is configured by so many values.
const MAX_VALUES: usize = 250_000;

/// Brackets that may be open at once. The parser refuses 128 levels anyway, but only
/// after a time that grows with the square of the depth.
const MAX_OPEN_BRACKETS: usize = 200;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    /// Position in the file: values count up from 0.
    pub order: usize,
    pub kind: Kind,
    /// A mistake was reported here. The value is skipped from then on, so that the
    /// next mistakes show.
    broken: Cell<bool>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Nothing,
    Bool(bool),
    Whole(i128),
    Fraction(f64),
    Text(Text),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
    /// `!name value`: nothing that a configuration needs.
    Tagged,
}

/// Text, as it counts and as it was written.
#[derive(Debug)]
pub(super) struct Text {
    pub value: String,
    /// What the file says, where variables were put in. Messages show this, never `value`.
    pub written: Option<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    /// False for numbers and the like.
    pub key_is_text: bool,
    pub value: Node,
}

impl Node {
    fn new(order: usize, kind: Kind) -> Self {
        Self {
            order,
            kind,
            broken: Cell::new(false),
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    pub fn set_broken(&self) {
        self.broken.set(true);
    }

    /// Whether this is a mapping whose value at `key` is broken.
    pub fn has_broken(&self, key: &str) -> bool {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().any(|e| e.key == key && e.value.is_broken()),
            _ => false,
        }
    }

    /// Whether variables were put into this value or one inside it.
    pub fn is_interpolated(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.written.is_some(),
            Kind::List(items) => items.iter().any(Node::is_interpolated),
            Kind::Mapping(entries) => entries.iter().any(|entry| entry.value.is_interpolated()),
            _ => false,
        }
    }
}

/// Reads `text`; an empty file is [`Kind::Nothing`].
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    if opens_too_many_brackets(text) {
        return Err(nested_too_deep());
    }
    let values = Cell::new(0);
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let root = match documents.next() {
        Some(document) => Seed(&values)
            .deserialize(document)
            .map_err(|error| syntax(&error))?,
        None => Node::new(0, Kind::Nothing),
    };
    if documents.next().is_some() {
        let message =
            "the file holds more than one YAML document: keep one, without `---` lines between";
        return Err(Problem::new("", message));
    }
    Ok(root)
}

/// Counts brackets wherever they stand, in text too: no configuration comes close.
fn opens_too_many_brackets(text: &str) -> bool {
    let mut open = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN_BRACKETS
    })
}

fn nested_too_deep() -> Problem {
    Problem::new(
        "",
        "not a configuration: nested too deeply, or an alias contains itself",
    )
}

fn syntax(error: &serde_yaml::Error) -> Problem {
    let message = error.to_string();
    if message.starts_with("recursion limit exceeded") {
        return nested_too_deep();
    }
    if message.starts_with("repetition limit exceeded") {
        return Problem::new("", "aliases repeat too much: write the values out");
    }
    // The one error that quotes a value, which may be a secret: `!!int text`.
    if message.contains("invalid value: ") || message.contains("invalid type: ") {
        let place = error.location().map_or_else(String::new, |at| {
            format!(" at line {} column {}", at.line(), at.column())
        });
        return Problem::new(
            "",
            format!("not valid YAML: a value does not fit its `!!` tag{place}"),
        );
    }
    Problem::new("", format!("not valid YAML: {message}"))
}

/// Builds a [`Node`], counting values.
#[derive(Clone, Copy)]
struct Seed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let order = self.0.get();
        if order >= MAX_VALUES {
            return Err(de::Error::custom(format_args!(
                "more than {MAX_VALUES} values once aliases are expanded"
            )));
        }
        self.0.set(order + 1);
        deserializer
            .deserialize_any(self)
            .map(|kind| Node::new(order, kind))
    }
}

impl<'de> de::Visitor<'de> for Seed<'_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Whole(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Whole(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Kind, E> {
        Ok(Kind::Whole(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Kind, E> {
        Ok(i128::try_from(value).map_or(Kind::Fraction(value as f64), Kind::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(Text {
            value: value.to_owned(),
            written: None,
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key_seed(self)? {
            let (key, key_is_text) = key_text(key.kind);
            let value = access.next_value_seed(self)?;
            entries.push(Entry {
                key,
                key_is_text,
                value,
            });
        }
        Ok(Kind::Mapping(merged(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Kind, A::Error> {
        let (_, content) = access.variant::<de::IgnoredAny>()?;
        content.newtype_variant::<de::IgnoredAny>()?;
        Ok(Kind::Tagged)
    }
}

/// The key as messages show it, and whether it is text.
fn key_text(key: Kind) -> (String, bool) {
    match key {
        Kind::Text(text) => (text.value, true),
        Kind::Bool(value) => (value.to_string(), false),
        Kind::Whole(value) => (value.to_string(), false),
        Kind::Fraction(value) => (value.to_string(), false),
        Kind::Nothing => ("null".to_owned(), false),
        Kind::List(_) => ("[…]".to_owned(), false),
        Kind::Mapping(_) => ("{…}".to_owned(), false),
        Kind::Tagged => ("!…".to_owned(), false),
    }
}

/// Carries out merge keys: `<<: *base` puts the entries of `base` that are not there
/// yet behind the others. A `<<` that merges no mapping stays, for a message.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    let (bases, mut kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_merge);
    if bases.is_empty() {
        return kept;
    }
    let mut present: HashSet<String> = kept.iter().map(|entry| entry.key.clone()).collect();
    for entry in bases
        .into_iter()
        .flat_map(|base| merge_entries(base.value.kind))
    {
        if present.insert(entry.key.clone()) {
            kept.push(entry);
        }
    }
    kept
}

fn is_merge(entry: &Entry) -> bool {
    let is_mapping = |node: &Node| matches!(node.kind, Kind::Mapping(_));
    entry.key == "<<"
        && match &entry.value.kind {
            Kind::List(bases) => bases.iter().all(is_mapping),
            _ => is_mapping(&entry.value),
        }
}

fn merge_entries(base: Kind) -> Vec<Entry> {
    match base {
        Kind::Mapping(entries) => entries,
        Kind::List(bases) => bases
            .into_iter()
            .flat_map(|base| merge_entries(base.kind))
            .collect(),
        _ => Vec::new(),
    }
}
