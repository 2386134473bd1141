//! Every model of the catalogue costs here what it costs in the crate that the catalogue comes
//! from, up to the error of its floating-point arithmetic.
//!
//! One difference is meant: what is sold by minutes, pages or characters costs that crate
//! nothing when tokens were counted, and has no price here.

use ::genai_prices::{Calculator, PriceRequest, Usage as TheirUsage, UsageKey};

use super::*;

/// Usages whose parts agree with each other, below and above the thresholds of long contexts.
fn usages() -> [Usage; 5] {
    let some = Usage {
        input: 12_345,
        output: 678,
        ..Usage::default()
    };
    let cached = Usage {
        cached_input: 4_000,
        cache_write: 3_001,
        cache_write_1h: 1_000,
        reasoning: 333,
        web_searches: 3,
        ..some
    };
    let modal = Usage {
        input_audio: 2_000,
        cached_audio: 777,
        cached_input: 800,
        input_image: 1_001,
        output_audio: 200,
        output_image: 100,
        ..some
    };
    let long = Usage {
        input: 300_007,
        cached_input: 250_000,
        ..cached
    };
    let longest = Usage {
        input: 1_100_000,
        ..some
    };
    [some, cached, modal, long, longest]
}

fn theirs(usage: &Usage) -> TheirUsage {
    let counts = [
        (UsageKey::INPUT_TOKENS, usage.input),
        (UsageKey::CACHE_READ_TOKENS, usage.cached_input),
        (UsageKey::CACHE_WRITE_TOKENS, usage.cache_write),
        (UsageKey::CACHE_WRITE_1H_TOKENS, usage.cache_write_1h),
        (UsageKey::INPUT_AUDIO_TOKENS, usage.input_audio),
        (UsageKey::CACHE_AUDIO_READ_TOKENS, usage.cached_audio),
        (UsageKey::INPUT_IMAGE_TOKENS, usage.input_image),
        (UsageKey::CACHE_IMAGE_READ_TOKENS, 0),
        (UsageKey::OUTPUT_TOKENS, usage.output),
        (UsageKey::OUTPUT_REASONING_TOKENS, usage.reasoning),
        (UsageKey::OUTPUT_AUDIO_TOKENS, usage.output_audio),
        (UsageKey::OUTPUT_IMAGE_TOKENS, usage.output_image),
        (UsageKey::WEB_SEARCHES, usage.web_searches),
    ];
    counts.map(|(key, count)| (key, count as f64)).into()
}

struct Case<'a> {
    provider: &'a str,
    model: &'a str,
    tier: ServiceTier,
    at: SystemTime,
}

impl Case<'_> {
    /// In pico-dollars.
    fn their_cost(&self, usage: &Usage) -> f64 {
        let usage = theirs(usage);
        let request = PriceRequest::new(self.model, &usage)
            .with_provider_id(self.provider)
            .with_timestamp(self.at);
        let request = match self.tier {
            ServiceTier::Standard => request,
            ServiceTier::Batch => request.with_price_context("processing", "batch"),
            ServiceTier::Flex => request.with_price_context("service_tier", "flex"),
            ServiceTier::Priority => request.with_price_context("service_tier", "priority"),
        };
        let price = Calculator::bundled().calculate(&request);
        price.unwrap().total_price * 1e12
    }

    fn agrees(&self, usage: &Usage) {
        let card = CATALOGUE.card(self.provider, self.model, self.tier, self.at);
        let ours = card.unwrap().cost(usage);
        let theirs = self.their_cost(usage);
        let Some(Cost(ours)) = ours else {
            assert_eq!(theirs, 0.0, "{} {}", self.provider, self.model);
            return;
        };
        // Half a pico-dollar of rounding here, a few units in the last place there.
        let error = (ours as f64 - theirs).abs();
        let allowed = 0.5 + theirs * 1e-14;
        let (provider, model, tier) = (self.provider, self.model, self.tier);
        assert!(
            error <= allowed,
            "{provider} {model} {tier:?} {usage:?}: {ours} {theirs}"
        );
    }
}

/// Calls `check` with every model of the catalogue.
fn every_model(mut check: impl FnMut(&str, &str)) {
    let mut models = 0;
    for provider in Calculator::bundled().providers() {
        for model in provider.models() {
            // An id need not be one of the names that the model goes by.
            if CATALOGUE.model_id(provider.id(), model.id()).is_some() {
                check(provider.id(), model.id());
                models += 1;
            }
        }
    }
    assert!(models > 2000, "{models}");
}

#[test]
fn every_model_costs_the_same() {
    every_model(|provider, model| {
        let case = Case {
            provider,
            model,
            tier: ServiceTier::Standard,
            at: november(),
        };
        usages().iter().for_each(|usage| case.agrees(usage));
    });
}

#[test]
fn every_way_of_processing_costs_the_same_at_any_time() {
    let times = [
        "2024-01-01T00:29:59Z",
        "2026-10-13T02:00:00Z",
        "2027-02-01T23:00:00Z",
    ];
    let times = times.map(at);
    every_model(|provider, model| {
        // The large reseller has no such prices and takes longest to search.
        if provider == "openrouter" {
            return;
        }
        for tier in [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority] {
            for at in times {
                let case = Case {
                    provider,
                    model,
                    tier,
                    at,
                };
                case.agrees(&usages()[3]);
            }
        }
    });
}

#[test]
fn both_know_the_same_models() {
    for provider in Calculator::bundled().providers() {
        for model in provider.models() {
            let usage = TheirUsage::new();
            let request = PriceRequest::new(model.id(), &usage).with_provider_id(provider.id());
            let theirs = Calculator::bundled().calculate(&request).ok();
            let ours = CATALOGUE.model_id(provider.id(), model.id());
            // Names that they do not know are found here by one of their spellings.
            if let Some(theirs) = theirs {
                assert_eq!(ours, Some(theirs.model_id), "{}", provider.id());
            }
        }
    }
}
