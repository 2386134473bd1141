//! Limits are exact at the edge, whatever comes at once.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::calls::Calls;
use super::state::{Place, State, Windows};
use super::table::{Key, MADE_UP};
use super::*;
use crate::config::schema::{Counted, Technique};
use crate::limits::facts::Facts;
use crate::limits::spend::Scope;
use crate::metadata::{Metadata, Value};

const NOTHING: &Metadata = &Metadata::new();

fn rule(id: &str, limit: u64, counted: Counted, technique: Technique, by: &[&str]) -> Rule {
    Rule {
        id: id.into(),
        limit,
        counted,
        length: Duration::from_secs(600),
        technique,
        by: by
            .iter()
            .map(|word| Dimension::parse(word).unwrap())
            .collect(),
        scope: Scope::Gateway("a/g".into()),
        state: OnceLock::new(),
    }
}

fn requests(id: &str, limit: u64, by: &[&str]) -> Rule {
    rule(id, limit, Counted::Requests, Technique::Sliding, by)
}

fn facts<'a>(key: Option<&'a str>, metadata: &'a Metadata) -> Facts<'a> {
    Facts {
        gateway: "a/g",
        key,
        provider: Some("openai"),
        model: Some("gpt-4o"),
        address: Some("192.0.2.1".parse().unwrap()),
        ..Facts::of(metadata)
    }
}

/// Of a client in a network of its own.
fn from(network: u64, metadata: &Metadata) -> Facts<'_> {
    let address = Ipv6Addr::from_bits(u128::from(network) << 64);
    Facts {
        address: Some(address.into()),
        ..facts(None, metadata)
    }
}

/// Whether that client may pass at that moment.
fn taken_by(rules: &[Rule], registry: &Registry, network: u64, at: SystemTime) -> bool {
    take(rules.iter(), registry, &from(network, NOTHING), at).is_ok()
}

/// Minutes after noon of some day.
fn minute(minute: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_049_600 + 60 * minute)
}

/// How many of so many pass, from 64 threads at once.
fn passed(rules: &[Rule], registry: &Registry, each: u64, facts: &Facts<'_>) -> u64 {
    let (passed, barrier) = (AtomicU64::new(0), Barrier::new(64));
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..each {
                    let taken = take(rules.iter(), registry, facts, minute(1));
                    passed.fetch_add(taken.is_ok().into(), Ordering::Relaxed);
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn of_any_number_at_once_exactly_as_many_pass_as_may() {
    for technique in [Technique::Sliding, Technique::Fixed] {
        let registry = Registry::default();
        let rules = [
            rule("wide", 5000, Counted::Requests, technique, &[]),
            rule("each", 777, Counted::Requests, technique, &["key"]),
        ];
        assert_eq!(
            passed(&rules, &registry, 100, &facts(Some("a"), NOTHING)),
            777
        );
        // Those that were refused by one rule have taken nothing of another.
        assert_eq!(passed(&rules, &registry, 100, &facts(None, NOTHING)), 4223);
        assert_eq!(passed(&rules, &registry, 1, &facts(Some("b"), NOTHING)), 0);
    }
}

#[test]
fn calls_at_the_same_time_are_exact_too() {
    let registry = Registry::default();
    let rules = [rule(
        "calls",
        20,
        Counted::Concurrent,
        Technique::Sliding,
        &["key"],
    )];
    let (facts, held) = (
        facts(Some("a"), NOTHING),
        parking_lot::Mutex::new(Vec::new()),
    );
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                if let Ok(permits) = enter(rules.iter(), &registry, &facts) {
                    held.lock().push(permits);
                }
            });
        }
    });
    assert_eq!(held.lock().len(), 20);
    let refused = enter(rules.iter(), &registry, &facts).err().unwrap();
    assert_eq!((refused.retry_after, refused.standing.left), (1, 0));
    held.lock().truncate(19);
    assert!(enter(rules.iter(), &registry, &facts).is_ok());
}

/// Once all that may have a counter are in a call, who comes then has none.
#[test]
fn calls_of_values_without_a_counter_are_bounded_too() {
    let calls = Calls::new(Some(MADE_UP));
    let values = MADE_UP as Key;
    let first: Vec<_> = (0..values).map(|value| calls.enter(value, 1)).collect();
    let own = |permit: &Option<Permit>| matches!(permit, Some(Permit::Own(_)));
    let estimated = |permit: &Option<Permit>| matches!(permit, Some(Permit::Estimated(_)));
    assert!(first.iter().all(own));
    for value in [values, values + 1] {
        let mut held: Vec<_> = (0..3).map(|_| calls.enter(value, 3)).collect();
        assert!(held.iter().all(estimated));
        assert!(calls.enter(value, 3).is_none());
        assert!(calls.enter(value, 3).is_none());
        held.pop();
        held.push(calls.enter(value, 3));
        assert!(held.iter().all(estimated));
        assert!(calls.enter(value, 3).is_none());
    }
    assert!(calls.enter(0, 1).is_none(), "who was there before");
    let mut held: Vec<_> = (0..3).map(|_| calls.enter(values, 3)).collect();
    drop(first);
    assert!(
        calls.enter(values, 3).is_none(),
        "there is room, not for it"
    );
    held.pop();
    assert!(own(&calls.enter(values, 3)));
}

/// What docs/limits.md says: beside a thousand others, one of some 5,700 is taken for one that is
/// in a call too.
#[test]
fn hardly_any_value_is_refused_for_the_calls_of_others() {
    let calls = Calls::new(Some(0));
    let others: Vec<_> = (0..1000).map(|value| calls.enter(value, 1)).collect();
    let mistaken = others.iter().filter(|permit| permit.is_none()).count();
    assert!(mistaken <= 5, "{mistaken}");
    let strangers = (1000..12_400).map(|value| calls.enter(value, 1));
    let mistaken = strangers.filter(Option::is_none).count();
    assert!(mistaken <= 15, "{mistaken} of 11,400, where 2 are expected");
}

/// Ten in ten minutes: ten at 12:09 and ten at 12:11 (contract, 4.1).
#[test]
fn what_a_fixed_window_lets_through_at_its_edge_a_sliding_one_does_not() {
    for (technique, expected) in [(Technique::Fixed, [10, 10]), (Technique::Sliding, [10, 0])] {
        let registry = Registry::default();
        let rules = [rule("ten", 10, Counted::Requests, technique, &[])];
        let ten = |at| {
            let take = |_: &u32| take(rules.iter(), &registry, &facts(None, NOTHING), at).is_ok();
            (0..10).filter(take).count()
        };
        assert_eq!([ten(minute(9)), ten(minute(11))], expected, "{technique:?}");
    }
}

#[test]
fn a_refusal_says_which_rule_and_when_to_come_back() {
    let registry = Registry::default();
    let rules = [
        rule("ten", 2, Counted::Requests, Technique::Fixed, &["key"]),
        requests("more", 1000, &[]),
    ];
    let facts = facts(Some("a"), NOTHING);
    let taken = |at| take(rules.iter(), &registry, &facts, at);
    let standing = taken(minute(1)).unwrap().unwrap();
    assert_eq!((standing.limit, standing.left, standing.reset), (2, 1, 540));
    assert_eq!(taken(minute(2)).unwrap().unwrap().left, 0);
    let refused = taken(minute(3)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Rate limited: rule `ten` allows 2 requests in 10m for each key; try again in 420 s"
    );
    assert!(taken(minute(9) + Duration::from_millis(59_999)).is_err());
    assert!(taken(minute(10)).is_ok(), "as it was told");
}

#[test]
fn a_sliding_window_lets_in_when_it_says() {
    let registry = Registry::default();
    let rules = [requests("two", 2, &[])];
    let taken = |at| take(rules.iter(), &registry, &facts(None, NOTHING), at);
    let (first, second) = (minute(1), minute(4));
    taken(first).unwrap();
    taken(second).unwrap();
    let refused = taken(minute(5)).unwrap_err();
    let told = minute(5) + Duration::from_secs(refused.retry_after);
    assert!(told > first + Duration::from_secs(600), "never early");
    assert!(taken(told - Duration::from_secs(1)).is_err());
    assert!(taken(told).is_ok());
}

/// Gives away all counters at that moment: who comes then is estimated.
fn filled<'r>(rule: &'r Rule, registry: &Registry, at: SystemTime) -> &'r Windows {
    let State::Windows(windows) = &**rule.state(registry) else {
        panic!("a window");
    };
    let slot = windows.window.slot(windows.moment(at));
    for value in 0..MADE_UP as Key {
        if let Place::Own(own) = windows.place(value, slot) {
            own.lock().add(slot, 1);
        }
    }
    assert_eq!(windows.exact(), MADE_UP);
    windows
}

/// Three in ten minutes for each client. One has a counter of its own, and one has none.
fn few(technique: Technique) -> [Rule; 1] {
    [rule(
        "few",
        3,
        Counted::Requests,
        technique,
        &["client_address"],
    )]
}

const CLIENTS: [u64; 2] = [1, 2];

/// Six hours: many windows.
#[test]
fn a_clock_that_is_set_back_holds_nobody_up_and_lets_nobody_past() {
    for technique in [Technique::Sliding, Technique::Fixed] {
        let (registry, rules) = (Registry::default(), few(technique));
        let taken = |client, at| taken_by(&rules, &registry, client, at);
        let passed = |at| CLIENTS.map(|client| (0..9).filter(|_| taken(client, at)).count());
        assert!(taken(CLIENTS[0], minute(365)));
        let windows = filled(&rules[0], &registry, minute(365));
        assert_eq!(passed(minute(365)), [2, 3], "{technique:?}");
        assert_eq!(passed(minute(5)), [0, 0], "{technique:?}");
        for client in CLIENTS {
            let facts = from(client, NOTHING);
            let refused = take(rules.iter(), &registry, &facts, minute(5)).unwrap_err();
            // A sixteenth late, where the window slides.
            assert!(refused.retry_after <= 600 + 600 / 16 + 1, "{refused}");
        }
        assert_eq!(passed(minute(16)), [3, 3], "{technique:?}");
        assert_eq!(passed(minute(17)), [0, 0], "{technique:?}");
        for client in 10..1010 {
            assert!(taken(client, minute(40)));
        }
        assert!(
            windows.exact() <= 1000 + CLIENTS.len(),
            "the idle make room"
        );
    }
}

/// By less than a window: what was counted later counts too.
#[test]
fn nor_does_one_that_goes_back_a_little_let_anybody_past() {
    for technique in [Technique::Sliding, Technique::Fixed] {
        let (registry, rules) = (Registry::default(), few(technique));
        let taken = |client, at| taken_by(&rules, &registry, client, at);
        let passed = |at| CLIENTS.map(|client| (0..9).filter(|_| taken(client, at)).count());
        assert!(taken(CLIENTS[0], minute(11)));
        filled(&rules[0], &registry, minute(11));
        for (at, passes) in [(11, [2, 3]), (9, [0, 0]), (11, [0, 0]), (22, [3, 3])] {
            assert_eq!(passed(minute(at)), passes, "{technique:?} at 12:{at}");
        }
    }
}

#[test]
fn a_rule_is_about_those_who_have_what_it_counts_by() {
    let registry = Registry::default();
    let user = |user: &str| vec![("user".into(), Value::Text(user.into()))] as Metadata;
    let rules = [requests("each", 1, &["metadata.user"])];
    let (ann, bob) = (user("ann"), user("bob"));
    for (metadata, passes) in [(&ann, true), (&ann, false), (&bob, true), (&bob, false)] {
        let taken = take(rules.iter(), &registry, &facts(None, metadata), minute(1));
        assert_eq!(taken.is_ok(), passes, "{metadata:?}");
    }
    for _ in 0..5 {
        let taken = take(rules.iter(), &registry, &facts(None, NOTHING), minute(1));
        assert_eq!(taken, Ok(None));
    }
}

#[test]
fn one_client_has_all_of_its_ipv6_network() {
    let registry = Registry::default();
    let rules = [requests("each", 1, &["client_address"])];
    for (address, passes) in [
        ("2001:db8::1", true),
        ("2001:db8::2", false),
        ("2001:db8:0:1::1", true),
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", false),
        ("192.0.2.2", true),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let facts = Facts {
            address: Some(address),
            ..facts(None, NOTHING)
        };
        let taken = take(rules.iter(), &registry, &facts, minute(1));
        assert_eq!(taken.is_ok(), passes, "{address}");
    }
}

#[test]
fn tokens_count_at_the_end_and_refuse_what_comes_after() {
    let registry = Registry::default();
    let rules = [rule(
        "tokens",
        100,
        Counted::TotalTokens,
        Technique::Fixed,
        &["key", "model"],
    )];
    let facts = facts(Some("a"), NOTHING);
    let may = |at| check(rules.iter(), &registry, &facts, at).is_ok();
    assert!(may(minute(1)));
    count(&rules[0], &facts, 99, minute(1));
    assert!(may(minute(1)));
    count(&rules[0], &facts, 500, minute(2));
    assert!(!may(minute(9)));
    let other = Facts {
        model: Some("gpt-5"),
        ..facts
    };
    assert!(check(rules.iter(), &registry, &other, minute(9)).is_ok());
    assert!(may(minute(10)));
}

/// Of what is left now: what the request itself takes is not known.
#[test]
fn who_asks_for_tokens_learns_which_rule_leaves_least() {
    let registry = Registry::default();
    let tokens = |id, limit| rule(id, limit, Counted::TotalTokens, Technique::Fixed, &[]);
    let rules = [tokens("many", 1000), tokens("few", 100)];
    let facts = facts(None, NOTHING);
    let least = || check(rules.iter(), &registry, &facts, minute(1)).map(Option::unwrap);
    let standing = |limit, left| Standing {
        limit,
        left,
        reset: 540,
    };
    assert_eq!(least(), Ok(standing(1000, 1000)), "the first of equals");
    count(&rules[0], &facts, 500, minute(1));
    assert_eq!(least(), Ok(standing(1000, 500)));
    count(&rules[1], &facts, 99, minute(1));
    assert_eq!(least(), Ok(standing(100, 1)));
    count(&rules[1], &facts, 1, minute(1));
    let refused = least().unwrap_err();
    assert_eq!(
        (&*refused.rule, refused.standing),
        ("few", standing(100, 0))
    );
    let tight = Some(standing(100, 1));
    assert_eq!(tightest(Some(standing(2, 1)), tight), tight);
    assert_eq!(tightest(tight, Some(standing(2, 1))), tight);
    assert_eq!(tightest(None, tight), tight);
}

#[test]
fn counts_outlive_a_configuration_that_only_changes_how_many() {
    let registry = Registry::default();
    let facts = facts(None, NOTHING);
    let takes = |rules: [Rule; 1], times: u32| {
        let take = |_: &u32| take(rules.iter(), &registry, &facts, minute(1)).is_ok();
        (0..times).filter(take).count()
    };
    assert_eq!(takes([requests("r", 3, &[])], 2), 2);
    assert_eq!(takes([requests("r", 5, &[])], 9), 3);
    assert_eq!(takes([requests("r", 4, &[])], 1), 0);
    assert_eq!(
        takes([requests("r", 5, &["gateway"])], 9),
        5,
        "another rule"
    );
}

#[test]
fn a_value_that_gets_a_counter_later_starts_with_what_was_estimated_for_it() {
    let registry = Registry::default();
    let rules = [requests("few", 3, &["client_address"])];
    let taken = |value, at| taken_by(&rules, &registry, value, at);
    // All counters are used at noon, and free again while what the late one has used still counts.
    filled(&rules[0], &registry, minute(0));
    let late = u64::MAX;
    let passed = |times, at| (0..times).filter(|_| taken(late, at)).count();
    assert_eq!(passed(2, minute(9)), 2);
    assert_eq!(passed(5, minute(12)), 1);
    assert_eq!(passed(5, minute(20)), 2, "what was taken at 12:09");
    assert_eq!(passed(5, minute(23)), 1);
}

/// What docs/limits.md says that a rule takes, with values that are estimated, and some room for
/// the allocator.
const MOST: u64 = (15 + 9 + 6) << 20;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    kibibytes.unwrap().parse::<u64>().unwrap() * 1024
}

/// By how much it has grown; nothing where other tests share the process.
fn grown(before: u64) -> u64 {
    let alone = std::env::var_os("NEXTEST").is_some();
    resident().saturating_sub(before) * u64::from(alone)
}

/// Made-up values: memory stays bounded, who was there before is counted exactly, and who comes in
/// the middle of it is served too.
fn flood(technique: Technique, by: &str, values: u64) {
    let registry = Registry::default();
    let rules = [rule("each", 40, Counted::Requests, technique, &[by])];
    let by_user = by == "metadata.user";
    let taken = |value: u64| {
        let metadata = match by_user {
            true => vec![("user".into(), Value::Text(value.to_string().into()))],
            false => Metadata::new(),
        };
        let facts = from(value, &metadata);
        take(rules.iter(), &registry, &facts, minute(1)).is_ok()
    };
    let regular = |times: u64| (0..times).filter(|_| taken(1)).count();
    assert_eq!(regular(20), 20);
    let before = resident();
    let refused = (2..values).filter(|value| !taken(*value)).count() as u64;
    let grown = grown(before);
    assert!(grown <= MOST, "{grown}");
    assert_eq!(regular(30), 20, "exactly what was left");
    let newcomer = (0..20).filter(|_| taken(values + 1)).count();
    assert_eq!(newcomer, 20);
    assert!(refused < values / 10_000, "{refused}");
    let State::Windows(windows) = &**rules[0].state.get().unwrap() else {
        panic!("a window");
    };
    assert!(windows.exact() <= MADE_UP);
}

#[test]
fn a_flood_of_ten_million_values_takes_bounded_memory_and_nobody_s_place() {
    flood(Technique::Fixed, "client_address", 10_000_000);
}

#[test]
fn nor_does_one_of_words_that_clients_make_up() {
    flood(Technique::Fixed, "metadata.user", 300_000);
}

#[test]
fn nor_does_one_that_meets_a_sliding_window() {
    flood(Technique::Sliding, "client_address", 500_000);
}
