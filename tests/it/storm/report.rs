//! The figures of a storm, for people.

use std::collections::BTreeMap;

use super::judge::{Break, Outcome};
use super::ledger::Ledger;

/// Prints what happened.
pub fn print(ledger: &Ledger<'_>) {
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for told in ledger.told.values() {
        *outcomes.entry(name(&told.outcome)).or_default() += 1;
    }
    let again = ledger.told.values().filter(|told| told.again).count();
    println!(
        "{} requests, {again} of them sent again: {outcomes:?}",
        ledger.told.len()
    );
    let costs = ledger.journal.lines.values().filter_map(|line| line.cost);
    println!(
        "{} lines, {} entries in the log store, {:.6} dollars",
        ledger.journal.lines.len(),
        ledger.stores.len(),
        costs.sum::<u64>() as f64 / 1e12
    );
    for state in ledger.providers {
        let tally = &state.tally;
        println!("{}: {:?}", state.who.name(), state.acts());
        println!(
            "    {:?} bodies whole and {:?} cut, {:?} absences, {:?} pauses",
            tally.whole_bodies, tally.cut_bodies, tally.absences, tally.pauses
        );
    }
    for attempts in ledger.attempts() {
        println!(
            "{}: {} attempts = {} heads + {} connections without one + {} refused + {} unknown",
            attempts.provider,
            attempts.counted,
            attempts.heads,
            attempts.headless,
            attempts.refused,
            attempts.unknown()
        );
    }
    for (what, count) in &ledger.journal.others {
        println!("log: {count} x {what}");
    }
}

fn name(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Whole(status) => format!("whole {}xx", status / 100),
        Outcome::Refused(status, _) => format!("refused {status}"),
        Outcome::Broken(_, Break::Event) => "broken by an event".to_owned(),
        Outcome::Broken(_, Break::Framing) => "broken framing".to_owned(),
        Outcome::Reset => "reset before the head".to_owned(),
        Outcome::Left(_) => "left".to_owned(),
        Outcome::Wrong(_) => "wrong".to_owned(),
    }
}
