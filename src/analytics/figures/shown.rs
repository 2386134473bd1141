//! Figures as JSON.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Figures;
use super::counts::Counts;
use super::histogram::Histogram;

/// Pico-dollars of a dollar.
const DOLLAR: u128 = 1_000_000_000_000;

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.entries(&mut map)?;
        map.end()
    }
}

impl Figures {
    /// Adds all figures to an object.
    pub(in crate::analytics) fn entries<M: SerializeMap>(
        &self,
        map: &mut M,
    ) -> Result<(), M::Error> {
        // Exhaustive: a new figure does not compile until it is shown.
        let Self {
            requests,
            succeeded,
            streamed,
            attempts,
            fell_back,
            usage_estimated,
            unpriced,
            cost,
            saved,
            errors,
            cache,
            tokens,
            latency,
            ttft,
            overhead,
        } = self;
        map.serialize_entry("requests", requests)?;
        map.serialize_entry("succeeded", succeeded)?;
        map.serialize_entry("streamed", streamed)?;
        map.serialize_entry("errors", errors)?;
        map.serialize_entry("attempts", attempts)?;
        map.serialize_entry("fell_back", fell_back)?;
        map.serialize_entry("cache", cache)?;
        map.serialize_entry("tokens", tokens)?;
        map.serialize_entry("usage_estimated", usage_estimated)?;
        map.serialize_entry("unpriced", unpriced)?;
        map.serialize_entry("cost_usd", &Dollars(*cost))?;
        map.serialize_entry("saved_usd", &Dollars(*saved))?;
        map.serialize_entry("latency_ms", &Times::of(latency))?;
        map.serialize_entry("ttft_ms", &Times::of(ttft))?;
        map.serialize_entry("overhead_ms", &Times::of(overhead))
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

/// Pico-dollars, shown as dollars with every digit.
struct Dollars(u128);

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (dollars, pico) = (self.0 / DOLLAR, self.0 % DOLLAR);
        let text = match pico {
            0 => dollars.to_string(),
            _ => format!("{dollars}.{pico:012}")
                .trim_end_matches('0')
                .to_owned(),
        };
        // As text it is exact; through a floating-point number it would not be.
        RawValue::from_string(text)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// What is told of durations, in milliseconds.
#[derive(Serialize)]
struct Times {
    count: u64,
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Times {
    /// `None` without samples.
    fn of(histogram: &Histogram) -> Option<Self> {
        let percentile = |percent| to_nanoseconds(histogram.percentile(percent));
        let count = histogram.count();
        (count > 0).then(|| Self {
            count,
            mean: to_nanoseconds(histogram.mean()),
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
        })
    }
}

/// Milliseconds without digits below a nanosecond, which mean nothing.
fn to_nanoseconds(milliseconds: f64) -> f64 {
    (milliseconds * 1e6).round() / 1e6
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::Sample;
    use super::super::words::Name;
    use super::*;

    #[test]
    fn figures_are_shown_as_the_contract_has_them() {
        let mut figures = Figures {
            requests: 3,
            succeeded: 2,
            cost: 10_000_000_000_000_000_000_000_000_000_001,
            ..Figures::default()
        };
        let error = Name::of_pair("provider", "provider_429");
        figures.errors.count(&error, 1);
        figures.cache.count(&Name::of("hit"), 1);
        figures.tokens.count(&Name::of("input_tokens"), 70);
        figures.latency.record(Sample::of(Duration::from_nanos(15)));
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            concat!(
                r#"{"requests":3,"succeeded":2,"streamed":0,"errors":{"provider:provider_429":1},"#,
                r#""attempts":0,"fell_back":0,"cache":{"hit":1},"tokens":{"input_tokens":70},"#,
                r#""usage_estimated":0,"unpriced":0,"cost_usd":10000000000000000000.000000000001,"#,
                r#""saved_usd":0,"latency_ms":{"count":1,"mean":0.000015,"p50":0.000015,"#,
                r#""p95":0.000015,"p99":0.000015},"ttft_ms":null,"overhead_ms":null}"#
            )
        );
    }

    #[test]
    fn dollars_have_every_digit_and_no_more() {
        for (pico, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (150_000, "0.00000015"),
            (12_500_000_000_000, "12.5"),
        ] {
            assert_eq!(serde_json::to_string(&Dollars(pico)).unwrap(), text);
        }
    }
}
