//! A provider's answer that breaks after its first byte is never a clean end.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::conf::{CHAT, at, openai, path};
use crate::support::metrics::Metrics;
use crate::support::upstream::End;
use crate::support::{Answer, Ending, Gateway, Protocol, Request, Response, Upstream, within};

const BOTH: [Protocol; 2] = [Protocol::H1, Protocol::H2];

/// Between the last byte and the break: a reset may overtake bytes that were sent at once.
const MOMENT: Duration = Duration::from_millis(50);

/// How one dialect streams, ends and says "error".
struct Dialect {
    slug: &'static str,
    base: &'static str,
    path: &'static str,
    /// Whole frames.
    frames: &'static str,
    /// What only a stream that succeeded contains.
    terminator: &'static str,
    /// Whether these are the `event:` and `data:` of an error.
    is_error: fn(Option<&str>, &Value) -> bool,
}

const DIALECTS: [Dialect; 5] = [
    Dialect {
        slug: "openai",
        base: "/v1",
        path: "chat/completions",
        frames: "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n",
        terminator: "[DONE]",
        is_error: |event, data| event.is_none() && data["error"]["message"].is_string(),
    },
    Dialect {
        slug: "openai",
        base: "/v1",
        path: "responses",
        frames: "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r1\"}}\n\n",
        terminator: "response.completed",
        is_error: |event, data| {
            event == Some("error") && data["type"] == "error" && data["message"].is_string()
        },
    },
    Dialect {
        slug: "anthropic",
        base: "",
        path: "v1/messages",
        frames: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
        terminator: "message_stop",
        is_error: |event, data| {
            event == Some("error")
                && data["type"] == "error"
                && data["error"]["type"].is_string()
                && data["error"]["message"].is_string()
        },
    },
    Dialect {
        slug: "google-ai-studio",
        base: "",
        path: "v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        frames: "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hel\"}],\"role\": \"model\"}}]}\r\n\r\n",
        terminator: "finishReason",
        is_error: |event, data| {
            event.is_none()
                && data["error"]["code"].is_u64()
                && data["error"]["message"].is_string()
                && data["error"]["status"].is_string()
        },
    },
    Dialect {
        slug: "custom-acme",
        base: "/v1",
        path: "chat/completions",
        frames: ": keep-alive\n\ndata: {\"choices\":[]}\n\n",
        terminator: "[DONE]",
        is_error: |event, data| event.is_none() && data["error"]["message"].is_string(),
    },
];

/// What a stream may have said last: whole frames, a part of one, a line without its blank one.
const TAILS: [&str; 4] = ["", "data: {\"par", "data: {\"whole\":1}\n", "event: x\r\n"];

/// `event:` and `data:` of the last event of a stream.
fn last_event(stream: &str) -> (Option<String>, Value) {
    let stream = stream.replace("\r\n", "\n");
    let event = stream
        .trim_end_matches('\n')
        .rsplit("\n\n")
        .next()
        .unwrap_or_default();
    let field = |name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    let data = field("data:").unwrap_or_default();
    let data = serde_json::from_str(&data)
        .unwrap_or_else(|error| panic!("{error}: {data:?} in {stream:?}"));
    (field("event:"), data)
}

fn assert_honest_end(dialect: &Dialect, sent: &str, answer: &Response) {
    let text = answer.text();
    assert_eq!(answer.status, 200);
    assert!(
        text.starts_with(sent),
        "{sent:?} is not the start of {text:?}"
    );
    assert_eq!(
        answer.ending,
        Ending::Whole,
        "the framing ends cleanly: {text:?}"
    );
    let (event, data) = last_event(&text);
    assert!(
        (dialect.is_error)(event.as_deref(), &data),
        "{}: {text:?}",
        dialect.path
    );
    assert!(text.ends_with("\n\n"), "the event is complete: {text:?}");
    assert!(!text.contains(dialect.terminator), "{text:?}");
    assert!(
        !text.contains("127.0.0.1"),
        "no address reaches a client: {text:?}"
    );
}

/// Breaks every dialect's stream in every place, as `end`, over `version`.
async fn break_everywhere(upstream: &Upstream, version: &str, end: End) {
    for dialect in &DIALECTS {
        let more = match dialect.slug {
            "custom-acme" => format!("format: openai-chat, {version}"),
            _ => version.to_owned(),
        };
        let gateway = Gateway::start(&at(upstream, dialect.slug, dialect.base, &more)).await;
        for (tail, protocol) in TAILS.iter().zip(BOTH.iter().cycle()) {
            let sent = format!("{}{tail}", dialect.frames);
            upstream.script(Answer::sse().text(&sent).end(end));
            let request = Request::post(&path(dialect.slug, dialect.path), r#"{"stream":true}"#);
            let answer = request.over(*protocol).send(&gateway).await;
            assert_honest_end(dialect, &sent, &answer);
        }
    }
}

#[tokio::test]
async fn a_closed_stream_ends_with_the_dialects_error() {
    break_everywhere(&Upstream::h1().await, "http: h1", End::Close).await;
}

#[tokio::test]
async fn a_reset_http2_stream_ends_with_the_dialects_error() {
    break_everywhere(&Upstream::h2c().await, "http: h2", End::Reset).await;
}

#[tokio::test]
async fn a_lost_http2_connection_ends_with_the_dialects_error() {
    break_everywhere(&Upstream::h2c().await, "http: h2", End::Close).await;
}

#[tokio::test]
async fn a_reset_connection_and_an_empty_stream_are_told_too() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for protocol in BOTH {
        for (sent, end) in [
            ("", End::Close),
            ("", End::Reset),
            (DIALECTS[0].frames, End::Reset),
        ] {
            upstream.script(Answer::sse().text(sent).pause(MOMENT).end(end));
            let answer = Request::post(CHAT, "{}")
                .over(protocol)
                .send(&gateway)
                .await;
            assert_honest_end(&DIALECTS[0], sent, &answer);
        }
    }
}

#[tokio::test]
async fn silence_in_a_stream_ends_it_with_an_error() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let more = format!("{version}, timeouts: {{ idle: 300ms }}");
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", &more)).await;
        for (number, protocol) in BOTH.into_iter().enumerate() {
            upstream.script(Answer::sse().text(DIALECTS[0].frames).end(End::Hang));
            let answer = Request::post(CHAT, "{}")
                .over(protocol)
                .send(&gateway)
                .await;
            assert_honest_end(&DIALECTS[0], DIALECTS[0].frames, &answer);
            upstream.abandoned(number + 1).await;
        }
    }
}

/// Answers that nothing can be added to: their framing must break.
fn unspeakable() -> Vec<(&'static str, Answer)> {
    let sse = "text/event-stream";
    let of = |kind: &str| Answer::new(200).header("content-type", kind);
    vec![
        (
            "compressed stream",
            of(sse).header("content-encoding", "gzip").chunked(),
        ),
        ("event stream of known length", of(sse).declaring(9000)),
        ("JSON in chunks", of("application/json").chunked()),
        (
            "JSON of known length",
            of("application/json").declaring(9000),
        ),
        ("audio in chunks", of("audio/mpeg").chunked()),
        ("no type", Answer::new(200).chunked()),
        (
            "an error in chunks",
            Answer::new(500)
                .header("content-type", "application/json")
                .chunked(),
        ),
    ]
}

#[tokio::test]
async fn anything_else_breaks_its_framing() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for protocol in BOTH {
            for (what, scripted) in unspeakable() {
                upstream.script(scripted.text("{\"partial\":").pause(MOMENT).end(End::Close));
                let answer = Request::post(CHAT, "{}")
                    .over(protocol)
                    .send(&gateway)
                    .await;
                assert_eq!(
                    answer.ending,
                    Ending::Cut,
                    "{what}, {protocol:?}, {version}: {:?}",
                    answer.text()
                );
                assert!(
                    "{\"partial\":".starts_with(&answer.text()),
                    "{what}: {:?}",
                    answer.text()
                );
            }
        }
    }
}

/// One message of an AWS event stream without headers.
fn event_stream_message(payload: &[u8]) -> Vec<u8> {
    let total = u32::try_from(payload.len() + 16).unwrap();
    let mut message = [total.to_be_bytes(), 0u32.to_be_bytes()].concat();
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(payload);
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}

/// The last message of an AWS event stream, every checksum verified.
fn last_message(mut stream: &[u8]) -> Vec<u8> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let mut last = Vec::new();
    while !stream.is_empty() {
        let (message, rest) = stream.split_at(word(&stream[..4]) as usize);
        let end = message.len() - 4;
        assert_eq!(crc32fast::hash(&message[..8]), word(&message[8..12]));
        assert_eq!(crc32fast::hash(&message[..end]), word(&message[end..]));
        (last, stream) = (message.to_vec(), rest);
    }
    last
}

#[tokio::test]
async fn a_bedrock_stream_ends_with_an_exception() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&at(&upstream, "aws-bedrock", "", "")).await;
    let target = path(
        "aws-bedrock",
        "bedrock-runtime/us-east-1/model/m/converse-stream",
    );
    let sent = event_stream_message(b"{\"contentBlockDelta\":{}}");
    let open = || {
        Answer::new(200)
            .header("content-type", "application/vnd.amazon.eventstream")
            .chunked()
    };
    for protocol in BOTH {
        upstream.script(open().bytes(&sent).pause(MOMENT).end(End::Close));
        let answer = Request::post(&target, "{}")
            .header("authorization", "own")
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(answer.ending, Ending::Whole);
        assert!(answer.body.starts_with(&sent));
        let last = String::from_utf8_lossy(&last_message(&answer.body)).into_owned();
        assert!(
            last.contains(":message-type") && last.contains("exception"),
            "{last:?}"
        );

        upstream.script(
            open()
                .bytes(&sent)
                .bytes(&sent[..20])
                .pause(MOMENT)
                .end(End::Close),
        );
        let answer = Request::post(&target, "{}")
            .header("authorization", "own")
            .over(protocol)
            .send(&gateway)
            .await;
        assert_eq!(
            answer.ending,
            Ending::Cut,
            "inside a message only the framing can tell"
        );
    }
}

/// What an HTTP/1.0 client reads of a POST with these header lines, and how its connection ends.
pub async fn over_http10(gateway: &Gateway, headers: &str) -> (String, std::io::Result<usize>) {
    let mut socket = tokio::net::TcpStream::connect(gateway.public())
        .await
        .unwrap();
    let head = format!("POST {CHAT} HTTP/1.0\r\nhost: x\r\n{headers}content-length: 2\r\n\r\n{{}}");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = within("the end", async {
        loop {
            match socket.read_buf(&mut bytes).await {
                Ok(1..) => {}
                end => return end,
            }
        }
    });
    let end = end.await;
    (String::from_utf8(bytes).unwrap(), end)
}

#[tokio::test]
async fn http10_sees_a_reset_where_only_the_end_of_the_connection_could_tell() {
    let json = || Answer::new(200).header("content-type", "application/json");
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for end in [End::Close, End::Reset] {
            let broken = json().chunked().text("{\"partial\":");
            upstream.script(broken.pause(MOMENT).end(end));
            let (answer, end) = over_http10(&gateway, "").await;
            assert!(answer.ends_with("\r\n\r\n{\"partial\":"), "{answer:?}");
            let error = end.expect_err("a plain end would look complete").kind();
            assert_eq!(error, std::io::ErrorKind::ConnectionReset, "{version}");
        }
        let cut = |metrics: &Metrics| {
            metrics.sum("tollgate_errors_total", &[("kind", "upstream_cut")]) == 2.0
        };
        gateway.metrics_when("two cut answers", cut).await;
    }
}

#[tokio::test]
async fn http10_sees_a_plain_end_where_more_than_it_tells() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let json = || Answer::new(200).header("content-type", "application/json");
    for (what, answer) in [
        ("a whole answer", json().chunked().text("{}")),
        (
            "a broken one of known length",
            json().declaring(50).text("{").pause(MOMENT).end(End::Close),
        ),
        (
            "an error of the dialect's own",
            Answer::sse()
                .text(DIALECTS[0].frames)
                .pause(MOMENT)
                .end(End::Close),
        ),
    ] {
        upstream.script(answer);
        let (answer, end) = over_http10(&gateway, "").await;
        assert!(matches!(end, Ok(0)), "{what}: {end:?}, {answer:?}");
    }
}
