//! Redacts what pointers lead to in a body, and leaves every other byte as it was.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::pointers::{Pointers, through};

/// A redacted value in a body.
const VALUE: &[u8] = b"\"[redacted]\"";

/// The body with what the pointers lead to redacted; `None` when it cannot be looked into.
pub fn redact<'a>(
    body: &'a [u8],
    content_type: &str,
    pointers: &Pointers,
) -> Option<Cow<'a, [u8]>> {
    if pointers.is_empty() || body.is_empty() {
        return Some(Cow::Borrowed(body));
    }
    let paths = pointers.paths();
    let of = |word| content_type.to_ascii_lowercase().contains(word);
    if of("event-stream") {
        Some(Cow::Owned(by_line(body, |line| event_line(line, &paths))))
    } else if of("ndjson") || of("jsonl") || of("json-seq") {
        Some(Cow::Owned(by_line(body, |line| {
            document_line(line, &paths)
        })))
    } else {
        document(body, &paths)
    }
}

fn document<'a>(body: &'a [u8], paths: &[&[String]]) -> Option<Cow<'a, [u8]>> {
    let value = serde_json::from_slice::<&RawValue>(body).ok()?;
    let mut spans = Vec::new();
    find(value, body.as_ptr() as usize, paths, &mut spans)?;
    if spans.is_empty() {
        return Some(Cow::Borrowed(body));
    }
    let mut redacted = Vec::with_capacity(body.len());
    let mut from = 0;
    for span in spans {
        redacted.extend(&body[from..span.start]);
        redacted.extend(VALUE);
        from = span.end;
    }
    redacted.extend(&body[from..]);
    Some(Cow::Owned(redacted))
}

/// Where in the body, which begins at this address, the paths end; in order.
fn find(
    value: &RawValue,
    start: usize,
    paths: &[&[String]],
    spans: &mut Vec<Range<usize>>,
) -> Option<()> {
    let text = value.get();
    if paths.iter().any(|path| path.is_empty()) {
        let from = text.as_ptr() as usize - start;
        spans.push(from..from + text.len());
    } else if paths.is_empty() {
        // Nothing leads here.
    } else if text.starts_with('{') {
        for (key, member) in serde_json::from_str::<Members>(text).ok()?.0 {
            find(member, start, &through(paths, &key), spans)?;
        }
    } else if text.starts_with('[') {
        let elements = serde_json::from_str::<Vec<&RawValue>>(text).ok()?;
        for (index, element) in elements.into_iter().enumerate() {
            find(element, start, &through(paths, &index.to_string()), spans)?;
        }
    }
    Some(())
}

/// The members of an object in their order, those of one name too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Every;
        impl<'de> Visitor<'de> for Every {
            type Value = Members<'de>;
            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Every)
    }
}

fn by_line(body: &[u8], mut redact: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut redacted = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|&byte| byte == b'\n' || byte == b'\r') {
        let ended = line.ends_with(b"\n") || line.ends_with(b"\r");
        let (text, end) = line.split_at(line.len() - usize::from(ended));
        redacted.extend(redact(text));
        redacted.extend(end);
    }
    redacted
}

/// Of a stream of events, lines of data are looked into; names, ids and comments pass.
fn event_line(line: &[u8], paths: &[&[String]]) -> Vec<u8> {
    let Some(data) = line.strip_prefix(b"data:") else {
        let known: [&[u8]; 4] = [b"event:", b"id:", b"retry:", b":"];
        let passes = line.is_empty() || known.iter().any(|field| line.starts_with(field));
        return if passes {
            line.to_vec()
        } else {
            VALUE.to_vec()
        };
    };
    let space = usize::from(data.starts_with(b" "));
    let (space, data) = data.split_at(space);
    [b"data:", space, &document_line(data, paths)].concat()
}

fn document_line(line: &[u8], paths: &[&[String]]) -> Vec<u8> {
    if line.is_empty() || line == b"[DONE]" {
        return line.to_vec();
    }
    document(line, paths).map_or_else(|| VALUE.to_vec(), Cow::into_owned)
}
