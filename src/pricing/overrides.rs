//! Prices from the configuration: those of contracts, and of providers no catalogue knows.

use super::rates::Card;

/// The rates of some models of one provider, as the configuration has them. They replace
/// whatever the catalogue says of these models, for every service tier.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Override {
    /// The provider's slug, such as `openai` or `custom-acme`; `None` for all of them.
    pub provider: Option<String>,
    /// The model's name as requests have it; `*` stands for any number of characters.
    pub model: String,
    /// What it costs.
    pub card: Card,
}

impl Override {
    /// Whether this is about the model.
    pub fn covers(&self, provider: &str, model: &str) -> bool {
        self.provider.as_deref().is_none_or(|own| own == provider) && is_match(&self.model, model)
    }
}

/// Whether `text` is as the pattern has it, in which `*` stands for any characters or none.
fn is_match(pattern: &str, text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, matches) in [
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
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*ab*", "xabab", true),
            ("*ab*ab*", "xaba", false),
            ("**", "é", true),
            ("*é*", "aéb", true),
        ] {
            assert_eq!(is_match(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn an_override_covers_models_of_its_provider() {
        let own = Override {
            provider: Some("custom-acme".into()),
            model: "acme-*".into(),
            ..Override::default()
        };
        assert!(own.covers("custom-acme", "acme-large"));
        assert!(!own.covers("openai", "acme-large"));
    }
}
