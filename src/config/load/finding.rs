//! Problems on their way to the user: with their place in the file, to sort them by.

use super::tree::{Kind, Node};
use crate::config::Problem;

/// Longest key or value that a message quotes, in characters.
const MAX_QUOTED: usize = 60;

/// A problem and where in the file it is.
#[derive(Debug)]
pub(super) struct Finding {
    pub order: usize,
    pub problem: Problem,
}

impl Finding {
    pub fn new(order: usize, path: &[Step], message: impl Into<String>) -> Self {
        Self {
            order,
            problem: Problem::new(path_text(path), message),
        }
    }
}

/// One step from a value into another.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// `providers.openai.keys[0]`; keys that would blur the path stand in quotes.
fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let plain = !key.is_empty() && !key.contains(['.', '[', ']', '"', ' ', ':']);
                let key = shortened(key);
                text.push_str(&if plain { key } else { format!("\"{key}\"") });
            }
        }
    }
    text
}

/// Text between back quotes, on one line and not longer than people read.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text))
}

fn shortened(text: &str) -> String {
    let mut short = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == MAX_QUOTED {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_debug());
        } else {
            short.push(character);
        }
    }
    short
}

/// What kind of value stands there. Safe to print for secrets.
pub(super) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Nothing => "nothing",
        Kind::Bool(_) => "a boolean",
        Kind::Whole(_) | Kind::Fraction(_) => "a number",
        Kind::Text(_) => "text",
        Kind::List(_) => "a list",
        Kind::Mapping(_) => "a mapping",
        Kind::Tagged => "a tagged value",
    }
}

/// The value as the file has it, where it is short; never what a variable held.
pub(super) fn written(node: &Node) -> String {
    match &node.kind {
        Kind::Bool(value) => format!("`{value}`"),
        Kind::Whole(value) => format!("`{value}`"),
        Kind::Fraction(value) => format!("`{value}`"),
        Kind::Text(text) => quoted(text.written.as_ref().unwrap_or(&text.value)),
        other => kind_name(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_code() {
        let key = |text: &str| Step::Key(text.to_owned());
        assert_eq!(path_text(&[]), "");
        assert_eq!(
            path_text(&[key("keys"), Step::Index(0), key("value")]),
            "keys[0].value"
        );
        assert_eq!(path_text(&[key("a.b"), key("")]), "\"a.b\".\"\"");
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}"), "`a\\nb\\u{1b}`");
        assert_eq!(quoted(&"ä".repeat(61)), format!("`{}…`", "ä".repeat(60)));
    }
}
