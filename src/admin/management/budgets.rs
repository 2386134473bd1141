//! `…/gateways/{gateway}/budgets` and `/-/budgets`: what is left of [budgets](crate::limits::spend);
//! of all, those of API keys are among them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Admin, Answer, done};
use crate::gateway::{Gateway, Snapshot};
use crate::limits::spend::{Budgets, Reading, Scope};
use crate::logs::times;
use crate::pricing::Cost;

/// Answers for the gateway that is called so, or for all.
pub async fn answer(admin: &Admin, snapshot: &Snapshot, label: Option<&str>) -> Answer {
    // What has only just ended is settled.
    admin.ledger.caught_up().await;
    let readings = readings(&admin.budgets, snapshot, label, SystemTime::now());
    done(&readings.iter().map(shown).collect())
}

/// Accounts that were used, and those of rules that have one account and were not.
fn readings(
    budgets: &Budgets,
    snapshot: &Snapshot,
    label: Option<&str>,
    now: SystemTime,
) -> Vec<Reading> {
    let used = match label {
        Some(label) => budgets.readings_in(&Scope::Gateway(label.into()), now),
        None => budgets.readings(now),
    };
    let gateways = snapshot
        .accounts
        .values()
        .flat_map(|account| account.values());
    let asked = gateways.filter(|gateway| label.is_none_or(|label| *gateway.label == *label));
    let untouched = asked.flat_map(|gateway| untouched(gateway, now));
    let name = |reading: &Reading| {
        (
            reading.scope.clone(),
            reading.rule.clone(),
            reading.partition.clone(),
        )
    };
    let all = untouched
        .chain(used)
        .map(|reading| (name(&reading), reading));
    let all: BTreeMap<_, _> = all.collect();
    all.into_values().collect()
}

fn untouched(gateway: &Gateway, now: SystemTime) -> impl Iterator<Item = Reading> {
    let bounds = &gateway.bounds;
    let rules = bounds.spends.iter().filter(|rule| !rule.is_partitioned());
    rules.map(move |rule| Reading::untouched(&bounds.scope, rule, now))
}

fn shown(reading: &Reading) -> Value {
    let Reading {
        scope,
        rule,
        partition,
        limit,
        window,
        spent,
        reserved,
        remaining,
        ends,
    } = reading;
    let kind = match scope {
        Scope::Gateway(_) => "gateway",
        Scope::Key(_) => "key",
    };
    let values = partition.iter();
    let values: Map<String, Value> = values
        .map(|(field, value)| (field.to_string(), (**value).into()))
        .collect();
    json!({
        kind: scope.name(),
        "id": rule,
        "partition": values,
        "limit": dollars(*limit),
        "window": window.word(),
        "spent": dollars(*spent),
        "reserved": dollars(*reserved),
        "remaining": dollars(*remaining),
        "ends_at": times::shown(times::milliseconds(*ends)),
    })
}

/// As a number: what comes nearest to the exact one.
fn dollars(cost: Cost) -> Value {
    let number = cost.to_string().parse::<f64>();
    number.map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_a_number() {
        assert_eq!(dollars(Cost(9_123_456_789_012)), json!(9.123_456_789_012));
        assert_eq!(dollars(Cost::ZERO), json!(0.0));
    }
}
