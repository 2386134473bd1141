//! What requests that are over are charged.

use bytes::Bytes;

use super::*;
use crate::config::schema::Format;
use crate::error::{Failure, Kind};
use crate::pricing::Prices;
use crate::record::{AnsweredFrom, RequestRecord};
use crate::spending::{self, Evidence, Reserved, Spending};
use crate::usage::Observer;

/// What is set aside for each.
const ASIDE: &str = "0.5";
/// What reading each costs.
const LEAST: &str = "0.25";

const QUESTION: &str = r#"{"model":"m","input":"hi"}"#;
const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const SPEECH: &str = "audio/mpeg";

/// An answer that has come as far as `body`.
fn answer(content_type: &str, body: &str) -> Spending {
    let format = Format::OpenaiChat;
    let mut observer = Observer::new(format, Some(content_type.as_bytes()), None);
    observer.push(&Bytes::copy_from_slice(body.as_bytes()));
    Spending::Unread(Evidence {
        observer,
        format,
        request: vec![Bytes::from_static(QUESTION.as_bytes())],
    })
}

fn record(status: u16, failure: Option<Kind>) -> RequestRecord {
    let mut record = RequestRecord::refused(Kind::Internal);
    record.status = status;
    record.failure = failure.map(Failure::new);
    record
}

/// What is charged for it: its tokens have no price, so an estimate of them is nothing.
fn charged(record: RequestRecord, spending: Spending) -> Cost {
    charged_of(false, record, spending)
}

fn charged_of(writes_nothing: bool, mut record: RequestRecord, spending: Spending) -> Cost {
    let (budgets, day) = (Budgets::in_memory(), rule("day", "1", vec![]));
    let prices = Prices::default();
    let reserved = Reserved {
        reservation: reserve(&budgets, &[&day], dollars(ASIDE), after(0)).unwrap(),
        least: dollars(LEAST),
        writes_nothing,
    };
    record.spent = spending::spent(&record, spending, &prices);
    reserved.settle(&record, &prices, after(1));
    let look = reading(&budgets, "day", after(1));
    assert_eq!(look.reserved, Cost::ZERO);
    look.spent
}

#[test]
fn what_cannot_be_counted_costs_what_was_set_aside() {
    let gone = Some(Kind::ClientGone);
    let cut = Some(Kind::UpstreamCut);
    let usage = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let queued = r#"{"id":"resp_1","status":"queued","usage":null}"#;
    let text = r#"{"choices":[{"message":{"content":"hello"}}]}"#;
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
    for (kind, body, status, failure, cost) in [
        (JSON, usage, 200, None, "0"),
        (JSON, queued, 200, None, ASIDE),
        (JSON, text, 200, None, ASIDE),
        ("text/plain", "hello", 200, None, ASIDE),
        (SPEECH, "\u{1}\u{2}", 200, None, ASIDE),
        // Who leaves before its last byte has it all the same.
        (SPEECH, "\u{1}\u{2}", 200, gone, ASIDE),
        (SPEECH, "", 502, cut, "0"),
        (JSON, &text[..40], 200, cut, "0"),
        (SSE, event, 200, None, "0"),
        (SSE, event, 200, gone, "0"),
    ] {
        let found = charged(record(status, failure), answer(kind, body));
        assert_eq!(found, dollars(cost), "{kind} {body} {status}");
    }
    let embedding = answer(JSON, r#"{"embedding":{"values":[0.1]}}"#);
    let found = charged_of(true, record(200, None), embedding);
    assert_eq!(found, Cost::ZERO, "its request is all there is to count");
}

#[test]
fn what_tells_nothing_costs_by_how_far_it_has_come() {
    for (status, cost) in [
        (200, ASIDE),
        (101, ASIDE),
        (0, LEAST),
        (429, "0"),
        (502, "0"),
    ] {
        let found = charged(record(status, None), Spending::Nothing);
        assert_eq!(found, dollars(cost), "{status}");
    }
    let mut stored = record(200, None);
    stored.cache.from = Some(AnsweredFrom::Flight);
    assert_eq!(charged(stored, Spending::Nothing), Cost::ZERO);
}
