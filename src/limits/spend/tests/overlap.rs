//! Two processes with the same budgets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::durable::{lines_until, open, options, per_user, spend, start_child, wait_for};
use super::*;

const SOON: Duration = Duration::from_secs(60);

/// A clock that is set by hand.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn now(&self) -> SystemTime {
        after(self.0.load(Ordering::SeqCst))
    }

    fn open(&self, dir: &Path) -> Budgets {
        let hand = self.clone();
        let clock = Arc::new(move || hand.now());
        let options = Options {
            clock,
            ..options(after(0))
        };
        Budgets::open(dir, options).unwrap()
    }
}

/// A newer process comes, as the upgrade has it.
fn come(dir: &Path, old: &Budgets) -> Budgets {
    let new = open(dir);
    hand_over(old, &new);
    new
}

fn hand_over(old: &Budgets, new: &Budgets) {
    old.share_within(SOON).unwrap();
    new.share_within(SOON).unwrap();
}

fn remaining(budgets: &Budgets, now: SystemTime) -> Cost {
    reading(budgets, "day", now).remaining
}

/// All that one can set aside, in one piece.
fn has_room(budgets: &Budgets, rule: &Rule, cost: &str, now: SystemTime) -> bool {
    reserve(budgets, &[rule], dollars(cost), now).is_ok()
}

#[test]
fn a_newer_process_has_half_and_gets_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let day = rule("day", "1", vec![]);
    let old = open(dir.path());
    spend(&old, &day, dollars("0.4"), after(0));
    let running = reserve(&old, &[&day], dollars("0.2"), after(0)).unwrap();
    let new = open(dir.path());
    new.share_within(SOON).unwrap();
    assert!(
        reserve(&new, &[&day], Cost(1), after(0)).is_err(),
        "nobody has given it anything"
    );
    hand_over(&old, &new);
    for budgets in [&old, &new] {
        assert_eq!(remaining(budgets, after(0)), dollars("0.2"));
        assert!(has_room(budgets, &day, "0.2", after(0)));
        let refused = reserve(budgets, &[&day], dollars("0.21"), after(0)).unwrap_err();
        assert_eq!(
            (refused.spent, refused.retry_after),
            (dollars("0.4"), Some(1))
        );
    }
    old.retire_within(SOON).unwrap();
    // It keeps as much as its calls may need that are tried again.
    new.share_within(SOON).unwrap();
    assert_eq!(remaining(&new, after(0)), dollars("0.2"));
    running.settle(dollars("0.1"), after(0));
    wait_for(|| remaining(&new, after(0)) == dollars("0.5"));
    assert_eq!(remaining(&old, after(0)), Cost::ZERO);
    old.end_within(SOON).unwrap();
    new.share_within(SOON).unwrap();
    let look = reading(&new, "day", after(0));
    assert_eq!((look.spent, look.reserved), (dollars("0.5"), Cost::ZERO));
    assert_eq!(look.remaining, dollars("0.5"));
    spend(&new, &day, dollars("0.5"), after(0));
    assert!(reserve(&new, &[&day], Cost(1), after(0)).is_err());
    drop((old, new));
    assert_eq!(
        reading(&open(dir.path()), "day", after(0)).spent,
        dollars("1")
    );
}

#[test]
fn accounts_that_are_new_to_both_are_shared_too() {
    let dir = tempfile::tempdir().unwrap();
    let (old, per_user) = (open(dir.path()), per_user());
    let new = come(dir.path(), &old);
    let ask = |budgets: &Budgets, user: &str, cost| {
        let said = metadata(&[("user", user)]);
        reserve_for(budgets, &[&per_user], &said, dollars(cost), after(0))
    };
    for budgets in [&old, &new] {
        assert!(ask(budgets, "alice", "0.51").is_err());
        ask(budgets, "alice", "0.5")
            .unwrap()
            .settle(dollars("0.5"), after(0));
    }
    assert!(ask(&old, "bob", "0.4").is_ok());
    old.retire_within(SOON).unwrap();
    // An eighth of the half: nobody in the old process needs more of it.
    wait_for(|| ask(&new, "carol", "0.9375").is_ok());
    assert!(ask(&new, "carol", "0.938").is_err());
    assert!(ask(&old, "carol", "0.0626").is_err());
    wait_for(|| ask(&new, "bob", "1").is_ok());
    assert!(ask(&old, "bob", "0.01").is_err());
    assert!(ask(&new, "alice", "0.01").is_err());
    drop(old);
    new.share_within(SOON).unwrap();
    assert!(ask(&new, "carol", "1").is_ok());
    assert!(ask(&new, "alice", "0.01").is_err());
}

#[test]
fn a_newer_process_that_fails_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let day = rule("day", "1", vec![]);
    let old = open(dir.path());
    spend(&old, &day, dollars("0.2"), after(0));
    for round in 1..=2 {
        let new = come(dir.path(), &old);
        spend(&new, &day, dollars("0.1"), after(0));
        assert!(remaining(&old, after(0)) <= dollars("0.4"));
        drop(new);
        old.share_within(SOON).unwrap();
        let look = reading(&old, "day", after(0));
        let spent = Cost(dollars("0.2").0 + round * dollars("0.1").0);
        assert_eq!((look.spent, look.reserved), (spent, Cost::ZERO));
        assert_eq!(look.remaining, dollars("1").saturating_sub(spent));
    }
}

#[test]
fn a_newer_process_that_is_killed_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let day = Rule {
        limit: Cost(1_000_000),
        ..rule("day", "1", vec![])
    };
    let old = open(dir.path());
    spend(&old, &day, Cost(1_000), after(0));
    let mut child = start_child(dir.path());
    // It has nothing until the old process finds it, which it does by itself.
    let spent = lines_until(&mut child, |spent| spent == 200).len() as u64;
    wait_for(|| reading(&old, "day", after(0)).remaining < Cost(999_000));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| reading(&old, "day", after(0)).reserved == Cost::ZERO);
    let look = reading(&old, "day", after(0));
    assert!(
        look.spent.0 > 1_000 && look.spent.0 <= 1_000 + spent + 1_000,
        "{look:?}"
    );
    assert_eq!(look.remaining.0, 1_000_000 - look.spent.0);
}

#[test]
fn an_older_process_that_dies_leaves_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(dir.path());
    let spent = lines_until(&mut child, |spent| spent == 1_500).len() as u64;
    let new = open(dir.path());
    let day = rule("day", "1", vec![]);
    wait_for(|| reserve(&new, &[&day], dollars("0.4"), after(0)).is_ok());
    assert!(reserve(&new, &[&day], dollars("0.6"), after(0)).is_err());
    spend(&new, &day, dollars("0.1"), after(0));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| reserve(&new, &[&day], dollars("0.8"), after(0)).is_ok());
    let look = reading(&new, "day", after(0));
    assert!(
        look.spent.0 > dollars("0.1").0 && look.spent.0 <= dollars("0.1").0 + 2 * spent + 10_000
    );
    assert_eq!(look.reserved, Cost::ZERO);
}

#[test]
fn a_window_that_turns_meanwhile_gives_nobody_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let (hand, day) = (Hand::default(), rule("day", "1", vec![]));
    let old = hand.open(dir.path());
    let running = reserve(&old, &[&day], dollars("0.8"), hand.now()).unwrap();
    let new = hand.open(dir.path());
    hand_over(&old, &new);
    old.retire_within(SOON).unwrap();
    hand.0.store(86_400, Ordering::SeqCst);
    // What the old one has set aside may all be spent in the new window.
    assert!(has_room(&new, &day, "0.1", hand.now()));
    assert!(!has_room(&new, &day, "0.21", hand.now()));
    running.settle(dollars("0.8"), hand.now());
    wait_for(|| has_room(&new, &day, "0.2", hand.now()));
    assert!(!has_room(&new, &day, "0.21", hand.now()));
    hand.0.store(2 * 86_400, Ordering::SeqCst);
    wait_for(|| has_room(&new, &day, "1", hand.now()));
    assert!(!has_room(&old, &day, "0.1", hand.now()));
}

#[test]
fn another_limit_in_the_new_process_holds_for_both() {
    for (limit, room) in [("2", "1.5"), ("0.8", "0.3"), ("0.1", "0")] {
        let dir = tempfile::tempdir().unwrap();
        let old = open(dir.path());
        let before = rule("day", "1", vec![]);
        assert!(has_room(&old, &before, "1", after(0)));
        let new = come(dir.path(), &old);
        let then = rule("day", limit, vec![]);
        assert!(reserve(&new, &[&then], Cost(dollars(room).0 + 1), after(0)).is_err());
        assert!(has_room(&new, &then, room, after(0)), "{limit}");
        assert!(has_room(&old, &before, "0.5", after(0)));
        assert!(!has_room(&old, &before, "0.51", after(0)));
        // Nor does it help the old one that it is told of a higher limit now.
        assert!(!has_room(&old, &rule("day", "9", vec![]), "0.51", after(0)));
    }
}

#[test]
fn three_processes_share_too() {
    let dir = tempfile::tempdir().unwrap();
    let day = rule("day", "1", vec![]);
    let first = open(dir.path());
    spend(&first, &day, dollars("0.2"), after(0));
    let second = come(dir.path(), &first);
    first.retire_within(SOON).unwrap();
    second.share_within(SOON).unwrap();
    spend(&second, &day, dollars("0.2"), after(0));
    let third = come(dir.path(), &second);
    first.share_within(SOON).unwrap();
    assert_eq!(remaining(&first, after(0)), Cost::ZERO);
    assert_eq!(remaining(&second, after(0)), dollars("0.3"));
    assert_eq!(remaining(&third, after(0)), dollars("0.3"));
    drop(second);
    third.share_within(SOON).unwrap();
    assert_eq!(remaining(&third, after(0)), dollars("0.6"));
    drop(first);
    third.share_within(SOON).unwrap();
    let look = reading(&third, "day", after(0));
    assert_eq!(
        (look.spent, look.remaining),
        (dollars("0.4"), dollars("0.6"))
    );
}

/// The middle one of three goes, and the last: what they had comes back to the first.
#[test]
fn whoever_is_left_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let day = rule("day", "1", vec![]);
    let first = open(dir.path());
    let second = come(dir.path(), &first);
    let third = come(dir.path(), &second);
    for budgets in [&first, &second, &third] {
        spend(budgets, &day, dollars("0.1"), after(0));
    }
    drop(third);
    drop(second);
    first.share_within(SOON).unwrap();
    let look = reading(&first, "day", after(0));
    assert_eq!(
        (look.spent, look.remaining),
        (dollars("0.3"), dollars("0.7"))
    );
}

#[test]
fn an_old_process_that_says_nothing_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let day = rule("day", "1", vec![]);
    let old = open(dir.path());
    let file = rusqlite::Connection::open(dir.path().join("spend.db")).unwrap();
    let refuse =
        "CREATE TRIGGER full BEFORE UPDATE ON processes BEGIN SELECT RAISE(ABORT, 'full'); END";
    file.execute_batch(refuse).unwrap();
    let impatient = Options {
        patience: Duration::from_millis(100),
        ..options(after(0))
    };
    let new = Budgets::open(dir.path(), impatient).unwrap();
    assert!(old.share_within(SOON).is_err());
    wait_for(|| has_room(&new, &day, "0.5", after(0)));
    assert!(!has_room(&new, &day, "0.51", after(0)));
    assert!(!has_room(&old, &day, "0.51", after(0)));
}

/// What threads of two processes have taken, counted so that it is never more than it is.
struct Taken {
    limit: u64,
    taken: AtomicU64,
    tries: AtomicU64,
    stop: AtomicBool,
}

impl Taken {
    fn hammer(&self, budgets: &Budgets, rule: &Rule, seed: u64) {
        let mut dice = seed;
        while !self.stop.load(Ordering::SeqCst) {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let asked = 1 + (dice >> 33) % 40;
            self.try_once(budgets, rule, asked, (dice >> 40) % (asked + 1));
        }
    }

    fn try_once(&self, budgets: &Budgets, rule: &Rule, asked: u64, cost: u64) -> bool {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let Ok(held) = reserve(budgets, &[rule], Cost(asked), after(0)) else {
            std::thread::yield_now();
            return false;
        };
        let taken = self.taken.fetch_add(asked, Ordering::SeqCst) + asked;
        assert!(taken <= self.limit, "{taken} of {}", self.limit);
        self.taken.fetch_sub(asked - cost, Ordering::SeqCst);
        held.settle(Cost(cost), after(0));
        true
    }

    fn wait(&self) {
        let now = self.tries.load(Ordering::SeqCst);
        wait_for(|| self.tries.load(Ordering::SeqCst) > now + 2_000);
    }
}

/// Old and new spend from many threads, through every step of an upgrade: never more than there is,
/// and in the end all of it.
#[test]
fn an_upgrade_changes_nothing() {
    for limit in [500, 20_000, 1_000_000_000] {
        let dir = tempfile::tempdir().unwrap();
        let day = Rule {
            limit: Cost(limit),
            ..rule("day", "1", vec![])
        };
        let taken = Taken {
            limit,
            taken: AtomicU64::new(0),
            tries: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        let old = open(dir.path());
        let new = upgraded(dir.path(), &old, &day, &taken);
        // What is left can be spent to the last.
        let left = remaining(&new, after(0)).0;
        assert_eq!(left, limit - taken.taken.load(Ordering::SeqCst));
        assert!(left == 0 || taken.try_once(&new, &day, left, left));
        assert_eq!(taken.taken.load(Ordering::SeqCst), limit);
        assert!(!taken.try_once(&new, &day, 1, 1));
        drop((old, new));
        assert_eq!(
            reading(&open(dir.path()), "day", after(0)).spent,
            Cost(limit)
        );
    }
}

fn upgraded(dir: &Path, old: &Budgets, day: &Rule, taken: &Taken) -> Budgets {
    let new = std::thread::scope(|threads| {
        for seed in 0..4 {
            threads.spawn(move || taken.hammer(old, day, seed));
        }
        taken.wait();
        let new = Arc::new(open(dir));
        hand_over(old, &new);
        for seed in 4..8 {
            let new = Arc::clone(&new);
            threads.spawn(move || taken.hammer(&new, day, seed));
        }
        taken.wait();
        old.retire_within(SOON).unwrap();
        taken.wait();
        taken.stop.store(true, Ordering::SeqCst);
        new
    });
    old.end_within(SOON).unwrap();
    new.share_within(SOON).unwrap();
    Arc::into_inner(new).unwrap()
}
