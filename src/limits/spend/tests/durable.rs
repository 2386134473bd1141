//! What is spent outlives the process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::*;

/// Where the child spends; unset in any other run.
const DIR: &str = "TOLLGATE_TEST_SPEND";
const SOON: Duration = Duration::from_secs(60);

/// A clock that stands.
pub(super) fn options(now: SystemTime) -> Options {
    Options {
        flush: Duration::from_millis(20),
        exchange: Duration::from_millis(5),
        retry: Duration::from_millis(50),
        patience: SOON,
        clock: Arc::new(move || now),
    }
}

pub(super) fn open(dir: &Path) -> Budgets {
    Budgets::open(dir, options(after(0))).unwrap()
}

pub(super) fn per_user() -> Rule {
    let user = Field::Metadata("user".into());
    rule("per-user", "1", vec![(user, Select::Partition)])
}

pub(super) fn spend(budgets: &Budgets, rule: &Rule, cost: Cost, now: SystemTime) {
    reserve(budgets, &[rule], cost, now)
        .unwrap()
        .settle(cost, now);
}

pub(super) fn wait_for(what: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < until, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn alarm(budgets: &Budgets) -> u64 {
    budgets.counters().alarm.load(Ordering::Relaxed)
}

/// What the file has of all processes together.
fn stored(dir: &Path) -> (i64, i64) {
    let file = rusqlite::Connection::open(dir.join("spend.db")).unwrap();
    let select = "SELECT COUNT(*), COALESCE(SUM(spent), 0) FROM accounts";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    file.query_row(select, [], read).unwrap()
}

#[test]
fn what_was_spent_is_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let sliding = Rule {
        window: Window::Sliding(3_600),
        ..rule("slides", "1", vec![])
    };
    let (day, alice) = (
        rule("day", "1", vec![]),
        metadata(&[("user", "älice \"1\"")]),
    );
    for round in 1..=3 {
        let budgets = open(dir.path());
        let rules = [&day, &per_user()];
        let held = reserve_for(&budgets, &rules, &alice, dollars("0.5"), after(0)).unwrap();
        held.settle(dollars("0.1"), after(0));
        spend(&budgets, &sliding, dollars("0.1"), after(3_600 * round));
        // What is set aside ends with its process.
        let running = reserve(&budgets, &[&day], dollars("0.2"), after(0)).unwrap();
        drop(budgets);
        drop(running);
    }
    let budgets = open(dir.path());
    let readings = budgets.readings(after(0));
    let known: Vec<_> = readings
        .iter()
        .map(|look| (&*look.rule, look.spent, look.reserved))
        .collect();
    let spent = dollars("0.3");
    assert_eq!(
        known[..2],
        [("day", spent, Cost::ZERO), ("per-user", spent, Cost::ZERO)]
    );
    assert_eq!(
        readings[1].partition,
        [("metadata.user".into(), "älice \"1\"".into())].into()
    );
    assert_eq!(
        (readings[0].limit, readings[0].window),
        (day.limit, day.window)
    );
    let later = reading(&budgets, "slides", after(3_600 * 3 + 1_800));
    assert_eq!(
        later.spent,
        dollars("0.15"),
        "and half of the window before"
    );
    assert!(reserve(&budgets, &[&day], dollars("0.7"), after(0)).is_ok());
    assert!(reserve(&budgets, &[&day], dollars("0.71"), after(0)).is_err());
    assert!(reserve(&budgets, &[&day], dollars("1"), after(86_400)).is_ok());
}

#[test]
fn what_is_spent_is_written_by_and_by_and_what_is_worthless_goes() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = open(dir.path());
    let (day, per_user) = (rule("day", "1", vec![]), per_user());
    spend(&budgets, &day, Cost(7), after(0));
    wait_for(|| stored(dir.path()) == (1, 7));
    for user in ["a", "b"] {
        let said = metadata(&[("user", user)]);
        let held = reserve_for(&budgets, &[&per_user], &said, Cost(5), after(0)).unwrap();
        held.settle(Cost(3), after(0));
    }
    budgets.flush_within(SOON).unwrap();
    assert_eq!(stored(dir.path()), (3, 13));
    budgets.sweep(after(86_399));
    budgets.flush_within(SOON).unwrap();
    assert_eq!(stored(dir.path()), (3, 13));
    budgets.sweep(after(86_400));
    budgets.flush_within(SOON).unwrap();
    assert_eq!(stored(dir.path()), (0, 0));
    assert_eq!(alarm(&budgets), 0);
}

/// Not a test: the process that is killed. It says what it has spent.
#[test]
#[ignore = "run by tests, in a process of its own"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let options = Options {
        clock: Arc::new(|| after(0)),
        ..Options::default()
    };
    let budgets = Budgets::open(Path::new(&dir), options).unwrap();
    let day = rule("day", "1", vec![]);
    let mut out = std::io::stdout();
    for number in 1_u64.. {
        if let Ok(held) = reserve(&budgets, &[&day], Cost(1_000), after(0)) {
            held.settle(Cost(1), after(0));
            writeln!(out, "spent {number}").unwrap();
        } else {
            writeln!(out, "refused {number}").unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn start_child(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "limits::spend::tests::durable::child";
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads until a line is as wanted; how often and when the child has spent.
pub(super) fn lines_until(child: &mut Child, wanted: impl Fn(usize) -> bool) -> Vec<Instant> {
    let mut spent = Vec::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("spent ") {
            spent.push(Instant::now());
        }
        if wanted(spent.len()) {
            break;
        }
    }
    spent
}

#[test]
fn a_kill_costs_a_second_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let mut least = 0;
    for round in 1..=3 {
        let mut child = start_child(dir.path());
        let began = Instant::now();
        let long = Duration::from_millis(1_500 + 300 * round);
        let spent = lines_until(&mut child, |_| began.elapsed() > long);
        let killed = Instant::now();
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let second = Duration::from_secs(1);
        let earlier = spent.iter().filter(|when| killed - **when > second).count();
        assert!(earlier > 50, "it had time");
        let budgets = open(dir.path());
        let known = reading(&budgets, "day", after(0)).spent.0;
        assert!(
            known >= least + earlier as u64,
            "{known} of {least} and {earlier}"
        );
        least = known;
    }
}

#[test]
fn a_file_of_something_else_stays_and_budgets_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = vec![0x5a; 10_000];
    std::fs::write(dir.path().join("spend.db"), &garbage).unwrap();
    let budgets = open(dir.path());
    let day = rule("day", "1", vec![]);
    spend(&budgets, &day, dollars("0.6"), after(0));
    assert!(reserve(&budgets, &[&day], dollars("0.5"), after(0)).is_err());
    assert_eq!(alarm(&budgets), 1);
    let told = budgets.flush_within(SOON).unwrap_err();
    assert!(
        told.contains("is damaged") && told.contains("move it away"),
        "{told}"
    );
    for order in [
        Budgets::share_within,
        Budgets::retire_within,
        Budgets::end_within,
    ] {
        assert!(order(&budgets, SOON).is_err());
    }
    drop(budgets);
    let after = std::fs::read(dir.path().join("spend.db")).unwrap();
    assert!(after == garbage, "not one byte changed");
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("limits");
    std::fs::write(&inner, "in the way").unwrap();
    let budgets = open(&inner);
    let day = rule("day", "1", vec![]);
    spend(&budgets, &day, dollars("0.25"), after(0));
    assert!(budgets.flush_within(SOON).is_err());
    assert_eq!(alarm(&budgets), 1);
    std::fs::remove_file(&inner).unwrap();
    wait_for(|| budgets.flush_within(SOON).is_ok());
    assert_eq!(alarm(&budgets), 0);
    assert!(budgets.counters().errors.load(Ordering::Relaxed) > 0);
    drop(budgets);
    let spent = reading(&open(&inner), "day", after(0)).spent;
    assert_eq!(spent, dollars("0.25"));
}

#[test]
fn a_database_that_takes_nothing_stops_no_budget() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = open(dir.path());
    let day = rule("day", "1", vec![]);
    let other = rusqlite::Connection::open(dir.path().join("spend.db")).unwrap();
    // As if the disk were full.
    let refuse =
        "CREATE TRIGGER full BEFORE INSERT ON accounts BEGIN SELECT RAISE(ABORT, 'full'); END";
    other.execute_batch(refuse).unwrap();
    spend(&budgets, &day, dollars("0.25"), after(0));
    assert!(budgets.flush_within(SOON).unwrap_err().contains("full"));
    assert_eq!(alarm(&budgets), 1);
    spend(&budgets, &day, dollars("0.5"), after(0));
    assert!(reserve(&budgets, &[&day], dollars("0.3"), after(0)).is_err());
    other.execute_batch("DROP TRIGGER full").unwrap();
    wait_for(|| budgets.flush_within(SOON).is_ok());
    assert_eq!(stored(dir.path()), (1, dollars("0.75").0 as i64));
    assert_eq!(alarm(&budgets), 0);
}

#[test]
fn the_end_waits_until_all_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = open(dir.path());
    let day = rule("day", "1", vec![]);
    spend(&budgets, &day, Cost(5), after(0));
    budgets.flush_within(SOON).unwrap();
    let counter = AtomicU64::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..1_000 {
                spend(&budgets, &day, Cost(1), after(0));
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..10 {
            budgets.flush_within(SOON).unwrap();
        }
    });
    budgets.end_within(SOON).unwrap();
    assert_eq!(
        stored(dir.path()).1,
        5 + counter.load(Ordering::Relaxed) as i64
    );
    assert_eq!(
        budgets.flush_within(SOON),
        Ok(()),
        "there is nothing more to do"
    );
}
