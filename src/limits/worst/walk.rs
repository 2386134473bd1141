//! Judges the values of a request's JSON where they end, by what they were and under which name they
//! stood (`found`).

use super::found::{Found, Object, Seen};
use super::text::Start;
use super::words::{self, Bound, bound};
use crate::config::schema::Format;
use crate::json::{Listener, Scalar};

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The request, and its fields.
    Top,
    /// An object whose fields are as good as the request's: `additionalModelRequestFields`.
    Fields,
    /// An object that says how to generate: `generationConfig`, `inferenceConfig`.
    Config,
    /// What has the tools: `toolConfig`.
    ToolConfig,
    /// The list of tools.
    Tools,
    /// Each of them.
    Tool,
    /// The list of items that OpenAI's responses take.
    Items,
    /// All else.
    Content,
}

/// Learns what a request can take while its body is read.
#[derive(Debug)]
pub struct Judge {
    pub(super) found: Found,
    pub(super) format: Format,
}

/// What is known of an array while it lasts.
#[derive(Debug, Default)]
pub struct Array {
    length: u64,
    /// Texts and lists, of which each may be a prompt.
    prompts: u64,
}

impl Judge {
    fn field(&mut self, at: At, key: &str, seen: &Seen) -> bool {
        if matches!(at, At::Top | At::Fields) {
            self.found.top(self.format, key, seen);
        }
        self.found.content(key, seen);
        let bound = bound(self.format, at, key);
        if let Some(bound) = bound {
            self.found.number(bound, seen);
        }
        matches!(bound, Some(Bound::Output(_)))
    }
}

impl Listener for Judge {
    type Place = At;
    type Seen = Seen;
    type Array = Array;
    type Object = Object;

    fn scalar(&mut self, value: Scalar<'_>) -> Seen {
        match value {
            Scalar::Null | Scalar::Bool(false) => Seen::Nothing,
            Scalar::Bool(true) => Seen::Flag,
            Scalar::Unsigned(number) => Seen::Number(Some(number)),
            Scalar::Negative(_) => Seen::Number(None),
            // As good as the provider's rounding; what is too large stays at the largest.
            Scalar::Float(number) => Seen::Number((number >= 0.0).then(|| number.ceil() as u64)),
            Scalar::Text(text) => Seen::Text(Start::of(text)),
        }
    }

    fn element_place(&self, array: At) -> At {
        match array {
            At::Tools => At::Tool,
            _ => At::Content,
        }
    }

    fn element(&mut self, place: At, array: &mut Array, seen: &Seen) {
        array.length += 1;
        array.prompts += u64::from(matches!(seen, Seen::Text(_) | Seen::List { .. }));
        match (place, seen) {
            (At::Tools, Seen::Object(tool)) => self.found.tool(tool),
            (At::Items, Seen::Object(item)) => self.found.item(item),
            _ => {}
        }
    }

    fn array(&mut self, array: Array) -> Seen {
        let Array { length, prompts } = array;
        Seen::List { length, prompts }
    }

    fn member_place(&self, object: At, key: &str) -> Option<At> {
        let at = match (object, key) {
            (object, key) if words::is_made_up(object, key) => return None,
            (At::Top | At::Fields | At::ToolConfig, "tools") => At::Tools,
            (At::Top, "toolConfig") => At::ToolConfig,
            (At::Top, "additionalModelRequestFields") => At::Fields,
            (At::Top, "input") => At::Items,
            (At::Top, "generationConfig" | "generation_config" | "parameters") => At::Config,
            (At::Top, "inferenceConfig" | "textGenerationConfig") => At::Config,
            _ => At::Content,
        };
        Some(at)
    }

    fn member(&mut self, place: At, object: &mut Object, key: &str, seen: Option<&Seen>) {
        match seen {
            Some(seen) => {
                object.has_bound |= self.field(place, key, seen);
                object.learn(key, seen);
            }
            None => object.fields = object.fields.saturating_add(1),
        }
    }

    fn object(&mut self, object: Object) -> Seen {
        Seen::Object(object)
    }
}
