//! How many tokens an answer cost, read from the answer of any provider.
//!
//! Providers report in different words and, worse, in different sums. `report` reads what
//! they say; here it is brought to one meaning. Nothing is ever counted or guessed: an
//! answer that reports nothing has no usage.

mod decoded;
mod report;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use serde::Deserialize;

use crate::config::schema::Format;
use crate::wire::{Framing, eventstream, sse};

pub use decoded::decoded;
use report::Report;

/// Tokens of one answer, in the words of OpenTelemetry's GenAI conventions and with one
/// meaning for every provider.
///
/// `input` is everything that was read: `cached_input` and `cache_write` are parts of it.
/// OpenAI and Gemini report it so; Anthropic and Bedrock report the three apart. `output` is
/// everything that was written: `reasoning` is a part of it. OpenAI and Anthropic report it
/// so; Gemini and xAI report the two apart. Where a provider reports both used and billed
/// tokens (Cohere), these are the billed ones, as the conventions demand.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, from whatever cache or none.
    pub input: u64,
    /// Tokens written, thoughts included.
    pub output: u64,
    /// Tokens of the input that the provider had in its prompt cache.
    pub cached_input: u64,
    /// Tokens of the input that the provider put into its prompt cache.
    pub cache_write: u64,
    /// Tokens of the output that were thoughts.
    pub reasoning: u64,
}

impl Usage {
    /// As stored answers have it: input, output, cached input, cache write, reasoning.
    pub fn to_array(self) -> [u64; 5] {
        let Self {
            input,
            output,
            cached_input,
            cache_write,
            reasoning,
        } = self;
        [input, output, cached_input, cache_write, reasoning]
    }

    /// What [`Usage::to_array`] made.
    pub fn from_array([input, output, cached_input, cache_write, reasoning]: [u64; 5]) -> Self {
        Self {
            input,
            output,
            cached_input,
            cache_write,
            reasoning,
        }
    }
}

/// The usage that a complete, decoded answer reports: one JSON document, a JSON array or
/// lines of them, server-sent events or an AWS event stream.
///
/// The words that providers use do not clash, so they are read whatever the format: hosts
/// serve others' formats under their own paths (Anthropic's on Bedrock and Vertex). Only
/// from an opaque answer nothing is read.
pub fn of_answer(format: Format, content_type: &str, body: &[u8]) -> Option<Usage> {
    if format == Format::Opaque {
        return None;
    }
    let mut report = Report::default();
    match Framing::of(Some(content_type.as_bytes()), None) {
        Framing::Sse => sse::data(body).for_each(|data| read_event(&data, &mut report)),
        Framing::EventStream => {
            eventstream::payloads(body).for_each(|payload| read_message(payload, &mut report));
        }
        Framing::Other => read_documents(body, &mut report),
    }
    report.usage()
}

/// Most events carry a piece of text only: they are not parsed.
fn read_event(data: &[u8], report: &mut Report) {
    let words = [&b"usage"[..], b"billed_units"];
    if words.iter().any(|word| memmem::find(data, word).is_some()) {
        read_documents(data, report);
    }
}

/// Bedrock Invoke wraps the model's own events in base64.
fn read_message(payload: &[u8], report: &mut Report) {
    #[derive(Deserialize)]
    struct Wrapped {
        bytes: String,
    }
    let wrapped = memmem::find(payload, b"\"bytes\"")
        .and_then(|_| serde_json::from_slice::<Wrapped>(payload).ok())
        .and_then(|wrapped| STANDARD.decode(wrapped.bytes).ok());
    read_documents(wrapped.as_deref().unwrap_or(payload), report);
}

fn read_documents(body: &[u8], report: &mut Report) {
    let documents = serde_json::Deserializer::from_slice(body).into_iter::<Report>();
    for document in documents.map_while(Result::ok) {
        report.merge(&document);
    }
}

#[cfg(test)]
mod tests;
