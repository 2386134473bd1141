//! What is set aside for a call is never less than what it costs.

use super::*;

/// Numbers that follow from a seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `most`; each of the two every now and then.
    fn up_to(&mut self, most: u64) -> u64 {
        match self.roll() % 4 {
            0 => most,
            1 => 0,
            _ => self.roll() % most.saturating_add(1).max(1),
        }
    }

    /// Tokens in whatever kinds, contradictions included, and no searches.
    fn usage(&mut self, input: u64, output: u64) -> Usage {
        let (read, written) = (self.up_to(input), self.up_to(output));
        Usage {
            input: read,
            output: written,
            cached_input: self.up_to(read),
            cache_write: self.up_to(read),
            cache_write_1h: self.up_to(read),
            reasoning: self.up_to(written),
            input_audio: self.up_to(read),
            output_audio: self.up_to(written),
            cached_audio: self.up_to(read),
            input_image: self.up_to(read),
            output_image: self.up_to(written),
            web_searches: 0,
        }
    }
}

#[test]
fn no_call_of_any_model_costs_more_than_its_most() {
    let mut dice = Dice(1);
    let prices = Prices::default();
    let times = [
        at("2024-03-01T17:00:00Z"),
        at("2025-09-01T03:00:00Z"),
        november(),
    ];
    let mut compared = 0;
    for (provider, model) in CATALOGUE.all() {
        let seller = Seller {
            provider: "any",
            id: Some(&provider),
            models: &[&model],
        };
        for at in times {
            for bound in [100, 150_000, 300_000, 3_000_000] {
                let input = dice.up_to(bound);
                let output = dice.up_to(10_000);
                let most = prices.most(seller, input, output, at);
                for tier in ServiceTier::ALL {
                    let usage = dice.usage(input, output);
                    let Some((cost, _)) = prices.price(seller, &usage, tier, at) else {
                        continue;
                    };
                    assert!(
                        most.is_some_and(|most| cost <= most),
                        "{provider} {model} {tier:?} {usage:?}: {cost} and not {most:?}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 50_000, "{compared}");
}

#[test]
fn the_most_can_be_reached() {
    let prices = Prices::default();
    let seller = Seller {
        provider: "anthropic",
        id: Some("anthropic"),
        models: &["claude-sonnet-4-5"],
    };
    let cost = |usage: Usage| {
        let priced = prices.price(seller, &usage, ServiceTier::Standard, november());
        priced.unwrap().0
    };
    for input in [1_000, 400_000] {
        let written = Usage {
            input,
            cache_write: input,
            cache_write_1h: input,
            output: 500,
            ..Usage::default()
        };
        let most = prices.most(seller, input, 500, november());
        assert_eq!(most, Some(cost(written)), "{input}");
    }
}

#[test]
fn overrides_go_before_the_catalogue_here_too() {
    let mut card = Card::default();
    card.set(Kind::Input, parse_rate("1").unwrap());
    card.set(Kind::Output, parse_rate("2").unwrap());
    card.set(Kind::Reasoning, parse_rate("5").unwrap());
    // A long context is cheaper: the dearest is just below it.
    card.set_above(100, Kind::Input, parse_rate("0.5").unwrap());
    let own = Prices {
        overrides: vec![Override {
            provider: None,
            model: "gpt-4o*".into(),
            card,
        }],
    };
    let seller = |model| Seller {
        provider: "openai",
        id: Some("openai"),
        models: model,
    };
    let most = |model| own.most(seller(model), 1_000, 10, november());
    assert_eq!(most(&["gpt-4o"]), Some(Cost(1_000_000_000 + 50_000_000)));
    assert_eq!(most(&["gpt-17"]), None);
    assert_eq!(most(&["gpt-17", "gpt-4o"]), most(&["gpt-4o"]));
    assert_eq!(most(&["whisper-1"]), None, "by the minute");
    assert_eq!(own.most_output(seller(&["gpt-4o"])), Some(128_000));
    let nothing_known = Seller {
        id: None,
        ..seller(&["gpt-4.1"])
    };
    assert_eq!(own.most(nothing_known, 1, 1, november()), None);
    assert_eq!(own.most_output(nothing_known), None);
}

#[test]
fn who_sells_searches_is_known() {
    for (provider, model, sells) in [
        ("perplexity", "sonar-deep-research", true),
        ("perplexity", "sonar-pro", false),
        ("openai", "gpt-4o-mini", true),
        ("openai", "gpt-17", false),
    ] {
        let seller = Seller {
            provider,
            id: Some(provider),
            models: &[model],
        };
        let scale = Prices::default().scale(seller, november());
        assert_eq!(scale.sells_searches(), sells, "{provider} {model}");
    }
}

#[test]
fn what_is_too_much_stays_the_most_there_is() {
    let seller = Seller {
        provider: "openai",
        id: Some("openai"),
        models: &["gpt-4o"],
    };
    let most = Prices::default().most(seller, u64::MAX, u64::MAX, november());
    assert_eq!(most, Some(Cost(u64::MAX)));
}
