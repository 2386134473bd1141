//! Server-sent events: where an event ends, and how each dialect says "error" in one.
//!
//! Framing: WHATWG HTML, "Server-sent events". Lines end in LF, CRLF or CR; a blank line
//! ends an event.

use std::borrow::Cow;

use memchr::memchr2;
use serde_json::json;

use crate::config::schema::Format;

/// Knows whether a stream of events stopped at the end of one. Keeps four bytes.
#[derive(Debug, Default, Clone)]
pub struct Boundary {
    last: [u8; 4],
    length: usize,
}

impl Boundary {
    /// Looks at bytes that pass.
    pub fn feed(&mut self, bytes: &[u8]) {
        if bytes.len() >= 4 {
            self.last.copy_from_slice(&bytes[bytes.len() - 4..]);
            self.length = 4;
            return;
        }
        for byte in bytes {
            self.last.rotate_left(1);
            self.last[3] = *byte;
            self.length = (self.length + 1).min(4);
        }
    }

    /// What must be written before an event of our own can begin.
    pub fn missing(&self) -> &'static [u8] {
        let seen = &self.last[4 - self.length..];
        let between = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r", b"\n\r\n"];
        if seen.is_empty() || between.iter().any(|end| seen.ends_with(end)) {
            b""
        } else if seen.ends_with(b"\n") || seen.ends_with(b"\r") {
            b"\n"
        } else {
            b"\n\n"
        }
    }
}

/// The data of every event in a complete body that has any, one that the end cuts off
/// included.
pub fn data(body: &[u8]) -> Data<'_> {
    Data {
        rest: body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body),
    }
}

/// See [`data`].
#[derive(Debug)]
pub struct Data<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Data<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut data: Option<Cow<'a, [u8]>> = None;
        while !self.rest.is_empty() {
            let line = self.line();
            if line.is_empty() && data.is_some() {
                break;
            }
            if let Some(value) = data_field(line) {
                match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        data.to_mut().push(b'\n');
                        data.to_mut().extend_from_slice(value);
                    }
                }
            }
        }
        data
    }
}

impl<'a> Data<'a> {
    /// Takes one line off, without its end.
    fn line(&mut self) -> &'a [u8] {
        let end = memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        let ends = [&b"\r\n"[..], b"\n", b"\r"];
        let after = ends.iter().find_map(|end| rest.strip_prefix(*end));
        self.rest = after.unwrap_or(rest);
        line
    }
}

/// The value of a `data` field.
fn data_field(line: &[u8]) -> Option<&[u8]> {
    let value = match line.strip_prefix(b"data")? {
        [] => b"",
        [b':', value @ ..] => value,
        _ => return None,
    };
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The event by which `format` reports an error in a stream that has begun; `None` for a
/// format that has no such event.
///
/// Shapes: OpenAI API reference (streaming errors carry an `error` object; Responses has the
/// `error` event), Anthropic API (streaming, error events), Google API error model.
pub fn error_event(format: Format, message: &str) -> Option<Vec<u8>> {
    let openai = json!({
        "message": message, "type": "upstream_error", "param": null, "code": "stream_interrupted",
    });
    let (name, data) = match format {
        Format::OpenaiChat => (None, json!({ "error": openai })),
        Format::OpenaiResponses => (
            Some("error"),
            json!({
                "type": "error", "code": "stream_interrupted", "message": message,
                "param": null, "sequence_number": 0, "error": openai,
            }),
        ),
        Format::AnthropicMessages => (
            Some("error"),
            json!({ "type": "error", "error": { "type": "api_error", "message": message } }),
        ),
        Format::GeminiGenerate => (
            None,
            json!({ "error": { "code": 502, "message": message, "status": "UNAVAILABLE" } }),
        ),
        Format::Bedrock | Format::CohereChat | Format::Opaque => return None,
    };
    let mut event = String::new();
    if let Some(name) = name {
        event.push_str(&format!("event: {name}\n"));
    }
    event.push_str(&format!("data: {data}\n\n"));
    Some(event.into_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_found_however_the_stream_is_cut() {
        let cases = [
            ("", ""),
            ("data: a\n\n", ""),
            ("data: a\r\n\r\n", ""),
            ("data: a\r\r", ""),
            ("data: a\n", "\n"),
            ("data: a\r\n", "\n"),
            ("data: a", "\n\n"),
            ("d", "\n\n"),
            (": comment\n\n", ""),
        ];
        for (stream, missing) in cases {
            for cut in 0..=stream.len() {
                let mut boundary = Boundary::default();
                boundary.feed(&stream.as_bytes()[..cut]);
                boundary.feed(&stream.as_bytes()[cut..]);
                assert_eq!(
                    boundary.missing(),
                    missing.as_bytes(),
                    "{stream:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn data_is_found_in_every_framing() {
        let cases: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("event: x\ndata: a\nid: 1\n\n", &["a"]),
            (": comment\n\nevent: ping\n\ndata:a\n\n", &["a"]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            ("data: a\n\n\n\ndata: b", &["a", "b"]),
            ("data\n\ndata:\n\n", &["", ""]),
            ("data:  a\n\n", &[" a"]),
            ("database: a\n\n", &[]),
            ("\u{feff}data: a\n\n", &["a"]),
        ];
        for (body, expected) in cases {
            let found: Vec<_> = data(body.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|data| data.as_bytes()).collect();
            assert_eq!(found, expected, "{body:?}");
        }
    }

    #[test]
    fn each_dialect_says_error_in_its_own_way() {
        let text =
            |format| String::from_utf8(error_event(format, "broke \"off\"\n").unwrap()).unwrap();
        let data = |text: &str| -> serde_json::Value {
            let line = text
                .lines()
                .find(|line| line.starts_with("data: "))
                .unwrap();
            serde_json::from_str(&line[6..]).unwrap()
        };
        assert!(text(Format::OpenaiChat).starts_with("data: {"));
        assert_eq!(
            data(&text(Format::OpenaiChat))["error"]["message"],
            "broke \"off\"\n"
        );
        assert!(text(Format::OpenaiResponses).starts_with("event: error\ndata: "));
        assert_eq!(data(&text(Format::OpenaiResponses))["type"], "error");
        assert!(text(Format::AnthropicMessages).starts_with("event: error\ndata: "));
        assert_eq!(
            data(&text(Format::AnthropicMessages))["error"]["type"],
            "api_error"
        );
        assert_eq!(
            data(&text(Format::GeminiGenerate))["error"]["status"],
            "UNAVAILABLE"
        );
        for format in [
            Format::OpenaiChat,
            Format::OpenaiResponses,
            Format::AnthropicMessages,
            Format::GeminiGenerate,
        ] {
            assert!(text(format).ends_with("\n\n"));
            assert_eq!(text(format).matches("\n\n").count(), 1, "one event only");
        }
        assert_eq!(error_event(Format::CohereChat, "x"), None);
    }
}
