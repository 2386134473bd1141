//! Clients that make up models, user agents and metadata.

use super::super::schema;
use super::super::series::Dimension;
use super::*;

#[test]
fn bounds_hold_and_totals_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let store = open(dir.path(), &hand);
    let mut maker = Maker::new(6);
    let mut records = Vec::new();
    for minute in 0..3 {
        for number in 0..4_000 {
            let mut record = maker.record(DAY_0 + minute * 60);
            let made_up = format!("{minute}-{number}");
            record.model = Some(format!("model-{made_up}").into());
            record.user_agent = Some(format!("agent/{made_up}").into());
            for key in ["trace", &made_up] {
                let value = metadata::Value::Text(format!("{made_up}{}", "v".repeat(500)).into());
                record.metadata.push((key.into(), value));
            }
            store.observe(&record);
            records.push(record);
        }
        // One that many use, late in the flood.
        for _ in 0..50 {
            let mut record = maker.record(DAY_0 + minute * 60);
            record.metadata = vec![("team".into(), metadata::Value::Text("red".into()))];
            store.observe(&record);
            records.push(record);
        }
    }
    store.flush().unwrap();
    check(dir.path(), &records, "minutes", 60);
    hand.set(DAY_0 + 2 * DAY);
    store.tidy().unwrap();
    check(dir.path(), &records, "hours", 3_600);
    check(dir.path(), &records, "days", 86_400);
    assert_eq!(marginals::check(dir.path()), [1, 1]);
}

fn check(dir: &Path, records: &[RequestRecord], level: &str, seconds: i64) {
    let connection = schema::open_to_read(dir).unwrap().unwrap();
    let most = format!(
        "SELECT COALESCE(MAX(n), 0) FROM
         (SELECT COUNT(*) AS n FROM {level} WHERE dimension = ?1 GROUP BY at)"
    );
    for dimension in Dimension::ALL {
        let number = [dimension.number()];
        let series: i64 = connection
            .query_row(&most, number, |row| row.get(0))
            .unwrap();
        let most = dimension.limits().series as i64 / 2 * 3 + 1;
        assert!(series >= 200 && series <= most, "{dimension:?}: {series}");
    }
    // No marginal has more series than calls have, whatever names are made up.
    let more: i64 = connection
        .query_row(
            &format!(
                "SELECT COUNT(*) FROM
                 (SELECT at, COUNT(*) AS n FROM {level} WHERE dimension >= 10
                  GROUP BY dimension, at) AS marginal
                 WHERE n > (SELECT COUNT(*) FROM {level} AS calls
                            WHERE dimension = 0 AND calls.at = marginal.at)"
            ),
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(more, 0);
    let interval = match seconds {
        60 => "1m",
        3_600 => "1h",
        _ => "1d",
    };
    let asked = [("interval", interval)];
    let answer = ask(dir, &query(DAY_0, DAY_0 + HOUR, &asked));
    naive::check(records, &answer, &[], 10);
    for group_by in ["model", "user_agent", "metadata.trace", "gateway"] {
        let asked = [("interval", interval), ("group_by", group_by)];
        let answer = ask(dir, &query(DAY_0, DAY_0 + HOUR, &asked));
        let groups = answer["groups"].as_array().unwrap();
        let sum: u64 = groups
            .iter()
            .map(|group| group["totals"]["requests"].as_u64().unwrap())
            .sum();
        assert_eq!(sum, records.len() as u64, "{group_by}");
        let last = groups.last().unwrap();
        assert_eq!(last["name"] == "(other)", group_by != "gateway");
        assert!(groups.len() <= 11);
    }
    let asked = [("interval", interval), ("group_by", "metadata.team")];
    let answer = ask(dir, &query(DAY_0, DAY_0 + HOUR, &asked));
    let of_red = answer["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["name"] == "red");
    assert!(of_red.unwrap()["totals"]["requests"].as_u64().unwrap() >= 150);
}
