//! What one answer cost and saved: the only place where that is decided, for requests that end
//! and for stored entries that are priced again.

use std::time::SystemTime;

use super::{Cost, CostSource, CustomCost, Prices, Seller};
use crate::usage::{ServiceTier, Usage};

/// All that a price depends on but the tokens and the price lists.
#[derive(Debug, Clone, Copy)]
pub struct Sale<'a> {
    /// The provider's slug.
    pub provider: &'a str,
    /// Its id in the catalogue; without it only overrides have prices for it.
    pub id: Option<&'a str>,
    /// The model that answered, where the answer names one.
    pub answered: Option<&'a str>,
    /// The model that was asked for.
    pub asked: Option<&'a str>,
    /// The class of service that was given.
    pub tier: ServiceTier,
    /// When it was asked for.
    pub at: SystemTime,
}

/// What an answer cost and saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// What it cost; `None` if nobody knows.
    pub cost: Option<Cost>,
    /// Where that is from.
    pub source: CostSource,
    /// What a stored answer would have cost; `None` for others, and if nobody knows.
    pub saved: Option<Cost>,
}

impl Prices {
    /// An answer that the provider gave. The client's own price goes before all lists. Who nobody
    /// knows sells at no price.
    pub fn bought(
        &self,
        sale: Option<Sale<'_>>,
        usage: &Usage,
        custom: Option<&CustomCost>,
    ) -> Bill {
        let by_list = || sale.and_then(|sale| self.by_list(sale, usage));
        let custom = custom.map(|custom| (custom.cost(usage), CostSource::Custom));
        let (cost, source) = match custom.or_else(by_list) {
            Some((cost, source)) => (Some(cost), source),
            None => (None, CostSource::Unpriced),
        };
        Bill {
            cost,
            source,
            saved: None,
        }
    }

    /// An answer that the provider was not asked for: it costs nothing, and saves what it would
    /// have cost by the lists.
    pub fn given_again(&self, sale: Option<Sale<'_>>, usage: Option<&Usage>) -> Bill {
        let price = sale
            .zip(usage)
            .and_then(|(sale, usage)| self.by_list(sale, usage));
        Bill {
            cost: Some(Cost::ZERO),
            source: CostSource::Cached,
            saved: price.map(|(cost, _)| cost),
        }
    }

    /// By the model that answered, or else by the one that was asked for: names of deployments
    /// are in no list, and some answers name a file.
    fn by_list(&self, sale: Sale<'_>, usage: &Usage) -> Option<(Cost, CostSource)> {
        let Sale {
            provider,
            id,
            answered,
            asked,
            tier,
            at,
        } = sale;
        let models: Vec<_> = [answered, asked].into_iter().flatten().collect();
        let seller = Seller {
            provider,
            id,
            models: &models,
        };
        self.price(seller, usage, tier, at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sale<'a>(provider: &'a str, asked: &'a str) -> Option<Sale<'a>> {
        Some(Sale {
            provider,
            id: Some(provider),
            answered: Some("a-file.gguf"),
            asked: Some(asked),
            tier: ServiceTier::Standard,
            at: SystemTime::UNIX_EPOCH,
        })
    }

    fn usage() -> Usage {
        Usage {
            input: 1000,
            output: 100,
            ..Usage::default()
        }
    }

    #[test]
    fn every_source_has_its_bill() {
        let prices = Prices::default();
        let known = sale("openai", "gpt-4o-mini");
        let listed = prices.bought(known, &usage(), None);
        // 1,000 at 0.15 and 100 at 0.60 dollars for a million.
        let cost = Some(Cost(210_000_000));
        assert_eq!(
            (listed.cost, listed.source, listed.saved),
            (cost, CostSource::Catalogue, None)
        );
        let custom = CustomCost::parse(r#"{"total_cost":0.5}"#).unwrap();
        let own = prices.bought(known, &usage(), Some(&custom));
        assert_eq!(
            (own.cost, own.source),
            (Some(Cost(500_000_000_000)), CostSource::Custom)
        );
        for unknown in [sale("openai", "nobody's"), sale("nobody", "x"), None] {
            let bill = prices.bought(unknown, &usage(), None);
            assert_eq!((bill.cost, bill.source), (None, CostSource::Unpriced));
            let hit = prices.given_again(unknown, Some(&usage()));
            assert_eq!((hit.cost, hit.saved), (Some(Cost::ZERO), None));
        }
        let hit = prices.given_again(known, Some(&usage()));
        assert_eq!(
            (hit.cost, hit.source, hit.saved),
            (Some(Cost::ZERO), CostSource::Cached, cost)
        );
        assert_eq!(prices.given_again(known, None).saved, None);
    }
}
