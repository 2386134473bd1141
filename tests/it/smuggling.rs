//! Requests that two servers could read differently: refused, and never half-understood.

use crate::support::conf::{CHAT, at, openai};
use crate::support::metrics::Metrics;
use crate::support::wait::eventually;
use crate::support::{Answer, Connection, Gateway, Upstream};

/// A request that would reach the provider if its bytes were taken for one.
const SMUGGLED: &str = "GET /v1/default/default/openai/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

/// A POST with these header lines and this body, and a smuggled request behind it.
fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}{SMUGGLED}").into_bytes()
}

/// Refused messages: what, header lines, body.
const REFUSED: &[(&str, &str, &str)] = &[
    // RFC 9112, section 6: the framing of the body.
    (
        "two different lengths",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "hello",
    ),
    (
        "two different lengths in one line",
        "content-length: 5, 6\r\n",
        "hello",
    ),
    ("a signed length", "content-length: +5\r\n", "hello"),
    ("a negative length", "content-length: -1\r\n", ""),
    (
        "a length that is no number",
        "content-length: 5a\r\n",
        "hello",
    ),
    ("a hexadecimal length", "content-length: 0x5\r\n", "hello"),
    (
        "a length with a blank inside",
        "content-length: 1 5\r\n",
        "hello",
    ),
    ("an empty length", "content-length: \r\n", ""),
    (
        "a length beyond 64 bits",
        "content-length: 99999999999999999999\r\n",
        "hello",
    ),
    (
        "chunked and not last",
        "transfer-encoding: chunked, identity\r\n",
        "0\r\n\r\n",
    ),
    (
        "two lines, chunked not last",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "transfer-encoding: xchunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunked twice",
        "transfer-encoding: chunked, chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "a quoted coding",
        "transfer-encoding: \"chunked\"\r\n",
        "0\r\n\r\n",
    ),
    (
        "a control character before the coding",
        "transfer-encoding: \u{b}chunked\r\n",
        "0\r\n\r\n",
    ),
    // Section 5: the syntax of fields.
    (
        "a folded line",
        "x-folded: a\r\n b\r\ncontent-length: 5\r\n",
        "hello",
    ),
    (
        "a folded framing",
        "transfer-encoding:\r\n chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "a blank before the colon",
        "transfer-encoding : chunked\r\n",
        "0\r\n\r\n",
    ),
    ("a blank first line", " content-length: 5\r\n", "hello"),
    ("no colon", "nonsense\r\ncontent-length: 5\r\n", "hello"),
    ("an empty name", ": x\r\ncontent-length: 5\r\n", "hello"),
    (
        "NUL in a value",
        "x-nul: a\0b\r\ncontent-length: 5\r\n",
        "hello",
    ),
    (
        "NUL in a name",
        "x-\0nul: a\r\ncontent-length: 5\r\n",
        "hello",
    ),
    (
        "a bare CR in a value",
        "x-cr: a\rb\r\ncontent-length: 5\r\n",
        "hello",
    ),
    // Section 7.1: the chunked coding.
    (
        "a chunk size beyond 64 bits",
        "transfer-encoding: chunked\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size that wraps around",
        "transfer-encoding: chunked\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a negative chunk size",
        "transfer-encoding: chunked\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size with a prefix",
        "transfer-encoding: chunked\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size that is no number",
        "transfer-encoding: chunked\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk longer than its size",
        "transfer-encoding: chunked\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
    ),
    (
        "chunk lines ended by LF",
        "transfer-encoding: chunked\r\n",
        "5\nhello\n0\n\n",
    ),
    // Section 3.2 and RFC 9110, section 7.2.
    ("two hosts", "host: y\r\ncontent-length: 5\r\n", "hello"),
];

/// Messages that look odd and are fine: they prove that the others fail for their reason.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("a plain length", "content-length: 5\r\n", "hello"),
    (
        "plain chunks",
        "transfer-encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "the coding in capitals",
        "Transfer-Encoding: CHUNKED\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk extension",
        "transfer-encoding: chunked\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "leading zeros",
        "transfer-encoding: chunked\r\n",
        "0005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a trailer",
        "transfer-encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    ),
    (
        "blanks around a value",
        "content-length: \t 5 \t\r\n",
        "hello",
    ),
];

/// What is wrong with how `bytes` were taken, if anything.
async fn complaint(gateway: &Gateway, upstream: &Upstream, bytes: &[u8]) -> Option<String> {
    let before = whole(upstream);
    let mut connection = Connection::open(gateway).await;
    connection.write(bytes).await;
    let answer = connection.read().await;
    if whole(upstream) != before {
        return Some("reached the provider".to_owned());
    }
    let refusal = answer.filter(|answer| matches!(answer.status, 400..=499 | 501 | 505));
    let Some(refusal) = refusal else {
        return Some("was not refused".to_owned());
    };
    if refusal.header("connection") != Some("close") {
        return Some("the connection may go on".to_owned());
    }
    if refusal.header("tollgate-error-source") != Some("gateway") {
        return Some(format!("who refused it? {:?}", refusal.headers));
    }
    let code = if refusal.status == 405 { 8011 } else { 8002 };
    let envelope = serde_json::from_slice::<serde_json::Value>(&refusal.body).unwrap_or_default();
    if (&envelope["httpCode"], &envelope["internalCode"]) != (&refusal.status.into(), &code.into())
    {
        return Some(format!("not the envelope: {}", refusal.text()));
    }
    let closed = connection.rest().await.is_empty();
    (!closed).then(|| "there was another answer".to_owned())
}

/// Waits until `refused` refusals are counted, of which one is of a `CONNECT` or none.
async fn counted(gateway: &Gateway, refused: usize, connects: usize) {
    let errors = |metrics: &Metrics, kind| {
        let labels = [("kind", kind), ("source", "client")];
        metrics.sum("tollgate_errors_total", &labels)
    };
    let all = |metrics: &Metrics| {
        errors(metrics, "bad_request") == (refused - connects) as f64
            && errors(metrics, "method_not_allowed") == connects as f64
            && metrics.sum("tollgate_requests_total", &[]) == refused as f64
    };
    gateway.metrics_when("each refusal once", all).await;
    // Lines are written by a thread of their own.
    eventually("a line for each refusal", || {
        let log = gateway.log();
        let lines = |error| log.matches(error).count();
        let told = (
            lines("error=bad_request"),
            lines("error=method_not_allowed"),
        );
        (told == (refused - connects, connects)).then_some(())
    })
    .await;
}

/// Requests that the provider received whole.
fn whole(upstream: &Upstream) -> usize {
    let requests = upstream.requests();
    let whole = requests.iter().filter(|request| request.digest.is_some());
    whole.count()
}

#[tokio::test]
async fn ambiguous_messages_are_refused_and_the_connection_closed() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut complaints = Vec::new();
    for (what, headers, body) in REFUSED {
        let complaint = complaint(&gateway, &upstream, &post(headers, body)).await;
        complaints.extend(complaint.map(|complaint| format!("{what}: {complaint}")));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    counted(&gateway, REFUSED.len(), 0).await;
}

#[tokio::test]
async fn what_follows_a_chunk_without_size_is_no_request() {
    // The engine reads an empty size as the last chunk; the rest must not become a request.
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    connection
        .write(post(
            "transfer-encoding: chunked\r\n",
            "\r\nhello\r\n0\r\n\r\n",
        ))
        .await;
    connection.rest().await;
    let seen = upstream.requests();
    assert!(
        seen.len() <= 1 && seen.iter().all(|request| request.body.is_empty()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn of_two_framings_the_chunks_count_and_the_connection_is_closed() {
    // RFC 9112, sections 6.1 and 6.3: refuse, or read the chunks, send no length on, and close.
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let headers = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n",
        // A line may end in LF alone (section 2.2): this is no value with a line in it.
        "x-lf: a\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ];
    for headers in headers {
        let mut connection = Connection::open(&gateway).await;
        connection
            .write(post(headers, "5\r\nhello\r\n0\r\n\r\n"))
            .await;
        let status = connection.read().await.map(|answer| answer.status);
        assert!(matches!(status, Some(200 | 400)), "{headers:?}: {status:?}");
        assert_eq!(
            connection.rest().await,
            b"",
            "{headers:?}: closed, without another answer"
        );
    }
    for seen in upstream.requests() {
        assert_eq!(
            (seen.text().as_str(), seen.target.as_str()),
            ("hello", "/v1/chat/completions")
        );
        let lengths = seen.all("content-length").len() + seen.all("transfer-encoding").len();
        assert_eq!(lengths, 1, "{:?}", seen.headers);
    }
}

#[tokio::test]
async fn unusual_but_valid_messages_pass_and_the_next_one_too() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for (what, headers, body) in ACCEPTED {
        upstream.script(Answer::json("{}"));
        upstream.script(Answer::json("[]"));
        let mut connection = Connection::open(&gateway).await;
        let bytes = post(headers, body);
        let (first, second) = bytes.split_at(bytes.len() - SMUGGLED.len());
        for (bytes, wanted) in [(first, "{}"), (second, "[]")] {
            connection.write(bytes).await;
            let answer = connection.read().await;
            assert_eq!(
                answer.map(|answer| answer.text()).as_deref(),
                Some(wanted),
                "{what}"
            );
        }
        let seen = upstream.requests();
        let [.., first, second] = &seen[..] else {
            panic!("two requests")
        };
        assert_eq!(
            (first.text().as_str(), second.target.as_str()),
            ("hello", "/v1/smuggled"),
            "{what}"
        );
    }
}

/// Whole heads that are refused.
const BAD_HEADS: &[(&str, &str)] = &[
    (
        "no host",
        "GET /v1/default/default/openai/models HTTP/1.1\r\n\r\n",
    ),
    (
        "two hosts",
        "GET /v1/default/default/openai/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ),
    (
        "the same host twice",
        "GET /v1/default/default/openai/models HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    ),
    (
        "a host with a blank",
        "GET /v1/default/default/openai/models HTTP/1.1\r\nhost: a b\r\n\r\n",
    ),
    (
        "a host with a path",
        "GET /v1/default/default/openai/models HTTP/1.1\r\nhost: a/b\r\n\r\n",
    ),
    (
        "an unknown version",
        "GET /v1/default/default/openai/models HTTP/3.7\r\nhost: x\r\n\r\n",
    ),
    (
        "a lower-case version",
        "GET /v1/default/default/openai/models http/1.1\r\nhost: x\r\n\r\n",
    ),
    (
        "no version",
        "GET /v1/default/default/openai/models\r\nhost: x\r\n\r\n",
    ),
    (
        "a blank in the target",
        "GET /v1/default/default/openai/a b HTTP/1.1\r\nhost: x\r\n\r\n",
    ),
    (
        "NUL in the target",
        "GET /v1/default/default/openai/a\0b HTTP/1.1\r\nhost: x\r\n\r\n",
    ),
    (
        "no method",
        " /v1/default/default/openai/models HTTP/1.1\r\nhost: x\r\n\r\n",
    ),
    (
        "a method with a parenthesis",
        "G(T /v1/default/default/openai/models HTTP/1.1\r\nhost: x\r\n\r\n",
    ),
    (
        "a connect",
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
    ),
    ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
];

#[tokio::test]
async fn malformed_heads_are_refused() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut complaints = Vec::new();
    for (what, head) in BAD_HEADS {
        let complaint = complaint(&gateway, &upstream, head.as_bytes()).await;
        complaints.extend(complaint.map(|complaint| format!("{what}: {complaint}")));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    counted(&gateway, BAD_HEADS.len(), 1).await;
}

#[tokio::test]
async fn a_connection_that_served_well_is_refused_as_well() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    for _ in 0..2 {
        connection
            .write(format!("GET {CHAT} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        assert_eq!(connection.read().await.unwrap().status, 200);
    }
    connection
        .write(format!(
            "GET {CHAT} HTTP/1.1\r\nhost: x\r\nbad name: 1\r\n\r\n"
        ))
        .await;
    let answer = connection.read().await.unwrap();
    assert_eq!(
        (answer.status, &answer.json()["internalCode"]),
        (400, &8002.into())
    );
    assert_eq!(connection.rest().await, b"");
    let refused = |metrics: &Metrics| {
        metrics.sum("tollgate_errors_total", &[("kind", "bad_request")]) == 1.0
            && metrics.sum("tollgate_requests_total", &[]) == 3.0
    };
    gateway.metrics_when("one refusal of three", refused).await;
}

#[tokio::test]
async fn a_refused_connect_names_what_is_served() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    connection
        .write("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        .await;
    let answer = connection.read().await.unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("POST"));
    upstream.untouched();
}

#[tokio::test]
async fn bytes_that_no_target_may_have_are_not_passed_raw() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for byte in [b' ', b'\t', b'\0', b'\x7f', b'\x0b', 0x85, 0xE9, b'"', b'<'] {
        let mut connection = Connection::open(&gateway).await;
        let (start, end) = (
            "GET /v1/default/default/openai/a",
            "b HTTP/1.1\r\nhost: x\r\n\r\n",
        );
        connection
            .write([start.as_bytes(), &[byte], end.as_bytes()].concat())
            .await;
        let answer = connection.read().await.unwrap();
        assert!(
            matches!(answer.status, 200 | 400),
            "{byte:#x}: {}",
            answer.status
        );
    }
    for seen in upstream.requests() {
        assert!(
            seen.target.chars().all(|letter| letter.is_ascii_graphic()),
            "{:?}",
            seen.target
        );
        assert!(
            seen.target.starts_with("/v1/a") && seen.target.ends_with('b'),
            "{:?}",
            seen.target
        );
        assert_eq!(seen.version, "HTTP/1.1");
    }
}

#[tokio::test]
async fn an_absolute_target_is_read_like_a_path() {
    // RFC 9112, section 3.2.2: a server accepts it, and Host gives way to it.
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    for authority in ["x", "other.example", "127.0.0.1:1"] {
        let mut connection = Connection::open(&gateway).await;
        let head = format!(
            "GET http://{authority}/v1/default/default/openai/models?a=%2F HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        connection.write(head).await;
        let answer = connection.read().await.unwrap();
        assert!(
            matches!(answer.status, 200 | 400),
            "{authority}: {}",
            answer.status
        );
    }
    for seen in upstream.requests() {
        assert_eq!(seen.target, "/v1/models?a=%2F");
        assert_eq!(seen.all("host"), [upstream.address().to_string()]);
    }
}

#[tokio::test]
async fn http10_is_answered_without_chunks_and_closed() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        upstream.script(Answer::sse().text("data: 1\n\n"));
        let mut connection = Connection::open(&gateway).await;
        connection
            .write(format!(
                "POST {CHAT} HTTP/1.0\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}"
            ))
            .await;
        let answer = connection.read().await.unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "data: 1\n\n"),
            "{version}"
        );
        assert_eq!(answer.header("transfer-encoding"), None, "{version}");
        assert_eq!(connection.rest().await, b"", "{version}");
    }
}
