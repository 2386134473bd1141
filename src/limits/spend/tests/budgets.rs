//! What one call after the other does.

use super::*;

#[test]
fn what_is_set_aside_and_spent_never_exceeds_the_limit() {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let ask = |cost| reserve(&budgets, &[&day], dollars(cost), after(0));
    let first = ask("0.6").unwrap();
    let refused = ask("0.4000000000001").map(drop);
    assert_eq!(refused, Ok(()), "what is no pico-dollar more fits");
    let refused = ask("0.400000000001").unwrap_err();
    assert_eq!(refused.remaining, dollars("0.4"));
    let second = ask("0.4").unwrap();
    assert!(ask("0.000000000001").is_err());
    drop(second);
    first.settle(dollars("0.1"), after(1));
    let look = reading(&budgets, "day", after(1));
    assert_eq!((look.spent, look.reserved), (dollars("0.1"), Cost::ZERO));
    assert_eq!((look.limit, look.remaining), (dollars("1"), dollars("0.9")));
    assert_eq!(look.ends, after(86_400));
    assert!(ask("0.9").is_ok());
    assert!(ask("0.900000000001").is_err());
    assert!(reserve(&budgets, &[&day], Cost::ZERO, after(0)).is_ok());
}

#[test]
fn a_refusal_says_what_is_lacking_and_when_to_come_back() {
    let (budgets, day) = (Budgets::in_memory(), rule("per-user", "10", vec![]));
    let ask = |cost| reserve(&budgets, &[&day], dollars(cost), after(86_000));
    ask("7.5").unwrap().settle(dollars("7.5"), after(86_000));
    let running = ask("1").unwrap();
    let refused = ask("2").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Spend limit exceeded: rule 'per-user' (cost limit 10 per 86400s, fixed) for openai gpt-4o: \
         1.5 USD of it remain, and this request could cost 2 USD"
    );
    assert_eq!(refused.allowed(), "10 USD per 86400s, fixed");
    assert_eq!(
        (refused.spent, refused.reserved),
        (dollars("7.5"), dollars("1"))
    );
    assert_eq!(
        (refused.scope.clone(), refused.lack),
        (scope(), Lack::Money)
    );
    assert_eq!(
        refused.retry_after,
        Some(1),
        "when the running call is over"
    );
    assert_eq!(
        ask("3").unwrap_err().retry_after,
        Some(400),
        "when the window turns"
    );
    assert_eq!(ask("11").unwrap_err().retry_after, None, "never");
    drop(running);
}

#[test]
fn all_rules_have_room_or_none_gives_any() {
    let budgets = Budgets::in_memory();
    let (small, large) = (rule("small", "1", vec![]), rule("large", "5", vec![]));
    let other = rule("other", "0.1", vec![(Field::Model, filter(&["gpt-4"]))]);
    let rules = [&large, &small, &other];
    let held = reserve(&budgets, &rules, dollars("0.7"), after(0)).unwrap();
    assert_eq!(held.most(), dollars("0.7"));
    for order in [[&large, &small, &other], [&other, &small, &large]] {
        let refused = reserve(&budgets, &order, dollars("0.7"), after(0)).unwrap_err();
        assert_eq!(&*refused.rule, "small");
        assert_eq!(
            reading(&budgets, "large", after(0)).reserved,
            dollars("0.7")
        );
    }
    let refused = reserve(&budgets, &rules, dollars("6"), after(0)).unwrap_err();
    assert_eq!(&*refused.rule, "large", "the first of those in order");
    held.settle(dollars("0.2"), after(0));
    for rule in ["small", "large"] {
        let look = reading(&budgets, rule, after(0));
        assert_eq!((look.spent, look.reserved), (dollars("0.2"), Cost::ZERO));
    }
    assert_eq!(budgets.readings(after(0)).len(), 2, "no account of `other`");
}

#[test]
fn each_rule_has_its_own_idea_of_the_most() {
    let budgets = Budgets::in_memory();
    let (one, two) = (rule("one", "1", vec![]), rule("two", "1", vec![]));
    let (scope, said) = (scope(), Metadata::new());
    let ask = |rule, cost| Ask {
        scope: &scope,
        rule,
        cost: dollars(cost),
    };
    let asks = [ask(&one, "0.2"), ask(&two, "0.9")];
    let held = budgets.reserve(&asks, &facts(&said), after(0)).unwrap();
    assert_eq!(reading(&budgets, "one", after(0)).reserved, dollars("0.2"));
    assert_eq!(reading(&budgets, "two", after(0)).reserved, dollars("0.9"));
    drop(held);
    assert_eq!(reading(&budgets, "two", after(0)).reserved, Cost::ZERO);
}

#[test]
fn every_partition_has_its_own_money() {
    let budgets = Budgets::in_memory();
    let user = || Field::Metadata("user".into());
    let per_user = rule("per-user", "1", vec![(user(), Select::Partition)]);
    let ask = |user: &str, cost| {
        let said = metadata(&[("user", user)]);
        reserve_for(&budgets, &[&per_user], &said, dollars(cost), after(0))
    };
    ask("alice", "1").unwrap().settle(dollars("1"), after(0));
    assert!(ask("alice", "0.1").is_err());
    assert!(ask("bob", "1").is_ok());
    let nobody = reserve(&budgets, &[&per_user], dollars("100"), after(0)).unwrap();
    assert!(nobody.is_empty(), "who has no user is not limited by it");
    let readings = budgets.readings(after(0));
    let users = readings.iter().map(|reading| &*reading.partition[0].1);
    assert_eq!(users.collect::<Vec<_>>(), ["alice", "bob"]);
    assert!(budgets.bounded_readings(after(0)).is_empty());
    assert_eq!(budgets.readings_in(&scope(), after(0)).len(), 2);
    let key = Scope::Key("a/g".into());
    assert!(budgets.readings_in(&key, after(0)).is_empty());
}

#[test]
fn scopes_do_not_share_rules_of_the_same_name() {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let said = Metadata::new();
    for scope in [
        Scope::Gateway("a/g".into()),
        Scope::Gateway("a/h".into()),
        Scope::Key("a/g".into()),
    ] {
        let ask = Ask {
            scope: &scope,
            rule: &day,
            cost: dollars("1"),
        };
        let held = budgets
            .reserve(&[ask, ask], &facts(&said), after(0))
            .unwrap();
        held.settle(dollars("1"), after(0));
        assert!(budgets.reserve(&[ask], &facts(&said), after(0)).is_err());
    }
}

#[test]
fn a_changed_limit_finds_what_was_spent() {
    let budgets = Budgets::in_memory();
    let day = |limit| rule("day", limit, vec![]);
    let spent = reserve(&budgets, &[&day("1")], dollars("0.8"), after(0)).unwrap();
    spent.settle(dollars("0.8"), after(0));
    assert!(reserve(&budgets, &[&day("0.5")], Cost(1), after(0)).is_err());
    let look = reading(&budgets, "day", after(0));
    assert_eq!((look.limit, look.remaining), (dollars("0.5"), Cost::ZERO));
    assert!(reserve(&budgets, &[&day("2")], dollars("1.2"), after(0)).is_ok());
}

#[test]
fn a_cost_above_what_was_set_aside_is_booked_and_told() {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let held = reserve(&budgets, &[&day], dollars("0.1"), after(0)).unwrap();
    held.settle(dollars("1.5"), after(0));
    let look = reading(&budgets, "day", after(0));
    assert_eq!((look.spent, look.remaining), (dollars("1.5"), Cost::ZERO));
    let counters = budgets.counters();
    let read =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read(&counters.overruns), 1);
    assert_eq!(read(&counters.overrun), dollars("1.4").0);
    assert!(reserve(&budgets, &[&day], Cost(1), after(0)).is_err());
}

#[test]
fn amounts_saturate() {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let none = reserve(&budgets, &[&day], Cost(u64::MAX), after(0)).unwrap_err();
    assert_eq!(none.retry_after, None);
    for _ in 0..2 {
        let held = reserve(&budgets, &[&day], Cost::ZERO, after(0)).unwrap();
        held.settle(Cost(u64::MAX), after(0));
    }
    assert_eq!(reading(&budgets, "day", after(0)).spent, Cost(u64::MAX));
    assert!(reserve(&budgets, &[&day], Cost(1), after(0)).is_err());
}

#[test]
fn made_up_accounts_are_bounded_and_their_money_is_not_forgotten() {
    let budgets = Budgets::with_at_most(100);
    let user = Field::Metadata("user".into());
    let per_user = rule("per-user", "1", vec![(user, Select::Partition)]);
    let per_key = rule("per-key", "1", vec![(Field::Key, Select::Partition)]);
    let ask = |user: &str, cost, now| {
        let said = metadata(&[("user", user)]);
        reserve_for(&budgets, &[&per_user, &per_key], &said, cost, now)
    };
    // Those who spend nothing do not stay; each second some of them are looked for.
    for number in 0..1_000 {
        drop(ask(&number.to_string(), Cost(1), after(number)).unwrap());
    }
    budgets.sweep(after(1_000));
    for number in 0..100 {
        let held = ask(&number.to_string(), Cost(1), after(1_001)).unwrap();
        held.settle(Cost(1), after(1_001));
    }
    let refused = ask("new", Cost(1), after(1_002)).unwrap_err();
    assert_eq!((&*refused.rule, refused.lack), ("per-user", Lack::Room));
    assert_eq!(refused.retry_after, Some(86_400 - 1_002));
    assert!(
        refused.to_string().contains("too many different values"),
        "{refused}"
    );
    assert_eq!(reading(&budgets, "per-key", after(1_002)).spent, Cost(100));
    assert!(reserve(&budgets, &[&per_key], Cost(1), after(1_002)).is_ok());
    assert!(
        ask("7", Cost(1), after(1_002)).is_ok(),
        "who is known is served"
    );
    budgets.sweep(after(1_003));
    assert_eq!(budgets.readings(after(1_003)).len(), 101);
    budgets.sweep(after(86_400));
    assert!(ask("new", Cost(1), after(86_400)).is_ok());
}
