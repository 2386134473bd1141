//! Two independent readings of the price lists agree, but for the differences listed here.

use ::llm_prices::{Price, all};

use super::*;

/// What differs: model, kind, here, there, in dollars for the tokens of the kind.
type Difference = (&'static str, &'static str, Option<f64>, f64);

/// The catalogue has no batch prices of models that are retired from their maker's own API.
const KNOWN: [Difference; 8] = [
    ("claude-opus-4-1-20250805", "batch input", Some(15.0), 7.5),
    ("claude-opus-4-1-20250805", "batch output", Some(75.0), 37.5),
    ("claude-opus-4-20250514", "batch input", Some(15.0), 7.5),
    ("claude-opus-4-20250514", "batch output", Some(75.0), 37.5),
    ("claude-sonnet-4-20250514", "batch input", Some(3.0), 1.5),
    ("claude-sonnet-4-20250514", "batch output", Some(15.0), 7.5),
    ("claude-3-5-haiku-20241022", "batch input", Some(0.8), 0.4),
    ("claude-3-5-haiku-20241022", "batch output", Some(4.0), 2.0),
];

/// The catalogue's ids of their providers.
const PROVIDERS: [&str; 4] = ["anthropic", "openai", "google", "deepseek"];

#[test]
fn both_say_the_same() {
    let found: Vec<Difference> = all().iter().flat_map(differences).collect();
    for (model, kind, ours, theirs) in &found {
        println!("    ({model:?}, {kind:?}, {ours:?}, {theirs:?}),");
    }
    assert_eq!(found, KNOWN);
}

/// One usage of each kind, with the rate that they have for it in dollars per million tokens.
fn cases(row: &Price) -> Vec<(&'static str, Usage, ServiceTier, Option<f64>)> {
    let input = |input| Usage {
        input,
        ..Usage::default()
    };
    let output = Usage {
        output: 1000,
        ..Usage::default()
    };
    let cached = |count| Usage {
        cached_input: count,
        ..input(count)
    };
    let written = |cache_write_1h| Usage {
        cache_write: 1000,
        cache_write_1h,
        ..input(1000)
    };
    let standard = ServiceTier::Standard;
    let mut cases = vec![
        ("input", input(1000), standard, row.input),
        ("output", output, standard, row.output),
        ("cached", cached(1000), standard, row.cache_read),
        (
            "write",
            written(0),
            standard,
            row.cache_write("5m").or(row.cache_write("30m")),
        ),
        ("write 1h", written(1000), standard, row.cache_write("1h")),
        (
            "batch input",
            input(1000),
            ServiceTier::Batch,
            row.batch_input,
        ),
        ("batch output", output, ServiceTier::Batch, row.batch_output),
    ];
    if let Some(long) = row.long_context {
        let over = long.threshold_tokens + 1;
        cases.extend([
            ("long input", input(over), standard, long.input),
            ("long cached", cached(over), standard, long.cache_read),
            (
                "long batch input",
                input(over),
                ServiceTier::Batch,
                long.batch_input,
            ),
        ]);
    }
    cases
}

fn differences(row: &'static Price) -> Vec<Difference> {
    assert!(PROVIDERS.contains(&row.provider), "{}", row.provider);
    // When they read the lists; in the peak hours, whose prices they have of DeepSeek.
    let at = at("2026-10-23T07:00:00Z");
    let mut differences = Vec::new();
    if CATALOGUE.model_id(row.provider, row.model).is_none() {
        return vec![(row.model, "unknown here", None, row.input.unwrap_or(0.0))];
    }
    for (kind, usage, tier, rate) in cases(row) {
        let Some(rate) = rate else { continue };
        let count = usage.input.max(usage.output);
        let theirs = Cost::parse(&format!("{rate}")).unwrap().0 / 1_000_000 * count;
        let card = CATALOGUE.card(row.provider, row.model, tier, at);
        let ours = card.and_then(|card| card.cost(&usage));
        if ours != Some(Cost(theirs)) {
            let per_million = |cost: Cost| cost.as_dollars() * 1e6 / count as f64;
            differences.push((row.model, kind, ours.map(per_million), rate));
        }
    }
    differences
}
