use http::header::{HeaderName, HeaderValue};

use super::*;

fn plain<'a>(encoding: &str, body: &'a [u8], most: usize) -> Option<Cow<'a, [u8]>> {
    match encoding {
        "" | "identity" => Some(Cow::Borrowed(body)),
        "backwards" => Some(Cow::Owned(body.iter().rev().copied().take(most).collect())),
        _ => None,
    }
}

fn redaction(pointers: &[&str], patterns: &[&str]) -> Redaction {
    let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    Redaction::new(&Rules {
        headers: own(&["X-Mine"]),
        request_pointers: own(pointers),
        response_pointers: own(pointers),
        patterns: own(patterns),
    })
    .unwrap()
}

fn request(redaction: &Redaction, head: Lines, body: &str) -> Option<String> {
    let middle = body.len() / 2;
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let payload = Payload {
        request_head: head,
        request: Some(vec![bytes.slice(..middle), bytes.slice(middle..)]),
        request_complete: true,
        ..Payload::default()
    };
    let (record, lost) = redaction.payload(&payload, plain, 1000);
    assert_eq!(lost, record.request.is_none());
    record
        .request
        .map(|body| String::from_utf8(body.bytes.into()).unwrap())
}

fn typed(content_type: &'static str) -> Lines {
    head(&[("Content-Type", content_type)])
}

/// As a client's head comes: its names in whatever case.
fn head(lines: &[(&str, &'static str)]) -> Lines {
    let line = |&(name, value): &(&str, &'static str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_static(value))
    };
    Lines::of(&lines.iter().map(line).collect())
}

#[test]
fn pointers_redact_values_and_nothing_else() {
    let cases = [
        (
            r#"{"messages":[{"content":"a","role":"u"},{"content":[1,{}]}]}"#,
            r#"{"messages":[{"content":"[redacted]","role":"u"},{"content":"[redacted]"}]}"#,
        ),
        (
            r#" { "b" : 1 , "user" : "x" , "a" : 2.0e1 } "#,
            r#" { "b" : 1 , "user" : "[redacted]" , "a" : 2.0e1 } "#,
        ),
        (
            r#"{"us\u0065r":"x","user":"y"}"#,
            r#"{"us\u0065r":"[redacted]","user":"[redacted]"}"#,
        ),
        (
            r#"{"messages":{"first":{"content":1}}}"#,
            r#"{"messages":{"first":{"content":"[redacted]"}}}"#,
        ),
        (r#"{"messages":"text"}"#, r#"{"messages":"text"}"#),
        (r#"{"list":[1,2,3]}"#, r#"{"list":[1,"[redacted]",3]}"#),
        (r#"{"a/b":1}"#, r#"{"a/b":"[redacted]"}"#),
        ("[]", "[]"),
        ("", ""),
    ];
    let redaction = redaction(&["/messages/*/content", "/user", "/list/1", "/a~1b"], &[]);
    for (body, expected) in cases {
        assert_eq!(
            request(&redaction, Lines::default(), body).as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn what_pointers_cannot_look_into_is_not_kept() {
    let with = redaction(&["/user"], &[]);
    for body in ["{\"user\":\"x", "user=x", "{}{}", "\u{feff}{}"] {
        assert_eq!(request(&with, Lines::default(), body), None, "{body}");
    }
    let without = redaction(&[], &[]);
    assert_eq!(
        request(&without, Lines::default(), "user=x").as_deref(),
        Some("user=x")
    );
}

#[test]
fn events_and_lines_are_looked_into_one_by_one() {
    let redaction = redaction(&["/user"], &[]);
    let events = "event: a\r\ndata: {\"user\":1,\"b\":2}\r\n\r\n:x\ndata:{\"user\": 1\n\ndata: [DONE]\n\nuser\n\ndata: {\"user";
    let expected = "event: a\r\ndata: {\"user\":\"[redacted]\",\"b\":2}\r\n\r\n:x\ndata:\"[redacted]\"\n\ndata: [DONE]\n\n\"[redacted]\"\n\ndata: \"[redacted]\"";
    assert_eq!(
        request(
            &redaction,
            typed("text/event-stream; charset=utf-8"),
            events
        )
        .as_deref(),
        Some(expected)
    );
    let lines = "{\"user\":1}\n\n{\"b\":1}\nx";
    let expected = "{\"user\":\"[redacted]\"}\n\n{\"b\":1}\n\"[redacted]\"";
    assert_eq!(
        request(&redaction, typed("application/x-ndjson"), lines).as_deref(),
        Some(expected)
    );
}

#[test]
fn patterns_reach_bodies_headers_and_the_row() {
    let redaction = redaction(&[], &[r"sk-[a-z0-9]+", r"\d{3}-\d{2}"]);
    let body = request(&redaction, head(&[("a", "sk-abc!")]), "x sk-1 123-45 $0");
    assert_eq!(body.as_deref(), Some("x [redacted] [redacted] $0"));
    let mut entry = Entry {
        path: "/sk-1/x".into(),
        error_detail: Some("bad key sk-9".into()),
        ..Entry::default()
    };
    entry
        .metadata
        .0
        .push(("a".into(), MetadataValue::Text("is sk-1".into())));
    entry.metadata.0.push(("b".into(), MetadataValue::Whole(7)));
    redaction.row(&mut entry);
    assert_eq!(entry.path, "/[redacted]/x");
    assert_eq!(entry.error_detail.as_deref(), Some("bad key [redacted]"));
    assert_eq!(
        entry.metadata.json().unwrap(),
        r#"{"a":"is [redacted]","b":7}"#
    );
}

#[test]
fn credentials_never_pass() {
    let names = [
        "Authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cf-aig-authorization",
        "cf-access-jwt-assertion",
        "ocp-apim-subscription-key",
        "x-auth-key",
        "Proxy-Authorization",
        "Cookie",
        "set-cookie",
        "X-Amz-Security-Token",
        "x-mine",
        "my-token",
    ];
    let secret = names.map(|name| (name, "secret"));
    let head = head(&[&secret[..], &[("accept", "x"), ("x-tokens", "y")]].concat());
    let payload = Payload {
        request_head: head.clone(),
        response_head: head,
        ..Payload::default()
    };
    let (record, _) = redaction(&[], &[]).payload(&payload, plain, 10);
    for head in [record.request_head, record.response_head] {
        let kept = head
            .iter()
            .filter(|(_, value)| *value != REDACTED.as_bytes());
        let kept: Vec<_> = kept.collect();
        assert_eq!(kept, [(&b"accept"[..], &b"x"[..]), (b"x-tokens", b"y")]);
        assert_eq!(head.iter().count(), names.len() + 2);
    }
}

#[test]
fn encoded_bodies_are_decoded_or_not_kept() {
    let encoded = |encoding: &'static str| head(&[("content-encoding", encoding)]);
    let with = redaction(&["/a"], &[]);
    assert_eq!(
        request(&with, encoded("backwards"), "}1:\"a\"{").as_deref(),
        Some("{\"a\":\"[redacted]\"}")
    );
    assert_eq!(request(&with, encoded("br"), "{}"), None);
    assert_eq!(request(&redaction(&[], &["x"]), encoded("br"), "{}"), None);
    assert_eq!(
        request(&redaction(&[], &[]), encoded("br"), "{}").as_deref(),
        Some("{}")
    );
}

#[test]
fn mistakes_are_named() {
    let pointers = |pointer: &str| Rules {
        request_pointers: vec![pointer.into()],
        ..Rules::default()
    };
    let patterns = Rules {
        patterns: vec!["(".into()],
        ..Rules::default()
    };
    for (rules, start) in [
        (pointers("a"), "pointer `a`: must begin"),
        (pointers("/~2"), "pointer `/~2`: ~ must"),
        (patterns, "pattern `(`: regex parse error"),
    ] {
        let error = Redaction::new(&rules).unwrap_err();
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn the_longest_patterns_take_linear_time() {
    let redaction = redaction(&[], &["(a+)+$"]);
    let body = "a".repeat(900) + "b";
    assert_eq!(request(&redaction, Lines::default(), &body), Some(body));
}
