//! What calls cost: usage times price, exact to the pico-dollar.
//!
//! Prices come from three places: the request's own header ([`CustomCost`]), the
//! configuration ([`Override`]), and the catalogue of public prices ([`Catalogue`]). Nothing
//! is guessed: what none of them knows has no price. What a call would have cost that the
//! response cache answered is the price of the usage that was stored with it.
//!
//! Not priced: what is sold by minutes, characters, pages or images, as usage does not count
//! them; storage of caches by the hour; discounts, minimums, taxes.

mod bill;
mod catalogue;
mod custom;
mod money;
mod overrides;
mod rates;
mod source;
mod spellings;

use std::sync::Arc;
use std::time::SystemTime;

use crate::usage::{ServiceTier, Usage};

pub use bill::{Bill, Sale};
pub use catalogue::Catalogue;
pub use custom::{CacheRates, CustomCost};
pub use money::{Cost, Rate, parse_rate};
pub use overrides::Override;
pub use rates::{Card, Kind};

/// Where the cost of a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostSource {
    /// The public prices.
    Catalogue,
    /// The prices of the configuration.
    Override,
    /// The prices that the request brought along.
    Custom,
    /// None: the answer came from the response cache.
    Cached,
    /// None: nobody knows the price.
    Unpriced,
}

impl CostSource {
    /// As logs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::Override => "override",
            Self::Custom => "custom",
            Self::Cached => "cached",
            Self::Unpriced => "unpriced",
        }
    }
}

/// All prices of one configuration: those of the catalogue, and what it says over them.
#[derive(Debug, Default)]
pub struct Prices {
    /// The first that covers a model counts.
    pub overrides: Vec<Override>,
}

/// Whose answer it was.
#[derive(Debug, Clone, Copy)]
pub struct Seller<'a> {
    /// The provider's slug.
    pub provider: &'a str,
    /// Its id in the catalogue; without it only overrides have prices for it.
    pub id: Option<&'a str>,
    /// What the model may be called, the most telling name first.
    pub models: &'a [&'a str],
}

impl Prices {
    /// What a call with this usage cost at a time; `None` if nobody knows. An override of any of
    /// the model's names goes before the catalogue.
    pub fn price(
        &self,
        seller: Seller<'_>,
        usage: &Usage,
        tier: ServiceTier,
        at: SystemTime,
    ) -> Option<(Cost, CostSource)> {
        if let Some(own) = self.own(seller) {
            return Some((own.card.cost(usage)?, CostSource::Override));
        }
        let card = seller.card(tier, at)?;
        Some((card.cost(usage)?, CostSource::Catalogue))
    }

    /// The most that a call can cost which reads at most `input` tokens and writes at most `output`,
    /// of whatever kinds and in whatever class of service it is answered; `None` if nobody knows its
    /// price. Searches that the provider makes come on top, and so does another price of a model
    /// that answers under another name.
    pub fn most(
        &self,
        seller: Seller<'_>,
        input: u64,
        output: u64,
        at: SystemTime,
    ) -> Option<Cost> {
        self.scale(seller, at).most(input, output)
    }

    /// All by which a call may be priced, whatever class of service it is answered in: looked up once
    /// for several questions.
    pub fn scale(&self, seller: Seller<'_>, at: SystemTime) -> Scale {
        if let Some(own) = self.own(seller) {
            return Scale([own.card.clone()].into());
        }
        let catalogue = Catalogue::bundled();
        let cards = |model: &&str| catalogue.cards(seller.id?, model, at);
        let found = seller.models.iter().find_map(cards);
        Scale(found.unwrap_or_else(|| [].into()))
    }

    /// The most tokens that a model can write, as far as the catalogue knows: as many as fit into
    /// its context.
    pub fn most_output(&self, seller: Seller<'_>) -> Option<u64> {
        let catalogue = Catalogue::bundled();
        let context = |model: &&str| catalogue.context(seller.id?, model);
        seller.models.iter().find_map(context)
    }

    /// What the configuration says of the model.
    fn own(&self, seller: Seller<'_>) -> Option<&Override> {
        let Seller {
            provider, models, ..
        } = seller;
        let covers = |own: &&Override| models.iter().any(|model| own.covers(provider, model));
        self.overrides.iter().find(covers)
    }
}

/// All by which a call may be priced.
pub struct Scale(Arc<[Card]>);

impl Scale {
    /// The most that so many tokens can cost; `None` if nobody knows.
    pub fn most(&self, input: u64, output: u64) -> Option<Cost> {
        let cards = self.0.iter();
        cards.filter_map(|card| card.most(input, output)).max()
    }

    /// Whether searches that the provider makes come on top.
    pub fn sells_searches(&self) -> bool {
        self.0.iter().any(Card::sells_searches)
    }
}

impl Seller<'_> {
    /// The catalogue's prices of the first model that it knows.
    fn card(&self, tier: ServiceTier, at: SystemTime) -> Option<Card> {
        let catalogue = Catalogue::bundled();
        let card = |model: &&str| catalogue.card(self.id?, model, tier, at);
        self.models.iter().find_map(card)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
