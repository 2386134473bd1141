//! Anthropic messages.
//! <https://docs.anthropic.com/en/api/messages>

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::call::{Call, Prompt, Text, Tools};
use super::dialect::{Dialect, Fault};
use super::reply::{Content, Events, Quoted, Reply};

/// Anthropic's messages.
pub(super) struct AnthropicMessages;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    system: Option<Text>,
    messages: Prompt,
    stream: Option<bool>,
    #[serde(default)]
    tools: Tools,
}

impl Dialect for AnthropicMessages {
    fn read(&self, body: &[u8]) -> serde_json::Result<Call> {
        let request: Request<'_> = serde_json::from_slice(body)?;
        Ok(Call {
            model: request.model.into_owned(),
            stream: request.stream.unwrap_or(false),
            usage_in_stream: true,
            tool: request.tools.first(),
            prompt: request.messages.with_instructions(request.system),
        })
    }

    fn whole(&self, reply: &Reply<'_>) -> String {
        let content = match &reply.content {
            Content::Text(words) => text_block(words.text()),
            Content::ToolCall(call) => tool_block(reply.id, &call.name, &call.arguments),
        };
        let stop = format!("\"{}\"", stop_reason(&reply.content));
        message(reply, &content, &stop, reply.usage.output)
    }

    fn stream(&self, reply: &Reply<'_>, _: &Call) -> Events {
        let mut events = Events::default();
        let begun = message(reply, "", "null", 1);
        event(
            &mut events,
            "message_start",
            format_args!(r#","message":{begun}"#),
        );
        block(&mut events, reply);
        event(
            &mut events,
            "content_block_stop",
            format_args!(r#","index":0"#),
        );
        let (stop, output) = (stop_reason(&reply.content), reply.usage.output);
        event(
            &mut events,
            "message_delta",
            format_args!(
                r#","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{{"output_tokens":{output}}}"#
            ),
        );
        event(&mut events, "message_stop", format_args!(""));
        events
    }

    fn error(&self, fault: &Fault<'_>) -> String {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}},"request_id":{id}}}"#,
            kind = error_type(fault.status),
            message = Quoted(fault.message),
            id = Quoted(fault.request_id),
        )
    }

    fn id_header(&self) -> &'static str {
        "request-id"
    }
}

/// `fields` follow the type and start with a comma.
fn event(events: &mut Events, kind: &str, fields: fmt::Arguments<'_>) {
    events.push(format_args!(
        "event: {kind}\ndata: {{\"type\":\"{kind}\"{fields}}}\n\n"
    ));
}

/// The one block of content: its start, the ping that comes after it, its deltas.
fn block(events: &mut Events, reply: &Reply<'_>) {
    let empty = match &reply.content {
        Content::Text(_) => text_block(""),
        Content::ToolCall(call) => tool_block(reply.id, &call.name, "{}"),
    };
    event(
        events,
        "content_block_start",
        format_args!(r#","index":0,"content_block":{empty}"#),
    );
    events.push(format_args!(
        "event: ping\ndata: {{\"type\": \"ping\"}}\n\n"
    ));
    match &reply.content {
        Content::Text(words) => {
            for (piece, _) in words.deltas() {
                delta(events, "text_delta", "text", piece);
            }
        }
        Content::ToolCall(call) => {
            for piece in call.pieces() {
                delta(events, "input_json_delta", "partial_json", piece);
            }
        }
    }
}

fn delta(events: &mut Events, kind: &str, field: &str, piece: &str) {
    let piece = Quoted(piece);
    event(
        events,
        "content_block_delta",
        format_args!(r#","index":0,"delta":{{"type":"{kind}","{field}":{piece}}}"#),
    );
}

fn message(reply: &Reply<'_>, content: &str, stop_reason: &str, output_tokens: u64) -> String {
    format!(
        r#"{{"id":"msg_{id}","type":"message","role":"assistant","model":{model},"content":[{content}],"stop_reason":{stop_reason},"stop_sequence":null,"usage":{{"input_tokens":{input},"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":{output_tokens},"service_tier":"standard"}}}}"#,
        id = reply.id,
        model = Quoted(reply.model),
        input = reply.usage.input,
    )
}

fn text_block(text: &str) -> String {
    format!(r#"{{"type":"text","text":{}}}"#, Quoted(text))
}

fn tool_block(id: &str, name: &str, input: &str) -> String {
    let name = Quoted(name);
    format!(r#"{{"type":"tool_use","id":"toolu_{id}","name":{name},"input":{input}}}"#)
}

fn stop_reason(content: &Content) -> &'static str {
    match content {
        Content::Text(_) => "end_turn",
        Content::ToolCall(_) => "tool_use",
    }
}

/// <https://docs.anthropic.com/en/api/errors>
fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        status if status >= 500 => "api_error",
        _ => "invalid_request_error",
    }
}
