//! What a wire format must be able to do to be spoken by the mock.

use super::call::Call;
use super::reply::{Events, Reply};

/// A failure to be told to the client, in its dialect.
#[derive(Debug)]
pub(super) struct Fault<'a> {
    /// The HTTP status, 400 to 599.
    pub(super) status: u16,
    /// What is wrong and what to do.
    pub(super) message: &'a str,
    /// The answer's request id; Anthropic repeats it in the body.
    pub(super) request_id: &'a str,
}

/// A wire format for conversations.
pub(super) trait Dialect {
    /// Reads a request's body.
    ///
    /// # Errors
    /// When the body is not JSON, or not this dialect's request.
    fn read(&self, body: &[u8]) -> serde_json::Result<Call>;

    /// The body of an answer in one piece.
    fn whole(&self, reply: &Reply<'_>) -> String;

    /// The body of a streamed answer.
    fn stream(&self, reply: &Reply<'_>, call: &Call) -> Events;

    /// The body of an error.
    fn error(&self, fault: &Fault<'_>) -> String;

    /// The body of an answer that counts tokens, in dialects that have one.
    fn count(&self, tokens: u64) -> String {
        format!(r#"{{"input_tokens":{tokens}}}"#)
    }

    /// `content-type` of whole answers and of errors.
    fn json_type(&self) -> &'static str {
        "application/json"
    }

    /// `content-type` of streamed answers.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// The header that carries the request id.
    fn id_header(&self) -> &'static str {
        "x-request-id"
    }

    /// How often a streamed body repeats the text.
    fn copies_in_stream(&self) -> u64 {
        1
    }
}
