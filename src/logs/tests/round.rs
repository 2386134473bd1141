//! What is offered comes back, within bounds.

use super::super::counters::read;
use super::super::query::{Deletion, Patch, Query};
use super::super::redaction::{Redaction, Rules};
use super::super::retention::{self, Bounds};
use super::super::writer::Database;
use super::*;

#[test]
fn an_entry_comes_back_as_the_contract_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entry = full(TIME);
    let (id, source) = (entry.id, entry.cache_source.unwrap());
    store.offer(entry);
    store.flush(SOON).unwrap();
    let shown = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
    let json = serde_json::to_value(shown).unwrap();
    let expected = r#"{
        "id": "ID", "created_at": "2026-11-28T06:30:00.123Z", "gateway": "acme/main",
        "provider": "openai", "model": "openai/gpt-5-mini", "model_type": "chat",
        "answer_model": "dynamic/support", "path": "/v1/chat/completions", "method": "POST",
        "http_version": "HTTP/1.1", "duration": 1235, "success": true, "status_code": 200,
        "provider_status": 503, "cached": false, "cache_status": "miss", "cache_tier": "memory",
        "cache_source": "SOURCE", "tokens_in": 100, "tokens_out": 50,
        "output_tokens_per_second": 60,
        "usage_metadata": {"input": 100, "output": 50, "cached_input": 1, "cache_write": 2,
            "cache_write_1h": 3, "reasoning": 4, "input_audio": 5, "output_audio": 6, "cached_audio": null,
            "input_image": 7, "output_image": 8, "web_searches": 9},
        "usage_estimated": true, "cost": 0.0015, "custom_cost": true, "cost_source": "catalog",
        "saved": 0.25, "service_tier": "priority",
        "metadata": {"user": "u-1", "n": 42, "vip": true},
        "route": "support", "step": 1, "target": 2, "attempts": 2,
        "tried": [{"target": "openai/gpt-5", "cause": "status", "status": 503, "ms": 12}],
        "request_type": "Universal", "request_content_type": "application/json",
        "response_content_type": "text/event-stream", "request_size": 1000, "response_size": 600,
        "streamed": true, "complete": true, "error_source": "provider", "error": "provider_5xx",
        "error_detail": "the provider said 503", "denied_by": "policy-1", "feedback": null,
        "score": null, "event_id": "event-1", "authentication": true, "wholesale": false,
        "byok": true, "key_alias": "production", "consumer": "support-bot", "owner": "team-a",
        "client": "10.1.2.3", "user_agent": "OpenAI/Python 2.9.0",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "timings": {"duration": 1234.5, "upstream": 1200.0, "overhead": 34.5,
            "first_byte": 300.0, "first_token": 400.0, "waited": 0.007},
        "request_head": "{\"model\":\"gpt\"}", "request_head_complete": true,
        "response_head": "data: {}\n\n", "response_head_complete": true,
        "request_headers": [["content-type", "application/json"], ["authorization", "[redacted]"]],
        "response_headers": [["content-type", "text/event-stream"]]
    }"#;
    let expected = expected
        .replace("SOURCE", &source.to_string())
        .replace("ID", &id.to_string());
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(json, expected);
}

#[test]
fn what_is_absent_stays_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entry = small(TIME);
    let id = entry.id;
    store.offer(entry);
    drop(store);
    let shown = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
    assert!(shown.usage_metadata.is_none() && shown.cost.is_none() && shown.client.is_none());
    assert_eq!(shown.metadata.get(), "{}");
    assert_eq!(shown.preview, Some(Default::default()));
    let other = Scope::gateway("acme", "other");
    assert!(reader(dir.path()).get(&other, id).unwrap().is_none());
    assert!(
        reader(dir.path())
            .get(&scope(), Uuid::now_v7())
            .unwrap()
            .is_none()
    );
}

#[test]
fn long_bodies_are_cut_and_previewed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(
        dir.path(),
        Options {
            body_bytes: 2000,
            ..options()
        },
    )
    .unwrap();
    let mut entry = small(TIME);
    let id = entry.id;
    let request = "ä".repeat(1500);
    entry.payload = Some(Box::new(payload(&request, "é")));
    store.offer(entry);
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    let body = reader.request(&scope(), id).unwrap().unwrap();
    assert_eq!(&body.bytes[..], &request.as_bytes()[..2000]);
    assert!(!body.complete && !body.encoded);
    assert_eq!(reader.response(&scope(), id).unwrap().unwrap().bytes, "é");
    let preview = reader.get(&scope(), id).unwrap().unwrap().preview.unwrap();
    assert_eq!(preview.request_head.unwrap(), "ä".repeat(512));
    assert!(!preview.request_head_complete && preview.response_head_complete);
}

#[test]
fn equal_keys_make_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ids = Vec::new();
    for number in 0..3_u128 {
        let entry = Entry {
            id: Uuid::from_u128(id_at(TIME).as_u128() & !0xffff_ffff | number << 20 | 0x7fff),
            ..small(TIME)
        };
        ids.push(entry.id);
        store.offer(entry);
    }
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    for id in ids {
        assert_eq!(reader.get(&scope(), id).unwrap().unwrap().id, id);
    }
}

#[test]
fn a_time_far_from_the_id_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let slack = 10_000;
    for (told, expected) in [(TIME - slack, TIME - slack), (TIME - slack - 1, TIME)] {
        let entry = Entry {
            created_at: small(told).created_at,
            ..small(TIME)
        };
        let id = entry.id;
        store.offer(entry);
        store.flush(SOON).unwrap();
        let shown = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
        assert_eq!(
            shown.created_at,
            super::super::times::shown(expected as i64)
        );
        let text = shown.created_at;
        let query = Query::parse([("start_date", &*text), ("end_date", &*text)]).unwrap();
        assert_eq!(
            reader(dir.path()).list(&scope(), &query).unwrap().result[0].id,
            id
        );
    }
}

#[test]
fn pressure_takes_bodies_then_details_then_rows() {
    let dir = tempfile::tempdir().unwrap();
    let weight = full(TIME).weight();
    let store = Store::open(
        dir.path(),
        Options {
            queue_bytes: weight * 10,
            ..options()
        },
    )
    .unwrap();
    // The writer cannot take anything while it is held.
    let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
    let blocked = std::thread::spawn({
        let store = store.clone();
        move || store.run(move |_| held.recv().map_err(|error| error.to_string()))
    });
    // Until the writer has the job: then nothing is pending.
    std::thread::sleep(Duration::from_millis(50));
    let ids: Vec<_> = (0..40)
        .map(|at| {
            let entry = full(TIME + at);
            let id = entry.id;
            store.offer(entry);
            id
        })
        .collect();
    let counters = store.counters();
    assert!(read(&counters.queue_bytes) <= (weight * 10) as u64);
    hold.send(()).unwrap();
    blocked.join().unwrap().unwrap();
    store.flush(SOON).unwrap();
    let written = read(&counters.rows_written);
    let (bodies, details, rows) = (
        read(&counters.bodies_dropped),
        read(&counters.details_dropped),
        read(&counters.rows_dropped),
    );
    assert_eq!(written + rows, 40);
    assert!(
        rows > 0 && details > 0 && bodies > details,
        "{bodies} {details} {rows}"
    );
    assert_eq!(read(&counters.queue_bytes), 0);
    let mut reader = reader(dir.path());
    let first = reader.get(&scope(), ids[0]).unwrap().unwrap();
    assert!(first.preview.unwrap().request_head.is_some());
    let shown: Vec<_> = ids
        .iter()
        .filter_map(|id| reader.get(&scope(), *id).unwrap())
        .collect();
    let without_body = |entry: &&crate::logs::shown::LogEntry| {
        entry.preview.as_ref().unwrap().request_head.is_none()
    };
    let kept_head = shown
        .iter()
        .filter(without_body)
        .filter(|entry| entry.preview.as_ref().unwrap().request_headers.is_some());
    assert!(kept_head.count() > 0);
    let last = shown.last().unwrap();
    assert_eq!(
        (
            last.metadata.get(),
            last.tried.len(),
            last.error_detail.is_none()
        ),
        ("{}", 0, true)
    );
}

#[test]
fn nothing_redacted_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules {
        patterns: vec!["sk-[0-9]+".to_owned()],
        request_pointers: vec!["/messages/*/content".to_owned()],
        ..Rules::default()
    };
    let redaction = Redaction::new(&rules).unwrap();
    let store = Store::open(
        dir.path(),
        Options {
            redaction,
            ..options()
        },
    )
    .unwrap();
    let mut entry = full(TIME);
    let id = entry.id;
    entry
        .metadata
        .0
        .push(("key".to_owned(), MetadataValue::Text("sk-2".to_owned())));
    entry.payload = Some(Box::new(payload(
        r#"{"messages":[{"content":"secret"}]}"#,
        "sk-3",
    )));
    store.offer(entry);
    let patch = Patch::parse(br#"{"metadata":{"a":"sk-4","user":"u-1"}}"#).unwrap();
    assert!(store.patch(&scope(), id, patch).unwrap());
    let mut reader = reader(dir.path());
    assert_eq!(
        reader.request(&scope(), id).unwrap().unwrap().bytes,
        r#"{"messages":[{"content":"[redacted]"}]}"#
    );
    assert_eq!(
        reader.response(&scope(), id).unwrap().unwrap().bytes,
        "[redacted]"
    );
    drop(store);
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("sk-") && !text.contains("secret"));
    }
}

#[test]
fn feedback_is_set_found_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entry = full(TIME);
    let id = entry.id;
    store.offer(entry);
    store.offer(small(TIME + 1));
    let patch = |body: &str| {
        store
            .patch(&scope(), id, Patch::parse(body.as_bytes()).unwrap())
            .unwrap()
    };
    let found = |value: &str| {
        let query = Query::parse([("feedback", value)]).unwrap();
        reader(dir.path())
            .list(&scope(), &query)
            .unwrap()
            .result
            .len()
    };
    assert!(patch(r#"{"feedback":-1,"score":99.5,"metadata":{"a":1}}"#));
    assert_eq!((found("-1"), found("1")), (1, 0));
    let shown = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
    assert_eq!(
        (shown.feedback, shown.score, shown.metadata.get()),
        (Some(-1), Some(99.5), r#"{"a":1}"#)
    );
    assert!(patch(r#"{"feedback":null}"#) && patch("{}"));
    assert_eq!(found("-1"), 0);
    assert_eq!(
        reader(dir.path()).get(&scope(), id).unwrap().unwrap().score,
        Some(99.5)
    );
    assert!(
        !store
            .patch(&Scope::gateway("a", "b"), id, Patch::default())
            .unwrap()
    );
}

#[test]
fn removed_entries_leave_no_body_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ids = Vec::new();
    for at in 0..1_200 {
        let mut entry = full(TIME + at);
        entry.model = Some(if at % 2 == 0 { "even" } else { "odd" }.into());
        ids.push((entry.id, entry.payload.clone()));
        store.offer(entry);
    }
    let deletion = Deletion::parse([
        ("model", "even"),
        ("order_by_direction", "asc"),
        ("limit", "550"),
    ])
    .unwrap();
    let mut reader_before = reader(dir.path());
    store.flush(SOON).unwrap();
    let first = reader_before.get(&scope(), ids[0].0).unwrap().unwrap();
    assert_eq!(store.delete(&scope(), &deletion).unwrap(), 550);
    assert!(
        reader_before.record(&first).unwrap().is_none(),
        "erased, not only forgotten"
    );
    assert_eq!(store.delete(&scope(), &deletion).unwrap(), 50);
    assert_eq!(
        store
            .delete(&Scope::gateway("acme", "other"), &Deletion::default())
            .unwrap(),
        0
    );
    let page = reader(dir.path())
        .list(&scope(), &Query::default())
        .unwrap();
    assert_eq!(page.result_info.total_count, 600);
    assert!(
        reader(dir.path())
            .request(&scope(), ids[1].0)
            .unwrap()
            .is_some()
    );
    assert_eq!(store.delete(&scope(), &Deletion::default()).unwrap(), 600);
}

#[test]
fn what_is_too_old_goes_a_little_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..2_500).for_each(|at| store.offer(full(TIME + at)));
    drop(store);
    let mut database = Database::open(dir.path(), &options()).unwrap();
    let counters = Default::default();
    let bounds = Bounds {
        age: Some(Duration::from_secs(60)),
        bytes: None,
    };
    let mut steps = |now: u64| {
        let mut steps = 0;
        while retention::step(&mut database, bounds, now as i64, &counters).unwrap() {
            steps += 1;
        }
        steps
    };
    assert_eq!(steps(TIME + 60_000), 0);
    let count = || {
        reader(dir.path())
            .list(&scope(), &Query::default())
            .unwrap()
            .result_info
            .total_count
    };
    steps(TIME + 60_000 + 2_400);
    assert_eq!(count(), 100);
    assert!(segments_of(dir.path()) > 0, "young bodies are in them");
    assert!(steps(TIME + 63_000) > 0);
    assert_eq!(count(), 0);
    // A segment is as young as the moment it was opened at.
    let year_2100 = 4_102_444_800_000;
    assert!(steps(year_2100) > 0);
    assert_eq!(segments_of(dir.path()), 0);
    assert_eq!(read(&counters.rows_expired), 2_500);
}

fn segments_of(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("bodies-"))
        .count()
}

#[test]
fn what_is_too_much_goes_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let small_segments = || Options {
        segment_bytes: 100_000,
        ..options()
    };
    let mut chance = Chance(7);
    let store = Store::open(dir.path(), small_segments()).unwrap();
    for at in 0..6_000 {
        let mut entry = full(TIME + at);
        let noise: String = (0..400)
            .map(|_| char::from(b' ' + chance.below(90) as u8))
            .collect();
        entry.payload = Some(Box::new(payload(&noise, "")));
        store.offer(entry);
        if at % 500 == 0 {
            store.flush(SOON).unwrap();
        }
    }
    drop(store);
    let mut database = Database::open(dir.path(), &small_segments()).unwrap();
    let before = retention::sizes(&database).unwrap();
    let most = (before.rows + before.bodies) / 3;
    let counters = Default::default();
    let bounds = Bounds {
        age: None,
        bytes: Some(most),
    };
    let mut steps = 0;
    while retention::step(&mut database, bounds, TIME as i64, &counters).unwrap() {
        steps += 1;
        assert!(steps < 1_000, "it comes to an end");
    }
    let after = retention::sizes(&database).unwrap();
    assert!(
        after.rows + after.bodies <= most && after.free <= before.rows / 10 + (1 << 20),
        "{after:?}"
    );
    let query = Query::parse([("order_by_direction", "asc")]).unwrap();
    let page = reader(dir.path()).list(&scope(), &query).unwrap();
    let left = page.result_info.total_count;
    assert!(left > 0 && left < 6_000);
    let oldest = super::super::times::shown((TIME + 6_000 - left) as i64);
    assert_eq!(
        page.result[0].created_at, oldest,
        "the oldest went, and no other"
    );
}
