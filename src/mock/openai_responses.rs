//! OpenAI responses.
//! <https://platform.openai.com/docs/api-reference/responses>

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::call::{Call, Prompt, Text, Tools};
use super::dialect::{Dialect, Fault};
use super::openai_chat;
use super::reply::{CREATED, Content, Events, Quoted, Reply, ToolCall, Usage, Words};

/// OpenAI's responses.
pub(super) struct OpenAiResponses;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    instructions: Option<Text>,
    input: Prompt,
    stream: Option<bool>,
    #[serde(default)]
    tools: Tools,
}

impl Dialect for OpenAiResponses {
    fn read(&self, body: &[u8]) -> serde_json::Result<Call> {
        let request: Request<'_> = serde_json::from_slice(body)?;
        Ok(Call {
            model: request.model.into_owned(),
            stream: request.stream.unwrap_or(false),
            usage_in_stream: true,
            tool: request.tools.first(),
            prompt: request.input.with_instructions(request.instructions),
        })
    }

    fn whole(&self, reply: &Reply<'_>) -> String {
        completed(reply)
    }

    fn stream(&self, reply: &Reply<'_>, _: &Call) -> Events {
        let mut stream = Stream::default();
        let begun = response(reply, "in_progress", "", "null");
        stream.push("response.created", format_args!(r#""response":{begun}"#));
        stream.push(
            "response.in_progress",
            format_args!(r#""response":{begun}"#),
        );
        match &reply.content {
            Content::Text(words) => stream.message(reply.id, words),
            Content::ToolCall(call) => stream.tool_call(reply.id, call),
        }
        let done = completed(reply);
        stream.push("response.completed", format_args!(r#""response":{done}"#));
        stream.events
    }

    fn error(&self, fault: &Fault<'_>) -> String {
        openai_chat::error(fault)
    }

    fn copies_in_stream(&self) -> u64 {
        5 // the deltas, and the text whole in each of the last four events
    }
}

/// The events of a stream, each with its number.
#[derive(Default)]
struct Stream {
    events: Events,
}

impl Stream {
    fn push(&mut self, kind: &str, fields: fmt::Arguments<'_>) {
        let number = self.events.ends.len();
        self.events.push(format_args!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{fields}}}\n\n"
        ));
    }

    fn message(&mut self, id: &str, words: &Words) {
        let part = format!(r#""item_id":"msg_{id}","output_index":0,"content_index":0"#);
        let begun = message(id, "in_progress", "");
        self.push(
            "response.output_item.added",
            format_args!(r#""output_index":0,"item":{begun}"#),
        );
        let empty = output_text("");
        self.push(
            "response.content_part.added",
            format_args!(r#"{part},"part":{empty}"#),
        );
        for (piece, _) in words.deltas() {
            let piece = Quoted(piece);
            self.push(
                "response.output_text.delta",
                format_args!(r#"{part},"delta":{piece},"logprobs":[]"#),
            );
        }
        self.message_done(id, words, &part);
    }

    fn message_done(&mut self, id: &str, words: &Words, part: &str) {
        let text = Quoted(words.text());
        self.push(
            "response.output_text.done",
            format_args!(r#"{part},"text":{text},"logprobs":[]"#),
        );
        let content = output_text(words.text());
        self.push(
            "response.content_part.done",
            format_args!(r#"{part},"part":{content}"#),
        );
        let item = message(id, "completed", &content);
        self.push(
            "response.output_item.done",
            format_args!(r#""output_index":0,"item":{item}"#),
        );
    }

    fn tool_call(&mut self, id: &str, call: &ToolCall) {
        let begun = function_call(id, "in_progress", call, "");
        self.push(
            "response.output_item.added",
            format_args!(r#""output_index":0,"item":{begun}"#),
        );
        for piece in call.pieces() {
            let piece = Quoted(piece);
            self.push(
                "response.function_call_arguments.delta",
                format_args!(r#""item_id":"fc_{id}","output_index":0,"delta":{piece}"#),
            );
        }
        let arguments = Quoted(&call.arguments);
        self.push(
            "response.function_call_arguments.done",
            format_args!(r#""item_id":"fc_{id}","output_index":0,"arguments":{arguments}"#),
        );
        let item = function_call(id, "completed", call, &call.arguments);
        self.push(
            "response.output_item.done",
            format_args!(r#""output_index":0,"item":{item}"#),
        );
    }
}

fn completed(reply: &Reply<'_>) -> String {
    let item = match &reply.content {
        Content::Text(words) => message(reply.id, "completed", &output_text(words.text())),
        Content::ToolCall(call) => function_call(reply.id, "completed", call, &call.arguments),
    };
    response(reply, "completed", &item, &usage(reply.usage))
}

fn response(reply: &Reply<'_>, status: &str, output: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{CREATED},"status":"{status}","background":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":{model},"output":[{output}],"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{{"effort":null,"summary":null}},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{{"format":{{"type":"text"}},"verbosity":"medium"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{usage},"user":null,"metadata":{{}}}}"#,
        id = reply.id,
        model = Quoted(reply.model),
    )
}

fn message(id: &str, status: &str, content: &str) -> String {
    format!(
        r#"{{"id":"msg_{id}","type":"message","status":"{status}","content":[{content}],"role":"assistant"}}"#
    )
}

fn output_text(text: &str) -> String {
    let text = Quoted(text);
    format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":{text}}}"#)
}

fn function_call(id: &str, status: &str, call: &ToolCall, arguments: &str) -> String {
    format!(
        r#"{{"id":"fc_{id}","type":"function_call","status":"{status}","arguments":{arguments},"call_id":"call_{id}","name":{name}}}"#,
        arguments = Quoted(arguments),
        name = Quoted(&call.name),
    )
}

fn usage(usage: Usage) -> String {
    format!(
        r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#,
        input = usage.input,
        output = usage.output,
        total = usage.total(),
    )
}
