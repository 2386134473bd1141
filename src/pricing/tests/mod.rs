//! The module as a whole: worked examples, names, and comparison with two other crates.

mod genai_prices;
mod llm_prices;
mod most;
mod names;
mod worked;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::*;

static CATALOGUE: LazyLock<&Catalogue> = LazyLock::new(Catalogue::bundled);

/// The built-in providers: slug, and id in the catalogue.
static PRICES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let providers = crate::config::resolve::built_in_providers();
    let listed = providers.into_iter();
    listed
        .filter_map(|(slug, provider)| Some((slug, provider.prices?)))
        .collect()
});

/// Prices as of the built-in providers.
struct Asked(Prices);

fn prices(overrides: Vec<Override>) -> Asked {
    Asked(Prices { overrides })
}

impl Asked {
    fn price(
        &self,
        provider: &str,
        model: &str,
        usage: &Usage,
        tier: ServiceTier,
        at: SystemTime,
    ) -> Option<(Cost, CostSource)> {
        let seller = Seller {
            provider,
            id: PRICES.get(provider).map(String::as_str),
            models: &[model],
        };
        self.0.price(seller, usage, tier, at)
    }
}

fn at(time: &str) -> SystemTime {
    humantime::parse_rfc3339(time).unwrap()
}

/// After the day from which the catalogue knows batch and flex prices.
fn november() -> SystemTime {
    at("2026-11-02T12:00:00Z")
}

#[test]
fn every_provider_is_in_the_catalogue() {
    assert!(PRICES.len() >= 25);
    for (slug, id) in PRICES.iter() {
        assert!(CATALOGUE.has_provider(id), "{slug}: {id}");
    }
    assert!(!CATALOGUE.has_provider("acme"));
}

#[test]
fn prices_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Prices>();
    shared::<Catalogue>();
    shared::<CustomCost>();
}

#[test]
fn unknown_providers_and_models_have_no_price() {
    let usage = Usage {
        input: 1,
        ..Usage::default()
    };
    let price = |provider, model: &str| {
        let tier = ServiceTier::Standard;
        prices(Vec::new()).price(provider, model, &usage, tier, november())
    };
    assert_eq!(price("custom-acme", "gpt-4o"), None);
    assert_eq!(price("ollama", "gpt-4o"), None);
    assert_eq!(price("openai", "gpt-17"), None);
    assert_eq!(price("openai", ""), None);
    assert_eq!(price("openai", &"gpt-4o".repeat(100)), None);
    assert_eq!(price("openai", "whisper-1"), None); // by the minute
    let free = price("openrouter", "openai/gpt-oss-20b:free");
    assert_eq!(free, Some((Cost::ZERO, CostSource::Catalogue)));
}

#[test]
fn overrides_win_and_the_first_of_them_does() {
    let own = |provider: &str, model: &str, input: &str| {
        let mut card = Card::default();
        card.set(Kind::Input, parse_rate(input).unwrap());
        Override {
            provider: Some(provider.into()),
            model: model.into(),
            card,
        }
    };
    let prices = prices(vec![
        own("custom-acme", "acme-*", "3.00"),
        own("custom-acme", "*", "1"),
        own("openai", "gpt-4o", "2"),
    ]);
    let usage = Usage {
        input: 1000,
        output: 1000, // has no price: free
        ..Usage::default()
    };
    for (provider, model, pico) in [
        ("custom-acme", "acme-1", 3_000_000_000),
        ("custom-acme", "other", 1_000_000_000),
        ("openai", "gpt-4o", 2_000_000_000),
    ] {
        let price = prices.price(provider, model, &usage, ServiceTier::Batch, november());
        assert_eq!(price, Some((Cost(pico), CostSource::Override)), "{model}");
    }
    let price = prices.price(
        "openai",
        "gpt-4o-mini",
        &usage,
        ServiceTier::Standard,
        november(),
    );
    // 1000 x 150,000 + 1000 x 600,000
    assert_eq!(price, Some((Cost(750_000_000), CostSource::Catalogue)));
}

#[test]
fn a_long_context_override_keeps_what_it_does_not_name() {
    let rate = |text| parse_rate(text).unwrap();
    let mut card = Card::default();
    card.set(Kind::Input, rate("3.00"));
    card.set(Kind::CachedInput, rate("0.30"));
    card.set(Kind::Output, rate("15"));
    card.set(Kind::WebSearch, Rate::each("0.01").unwrap());
    card.set_above(200_000, Kind::Input, rate("6"));
    card.set_above(200_000, Kind::Output, rate("22.5"));
    let usage = Usage {
        input: 300_000,
        cached_input: 100_000,
        output: 1000,
        web_searches: 2,
        ..Usage::default()
    };
    // 200,000 x 6,000,000 + 100,000 x 300,000 + 1000 x 22,500,000 + 2 x 10^10
    let pico = 1_200_000_000_000 + 30_000_000_000 + 22_500_000_000 + 20_000_000_000;
    assert_eq!(card.cost(&usage), Some(Cost(pico)));
}

#[test]
fn a_broken_catalogue_says_where() {
    let model = |prices: &str| {
        let json = format!(
            r#"[{{"id":"p","models":[{{"id":"m","match":{{"equals":"m"}},"prices":{prices}}}]}}]"#
        );
        let parts = source::parts(&json)?;
        source::read_one(parts["p"]).map(|_| ())
    };
    assert_eq!(model(r#"{"input_mtok":1e-3,"audio_hours":2}"#), Ok(()));
    for (prices, told) in [
        (
            r#"{"input_mtok":"a"}"#,
            "p m: input_mtok: \"\\\"a\\\"\" is not a decimal number",
        ),
        (r#"{"input_mtok":-1}"#, "negative"),
        (r#"{"input_mtok":{"base":1}}"#, "missing field `tiers`"),
        (
            r#"[{"constraint":{"start_date":"x"},"prices":{}}]"#,
            "start_date \"x\"",
        ),
        (
            r#"[{"constraint":{"start_time":"1:00"},"prices":{}}]"#,
            "a constraint is",
        ),
    ] {
        let error = model(prices).unwrap_err();
        assert!(error.contains(told), "{prices}: {error}");
    }
    assert!(source::parts("{}").is_err() && source::parts("[{}]").is_err());
}

#[test]
fn sources_have_names() {
    let all = [
        CostSource::Catalogue,
        CostSource::Override,
        CostSource::Custom,
        CostSource::Cached,
        CostSource::Unpriced,
    ];
    let names = all.map(CostSource::name);
    assert_eq!(
        names,
        ["catalogue", "override", "custom", "cached", "unpriced"]
    );
}
