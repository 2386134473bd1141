//! `${NAME}` and `${NAME:-default}` in text.
//!
//! `$$` stands for `$`; a `$` before anything else stands for itself. What a variable
//! holds is put in as it is and not looked at again.

use crate::config::Environment;

/// `text` with its variables put in; `None` where it needs no change.
///
/// # Errors
/// One message per variable that is not set or misspelt. Messages name variables and
/// quote nothing else.
pub(super) fn interpolate(
    text: &str,
    environment: Environment<'_>,
) -> Result<Option<String>, Vec<String>> {
    if !text.contains('$') {
        return Ok(None);
    }
    let mut result = String::with_capacity(text.len());
    let mut mistakes = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            // Without its `}` nothing is a name.
            let (inside, after) = after.split_once('}').unwrap_or(("", ""));
            match variable(inside, environment) {
                Ok(value) => result.push_str(&value),
                Err(mistake) => mistakes.push(mistake),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    if mistakes.is_empty() {
        Ok(Some(result))
    } else {
        Err(mistakes)
    }
}

/// The value of what stands between `${` and `}`.
fn variable(inside: &str, environment: Environment<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(
            "after `${` the name of an environment variable and `}` must follow; \
                    write `$${` for `${` itself"
                .to_owned(),
        );
    }
    match (environment(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "environment variable `{name}` is not set: set it, or give a default with `${{{name}:-default}}`"
        )),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}$$".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_dollars() {
        for (text, expected) in [
            ("plain", None),
            ("${A}", Some("1")),
            ("x${A}y${A}z", Some("x1y1z")),
            ("${EMPTY}", Some("")),
            ("${EMPTY:-d}", Some("d")),
            ("${A:-d}", Some("1")),
            (
                "${NO:-a default, with $ and :-}",
                Some("a default, with $ and :-"),
            ),
            ("${NO:-}", Some("")),
            ("$$", Some("$")),
            ("$${A}", Some("${A}")),
            ("$$${A}", Some("$1")),
            ("pa$word$", Some("pa$word$")),
            ("${NESTED}", Some("${A}$$")),
        ] {
            assert_eq!(
                interpolate(text, &environment).unwrap().as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn every_unset_variable_is_named() {
        let mistakes = interpolate("${ONE}-${A}-${TWO}", &environment).unwrap_err();
        assert_eq!(mistakes.len(), 2);
        assert!(
            mistakes[0].contains("`ONE` is not set") && mistakes[0].contains("${ONE:-default}")
        );
        assert!(mistakes[1].contains("`TWO` is not set"));
    }

    #[test]
    fn malformed_variables_quote_nothing() {
        for text in [
            "${",
            "${A",
            "x${A y",
            "${sk-hidden",
            "${}",
            "${1A}",
            "${A-sk-hidden}",
            "${ A }",
            "${:-sk-hidden}",
        ] {
            let mistakes = interpolate(text, &environment).unwrap_err();
            assert_eq!(mistakes.len(), 1, "{text}");
            assert!(!mistakes[0].contains("hidden"), "{text}");
        }
    }
}
