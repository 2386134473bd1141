//! What requests took, counted with the rules that are about them, when it is known.

use std::time::SystemTime;

use super::rate::{self, Facts};
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
    let consumer = record.consumer.as_ref();
    let provider = record.provider.as_ref();
    Facts {
        gateway: record.gateway_label(),
        key: consumer.map(|consumer| consumer.identity()),
        owner: consumer.and_then(|consumer| consumer.owner.as_deref()),
        provider: provider.map(|mounted| &*mounted.provider.slug),
        model,
        address: record.client.map(|client| client.ip()),
        metadata: &record.metadata,
    }
}
