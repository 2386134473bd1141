//! What figures are kept for: series, named by what requests have in common.
//!
//! A name is a list of texts; what a request does not have is empty. Names are bounded in length
//! here, and in number by `super::table`.

use std::borrow::Cow;

/// Takes the place of values that there are too many of.
pub const OTHER: &str = "(other)";
/// Shown in the place of a value that requests do not have.
pub const NONE: &str = "(none)";

/// Longest value of a name in bytes; of a longer one the beginning is kept, with `…` behind it.
pub const LONGEST_VALUE: usize = 100;

/// Ends a value within a key; no text contains it.
const END: u8 = 0xff;

/// Kinds of series: each request is counted in one series of `Calls`, one of `Agents`, and one of
/// `Labels` for each entry of its metadata. Together they would be too many series to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// (gateway, provider, model, route, key, owner).
    Calls = 0,
    /// (gateway, user agent).
    Agents = 1,
    /// (gateway, key of metadata, value).
    Labels = 2,
}

/// How many series of a dimension there may be in one minute, hour or day.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// With values of their own. What is over it goes to series with [`OTHER`] as value, of which
    /// there may be half as many more.
    pub series: usize,
    /// Keys of metadata.
    pub keys: usize,
    /// Values of one key, so that a key with endless values does not take the place of others;
    /// in an hour or day only where there are more than `series`.
    pub values: usize,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Calls, Self::Agents, Self::Labels];

    /// As the database has it, below those of `super::marginals`.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// What [`Self::number`] made.
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// How many series there may be of it.
    pub const fn limits(self) -> Limits {
        let (series, keys, values) = match self {
            Self::Calls => (1_000, 0, 0),
            Self::Agents => (200, 0, 0),
            Self::Labels => (3_000, 32, 1_000),
        };
        Limits {
            series,
            keys,
            values,
        }
    }

    /// Whether the value at `place` gives way to [`OTHER`].
    fn gives_way(self, place: usize, detail: Detail) -> bool {
        match detail {
            Detail::Full => false,
            // The one value that clients make up.
            Detail::Some => match self {
                Self::Calls | Self::Labels => place == 2,
                Self::Agents => place == 1,
            },
            Detail::Gateway => place > 0,
            Detail::Nothing => true,
        }
    }
}

/// How much of a name is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// All.
    Full,
    /// All but the model, the user agent, or the value of metadata.
    Some,
    /// The gateway.
    Gateway,
    /// Nothing: there is one such series.
    Nothing,
}

/// A value as it is part of a name.
pub fn bounded(value: &str) -> Cow<'_, str> {
    match cut(value) {
        Some(head) => Cow::Owned(format!("{head}…")),
        None => Cow::Borrowed(value),
    }
}

/// The beginning of a value that is too long.
fn cut(value: &str) -> Option<&str> {
    (value.len() > LONGEST_VALUE).then(|| &value[..value.floor_char_boundary(LONGEST_VALUE)])
}

/// Writes the key of a name over what is in `key`: its bounded values, each with an end.
pub fn write_key(key: &mut Vec<u8>, dimension: Dimension, name: &[&str], detail: Detail) {
    key.clear();
    for (place, value) in name.iter().enumerate() {
        if dimension.gives_way(place, detail) {
            key.extend_from_slice(OTHER.as_bytes());
        } else if let Some(head) = cut(value) {
            key.extend_from_slice(head.as_bytes());
            key.extend_from_slice("…".as_bytes());
        } else {
            key.extend_from_slice(value.as_bytes());
        }
        key.push(END);
    }
}

/// The values of a key.
pub fn values(key: &[u8]) -> impl Iterator<Item = &str> {
    key.split_inclusive(|byte| *byte == END)
        .map(|value| std::str::from_utf8(&value[..value.len() - 1]).unwrap_or(OTHER))
}

/// A name as the database has it: a JSON array of its values.
pub fn to_text(key: &[u8]) -> String {
    serde_json::Value::from_iter(values(key)).to_string()
}

/// The values of what [`to_text`] made; one [`OTHER`] where it is something else.
pub fn of_text(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec![OTHER.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(dimension: Dimension, name: &[&str], detail: Detail) -> String {
        let mut key = vec![1, 2, 3];
        write_key(&mut key, dimension, name, detail);
        to_text(&key)
    }

    #[test]
    fn names_lose_what_clients_make_up_first() {
        let call = ["a/b", "openai", "gpt", "", "default", ""];
        let told_of = |detail| told(Dimension::Calls, &call, detail);
        assert_eq!(
            told_of(Detail::Full),
            r#"["a/b","openai","gpt","","default",""]"#
        );
        assert_eq!(
            told_of(Detail::Some),
            r#"["a/b","openai","(other)","","default",""]"#
        );
        let other = "(other)";
        let gateway = serde_json::json!(["a/b", other, other, other, other, other]);
        assert_eq!(told_of(Detail::Gateway), gateway.to_string());
        assert!(!told_of(Detail::Nothing).contains("a/b"));
        let agent = told(Dimension::Agents, &["a/b", "curl"], Detail::Some);
        assert_eq!(agent, r#"["a/b","(other)"]"#);
        let label = told(Dimension::Labels, &["a/b", "team", "x"], Detail::Some);
        assert_eq!(label, r#"["a/b","team","(other)"]"#);
        assert_eq!(of_text(&label), ["a/b", "team", "(other)"]);
        assert_eq!(of_text("{}"), ["(other)"]);
    }

    #[test]
    fn values_are_bounded() {
        let long = "é".repeat(80);
        let cut = bounded(&long);
        assert_eq!(&*cut, format!("{}…", "é".repeat(50)));
        assert_eq!(bounded("short"), "short");
        let text = told(Dimension::Agents, &["a/b", &long], Detail::Full);
        assert_eq!(of_text(&text), ["a/b", &cut]);
    }

    #[test]
    fn dimensions_have_their_numbers() {
        for dimension in Dimension::ALL {
            assert_eq!(Dimension::of_number(dimension.number()), Some(dimension));
        }
        assert_eq!(Dimension::of_number(3), None);
    }
}
