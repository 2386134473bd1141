//! Gemini generateContent.
//! <https://ai.google.dev/api/generate-content>

use serde::Deserialize;

use super::call::{Call, Prompt, Text, Tools};
use super::dialect::{Dialect, Fault};
use super::reply::{Content, Events, Quoted, Reply, Usage};

/// Gemini's generateContent of one model: Google puts the model and the choice to
/// stream into the path.
pub(super) struct GeminiGenerate<'a> {
    pub(super) model: &'a str,
    pub(super) framing: Framing,
}

/// How the answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `generateContent`: in one piece.
    Whole,
    /// `streamGenerateContent`: a JSON array, an element at a time.
    Array,
    /// `streamGenerateContent?alt=sse`: server-sent events.
    Events,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "systemInstruction", alias = "system_instruction")]
    system: Option<Text>,
    contents: Prompt,
    #[serde(default)]
    tools: Tools,
}

impl Dialect for GeminiGenerate<'_> {
    fn read(&self, body: &[u8]) -> serde_json::Result<Call> {
        let request: Request = serde_json::from_slice(body)?;
        Ok(Call {
            model: self.model.to_owned(),
            stream: self.framing != Framing::Whole,
            usage_in_stream: true,
            tool: request.tools.first(),
            prompt: request.contents.with_instructions(request.system),
        })
    }

    fn whole(&self, reply: &Reply<'_>) -> String {
        response(reply, &parts(&reply.content), true, reply.usage)
    }

    fn stream(&self, reply: &Reply<'_>, _: &Call) -> Events {
        let mut events = Events::default();
        match &reply.content {
            Content::ToolCall(_) => self.push(&mut events, &self.whole(reply)),
            Content::Text(words) => {
                let mut usage = Usage {
                    output: 0,
                    ..reply.usage
                };
                let mut deltas = words.deltas().peekable();
                while let Some((piece, words)) = deltas.next() {
                    usage.output += words;
                    let last = deltas.peek().is_none();
                    let usage = if last { reply.usage } else { usage };
                    self.push(
                        &mut events,
                        &response(reply, &text_part(piece), last, usage),
                    );
                }
            }
        }
        if self.framing == Framing::Array {
            events.push(format_args!("]"));
        }
        events
    }

    fn error(&self, fault: &Fault<'_>) -> String {
        let error = error(fault);
        match self.framing {
            Framing::Array => format!("[{error}]"),
            Framing::Whole | Framing::Events => error,
        }
    }

    fn count(&self, tokens: u64) -> String {
        format!(
            r#"{{"totalTokens":{tokens},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{tokens}}}]}}"#
        )
    }

    fn json_type(&self) -> &'static str {
        "application/json; charset=UTF-8"
    }

    fn stream_type(&self) -> &'static str {
        match self.framing {
            Framing::Events => "text/event-stream",
            Framing::Array | Framing::Whole => self.json_type(),
        }
    }
}

impl GeminiGenerate<'_> {
    fn push(&self, events: &mut Events, response: &str) {
        match (self.framing, events.ends.is_empty()) {
            // Google ends the lines of its events with CR LF.
            (Framing::Events, _) => events.push(format_args!("data: {response}\r\n\r\n")),
            (_, true) => events.push(format_args!("[{response}\n")),
            (_, false) => events.push(format_args!(",\r\n{response}\n")),
        }
    }
}

fn response(reply: &Reply<'_>, parts: &str, last: bool, usage: Usage) -> String {
    let finish = if last {
        r#","finishReason":"STOP""#
    } else {
        ""
    };
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{finish},"index":0}}],"usageMetadata":{{"promptTokenCount":{input},"candidatesTokenCount":{output},"totalTokenCount":{total},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{input}}}]}},"modelVersion":{model},"responseId":"{id}"}}"#,
        input = usage.input,
        output = usage.output,
        total = usage.total(),
        model = Quoted(reply.model),
        id = reply.id,
    )
}

fn parts(content: &Content) -> String {
    match content {
        Content::Text(words) => text_part(words.text()),
        Content::ToolCall(call) => {
            let name = Quoted(&call.name);
            let arguments = &call.arguments;
            format!(r#"{{"functionCall":{{"name":{name},"args":{arguments}}}}}"#)
        }
    }
}

fn text_part(text: &str) -> String {
    format!(r#"{{"text":{}}}"#, Quoted(text))
}

/// Google's error, for all of its APIs.
fn error(fault: &Fault<'_>) -> String {
    format!(
        r#"{{"error":{{"code":{code},"message":{message},"status":"{status}"}}}}"#,
        code = fault.status,
        message = Quoted(fault.message),
        status = error_status(fault.status),
    )
}

/// <https://cloud.google.com/apis/design/errors#handling_errors>
fn error_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "INVALID_ARGUMENT",
        500 => "INTERNAL",
        _ => "UNKNOWN",
    }
}
