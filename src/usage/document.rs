//! What an answer says that is no stream of events: one JSON document, an array or lines of them.
//!
//! Small ones are kept whole, without a copy. Of larger ones the beginning and the end are kept:
//! images and embeddings are huge, and what they took stands in front of them or behind them.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use memchr::memmem;

use super::text::Text;
use super::words::Said;

/// Largest document that is kept whole, in bytes.
const MAX_WHOLE: usize = 1 << 20;
/// Pieces that are smaller are gathered, in bytes.
const SMALL: usize = 2 << 10;
/// Bytes that are kept of the beginning and of the end of a larger one.
const MAX_PART: usize = 64 << 10;
/// Places at the end of a part in which one of the names is looked at.
const MAX_PLACES: usize = 8;
/// The names under which usage is reported, with the quotes that they have outside of texts.
const NAMES: [&str; 4] = [
    "\"usage\"",
    "\"usageMetadata\"",
    "\"meta\"",
    "\"amazon-bedrock-invocationMetrics\"",
];

/// Keeps what may be looked into.
#[derive(Default)]
pub(super) struct Document {
    pieces: VecDeque<Bytes>,
    /// Small pieces behind them: each apart would take many times its length.
    gathered: Vec<u8>,
    /// Bytes in both.
    length: usize,
    /// The first bytes of one that is too large to be kept whole.
    start: Option<Box<[u8]>>,
}

impl Document {
    /// Takes the next piece.
    pub fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() < SMALL {
            self.gathered.extend_from_slice(&piece);
            if self.gathered.len() < MAX_PART {
                return;
            }
            self.gather();
        } else {
            self.gather();
            self.pieces.push_back(piece);
        }
        if self.start.is_none() && self.length <= MAX_WHOLE {
            return;
        }
        if self.start.is_none() {
            self.start = Some(self.first(MAX_PART).into());
        }
        // The last piece stays, however large it is: it is in memory anyway.
        while let Some(first) = self.pieces.front() {
            let rest = self.length - first.len();
            if rest < MAX_PART {
                break;
            }
            self.length = rest;
            self.pieces.pop_front();
        }
    }

    fn gather(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.pieces.push_back(gathered.into());
        }
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.length + self.start.as_ref().map_or(0, |start| start.len())
    }

    /// What it says; its text, where it reports no usage; whether it was whole.
    pub fn read(mut self) -> (Said, Text, bool) {
        self.gather();
        let body = self.first(usize::MAX);
        if let Some(start) = &self.start {
            let end = &body[body.len().saturating_sub(MAX_PART)..];
            let mut said = found(start);
            said.merge(found(end));
            return (said, Text::default(), false);
        }
        let (mut said, is_whole) = documents(&body);
        if !is_whole && said.report.usage().is_none() {
            said.merge(found(&body));
        }
        let mut text = Text::default();
        if said.report.usage().is_none() {
            text.keep_whole(&body);
        }
        (said, text, is_whole)
    }

    /// Up to `most` of its first bytes.
    fn first(&self, most: usize) -> Cow<'_, [u8]> {
        if let [only] = self.pieces.as_slices().0
            && self.pieces.len() == 1
        {
            return Cow::Borrowed(&only[..most.min(only.len())]);
        }
        let mut bytes = Vec::with_capacity(most.min(self.length));
        for piece in &self.pieces {
            let room = most - bytes.len();
            bytes.extend_from_slice(&piece[..room.min(piece.len())]);
        }
        Cow::Owned(bytes)
    }
}

/// What whole documents say, and whether there is nothing else.
fn documents(body: &[u8]) -> (Said, bool) {
    let mut said = Said::default();
    let mut any = false;
    for document in serde_json::Deserializer::from_slice(body).into_iter::<Said>() {
        match document {
            Ok(document) => said.merge(document),
            Err(_) => return (said, false),
        }
        any = true;
    }
    (said, any)
}

/// What a part of a document says: the last of its objects that are called as usage is, and the
/// model. Inside of texts their names would have backslashes.
fn found(part: &[u8]) -> Said {
    let mut said = Said::default();
    for name in NAMES {
        // Whoever writes its name in many places does not get us to parse them all.
        let places = memmem::rfind_iter(part, name).take(MAX_PLACES);
        let mut objects = places.filter_map(|at| {
            let value = part[at + name.len()..].trim_ascii_start();
            under(name, value.strip_prefix(b":")?.trim_ascii_start())
        });
        if let Some(object) = objects.find(|said| said.report.usage().is_some()) {
            said.merge(object);
        }
    }
    said.model = model(part);
    said
}

/// Reads the value at the start of `value` as if it stood alone in a document, under `name`.
fn under(name: &str, value: &[u8]) -> Option<Said> {
    if !value.starts_with(b"{") {
        return None;
    }
    let mut values =
        serde_json::Deserializer::from_slice(value).into_iter::<&serde_json::value::RawValue>();
    let object = values.next()?.ok()?;
    serde_json::from_str(&format!("{{{name}:{object}}}")).ok()
}

pub(super) fn model(part: &[u8]) -> Option<Box<str>> {
    let names = ["\"model\"", "\"modelVersion\""];
    names.into_iter().find_map(|name| {
        let at = memmem::find(part, name.as_bytes())? + name.len();
        let value = part[at..].trim_ascii_start().strip_prefix(b":")?;
        let mut values =
            serde_json::Deserializer::from_slice(value).into_iter::<super::lenient::Name>();
        values.next()?.ok()?.0
    })
}
