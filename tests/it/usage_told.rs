//! What clients are told of tokens and costs, and that everybody else is told the same.

use std::time::Duration;

use serde_json::{Value, json};

use crate::broken_streams::over_http10;
use crate::cache::{status, stored};
use crate::support::client::Told;
use crate::support::conf::{CHAT, entry, openai, path};
use crate::support::upstream::End;
use crate::support::{
    Answer, Connection, Ending, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body,
    eventually, within,
};

const JSON_LOG: &str = "log: { access: json }\n";
const MOMENT: Duration = Duration::from_millis(100);
const HEADER: &str = "cf-aig-usage";
const COMMENT: &str = ": cf-aig-usage ";

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}]}"#;
/// 165 millionths of a dollar, as `costs` works out.
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":600}}}"#;
const TOLD: &str = r#"{"input_tokens":1000,"output_tokens":100,"cached_input_tokens":600,"answer_model":"gpt-4o-mini-2024-07-18","cost_usd":0.000165,"cost_source":"catalogue"}"#;

/// All names by which a client can be told.
const NAMES: [&str; 12] = [
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "web_searches",
    "usage_estimated",
    "service_tier",
    "answer_model",
    "cost_usd",
    "saved_usd",
    "cost_source",
];

/// A dialect: where its calls go, and an answer in one piece and as a stream, in which `|` is the
/// place of the comment.
struct Dialect {
    path: String,
    document: String,
    stream: String,
    model: &'static str,
    input: u64,
}

fn dialects() -> [Dialect; 5] {
    let chat_chunk = r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"content":"Because."}}],"usage":null}"#;
    let chat_last = r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":600}}}"#;
    let response = r#"{"id":"r","object":"response","status":"completed","model":"gpt-4o-mini","output":[],"usage":{"input_tokens":900,"output_tokens":10,"total_tokens":910}}"#;
    let message = r#"{"id":"m","type":"message","role":"assistant","model":"claude-3-5-haiku-20241022","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":800,"output_tokens":20}}"#;
    let cohere_end = r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":700,"output_tokens":64},"tokens":{"input_tokens":712,"output_tokens":64}}}}"#;
    let gemini = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":600,"candidatesTokenCount":30,"totalTokenCount":630},"modelVersion":"gemini-2.0-flash"}"#;
    [
        Dialect {
            path: CHAT.to_owned(),
            document: ANSWER.to_owned(),
            stream: format!("data: {chat_chunk}\n\ndata: {chat_last}\n\n|data: [DONE]\n\n"),
            model: "gpt-4o-mini",
            input: 1000,
        },
        Dialect {
            path: path("openai", "responses"),
            document: response.to_owned(),
            stream: format!(
                "event: response.created\ndata: {{\"type\":\"response.created\"}}\n\n|event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{response}}}\n\n"
            ),
            model: "gpt-4o-mini",
            input: 900,
        },
        Dialect {
            path: path("anthropic", "v1/messages"),
            document: message.to_owned(),
            stream: format!(
                "event: message_start\r\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\r\n\r\nevent: message_delta\r\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{{\"output_tokens\":20}}}}\r\n\r\n|event: message_stop\r\ndata: {{\"type\":\"message_stop\"}}\r\n\r\n"
            ),
            model: "claude-3-5-haiku-20241022",
            input: 800,
        },
        Dialect {
            path: path("cohere", "v2/chat"),
            document: r#"{"id":"c","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}]},"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":700,"output_tokens":64}}}"#.to_owned(),
            stream: format!(
                "event: message-start\ndata: {{\"type\":\"message-start\"}}\n\n|event: message-end\ndata: {cohere_end}\n\ndata: [DONE]\n\n"
            ),
            model: "command-r",
            input: 700,
        },
        Dialect {
            path: path("google-ai-studio", "v1beta/models/gemini-2.0-flash:generateContent"),
            document: gemini.to_owned(),
            stream: format!("data: {{\"candidates\":[{{}}]}}\r\n\r\ndata: {gemini}\r\n\r\n|"),
            model: "gemini-2.0-flash",
            input: 600,
        },
    ]
}

/// A gateway in front of `upstream` for all of them, whose log is JSON.
async fn start(upstream: &Upstream, more: &str, accounts: &str) -> Gateway {
    let providers = [
        entry(upstream, "openai", "/v1", more),
        entry(upstream, "anthropic", "", more),
        entry(upstream, "cohere", "", more),
        entry(upstream, "google-ai-studio", "", more),
    ];
    Gateway::start(&format!(
        "{JSON_LOG}providers:\n{}{accounts}",
        providers.concat()
    ))
    .await
}

/// One that caches what it is asked.
async fn caching(upstream: &Upstream) -> Gateway {
    let accounts = "accounts: { default: { gateways: { default: { cache: { ttl: 5m } } } } }\n";
    start(upstream, "", accounts).await
}

fn asking(path: &str) -> Request {
    Request::post(path, QUESTION)
        .header(HEADER, "true")
        .header("authorization", "Bearer k")
}

/// What the head tells.
fn told(answer: &Response) -> Option<Value> {
    let told = answer.header(HEADER)?;
    Some(serde_json::from_str(told).unwrap())
}

/// What a stream tells, and the stream without that.
fn told_in(stream: &str) -> (Option<Value>, String) {
    let Some((before, rest)) = stream.split_once(COMMENT) else {
        return (None, stream.to_owned());
    };
    let (json, after) = rest.split_once("\n\n").unwrap();
    assert!(!after.contains(COMMENT), "once");
    (
        Some(serde_json::from_str(json).unwrap()),
        format!("{before}|{after}"),
    )
}

/// The access log's line of the request with this answer.
async fn line(gateway: &Gateway, answer: &Response) -> Value {
    let id = format!("\"id\":\"{}\"", answer.header("cf-aig-log-id").unwrap());
    let found = eventually("its line of the access log", || {
        let log = gateway.log();
        let mut lines = log.lines().filter(|line| line.contains("\"overhead_ms\""));
        lines.find(|line| line.contains(&id)).map(str::to_owned)
    });
    serde_json::from_str(&found.await).unwrap()
}

/// The log tells what the client was told, and nothing more.
async fn is_logged(gateway: &Gateway, answer: &Response, told: &Value) -> Value {
    let line = line(gateway, answer).await;
    for name in NAMES {
        assert_eq!(line[name], told[name], "{name} in {line}");
    }
    line
}

fn chopped(answer: Answer, text: &str, size: usize) -> Answer {
    let chunks = text.as_bytes().chunks(size);
    chunks.fold(answer, Answer::bytes)
}

#[tokio::test]
async fn a_document_tells_in_its_head_what_it_took_in_every_dialect() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = start(&upstream, version, "").await;
        for dialect in dialects() {
            for protocol in [Protocol::H1, Protocol::H2] {
                for is_chunked in [false, true] {
                    let answer = Answer::json("");
                    let answer = if is_chunked { answer.chunked() } else { answer };
                    upstream.script(chopped(answer, &dialect.document, 100));
                    let request = asking(&dialect.path).over(protocol);
                    let answer = request.send(&gateway).await;
                    assert_eq!(answer.text(), dialect.document);
                    assert_eq!(answer.ending, Ending::Whole);
                    let length = dialect.document.len().to_string();
                    let expected = (!is_chunked).then_some(length.as_str());
                    assert_eq!(answer.header("content-length"), expected);
                    let told = told(&answer).expect(&dialect.path);
                    assert_eq!(told["input_tokens"], dialect.input, "{told}");
                    let line = is_logged(&gateway, &answer, &told).await;
                    let (http, bytes) = (line["http"].as_str(), &line["bytes_out"]);
                    assert_eq!(http == Some("HTTP/2.0"), protocol == Protocol::H2);
                    assert_eq!(bytes, dialect.document.len());
                }
            }
        }
        assert!(upstream.requests().iter().all(|request| {
            request.header(HEADER).is_none()
                && request.header("accept-encoding") == Some("identity")
        }));
    }
}

#[tokio::test]
async fn the_header_is_one_line_of_json_with_the_names_of_the_log() {
    let upstream = Upstream::answering(Answer::json(ANSWER)).await;
    let gateway = start(&upstream, "", "").await;
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!(answer.header(HEADER), Some(TOLD));
}

#[tokio::test]
async fn a_stream_tells_before_its_last_event_in_every_dialect() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = start(&upstream, version, "").await;
        for dialect in dialects() {
            let stream = dialect.stream.replace('|', "");
            for (protocol, size) in [
                (Protocol::H1, usize::MAX),
                (Protocol::H1, 1),
                (Protocol::H1, 7),
                (Protocol::H2, usize::MAX),
                (Protocol::H2, 1),
            ] {
                upstream.script(chopped(Answer::sse(), &stream, size.min(stream.len())));
                let request = asking(&dialect.path).over(protocol);
                let answer = request.send(&gateway).await;
                assert_eq!((told(&answer), answer.ending), (None, Ending::Whole));
                let (told, marked) = told_in(&answer.text());
                assert_eq!(marked, dialect.stream, "{protocol:?} by {size}");
                let told = told.unwrap();
                assert_eq!(told["input_tokens"], dialect.input, "{told}");
                let line = is_logged(&gateway, &answer, &told).await;
                assert_eq!(line["bytes_out"], answer.body.len());
            }
        }
    }
}

#[tokio::test]
async fn who_does_not_ask_is_told_nothing_and_gets_what_came() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    for dialect in dialects() {
        let stream = dialect.stream.replace('|', "");
        upstream.script(Answer::sse().text(&stream));
        upstream.script(Answer::json(&dialect.document));
        let request = Request::post(&dialect.path, QUESTION).header("accept-encoding", "gzip");
        let (streamed, whole) = (request.send(&gateway).await, request.send(&gateway).await);
        assert_eq!((streamed.text(), told(&streamed)), (stream, None));
        assert_eq!((whole.text(), told(&whole)), (dialect.document, None));
    }
    let mut asked = upstream.requests().into_iter();
    assert!(asked.all(|request| request.header("accept-encoding") == Some("gzip")));
    let refused = Request::post(CHAT, QUESTION)
        .header(HEADER, "please")
        .send(&gateway)
        .await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains(HEADER), "{}", refused.text());
}

#[tokio::test]
async fn a_stream_is_not_delayed_and_a_document_waits_for_its_end() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let gate = Gate::new();
    let events = Answer::sse().text("data: {}\n\ndata: {\"choices\":[]}\n\n");
    upstream.script(events.wait(&gate).text("data: [DONE]\n\n"));
    let mut live = asking(CHAT).open(&gateway).await;
    live.read_past("[]}\n\n").await;
    gate.open();
    live.read_past("data: [DONE]\n\n").await;
    for content_type in [
        "application/x-ndjson",
        "application/stream+json-seq",
        "text/plain",
    ] {
        let lines = Answer::new(200)
            .header("content-type", content_type)
            .chunked();
        upstream.script(lines.text("{\"a\":1}\n").wait(&gate).text("{}\n"));
        let mut live = asking(CHAT).open(&gateway).await;
        live.read_past("1}\n").await;
        gate.open();
        let answer = live.finish().await;
        assert_eq!((answer.ending, told(&answer)), (Ending::Whole, None));
    }
    let array = Answer::json("").chunked().text("[{}");
    upstream.script(array.wait(&gate).text("]"));
    let models = "v1beta/models/gemini-2.0-flash:streamGenerateContent";
    let mut live = asking(&path("google-ai-studio", models))
        .open(&gateway)
        .await;
    live.read_past("[{}").await;
    gate.open();
    assert_eq!(live.finish().await.ending, Ending::Whole);
    let (begin, end) = ANSWER.split_at(100);
    upstream.script(Answer::json("").text(begin).wait(&gate).text(end));
    let address = gateway.public();
    let waiting = tokio::spawn(async move { asking(CHAT).send(address).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    gate.open();
    assert_eq!(waiting.await.unwrap().text(), ANSWER);
}

#[tokio::test]
async fn an_encoded_document_tells_and_an_encoded_stream_passes_as_it_is() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let zipped = body::encoded("gzip", ANSWER.as_bytes());
    let encoded =
        |answer: Answer, bytes: &[u8]| answer.header("content-encoding", "gzip").bytes(bytes);
    upstream.script(encoded(Answer::json(""), &zipped));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!((&answer.body, answer.header(HEADER)), (&zipped, Some(TOLD)));
    let stream = body::encoded("gzip", dialects()[0].stream.replace('|', "").as_bytes());
    upstream.script(encoded(Answer::sse(), &stream));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!((&answer.body, told(&answer)), (&stream, None));
    // A stream of a declared length has no room.
    let stream = dialects()[0].stream.replace('|', "");
    let declared = Answer::new(200).header("content-type", "text/event-stream");
    upstream.script(declared.text(&stream));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!((answer.text(), told(&answer)), (stream, None));
}

#[tokio::test]
async fn a_stored_answer_tells_always_and_has_no_comment() {
    let upstream = Upstream::h1().await;
    let gateway = caching(&upstream).await;
    for dialect in dialects() {
        let stream = dialect.stream.replace('|', "");
        for (reply, is_stream) in [
            (Answer::json(&dialect.document), false),
            (Answer::sse().text(&stream), true),
        ] {
            upstream.script(reply);
            let question = format!(r#"{{"model":"{}","stream":{is_stream}}}"#, dialect.model);
            let request = Request::post(&dialect.path, question)
                .header("authorization", "Bearer k")
                .header("x-api-key", "k");
            let first = request.clone().header(HEADER, "true").send(&gateway).await;
            assert_eq!(status(&first), "MISS");
            let (comment, marked) = told_in(&first.text());
            let was_told = match is_stream {
                true => comment.unwrap(),
                false => told(&first).unwrap(),
            };
            assert_eq!(was_told["input_tokens"], dialect.input);
            if is_stream {
                assert_eq!(marked, dialect.stream);
            }
            is_logged(&gateway, &first, &was_told).await;
            stored(&gateway).await;
            for request in [request.clone(), request.header(HEADER, "true")] {
                let hit = request.send(&gateway).await;
                let body = if is_stream {
                    &stream
                } else {
                    &dialect.document
                };
                assert_eq!((status(&hit), &hit.text()), ("HIT", body));
                let told = told(&hit).unwrap();
                assert_eq!(
                    (&told["cost_usd"], &told["cost_source"]),
                    (&0.into(), &"cached".into())
                );
                assert_eq!(told["input_tokens"], dialect.input);
                assert_eq!(told["saved_usd"], was_told["cost_usd"]);
                is_logged(&gateway, &hit, &told).await;
            }
        }
    }
}

#[tokio::test]
async fn the_last_event_of_a_slow_recorded_stream_is_behind_the_comment() {
    // The end of the provider's stream comes apart from its last event.
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let accounts = "accounts: { default: { gateways: { default: { cache: {} } } } }\n";
        let gateway = start(&upstream, version, accounts).await;
        for dialect in dialects() {
            let stream = dialect.stream.replace('|', "");
            let gate = Gate::new();
            upstream.script(Answer::sse().text(&stream).wait(&gate));
            let mut live = asking(&dialect.path).open(&gateway).await;
            let begun = live.read_past("data: ").await;
            tokio::time::sleep(MOMENT).await;
            gate.open();
            let answer = live.finish().await;
            assert_eq!(answer.ending, Ending::Whole);
            let (told, marked) = told_in(&(begun + &answer.text()));
            assert_eq!(marked, dialect.stream);
            is_logged(&gateway, &answer, &told.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn who_waits_for_the_same_answer_is_told_that_it_cost_nothing() {
    let upstream = Upstream::h1().await;
    let gateway = caching(&upstream).await;
    let gate = Gate::new();
    upstream.script(Answer::json(ANSWER).after(&gate));
    let address = gateway.public();
    let asks: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { asking(CHAT).send(address).await }))
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.open();
    let mut costs = Vec::new();
    for ask in asks {
        let answer = within("an answer", ask).await.unwrap();
        assert_eq!(answer.text(), ANSWER);
        let told = told(&answer).unwrap();
        // The log knows what it took when it has come, which is what it saves.
        let line = line(&gateway, &answer).await;
        for (name, value) in told.as_object().unwrap() {
            assert_eq!(line[name], *value, "{name} in {line}");
        }
        assert_eq!(line["input_tokens"], 1000, "{line}");
        let facts = [&told["cost_usd"], &line["saved_usd"]].map(Value::to_string);
        costs.push((status(&answer).to_owned(), facts));
    }
    costs.sort();
    let hit = ("HIT".to_owned(), ["0", "0.000165"].map(str::to_owned));
    let miss = ("MISS".to_owned(), ["0.000165", "null"].map(str::to_owned));
    assert_eq!(costs, [hit.clone(), hit, miss]);
}

#[tokio::test]
async fn a_large_answer_passes_whole_without_the_header() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let upstream = Upstream::h1().await;
        let gateway = start(&upstream, "", "").await;
        let large = body::json_of_size("m", 5 << 20);
        for is_chunked in [false, true] {
            let answer = Answer::json("");
            let answer = if is_chunked { answer.chunked() } else { answer };
            let chunks = large.chunks(50_000);
            upstream.script(chunks.fold(answer, Answer::bytes));
            let answer = asking(CHAT).over(protocol).send(&gateway).await;
            assert!(answer.body == large);
            assert_eq!((answer.ending, told(&answer)), (Ending::Whole, None));
            let told = answer.header("content-length").is_some();
            assert_eq!(told, !is_chunked);
        }
        let held = gateway.metrics().await.sum("tollgate_held_bytes", &[]);
        assert_eq!(held, 0.0);
    }
}

#[tokio::test]
async fn without_memory_for_an_answer_it_passes_without_the_header() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&format!("{JSON_LOG}{}", openai(&upstream)))
        .server("max_body: 64KiB")
        .server("max_buffered: 64KiB")
        .start()
        .await;
    let text = String::from_utf8(body::json_of_size("m", 200_000)).unwrap();
    upstream.script(Answer::json(&text));
    let answer = asking(CHAT).send(&gateway).await;
    assert!(answer.text() == text);
    assert_eq!((answer.ending, told(&answer)), (Ending::Whole, None));
    upstream.script(Answer::json(ANSWER));
    assert_eq!(asking(CHAT).send(&gateway).await.header(HEADER), Some(TOLD));
}

#[tokio::test]
async fn errors_pass_as_they_are() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    for status in [400, 429, 500] {
        upstream.script(
            Answer::new(status)
                .header("content-type", "application/json")
                .text(ANSWER),
        );
        let answer = asking(CHAT).send(&gateway).await;
        assert_eq!((answer.status, answer.text()), (status, ANSWER.to_owned()));
        assert_eq!(told(&answer), None);
    }
    upstream.script(Answer::new(204));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!((answer.status, told(&answer)), (204, None));
    let broken = Upstream::answering(Reply::Close).await;
    let gateway = start(&broken, "", "").await;
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!((answer.status, told(&answer)), (502, None));
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    let unknown = asking(&path("nobody", "chat")).send(&gateway).await;
    assert_eq!((unknown.status, told(&unknown)), (400, None));
}

#[tokio::test]
async fn what_breaks_off_ends_as_broken_as_ever_and_tells_nothing() {
    let upstream = Upstream::h1().await;
    let plain = start(&upstream, "", "").await;
    let recording = caching(&upstream).await;
    for (gateway, protocol) in [
        (&plain, Protocol::H1),
        (&plain, Protocol::H2),
        (&recording, Protocol::H1),
        (&recording, Protocol::H2),
    ] {
        a_broken_stream_is_the_same(&upstream, gateway, protocol).await;
        let json = Answer::json("").chunked().text("{\"partial\":");
        upstream.script(json.pause(MOMENT).end(End::Close));
        let answer = asking(CHAT).over(protocol).send(gateway).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "{\"partial\":".to_owned())
        );
        assert_eq!((answer.ending, told(&answer)), (Ending::Cut, None));
    }
}

/// As for one who does not ask.
async fn a_broken_stream_is_the_same(upstream: &Upstream, gateway: &Gateway, protocol: Protocol) {
    let stream = dialects()[0].stream.replace('|', "");
    for cut in ["data: [", "data: [DONE]", "\n\ndata: {"] {
        let begun = &stream[..stream.rfind(cut).unwrap() + cut.len()];
        let mut answers = Vec::new();
        for asks in ["true", "false"] {
            let broken = Answer::sse().text(begun).pause(MOMENT);
            upstream.script(broken.end(End::Close));
            let request = Request::post(CHAT, QUESTION).header(HEADER, asks);
            let answer = request.over(protocol).send(gateway).await;
            answers.push((answer.text(), answer.ending));
        }
        assert_eq!(answers[0], answers[1], "{cut:?}");
        assert!(answers[0].0.starts_with(begun), "{answers:?}");
        assert!(answers[0].0.contains("\"error\""), "{answers:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_answer_is_held_ends_the_call() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    upstream.script(Answer::json("").chunked().text("{").end(End::Hang));
    let mut client = Connection::open(&gateway).await;
    let length = QUESTION.len();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{HEADER}: true\r\ncontent-length: {length}\r\n\r\n"
    );
    let asking = client.write(format!("{head}{QUESTION}"));
    tokio::time::timeout(Duration::from_secs(1), asking)
        .await
        .ok();
    upstream.reached(1).await;
    drop(client);
    upstream.abandoned(1).await;
    gateway.logged("client_gone").await;
}

#[tokio::test]
async fn a_connection_goes_on_behind_an_answer_that_was_held() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let gateway = start(&upstream, "", "").await;
    let mut client = Connection::open(&gateway).await;
    for told in [Told::Length, Told::Open, Told::Length] {
        let answer = client.exchange(&asking(CHAT).told(told)).await.unwrap();
        assert_eq!(
            (answer.text(), answer.header(HEADER)),
            (ANSWER.to_owned(), Some(TOLD))
        );
    }
    let long = body::json_of_size("gpt-4o-mini", 200_000);
    let answer = client
        .exchange(&asking(CHAT).body(&long).told(Told::Open))
        .await
        .unwrap();
    assert_eq!(answer.header(HEADER), Some(TOLD));
}

#[tokio::test]
async fn http10_is_told_without_chunks_and_sees_a_break() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let stream = dialects()[0].stream.replace('|', "");
    let comment = format!("{COMMENT}{TOLD}\n\n");
    let headers = format!("content-type: application/json\r\n{HEADER}: true\r\n");
    for (reply, body) in [
        (Answer::json(ANSWER), ANSWER.to_owned()),
        (Answer::json("").chunked().text(ANSWER), ANSWER.to_owned()),
        (
            Answer::sse().text(&stream),
            dialects()[0].stream.replace('|', &comment),
        ),
    ] {
        upstream.script(reply);
        let (answer, end) = over_http10(&gateway, &headers).await;
        assert_eq!(end.ok(), Some(0));
        let (head, got) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(got, body, "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        assert!(answer.contains(TOLD), "{answer}");
    }
    let broken = Answer::json("").chunked().text("{\"partial\":");
    upstream.script(broken.pause(MOMENT).end(End::Close));
    let (answer, end) = over_http10(&gateway, &headers).await;
    assert!(answer.ends_with("\r\n\r\n{\"partial\":"), "{answer:?}");
    let error = end.expect_err("a plain end would look complete").kind();
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_another_try_or_target_answers_is_told() {
    let (upstream, other) = (Upstream::h1().await, Upstream::h1().await);
    let accounts = "accounts: { default: { gateways: { default: { retry: { max_attempts: 2, delay: 1ms }, routes: { \
         r: { targets: [ { provider: custom-a, model: ma, retry: { max_attempts: 1 } }, { provider: custom-b, model: mb } ] } } } } } }\n";
    let auth = "auth: none, format: openai-chat, prices: openai";
    let providers = [
        entry(&upstream, "openai", "/v1", ""),
        entry(&upstream, "custom-b", "", auth),
        entry(&other, "custom-a", "", auth),
    ];
    let yaml = format!("{JSON_LOG}providers:\n{}{accounts}", providers.concat());
    let gateway = Gateway::start(&yaml).await;
    upstream.script(Answer::new(503));
    upstream.script(Answer::json(ANSWER));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!(answer.header(HEADER), Some(TOLD));
    let line = is_logged(&gateway, &answer, &told(&answer).unwrap()).await;
    assert_eq!(line["attempts"], 2);
    other.script(Answer::new(503));
    upstream.script(Answer::json(ANSWER));
    let body = r#"{"model":"dynamic/r","messages":[]}"#;
    let compat = path("compat", "chat/completions");
    let answer = asking(&compat).body(body).send(&gateway).await;
    assert_eq!(
        (answer.header("cf-aig-step"), answer.header(HEADER)),
        (Some("1"), Some(TOLD))
    );
    is_logged(&gateway, &answer, &told(&answer).unwrap()).await;
}

#[tokio::test]
async fn a_step_of_the_universal_endpoint_tells() {
    let (upstream, broken) = (Upstream::h1().await, Upstream::h1().await);
    let yaml = format!(
        "{JSON_LOG}providers:\n{}{}",
        entry(&upstream, "openai", "/v1", ""),
        entry(&broken, "groq", "/openai/v1", ""),
    );
    let gateway = Gateway::start(&yaml).await;
    let steps = |asks: &str| {
        let step = |provider: &str| {
            json!({
                "provider": provider, "endpoint": "chat/completions",
                "headers": { "authorization": "Bearer k", HEADER: asks },
                "query": { "model": "gpt-4o-mini", "messages": [] },
            })
        };
        json!([step("groq"), step("openai")]).to_string()
    };
    let universal = |steps: String| Request::post("/v1/default/default", steps);
    let stream = dialects()[0].stream.replace('|', "");
    for (reply, asks) in [
        (Answer::json(ANSWER), "true"),
        (Answer::json(ANSWER), "false"),
        (Answer::sse().text(&stream), "true"),
    ] {
        broken.script(
            Answer::new(500)
                .header("content-type", "application/json")
                .text("{}"),
        );
        upstream.script(reply);
        let answer = universal(steps(asks)).send(&gateway).await;
        let found = told(&answer).or(told_in(&answer.text()).0);
        assert_eq!(found.is_some(), asks == "true");
        if let Some(told) = found {
            assert_eq!(told, serde_json::from_str::<Value>(TOLD).unwrap());
            is_logged(&gateway, &answer, &told).await;
        }
    }
}

#[tokio::test]
async fn the_winner_of_a_hedge_tells() {
    let (a, b) = (Upstream::h1().await, Upstream::h1().await);
    a.always(Answer::json(ANSWER).late(Duration::from_secs(5)));
    b.always(Answer::json(ANSWER));
    let auth = "auth: none, format: openai-chat, prices: openai";
    let yaml = format!(
        "{JSON_LOG}providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ routes: {{ \
         r: {{ hedge: {{ after: 200ms, budget: 100% }}, targets: [ {{ provider: custom-a, model: ma }}, \
         {{ provider: custom-b, model: mb }} ] }} }} }} }} }} }}\n",
        entry(&a, "custom-a", "", auth),
        entry(&b, "custom-b", "", auth),
    );
    let gateway = Gateway::start(&yaml).await;
    let compat = path("compat", "chat/completions");
    let body = r#"{"model":"dynamic/r","messages":[]}"#;
    let answer = asking(&compat).body(body).send(&gateway).await;
    assert_eq!(
        (answer.text(), answer.header(HEADER)),
        (ANSWER.to_owned(), Some(TOLD))
    );
    let line = is_logged(&gateway, &answer, &told(&answer).unwrap()).await;
    assert_eq!(line["hedged"], "second");
}

#[tokio::test]
async fn the_clients_own_price_and_none_are_told() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    let custom = format!(
        "{JSON_LOG}providers:\n{}{}",
        entry(&upstream, "openai", "/v1", ""),
        entry(&upstream, "custom-acme", "/v1", "format: openai-chat")
    );
    let gateway = Gateway::start(&custom).await;
    let answer = asking(CHAT)
        .header("cf-aig-custom-cost", r#"{"total_cost":0.02}"#)
        .send(&gateway)
        .await;
    let custom = told(&answer).unwrap();
    assert_eq!(
        (&custom["cost_usd"], &custom["cost_source"]),
        (&0.02.into(), &"custom".into())
    );
    is_logged(&gateway, &answer, &custom).await;
    let answer = asking(&path("custom-acme", "chat/completions"))
        .send(&gateway)
        .await;
    let unpriced = told(&answer).unwrap();
    assert_eq!(unpriced["cost_source"], "unpriced");
    assert_eq!(
        (unpriced.get("cost_usd"), &unpriced["input_tokens"]),
        (None, &1000.into())
    );
    is_logged(&gateway, &answer, &unpriced).await;
}

#[tokio::test]
async fn an_estimate_is_told_and_marked() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let silent = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Because it is.\"}}]}\n\n|data: [DONE]\n\n";
    upstream.script(Answer::sse().text(&silent.replace('|', "")));
    let answer = asking(CHAT).send(&gateway).await;
    let (told, marked) = told_in(&answer.text());
    assert_eq!(marked, silent);
    let told = told.unwrap();
    assert_eq!(told["usage_estimated"], true, "{told}");
    is_logged(&gateway, &answer, &told).await;
    // From so large a request nobody estimates while its client waits.
    let long = body::json_of_size("gpt-4o-mini", 300_000);
    upstream.script(Answer::sse().text(&silent.replace('|', "")));
    let answer = asking(CHAT).body(&long).send(&gateway).await;
    assert_eq!(answer.text(), silent.replace('|', ""));
    assert_eq!(line(&gateway, &answer).await["usage_estimated"], true);
}

#[tokio::test]
async fn the_stream_of_an_upload_tells_but_not_its_document() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let upload = Request::new("POST", &path("openai", "audio/transcriptions"))
        .header("content-type", "multipart/form-data; boundary=x")
        .header(HEADER, "true")
        .body(body::octets(100_000));
    let stream = &dialects()[0].stream;
    for protocol in [Protocol::H1, Protocol::H2] {
        let upload = upload.clone().over(protocol);
        upstream.script(Answer::json(ANSWER));
        let answer = upload.send(&gateway).await;
        assert_eq!((answer.text(), told(&answer)), (ANSWER.to_owned(), None));
        upstream.script(chopped(Answer::sse(), &stream.replace('|', ""), 1));
        let answer = upload.send(&gateway).await;
        let (told, marked) = told_in(&answer.text());
        assert_eq!(&marked, stream);
        is_logged(&gateway, &answer, &told.unwrap()).await;
    }
}

#[tokio::test]
async fn interim_answers_do_not_wait() {
    let upstream = Upstream::h1().await;
    let gateway = start(&upstream, "", "").await;
    let raw = format!(
        "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 200 OK\r\n\
         content-type: application/json\r\ncf-aig-usage: {{}}\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    upstream.script(Reply::Raw(raw.into_bytes()));
    let answer = asking(CHAT).send(&gateway).await;
    assert_eq!(
        (answer.interim.as_slice(), answer.text()),
        (&[103][..], ANSWER.to_owned())
    );
    assert_eq!(answer.header(HEADER), Some(TOLD));
}
