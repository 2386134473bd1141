//! Prices from the configuration: those of contracts, and of providers no catalogue knows.

use super::rates::Card;
use crate::pattern;

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
        self.provider.as_deref().is_none_or(|own| own == provider)
            && pattern::fits(&self.model, model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
