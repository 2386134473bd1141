//! Stores that are full, damaged, not writable, or shared.

use std::os::unix::fs::PermissionsExt;

use super::super::counters::read;
use super::super::query::Query;
use super::super::schema;
use super::*;

fn wait_for(mut holds: impl FnMut() -> bool) {
    let holds_soon = (0..2_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        holds()
    });
    assert!(holds_soon, "it does not come to be");
}

#[test]
fn a_file_of_something_else_stops_the_store_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = vec![0x5a; 10_000];
    std::fs::write(schema::path(dir.path()), &garbage).unwrap();
    let store = open(dir.path());
    assert_eq!(read(&store.counters().alarm), 1);
    let problem = store.problem().unwrap();
    assert!(
        problem.contains("logs.db is damaged") && problem.contains("move it away"),
        "{problem}"
    );
    (0..10).for_each(|at| store.offer(full(TIME + at)));
    assert_eq!(read(&store.counters().rows_dropped), 10);
    assert!(store.flush(SOON).unwrap_err().contains("damaged"));
    assert!(Reader::open(dir.path(), Duration::ZERO).is_err());
    drop(store);
    assert_eq!(std::fs::read(schema::path(dir.path())).unwrap(), garbage);
}

#[test]
fn damage_that_is_met_later_stops_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..5_000).for_each(|at| store.offer(full(TIME + at)));
    drop(store);
    let path = schema::path(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path());
    (0..5_000).for_each(|at| store.offer(full(TIME + 5_000 + at)));
    // Whether it is met at the start or with the first batch.
    let _ = store.flush(SOON);
    wait_for(|| read(&store.counters().alarm) == 1);
    store.offer(full(TIME + 10_001));
    wait_for(|| read(&store.counters().rows_dropped) == 5_001);
    assert!(store.problem().unwrap().contains("restart"));
}

#[test]
fn a_newer_store_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    schema::open(dir.path())
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    let store = open(dir.path());
    store.offer(full(TIME));
    assert!(store.problem().unwrap().contains("has version 7"));
    assert_eq!(read(&store.counters().rows_dropped), 1);
}

#[test]
fn a_full_store_stops_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(
        dir.path(),
        Options {
            retry: Duration::from_millis(300),
            ..options()
        },
    )
    .unwrap();
    store.offer(full(TIME));
    let limit = store.run(|database| {
        let pages: i64 = database
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        database
            .connection
            .pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(()))
            .map_err(|error| error.to_string())
    });
    limit.unwrap();
    (0..2_000).for_each(|at| store.offer(full(TIME + 1 + at)));
    assert!(store.flush(SOON).unwrap_err().contains("full"));
    let counters = store.counters();
    assert_eq!(read(&counters.alarm), 1);
    // A first batch may have found room.
    assert_eq!(
        read(&counters.rows_dropped) + read(&counters.rows_written),
        2_001
    );
    assert!(read(&counters.rows_dropped) > 1_000);
    // A new connection has no such limit: as if there were room again.
    let mut at = 5_000;
    wait_for(|| {
        at += 1;
        store.offer(full(TIME + at));
        store.flush(SOON).is_ok() && read(&counters.alarm) == 0
    });
    assert_eq!(store.problem(), None);
    assert!(read(&counters.rows_written) > 1);
}

#[test]
fn a_directory_that_cannot_be_made_raises_the_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    let store = open(&path.join("logs"));
    store.offer(full(TIME));
    assert_eq!(read(&store.counters().alarm), 1);
    assert!(store.problem().unwrap().contains("file/logs"));
    wait_for(|| read(&store.counters().rows_dropped) == 1);
}

#[test]
fn segments_that_cannot_be_written_cost_bodies_first() {
    let dir = tempfile::tempdir().unwrap();
    // The first segment's name is taken by something else.
    std::fs::create_dir(super::super::segments::path(dir.path(), 1)).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(dir.path());
    let entry = full(TIME);
    let id = entry.id;
    store.offer(entry);
    let _ = store.flush(SOON);
    wait_for(|| read(&store.counters().errors) == 1);
    let shown = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
    assert!(shown.place.is_none());
    assert_eq!(read(&store.counters().bodies_dropped), 1);
    wait_for(|| {
        store.offer(full(TIME + 1));
        store.flush(SOON).is_ok() && read(&store.counters().alarm) == 0
    });
}

#[test]
fn two_stores_write_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [open(dir.path()), open(dir.path())];
    std::thread::scope(|threads| {
        for (number, store) in stores.iter().enumerate() {
            threads.spawn(move || {
                for at in 0..2_000 {
                    let mut entry = full(TIME + at);
                    entry.model = Some(format!("model-{number}-{}", at % 20).into());
                    store.offer(entry);
                    if at % 100 == 0 {
                        store.flush(SOON).unwrap();
                    }
                }
                store.flush(SOON).unwrap();
            });
        }
    });
    let mut reader = reader(dir.path());
    let filter = Default::default();
    let mut count = 0;
    let mut export = reader.export(&scope(), &filter, true).unwrap();
    while let Some(entry) = export.next() {
        let entry = entry.unwrap();
        assert!(export.record(&entry).unwrap().unwrap().request.is_some());
        count += 1;
    }
    assert_eq!(count, 4_000);
    for store in &stores {
        assert_eq!(
            (
                read(&store.counters().rows_dropped),
                read(&store.counters().rows_written)
            ),
            (0, 2_000)
        );
    }
    let query = Query::parse([("model", "model-1-7")]).unwrap();
    assert_eq!(
        reader
            .list(&scope(), &query)
            .unwrap()
            .result_info
            .total_count,
        100
    );
}
