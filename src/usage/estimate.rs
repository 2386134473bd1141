//! Estimates what an answer took that does not report it: a stream that was cut, or one whose
//! client did not ask for usage.
//!
//! The texts of both sides are counted as the model would count them. What a provider adds on its
//! own, or thinks unseen, is not in them, nor is what an image or a sound takes but as a round
//! number.

use std::borrow::Cow;

use bytes::Bytes;

use super::text::Text;
use super::tokens::Family;
use super::walk::{Found, Keys};
use super::{Observed, Usage, document};
use crate::config::schema::Format;

/// Tokens that an image, a sound or a file is taken for. Images take 85 to 1600, by their size
/// (OpenAI, "Images and vision"; Anthropic, "Vision"; Google, "Token counting").
const MEDIA: u64 = 800;

/// The keys of requests. Sources: as those of answers, in `text`.
const KEYS: Keys = Keys {
    into: &[
        "chat_history",
        "content",
        "contents",
        "documents",
        "function",
        "functionCall",
        "functionResponse",
        "guardContent",
        "input",
        "inputText",
        "inputs",
        "instructions",
        "message",
        "messages",
        "name",
        "output",
        "parts",
        "preamble",
        "prompt",
        "query",
        "reasoning_content",
        "system",
        "systemInstruction",
        "system_instruction",
        "text",
        "thinking",
        "tool_calls",
        "toolResult",
        "toolUse",
    ],
    json: &["args", "arguments", "json", "response"],
    schema: &[
        "format",
        "functions",
        "responseJsonSchema",
        "responseSchema",
        "response_format",
        "toolConfig",
        "tools",
    ],
    // A call in the input of OpenAI's responses has no role.
    message: &["arguments", "call_id", "role"],
    twins: &[],
    media: &[
        "file",
        "fileData",
        "image",
        "image_url",
        "inlineData",
        "inline_data",
        "input_audio",
        "source",
    ],
};

/// What `request`, a JSON body, and an answer with this `text` took, by the tokens of `model`; where
/// that is not known, of the model that the request names. Zero where neither has any text.
///
/// Takes some 20 ms per MB of text, and 0.1 s once to load a vocabulary: not for the path of a
/// request.
pub fn estimate(request: &[u8], text: &Text, model: Option<&str>, format: Format) -> Usage {
    if format == Format::Opaque {
        return Usage::default();
    }
    let named = match model {
        Some(model) => model.into(),
        None => document::model(request).unwrap_or_default(),
    };
    let family = Family::of(&named);
    Usage {
        input: input(request, family),
        output: output(text, family),
        ..Usage::default()
    }
}

/// What an answer took, and whether that is estimated: where it reports nothing, or broke off
/// behind what it reports. `None` where there is nothing to go by, as for a list of models.
/// `request` is its body, or the beginning of it, in pieces.
pub fn settled(
    observed: &Observed,
    request: &[Bytes],
    model: Option<&str>,
    format: Format,
) -> Option<(Usage, bool)> {
    let model = observed.model.as_deref().or(model);
    let estimated = |request| estimate(request, &observed.text, model, format);
    match observed.usage {
        Some(usage) if observed.ended || observed.text.is_empty() => Some((usage, false)),
        Some(usage) => {
            let unreported = estimated(b"").output;
            let output = usage.output.saturating_add(unreported);
            Some((Usage { output, ..usage }, true))
        }
        None => Some(estimated(&joined(request)))
            .filter(|usage| *usage != Usage::default())
            .map(|usage| (usage, true)),
    }
}

/// The pieces of a body as one.
fn joined(pieces: &[Bytes]) -> Cow<'_, [u8]> {
    match pieces {
        [] => Cow::Borrowed(&[]),
        [all] => Cow::Borrowed(all),
        several => Cow::Owned(several.concat()),
    }
}

fn input(request: &[u8], family: &Family) -> u64 {
    let mut found = Found::default();
    found.collect(&KEYS, request);
    if found.texts.is_empty() && found.media == 0 {
        return 0;
    }
    let texts = found.texts.iter().map(|text| family.count(text));
    let schemas = found
        .schemas
        .iter()
        .map(|schema| family.count_schema(schema));
    // A prompt that is only a text is one message all the same.
    let messages = found.messages.max(1) as u64 * family.message + family.request;
    let tools = if found.schemas.is_empty() {
        0
    } else {
        family.tools
    };
    let media = found.media as u64 * MEDIA;
    texts.chain(schemas).sum::<u64>() + messages + tools + media
}

fn output(text: &Text, family: &Family) -> u64 {
    let (written, calls) = text.written();
    let tokens = family.count(&written) + calls as u64 * family.call;
    (tokens as f64 * text.scale()).round() as u64
}
