//! What time does.

use super::*;

fn spend(budgets: &Budgets, rule: &Rule, cost: &str, now: SystemTime) -> bool {
    match reserve(budgets, &[rule], dollars(cost), now) {
        Ok(held) => {
            held.settle(dollars(cost), now);
            true
        }
        Err(_) => false,
    }
}

fn with(window: Window) -> Rule {
    Rule {
        window,
        ..rule("r", "1", vec![])
    }
}

#[test]
fn a_fixed_window_begins_anew() {
    let (budgets, hour) = (Budgets::in_memory(), with(Window::Fixed(3_600)));
    assert!(spend(&budgets, &hour, "1", after(0)));
    assert!(!spend(&budgets, &hour, "0.1", after(3_599)));
    assert_eq!(reading(&budgets, "r", after(3_600)).spent, Cost::ZERO);
    assert!(spend(&budgets, &hour, "1", after(3_600)));
    assert!(!spend(&budgets, &hour, "0.1", after(7_199)));
    assert!(spend(&budgets, &hour, "1", after(1_000_000)));
}

#[test]
fn a_month_begins_anew_on_its_first() {
    let month = with(Window::Calendar(window::Calendar::Month));
    let budgets = Budgets::in_memory();
    let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
    assert!(spend(&budgets, &month, "1", at("2028-02-01T00:00:00Z")));
    assert!(!spend(&budgets, &month, "0.1", at("2028-02-29T23:59:59Z")));
    assert!(spend(&budgets, &month, "1", at("2028-03-01T00:00:00Z")));
}

#[test]
fn what_is_set_aside_counts_until_it_is_settled_whatever_the_window() {
    let (budgets, hour) = (Budgets::in_memory(), with(Window::Fixed(3_600)));
    let held = reserve(&budgets, &[&hour], dollars("0.8"), after(3_599)).unwrap();
    assert!(!spend(&budgets, &hour, "0.3", after(3_600)));
    held.settle(dollars("0.6"), after(3_601));
    let look = reading(&budgets, "r", after(3_601));
    assert_eq!(
        (look.spent, look.remaining),
        (dollars("0.6"), dollars("0.4"))
    );
}

#[test]
fn a_sliding_window_forgets_by_and_by() {
    let (budgets, hour) = (Budgets::in_memory(), with(Window::Sliding(3_600)));
    assert!(spend(&budgets, &hour, "1", after(3_599)));
    // A second later it still counts, where a fixed window would have begun anew.
    assert!(!spend(&budgets, &hour, "0.001", after(3_600)));
    let refused = reserve(&budgets, &[&hour], dollars("0.5"), after(3_600)).unwrap_err();
    assert_eq!(refused.retry_after, Some(1_800));
    assert!(reserve(&budgets, &[&hour], dollars("0.5"), after(5_399)).is_err());
    assert_eq!(reading(&budgets, "r", after(5_400)).spent, dollars("0.5"));
    assert!(spend(&budgets, &hour, "0.5", after(5_400)));
    let refused = reserve(&budgets, &[&hour], dollars("0.75"), after(5_400)).unwrap_err();
    // 0.5 are gone at the turn; of the other 0.5 half is, half an hour later.
    assert_eq!(refused.retry_after, Some(3_600));
    let turned = 5_400 + refused.retry_after.unwrap();
    assert!(reserve(&budgets, &[&hour], dollars("0.75"), after(turned - 1)).is_err());
    assert!(reserve(&budgets, &[&hour], dollars("0.75"), after(turned)).is_ok());
    assert_eq!(reading(&budgets, "r", after(20_000)).spent, Cost::ZERO);
}

#[test]
fn what_slides_is_rounded_up() {
    let (budgets, week) = (Budgets::in_memory(), with(Window::Sliding(7)));
    let seven = |second: u64| after(second + 7 - MIDNIGHT % 7); // windows of seven seconds begin here
    assert!(spend(&budgets, &week, "0.000000000005", seven(0)));
    let spent: Vec<_> = (7..15)
        .map(|at| reading(&budgets, "r", seven(at)).spent.0)
        .collect();
    assert_eq!(spent, [5, 5, 4, 3, 3, 2, 1, 0]);
}

/// However calls come, no window of the length has more than twice the limit, and none that is
/// aligned more than the limit.
#[test]
fn a_sliding_window_is_never_above_its_limit() {
    let (budgets, minute) = (Budgets::in_memory(), with(Window::Sliding(60)));
    let mut spent = Vec::new();
    let mut dice = 12_345_u64;
    for second in 0..1_200 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let cost = Cost(dice >> 25); // up to 0.55 dollars
        if let Ok(held) = reserve(&budgets, &[&minute], cost, after(second)) {
            held.settle(cost, after(second));
            spent.push((second, cost.0));
        }
        let look = reading(&budgets, "r", after(second));
        assert!(look.spent <= dollars("1"), "{second}");
    }
    for start in (0..1_200).step_by(60) {
        let within = spent
            .iter()
            .filter(|(second, _)| (start..start + 60).contains(second));
        assert!(within.map(|(_, cost)| cost).sum::<u64>() <= dollars("1").0);
    }
    assert!(spent.len() > 40);
}

#[test]
fn another_window_of_the_same_rule_keeps_what_was_spent() {
    for (before, then) in [
        (Window::Fixed(3_600), Window::Fixed(86_400)),
        (Window::Fixed(86_400), Window::Fixed(3_600)),
        (Window::Fixed(3_600), Window::Sliding(3_600)),
        (
            Window::Sliding(3_600),
            Window::Calendar(window::Calendar::Month),
        ),
    ] {
        let budgets = Budgets::in_memory();
        assert!(spend(&budgets, &with(before), "1", after(100)));
        assert!(
            !spend(&budgets, &with(then), "0.1", after(200)),
            "{before:?} {then:?}"
        );
    }
}

#[test]
fn clocks_that_differ_make_no_new_window() {
    let (budgets, hour) = (Budgets::in_memory(), with(Window::Fixed(3_600)));
    assert!(spend(&budgets, &hour, "1", after(3_600)));
    assert!(!spend(&budgets, &hour, "0.1", after(3_599)));
    assert!(
        !spend(&budgets, &hour, "0.1", after(3_601)),
        "the window is the same still"
    );
    // A clock that was wrong by a year does not stop the budget for a year.
    let year = 366 * 86_400;
    assert!(spend(&budgets, &hour, "1", after(year)));
    assert!(!spend(&budgets, &hour, "0.1", after(7_200)));
    assert!(spend(&budgets, &hour, "1", after(10_800)));
}
