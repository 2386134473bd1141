//! Lists, against a naive filter over the same entries.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::entry::Text;
use super::super::filter::{Condition, Filter};
use super::super::insert::created_at;
use super::super::metadata_test::contains;
use super::super::operator::Operator;
use super::super::query::Query;
use super::*;

const PROVIDERS: [Option<&str>; 4] = [Some("openai"), Some("anthropic"), Some("Open_AI%"), None];
const MODELS: [Option<&str>; 4] = [Some("gpt-5"), Some("gpt-5-mini"), Some("claude"), None];
const AGENTS: [Option<&str>; 3] = [Some("curl/8"), Some("python"), None];

fn random(chance: &mut Chance, at: u64) -> Entry {
    let text = |text: Option<&'static str>| text.map(Text::Borrowed);
    let mut entry = small(TIME + at / 2);
    entry.created_at = small(TIME + at / 2 + chance.below(3)).created_at;
    entry.provider = text(chance.pick(&PROVIDERS));
    entry.model = text(chance.pick(&MODELS));
    entry.user_agent = text(chance.pick(&AGENTS));
    entry.event_id = text(chance.pick(&[Some("e-1"), Some("E-2"), None]));
    entry.success = chance.below(3) > 0;
    entry.cached = chance.below(4) == 0;
    entry.byok = chance.below(2) == 0;
    entry.status = chance.pick(&[200, 429, 500]);
    entry.timings.duration = chance.below(5_000);
    entry.cost = chance.pick(&[None, Some(0), Some(1_000_000_000), Some(123_456_789)]);
    let some = |chance: &mut Chance| (chance.below(4) > 0).then(|| chance.below(10));
    let usage = Tokens {
        input: some(chance),
        output: some(chance),
        ..Tokens::default()
    };
    entry.usage = (chance.below(5) > 0).then_some(usage);
    for (name, values) in [("user", ["u-1", "u-2"]), ("team", ["u-1", "5"])] {
        if chance.below(2) == 0 {
            entry.metadata.0.push((
                name.to_owned(),
                MetadataValue::Text(chance.pick(&values).to_owned()),
            ));
        }
    }
    if chance.below(2) == 0 {
        entry.metadata.0.push((
            "n".to_owned(),
            MetadataValue::Whole(chance.below(10) as i64),
        ));
    }
    entry
}

/// What SQL is compared with.
fn passes(entry: &Entry, condition: &Condition) -> bool {
    match condition {
        Condition::Text {
            sql,
            operator,
            values,
            ..
        } => text(text_of(entry, sql), *operator, values),
        Condition::Number {
            sql,
            operator,
            values,
        } => compare(number_of(entry, sql), *operator, values),
        Condition::Flag {
            sql,
            operator,
            values,
        } => {
            let flag = match *sql {
                "success" => entry.success,
                "cached" => entry.cached,
                "byok" => entry.byok,
                _ => false,
            };
            values.contains(&flag) == (*operator == Operator::Eq)
        }
        Condition::Time { operator, values } => compare(Some(created_at(entry)), *operator, values),
        Condition::Id { operator, values } => compare(Some(entry.id), *operator, values),
        Condition::IdPart { values } => {
            text(Some(&entry.id.to_string()), Operator::Contains, values)
        }
        Condition::Metadata(test) => test.passes(&entry.metadata),
    }
}

fn text_of<'a>(entry: &'a Entry, column: &str) -> Option<&'a str> {
    let text = match column {
        "provider" => &entry.provider,
        "model" => &entry.model,
        "user_agent" => &entry.user_agent,
        "event_id" => &entry.event_id,
        _ => &None,
    };
    text.as_deref()
}

fn text(found: Option<&str>, operator: Operator, values: &[String]) -> bool {
    let equal = || values.iter().any(|value| found == Some(value));
    match operator {
        Operator::Eq => equal(),
        Operator::Neq => !equal(),
        _ => found.is_some_and(|found| values.iter().any(|value| contains(found, value))),
    }
}

fn number_of(entry: &Entry, sql: &str) -> Option<f64> {
    let usage = entry.usage.unwrap_or_default();
    let number = match sql {
        "cost" => entry.cost.map(|cost| cost as u64),
        "input" => usage.input,
        "output" => usage.output,
        "status" => Some(entry.status.into()),
        "feedback" => None,
        _ if sql.contains("duration") => Some((entry.timings.duration + 500) / 1000),
        _ => usage
            .input
            .or(usage.output)
            .map(|_| usage.input.unwrap_or(0) + usage.output.unwrap_or(0)),
    };
    number.map(|number| number as f64)
}

fn compare<T: PartialOrd + Copy>(found: Option<T>, operator: Operator, values: &[T]) -> bool {
    let any = |holds: fn(T, T) -> bool| {
        found.is_some_and(|found| values.iter().any(|value| holds(found, *value)))
    };
    match operator {
        Operator::Eq => any(|found, value| found == value),
        Operator::Neq => !any(|found, value| found == value),
        Operator::Lt => any(|found, value| found < value),
        Operator::Gt => any(|found, value| found > value),
        Operator::Le => any(|found, value| found <= value),
        Operator::Ge => any(|found, value| found >= value),
        Operator::Contains => false,
    }
}

fn random_filter(chance: &mut Chance, entries: &[Entry]) -> serde_json::Value {
    let some = &entries[chance.below(entries.len() as u64) as usize];
    let keys = [
        "provider",
        "model",
        "user_agent",
        "event_id",
        "dlp_action",
        "success",
        "cached",
        "byok",
        "wholesale",
        "status_code",
        "cost",
        "tokens",
        "tokens_in",
        "tokens_out",
        "duration",
        "feedback",
        "created_at",
        "id",
        "metadata.key",
        "metadata.value",
        "metadata.user",
        "metadata.team",
        "metadata.n",
    ];
    let key = chance.pick(&keys);
    let operators: &[&str] = match key {
        "provider" | "model" | "user_agent" | "event_id" | "dlp_action" => {
            &["eq", "neq", "contains"]
        }
        "success" | "cached" | "byok" | "wholesale" => &["eq", "neq"],
        "id" => &["eq", "neq", "contains", "lt", "gt"],
        _ if key.starts_with("metadata") => &["eq", "neq", "contains", "lt", "gt"],
        _ => &["eq", "neq", "lt", "gt"],
    };
    let operator = chance.pick(operators);
    let mut value = || match key {
        "success" | "cached" | "byok" | "wholesale" => json!(chance.below(2) == 0),
        "status_code" => json!(chance.pick(&[200, 429, 500])),
        "cost" => json!(chance.pick(&[0.0, 0.001, 0.000_123_456_789, 5.0])),
        "created_at" => json!(super::super::times::shown(
            (TIME + chance.below(100)) as i64
        )),
        "id" if operator == "contains" => json!(some.id.to_string()[14..19].to_uppercase()),
        "id" => json!(some.id),
        "tokens" | "tokens_in" | "tokens_out" | "duration" | "feedback" => {
            json!(chance.pick(&[0.0, 2.0, 4.5, 7.0]))
        }
        _ if operator == "contains" => {
            json!(chance.pick(&["PT", "gpt-5", "_", "%", "\\", "u", "e-", "1", "l"]))
        }
        _ => json!(chance.pick(&[
            "openai", "gpt-5", "curl/8", "e-1", "u-1", "user", "n", "5", "4", "nothing"
        ])),
    };
    let values: Vec<_> = std::iter::repeat_with(&mut value).take(2).collect();
    let count = 1 + chance.below(2) as usize;
    json!({"key": key, "operator": operator, "value": values[..count]})
}

#[test]
fn sql_finds_what_a_naive_filter_finds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut chance = Chance(0x5eed);
    let entries: Vec<_> = (0..200).map(|at| random(&mut chance, at)).collect();
    entries.iter().for_each(|entry| store.offer(entry.clone()));
    let other = Entry {
        gateway: "other".into(),
        ..entries[0].clone()
    };
    store.offer(Entry {
        id: id_at(TIME),
        ..other
    });
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    let mut sizes = BTreeSet::new();
    for _ in 0..1_500 {
        let filters: Vec<_> = (0..=chance.below(2))
            .map(|_| random_filter(&mut chance, &entries))
            .collect();
        let json = serde_json::to_string(&filters).unwrap();
        let mut filter = Filter::default();
        filter.add_json(&json).unwrap();
        let expected: BTreeSet<_> = entries
            .iter()
            .filter(|entry| {
                filter
                    .conditions
                    .iter()
                    .all(|condition| passes(entry, condition))
            })
            .map(|entry| entry.id)
            .collect();
        let found = reader
            .export(&scope(), &filter, false)
            .unwrap()
            .map(|entry| entry.unwrap().id)
            .collect();
        assert_eq!(expected, found, "{json}");
        sizes.insert(expected.len());
    }
    assert!(sizes.len() > 50, "the filters differ: {sizes:?}");
}

#[test]
fn flat_parameters_filter_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.offer(full(TIME));
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    let cases = [
        ("cached", "false", 1),
        ("success", "1", 1),
        ("provider", "openai", 1),
        ("provider", "x", 0),
        ("model", "openai/gpt-5-mini", 1),
        ("model_type", "chat", 1),
        ("start_date", "2026-11-28T06:30:00.123Z", 1),
        ("start_date", "2026-11-28T06:30:00.124Z", 0),
        ("end_date", "2026-11-28T06:30:00.123Z", 1),
        ("end_date", "2026-11-28", 0),
        ("min_cost", "0.0015", 1),
        ("max_cost", "0.00149", 0),
        ("min_duration", "1235", 1),
        ("max_duration", "1234", 0),
        ("min_tokens_in", "100", 1),
        ("max_tokens_out", "49", 0),
        ("min_total_tokens", "150", 1),
        ("max_total_tokens", "149", 0),
        ("request_content_type", "application/json", 1),
        ("response_content_type", "x", 0),
        ("search", "USE", 1),
        ("search", "u-1", 1),
        ("search", "u-2", 0),
        ("search", "42", 1),
    ];
    for (name, value, count) in cases {
        let query = Query::parse([(name, value)]).unwrap();
        assert_eq!(
            reader
                .list(&scope(), &query)
                .unwrap()
                .result_info
                .total_count,
            count,
            "{name}={value}"
        );
    }
}

#[test]
fn pages_cover_everything_once_in_every_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut chance = Chance(3);
    let entries: Vec<_> = (0..95).map(|at| random(&mut chance, at)).collect();
    entries.iter().for_each(|entry| store.offer(entry.clone()));
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    for order in [
        "created_at",
        "provider",
        "model",
        "model_type",
        "success",
        "cached",
    ] {
        for direction in ["asc", "desc"] {
            let mut found = Vec::new();
            for page in ["1", "2", "3"] {
                let parameters = [
                    ("page", page),
                    ("per_page", "40"),
                    ("order_by", order),
                    ("order_by_direction", direction),
                ];
                found.extend(
                    reader
                        .list(&scope(), &Query::parse(parameters).unwrap())
                        .unwrap()
                        .result,
                );
            }
            assert_eq!(
                found
                    .iter()
                    .map(|entry| entry.id)
                    .collect::<BTreeSet<_>>()
                    .len(),
                95
            );
            let providers: Vec<_> = found.iter().map(|entry| entry.provider.clone()).collect();
            let mut sorted = providers.clone();
            sorted.sort();
            if direction == "desc" {
                sorted.reverse();
            }
            assert!(order != "provider" || providers == sorted, "{providers:?}");
        }
    }
}

#[test]
fn cursors_go_on_where_the_page_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..25).for_each(|at| store.offer(small(TIME + at)));
    store.flush(SOON).unwrap();
    let mut reader = reader(dir.path());
    let mut cursor: Option<String> = None;
    let mut times = Vec::new();
    loop {
        let mut parameters = vec![("per_page", "10")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = reader
            .list(&scope(), &Query::parse(parameters).unwrap())
            .unwrap();
        times.extend(page.result.into_iter().map(|entry| entry.created_at));
        // What comes meanwhile moves nothing.
        store.offer(small(TIME + 100 + times.len() as u64));
        store.flush(SOON).unwrap();
        cursor = page.result_info.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..25)
        .rev()
        .map(|at| super::super::times::shown((TIME + at) as i64))
        .collect();
    assert_eq!(times, expected);
}

#[test]
fn totals_and_ranges_are_of_all_that_pass() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 1..=30 {
        let mut entry = full(TIME + at);
        entry.cost = Some(at as i64 * 1_000_000_000);
        entry.timings.duration = at * 1_000;
        entry.usage = Some(Tokens {
            input: Some(at),
            output: Some(100 - at),
            ..Tokens::default()
        });
        store.offer(entry);
    }
    store.flush(SOON).unwrap();
    let query = Query::parse([
        ("meta_info", "true"),
        ("max_cost", "0.025"),
        ("per_page", "7"),
        ("page", "2"),
    ])
    .unwrap();
    let page = reader(dir.path()).list(&scope(), &query).unwrap();
    let json = serde_json::to_value(page.result_info).unwrap();
    let mut expected = json!({
        "count": 7, "total_count": 25, "page": 2, "per_page": 7, "total_complete": true,
        "min_cost": 0.001, "max_cost": 0.025, "min_duration": 1.0, "max_duration": 25.0,
        "min_tokens_in": 1.0, "max_tokens_in": 25.0, "min_tokens_out": 75.0, "max_tokens_out": 99.0,
        "min_total_tokens": 100.0, "max_total_tokens": 100.0,
    });
    expected["cursor"] = json["cursor"].clone();
    assert_eq!(json, expected);
}

#[test]
fn patience_ends_with_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..5_000).for_each(|at| store.offer(full(TIME + at)));
    store.flush(SOON).unwrap();
    let mut reader = Reader::open(dir.path(), Duration::ZERO).unwrap();
    let page = reader.list(&scope(), &Query::default()).unwrap();
    assert_eq!(page.result.len(), 20);
    assert!(!page.result_info.total_complete && page.result_info.total_count < 5_000);
    let rare = Query::parse([("search", "nobody")]).unwrap();
    let error = reader.list(&scope(), &rare).unwrap_err();
    assert!(error.to_string().contains("narrow the filter"), "{error}");
    let filter = Filter::default();
    assert_eq!(
        reader.export(&scope(), &filter, true).unwrap().count(),
        5_000,
        "exports wait"
    );
}
