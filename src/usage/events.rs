//! What the events of a stream say, one after the other. Most carry a piece of text only: they
//! are not parsed.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::{Finder, find};
use serde::Deserialize;

use super::text::Text;
use super::words::Said;
use crate::wire::complete;

/// Finds what an event has that reports usage, or that names a model.
static WORDS: LazyLock<Words> = LazyLock::new(|| Words {
    usage: Finder::new("usage"),
    others: ["billed_units", "invocationMetrics"].map(Finder::new),
    model: Finder::new("\"model"),
});

/// Making these anew for every event would cost more than looking for them.
struct Words {
    usage: Finder<'static>,
    others: [Finder<'static>; 2],
    model: Finder<'static>,
}

/// Collects what events say.
#[derive(Default)]
pub(super) struct Events {
    pub said: Said,
    /// What they wrote since a report last counted it.
    pub text: Text,
    /// The last event, and the one before it: some hosts say that they are done once more.
    last: [Vec<u8>; 2],
}

impl Events {
    /// Reads the data of one event.
    pub fn read(&mut self, data: &[u8]) {
        let names_model = self.said.model.is_none() && WORDS.model.find(data).is_some();
        if (names_model || WORDS.report(data)) && self.parse(data) {
            self.text.clear();
        } else {
            self.text.push(data);
        }
        self.last.swap(0, 1);
        self.last[0].clear();
        self.last[0].extend_from_slice(data);
    }

    /// Reads the payload of one message. Bedrock's invoke wraps the model's own events in base64.
    pub fn read_message(&mut self, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Wrapped {
            bytes: String,
        }
        let wrapped = find(payload, b"\"bytes\"")
            .and_then(|_| serde_json::from_slice::<Wrapped>(payload).ok())
            .and_then(|wrapped| STANDARD.decode(wrapped.bytes).ok());
        self.read(wrapped.as_deref().unwrap_or(payload));
    }

    /// Whether the last one has come.
    pub fn ended(&self) -> bool {
        self.last.iter().any(|event| complete::is_last(event))
    }

    /// Bytes that it keeps.
    pub fn held(&self) -> usize {
        let last: usize = self.last.iter().map(Vec::capacity).sum();
        self.text.held() + last
    }

    /// Whether it counts what was written so far.
    fn parse(&mut self, data: &[u8]) -> bool {
        let mut counted = false;
        let documents = serde_json::Deserializer::from_slice(data).into_iter::<Said>();
        for said in documents.map_while(Result::ok) {
            counted |= said.report.usage().is_some_and(|usage| usage.output > 0);
            self.said.merge(said);
        }
        counted
    }
}

impl Words {
    fn report(&self, data: &[u8]) -> bool {
        let mut usages = self.usage.find_iter(data);
        // OpenAI's events say that they have none when the last one will.
        let is_said = |at: usize| {
            let rest = &data[at + self.usage.needle().len()..];
            let value = rest.strip_prefix(b"\":").unwrap_or(rest);
            !value.trim_ascii_start().starts_with(b"null")
        };
        usages.any(is_said) || self.others.iter().any(|word| word.find(data).is_some())
    }
}
