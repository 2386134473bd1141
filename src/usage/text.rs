//! What an answer wrote, kept as it came until somebody has to estimate how much it is.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::walk::{Found, Keys};

/// Bytes of events that are kept.
const MAX_KEPT: usize = 256 << 10;

/// The keys of answers.
///
/// Sources: the API references of OpenAI (chat, completions, responses), Anthropic (messages),
/// Google (`GenerateContentResponse`), AWS (converse; invoke of Titan, Llama, Mistral), Cohere
/// (chat, v1 and v2) and Ollama, and recorded answers.
const KEYS: Keys = Keys {
    into: &[
        "candidates",
        "choices",
        "completion",
        "content",
        "content_block",
        "delta",
        "function",
        "function_call",
        "functionCall",
        "generation",
        "item",
        "message",
        "name",
        "output",
        "outputText",
        "outputs",
        "partial_json",
        "parts",
        "reasoning",
        "reasoningContent",
        "reasoningText",
        "reasoning_content",
        "refusal",
        "response",
        "results",
        "start",
        "summary",
        "text",
        "thinking",
        "tool_calls",
        "tool_plan",
        "toolUse",
    ],
    json: &["args", "arguments", "input"],
    schema: &[],
    // Only calls have one.
    message: &["name"],
    // Writer has every delta twice; some say thoughts under an old name and a new one.
    twins: &[&["delta", "message"], &["reasoning", "reasoning_content"]],
    media: &[],
};

/// The events or the document in which an answer's text stands.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Text {
    /// One a line, or one document.
    kept: Vec<u8>,
    is_document: bool,
    /// Bytes of events that were not kept.
    beyond: usize,
}

impl Text {
    /// Adds the data of an event.
    pub(super) fn push(&mut self, data: &[u8]) {
        if self.kept.len() + data.len() < MAX_KEPT {
            self.kept.extend_from_slice(data);
            self.kept.push(b'\n');
        } else {
            self.beyond += data.len();
        }
    }

    /// Forgets what a report has counted.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.beyond = 0;
    }

    pub(super) fn keep_whole(&mut self, document: &[u8]) {
        self.kept = document.to_vec();
        self.is_document = true;
    }

    pub(super) fn held(&self) -> usize {
        self.kept.capacity()
    }

    /// Whether nothing was written that is not counted.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.beyond == 0
    }

    /// The text of what was kept, and how many calls of tools it has.
    pub(super) fn written(&self) -> (String, usize) {
        let mut found = Found::default();
        if self.is_document {
            found.collect_new(&self.kept);
        } else {
            let events = self.kept.split(|byte| *byte == b'\n');
            events.for_each(|event| found.collect_new(event));
        }
        (found.texts.concat(), found.messages)
    }

    /// How many times as much was written as was kept; 1 or more.
    pub(super) fn scale(&self) -> f64 {
        let kept = self.kept.len().max(1) as f64;
        1.0 + self.beyond as f64 / kept
    }
}

impl Found {
    /// Collects from documents that follow each other, but for those that repeat others.
    fn collect_new(&mut self, documents: &[u8]) {
        let mut each = serde_json::Deserializer::from_slice(documents).into_iter::<&RawValue>();
        let mut read = 0;
        while let Some(Ok(document)) = each.next() {
            read = each.byte_offset();
            let document = document.get().as_bytes();
            if !repeats(document) {
                self.collect(&KEYS, document);
            }
        }
        // The last one may have been cut off.
        self.collect(&KEYS, &documents[read..]);
    }
}

/// Whether an event says again what others have said, or speaks.
fn repeats(event: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        event_type: std::borrow::Cow<'a, str>,
    }
    let Kind { kind, event_type } = serde_json::from_slice(event).unwrap_or_default();
    let is_new = kind.ends_with(".delta") || kind == "response.output_item.added";
    let is_sound = kind.ends_with("audio.delta");
    event_type == "stream-end" || is_sound || (kind.starts_with("response.") && !is_new)
}
