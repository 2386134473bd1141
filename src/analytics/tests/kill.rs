//! SIGKILL in the middle of writing, and of making hours and days.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::super::query::PARTS;
use super::super::schema;
use super::*;

/// Where the child writes; unset in any other run.
const DIR: &str = "TOLLGATE_TEST_ANALYTICS";

/// Requests between two flushes, and seconds between two requests.
const PER_FLUSH: u64 = 100;
const APART: i64 = 20;

/// A request that tells its number by what it costs.
fn numbered(maker: &mut Maker, number: u64) -> RequestRecord {
    let mut record = maker.record(DAY_0 + number as i64 * APART);
    record.duration = Duration::from_millis(5);
    record.spent = Spent {
        cost: Some(Cost(number)),
        ..Spent::default()
    };
    record
}

/// Not a test: the process that is killed. It numbers its requests, says what was flushed, and
/// makes hours and days as they come.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let hand = Hand::new(DAY_0);
    let store = open(Path::new(&dir), &hand);
    let mut maker = Maker::new(3);
    let mut out = std::io::stdout();
    for number in 0.. {
        let record = numbered(&mut maker, number);
        hand.set(DAY_0 + number as i64 * APART);
        store.observe(&record);
        if number % PER_FLUSH == PER_FLUSH - 1 {
            store.flush().unwrap();
            writeln!(out, "flushed {}", number + 1).unwrap();
            store.tidy().unwrap();
        }
    }
}

#[test]
fn what_was_flushed_survives_a_kill_and_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let path = dir.path().join(round.to_string());
        let flushed = killed_once(&path, 1_500 + 777 * round);
        check(&path, flushed);
    }
}

/// Kills the child some time after it flushed so many; gives how many it said.
fn killed_once(dir: &Path, after: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "analytics::tests::kill::child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut flushed = 0;
    let mut killed_at = None;
    for line in lines {
        let line = line.unwrap();
        let number = line.strip_prefix("flushed ").and_then(|n| n.parse().ok());
        flushed = number.unwrap_or(flushed);
        if flushed > after && killed_at.is_none() {
            std::thread::sleep(Duration::from_millis(after % 13));
            child.kill().unwrap(); // SIGKILL
            killed_at = Some(Instant::now());
        }
    }
    assert!(killed_at.is_some(), "the child ended by itself");
    child.wait().unwrap();
    flushed
}

/// Sums of requests and cost, in pico-dollars.
fn totals(dir: &Path, interval: &str, more: &[(&str, &str)]) -> (u64, u128) {
    let asked = [more, &[("interval", interval)]].concat();
    let mut reader = Reader::open(dir, Duration::from_secs(60)).unwrap();
    let answer = reader
        .answer(&query(DAY_0, DAY_0 + 20 * DAY, &asked))
        .unwrap();
    (answer.totals.requests, answer.totals.cost)
}

fn check(dir: &Path, flushed: u64) {
    let (count, cost) = totals(dir, "1h", &[]);
    assert!(
        count >= flushed && count <= flushed + PER_FLUSH,
        "{count}, {flushed} were flushed"
    );
    // Those that are there are the first ones, each once.
    let first = |count: u64| u128::from(count) * u128::from(count - 1) / 2;
    assert_eq!(cost, first(count));
    for interval in ["1h", "6h", "1d"] {
        for group_by in PARTS.into_iter().chain(["user_agent", "metadata.team"]) {
            let sum = totals(dir, interval, &[("group_by", group_by)]);
            assert_eq!(sum, (count, cost), "{interval} by {group_by}");
        }
    }
    marginals::check(dir);
    // A process that comes after it, in the same minute, goes on.
    let hand = Hand::new(DAY_0 + count as i64 * APART);
    let store = open(dir, &hand);
    let mut maker = Maker::new(4);
    for number in count..count + 50 {
        store.observe(&numbered(&mut maker, number));
    }
    store.flush().unwrap();
    assert_eq!(totals(dir, "1d", &[]), (count + 50, first(count + 50)));
    hand.set(DAY_0 + 20 * DAY);
    store.tidy().unwrap();
    assert_eq!(totals(dir, "1d", &[]), (count + 50, first(count + 50)));
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    let dirty: i64 = connection
        .query_row("SELECT COUNT(*) FROM dirty", [], |row| row.get(0))
        .unwrap();
    assert_eq!(dirty, 0);
    assert!(marginals::check(dir) > [0, 0]);
}
