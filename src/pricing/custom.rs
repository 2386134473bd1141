//! What a client says its call costs: the JSON of the custom cost header.
//!
//! Cloudflare's documentation of custom costs is the contract:
//! <https://developers.cloudflare.com/ai-gateway/configuration/custom-costs/>

use serde::Deserialize;
use serde_json::value::RawValue;

use super::money::{Cost, Rate, Total};
use crate::usage::Usage;

/// Prices that one request brings along; they win over all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomCost {
    /// The whole call costs this, whatever its usage.
    Whole(Cost),
    /// A price per token.
    PerToken {
        /// Of tokens read.
        input: Rate,
        /// Of tokens written, thoughts included.
        output: Rate,
        /// Of tokens read from and put into the provider's prompt cache. `None`: the caches
        /// do not matter, all that was read costs `input`.
        cache: Option<CacheRates>,
    },
}

/// Prices per token of the provider's prompt cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRates {
    /// Of tokens read from it.
    pub read: Rate,
    /// Of tokens put into it, however long they are kept.
    pub write: Rate,
}

/// The header as written. Numbers stay text: `f64` would lose digits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    per_token_in: Option<&'a RawValue>,
    #[serde(borrow)]
    per_token_out: Option<&'a RawValue>,
    #[serde(borrow)]
    per_cache_read_token: Option<&'a RawValue>,
    #[serde(borrow)]
    per_cache_write_token: Option<&'a RawValue>,
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
}

impl CustomCost {
    /// Reads a JSON object of dollars: `per_token_in`, `per_token_out`,
    /// `per_cache_read_token`, `per_cache_write_token`, or `total_cost`, which wins over the
    /// others. Numbers may stand in quotes. A rate of input or output left out is 0; a cache
    /// rate left out is `per_token_in` where the other one is given.
    ///
    /// # Errors
    /// Says what is wrong: not such an object, an unknown key, no price in it, or a value
    /// that is no amount.
    pub fn parse(json: &str) -> Result<Self, String> {
        let written: Written = serde_json::from_str(json)
            .map_err(|error| format!("not a JSON object of costs in dollars: {error}"))?;
        if let Some(whole) = written.total_cost {
            return amount("total_cost", whole, Cost::parse).map(Self::Whole);
        }
        let rate = |key, value: Option<&RawValue>| {
            value
                .map(|value| amount(key, value, Rate::each))
                .transpose()
        };
        let input = rate("per_token_in", written.per_token_in)?;
        let output = rate("per_token_out", written.per_token_out)?;
        let read = rate("per_cache_read_token", written.per_cache_read_token)?;
        let write = rate("per_cache_write_token", written.per_cache_write_token)?;
        if [input, output, read, write] == [None; 4] {
            return Err("names no price: give per_token_in and per_token_out".into());
        }
        let input = input.unwrap_or_default();
        let cache = (read.is_some() || write.is_some()).then_some(CacheRates {
            read: read.unwrap_or(input),
            write: write.unwrap_or(input),
        });
        let output = output.unwrap_or_default();
        Ok(Self::PerToken {
            input,
            output,
            cache,
        })
    }

    /// The most that a call costs which reads and writes at most so many tokens.
    pub fn most(&self, input: u64, output: u64) -> Cost {
        let (read, write, cache) = match *self {
            Self::Whole(cost) => return cost,
            Self::PerToken {
                input,
                output,
                cache,
            } => (input, output, cache),
        };
        let cached = cache.map_or(read, |cache| cache.read.max(cache.write));
        let mut total = Total::default();
        total.add(input, read.max(cached));
        total.add(output, write);
        total.cost()
    }

    /// What a call with this usage costs.
    pub fn cost(&self, usage: &Usage) -> Cost {
        let (input, output, cache) = match *self {
            Self::Whole(cost) => return cost,
            Self::PerToken {
                input,
                output,
                cache,
            } => (input, output, cache),
        };
        let mut total = Total::default();
        total.add(usage.output, output);
        let mut fresh = usage.input;
        if let Some(cache) = cache {
            let read = usage.cached_input.min(fresh);
            let write = usage.cache_write.min(fresh - read);
            total.add(read, cache.read);
            total.add(write, cache.write);
            fresh -= read + write;
        }
        total.add(fresh, input);
        total.cost()
    }
}

fn amount<T>(
    key: &str,
    value: &RawValue,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, String> {
    parse(value.get().trim_matches('"')).map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            input: 1000,
            output: 50,
            cached_input: 600,
            cache_write: 200,
            ..Usage::default()
        }
    }

    fn cost(json: &str) -> u64 {
        CustomCost::parse(json).unwrap().cost(&usage()).0
    }

    #[test]
    fn no_cache_rate_ignores_the_caches() {
        // 1000 x 1,000,000 + 50 x 2,000,000 pico-dollars
        let json = r#"{"per_token_in":0.000001,"per_token_out":0.000002}"#;
        assert_eq!(cost(json), 1_100_000_000);
        assert_eq!(cost(r#"{"per_token_out":"2e-6"}"#), 100_000_000);
    }

    #[test]
    fn one_cache_rate_makes_the_other_the_input_rate() {
        // 200 fresh + 200 written at 1,000,000; 600 read at 100,000; 50 at 2,000,000
        let read =
            r#"{"per_token_in":0.000001,"per_token_out":0.000002,"per_cache_read_token":1e-7}"#;
        assert_eq!(cost(read), 560_000_000);
        // 200 fresh + 600 read at 1,000,000; 200 written at 1,250,000
        let write = r#"{"per_token_in":0.000001,"per_cache_write_token":0.00000125}"#;
        assert_eq!(cost(write), 1_050_000_000);
    }

    #[test]
    fn decimals_have_no_limit() {
        // 1000 x 0.0005 pico-dollars are half of one: up.
        let json = r#"{"per_token_in":0.0000000000000005000000000000000000000000000000}"#;
        assert_eq!(cost(json), 1);
        // 1000 x 0.1234567890123456789 pico-dollars
        let json = r#"{"per_token_in":0.0000000000001234567890123456789}"#;
        assert_eq!(cost(json), 123);
    }

    #[test]
    fn a_total_is_the_cost() {
        assert_eq!(cost(r#"{"total_cost":0.25}"#), 250_000_000_000);
        assert_eq!(cost(r#"{"total_cost":0,"per_token_in":1}"#), 0);
    }

    #[test]
    fn counts_that_contradict_each_other_price_no_token_twice() {
        let usage = Usage {
            input: 10,
            cached_input: 20,
            cache_write: 20,
            ..Usage::default()
        };
        let json = r#"{"per_token_in":1,"per_cache_read_token":0.5}"#;
        let cost = CustomCost::parse(json).unwrap().cost(&usage);
        assert_eq!(cost.to_string(), "5");
    }

    #[test]
    fn no_call_costs_more_than_the_most() {
        for json in [
            r#"{"per_token_in":0.5,"per_token_out":0.25}"#,
            r#"{"per_token_in":0.5,"per_cache_write_token":2}"#,
            r#"{"per_token_in":0.5,"per_cache_read_token":3,"per_cache_write_token":2}"#,
            r#"{"total_cost":7}"#,
        ] {
            let custom = CustomCost::parse(json).unwrap();
            assert!(custom.most(1000, 50) >= custom.cost(&usage()), "{json}");
            assert_eq!(
                custom.most(1000, 50),
                custom.most(1000, 50).max(custom.most(999, 49))
            );
        }
        let all_written = CustomCost::parse(r#"{"per_token_in":1,"per_cache_write_token":2}"#);
        assert_eq!(all_written.unwrap().most(10, 0).to_string(), "20");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (json, told) in [
            ("", "not a JSON object"),
            ("0.5", "not a JSON object"),
            ("{", "not a JSON object"),
            ("{}", "names no price"),
            (r#"{"per_token_in":null}"#, "names no price"),
            (r#"{"per_token_inn":1}"#, "unknown field `per_token_inn`"),
            (r#"{"per_token_in":-1}"#, "per_token_in: \"-1\" is negative"),
            (
                r#"{"per_token_out":true}"#,
                "per_token_out: \"true\" is not",
            ),
            (r#"{"per_token_in":{}}"#, "per_token_in: \"{}\" is not"),
            (r#"{"total_cost":"a"}"#, "total_cost: \"a\" is not"),
            (r#"{"per_token_in":1,"per_token_in":2}"#, "duplicate field"),
        ] {
            let error = CustomCost::parse(json).unwrap_err();
            assert!(error.contains(told), "{json}: {error}");
        }
    }
}
