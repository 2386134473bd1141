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

/// Finds the data of events in a stream that comes in pieces, cut anywhere: what [`data`] does for
/// a complete body. Keeps an unfinished line and the data of an unfinished event.
#[derive(Debug)]
pub struct Reader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The event, or its unfinished line, is larger than what is kept: it is left out.
    is_too_large: bool,
    /// The last piece ended with CR: an LF that follows is a part of that line end.
    is_after_cr: bool,
    /// Nothing has come yet but what may be a byte order mark.
    is_at_start: bool,
    most: usize,
}

impl Reader {
    /// Leaves out events whose lines or data are larger than `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_too_large: false,
            is_after_cr: false,
            is_at_start: true,
            most,
        }
    }

    /// Takes the next piece; `event` is called with the data of each event that it completes.
    pub fn push(&mut self, mut piece: &[u8], event: &mut impl FnMut(&[u8])) {
        if self.is_after_cr && !piece.is_empty() {
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            self.is_after_cr = false;
        }
        while let Some(end) = memchr2(b'\n', b'\r', piece) {
            let (line, rest) = piece.split_at(end);
            self.take_line(line, event);
            self.is_after_cr = rest == b"\r";
            let crlf = rest.strip_prefix(b"\r\n");
            piece = crlf.unwrap_or(&rest[1..]);
        }
        self.keep(piece);
    }

    /// The data of an event that the end cut off.
    pub fn finish(mut self, event: &mut impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.take_line(b"", event);
        }
        self.end_event(event);
    }

    /// Bytes that it keeps.
    pub fn held(&self) -> usize {
        self.line.capacity() + self.data.capacity()
    }

    /// Keeps the beginning of a line whose end has not come.
    fn keep(&mut self, part: &[u8]) {
        self.is_too_large |= self.line.len() + part.len() > self.most;
        if !self.is_too_large {
            return self.line.extend_from_slice(part);
        }
        // It is not looked at any more; only whether it is empty.
        let is_empty = self.line.is_empty() && part.is_empty();
        self.line = if is_empty { Vec::new() } else { vec![b'?'] };
    }

    /// Takes a line that ends with `part`.
    fn take_line(&mut self, part: &[u8], event: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            return self.read_line(part, event);
        }
        self.keep(part);
        let mut line = std::mem::take(&mut self.line);
        self.read_line(&line, event);
        line.clear();
        self.line = line;
    }

    fn read_line(&mut self, line: &[u8], event: &mut impl FnMut(&[u8])) {
        let mark = b"\xef\xbb\xbf";
        let is_first = std::mem::take(&mut self.is_at_start);
        let unmarked = line.strip_prefix(mark).filter(|_| is_first);
        let line = unmarked.unwrap_or(line);
        if line.is_empty() {
            return self.end_event(event);
        }
        if let Some(value) = data_field(line) {
            self.add(value);
        }
    }

    fn add(&mut self, value: &[u8]) {
        self.is_too_large |= self.data.len() + value.len() > self.most;
        if self.is_too_large {
            self.data = Vec::new();
            return;
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
    }

    fn end_event(&mut self, event: &mut impl FnMut(&[u8])) {
        if self.has_data && !self.is_too_large {
            event(&self.data);
        }
        self.data.clear();
        self.has_data = false;
        self.is_too_large = false;
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

    /// What a reader finds that is given `body` in these pieces.
    fn read<'a>(most: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut reader, mut found) = (Reader::new(most), Vec::new());
        let mut event = |data: &[u8]| found.push(String::from_utf8_lossy(data).into_owned());
        for piece in pieces {
            reader.push(piece, &mut event);
        }
        reader.finish(&mut event);
        found
    }

    #[test]
    fn a_reader_finds_the_same_data_however_the_stream_is_cut() {
        let bodies = [
            "",
            "data: a\n\ndata: b\n\n",
            "data: a\r\n\r\ndata: b\r\n\r\n",
            "data: a\r\rdata: b\r\r",
            "data: a\ndata: b\r\ndata:\n\n",
            ": comment\n\nevent: ping\n\ndata:\u{fc}\u{4e2d}\n\n",
            "data: a\n\n\n\ndata: b",
            "data: a\r\n\r",
            "data\n\ndata:\n\n",
            "\u{feff}data: a\n\n\u{feff}data: b\n\n",
        ];
        for body in bodies.map(str::as_bytes) {
            let expected: Vec<_> = data(body)
                .map(|data| String::from_utf8_lossy(&data).into_owned())
                .collect();
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                assert_eq!(read(99, [head, tail]), expected, "{body:?} cut at {cut}");
            }
            assert_eq!(read(99, body.chunks(1)), expected, "{body:?}");
        }
    }

    #[test]
    fn events_that_are_too_large_are_left_out_and_those_behind_them_are_not() {
        let large = "x".repeat(20);
        let body = format!(
            "data: a\n\ndata: {large}\n\ndata: b\n\n: {large}\ndata: c\n\ndata: 12345\ndata: 67890\n\ndata: d"
        );
        for size in 1..=body.len() {
            let found = read(10, body.as_bytes().chunks(size));
            let found: Vec<_> = found.iter().map(String::as_str).collect();
            let all = ["a", "b", "c", "12345\n67890", "d"];
            let left: Vec<_> = all
                .into_iter()
                .filter(|data| found.contains(data))
                .collect();
            assert_eq!(found, left, "{size}");
            assert!(
                ["a", "b", "d"].iter().all(|data| found.contains(data)),
                "{size}"
            );
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
