//! Marginals: what is written of them, who reads them, and files that have none yet.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::super::figures::Figures;
use super::super::query::PARTS;
use super::super::schema;
use super::super::series::{Dimension, of_text};
use super::recount::{self, TIMES};
use super::*;

/// What is found while the file is one of version 1, whose marginals nobody reads.
pub fn without<T>(dir: &Path, find: impl FnOnce() -> T) -> T {
    let connection = schema::open(dir).unwrap();
    let set = |version: i64| connection.pragma_update(None, "user_version", version);
    set(1).unwrap();
    let found = find();
    set(2).unwrap();
    found
}

/// Figures by time and name.
type Rows = BTreeMap<(i64, Vec<String>), Figures>;

/// Rows of a dimension or marginal.
fn rows(connection: &Connection, table: &str, number: i64) -> Rows {
    let mut select = connection
        .prepare(&format!(
            "SELECT at, name, figures, requests FROM {table} JOIN series ON id = series
             WHERE {table}.dimension = ?1"
        ))
        .unwrap();
    let mut found = select.query([number]).unwrap();
    let mut rows = Rows::new();
    while let Some(row) = found.next().unwrap() {
        let name: String = row.get(1).unwrap();
        let figures = Figures::decode(row.get_ref(2).unwrap().as_blob().unwrap()).unwrap();
        assert_eq!(figures.requests as i64, row.get::<_, i64>(3).unwrap());
        let known = rows.insert((row.get(0).unwrap(), of_text(&name)), figures);
        assert!(known.is_none(), "{name} is there twice");
    }
    rows
}

/// Every hour and day has the marginals that are the sums of its calls, and nothing else has.
/// Gives how many hours and days there are.
pub fn check(dir: &Path) -> [usize; 2] {
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    // One moment of the file: the writers tidy up by themselves meanwhile.
    let _moment = connection.unchecked_transaction().unwrap();
    ["hours", "days"].map(|table| {
        let calls = rows(&connection, table, Dimension::Calls.number());
        for part in 0..PARTS.len() {
            let mut sums = Rows::new();
            for ((at, name), figures) in &calls {
                let mut short = vec![String::new(); PARTS.len()];
                short[0].clone_from(&name[0]);
                short[part].clone_from(&name[part]);
                sums.entry((*at, short)).or_default().add(figures);
            }
            let found = rows(&connection, table, 10 + part as i64);
            assert!(found == sums, "{table} by {}", PARTS[part]);
        }
        let times: std::collections::BTreeSet<i64> = calls.keys().map(|(at, _)| *at).collect();
        times.len()
    })
}

/// How many hours and days have marginals.
pub fn count(dir: &Path) -> [i64; 2] {
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    ["hours", "days"].map(|table| {
        let times = format!("SELECT COUNT(DISTINCT at) FROM {table} WHERE dimension >= 10");
        connection.query_row(&times, [], |row| row.get(0)).unwrap()
    })
}

/// Makes a file what version 1 would have written.
pub fn strip(dir: &Path) {
    let connection = schema::open(dir).unwrap();
    connection
        .execute_batch(
            "DELETE FROM hours WHERE dimension >= 10;
             DELETE FROM days WHERE dimension >= 10;
             DELETE FROM series WHERE id NOT IN
                 (SELECT series FROM minutes
                  UNION SELECT series FROM hours UNION SELECT series FROM days);
             PRAGMA user_version = 1;",
        )
        .unwrap();
}

/// Three days, of which the third is not over, and one request that came late for the second.
fn filled(dir: &Path, hand: &Hand) -> Vec<RequestRecord> {
    let store = open(dir, hand);
    let mut records = recount::records(1_500);
    recount::observe(&store, hand, &records);
    hand.set(DAY_0 + 2 * DAY + 5 * HOUR);
    store.tidy().unwrap();
    let late = Maker::new(4).record(DAY_0 + DAY + 7 * HOUR);
    store.observe(&late);
    store.flush().unwrap();
    records.push(late);
    records
}

#[test]
fn a_file_of_version_1_is_answered_from_before_and_after_it_is_opened_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let records = filled(dir.path(), &hand);
    let made = check(dir.path());
    strip(dir.path());
    let asked = |group_by| query(DAY_0, DAY_0 + 3 * DAY, &[("group_by", group_by)]);
    for group_by in PARTS {
        let answer = ask(dir.path(), &asked(group_by));
        naive::check(&records, &answer, &[], 10);
    }
    let connection = schema::open_to_read(dir.path()).unwrap().unwrap();
    assert!(!schema::has_marginals(&connection).unwrap());
    let mut reader = Reader::open(dir.path(), Duration::from_secs(60)).unwrap();
    for _ in 0..2 {
        let answer = reader.answer(&asked("model")).unwrap();
        assert_eq!(answer.totals.requests, 1_501);
        schema::open(dir.path()).unwrap();
    }
    assert!(schema::has_marginals(&connection).unwrap());
    assert_eq!(check(dir.path()), made);
    recount::check_all(dir.path(), &records, &[TIMES[0], TIMES[3]]);
    // What is made of it later is as if it had always been so.
    let store = open(dir.path(), &hand);
    hand.set(DAY_0 + 3 * DAY + HOUR);
    store.tidy().unwrap();
    assert_eq!(store.problem(), None);
    recount::check_all(dir.path(), &records, &TIMES[3..4]);
    assert!(check(dir.path()) > made);
}

#[test]
fn what_a_marginal_says_is_read_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    filled(dir.path(), &hand);
    let told = |interval, asked: &[(&str, &str)]| {
        let asked = [asked, &[("interval", interval)]].concat();
        requests(dir.path(), DAY_0, DAY_0 + DAY, &asked)
    };
    let all = told("1h", &[]);
    let connection = schema::open(dir.path()).unwrap();
    let calls = "DELETE FROM hours WHERE dimension = 0; DELETE FROM days WHERE dimension = 0";
    connection.execute_batch(calls).unwrap();
    for interval in ["1h", "6h", "1d"] {
        let told = |asked: &[(&str, &str)]| told(interval, asked);
        assert_eq!(told(&[]), all);
        let none = ("gateway", "(none)");
        assert!(told(&[none]) > 0 && told(&[none]) < all);
        for part in PARTS {
            assert_eq!(told(&[("group_by", part)]), all, "{part} at {interval}");
            assert_eq!(told(&[("group_by", part), none]), told(&[none]));
        }
        assert_eq!(told(&[("group_by", "user_agent")]), all);
        let openai = told(&[("provider", "openai")]);
        assert!(openai > 0 && openai < all);
        let both = [("provider", "openai"), ("group_by", "model")];
        assert_eq!(told(&both), 0, "two parts are in no marginal");
    }
}
