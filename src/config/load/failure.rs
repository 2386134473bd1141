//! Why a type refused a value, and how that is said.
//!
//! Serde hands its errors the offending value. It is dropped here: what a message quotes
//! comes from the tree, which knows what the file says in place of what a variable
//! holds, and a failure inside a secret quotes nothing.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::finding::{Finding, Step, kind_name, quoted, written};
use super::tree::{Entry, Kind, Node};

/// The error type of [`super::reader::Reader`].
#[derive(Debug)]
pub(super) struct Failure(Box<Details>);

#[derive(Debug)]
struct Details {
    mistake: Mistake,
    /// From the failed value out to the root.
    steps: Vec<Step>,
    place: Option<Place>,
    in_secret: bool,
}

/// What stands where a failure arose.
#[derive(Debug)]
struct Place {
    order: usize,
    kind: &'static str,
    /// For messages.
    written: String,
    /// For suggestions, where it may be looked at.
    plain: Option<String>,
}

#[derive(Debug)]
pub(super) enum Mistake {
    /// Another scalar is expected.
    Expected(String),
    /// A mapping or list is expected. What stands there instead may be a secret, one
    /// level too high, and is not quoted.
    ExpectedStructure(String),
    UnknownKey(&'static [&'static str]),
    UnknownValue(&'static [&'static str]),
    MissingKey(&'static str),
    /// The type's own words.
    Refused(String),
    /// A consequence of what was reported before.
    Reported,
}

impl Failure {
    pub fn new(mistake: Mistake) -> Self {
        Self(Box::new(Details {
            mistake,
            steps: Vec::new(),
            place: None,
            in_secret: false,
        }))
    }

    /// Says that `node` is the value that failed, unless that is known to be one inside
    /// it, and marks it as broken.
    pub fn at(mut self, node: &Node) -> Self {
        if self.0.place.is_some() {
            return self;
        }
        node.set_broken();
        let interpolated = node.is_interpolated();
        match &self.0.mistake {
            Mistake::MissingKey(key) if node.has_broken(key) => self.0.mistake = Mistake::Reported,
            // The words may quote the value.
            Mistake::Refused(_) if interpolated => {
                self.0.mistake = Mistake::Expected("another value".to_owned());
            }
            _ => {}
        }
        let plain = match &node.kind {
            Kind::Text(text) if !interpolated => Some(text.value.clone()),
            _ => None,
        };
        let kind = kind_name(&node.kind);
        self.0.place = Some(Place {
            order: node.order,
            kind,
            written: written(node),
            plain,
        });
        self
    }

    /// Says that the key of `entry` failed.
    pub fn at_key(mut self, entry: &Entry) -> Self {
        entry.value.set_broken();
        self.0.place = Some(Place {
            order: entry.value.order,
            kind: "text",
            written: quoted(&entry.key),
            plain: Some(entry.key.clone()),
        });
        self.inside(Step::Key(entry.key.clone()))
    }

    /// Says that the failed value is one step further inside.
    pub fn inside(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// Says that the failed value is a secret.
    pub fn in_secret(mut self) -> Self {
        self.0.in_secret = true;
        self
    }

    /// For the user; `None` where nothing new is to be said.
    pub fn into_finding(mut self) -> Option<Finding> {
        let message = self.message()?;
        self.0.steps.reverse();
        let order = self.0.place.map_or(0, |place| place.order);
        Some(Finding::new(order, &self.0.steps, message))
    }

    fn message(&self) -> Option<String> {
        let place = self.0.place.as_ref();
        let kind = place.map_or("nothing", |place| place.kind);
        let written = match place {
            Some(place) if !self.0.in_secret => place.written.as_str(),
            _ => kind,
        };
        let unknown = |word, known: &[&str]| {
            let suggestion = place.and_then(|place| suggestion(place.plain.as_ref()?, known));
            format!(
                "unknown {word} {written}{} Known {word}s: {}",
                suggestion.as_deref().unwrap_or("."),
                known.join(", ")
            )
        };
        match &self.0.mistake {
            Mistake::Expected(what) => Some(format!("expected {what}, found {written}")),
            Mistake::ExpectedStructure(what) => Some(format!("expected {what}, found {kind}")),
            Mistake::UnknownKey(known) => Some(unknown("key", known)),
            Mistake::UnknownValue(known) => Some(unknown("value", known)),
            Mistake::MissingKey(key) => Some(format!("required key `{key}` is missing")),
            Mistake::Refused(_) if self.0.in_secret => {
                Some("this value is not accepted".to_owned())
            }
            Mistake::Refused(reason) => Some(format!("{reason}, found {written}")),
            Mistake::Reported => None,
        }
    }
}

/// Longest word to compare with the known ones, in bytes: the comparison costs the
/// product of the lengths.
const MAX_WORD: usize = 100;

/// The known word that was meant, where one is close or the one a part of the other.
fn suggestion(word: &str, known: &[&str]) -> Option<String> {
    if word.len() > MAX_WORD {
        return None;
    }
    let word = word.to_lowercase();
    let distance = |known: &&&str| strsim::damerau_levenshtein(&word, known);
    let is_part = |known: &&&str| {
        known.len().min(word.len()) >= 3 && (word.starts_with(**known) || known.starts_with(&word))
    };
    let is_close = |known: &&&str| {
        let distance = distance(known);
        distance <= known.len().div_ceil(3).min(3) && 2 * distance < known.len()
    };
    let close = known.iter().filter(is_close).min_by_key(distance);
    let meant = close.or_else(|| known.iter().filter(is_part).min_by_key(distance))?;
    Some(format!("; did you mean `{meant}`?"))
}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Mistake::Refused(message.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Mistake::Expected(expected.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Mistake::Expected(expected.to_string()))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Mistake::UnknownValue(known))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Mistake::UnknownKey(known))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Mistake::MissingKey(key))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message().unwrap_or_default())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(word: &str, known: &[&str]) -> Option<String> {
        suggestion(word, known)?
            .split('`')
            .nth(1)
            .map(str::to_owned)
    }

    #[test]
    fn close_words_are_suggested() {
        let known = ["listen", "tls", "max_body", "keys", "key", "log", "json"];
        for (word, expected) in [
            ("lissten", "listen"),
            ("maxBody", "max_body"),
            ("max-body", "max_body"),
            ("max_bdoy", "max_body"),
            ("Keys", "keys"),
            ("jsn", "json"),
            ("tsl", "tls"),
            ("logging", "log"),
            ("max", "max_body"),
        ] {
            assert_eq!(meant(word, &known).as_deref(), Some(expected), "{word}");
        }
    }

    #[test]
    fn far_words_are_not() {
        let known = ["listen", "tls", "max_body", "keys", "h1"];
        for word in [
            "port",
            "certificate",
            "h3",
            "x",
            "",
            "ma",
            &"k".repeat(1 << 20),
        ] {
            assert_eq!(meant(word, &known), None, "{word}");
        }
    }
}
