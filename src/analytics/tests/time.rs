//! Retention, and questions that go further back than what is kept.

use super::super::schema::{self, Level};
use super::*;

/// One request an hour, for days.
fn filled(dir: &Path, hand: &Hand, days: i64) -> Store {
    let options = Options {
        minutes: Duration::from_secs(86_400),
        hours: Duration::from_secs(5 * 86_400),
        days: Duration::from_secs(20 * 86_400),
        ..hand.options()
    };
    let store = Store::open(dir, options).unwrap();
    let mut maker = Maker::new(8);
    for hour in 0..days * 24 {
        let mut record = maker.record(DAY_0 + hour * HOUR);
        // Each day has a model of its own.
        record.model = Some(format!("model-{}", hour / 24).into());
        hand.set(DAY_0 + hour * HOUR + 60);
        store.observe(&record);
        store.flush().unwrap();
        if hour % 7 == 0 {
            store.tidy().unwrap();
        }
    }
    hand.set(DAY_0 + days * DAY + 120);
    store.tidy().unwrap();
    store
}

fn rows(dir: &Path, sql: &str) -> i64 {
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn rows_go_when_their_time_is_over_and_totals_stay() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let store = filled(dir.path(), &hand, 30);
    let end = DAY_0 + 30 * DAY;
    for (level, kept) in [("minutes", 1), ("hours", 5), ("days", 20)] {
        let oldest = rows(dir.path(), &format!("SELECT MIN(at) FROM {level}"));
        assert_eq!((end - oldest) / DAY, kept, "{level}");
    }
    assert_eq!(requests(dir.path(), end - 20 * DAY, end, &[]), 20 * 24);
    assert_eq!(requests(dir.path(), end - 5 * DAY, end, &[]), 5 * 24);
    assert_eq!(requests(dir.path(), end - DAY, end, &[]), 24);
    // Series of models that are in no row any more are gone, but for a day or two.
    let models =
        "SELECT COUNT(DISTINCT json_extract(name, '$[2]')) FROM series WHERE dimension = 0";
    assert!((20..=25).contains(&rows(dir.path(), models)));
    assert_eq!(store.problem(), None);
    let named = ask(
        dir.path(),
        &query(end - 20 * DAY, end, &[("group_by", "model")]),
    );
    assert_eq!(named["groups"].as_array().unwrap().len(), 11);
}

#[test]
fn what_is_only_kept_coarsely_is_told_coarsely() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let _store = filled(dir.path(), &hand, 10);
    let end = DAY_0 + 10 * DAY;
    let asked = |start: i64, interval: &str| {
        let answer = ask(dir.path(), &query(start, end, &[("interval", interval)]));
        let number = |name: &str| answer[name].as_i64().unwrap();
        let total = answer["totals"]["requests"].as_i64().unwrap();
        (number("interval_s"), number("start"), total)
    };
    // Minutes of one day, hours of five.
    let start = end - 20 * HOUR + 300;
    assert_eq!(asked(start, "5m"), (300, start, 19));
    assert_eq!(asked(end - 2 * DAY + 300, "5m"), (3_600, end - 2 * DAY, 48));
    assert_eq!(
        asked(end - 6 * DAY + HOUR, "1h"),
        (86_400, end - 6 * DAY, 144)
    );
    let start = end - 5 * DAY - HOUR;
    assert_eq!(asked(start, "5m"), (86_400, end - 6 * DAY, 144));
}

#[test]
fn nothing_is_removed_before_it_was_added_up() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let mut maker = Maker::new(8);
    for minute in 0..300 {
        store.observe(&maker.record(DAY_0 + minute * 60));
        hand.set(DAY_0 + minute * 60);
        store.flush().unwrap();
    }
    // The process was away for a month.
    hand.set(DAY_0 + 30 * DAY);
    store.tidy().unwrap();
    assert_eq!(rows(dir.path(), "SELECT COUNT(*) FROM minutes"), 0);
    assert_eq!(rows(dir.path(), "SELECT COUNT(*) FROM dirty"), 0);
    for interval in ["1h", "1d"] {
        let asked = [("interval", interval)];
        assert_eq!(requests(dir.path(), DAY_0, DAY_0 + DAY, &asked), 300);
    }
    // What comes later than its minute is kept does not undo the hour that was made.
    store.observe(&maker.record(DAY_0));
    store.flush().unwrap();
    store.tidy().unwrap();
    assert_eq!(
        requests(dir.path(), DAY_0, DAY_0 + DAY, &[("interval", "1h")]),
        300
    );
    let counters = store.counters();
    assert_eq!(super::super::counters::read(&counters.minutes_dropped), 1);
    assert_eq!(super::super::counters::read(&counters.requests_dropped), 1);
}

#[test]
fn the_time_of_a_level_waits_for_what_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    drop(open(dir.path(), &hand));
    let mut connection = schema::open(dir.path()).unwrap();
    schema::mark_dirty(
        &connection,
        Level::Hour,
        super::super::series::Dimension::Calls,
        DAY_0,
    )
    .unwrap();
    // The writer has moved it already, if it came so far.
    let before = schema::since(&connection, Level::Minute).unwrap();
    let day = Duration::from_secs(86_400);
    let kept = super::super::retention::Kept::new(day, day, day);
    let counters = Default::default();
    super::super::retention::step(&mut connection, kept, DAY_0 + 9 * DAY, &counters).unwrap();
    assert_eq!(schema::since(&connection, Level::Minute).unwrap(), before);
}
