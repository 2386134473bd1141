//! What analytics cost. A small run is a test; a measurement is
//! `ANALYTICS_REQUESTS=10000000 cargo test --profile measure --lib analytics::tests::bench -- --nocapture`.

use nix::sys::resource::{UsageWho, getrusage};

use super::super::schema;
use super::*;

/// Requests of the measurement, and over how many days.
const REQUESTS: &str = "ANALYTICS_REQUESTS";
const DAYS: i64 = 30;
/// Records that are made once and used again and again.
const RECORDS: u64 = 20_000;

/// Days, and what is asked of them.
const ASKED: [(i64, &str); 18] = [
    (DAYS, "interval=1h"),
    (DAYS, "interval=6h"),
    (DAYS, "interval=1d"),
    (DAYS, "interval=1h&group_by=gateway"),
    (DAYS, "interval=1h&group_by=provider"),
    (DAYS, "interval=1h&group_by=model"),
    (DAYS, "interval=6h&group_by=model"),
    (DAYS, "interval=1d&group_by=model"),
    (DAYS, "interval=1h&group_by=route"),
    (DAYS, "interval=1h&group_by=key"),
    (DAYS, "interval=1h&group_by=owner"),
    (DAYS, "interval=1h&group_by=user_agent"),
    (DAYS, "interval=1h&group_by=model&gateway=acme/main"),
    (DAYS, "interval=1h&model=o4"),
    (DAYS, "interval=1h&group_by=key&model=o4"),
    (DAYS, "interval=6h&group_by=metadata.user"),
    (1, "interval=15m&group_by=model"),
    (1, "interval=15m&group_by=metadata.user"),
];

fn count() -> u64 {
    let count = std::env::var(REQUESTS).ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

/// Processor time of this thread: others may use the machine too.
fn used() -> Duration {
    used_by(UsageWho::RUSAGE_THREAD)
}

fn used_by(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Some hundred series in use, and user ids in the metadata.
fn records() -> Vec<RequestRecord> {
    let mut maker = Maker::new(12);
    let mut chance = Chance(5);
    let mut made = || {
        let mut record = maker.record(DAY_0);
        record.metadata = vec![
            (
                "team".into(),
                metadata::Value::Text(format!("team-{}", chance.below(20)).into()),
            ),
            (
                "user".into(),
                metadata::Value::Text(format!("u-{}", chance.below(5_000)).into()),
            ),
        ];
        record
    };
    (0..RECORDS.min(count())).map(|_| made()).collect()
}

#[test]
fn a_month() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    describe(dir.path());
    for (days, asked) in ASKED {
        let parameters: Vec<_> = asked
            .split('&')
            .map(|one| one.split_once('=').unwrap())
            .collect();
        let (start, end) = (DAY_0 + (DAYS - days) * DAY, DAY_0 + DAYS * DAY);
        let query = query(start, end, &parameters);
        let (first, last) = answered(dir.path(), &query);
        let (_, without) = marginals::without(dir.path(), || answered(dir.path(), &query));
        println!(
            "  {days} d, {asked}: {last:.1} ms, the first {first:.1} ms, without marginals {without:.1} ms"
        );
    }
    // What they cost when they are made: all of them again.
    marginals::strip(dir.path());
    let begun = used();
    schema::open(dir.path()).unwrap();
    let (cost, [hours, days]) = (used() - begun, marginals::count(dir.path()));
    let each = cost.as_secs_f64() * 1e3 / (hours + days).max(1) as f64;
    println!("marginals of {hours} hours and {days} days: {each:.2} ms each");
}

/// Observes a month.
fn fill(dir: &Path) {
    let hand = Hand::new(DAY_0);
    let store = open(dir, &hand);
    let (count, mut records) = (count(), records());
    let mut chance = Chance(99);
    let apart = (DAYS * DAY) as f64 / count as f64;
    let (mut minute, begun, mut tidying) = (0, used(), Duration::ZERO);
    for number in 0..count {
        let at = DAY_0 + (number as f64 * apart) as i64;
        if at / 60 != minute {
            minute = at / 60;
            hand.set(at);
            store.flush().unwrap();
            if minute % 60 == 10 {
                // The writer's, where no other test runs.
                let begun = used_by(UsageWho::RUSAGE_SELF);
                store.tidy().unwrap();
                tidying += used_by(UsageWho::RUSAGE_SELF) - begun;
            }
        }
        let place = chance.below(records.len() as u64) as usize;
        let record = &mut records[place];
        record.started = UNIX_EPOCH + Duration::from_secs(at as u64);
        store.observe(record);
    }
    store.flush().unwrap();
    println!(
        "{count} requests: {} ns each, of minutes that are new",
        (used() - begun).as_nanos() / u128::from(count)
    );
    let an_hour = tidying.as_secs_f64() * 1e3 / (DAYS * 24) as f64;
    println!("{an_hour:.1} ms an hour to make hours and days, and to remove minutes");
    hand.set(DAY_0 + DAYS * DAY);
    store.tidy().unwrap();
}

/// How large it is.
fn describe(dir: &Path) {
    let size = std::fs::metadata(schema::path(dir)).unwrap().len();
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    let number = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    let free = number("PRAGMA freelist_count") * number("PRAGMA page_size");
    println!("{} KB of file, {} KB of it free", size >> 10, free >> 10);
    for (name, table, kind) in [
        ("series of calls", "hours", "= 0"),
        ("of marginals", "hours", ">= 10"),
        ("series of calls", "days", "= 0"),
        ("of marginals", "days", ">= 10"),
    ] {
        let of = format!("FROM {table} WHERE dimension {kind}");
        let times = number(&format!("SELECT COUNT(DISTINCT at) {of}")).max(1);
        let rows = number(&format!("SELECT COUNT(*) {of}"));
        let bytes = number(&format!("SELECT COALESCE(SUM(LENGTH(figures)), 0) {of}"));
        println!(
            "  {times} {table}: {} {name} each, {} KB in all",
            rows / times,
            bytes >> 10
        );
    }
}

/// Milliseconds of the first and of the last time that a question is asked.
fn answered(dir: &Path, asked: &Query) -> (f64, f64) {
    let times = [(); 3].map(|()| {
        let before = used();
        let mut reader = Reader::open(dir, Duration::from_secs(60)).unwrap();
        let answer = reader.answer(asked).unwrap();
        let time = (used() - before).as_secs_f64() * 1e3;
        if asked.end - asked.start == DAYS * DAY && asked.filter.iter().all(Option::is_none) {
            let missing = answer.totals.requests.abs_diff(count());
            assert!(missing < 20_000, "but for the last seconds");
        }
        time
    });
    (times[0], times[2])
}

/// Only counting: one minute, some hundred series.
#[test]
fn observing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Hand::new(DAY_0));
    let records = records();
    let mut maker = Maker::new(12);
    let bare: Vec<_> = (0..records.len())
        .map(|_| RequestRecord {
            metadata: Vec::new(),
            ..maker.record(DAY_0)
        })
        .collect();
    for (name, records) in [
        ("two labels of metadata", &records[..]),
        ("no metadata", &bare[..]),
    ] {
        for _ in 0..2 {
            let begun = used();
            let rounds = (count() / records.len() as u64).clamp(1, 100);
            for _ in 0..rounds {
                records.iter().for_each(|record| store.observe(record));
            }
            let all = rounds * records.len() as u64;
            println!(
                "{name}: {} ns",
                (used() - begun).as_nanos() / u128::from(all)
            );
        }
    }
}
