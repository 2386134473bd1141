//! OpenAI chat completions.
//! <https://platform.openai.com/docs/api-reference/chat>

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::call::{Call, Prompt, Tools};
use super::dialect::{Dialect, Fault};
use super::reply::{CREATED, Content, Events, Quoted, Reply, ToolCall, Usage};

/// OpenAI's chat completions.
pub(super) struct OpenAiChat;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    messages: Prompt,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Tools,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Dialect for OpenAiChat {
    fn read(&self, body: &[u8]) -> serde_json::Result<Call> {
        let request: Request<'_> = serde_json::from_slice(body)?;
        let options = request.stream_options;
        Ok(Call {
            model: request.model.into_owned(),
            stream: request.stream.unwrap_or(false),
            usage_in_stream: options.and_then(|o| o.include_usage).unwrap_or(false),
            tool: request.tools.first(),
            prompt: request.messages,
        })
    }

    fn whole(&self, reply: &Reply<'_>) -> String {
        let finish = finish_reason(&reply.content);
        let (content, calls) = match &reply.content {
            Content::Text(words) => (Quoted(words.text()).to_string(), String::new()),
            Content::ToolCall(call) => {
                let call = tool_call(reply.id, call, &call.arguments);
                ("null".to_owned(), format!(r#","tool_calls":[{{{call}}}]"#))
            }
        };
        format!(
            r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{CREATED},"model":{model},"choices":[{{"index":0,"message":{{"role":"assistant","content":{content}{calls},"refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"{finish}"}}],"usage":{usage},"service_tier":"default","system_fingerprint":"fp_mock"}}"#,
            id = reply.id,
            model = Quoted(reply.model),
            usage = usage(reply.usage),
        )
    }

    fn stream(&self, reply: &Reply<'_>, call: &Call) -> Events {
        let mut stream = Stream::new(reply, call.usage_in_stream);
        match &reply.content {
            Content::Text(words) => {
                stream.delta(r#"{"role":"assistant","content":"","refusal":null}"#);
                for (piece, _) in words.deltas() {
                    stream.delta(format_args!(r#"{{"content":{}}}"#, Quoted(piece)));
                }
            }
            Content::ToolCall(call) => stream.tool_call(reply.id, call),
        }
        stream.finish(reply)
    }

    fn error(&self, fault: &Fault<'_>) -> String {
        error(fault)
    }
}

/// The events of a stream, and what all of them repeat.
struct Stream {
    events: Events,
    head: String,
    /// Every chunk says `"usage":null` when the last one is to bring it.
    no_usage: &'static str,
    with_usage: bool,
}

impl Stream {
    fn new(reply: &Reply<'_>, with_usage: bool) -> Self {
        let head = format!(
            r#"data: {{"id":"chatcmpl-{id}","object":"chat.completion.chunk","created":{CREATED},"model":{model},"service_tier":"default","system_fingerprint":"fp_mock","choices":"#,
            id = reply.id,
            model = Quoted(reply.model),
        );
        Self {
            events: Events::default(),
            head,
            no_usage: if with_usage { r#","usage":null"# } else { "" },
            with_usage,
        }
    }

    fn delta(&mut self, delta: impl fmt::Display) {
        self.choice(delta, "null");
    }

    fn choice(&mut self, delta: impl fmt::Display, finish_reason: &str) {
        let (head, usage) = (&self.head, self.no_usage);
        self.events.push(format_args!(
            "{head}[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\
             \"finish_reason\":{finish_reason}}}]{usage}}}\n\n"
        ));
    }

    fn tool_call(&mut self, id: &str, call: &ToolCall) {
        let start = tool_call(id, call, "");
        self.delta(format_args!(
            r#"{{"role":"assistant","content":null,"tool_calls":[{{"index":0,{start}}}],"refusal":null}}"#
        ));
        for piece in call.pieces() {
            let piece = Quoted(piece);
            self.delta(format_args!(
                r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{piece}}}}}]}}"#
            ));
        }
    }

    fn finish(mut self, reply: &Reply<'_>) -> Events {
        let finish = finish_reason(&reply.content);
        self.choice("{}", &format!("\"{finish}\""));
        if self.with_usage {
            let (head, usage) = (&self.head, usage(reply.usage));
            self.events
                .push(format_args!("{head}[],\"usage\":{usage}}}\n\n"));
        }
        self.events.push(format_args!("data: [DONE]\n\n"));
        self.events
    }
}

fn finish_reason(content: &Content) -> &'static str {
    match content {
        Content::Text(_) => "stop",
        Content::ToolCall(_) => "tool_calls",
    }
}

/// The fields of a tool call, without the braces around them.
fn tool_call(id: &str, call: &ToolCall, arguments: &str) -> String {
    format!(
        r#""id":"call_{id}","type":"function","function":{{"name":{name},"arguments":{arguments}}}"#,
        name = Quoted(&call.name),
        arguments = Quoted(arguments),
    )
}

fn usage(usage: Usage) -> String {
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
        input = usage.input,
        output = usage.output,
        total = usage.total(),
    )
}

/// OpenAI's error, for all of its APIs.
pub(super) fn error(fault: &Fault<'_>) -> String {
    let (kind, code) = match fault.status {
        401 => ("invalid_request_error", "\"invalid_api_key\""),
        404 => ("invalid_request_error", "\"not_found\""),
        429 => ("requests", "\"rate_limit_exceeded\""),
        status if status >= 500 => ("server_error", "null"),
        _ => ("invalid_request_error", "null"),
    };
    format!(
        r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code}}}}}"#,
        message = Quoted(fault.message),
    )
}
