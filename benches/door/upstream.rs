//! The provider that all legs lead to: fast, and strict about what arrives.
//!
//! It answers a chat request with a fixed 600-byte JSON, or with a stream of events
//! when the request asks for one. A request that is not as the load sent it (another
//! path, a body with another length or end) is answered 400, which fails the run.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::request::StreamShape;
use crate::streams::{EVENT_END, EVENT_MIDDLE, EVENT_START, TERMINATOR, now_nanos};

/// Length of the plain answer's body.
pub const ANSWER_LENGTH: usize = 600;

const BUFFER: usize = 256 * 1024;

/// Headers as a large provider sends them beside the framing.
const HEADERS: &str = "date: Mon, 23 Nov 2026 08:00:00 GMT\r\n\
    openai-organization: benchmark\r\n\
    openai-processing-ms: 12\r\n\
    openai-version: 2020-10-01\r\n\
    x-request-id: req_0123456789abcdef0123456789abcdef\r\n\
    x-ratelimit-limit-requests: 30000\r\n\
    x-ratelimit-limit-tokens: 150000000\r\n\
    x-ratelimit-remaining-requests: 29999\r\n\
    x-ratelimit-remaining-tokens: 149999967\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    x-content-type-options: nosniff\r\n";

/// Serves until killed.
pub fn serve(listen: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(accept(listen)).map_err(|e| e.to_string())
}

async fn accept(listen: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let answer: &'static [u8] = plain_answer().leak();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that breaks is the other side's to report.
        tokio::spawn(async move { converse(stream, answer).await });
    }
}

fn plain_answer() -> Vec<u8> {
    let start = r#"{"id":"chatcmpl-benchmark","object":"chat.completion","created":1764000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let end = r#""},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":33,"completion_tokens":48,"total_tokens":81}}"#;
    let text = "word ".repeat(ANSWER_LENGTH);
    let body = format!(
        "{start}{}{end}",
        &text[..ANSWER_LENGTH - start.len() - end.len()]
    );
    format!("HTTP/1.1 200 OK\r\n{HEADERS}content-type: application/json\r\ncontent-length: {ANSWER_LENGTH}\r\n\r\n{body}")
        .into_bytes()
}

/// What a request head says.
struct Head {
    length: usize,
    body: usize,
    stream: Option<StreamShape>,
}

async fn converse(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut filled = 0;
        let head = loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            match parse(&buffer[..filled]) {
                Ok(Some(head)) => break head,
                Ok(None) => {}
                Err(why) => return refuse(&mut stream, &why).await,
            }
        };
        let mut arrived = filled - head.length;
        let mut last = buffer[filled - 1];
        while arrived < head.body {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            arrived += read;
            last = buffer[read - 1];
        }
        if arrived != head.body || last != b'}' {
            return refuse(&mut stream, "the body is not what was sent").await;
        }
        match head.stream {
            None => stream.write_all(answer).await?,
            Some(shape) => send_events(&mut stream, shape).await?,
        }
    }
}

fn parse(bytes: &[u8]) -> Outcome<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes).map_err(|e| e.to_string())? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    if (request.method, request.path) != (Some("POST"), Some("/v1/chat/completions")) {
        return Err(format!(
            "not the request sent: {:?} {:?}",
            request.method, request.path
        ));
    }
    let field = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let body = field("content-length").and_then(|value| value.parse().ok());
    Ok(Some(Head {
        length,
        body: body.ok_or("no content-length")?,
        stream: field(StreamShape::HEADER).and_then(StreamShape::parse),
    }))
}

async fn refuse(stream: &mut TcpStream, why: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        why.len()
    );
    stream.write_all((head + why).as_bytes()).await
}

/// One chunk per event, each written at once, with the time at which it was.
async fn send_events(stream: &mut TcpStream, shape: StreamShape) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{HEADERS}content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for number in 0..shape.events {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(shape.interval_ms)).await;
        }
        let event = format!(
            "{EVENT_START}{number:08}{EVENT_MIDDLE}{:020}{EVENT_END}",
            now_nanos()
        );
        stream
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await?;
    }
    let end = format!("{:x}\r\n{TERMINATOR}\r\n0\r\n\r\n", TERMINATOR.len());
    stream.write_all(end.as_bytes()).await
}
