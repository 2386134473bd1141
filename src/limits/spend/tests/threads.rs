//! What many calls at once do.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Each call sets aside ten times what it costs.
const COST: u64 = 7;

#[test]
fn many_threads_spend_exactly_what_there_is() {
    let budgets = Budgets::in_memory();
    let limit = Cost(COST * 10_000);
    let rules = ["one", "two", "three"].map(|id| Rule {
        limit,
        ..rule(id, "1", vec![])
    });
    let spent = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for thread in 0..16 {
            let (budgets, rules, spent) = (&budgets, &rules, &spent);
            threads.spawn(move || {
                let mut order: Vec<_> = rules.iter().collect();
                order.rotate_left(thread % 3);
                while let Ok(held) = reserve(budgets, &order, Cost(COST), after(0)) {
                    let more = reserve(budgets, &order[..1], Cost(COST * 9), after(0));
                    assert!(spent.load(Ordering::SeqCst) <= limit.0);
                    drop(more);
                    // Booked here first: it is never less than what was spent.
                    spent.fetch_add(COST, Ordering::SeqCst);
                    held.settle(Cost(COST), after(0));
                }
            });
        }
    });
    // Those who gave up saw what others had set aside and gave back; the rest is still there.
    while let Ok(held) = reserve(
        &budgets,
        &[&rules[0], &rules[1], &rules[2]],
        Cost(COST),
        after(0),
    ) {
        spent.fetch_add(COST, Ordering::SeqCst);
        held.settle(Cost(COST), after(0));
    }
    assert_eq!(spent.into_inner(), limit.0);
    for rule in &rules {
        let look = reading(&budgets, &rule.id, after(0));
        assert_eq!((look.spent, look.reserved), (limit, Cost::ZERO));
    }
}

#[test]
fn of_many_calls_at_once_as_many_pass_as_have_room() {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let held = std::thread::scope(|threads| {
        let ask = || reserve(&budgets, &[&day], dollars("0.07"), after(0)).ok();
        let calls: Vec<_> = (0..64).map(|_| threads.spawn(ask)).collect();
        let held = calls.into_iter().filter_map(|call| call.join().unwrap());
        held.collect::<Vec<_>>()
    });
    assert_eq!(held.len(), 14);
}

#[test]
fn accounts_are_made_and_forgotten_while_they_are_used() {
    let budgets = Budgets::with_at_most(64);
    let user = Field::Metadata("user".into());
    let per_user = rule("per-user", "1", vec![(user, Select::Partition)]);
    let spent = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for thread in 0..8_u64 {
            let (budgets, per_user, spent) = (&budgets, &per_user, &spent);
            threads.spawn(move || {
                for number in 0..2_000 {
                    let user = ((number * 31 + thread) % 97).to_string();
                    let said = metadata(&[("user", &user)]);
                    let held = reserve_for(budgets, &[per_user], &said, Cost(COST), after(number));
                    if let Ok(held) = held
                        && number % 16 == 0
                    {
                        held.settle(Cost(COST), after(number));
                        spent.fetch_add(COST, Ordering::SeqCst);
                    }
                    if number % 64 == 0 {
                        budgets.sweep(after(number));
                    }
                }
            });
        }
    });
    let readings = budgets.readings(after(2_000));
    let counted: u64 = readings.iter().map(|reading| reading.spent.0).sum();
    assert_eq!(counted, spent.into_inner());
    assert!(
        readings
            .iter()
            .all(|reading| reading.reserved == Cost::ZERO)
    );
}

#[test]
fn a_reservation_goes_wherever_its_call_goes() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<Reservation>();
    goes::<Budgets>();
    assert!(size_of::<Reservation>() <= 32);
}
