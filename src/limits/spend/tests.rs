//! Budgets as a whole.

mod budgets;
mod durable;
mod overlap;
mod settling;
mod threads;
mod windows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::config::schema::{SpendAction, Unpriced};
use crate::limits::facts::Facts;
use crate::metadata::{Metadata, Value};
use crate::pricing::Cost;

/// A midnight: windows of whole days and hours begin here.
const MIDNIGHT: u64 = 1_800_000_000 / 86_400 * 86_400;

pub(super) fn after(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(MIDNIGHT + seconds)
}

pub(super) fn dollars(text: &str) -> Cost {
    Cost::parse(text).unwrap()
}

pub(super) fn filter(values: &[&str]) -> Select {
    Select::Filter(values.iter().map(|value| Box::from(*value)).collect())
}

pub(super) fn metadata(entries: &[(&str, &str)]) -> Metadata {
    let entry = |(key, text): &(&str, &str)| (Box::from(*key), Value::Text(Box::from(*text)));
    entries.iter().map(entry).collect()
}

/// So many dollars a day, fixed.
pub(super) fn rule(id: &str, limit: &str, selection: Vec<(Field, Select)>) -> Rule {
    Rule {
        id: id.into(),
        limit: dollars(limit),
        window: Window::Fixed(86_400),
        selection: selection.into(),
        assume_output: None,
        strict: false,
        unpriced: Unpriced::Allow,
        action: SpendAction::Block,
    }
}

pub(super) fn scope() -> Scope {
    Scope::Gateway("a/g".into())
}

/// What a call of anybody's is.
pub(super) fn facts(said: &Metadata) -> Facts<'_> {
    Facts {
        provider: Some("openai"),
        model: Some("gpt-4o"),
        key: Some("ci"),
        ..Facts::of(said)
    }
}

/// Sets aside what a call could cost by these rules.
pub(super) fn reserve(
    budgets: &Budgets,
    rules: &[&Rule],
    cost: Cost,
    now: SystemTime,
) -> Result<Reservation, Box<Exceeded>> {
    reserve_for(budgets, rules, &Metadata::new(), cost, now)
}

pub(super) fn reserve_for(
    budgets: &Budgets,
    rules: &[&Rule],
    said: &Metadata,
    cost: Cost,
    now: SystemTime,
) -> Result<Reservation, Box<Exceeded>> {
    let scope = scope();
    let asks = rules.iter().map(|rule| Ask {
        scope: &scope,
        rule,
        cost,
    });
    budgets.reserve(&asks.collect::<Vec<_>>(), &facts(said), now)
}

/// The account of a rule that has one.
pub(super) fn reading(budgets: &Budgets, rule: &str, now: SystemTime) -> Reading {
    let mut readings = budgets.readings(now).into_iter();
    readings.find(|reading| &*reading.rule == rule).unwrap()
}
