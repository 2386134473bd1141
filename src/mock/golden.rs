//! Whole answers compared with files: each `tests/golden/mock/*.request` (a request
//! line, headers, an empty line, a body) has its `.answer` (status, headers, an empty line, the
//! body, byte for byte). `TOLLGATE_BLESS=1` writes the answers anew: read the diff.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, Method};

use super::*;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mock");
    let mut cases: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "request"))
        .collect();
    cases.sort();
    cases
}

fn header_map(lines: &str) -> HeaderMap {
    let pairs = lines.lines().filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect()
}

fn ask(case: &str) -> Answer {
    let (line, body) = case.split_once("\n\n").unwrap();
    let (line, headers) = line.split_once('\n').unwrap_or((line, ""));
    let (method, target) = line.split_once(' ').unwrap();
    answer(&Request {
        method: &method.parse::<Method>().unwrap(),
        target,
        caller: Caller::of(&header_map(headers)),
        body: body.trim_end().as_bytes(),
    })
}

fn body(answer: &Answer) -> &[u8] {
    match &answer.body {
        Body::Whole(bytes) | Body::Events { bytes, .. } => bytes,
    }
}

fn rendered(answer: &Answer) -> Vec<u8> {
    let (id_header, id) = &answer.request_id;
    let head = format!(
        "{}\ncontent-type: {}\n{id_header}: {id}\n\n",
        answer.status, answer.content_type
    );
    [head.as_bytes(), body(answer)].concat()
}

#[test]
fn answers_are_as_recorded() {
    let bless = std::env::var_os("TOLLGATE_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "only {} golden cases", cases.len());
    for case in cases {
        let request = fs::read_to_string(&case).unwrap();
        let got = rendered(&ask(&request));
        let file = case.with_extension("answer");
        if bless {
            fs::write(&file, &got).unwrap();
        }
        let wanted = fs::read(&file).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(&wanted),
            "{}",
            case.display()
        );
    }
}

#[test]
fn bodies_and_every_event_are_json() {
    for case in cases() {
        let answer = ask(&fs::read_to_string(&case).unwrap());
        let text = std::str::from_utf8(body(&answer)).unwrap();
        if !answer.content_type.starts_with("text/event-stream") {
            serde_json::from_str::<serde_json::Value>(text)
                .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
            continue;
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let json = line == "[DONE]" || serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert!(json, "{}: {line}", case.display());
        }
    }
}

#[test]
fn events_end_where_their_frames_end() {
    let streams = cases()
        .iter()
        .map(|case| ask(&fs::read_to_string(case).unwrap()))
        .filter(|answer| answer.content_type.starts_with("text/event-stream"))
        .collect::<Vec<_>>();
    assert!(streams.len() >= 8);
    for answer in streams {
        let Body::Events { bytes, ends } = &answer.body else {
            panic!("a stream without events");
        };
        assert_eq!(ends.last(), Some(&bytes.len()));
        let mut start = 0;
        for &end in ends {
            let event = std::str::from_utf8(&bytes[start..end]).unwrap();
            let lines = event.replace("\r\n", "\n");
            assert_eq!(lines.find("\n\n"), Some(lines.len() - 2), "{event:?}");
            start = end;
        }
    }
}

#[test]
fn a_size_is_about_the_size_of_the_body() {
    let conversation = r#""messages":[{"role":"user","content":"fill it"}]"#;
    let wanted = 1_usize << 20;
    for (target, text, stream) in [
        ("chat/completions", conversation, true),
        ("chat/completions", conversation, false),
        ("responses", r#""input":"fill it""#, true),
        ("responses", r#""input":"fill it""#, false),
        ("messages", conversation, true),
        ("messages", conversation, false),
    ] {
        let case = format!(
            "POST /v1/{target}\n\n{{\"model\":\"mock-size-1MiB\",\"stream\":{stream},{text}}}"
        );
        let size = body(&ask(&case)).len();
        let about = (wanted..wanted + wanted / 8).contains(&size);
        assert!(about, "{target}, stream {stream}: {size} bytes");
    }
}

#[test]
fn the_same_request_gets_the_same_answer_and_another_one_another_id() {
    let request = |text| {
        let case = format!("POST /v1/responses\n\n{{\"model\":\"mock\",\"input\":\"{text}\"}}");
        ask(&case)
    };
    assert_eq!(request("one"), request("one"));
    assert_ne!(request("one").request_id, request("two").request_id);
}

#[test]
fn versions_in_paths_are_optional() {
    for version in ["", "/", "/v1/", "/v1beta/", "/v1alpha/"] {
        let case = format!("POST {version}responses\n\n{{\"model\":\"mock\",\"input\":\"\"}}");
        assert_eq!(ask(&case).status, 200, "{version}");
    }
    assert_eq!(ask("POST /v2/responses\n\n{}").status, 404);
    assert_eq!(ask("POST /v1/v1/responses\n\n{}").status, 404);
    assert_eq!(ask("GET /v1/responses\n\n").status, 404);
}

#[test]
fn a_body_that_cannot_be_held_is_refused() {
    let refused = answer::too_large(
        &Request {
            method: &Method::POST,
            target: "/v1/chat/completions",
            caller: Caller::OpenAi,
            body: b"",
        },
        1024,
    );
    assert_eq!(refused.status, 413);
    let text = String::from_utf8_lossy(body(&refused)).into_owned();
    assert!(
        text.contains("request bodies of at most 1024 bytes"),
        "{text}"
    );
}
