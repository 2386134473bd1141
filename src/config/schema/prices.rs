//! What tokens cost, as users write it.

use serde::Deserialize;

use crate::config::units::Decimal;

/// What tokens cost, where the built-in price list does not say it, or not what you pay.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// The first that fits counts, and goes before the price list.
    pub overrides: Vec<PriceOverride>,
}

/// The prices of some models.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriceOverride {
    /// The provider's slug, such as `custom-acme`. Without it all providers.
    pub provider: Option<String>,
    /// The model; `*` stands for any text. Default `*`.
    pub model: Option<String>,
    /// What it costs.
    pub rates: Rates,
    /// What long contexts cost.
    pub above: Vec<Above>,
}

/// What a whole call costs instead that reads more than so many tokens, cached ones included.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Above {
    /// So many. At least 1.
    pub tokens: u64,
    /// What is left out costs what it usually does.
    pub rates: Rates,
}

/// US dollars for a million tokens, written as decimal numbers. What is left out costs what
/// it is a part of: a cached input token as much as any input token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Tokens read. Required.
    pub input: Option<Decimal>,
    /// Tokens written. Default `0`, as for embeddings.
    pub output: Option<Decimal>,
    /// Read out of the provider's prompt cache.
    pub cached_input: Option<Decimal>,
    /// Put into the provider's prompt cache.
    pub cache_write: Option<Decimal>,
    /// Put there for an hour. Default: as `cache_write`.
    pub cache_write_1h: Option<Decimal>,
    /// Thoughts.
    pub reasoning: Option<Decimal>,
    /// Sound that is read.
    pub input_audio: Option<Decimal>,
    /// Sound that is written.
    pub output_audio: Option<Decimal>,
    /// Pictures that are read.
    pub input_image: Option<Decimal>,
    /// Pictures that are written.
    pub output_image: Option<Decimal>,
    /// A search of the web, in US dollars each. Default `0`.
    pub web_search: Option<Decimal>,
}
