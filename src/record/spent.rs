//! What a request took of a provider, and what that cost.

use super::Value;
use crate::pricing::{Cost, CostSource};
use crate::usage::{Form, ServiceTier, Usage};

/// What a request took of a provider, and what that cost.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// Tokens that the provider counted, or an estimate; those of a stored answer where one was
    /// given. `None` where nothing is known.
    pub usage: Option<Usage>,
    /// The provider did not say: the tokens are estimated.
    pub is_estimate: bool,
    /// How the answer came that did not say; `None` for one that did.
    pub untold: Option<Form>,
    /// The service class that the provider says it gave.
    pub tier: ServiceTier,
    /// The model that the answer names.
    pub model: Option<Box<str>>,
    /// What it cost; `None` where no price is known.
    pub cost: Option<Cost>,
    /// Where the price is from; `None` where there was nothing to price.
    pub source: Option<CostSource>,
    /// What the provider would have charged for an answer that it was not asked for.
    pub saved: Option<Cost>,
}

impl Spent {
    /// Its facts by name; counts of zero are left out, but for input and output.
    pub fn fields(&self, write: &mut impl FnMut(&'static str, Value<'_>)) {
        let Self {
            usage,
            is_estimate,
            untold: _, // for budgets
            tier,
            model,
            cost,
            source,
            saved,
        } = self;
        if let Some(usage) = usage {
            for (kind, tokens) in usage.by_kind() {
                if tokens > 0 || matches!(kind, "input_tokens" | "output_tokens") {
                    write(kind, Value::Number(tokens));
                }
            }
        }
        if *is_estimate {
            write("usage_estimated", Value::Flag(true));
        }
        if *tier != ServiceTier::Standard {
            write("service_tier", Value::Text(tier.name().into()));
        }
        model
            .as_deref()
            .inspect(|model| write("answer_model", Value::Text((*model).into())));
        cost.inspect(|cost| write("cost_usd", Value::Dollars(*cost)));
        saved.inspect(|saved| write("saved_usd", Value::Dollars(*saved)));
        source.inspect(|source| write("cost_source", Value::Text(source.name().into())));
    }
}
