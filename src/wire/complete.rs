//! Whether an answer that came whole is one that may be given again.
//!
//! A provider can end a stream cleanly in the middle of its answer, say "error" inside a 200,
//! or answer that it has only begun. None of that is an answer to keep.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Framing, eventstream, sse};
use crate::config::schema::Format;

/// Marks an exception in an AWS event stream: the header `:message-type`, a text of nine bytes.
const EXCEPTION: &[u8] = b":message-type\x07\x00\x09exception";
/// What only the last messages of Bedrock's streams have: converse, and invoke of its models.
const BEDROCK_ENDS: [&[u8]; 4] = [
    b"messageStop",
    b"amazon-bedrock-invocationMetrics",
    b"\"message_stop\"",
    b"\"completionReason\":\"",
];
/// What only the last part of Gemini's streams has.
const GEMINI_ENDS: [&[u8]; 2] = [b"\"finishReason\"", b"\"blockReason\""];

/// What tells a real answer from one that is not, in JSON.
#[derive(Default, Deserialize)]
struct Outline<'a> {
    #[serde(rename = "type", default, borrow)]
    kind: Option<&'a RawValue>,
    #[serde(default, borrow)]
    status: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    done: Option<&'a RawValue>,
    #[serde(default, borrow)]
    is_finished: Option<&'a RawValue>,
}

impl Outline<'_> {
    fn is_error(&self) -> bool {
        let error = self.error.map(RawValue::get);
        let said = error.is_some_and(|error| !matches!(error, "null" | "false" | "\"\""));
        said || self.kind() == "error"
    }

    fn is_last(&self) -> bool {
        let is_true = |flag: Option<&RawValue>| flag.is_some_and(|flag| flag.get() == "true");
        is_true(self.done) || is_true(self.is_finished) || self.kind() == "done"
    }

    fn kind(&self) -> &str {
        text(self.kind)
    }
}

/// A text that has no escapes; anything else is none that is looked for.
fn text(value: Option<&RawValue>) -> &str {
    value.map_or("", |value| value.get().trim_matches('"'))
}

/// Whether `body`, decoded, is a whole and successful answer in `format`.
pub fn is_complete(format: Format, content_type: &str, body: &[u8]) -> bool {
    match Framing::of(Some(content_type.as_bytes()), None) {
        Framing::Sse => events_are_complete(format, body),
        Framing::EventStream => messages_are_complete(body),
        Framing::Other if content_type.to_ascii_lowercase().contains("json") => {
            documents_are_complete(format, body).unwrap_or(false)
        }
        // Speech and images say nothing of themselves.
        Framing::Other => true,
    }
}

/// One document, one array, or one document a line. `None` when it is not JSON.
fn documents_are_complete(format: Format, body: &[u8]) -> Option<bool> {
    let body = std::str::from_utf8(body).ok()?;
    // Nearly every answer is one object, and read once.
    if body.trim_ascii_start().starts_with('{')
        && let Ok(only) = serde_json::from_str::<Outline<'_>>(body)
    {
        return Some(object_is_complete(format, &only) && !only.is_error());
    }
    let documents = serde_json::Deserializer::from_str(body).into_iter::<&RawValue>();
    let documents: Vec<_> = documents.collect::<Result<_, _>>().ok()?;
    let mut parts = Vec::new();
    for document in &documents {
        match document.get().starts_with('[') {
            true => parts.extend(serde_json::from_str::<Vec<&RawValue>>(document.get()).ok()?),
            false => parts.push(document),
        }
    }
    let outlines: Vec<_> = parts.iter().map(|part| outline(part.get())).collect();
    let outlines = outlines.into_iter().collect::<Option<Vec<_>>>()?;
    let last = outlines.last()?;
    let ended = match format {
        _ if documents.len() > 1 => last.is_last(),
        Format::GeminiGenerate if parts.len() > 1 => has_any(parts.last()?.get(), &GEMINI_ENDS),
        _ => object_is_complete(format, last),
    };
    Some(ended && !outlines.iter().any(Outline::is_error))
}

/// Whether an answer that is there as a whole is not only begun.
fn object_is_complete(format: Format, object: &Outline<'_>) -> bool {
    let status = text(object.status);
    format != Format::OpenaiResponses || matches!(status, "" | "completed" | "incomplete")
}

/// What an object says of itself; other values (numbers of a vector) say nothing.
fn outline(json: &str) -> Option<Outline<'_>> {
    match json.starts_with('{') {
        true => serde_json::from_str(json).ok(),
        false => Some(Outline::default()),
    }
}

fn has_any(text: &str, needles: &[&[u8]]) -> bool {
    let mut needles = needles.iter();
    needles.any(|needle| memmem::find(text.as_bytes(), needle).is_some())
}

fn events_are_complete(format: Format, body: &[u8]) -> bool {
    let mut boundary = sse::Boundary::default();
    boundary.feed(body);
    let (mut last, mut finished) = (String::new(), false);
    for data in sse::data(body) {
        let Ok(data) = std::str::from_utf8(&data) else {
            return false;
        };
        let event = outline(data).unwrap_or_default();
        if event.is_error() {
            return false;
        }
        finished |= ends_dialect(format, data, &event);
        data.clone_into(&mut last);
    }
    // OpenAI's end is the last word; nothing may be missing behind the others' either.
    let ended = match format {
        Format::OpenaiChat => last == "[DONE]",
        _ => finished,
    };
    ended && boundary.missing().is_empty()
}

/// What only the last events of streams have, in all dialects but Gemini's.
const ENDS: [&[u8]; 11] = [
    b"[DONE]",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b"response.cancelled",
    b"message_stop",
    b"message-end",
    b"\"is_finished\"",
    b"\"done\"",
    b"invocationMetrics",
    CONVERSE_METADATA,
];
/// What only the message has that reports the usage of Bedrock's converse, behind `messageStop`.
const CONVERSE_METADATA: &[u8] = b"\"latencyMs\"";

/// Whether nothing of the answer comes after this event, be it a success or not. For any
/// dialect: hosts serve others' formats under their own paths.
pub fn is_last(data: &[u8]) -> bool {
    let has = |needle: &&[u8]| memmem::find(data, needle).is_some();
    if GEMINI_ENDS.iter().any(has) {
        return true;
    }
    // The others may stand in any text.
    if !ENDS.iter().any(has) {
        return false;
    }
    if data == b"[DONE]" || has(&BEDROCK_ENDS[1]) || has(&CONVERSE_METADATA) {
        return true;
    }
    let event = serde_json::from_slice::<Outline<'_>>(data).unwrap_or_default();
    let last = [
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "message_stop",
        "message-end",
    ];
    event.is_last() || last.contains(&event.kind())
}

/// Whether this event is the one with which `format` says that the answer is whole.
fn ends_dialect(format: Format, data: &str, event: &Outline<'_>) -> bool {
    let kind = event.kind();
    match format {
        Format::OpenaiChat => data == "[DONE]",
        Format::OpenaiResponses => matches!(kind, "response.completed" | "response.incomplete"),
        Format::AnthropicMessages => kind == "message_stop",
        Format::CohereChat => kind == "message-end" || event.is_last(),
        Format::GeminiGenerate => has_any(data, &GEMINI_ENDS),
        Format::Bedrock | Format::Opaque => data == "[DONE]" || event.is_last(),
    }
}

/// An AWS event stream: whole messages, no exception, and the last one of its kind.
fn messages_are_complete(body: &[u8]) -> bool {
    let mut boundary = eventstream::Boundary::default();
    boundary.feed(body);
    let ends = |bytes: &[u8]| {
        let mut ends = BEDROCK_ENDS.iter();
        ends.any(|end| memmem::find(bytes, end).is_some())
    };
    let ended = ends(body) || eventstream::payloads(body).any(|payload| ends(&inner(payload)));
    ended && boundary.is_between_messages() && memmem::find(body, EXCEPTION).is_none()
}

/// The model's own event, which Bedrock's invoke wraps in base64.
fn inner(payload: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        bytes: std::borrow::Cow<'a, str>,
    }
    let wrapped = serde_json::from_slice::<Wrapped<'_>>(payload).ok();
    let decoded = wrapped.and_then(|wrapped| STANDARD.decode(&*wrapped.bytes).ok());
    decoded.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: &str = "text/event-stream; charset=utf-8";
    const JSON: &str = "application/json";

    #[test]
    fn a_stream_is_whole_when_its_dialect_says_so() {
        let cases = [
            (
                Format::OpenaiChat,
                "data: {\"a\":1}\n\ndata: [DONE]\n\n",
                true,
            ),
            (
                Format::OpenaiChat,
                "data: {\"a\":1}\r\n\r\ndata: [DONE]\r\n\r\n",
                true,
            ),
            (Format::OpenaiChat, "data: {\"a\":1}\n\n", false),
            (
                Format::OpenaiChat,
                "data: {\"a\":1}\n\ndata: {\"error\":{}}\n\n",
                false,
            ),
            (
                Format::OpenaiChat,
                "data: {\"error\":{\"code\":502}}\n\ndata: [DONE]\n\n",
                false,
            ),
            (
                Format::OpenaiChat,
                "data: {\"error\":null}\n\ndata: [DONE]\n\n",
                true,
            ),
            (Format::OpenaiChat, "data: [DONE]", false),
            (Format::OpenaiChat, "", false),
            (
                Format::OpenaiResponses,
                "event: response.completed\ndata: {\"type\":\"response.completed\"}\n\n",
                true,
            ),
            (
                Format::OpenaiResponses,
                "event: response.failed\ndata: {\"type\":\"response.failed\"}\n\n",
                false,
            ),
            (
                Format::AnthropicMessages,
                "event: ping\ndata: {\"type\":\"ping\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"   }\n\n",
                true,
            ),
            (
                Format::AnthropicMessages,
                "event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n",
                false,
            ),
            (
                Format::GeminiGenerate,
                "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n",
                true,
            ),
            (
                Format::GeminiGenerate,
                "data: {\"candidates\":[{}]}\r\n\r\n",
                false,
            ),
            (
                Format::GeminiGenerate,
                "data: {\"error\":{\"code\":503}}\n\n",
                false,
            ),
            (
                Format::CohereChat,
                "data: {\"type\":\"message-end\"}\n\ndata: [DONE]\n\n",
                true,
            ),
            (
                Format::CohereChat,
                "data: {\"type\":\"content-end\"}\n\ndata: [DONE]\n\n",
                false,
            ),
            (Format::Opaque, "data: x\n\n", false),
            (Format::Opaque, "data: x\n\ndata: {\"done\":true}\n\n", true),
        ];
        for (format, stream, whole) in cases {
            let found = is_complete(format, SSE, stream.as_bytes());
            assert_eq!(found, whole, "{format:?} {stream:?}");
        }
    }

    #[test]
    fn an_error_or_a_beginning_inside_a_success_is_no_answer() {
        let cases = [
            (Format::OpenaiChat, r#"{"choices":[]}"#, true),
            (Format::OpenaiChat, r#"{"choices":[],"error":null}"#, true),
            (Format::OpenaiChat, r#"{"error":{"code":502}}"#, false),
            (
                Format::OpenaiChat,
                r#"{"status":503,"error":"overloaded"}"#,
                false,
            ),
            (Format::OpenaiChat, r#"{"choices":["#, false),
            (Format::OpenaiChat, " {\"choices\":[]}\r\n", true),
            (Format::OpenaiChat, r#"{"choices":[]}}"#, false),
            (Format::OpenaiChat, r#"{"error":null,"error":{}}"#, false),
            (Format::OpenaiChat, "", false),
            (
                Format::OpenaiResponses,
                r#"{"status":"completed","error":null}"#,
                true,
            ),
            (Format::OpenaiResponses, r#"{"status":"queued"}"#, false),
            (
                Format::GeminiGenerate,
                r#"[{"a":1},{"candidates":[{"finishReason":"STOP"}]}]"#,
                true,
            ),
            (
                Format::GeminiGenerate,
                r#"[{"a":1},{"error":{"code":503}}]"#,
                false,
            ),
            (Format::GeminiGenerate, r#"[{"a":1},{"a":2}]"#, false),
            (Format::Opaque, "[[0.1,0.2],[0.3]]", true),
            (Format::Opaque, "{\"a\":1}\n{\"done\":true}\n", true),
            (Format::Opaque, "{\"a\":1}\n{\"done\":false}\n", false),
            (
                Format::CohereChat,
                "{\"a\":1}\n{\"is_finished\":true}\n",
                true,
            ),
        ];
        for (format, body, whole) in cases {
            let found = is_complete(format, JSON, body.as_bytes());
            assert_eq!(found, whole, "{format:?} {body:?}");
        }
        let not_text = b"{\"choices\":\"\xff\"}";
        assert!(!is_complete(Format::OpenaiChat, JSON, not_text));
        assert!(is_complete(
            Format::Opaque,
            "audio/mpeg",
            b"\xff\xf3not json"
        ));
    }

    #[test]
    fn an_event_stream_is_whole_messages_up_to_the_last_one() {
        let kind = "application/vnd.amazon.eventstream";
        let complete = |body: &[u8]| is_complete(Format::Bedrock, kind, body);
        let exception = eventstream::exception("throttlingException", "slow down");
        let last = eventstream::exception("x", "messageStop");
        // The same message, but for its kind.
        let at = memmem::find(&last, b"exception").unwrap_or_default();
        let mut event = last.clone();
        event[at..at + 9].copy_from_slice(b"event    ");
        assert!(complete(&event));
        assert!(!complete(&[event.clone(), exception].concat()));
        assert!(!complete(&event[..event.len() - 1]));
        assert!(!complete(b""));
    }
}
