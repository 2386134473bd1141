//! Patterns as operators write them: text in which `*` stands for any characters, or none.

/// Whether `text` is as the pattern has it.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The earliest place for each piece leaves the most text to the ones behind it.
    for piece in middle.split('*') {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

/// The same, where `*` stands for no `/`.
pub fn fits_in_parts(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.split('/'), text.split('/'));
    loop {
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if fits(one, other) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("acme-1", "acme-1", true),
            ("acme-1", "acme-10", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("acme-*", "acme-", true),
            ("acme-*", "acme", false),
            ("*-mini", "acme-mini", true),
            ("*-mini", "-mini-2", false),
            ("a*a", "a", false), // one letter cannot be both ends
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*ab*", "xabab", true),
            ("*ab*ab*", "xaba", false),
            ("**", "é", true),
            ("*é*", "aéb", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn or_for_those_of_a_part() {
        for (pattern, text, expected) in [
            ("openai/*", "openai/gpt-4o", true),
            ("openai/*", "openai/ft/gpt-4o", false),
            ("*", "openai/gpt-4o", false),
            ("*/*", "openai/gpt-4o", true),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("a/b", "a", false),
        ] {
            assert_eq!(fits_in_parts(pattern, text), expected, "{pattern} {text}");
        }
    }
}
