//! What must never be written: applied by the writer before anything is.
//!
//! Headers that carry credentials are always redacted. Beyond that there are names of headers,
//! JSON pointers into bodies, and patterns for bodies, header values, metadata, paths, user
//! agents, event ids and error details. Rather nothing than a leak: where pointers are given,
//! a body that is not JSON (or JSON in events or lines) is not kept at all; a body whose
//! content encoding cannot be undone is not kept where pointers or patterns are given.
//!
//! Patterns see a body's bytes: a text that JSON escapes, that an answer's events tear apart
//! or that the size cap cuts is not recognised.

mod body;
mod pointers;
mod secret;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use regex::bytes::{NoExpand, Regex};

use super::entry::{Entry, Payload, Text};
use super::metadata::MetadataValue;
use super::segments::{Body, Record};
use crate::record::Lines;
use pointers::Pointers;
use secret::is_secret;

/// What stands in place of a redacted value.
pub const REDACTED: &str = "[redacted]";

/// Undoes a content encoding: `(content-encoding, body, most bytes)`; `None` if it cannot.
pub type Decoder = for<'a> fn(&str, &'a [u8], usize) -> Option<Cow<'a, [u8]>>;

/// What to redact, as it is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names of headers.
    pub headers: Vec<String>,
    /// JSON pointers into request bodies; `*` is every element or member.
    pub request_pointers: Vec<String>,
    /// The same into answers.
    pub response_pointers: Vec<String>,
    /// Regular expressions.
    pub patterns: Vec<String>,
}

/// The same, compiled.
#[derive(Debug, Clone, Default)]
pub struct Redaction {
    headers: Vec<String>,
    request: Pointers,
    response: Pointers,
    patterns: Vec<Regex>,
}

/// A rule that cannot be used: which, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRule(pub String);

impl std::fmt::Display for BadRule {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for BadRule {}

impl Redaction {
    /// Compiles rules; the first mistake is named.
    pub fn new(rules: &Rules) -> Result<Self, BadRule> {
        let pattern = |pattern: &String| {
            Regex::new(pattern).map_err(|error| BadRule(format!("pattern `{pattern}`: {error}")))
        };
        Ok(Self {
            headers: rules
                .headers
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            request: Pointers::parse(&rules.request_pointers)?,
            response: Pointers::parse(&rules.response_pointers)?,
            patterns: rules
                .patterns
                .iter()
                .map(pattern)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Redacts what stands in the row.
    pub(super) fn row(&self, entry: &mut Entry) {
        if self.patterns.is_empty() {
            return;
        }
        self.text(&mut entry.path);
        let texts = [
            &mut entry.error_detail,
            &mut entry.user_agent,
            &mut entry.event_id,
        ];
        for text in texts.into_iter().flatten() {
            self.text(text);
        }
        for (_, value) in &mut entry.metadata.0 {
            self.metadata_value(value);
        }
    }

    /// Redacts a value that a client set.
    pub(super) fn metadata_value(&self, value: &mut MetadataValue) {
        let mut text = Text::Owned(value.text().into_owned());
        if self.text(&mut text) {
            *value = MetadataValue::Text(text.into_owned());
        }
    }

    /// Says whether anything was redacted.
    fn text(&self, text: &mut Text) -> bool {
        let redacted = match self.matches(text.as_bytes()) {
            Cow::Borrowed(_) => return false,
            Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        *text = Text::Owned(redacted);
        true
    }

    fn matches<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.patterns
            .iter()
            .fold(Cow::Borrowed(bytes), |bytes, pattern| {
                let redacted = match pattern.replace_all(&bytes, NoExpand(REDACTED.as_bytes())) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(redacted) => Some(redacted),
                };
                redacted.map_or(bytes, Cow::Owned)
            })
    }

    /// What of a payload may be stored, with bodies of at most `most` bytes, and whether a body
    /// had to be given up.
    pub(super) fn payload(
        &self,
        payload: &Payload,
        decoder: Decoder,
        most: usize,
    ) -> (Record<Lines>, bool) {
        let mut lost = false;
        let mut keep = |pieces: &Option<Vec<Bytes>>, head: &Lines, complete, pointers| {
            let pieces = pieces.as_ref();
            let body =
                pieces.map(|pieces| self.body(pieces, head, complete, pointers, decoder, most));
            lost |= matches!(body, Some(None));
            body.flatten()
        };
        let request = keep(
            &payload.request,
            &payload.request_head,
            payload.request_complete,
            &self.request,
        );
        let response = keep(
            &payload.response,
            &payload.response_head,
            payload.response_complete,
            &self.response,
        );
        let record = Record {
            request_head: self.head(&payload.request_head),
            response_head: self.head(&payload.response_head),
            request,
            response,
        };
        (record, lost)
    }

    /// The same for others than the log store: bodies without their content coding, at most `most`
    /// bytes each.
    pub fn told(&self, payload: &Payload, decoder: Decoder, most: usize) -> Payload {
        let (record, _) = self.payload(payload, decoder, most);
        let of = |body: Option<Body>, head: Lines| match body {
            Some(body) if !body.encoded => {
                let mut plain = Lines::with_room(head.bytes().len());
                let coding = CONTENT_ENCODING.as_str().as_bytes();
                let others = head.iter().filter(|(name, _)| *name != coding);
                others.for_each(|(name, value)| plain.push(name, value));
                (Some(vec![body.bytes]), body.complete, plain)
            }
            _ => (None, false, head),
        };
        let (request, request_complete, request_head) = of(record.request, record.request_head);
        let (response, response_complete, response_head) =
            of(record.response, record.response_head);
        Payload {
            request_head,
            response_head,
            request,
            response,
            request_complete,
            response_complete,
        }
    }

    fn head(&self, head: &Lines) -> Lines {
        head.with_values(|name, value| match self.is_secret(name) {
            true => Some(Cow::Borrowed(REDACTED.as_bytes())),
            false if self.patterns.is_empty() => None,
            false => Some(self.matches(value)),
        })
    }

    /// `name` is in lower case.
    fn is_secret(&self, name: &[u8]) -> bool {
        is_secret(name) || self.headers.iter().any(|other| other.as_bytes() == name)
    }

    fn body(
        &self,
        pieces: &[Bytes],
        head: &Lines,
        complete: bool,
        pointers: &Pointers,
        decoder: Decoder,
        most: usize,
    ) -> Option<Body> {
        let joined = match pieces {
            [one] => one.clone(),
            several => Bytes::from(several.concat()),
        };
        let encoding = head.get(&CONTENT_ENCODING).unwrap_or_default();
        // A small body may unpack to a large one: more than is kept, to be cut below.
        let plain = decoder(encoding, &joined, most.saturating_mul(8));
        let encoded = plain.is_none();
        if encoded && !(pointers.is_empty() && self.patterns.is_empty()) {
            return None;
        }
        let plain = plain.as_deref().unwrap_or(&joined);
        let content_type = head.get(&CONTENT_TYPE).unwrap_or_default();
        let pointed = body::redact(plain, content_type, pointers)?;
        let redacted = self.matches(&pointed);
        let unchanged = redacted.as_ptr() == joined.as_ptr() && redacted.len() == joined.len();
        let mut bytes = if unchanged {
            joined.clone()
        } else {
            Bytes::from(redacted.into_owned())
        };
        let cut = bytes.len() > most;
        bytes.truncate(most);
        Some(Body {
            bytes,
            complete: complete && !cut,
            encoded,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "redaction/tests.rs"]
mod tests;
