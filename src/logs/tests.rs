//! The store as a whole.

mod bench;
mod broken;
mod kill;
mod listing;
mod reprice;
mod round;

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use uuid::{Timestamp, Uuid};

use super::entry::{Attempt, Entry, Payload, Timings, Tokens};
use super::metadata::{Metadata, MetadataValue};
use super::reader::{Reader, Scope};
use super::store::{Options, Store};
use crate::record::Lines;

/// Longer than any flush takes.
const SOON: Duration = Duration::from_secs(60);

/// Milliseconds since 1970: 2026-11-28T06:30:00.123Z.
const TIME: u64 = 1_795_847_400_123;

/// Knows no encoding but a plain one.
fn plain<'a>(encoding: &str, body: &'a [u8], most: usize) -> Option<Cow<'a, [u8]>> {
    (encoding.is_empty() && body.len() <= most).then_some(Cow::Borrowed(body))
}

fn options() -> Options {
    Options {
        retry: Duration::from_millis(1),
        ..Options::new(plain)
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, options()).unwrap()
}

fn reader(dir: &Path) -> Reader {
    Reader::open(dir, Duration::from_secs(60)).unwrap()
}

fn scope() -> Scope {
    Scope::gateway("acme", "main")
}

/// An id of this millisecond.
fn id_at(milliseconds: u64) -> Uuid {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let nanos = u32::try_from(rest).unwrap() * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// A small entry of this millisecond.
fn small(milliseconds: u64) -> Entry {
    Entry {
        id: id_at(milliseconds),
        created_at: Some(UNIX_EPOCH + Duration::from_millis(milliseconds)),
        account: "acme".into(),
        gateway: "main".into(),
        ..Entry::default()
    }
}

/// An entry with everything.
fn full(milliseconds: u64) -> Entry {
    let text = |text: &'static str| Some(Cow::Borrowed(text));
    Entry {
        provider: text("openai"),
        model: text("openai/gpt-5-mini"),
        answer_model: text("dynamic/support"),
        model_type: text("chat"),
        path: "/v1/chat/completions".into(),
        method: "POST".into(),
        request_type: text("Universal"),
        http_version: "HTTP/1.1".into(),
        client: Some([10, 1, 2, 3].into()),
        user_agent: text("OpenAI/Python 2.9.0"),
        event_id: text("event-1"),
        authentication: true,
        byok: true,
        key_alias: text("production"),
        consumer: text("support-bot"),
        owner: text("team-a"),
        route: text("support"),
        step: 1,
        target: 2,
        status: 200,
        provider_status: Some(503),
        success: true,
        cache_status: text("miss"),
        cache_tier: text("memory"),
        cache_source: Some(id_at(milliseconds - 5)),
        streamed: true,
        complete: true,
        error_source: text("provider"),
        error: text("provider_5xx"),
        error_detail: text("the provider said 503"),
        denied_by: text("policy-1"),
        attempts: 2,
        tried: vec![Attempt {
            target: text("openai/gpt-5"),
            cause: "status".into(),
            status: Some(503),
            ms: 12,
        }],
        request_content_type: text("application/json"),
        response_content_type: text("text/event-stream"),
        request_size: 1000,
        response_size: 600,
        timings: Timings {
            duration: 1_234_500,
            upstream: Some(1_200_000),
            overhead: Some(34_500),
            first_byte: Some(300_000),
            first_token: Some(400_000),
            waited: Some(7),
        },
        usage: Some(Tokens {
            input: Some(100),
            output: Some(50),
            cached_input: Some(1),
            cache_write: Some(2),
            cache_write_1h: Some(3),
            reasoning: Some(4),
            input_audio: Some(5),
            output_audio: Some(6),
            cached_audio: None,
            input_image: Some(7),
            output_image: Some(8),
            web_searches: Some(9),
        }),
        usage_estimated: true,
        service_tier: text("priority"),
        cost: Some(1_500_000_000),
        saved: Some(250_000_000_000),
        cost_source: text("catalog"),
        custom_cost: true,
        metadata: Metadata(vec![
            ("user".to_owned(), MetadataValue::Text("u-1".to_owned())),
            ("n".to_owned(), MetadataValue::Whole(42)),
            ("vip".to_owned(), MetadataValue::Flag(true)),
        ]),
        traceparent: text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        payload: Some(Box::new(payload("{\"model\":\"gpt\"}", "data: {}\n\n"))),
        ..small(milliseconds)
    }
}

fn head(lines: &[(&str, &str)]) -> Lines {
    let mut head = Lines::default();
    lines
        .iter()
        .for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes()));
    head
}

fn payload(request: &str, response: &str) -> Payload {
    Payload {
        request_head: head(&[
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-1"),
        ]),
        response_head: head(&[("content-type", "text/event-stream")]),
        request: Some(vec![Bytes::copy_from_slice(request.as_bytes())]),
        response: Some(vec![Bytes::copy_from_slice(response.as_bytes())]),
        request_complete: true,
        response_complete: true,
    }
}

/// Numbers of chance that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
