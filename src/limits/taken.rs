//! What requests took, counted with the rules that are about them, when it is known.

use std::time::SystemTime;

use super::facts::Facts;
use super::rate;
use crate::call;
use crate::config::schema::Counted;
use crate::record::RequestRecord;
use crate::usage::Usage;

/// Counts the tokens of a request that is over. Answers that no provider was asked for took none.
pub fn count(record: &RequestRecord, now: SystemTime) {
    let Some(usage) = record
        .spent
        .usage
        .as_ref()
        .filter(|_| record.cache.from.is_none())
    else {
        return;
    };
    let model = record.model.as_deref().map(call::decoded);
    let facts = facts(record, model.as_deref());
    let gateway = record.gateway.iter().map(|gateway| &gateway.bounds);
    let key = record.consumer.iter().map(|consumer| &consumer.bounds);
    for rule in gateway.chain(key).flat_map(|bounds| &bounds.rates) {
        let amount = tokens(rule.counted, usage);
        if amount > 0 {
            rate::count(rule, &facts, amount, now);
        }
    }
}

fn tokens(counted: Counted, usage: &Usage) -> u64 {
    match counted {
        Counted::InputTokens => usage.input,
        Counted::OutputTokens => usage.output,
        Counted::TotalTokens => usage.input.saturating_add(usage.output),
        Counted::Requests | Counted::Concurrent => 0,
    }
}

fn facts<'a>(record: &'a RequestRecord, model: Option<&'a str>) -> Facts<'a> {
    let provider = record.provider.as_ref();
    let facts = Facts {
        gateway: record.gateway_label(),
        provider: provider.map(|mounted| &*mounted.provider.slug),
        model,
        address: record.client.map(|client| client.ip()),
        ..Facts::of(&record.metadata)
    };
    facts.from(record.consumer.as_deref())
}
