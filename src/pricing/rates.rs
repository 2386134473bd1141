//! The rates of one model, and what a usage costs at them.
//!
//! Every token is priced once, by the most special kind that has a rate. A kind without one
//! costs what the kind costs that it is a part of: cached audio as cached input, or else as
//! audio, or else as input; and so on. Counts that contradict each other (more cached tokens than tokens) never
//! price a token twice: a part is cut to what is left of its whole.

use super::money::{Cost, Rate, Total};
use crate::usage::Usage;

/// What is counted and has a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A token read.
    Input,
    /// A token read from the provider's prompt cache.
    CachedInput,
    /// A token put into the provider's prompt cache.
    CacheWrite,
    /// A token put there for an hour.
    CacheWrite1h,
    /// A token of audio read.
    InputAudio,
    /// A token of audio read from the provider's prompt cache.
    CachedAudio,
    /// A token of an image read.
    InputImage,
    /// A token written.
    Output,
    /// A token of thoughts.
    Reasoning,
    /// A token of audio written.
    OutputAudio,
    /// A token of an image written.
    OutputImage,
    /// A web search that the provider made.
    WebSearch,
    /// The request itself.
    Request,
}

impl Kind {
    fn group(self) -> Group {
        match self {
            Self::Input
            | Self::CachedInput
            | Self::CacheWrite
            | Self::CacheWrite1h
            | Self::InputAudio
            | Self::CachedAudio
            | Self::InputImage => Group::Input,
            Self::Output | Self::Reasoning | Self::OutputAudio | Self::OutputImage => Group::Output,
            Self::WebSearch => Group::Search,
            Self::Request => Group::Call,
        }
    }

    /// The kinds whose rates count where this one has none, in that order.
    fn wholes(self) -> &'static [Self] {
        match self {
            Self::CachedAudio => &[Self::CachedInput, Self::InputAudio, Self::Input],
            Self::CacheWrite1h => &[Self::CacheWrite, Self::Input],
            Self::CachedInput | Self::CacheWrite | Self::InputAudio | Self::InputImage => {
                &[Self::Input]
            }
            Self::Reasoning | Self::OutputAudio | Self::OutputImage => &[Self::Output],
            Self::Input | Self::Output | Self::WebSearch | Self::Request => &[],
        }
    }
}

/// What a kind is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Input,
    Output,
    Search,
    /// The request itself.
    Call,
}

/// The price of one kind: the usual one, and those of long contexts.
///
/// A call that reads more tokens than a threshold, cached ones included, pays the threshold's
/// rate for all its tokens, not for the ones above it alone: so do the providers, and so does
/// the catalogue.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Price {
    base: Option<Rate>,
    /// Thresholds in tokens, ascending.
    above: Vec<(u64, Rate)>,
}

impl Price {
    fn at(&self, input: u64) -> Option<Rate> {
        let above = self.above.iter().rev();
        let step = above.into_iter().find(|(threshold, _)| input > *threshold);
        step.map(|(_, rate)| *rate).or(self.base)
    }

    /// The highest rate of calls that read at most `input` tokens.
    fn dearest(&self, input: u64) -> Option<Rate> {
        let above = self
            .above
            .iter()
            .filter(|(threshold, _)| input > *threshold);
        above.map(|(_, rate)| *rate).chain(self.base).max()
    }
}

/// All prices of a model that hold at one time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Card {
    prices: Vec<(Kind, Price)>,
    /// Whether the model is sold by what is not counted here: minutes, pages, characters.
    pub other_units: bool,
}

impl Card {
    /// Sets the usual rate of a kind.
    pub fn set(&mut self, kind: Kind, rate: Rate) {
        self.price(kind).base = Some(rate);
    }

    /// Sets the rate of calls that read more than `threshold` tokens. Where a kind has none,
    /// its usual rate holds for long contexts too.
    pub fn set_above(&mut self, threshold: u64, kind: Kind, rate: Rate) {
        let above = &mut self.price(kind).above;
        above.retain(|(other, _)| *other != threshold);
        above.push((threshold, rate));
        above.sort_unstable();
    }

    fn price(&mut self, kind: Kind) -> &mut Price {
        let known = self.prices.iter().position(|(other, _)| *other == kind);
        let at = known.unwrap_or_else(|| {
            self.prices.push((kind, Price::default()));
            self.prices.len() - 1
        });
        &mut self.prices[at].1
    }

    /// This card, with the prices of `others` for kinds that it has none of.
    pub fn or(mut self, others: &Self) -> Self {
        for (kind, price) in &others.prices {
            if !self.prices.iter().any(|(own, _)| own == kind) {
                self.prices.push((*kind, price.clone()));
            }
        }
        self.other_units |= others.other_units;
        self
    }

    /// What a call with this usage costs; `None` if nothing that was counted has a price and
    /// the model is sold by something else. A card without any price is that of a free model.
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        let mut total = Total::default();
        let mut priced = !self.other_units;
        for (kind, count) in counts(usage) {
            if let Some(rate) = self.rate(kind, usage.input).filter(|_| count > 0) {
                total.add(count, rate);
                priced = true;
            }
        }
        priced.then(|| total.cost())
    }

    /// The most that a call costs which reads and writes at most so many tokens, in whatever kinds,
    /// and makes no search; `None` if nothing of it has a price and the model is sold by something
    /// else.
    pub fn most(&self, input: u64, output: u64) -> Option<Cost> {
        if self.other_units && self.prices.is_empty() {
            return None;
        }
        let mut total = Total::default();
        for (group, count) in [
            (Group::Input, input),
            (Group::Output, output),
            (Group::Call, 1),
        ] {
            let rates = self.prices.iter().filter(|(kind, _)| kind.group() == group);
            let dearest = rates.filter_map(|(_, price)| price.dearest(input)).max();
            total.add(count, dearest.unwrap_or_default());
        }
        Some(total.cost())
    }

    /// Whether searches that the provider makes have a price of their own.
    pub fn sells_searches(&self) -> bool {
        let mut kinds = self.prices.iter();
        kinds.any(|(kind, _)| *kind == Kind::WebSearch)
    }

    fn rate(&self, kind: Kind, input: u64) -> Option<Rate> {
        let own = |kind| {
            let price = self.prices.iter().find(|(other, _)| *other == kind);
            price.and_then(|(_, price)| price.at(input))
        };
        own(kind).or_else(|| kind.wholes().iter().find_map(|whole| own(*whole)))
    }
}

/// What was counted, each once. Which of the cached tokens were of images is not reported:
/// images count as fresh as long as there are fresh tokens left.
fn counts(usage: &Usage) -> [(Kind, u64); 13] {
    let mut input = Whole(usage.input);
    let cached_audio = input.take(usage.cached_audio.min(usage.cached_input));
    let cached = input.take(usage.cached_input.saturating_sub(cached_audio));
    let written_1h = input.take(usage.cache_write_1h.min(usage.cache_write));
    let written = input.take(usage.cache_write.saturating_sub(written_1h));
    let audio = input.take(usage.input_audio.saturating_sub(cached_audio));
    let image = input.take(usage.input_image);
    let mut output = Whole(usage.output);
    let audio_out = output.take(usage.output_audio);
    let image_out = output.take(usage.output_image);
    let reasoning = output.take(usage.reasoning);
    [
        (Kind::Input, input.0),
        (Kind::CachedInput, cached),
        (Kind::CacheWrite, written),
        (Kind::CacheWrite1h, written_1h),
        (Kind::InputAudio, audio),
        (Kind::CachedAudio, cached_audio),
        (Kind::InputImage, image),
        (Kind::Output, output.0),
        (Kind::Reasoning, reasoning),
        (Kind::OutputAudio, audio_out),
        (Kind::OutputImage, image_out),
        (Kind::WebSearch, usage.web_searches),
        (Kind::Request, 1),
    ]
}

/// What is left of a count while its parts are taken away.
struct Whole(u64);

impl Whole {
    fn take(&mut self, part: u64) -> u64 {
        let part = part.min(self.0);
        self.0 -= part;
        part
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pricing::money::parse_rate;

    fn card(rates: &[(Kind, &str)]) -> Card {
        let mut card = Card::default();
        for (kind, rate) in rates {
            card.set(*kind, parse_rate(rate).unwrap());
        }
        card
    }

    /// One token of every part, two of what is in none.
    fn all() -> Usage {
        Usage {
            input: 8,
            cached_input: 2,
            cached_audio: 1,
            cache_write: 2,
            cache_write_1h: 1,
            input_audio: 2,
            input_image: 1,
            output: 5,
            reasoning: 1,
            output_audio: 1,
            output_image: 1,
            web_searches: 3,
        }
    }

    #[test]
    fn every_token_is_priced_once_by_its_own_rate() {
        let rates = [
            (Kind::Input, "1"),
            (Kind::CachedInput, "10"),
            (Kind::CachedAudio, "100"),
            (Kind::CacheWrite, "1000"),
            (Kind::CacheWrite1h, "10000"),
            (Kind::InputAudio, "100000"),
            (Kind::InputImage, "1000000"),
        ];
        // 2 of text, one of each other
        let input = 2 + 10 + 100 + 1000 + 10_000 + 100_000 + 1_000_000;
        assert_eq!(card(&rates).cost(&all()), Some(Cost(input * 1_000_000)));
        let rates = [
            (Kind::Output, "1"),
            (Kind::Reasoning, "10"),
            (Kind::OutputAudio, "100"),
            (Kind::OutputImage, "1000"),
            (Kind::WebSearch, "10000"),
            (Kind::Request, "100000"),
        ];
        let output = 2 + 10 + 100 + 1000 + 3 * 10_000 + 100_000;
        assert_eq!(card(&rates).cost(&all()), Some(Cost(output * 1_000_000)));
    }

    #[test]
    fn a_part_without_a_rate_costs_what_its_whole_costs() {
        let cost = |rates: &[(Kind, &str)]| card(rates).cost(&all()).unwrap().0 / 1_000_000;
        assert_eq!(cost(&[(Kind::Input, "1"), (Kind::Output, "100")]), 508);
        // Cached audio is cached: 2 at 10, 6 at 1.
        assert_eq!(cost(&[(Kind::Input, "1"), (Kind::CachedInput, "10")]), 26);
        // Written for an hour is written.
        assert_eq!(cost(&[(Kind::Input, "1"), (Kind::CacheWrite, "10")]), 26);
        // Where nothing says that cached is cheaper, cached audio is audio: 2 at 10, 6 at 1.
        assert_eq!(cost(&[(Kind::Input, "1"), (Kind::InputAudio, "10")]), 26);
    }

    #[test]
    fn contradictions_price_no_token_twice() {
        let usage = Usage {
            input: 3,
            cached_input: 10,
            cache_write: 10,
            cached_audio: 20,
            input_audio: 5,
            output: 2,
            reasoning: 10,
            ..Usage::default()
        };
        let card = card(&[(Kind::Input, "1"), (Kind::Output, "1")]);
        assert_eq!(card.cost(&usage), Some(Cost(5_000_000)));
    }

    #[test]
    fn a_long_context_reprices_the_whole_call() {
        let mut card = card(&[(Kind::Input, "1"), (Kind::Output, "10")]);
        card.set_above(200, Kind::Input, parse_rate("3").unwrap());
        card.set_above(100, Kind::Input, parse_rate("2").unwrap());
        card.set_above(100, Kind::Output, parse_rate("20").unwrap());
        // At the threshold the lower rate still holds; the output's holds on above the second.
        for (input, dollars) in [(100, 110), (101, 222), (200, 420), (201, 623)] {
            let usage = Usage {
                input,
                output: 1,
                ..Usage::default()
            };
            assert_eq!(
                card.cost(&usage),
                Some(Cost(dollars * 1_000_000)),
                "{input}"
            );
        }
    }

    #[test]
    fn what_is_sold_by_other_units_has_no_price_by_tokens() {
        let mut card = Card::default();
        assert_eq!(card.cost(&all()), Some(Cost::ZERO)); // free
        card.other_units = true;
        assert_eq!(card.cost(&all()), None);
        card.set(Kind::Output, parse_rate("1").unwrap());
        assert_eq!(card.cost(&all()), Some(Cost(5_000_000)));
    }
}
