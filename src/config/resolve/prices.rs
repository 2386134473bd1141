//! What tokens cost.

use super::Problems;
use crate::config::schema;
use crate::config::units::Decimal;
use crate::pricing::{Card, Kind, Override, Prices, Rate, parse_rate};

pub(super) fn resolve(prices: &schema::Prices, problems: &mut Problems) -> Prices {
    let schema::Prices { overrides } = prices;
    let overrides = overrides.iter().enumerate().map(|(index, entry)| {
        let mut builder = Builder {
            path: format!("prices.overrides[{index}]"),
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
        for (threshold, rates) in above {
            self.rates(&format!("above.{threshold}"), rates, Some(*threshold));
        }
        Override {
            provider: provider.clone(),
            model: model.clone().unwrap_or_else(|| "*".to_owned()),
            card: std::mem::take(&mut self.card),
        }
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
