//! Golden answers: a few `name: value` lines, an empty line, the body. `usage`, `tier` and `model`
//! are what must be read from it. Each `tests/golden/usage/*.answer` is an exchange recorded from
//! a real provider, its texts replaced and its middle cut out; each
//! `tests/golden/documented/*.answer` is modelled on what `source` documents, for what no
//! recorded one has. `tests/sdk/test_prices.py` has all of them priced by the binary.

#![allow(clippy::unwrap_used)]

mod estimates;
mod kinds;
mod observing;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use memchr::memmem;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

use super::*;

fn format(name: &str) -> Format {
    let name: serde::de::value::StrDeserializer<Error> = name.into_deserializer();
    Format::deserialize(name).unwrap()
}

fn shown(usage: Option<Usage>) -> String {
    let Some(usage) = usage else {
        return "none".to_owned();
    };
    // Exhaustive: a new count does not compile until the golden files show it.
    let Usage {
        input,
        output,
        cached_input,
        cache_write,
        cache_write_1h,
        reasoning,
        input_audio,
        output_audio,
        cached_audio,
        input_image,
        output_image,
        web_searches,
    } = usage;
    format!(
        "input {input}, output {output}, cached_input {cached_input}, cache_write {cache_write}, \
         reasoning {reasoning}, cache_write_1h {cache_write_1h}, input_audio {input_audio}, \
         output_audio {output_audio}, cached_audio {cached_audio}, input_image {input_image}, \
         output_image {output_image}, web_searches {web_searches}"
    )
}

/// A golden file: its fields, and the body of the answer.
struct Case {
    name: String,
    lines: String,
    body: Vec<u8>,
}

impl Case {
    fn field(&self, name: &str) -> &str {
        let mut lines = self.lines.lines();
        let field = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        field.unwrap()
    }

    /// An observer of its answer, in this content encoding.
    fn observer(&self, encoding: Option<&str>) -> Observer {
        let content_type = self.field("content-type").as_bytes();
        Observer::new(format(self.field("format")), Some(content_type), encoding)
    }
}

/// The golden files of a directory under `tests/golden`.
fn cases(directory: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(root.join(directory)).unwrap();
    let case = |path: std::path::PathBuf| {
        let case = fs::read(&path).unwrap();
        let head = memmem::find(&case, b"\n\n").unwrap();
        Case {
            name: path.display().to_string(),
            lines: String::from_utf8(case[..head].to_vec()).unwrap(),
            body: case[head + 2..].to_vec(),
        }
    };
    files.map(|file| case(file.unwrap().path())).collect()
}

#[test]
fn recorded_and_documented_answers() {
    let mut providers = BTreeSet::new();
    for case in ["usage", "documented"].into_iter().flat_map(cases) {
        let mut observer = case.observer(None);
        observer.push(&case.body.clone().into());
        let seen = observer.finish();
        let name = &case.name;
        assert_eq!(shown(seen.usage), case.field("usage"), "{name}");
        assert_eq!(seen.tier.name(), case.field("tier"), "{name}");
        assert_eq!(
            seen.model.as_deref().unwrap_or("none"),
            case.field("model"),
            "{name}"
        );
        // Not every provider ends its streams with a last word.
        let ended = !case.lines.contains("ended: false");
        assert_eq!((seen.ended, seen.fault), (ended, None), "{name}");
        let content_type = case.field("content-type");
        let of_answer = of_answer(format(case.field("format")), content_type, &case.body);
        assert_eq!(of_answer, seen.clone().told(), "{name}");
        // Whoever of two reads it first, both learn the same.
        let heard = Heard::default();
        let first = super::of_answer(
            format(case.field("format")),
            content_type,
            &case.body,
            &heard,
        );
        let mut observer = case.observer(None);
        observer.share(Arc::clone(&heard));
        observer.push(&case.body.clone().into());
        assert_eq!((first, observer.finish()), (of_answer, seen), "{name}");
        providers.insert(case.field("provider").to_owned());
    }
    assert!(providers.len() >= 8, "{providers:?}");
}

#[test]
fn a_whole_answer_is_read_by_the_first_who_wants_to_know() {
    const WHOLE: &str = r#"{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    const CUT: &str = r#"{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}"#;
    const UNSAID: &str = r#"{"model":"m","choices":[{"message":{"content":"hi"}}]}"#;
    let read = |body: &'static str, heard: &Heard| {
        let mut observer = Observer::new(Format::OpenaiChat, Some(b"application/json"), None);
        observer.share(Arc::clone(heard));
        observer.push(&body.into());
        observer.finish()
    };
    let another = r#"{"usage":{"prompt_tokens":7,"completion_tokens":8}}"#;
    let heard = Heard::default();
    let first = read(WHOLE, &heard);
    let of_answer = |heard: &Heard| {
        super::of_answer(
            Format::OpenaiChat,
            "application/json",
            another.as_bytes(),
            heard,
        )
    };
    assert_eq!(of_answer(&heard), first.clone().told());
    assert_eq!(read(another, &heard), first);
    // What was cut, or says nothing of tokens, every reader reads by itself.
    for body in [CUT, UNSAID] {
        let heard = Heard::default();
        read(body, &heard);
        assert_eq!(of_answer(&heard).unwrap().usage.input, 7, "{body}");
    }
    let heard = Heard::default();
    let told = of_answer(&heard);
    assert_eq!(read(WHOLE, &heard).told(), told);
}

#[test]
fn what_is_not_all_of_an_answer_is_told_to_nobody() {
    const USAGE: &str = r#"data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    const LAST: &str = r#"data: {"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#;
    const TEXT: &str = r#"data: {"choices":[{"delta":{"content":"hi"}}]}"#;
    let observed = |events: &[&str], change: fn(&mut Observer)| {
        let heard = Heard::default();
        let mut observer = Observer::new(Format::OpenaiChat, Some(b"text/event-stream"), None);
        observer.share(Arc::clone(&heard));
        change(&mut observer);
        observer.push(&(events.join("\n\n") + "\n\n").into());
        assert!(observer.finish().usage.is_some());
        heard.get().is_some()
    };
    let as_it_is = |_: &mut Observer| {};
    assert!(observed(&[TEXT, LAST], as_it_is));
    assert!(!observed(&[TEXT, USAGE], as_it_is), "it did not end");
    assert!(!observed(&[LAST, TEXT], as_it_is), "it wrote more");
    assert!(!observed(&[TEXT, LAST], Observer::read_alone));
    // Larger ones are read by each: an event may be too large for one of them.
    let padded = |length: usize| {
        let body = r#"{"usage":{"prompt_tokens":7,"completion_tokens":8}}"#;
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    for (length, is_shared) in [(256 << 10, true), ((256 << 10) + 1, false)] {
        let heard = Heard::default();
        let read = |body: &str, heard: &Heard| {
            super::of_answer(
                Format::OpenaiChat,
                "application/json",
                body.as_bytes(),
                heard,
            )
        };
        let told = read(&padded(length), &heard);
        assert_eq!(heard.get().cloned(), told.filter(|_| is_shared), "{length}");
        let _ = heard.set(
            read(
                "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}",
                &Heard::default(),
            )
            .unwrap(),
        );
        let input = read(&padded(length), &heard).unwrap().usage.input;
        assert_eq!(input, 7, "{length}");
    }
}

/// By one who reads alone.
fn of_answer(format: Format, content_type: &str, body: &[u8]) -> Option<Told> {
    super::of_answer(format, content_type, body, &Heard::default())
}

fn usage(input: u64, output: u64, cached_input: u64, cache_write: u64, reasoning: u64) -> Usage {
    Usage {
        input,
        output,
        cached_input,
        cache_write,
        reasoning,
        ..Usage::default()
    }
}

/// What no recorded answer shows.
#[test]
fn words_of_providers() {
    let cases = [
        // OpenAI images, responses with a cache, completions of others with cache writes.
        (
            r#"{"data":[{"b64_json":"A"}],"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            Usage {
                input_image: 40,
                ..usage(50, 4160, 0, 0, 0)
            },
        ),
        (
            r#"{"usage":{"input_tokens":2006,"input_tokens_details":{"cached_tokens":1920},"output_tokens":300,"output_tokens_details":{"reasoning_tokens":256},"total_tokens":2306}}"#,
            usage(2006, 300, 1920, 0, 256),
        ),
        (
            r#"{"usage":{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":30}}}"#,
            usage(100, 5, 60, 30, 0),
        ),
        // Anthropic's words inside OpenAI's: parts of the sum, not apart from it.
        (
            r#"{"usage":{"prompt_tokens":100,"completion_tokens":5,"cache_read_input_tokens":60,"cache_creation_input_tokens":30}}"#,
            usage(100, 5, 60, 30, 0),
        ),
        (
            r#"{"usage":{"prompt_tokens":20,"completion_tokens":7,"prompt_cache_hit_tokens":16,"prompt_cache_miss_tokens":4}}"#,
            usage(20, 7, 16, 0, 0),
        ),
        (
            r#"{"usage":{"prompt_tokens":20,"completion_tokens":7,"cached_tokens":16}}"#,
            usage(20, 7, 16, 0, 0),
        ),
        // xAI leaves the thoughts out of the output.
        (
            r#"{"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":321,"completion_tokens_details":{"reasoning_tokens":300}}}"#,
            usage(12, 309, 0, 0, 300),
        ),
        (
            r#"{"usage":{"prompt_tokens":12,"completion_tokens":309,"total_tokens":321,"completion_tokens_details":{"reasoning_tokens":300}}}"#,
            usage(12, 309, 0, 0, 300),
        ),
        (
            r#"{"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":65,"cacheReadInputTokens":30,"cacheWriteInputTokens":20}}"#,
            usage(60, 5, 30, 20, 0),
        ),
        (
            r#"{"result":{"response":"Hi","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}},"success":true}"#,
            usage(3, 2, 0, 0, 0),
        ),
        (
            r#"{"embeddings":{},"meta":{"billed_units":{"input_tokens":4.0,"image_tokens":3.0}}}"#,
            usage(7, 0, 0, 0, 0),
        ),
        (
            r#"{"usage":{"tokens":{"input_tokens":40,"output_tokens":3},"cached_tokens":32}}"#,
            usage(40, 3, 32, 0, 0),
        ),
        // Gemini without `alt=sse` streams a JSON array.
        (
            "[{\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":1}}\n,\r\n{\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":4,\"cachedContentTokenCount\":8,\"thoughtsTokenCount\":2}}]",
            usage(9, 6, 8, 0, 2),
        ),
        // Counts of unexpected types are absent; so is everything else.
        (
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":"7","total_tokens":null,"prompt_tokens_details":[1],"x":{}},"meta":[],"message":"a","delta":1.5,"response":-1,"result":false}"#,
            usage(5, 0, 0, 0, 0),
        ),
        (
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            usage(0, 0, 0, 0, 0),
        ),
        (
            r#"{"usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":1}}"#,
            usage(u64::MAX, 0, 1, 0, 0),
        ),
    ];
    for (body, expected) in cases {
        let read = of_answer(Format::OpenaiChat, "application/json", body.as_bytes());
        assert_eq!(read.map(|told| told.usage), Some(expected), "{body}");
    }
}

#[test]
fn later_events_complete_earlier_ones() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":4,"cache_read_input_tokens":90,"cache_creation_input_tokens":6,"output_tokens":1}}}"#;
    let deltas = [
        (
            r#"{"type":"message_delta","usage":{"output_tokens":20}}"#,
            usage(100, 20, 90, 6, 0),
        ),
        (
            r#"{"type":"message_delta","usage":{"input_tokens":0,"output_tokens":20}}"#,
            usage(100, 20, 90, 6, 0),
        ),
        (
            r#"{"type":"message_delta","usage":{"input_tokens":4,"output_tokens":20}}"#,
            usage(100, 20, 90, 6, 0),
        ),
        (
            r#"{"type":"message_delta","usage":{"input_tokens":504,"cache_read_input_tokens":90,"output_tokens":20}}"#,
            usage(600, 20, 90, 6, 0),
        ),
    ];
    for (delta, expected) in deltas {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                "event: a{end}data: {start}{end}{end}data: {delta}{end}{end}data: [DONE]{end}{end}"
            );
            let read = of_answer(
                Format::AnthropicMessages,
                "text/event-stream",
                stream.as_bytes(),
            );
            assert_eq!(read.map(|told| told.usage), Some(expected), "{delta}");
        }
    }
}

#[test]
fn what_reports_nothing_has_no_usage() {
    let bodies = [
        "",
        "{}",
        "[]",
        "null",
        "7",
        "not json",
        "{\"usage\":null}",
        "{\"usage\":{}}",
        "{\"usage\":\"much\"}",
        "data: {\"usage\":null}\n\n",
        "data: usage\n\n",
        "{\"usage\":{\"prompt_tokens\":1",
        "{\"message\":{\"content\":\"usage\"}}",
    ];
    let types = [
        "application/json",
        "text/event-stream",
        "application/vnd.amazon.eventstream",
        "",
        "audio/mpeg",
    ];
    for body in bodies {
        for content_type in types {
            let read = of_answer(Format::OpenaiChat, content_type, body.as_bytes());
            assert_eq!(read, None, "{content_type} {body}");
        }
    }
    let body = br#"{"usage":{"prompt_tokens":1}}"#;
    assert_eq!(of_answer(Format::Opaque, "application/json", body), None);
    assert!(of_answer(Format::Bedrock, "application/json", body).is_some());
}

/// Nothing but the words above is read, however deep or large.
#[test]
fn other_parts_cost_nothing_and_cannot_fail() {
    let deep = "[".repeat(100_000);
    let numbers = "0.25,".repeat(100_000);
    let text = format!(r#"{{"data":[{numbers}0],"usage":{{"prompt_tokens":1}}}}"#);
    assert!(of_answer(Format::OpenaiChat, "application/json", text.as_bytes()).is_some());
    assert_eq!(
        of_answer(Format::OpenaiChat, "application/json", deep.as_bytes()),
        None
    );
}
