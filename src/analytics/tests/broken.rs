//! Databases that are full, damaged, not writable or not there.

use std::process::{Command, Stdio};

use super::super::counters::read;
use super::super::schema;
use super::*;

fn store_at(dir: &Path) -> Store {
    open(dir, &Hand::new(DAY_0))
}

#[test]
fn what_is_not_there_yet_has_no_requests() {
    let dir = tempfile::tempdir().unwrap();
    let asked = query(
        DAY_0,
        DAY_0 + HOUR,
        &[("group_by", "model"), ("interval", "1m")],
    );
    let mut reader = Reader::open(dir.path(), Duration::from_secs(9)).unwrap();
    let answer = reader.answer(&asked).unwrap();
    assert_eq!((answer.totals.requests, answer.points.len()), (0, 60));
    assert!(answer.groups.is_empty());
    let store = store_at(dir.path());
    store.observe(&Maker::new(1).record(DAY_0));
    store.flush().unwrap();
    assert_eq!(reader.answer(&asked).unwrap().totals.requests, 1);
}

#[test]
fn what_is_observed_is_written_within_a_second_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    let mut maker = Maker::new(1);
    store.observe(&maker.record(DAY_0));
    wait_for(|| requests(dir.path(), DAY_0, DAY_0 + HOUR, &[]) == 1);
    store.observe(&maker.record(DAY_0));
    wait_for(|| requests(dir.path(), DAY_0, DAY_0 + HOUR, &[]) == 2);
    let clone = store.clone();
    clone.observe(&maker.record(DAY_0));
    drop((store, clone));
    assert_eq!(requests(dir.path(), DAY_0, DAY_0 + HOUR, &[]), 3);
}

#[test]
fn a_file_of_something_else_stops_it_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = vec![0x5a; 10_000];
    std::fs::write(schema::path(dir.path()), &garbage).unwrap();
    let store = store_at(dir.path());
    assert_eq!(read(&store.counters().alarm), 1);
    let problem = store.problem().unwrap();
    assert!(problem.contains("analytics.db is damaged") && problem.contains("move it away"));
    let mut maker = Maker::new(1);
    (0..10).for_each(|at| store.observe(&maker.record(DAY_0 + at)));
    assert_eq!(read(&store.counters().requests_dropped), 10);
    assert!(store.flush().unwrap_err().contains("damaged"));
    assert!(Reader::open(dir.path(), Duration::ZERO).is_err());
    drop(store);
    assert_eq!(std::fs::read(schema::path(dir.path())).unwrap(), garbage);
}

#[test]
fn damage_that_is_met_later_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut maker = Maker::new(1);
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    (0..1_000).for_each(|at| store.observe(&maker.record(DAY_0 + at)));
    drop(store);
    let path = schema::path(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8_192..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path(), &hand);
    store.observe(&maker.record(DAY_0));
    let _ = store.flush();
    assert_eq!(read(&store.counters().alarm), 1);
    assert!(store.problem().unwrap().contains("restart"));
    let mut reader = Reader::open(dir.path(), Duration::from_secs(9));
    let answered = reader
        .as_mut()
        .map(|reader| reader.answer(&query(DAY_0, DAY_0 + HOUR, &[])));
    assert!(!matches!(answered, Ok(Ok(_))));
}

#[test]
fn rows_that_are_no_figures_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let mut maker = Maker::new(1);
    (0..3).for_each(|hour| store.observe(&maker.record(DAY_0 + hour * HOUR)));
    store.flush().unwrap();
    let connection = schema::open(dir.path()).unwrap();
    let damage = "UPDATE minutes SET figures = x'010203' WHERE at < ?1 + 3600";
    connection.execute(damage, [DAY_0]).unwrap();
    assert_eq!(requests(dir.path(), DAY_0, DAY_0 + DAY, &[]), 2);
    hand.set(DAY_0 + 2 * DAY);
    store.tidy().unwrap();
    assert!(read(&store.counters().rows_damaged) >= 2);
    assert_eq!(
        requests(dir.path(), DAY_0, DAY_0 + DAY, &[("interval", "1d")]),
        2
    );
    // Series that have lost their names.
    connection.execute("DELETE FROM series", []).unwrap();
    let asked = [("interval", "1d"), ("group_by", "model")];
    let answer = ask(dir.path(), &query(DAY_0, DAY_0 + DAY, &asked));
    assert_eq!(answer["totals"]["requests"], 2);
    assert_eq!(answer["groups"][0]["name"], "(other)");
}

#[test]
fn a_newer_file_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    schema::open(dir.path())
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    let store = store_at(dir.path());
    store.observe(&Maker::new(1).record(DAY_0));
    assert!(store.problem().unwrap().contains("has version 7"));
    assert_eq!(read(&store.counters().requests_dropped), 1);
}

#[test]
fn a_directory_that_cannot_be_made_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    let store = store_at(&path.join("analytics"));
    store.observe(&Maker::new(1).record(DAY_0));
    assert_eq!(read(&store.counters().alarm), 1);
    assert!(store.problem().unwrap().contains("file/analytics"));
    std::fs::remove_file(&path).unwrap();
    wait_for(|| store.flush().is_ok());
    assert_eq!((store.problem(), read(&store.counters().alarm)), (None, 0));
    assert_eq!(
        requests(&path.join("analytics"), DAY_0, DAY_0 + DAY, &[]),
        1
    );
}

/// A small file system of its own at `path`; only root can have one.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(path: &'a Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mount = mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path);
        let done = mount.stderr(Stdio::null()).status().ok()?.success();
        if !done {
            eprintln!("SKIPPED: cannot mount a file system here");
        }
        done.then_some(Self(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_stops_it_and_nothing_is_lost_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(dir.path(), "size=4m") else {
        return;
    };
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let mut maker = Maker::new(1);
    store.observe(&maker.record(DAY_0));
    store.flush().unwrap();
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap_err();
    // More rows than what little room is left in the files takes.
    let mut observed = 1;
    for minute in 0..30 {
        hand.set(DAY_0 + minute * 60);
        for number in 0..200 {
            let mut record = maker.record(DAY_0 + minute * 60);
            record.model = Some(format!("model-{number}").into());
            store.observe(&record);
            observed += 1;
        }
        let _ = store.flush();
    }
    let counters = store.counters();
    assert_eq!(read(&counters.alarm), 1);
    assert!(
        store.problem().unwrap().contains("full"),
        "{:?}",
        store.problem()
    );
    std::fs::remove_file(&ballast).unwrap();
    wait_for(|| store.flush().is_ok());
    assert_eq!((store.problem(), read(&counters.alarm)), (None, 0));
    assert_eq!(read(&counters.requests_dropped), 0);
    assert_eq!(requests(dir.path(), DAY_0, DAY_0 + DAY, &[]), observed);
}

#[test]
fn a_disk_that_stays_full_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(dir.path(), "size=1m,ro") else {
        return;
    };
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let mut maker = Maker::new(1);
    for minute in 0..500 {
        hand.set(DAY_0 + minute * 60);
        store.observe(&maker.record(DAY_0 + minute * 60));
        let _ = store.flush();
    }
    let counters = store.counters();
    assert_eq!(read(&counters.alarm), 1);
    assert_eq!(read(&counters.minutes_dropped), 440);
    assert_eq!(read(&counters.requests_dropped), 440);
}

#[test]
fn an_answer_that_takes_too_long_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    let mut maker = Maker::new(1);
    (0..3_000).for_each(|at| store.observe(&maker.record(DAY_0 + at)));
    store.flush().unwrap();
    let mut reader = Reader::open(dir.path(), Duration::ZERO).unwrap();
    let error = reader.answer(&query(DAY_0, DAY_0 + HOUR, &[])).unwrap_err();
    assert!(
        matches!(error, crate::database::ReadError::TooSlow(_)),
        "{error}"
    );
    assert!(
        error.to_string().contains("ask for a shorter time"),
        "{error}"
    );
}
