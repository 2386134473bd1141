//! Wire formats: families of APIs, never vendors.
//!
//! So far the gateway reads only what it must to be honest about a broken stream: which
//! dialect an answer is in, where its last frame ended, and how that dialect says "error".

pub mod aside;
pub mod complete;
pub mod eventstream;
pub mod sse;

use http::HeaderName;

use crate::config::schema::Format;

/// The format of the API at an upstream path; `provider` where the path does not tell.
///
/// One provider serves several: OpenAI's chat and responses, Google's native and
/// OpenAI-compatible paths, xAI's chat and messages.
pub fn format_of(path: &str, provider: Format) -> Format {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    let mut segments = path.rsplit('/');
    let (last, before) = (segments.next().unwrap_or(""), segments.next().unwrap_or(""));
    match (before, last) {
        (_, "messages" | "complete") | ("messages", "count_tokens") => Format::AnthropicMessages,
        (_, "completions") => Format::OpenaiChat,
        (_, "responses") | ("responses", _) => Format::OpenaiResponses,
        _ if last.ends_with(":generateContent") || last.ends_with(":streamGenerateContent") => {
            Format::GeminiGenerate
        }
        _ => provider,
    }
}

/// Request headers that change the answers of any provider that speaks `format`: versions,
/// beta flags, and who in an organisation pays. What only one provider reads stands in its
/// entry of `conf/providers.yaml`.
pub fn answer_headers(format: Format) -> &'static [HeaderName] {
    static OPENAI: [HeaderName; 3] = [
        HeaderName::from_static("openai-beta"),
        HeaderName::from_static("openai-organization"),
        HeaderName::from_static("openai-project"),
    ];
    static ANTHROPIC: [HeaderName; 2] = [
        HeaderName::from_static("anthropic-beta"),
        HeaderName::from_static("anthropic-version"),
    ];
    static GEMINI: [HeaderName; 1] = [HeaderName::from_static("x-goog-user-project")];
    match format {
        Format::OpenaiChat | Format::OpenaiResponses => &OPENAI,
        Format::AnthropicMessages => &ANTHROPIC,
        Format::GeminiGenerate => &GEMINI,
        Format::Bedrock | Format::CohereChat | Format::Opaque => &[],
    }
}

/// How a broken answer can still be ended honestly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// AWS event stream (`application/vnd.amazon.eventstream`).
    EventStream,
    /// Anything else: only breaking the HTTP framing says that it is incomplete.
    Other,
}

impl Framing {
    /// By the response's content type and encoding; an encoded stream cannot be written to.
    pub fn of(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Self {
        if content_encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Self::Other;
        }
        let essence = content_type
            .unwrap_or(b"")
            .split(|b| *b == b';')
            .next()
            .unwrap_or(b"")
            .trim_ascii();
        if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::Sse
        } else if essence.eq_ignore_ascii_case(b"application/vnd.amazon.eventstream") {
            Self::EventStream
        } else {
            Self::Other
        }
    }
}

/// Watches a stream pass, to know how to end it if it breaks. Keeps a few bytes.
#[derive(Debug)]
pub enum Watch {
    /// Server-sent events.
    Sse(sse::Boundary),
    /// AWS event stream.
    EventStream(eventstream::Boundary),
    /// Nothing can be added to it.
    Other,
}

impl Watch {
    /// For an answer of this framing.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Sse => Self::Sse(sse::Boundary::default()),
            Framing::EventStream => Self::EventStream(eventstream::Boundary::default()),
            Framing::Other => Self::Other,
        }
    }

    /// Looks at bytes that pass.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Sse(boundary) => boundary.feed(bytes),
            Self::EventStream(boundary) => boundary.feed(bytes),
            Self::Other => {}
        }
    }

    /// What was looked at last may not have gone out: where the stream stands is not known.
    pub fn lose_track(&mut self) {
        match self {
            // In the middle of a line, for all that is known.
            Self::Sse(boundary) => boundary.feed(b"?"),
            Self::EventStream(_) => *self = Self::Other,
            Self::Other => {}
        }
    }

    /// What to append to a stream that broke, in the answer's own dialect; `None` when only
    /// breaking the framing is honest.
    pub fn error_frame(&self, format: Format, message: &str) -> Option<Vec<u8>> {
        match self {
            Self::Sse(boundary) => sse::error_event(format, message).map(|event| {
                let mut frame = boundary.missing().to_vec();
                frame.extend_from_slice(&event);
                frame
            }),
            Self::EventStream(boundary) if boundary.is_between_messages() => {
                Some(eventstream::exception("internalServerException", message))
            }
            Self::EventStream(_) | Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_the_format_before_the_provider_does() {
        let cases = [
            ("/v1/chat/completions", Format::Opaque, Format::OpenaiChat),
            ("/v1/responses", Format::OpenaiChat, Format::OpenaiResponses),
            (
                "/v1/messages?beta=true",
                Format::OpenaiChat,
                Format::AnthropicMessages,
            ),
            (
                "/v1beta/models/m:streamGenerateContent?alt=sse",
                Format::Opaque,
                Format::GeminiGenerate,
            ),
            (
                "/v1beta/openai/chat/completions",
                Format::GeminiGenerate,
                Format::OpenaiChat,
            ),
            ("/model/x/converse-stream", Format::Bedrock, Format::Bedrock),
        ];
        for (path, provider, expected) in cases {
            assert_eq!(format_of(path, provider), expected, "{path}");
        }
    }

    #[test]
    fn an_error_begins_anew_where_the_end_of_a_stream_is_not_known() {
        let mut watch = Watch::new(Framing::Sse);
        watch.feed(b"data: a\n\n");
        watch.lose_track();
        let frame = watch.error_frame(Format::OpenaiChat, "broke");
        assert!(frame.is_some_and(|frame| frame.starts_with(b"\n\ndata: {")));
        let mut watch = Watch::new(Framing::EventStream);
        watch.lose_track();
        assert_eq!(watch.error_frame(Format::Bedrock, "broke"), None);
    }

    #[test]
    fn only_identity_streams_can_be_written_to() {
        assert_eq!(
            Framing::of(Some(b"text/event-stream; charset=utf-8"), None),
            Framing::Sse
        );
        assert_eq!(
            Framing::of(Some(b"text/event-stream"), Some(b"gzip")),
            Framing::Other
        );
        assert_eq!(
            Framing::of(Some(b"application/vnd.amazon.eventstream"), None),
            Framing::EventStream
        );
        assert_eq!(Framing::of(Some(b"application/json"), None), Framing::Other);
        assert_eq!(Framing::of(None, None), Framing::Other);
    }
}
