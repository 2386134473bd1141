//! URL templates: `https://{resource}.openai.azure.com/openai/deployments/{deployment}`.
//!
//! Patterns take a client's path apart, templates put an upstream URL together. A captured
//! part that enters a host name must match a strict shape first, or a client could choose
//! the host.

use crate::config::schema::Shape;

/// Named parts of a client's path, at most a handful.
pub type Captures<'a> = Vec<(&'a str, &'a str)>;

/// Text with `{name}` holes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Capture(Box<str>),
}

impl Template {
    /// Parses `{name}` holes; errors name the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            let close = tail.find('}').filter(|_| tail.starts_with('{'));
            let close = close.ok_or_else(|| format!("unbalanced braces in `{text}`"))?;
            let name = &tail[1..close];
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                return Err(format!(
                    "`{{{name}}}` is not a capture; use lower-case letters and _"
                ));
            }
            pieces.push(Piece::Capture(name.into()));
            rest = &tail[close + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.into()));
        }
        Ok(Self(pieces))
    }

    /// The captures it needs.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Capture(name) => Some(&**name),
            Piece::Literal(_) => None,
        })
    }

    /// The text, when nothing has to be filled in.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Fills the holes in; a capture that is missing stays empty (resolve checks that none is).
    pub fn fill(&self, captures: &Captures<'_>) -> String {
        let mut text = String::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Capture(name) => text.push_str(get(captures, name).unwrap_or("")),
            }
        }
        text
    }
}

/// The captured part called `name`.
pub fn get<'a>(captures: &Captures<'a>, name: &str) -> Option<&'a str> {
    captures
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// A pattern over path segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    rest: Option<Box<str>>,
    text: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Capture {
        prefix: Box<str>,
        name: Box<str>,
        suffix: Box<str>,
    },
}

impl Pattern {
    /// Parses `v1/projects/{project}/{rest*}`; errors name the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = None;
        for segment in text.split('/') {
            if rest.is_some() {
                return Err(format!("`{{…*}}` must be the last segment of `{text}`"));
            }
            match segment.strip_prefix('{').and_then(|s| s.strip_suffix("*}")) {
                Some(name) => rest = Some(name.into()),
                None => segments.push(Self::segment(segment)?),
            }
        }
        Ok(Self {
            segments,
            rest,
            text: text.into(),
        })
    }

    fn segment(segment: &str) -> Result<Segment, String> {
        match Template::parse(segment)?.0.as_slice() {
            [] => Ok(Segment::Literal("".into())),
            [Piece::Literal(text)] => Ok(Segment::Literal(text.clone())),
            [Piece::Capture(name)] => Ok(capture("", name, "")),
            [Piece::Literal(prefix), Piece::Capture(name)] => Ok(capture(prefix, name, "")),
            [Piece::Capture(name), Piece::Literal(suffix)] => Ok(capture("", name, suffix)),
            [
                Piece::Literal(prefix),
                Piece::Capture(name),
                Piece::Literal(suffix),
            ] => Ok(capture(prefix, name, suffix)),
            _ => Err(format!("more than one capture in the segment `{segment}`")),
        }
    }

    /// The captures it gives.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Capture { name, .. } => Some(&**name),
                Segment::Literal(_) => None,
            })
            .chain(self.rest.as_deref())
    }

    /// As written in the configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes `path` apart; `None` when it does not match. Captured segments are never empty.
    pub fn matches<'a>(&'a self, path: &'a str) -> Option<Captures<'a>> {
        let mut captures = Captures::new();
        let mut remaining = Some(path);
        for pattern in &self.segments {
            let (segment, rest) = split(remaining?);
            match pattern {
                Segment::Literal(literal) if **literal == *segment => {}
                Segment::Literal(_) => return None,
                Segment::Capture {
                    prefix,
                    name,
                    suffix,
                } => {
                    let value = segment.strip_prefix(&**prefix)?.strip_suffix(&**suffix)?;
                    if value.is_empty() {
                        return None;
                    }
                    captures.push((name, value));
                }
            }
            remaining = rest;
        }
        match (&self.rest, remaining) {
            (Some(name), rest) => captures.push((name, rest.unwrap_or(""))),
            (None, None) => {}
            (None, Some(_)) => return None,
        }
        Some(captures)
    }
}

fn capture(prefix: &str, name: &str, suffix: &str) -> Segment {
    Segment::Capture {
        prefix: prefix.into(),
        name: name.into(),
        suffix: suffix.into(),
    }
}

/// The first segment, and what follows its `/` when there is one.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

impl Shape {
    /// Whether `value` looks like what it stands for.
    pub fn accepts(self, value: &str) -> bool {
        let label = |extra: fn(u8) -> bool| {
            (1..=63).contains(&value.len())
                && value
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra(b))
        };
        let hyphened = |b: u8| b == b'-';
        match self {
            Self::Alphanumeric => label(|_| false),
            Self::DnsLabel => {
                // Upper case is the same label; hyphens stand inside.
                (1..=63).contains(&value.len())
                    && value
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    && !value.starts_with('-')
                    && !value.ends_with('-')
            }
            Self::Region => {
                label(hyphened)
                    && value.contains('-')
                    && value.split('-').all(|part| !part.is_empty())
                    && value.starts_with(|c: char| c.is_ascii_lowercase())
                    && value.ends_with(|c: char| c.is_ascii_digit())
            }
        }
    }

    /// What to tell a client whose value does not fit.
    pub fn description(self) -> &'static str {
        match self {
            Self::Alphanumeric => "lower-case letters and digits",
            Self::DnsLabel => "letters, digits and inner hyphens",
            Self::Region => "a region such as us-east-1",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_paths_apart() {
        let azure = Pattern::parse("{resource}/{deployment}/{rest*}").unwrap();
        assert_eq!(
            azure.matches("res/dep/chat/completions").unwrap(),
            vec![
                ("resource", "res"),
                ("deployment", "dep"),
                ("rest", "chat/completions")
            ]
        );
        assert_eq!(get(&azure.matches("res/dep").unwrap(), "rest"), Some(""));
        assert_eq!(azure.matches("res"), None);
        assert_eq!(azure.matches("/dep/x"), None);

        let predict = Pattern::parse("model/{model}:predict").unwrap();
        assert_eq!(
            predict.matches("model/abc:predict").unwrap(),
            vec![("model", "abc")]
        );
        assert_eq!(predict.matches("model/abc:predict/x"), None);
        assert_eq!(predict.matches("model/:predict"), None);
    }

    #[test]
    fn templates_put_urls_together() {
        let template = Template::parse("https://{resource}.example.com/{deployment}/x").unwrap();
        assert_eq!(
            template.captures().collect::<Vec<_>>(),
            ["resource", "deployment"]
        );
        assert_eq!(template.literal(), None);
        let filled = template.fill(&vec![("resource", "r"), ("deployment", "d%2F")]);
        assert_eq!(filled, "https://r.example.com/d%2F/x");
        assert_eq!(
            Template::parse("https://a/").unwrap().literal(),
            Some("https://a/")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["{", "}", "a}b{", "{}", "{Name}", "{a b}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(
            Pattern::parse("{rest*}/more")
                .unwrap_err()
                .contains("last segment")
        );
        assert!(
            Pattern::parse("{a}{b}")
                .unwrap_err()
                .contains("more than one")
        );
    }

    #[test]
    fn shapes_refuse_everything_that_could_choose_a_host() {
        let hostile = [
            "",
            "evil.com",
            "evil.com/",
            "x@y",
            "a..b",
            "é",
            "a b",
            "a%2e",
            "-a",
            "a-",
            "a:1",
            "[::1]",
            "a\n",
        ];
        for shape in [Shape::DnsLabel, Shape::Region, Shape::Alphanumeric] {
            for value in hostile {
                assert!(!shape.accepts(value), "{shape:?} {value:?}");
            }
            assert!(!shape.accepts(&"a".repeat(64)), "{shape:?} over-long");
        }
        for region in [
            "us-east-1",
            "europe-west4",
            "us-gov-west-1",
            "ap-southeast-2",
        ] {
            assert!(Shape::Region.accepts(region), "{region}");
        }
        assert!(!Shape::Region.accepts("us--1"));
        assert!(Shape::DnsLabel.accepts("My-Resource-1"));
        assert!(Shape::Alphanumeric.accepts("0a1b"));
    }
}
