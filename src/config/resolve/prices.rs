//! What tokens cost.

use std::sync::Arc;

use ahash::AHashMap;

use super::Problems;
use crate::config::schema;
use crate::config::units::Decimal;
use crate::pricing::{Card, Kind, Override, Prices, Rate, parse_rate};
use crate::provider::Provider;

pub(super) fn resolve(
    prices: &schema::Prices,
    providers: &AHashMap<Box<str>, Arc<Provider>>,
    problems: &mut Problems,
) -> Prices {
    let schema::Prices { overrides } = prices;
    let overrides = overrides.iter().enumerate().map(|(index, entry)| {
        let mut builder = Builder {
            path: format!("prices.overrides[{index}]"),
            providers,
            problems,
            card: Card::default(),
        };
        builder.resolve(entry)
    });
    Prices {
        overrides: overrides.collect(),
    }
}

struct Builder<'a> {
    path: String,
    providers: &'a AHashMap<Box<str>, Arc<Provider>>,
    problems: &'a mut Problems,
    card: Card,
}

impl Builder<'_> {
    fn resolve(&mut self, entry: &schema::PriceOverride) -> Override {
        let schema::PriceOverride {
            provider,
            model,
            rates,
            above,
        } = entry;
        if rates.input.is_none() {
            let path = format!("{}.rates.input", self.path);
            self.problems
                .add(path, "is missing: what does a million tokens cost?");
        }
        self.rates("rates", rates, None);
        for (index, schema::Above { tokens, rates }) in above.iter().enumerate() {
            let field = format!("above[{index}]");
            if *tokens == 0 {
                let path = format!("{}.{field}.tokens", self.path);
                self.problems.add(
                    path,
                    "is missing: above how many tokens read, such as 200000?",
                );
            }
            self.rates(&format!("{field}.rates"), rates, Some(*tokens));
        }
        Override {
            provider: provider.as_deref().and_then(|name| self.slug(name)),
            model: model.clone().unwrap_or_else(|| "*".to_owned()),
            card: std::mem::take(&mut self.card),
        }
    }

    /// The slug of a provider, which may be named by an alias.
    fn slug(&mut self, name: &str) -> Option<String> {
        let known = self.providers.get(name);
        let rule = format!(
            "there is no provider `{name}`; one of your own stands under `providers` as `custom-<slug>`"
        );
        let known = known.map(|provider| provider.slug.to_string()).ok_or(rule);
        self.problems.ok(&format!("{}.provider", self.path), known)
    }

    fn rates(&mut self, field: &str, rates: &schema::Rates, above: Option<u64>) {
        let schema::Rates {
            input,
            output,
            cached_input,
            cache_write,
            cache_write_1h,
            reasoning,
            input_audio,
            output_audio,
            input_image,
            output_image,
            web_search,
        } = rates;
        for (name, kind, price) in [
            ("input", Kind::Input, input),
            ("output", Kind::Output, output),
            ("cached_input", Kind::CachedInput, cached_input),
            ("cache_write", Kind::CacheWrite, cache_write),
            ("cache_write_1h", Kind::CacheWrite1h, cache_write_1h),
            ("reasoning", Kind::Reasoning, reasoning),
            ("input_audio", Kind::InputAudio, input_audio),
            ("output_audio", Kind::OutputAudio, output_audio),
            ("input_image", Kind::InputImage, input_image),
            ("output_image", Kind::OutputImage, output_image),
        ] {
            self.set(&format!("{field}.{name}"), kind, price, parse_rate, above);
        }
        let name = format!("{field}.web_search");
        self.set(&name, Kind::WebSearch, web_search, Rate::each, above);
    }

    fn set(
        &mut self,
        field: &str,
        kind: Kind,
        price: &Option<Decimal>,
        parse: impl Fn(&str) -> Result<Rate, String>,
        above: Option<u64>,
    ) {
        let Some(Decimal(text)) = price else { return };
        let path = format!("{}.{field}", self.path);
        let Some(rate) = self.problems.ok(&path, parse(text)) else {
            return;
        };
        match above {
            Some(threshold) => self.card.set_above(threshold, kind, rate),
            None => self.card.set(kind, rate),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use crate::config::resolve::{Resolved, resolve};
    use crate::pricing::{Cost, Seller};
    use crate::usage::{ServiceTier, Usage};

    fn resolved(overrides: &str) -> Result<Resolved, Vec<String>> {
        let yaml = format!(
            "prices: {{ overrides: [ {overrides} ] }}\n\
             accounts: {{ a: {{ gateways: {{ g: {{}} }} }} }}"
        );
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        resolve(&config, ([127, 0, 0, 1], 1).into())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_written_is_what_is_paid() {
        let resolved = resolved(
            "{ provider: google, model: \"gemini-*\", rates: { input: 0.075, output: \"1\", web_search: 0.01 }, \
               above: [ { tokens: 1000, rates: { input: 2 } } ] }",
        );
        let prices = resolved.unwrap().snapshot.prices;
        let cost = |provider, input| {
            let seller = Seller {
                provider,
                id: None,
                models: &["gemini-x"],
            };
            let usage = Usage {
                input,
                output: 3,
                web_searches: 2,
                ..Usage::default()
            };
            let now = SystemTime::now();
            let price = prices.price(seller, &usage, ServiceTier::Batch, now);
            price.map(|(cost, _)| cost)
        };
        // In pico-dollars: tokens at 75,000 and 1,000,000, searches at a hundredth of a dollar.
        let rest = 3 * 1_000_000 + 2 * 10_000_000_000;
        let known = "google-ai-studio"; // `google` is its alias
        assert_eq!(cost(known, 1000), Some(Cost(1000 * 75_000 + rest)));
        assert_eq!(cost(known, 1001), Some(Cost(1001 * 2_000_000 + rest)));
        assert_eq!(cost("openai", 1), None);
    }

    #[test]
    fn mistakes_say_where_they_are_and_what_to_do() {
        let problems = resolved(
            "{ provider: opnai, rates: { input: 3, output: cheap } }, \
             { rates: { output: -2.5 }, above: [ { rates: { input: 1.0e+99 } } ] }",
        );
        let expected = [
            ("[0].rates.output", "\"cheap\" is not a decimal number"),
            ("[0].provider", "there is no provider `opnai`"),
            ("[1].rates.input", "what does a million tokens cost?"),
            ("[1].rates.output", "negative"),
            ("[1].above[0].tokens", "such as 200000?"),
            ("[1].above[0].rates.input", "too large"),
        ];
        let problems = problems.unwrap_err();
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (field, rule)) in problems.iter().zip(expected) {
            let path = format!("prices.overrides{field}: ");
            assert!(problem.starts_with(&path), "{path} {problem}");
            assert!(problem.contains(rule), "{rule} {problem}");
        }
    }
}
