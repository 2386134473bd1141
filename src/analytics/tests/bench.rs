//! What analytics cost. A small run is a test; a measurement is
//! `ANALYTICS_REQUESTS=10000000 cargo test --release --lib analytics::tests::bench -- --nocapture`.

use nix::sys::resource::{UsageWho, getrusage};

use super::super::schema;
use super::*;

/// Requests of the measurement, and over how many days.
const REQUESTS: &str = "ANALYTICS_REQUESTS";
const DAYS: i64 = 30;
/// Records that are made once and used again and again.
const RECORDS: u64 = 20_000;

/// A name, days, and parameters.
type Asked<'a> = (&'a str, i64, &'a [(&'a str, &'a str)]);

fn count() -> u64 {
    let count = std::env::var(REQUESTS).ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

/// Processor time of this thread: others may use the machine too.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
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
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let (count, mut records) = (count(), records());
    let mut chance = Chance(99);
    let apart = (DAYS * DAY) as f64 / count as f64;
    let (mut minute, begun) = (0, used());
    for number in 0..count {
        let at = DAY_0 + (number as f64 * apart) as i64;
        if at / 60 != minute {
            minute = at / 60;
            hand.set(at);
            store.flush().unwrap();
            if minute % 60 == 10 {
                store.tidy().unwrap();
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
    hand.set(DAY_0 + DAYS * DAY);
    store.tidy().unwrap();
    let size = std::fs::metadata(schema::path(dir.path())).unwrap().len();
    let connection = schema::open_to_read(dir.path()).unwrap().unwrap();
    let calls = "SELECT COUNT(*) FROM hours WHERE dimension = 0";
    let rows: i64 = connection.query_row(calls, [], |row| row.get(0)).unwrap();
    println!(
        "{} KB of file, {} series an hour",
        size >> 10,
        rows / DAYS / 24
    );
    let end = DAY_0 + DAYS * DAY;
    let questions: [Asked<'_>; 9] = [
        (
            "a month by model at 1h",
            DAYS,
            &[("group_by", "model"), ("interval", "1h")],
        ),
        (
            "a month by model at 6h",
            DAYS,
            &[("group_by", "model"), ("interval", "6h")],
        ),
        (
            "a month by model at 1d",
            DAYS,
            &[("group_by", "model"), ("interval", "1d")],
        ),
        ("a month at 1h", DAYS, &[("interval", "1h")]),
        (
            "a month of one model at 1h",
            DAYS,
            &[("interval", "1h"), ("model", "o4")],
        ),
        (
            "a month by user agent at 1h",
            DAYS,
            &[("group_by", "user_agent"), ("interval", "1h")],
        ),
        (
            "a month by user id at 6h",
            DAYS,
            &[("group_by", "metadata.user"), ("interval", "6h")],
        ),
        (
            "a day by model at 15m",
            1,
            &[("group_by", "model"), ("interval", "15m")],
        ),
        (
            "a day by user id at 15m",
            1,
            &[("group_by", "metadata.user"), ("interval", "15m")],
        ),
    ];
    for (name, days, asked) in questions {
        let asked = query(end - days * DAY, end, asked);
        let mut times = Vec::new();
        for _ in 0..3 {
            let before = used();
            let mut reader = Reader::open(dir.path(), Duration::from_secs(60)).unwrap();
            let answer = reader.answer(&asked).unwrap();
            times.push((used() - before).as_secs_f64() * 1e3);
            if days == DAYS && asked.filter[2].is_none() {
                assert!(
                    answer.totals.requests.abs_diff(count) < 20_000,
                    "but for the last seconds"
                );
            }
        }
        println!("  {name}: {:.0} ms, the first {:.0} ms", times[2], times[0]);
    }
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
