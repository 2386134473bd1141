//! What the store costs. Not part of the tests:
//! `benches/stores.sh` runs it. `ROWS` sets the number of rows.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use super::super::counters::read;
use super::super::filter::Filter;
use super::super::query::Query;
use super::*;

/// Processor time of the process, in microseconds.
fn processor() -> f64 {
    used(UsageWho::RUSAGE_SELF)
}

/// The same of the writer's thread.
fn writer(store: &Store) -> f64 {
    store.run(|_| Ok(used(UsageWho::RUSAGE_THREAD))).unwrap()
}

fn used(who: UsageWho) -> f64 {
    let usage = getrusage(who).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    micros(usage.user_time()) + micros(usage.system_time())
}

const MODELS: [&str; 12] = [
    "openai/gpt-5",
    "openai/gpt-5-mini",
    "openai/gpt-5-nano",
    "openai/o4",
    "anthropic/claude-opus-5",
    "anthropic/claude-sonnet-5",
    "anthropic/claude-haiku-4.5",
    "google/gemini-3-pro",
    "google/gemini-3-flash",
    "mistral/large",
    "cohere/command",
    "groq/rare",
];

/// 1 KB in and 600 B out, as chat has them: words that differ.
fn bodies(chance: &mut Chance) -> (String, String) {
    let words = [
        "the", "gateway", "answers", "with", "tokens", "of", "models", "and", "cost", "where",
        "people", "ask", "about", "weather",
    ];
    let mut text = |length: usize| {
        let mut text = String::new();
        while text.len() < length {
            text += chance.pick(&words);
            text.push(' ');
            if chance.below(3) == 0 {
                text += &format!("{:x} ", chance.below(1 << 40));
            }
        }
        text.truncate(length);
        text
    };
    let request = format!(
        r#"{{"model":"gpt-5-mini","messages":[{{"role":"user","content":"{}"}}],"temperature":0.2}}"#,
        text(920)
    );
    let response = format!(
        r#"{{"id":"chatcmpl-1","choices":[{{"message":{{"role":"assistant","content":"{}"}}}}],"usage":{{"prompt_tokens":100}}}}"#,
        text(490)
    );
    (request, response)
}

fn usual(chance: &mut Chance, at: u64, with_bodies: bool) -> Entry {
    let text = |text: &'static str| Some(Cow::Borrowed(text));
    let failed = chance.below(100) == 0;
    let model = if chance.below(10_000) == 0 {
        MODELS[11]
    } else {
        chance.pick(&MODELS[..11])
    };
    let payload = with_bodies.then(|| {
        let (request, response) = bodies(chance);
        Box::new(Payload {
            request_head: head(&[
                ("host", "gateway.example.com"),
                ("content-type", "application/json"),
                ("authorization", "Bearer sk-proj-0123456789"),
                ("accept", "application/json"),
                ("user-agent", "OpenAI/Python 2.9.0"),
                ("x-stainless-lang", "python"),
                ("x-stainless-retry-count", "0"),
                ("content-length", "1000"),
            ]),
            response_head: head(&[
                ("content-type", "application/json"),
                ("date", "Sat, 28 Nov 2026 06:30:00 GMT"),
                ("x-request-id", "req_0123456789abcdef"),
                ("openai-processing-ms", "523"),
                ("cf-aig-cache-status", "MISS"),
                ("cf-aig-step", "0"),
            ]),
            request: Some(vec![request.into()]),
            response: Some(vec![response.into()]),
            request_complete: true,
            response_complete: true,
        })
    });
    Entry {
        provider: text(model.split('/').next().unwrap()),
        model: text(model),
        model_type: text("chat"),
        path: "/v1/chat/completions".into(),
        method: "POST".into(),
        http_version: "HTTP/1.1".into(),
        client: Some([10, 0, 0, chance.below(250) as u8].into()),
        user_agent: text("OpenAI/Python 2.9.0"),
        authentication: true,
        consumer: Some(format!("consumer-{}", chance.below(200)).into()),
        key_alias: text("production"),
        status: if failed { 503 } else { 200 },
        success: !failed,
        error: failed.then_some("provider_5xx".into()),
        error_source: failed.then_some("provider".into()),
        cached: chance.below(5) == 0,
        cache_status: text("miss"),
        complete: true,
        attempts: 1,
        request_content_type: text("application/json"),
        response_content_type: text("application/json"),
        request_size: 1000,
        response_size: 600,
        timings: Timings {
            duration: 200_000 + chance.below(3_000_000),
            upstream: Some(chance.below(3_000_000)),
            overhead: Some(300 + chance.below(500)),
            first_byte: Some(chance.below(3_000_000)),
            first_token: None,
            waited: None,
        },
        usage: Some(Tokens {
            input: Some(100 + chance.below(4000)),
            output: Some(chance.below(900)),
            cached_input: Some(0),
            reasoning: Some(chance.below(300)),
            ..Tokens::default()
        }),
        cost: Some(chance.below(20_000_000_000) as i64),
        cost_source: text("catalog"),
        metadata: Metadata(vec![
            (
                "user".to_owned(),
                MetadataValue::Text(format!("user-{}", chance.below(50_000))),
            ),
            (
                "team".to_owned(),
                MetadataValue::Text(format!("team-{}", chance.below(50))),
            ),
        ]),
        payload,
        gateway: if at.is_multiple_of(10) {
            "side".into()
        } else {
            "main".into()
        },
        ..small(TIME + at / 2)
    }
}

/// Bytes of a directory: database with its WAL, and segments.
fn bytes(dir: &Path) -> (u64, u64) {
    let mut sizes = (0, 0);
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        let length = file.metadata().unwrap().len();
        if file.file_name().to_string_lossy().starts_with("bodies") {
            sizes.1 += length
        } else {
            sizes.0 += length
        }
    }
    sizes
}

#[test]
#[ignore = "a benchmark"]
fn writing() {
    for with_bodies in [false, true] {
        let dir =
            tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or("/tmp".to_owned())).unwrap();
        let store = open(dir.path());
        let mut chance = Chance(11);
        let (mut busy, mut wall, mut offering) = (0.0, 0.0, 0.0);
        let (rounds, per_round) = (20, 5_000_u64);
        for round in 0..rounds {
            let entries: Vec<_> = (0..per_round)
                .map(|at| usual(&mut chance, round * per_round + at, with_bodies))
                .collect();
            let (start, before) = (Instant::now(), processor());
            entries.into_iter().for_each(|entry| store.offer(entry));
            offering += start.elapsed().as_secs_f64() * 1e6;
            store.flush(SOON).unwrap();
            busy += processor() - before;
            wall += start.elapsed().as_secs_f64();
        }
        let count = (rounds * per_round) as f64;
        println!(
            "bodies {with_bodies}: {:.0} rows/s as fast as it goes, {:.2} us of CPU a row, of it {:.2} the writer's and {:.2} offering",
            count / wall,
            busy / count,
            writer(&store) / count,
            offering / count
        );
        println!(
            "  dropped {} {}",
            read(&store.counters().bodies_dropped),
            read(&store.counters().rows_dropped)
        );
        drop(store);
        let (rows, bodies) = bytes(dir.path());
        println!(
            "  {:.1} B a row, {:.1} B of bodies; {:.0} KB per 1,000 requests",
            rows as f64 / count,
            bodies as f64 / count,
            (rows + bodies) as f64 / count
        );
    }
}

#[test]
#[ignore = "a benchmark"]
fn sustained() {
    let dir =
        tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or("/tmp".to_owned())).unwrap();
    let store = open(dir.path());
    let mut chance = Chance(11);
    let (mut at, mut making) = (0, 0.0);
    let (start, before) = (Instant::now(), processor());
    while at < 20_000 {
        let making_from = processor();
        let entries: Vec<_> = (0..20)
            .map(|number| usual(&mut chance, at + number, true))
            .collect();
        making += processor() - making_from;
        entries.into_iter().for_each(|entry| store.offer(entry));
        at += 20;
        let due = Duration::from_micros(at * 500);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    store.flush(SOON).unwrap();
    let counters = store.counters();
    println!(
        "2,000/s for {:?}: {:.2} us of the writer's CPU a row, {:.2} of all, {} flushes, dropped {} bodies {} rows",
        start.elapsed(),
        writer(&store) / at as f64,
        (processor() - before - making) / at as f64,
        read(&counters.flushes),
        read(&counters.bodies_dropped),
        read(&counters.rows_dropped)
    );
}

#[test]
#[ignore = "a benchmark"]
fn listing() {
    let rows: u64 = std::env::var("ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(1_000_000);
    let dir =
        tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or("/tmp".to_owned())).unwrap();
    let store = open(dir.path());
    let mut chance = Chance(11);
    let start = Instant::now();
    for at in 0..rows {
        store.offer(usual(&mut chance, at, false));
        if at % 10_000 == 0 {
            store.flush(SOON).unwrap();
        }
    }
    store.flush(SOON).unwrap();
    let (size, _) = bytes(dir.path());
    println!(
        "{rows} rows in {:?}, {:.1} B a row",
        start.elapsed(),
        size as f64 / rows as f64
    );
    let mut reader = Reader::open(dir.path(), Duration::from_secs(600)).unwrap();
    let middle = super::super::times::shown((TIME + rows / 4) as i64);
    let later = super::super::times::shown((TIME + rows / 4 + 5_000) as i64);
    let deep = (rows / 50 / 2).to_string();
    let queries: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("newest", vec![]),
        ("newest with ranges", vec![("meta_info", "true")]),
        ("failed", vec![("success", "false")]),
        ("one of 11 models", vec![("model", "openai/o4")]),
        ("1 of 10,000 by model", vec![("model", "groq/rare")]),
        (
            "provider contains",
            vec![(
                "filters",
                r#"[{"key":"provider","operator":"contains","value":["thropi"]}]"#,
            )],
        ),
        (
            "a user of 50,000",
            vec![(
                "filters",
                r#"[{"key":"metadata.user","operator":"eq","value":["user-777"]}]"#,
            )],
        ),
        ("search, nothing there", vec![("search", "nobody")]),
        ("cost over 1.9 cents", vec![("min_cost", "0.019")]),
        (
            "ten seconds in the middle",
            vec![("start_date", &middle), ("end_date", &later)],
        ),
        ("by model", vec![("order_by", "model")]),
        ("page in the middle", vec![("page", &deep)]),
    ];
    for (name, mut parameters) in queries {
        parameters.push(("per_page", "50"));
        let query = Query::parse(parameters).unwrap();
        let mut times = Vec::new();
        let mut count = 0;
        for _ in 0..3 {
            let start = Instant::now();
            count = reader
                .list(&scope(), &query)
                .unwrap()
                .result_info
                .total_count;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let sql = super::super::filter::sql::Sql::new(
            reader.connection(),
            scope().label(),
            &query.filter,
        )
        .unwrap();
        let keys = super::super::reader::Keys {
            sql: &sql,
            order: query.order,
            after: None,
            limit: 51,
            offset: u64::from(query.page - 1) * 50,
        };
        let start = Instant::now();
        keys.read(reader.connection(), |_| {}).unwrap();
        println!(
            "  {name}: {:.1} ms with totals ({count}), of it the page {:.2} ms",
            times[2],
            start.elapsed().as_secs_f64() * 1e3
        );
    }
    let start = Instant::now();
    let count = reader
        .export(&scope(), &Filter::default(), true)
        .unwrap()
        .take(100_000)
        .count();
    println!(
        "  export: {:.0} entries/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
}

#[test]
#[ignore = "a benchmark"]
fn levels() {
    let mut chance = Chance(11);
    let plain: Vec<Vec<u8>> = (0..4_000)
        .map(|at| {
            let payload = usual(&mut chance, at, true).payload.unwrap();
            let heads = format!("{:?}{:?}", payload.request_head, payload.response_head);
            [
                heads.into_bytes(),
                payload.request.unwrap().concat(),
                payload.response.unwrap().concat(),
            ]
            .concat()
        })
        .collect();
    for per_frame in [1, 4, 16, 64] {
        for level in [-5, -3, -1, 1, 2, 3] {
            let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
            compressor.include_checksum(true).unwrap();
            let frames: Vec<Vec<u8>> = plain.chunks(per_frame).map(<[Vec<u8>]>::concat).collect();
            let mut out = Vec::new();
            let (before, mut size) = (processor(), 0);
            for _ in 0..3 {
                size = 0;
                for frame in &frames {
                    out.clear();
                    out.reserve(zstd::zstd_safe::compress_bound(frame.len()));
                    compressor.compress_to_buffer(frame, &mut out).unwrap();
                    size += out.len();
                }
            }
            println!(
                "{per_frame} a frame, level {level}: {:.2} us, {} B of {}",
                (processor() - before) / 12_000.0,
                size / 4_000,
                plain.iter().map(Vec::len).sum::<usize>() / 4_000
            );
        }
    }
}
