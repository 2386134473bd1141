//! Server-sent events: where an event ends, and how each dialect says "error" in one.
//!
//! Framing: WHATWG HTML, "Server-sent events". Lines end in LF, CRLF or CR; a blank line
//! ends an event.

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
