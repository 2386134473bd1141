//! Count, minima and maxima of all that pass a filter.

use serde::Serialize;

/// Smallest and largest of all that pass the filter. Durations are milliseconds, cost dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // the names of the API
pub struct Range {
    pub min_cost: Option<f64>,
    pub max_cost: Option<f64>,
    pub min_duration: Option<f64>,
    pub max_duration: Option<f64>,
    pub min_tokens_in: Option<f64>,
    pub max_tokens_in: Option<f64>,
    pub min_tokens_out: Option<f64>,
    pub max_tokens_out: Option<f64>,
    pub min_total_tokens: Option<f64>,
    pub max_total_tokens: Option<f64>,
}

/// Smallest and largest so far, in the store's units: cost, duration, input, output, both.
#[derive(Debug, Default)]
pub struct Totals {
    /// Rows.
    pub count: u64,
    ranges: [Option<(i64, i64)>; 5],
}

impl Totals {
    /// Takes a row: cost, duration, input, output.
    pub fn add(&mut self, [cost, duration, input, output]: [Option<i64>; 4]) {
        let both = input
            .or(output)
            .map(|_| input.unwrap_or(0) + output.unwrap_or(0));
        for (range, value) in self
            .ranges
            .iter_mut()
            .zip([cost, duration, input, output, both])
        {
            let Some(value) = value else { continue };
            let (least, most) = range.unwrap_or((value, value));
            *range = Some((least.min(value), most.max(value)));
        }
    }

    #[allow(clippy::cast_precision_loss)] // as the API shows them
    /// As the API shows them.
    pub fn range(&self) -> Range {
        let of = |at: usize, unit: f64| {
            let range = self.ranges[at];
            let shown = |value: i64| value as f64 / unit;
            (
                range.map(|(least, _)| shown(least)),
                range.map(|(_, most)| shown(most)),
            )
        };
        let (min_cost, max_cost) = of(0, 1e12);
        let (min_duration, max_duration) = of(1, 1e3);
        let (min_tokens_in, max_tokens_in) = of(2, 1.0);
        let (min_tokens_out, max_tokens_out) = of(3, 1.0);
        let (min_total_tokens, max_total_tokens) = of(4, 1.0);
        Range {
            min_cost,
            max_cost,
            min_duration,
            max_duration,
            min_tokens_in,
            max_tokens_in,
            min_tokens_out,
            max_tokens_out,
            min_total_tokens,
            max_total_tokens,
        }
    }
}
