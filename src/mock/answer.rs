//! From a request to its answer, without a socket: routing, refusals, ids.

use std::fmt::Write;

use bytes::Bytes;
use http::Method;

use super::anthropic_messages::AnthropicMessages;
use super::behaviour::Behaviour;
use super::call::Call;
use super::dialect::{Dialect, Fault};
use super::embeddings::{GeminiBatch, GeminiRequest, OpenAiRequest};
use super::gemini_generate::{Framing, GeminiGenerate};
use super::models::Caller;
use super::openai_chat::OpenAiChat;
use super::openai_responses::OpenAiResponses;
use super::reply::{Events, Reply};

const SERVED: &str = "POST chat/completions, responses, embeddings, messages, \
     messages/count_tokens, models/{model}:generateContent, :streamGenerateContent, \
     :countTokens, :embedContent and :batchEmbedContents, echo and digest, and GET models, \
     each also under v1 or v1beta";

/// A request, its body read whole.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path with its query, as in the request line.
    pub target: &'a str,
    /// Whose list of models is meant, told by the headers.
    pub caller: Caller,
    /// The body.
    pub body: &'a [u8],
}

/// An answer, and how to send it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `content-type`.
    pub content_type: &'static str,
    /// The name of the header that carries the request id, and its value.
    pub request_id: (&'static str, String),
    /// The body.
    pub body: Body,
    /// Pauses, cuts and refusals to answer at all.
    pub behaviour: Behaviour,
}

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// Sent with its length.
    Whole(Bytes),
    /// Sent as a stream of unknown length.
    Events {
        /// All events, one after the other.
        bytes: Bytes,
        /// Where in `bytes` each event ends.
        ends: Vec<usize>,
    },
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

impl From<Events> for Body {
    fn from(events: Events) -> Self {
        Self::Events {
            bytes: events.bytes.into(),
            ends: events.ends,
        }
    }
}

impl Answer {
    /// Whether the client is told to come back in a second.
    #[must_use]
    pub fn retry_after(&self) -> bool {
        matches!(self.status, 429 | 503)
    }
}

/// An answer, or the refusal that takes its place.
type Answered = Result<Answer, Box<Answer>>;

/// Answers a request: the same request always gets the same bytes.
#[must_use]
pub fn answer(request: &Request<'_>) -> Answer {
    let (version, path, query) = split(request.target);
    let answered = match (request.method, path) {
        (&Method::POST, "chat/completions") => converse(&OpenAiChat, request),
        (&Method::POST, "responses") => converse(&OpenAiResponses, request),
        (&Method::POST, "messages") => converse(&AnthropicMessages, request),
        (&Method::POST, "messages/count_tokens") => count(&AnthropicMessages, request),
        (&Method::POST, "embeddings") => openai_embed(request),
        (&Method::GET, "models") => Ok(models(request, version, None)),
        _ => match path.strip_prefix("models/") {
            Some(model) => of_model(request, version, model, query),
            None => Err(not_found(request)),
        },
    };
    answered.unwrap_or_else(|refusal| *refusal)
}

/// Paths under `models/`: Gemini's, which name a model and a verb, and one model's entry.
fn of_model(request: &Request<'_>, version: &str, rest: &str, query: &str) -> Answered {
    let (model, verb) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let gemini = |framing| GeminiGenerate { model, framing };
    match (request.method, verb) {
        (&Method::GET, "") => Ok(models(request, version, Some(model))),
        (&Method::POST, "generateContent") => converse(&gemini(Framing::Whole), request),
        (&Method::POST, "streamGenerateContent") => {
            let sse = query.split('&').any(|pair| pair == "alt=sse");
            let framing = if sse { Framing::Events } else { Framing::Array };
            converse(&gemini(framing), request)
        }
        (&Method::POST, "countTokens") => count(&gemini(Framing::Whole), request),
        (&Method::POST, "embedContent" | "batchEmbedContents") => {
            gemini_embed(&gemini(Framing::Whole), verb, request)
        }
        _ => Err(not_found(request)),
    }
}

/// Refuses a request whose body is too large to be held.
pub(super) fn too_large(request: &Request<'_>, limit: usize) -> Answer {
    let message = format!("the mock holds request bodies of at most {limit} bytes");
    Answers::new(&OpenAiChat, request).refusal(413, &message, Behaviour::default())
}

/// Splits a target into its version (empty, `v1`, …), the path after it and the query.
pub(super) fn split(target: &str) -> (&str, &str, &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.trim_start_matches('/');
    for version in ["v1", "v1beta", "v1alpha"] {
        let rest = path.strip_prefix(version);
        if let Some(path) = rest.and_then(|rest| rest.strip_prefix('/')) {
            return (version, path, query);
        }
    }
    ("", path, query)
}

/// Makes the answers to one request in one dialect.
struct Answers<'a> {
    dialect: &'a dyn Dialect,
    id: String,
}

impl<'a> Answers<'a> {
    fn new(dialect: &'a dyn Dialect, request: &Request<'_>) -> Self {
        Self {
            dialect,
            id: id(request),
        }
    }

    fn answer(
        &self,
        status: u16,
        content_type: &'static str,
        body: impl Into<Body>,
        behaviour: Behaviour,
    ) -> Answer {
        Answer {
            status,
            content_type,
            request_id: (self.dialect.id_header(), format!("mock-{}", self.id)),
            body: body.into(),
            behaviour,
        }
    }

    fn json(&self, body: String, behaviour: Behaviour) -> Answer {
        self.answer(200, self.dialect.json_type(), body, behaviour)
    }

    fn refusal(&self, status: u16, message: &str, behaviour: Behaviour) -> Answer {
        let body = self.dialect.error(&Fault {
            status,
            message,
            request_id: &format!("mock-{}", self.id),
        });
        self.answer(status, self.dialect.json_type(), body, behaviour)
    }

    fn bad_request(&self, message: &str) -> Box<Answer> {
        Box::new(self.refusal(400, message, Behaviour::default()))
    }

    /// What the model's name asks for, unless that is an error.
    fn behaviour(&self, model: &str) -> Result<Behaviour, Box<Answer>> {
        let behaviour = Behaviour::of_model(model)
            .map_err(|error| self.bad_request(&format!("model `{model}`: {error}")))?;
        let Some(status) = behaviour.status else {
            return Ok(behaviour);
        };
        let message = format!("model `{model}` asked the mock to fail with {status}");
        Err(Box::new(self.refusal(status, &message, behaviour)))
    }

    fn unread(&self, request: &Request<'_>, error: &serde_json::Error) -> Box<Answer> {
        let (_, path, _) = split(request.target);
        let what = if error.is_data() {
            format!("is not a request for {path}")
        } else {
            "is not JSON".to_owned()
        };
        self.bad_request(&format!("the request body {what}: {error}"))
    }

    fn call(&self, request: &Request<'_>) -> Result<(Call, Behaviour), Box<Answer>> {
        let call = self.dialect.read(request.body);
        let call = call.map_err(|error| self.unread(request, &error))?;
        let behaviour = self.behaviour(&call.model)?;
        Ok((call, behaviour))
    }
}

/// The request's id: a hash of what was asked, in 32 hexadecimal digits. The version and
/// the query do not count: a gateway in between may add or drop them.
fn id(request: &Request<'_>) -> String {
    let (_, path, _) = split(request.target);
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(path.as_bytes());
    hash.update(b"\0");
    hash.update(request.body);
    hex(&hash.finish().as_ref()[..16])
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An answer of the model, whole or streamed.
fn converse(dialect: &dyn Dialect, request: &Request<'_>) -> Answered {
    let answers = Answers::new(dialect, request);
    let (call, behaviour) = answers.call(request)?;
    if call.stream {
        let reply = Reply::new(&answers.id, &call, &behaviour, dialect.copies_in_stream());
        let events = dialect.stream(&reply, &call);
        return Ok(answers.answer(200, dialect.stream_type(), events, behaviour));
    }
    let reply = Reply::new(&answers.id, &call, &behaviour, 1);
    Ok(answers.json(dialect.whole(&reply), behaviour))
}

/// The number of tokens a request would cost.
fn count(dialect: &dyn Dialect, request: &Request<'_>) -> Answered {
    let answers = Answers::new(dialect, request);
    let (call, behaviour) = answers.call(request)?;
    let tokens = behaviour.input.unwrap_or(call.prompt.words);
    Ok(answers.json(dialect.count(tokens), behaviour))
}

fn openai_embed(request: &Request<'_>) -> Answered {
    let answers = Answers::new(&OpenAiChat, request);
    let asked: OpenAiRequest<'_> =
        serde_json::from_slice(request.body).map_err(|error| answers.unread(request, &error))?;
    let behaviour = answers.behaviour(&asked.model)?;
    Ok(answers.json(asked.answer(behaviour.input), behaviour))
}

fn gemini_embed(dialect: &GeminiGenerate<'_>, verb: &str, request: &Request<'_>) -> Answered {
    let answers = Answers::new(dialect, request);
    let body = if verb == "embedContent" {
        serde_json::from_slice(request.body).map(|one: GeminiRequest<'_>| one.answer())
    } else {
        serde_json::from_slice(request.body).map(|many: GeminiBatch<'_>| many.answer())
    };
    let body = body.map_err(|error| answers.unread(request, &error))?;
    let behaviour = answers.behaviour(dialect.model)?;
    Ok(answers.json(body, behaviour))
}

fn models(request: &Request<'_>, version: &str, model: Option<&str>) -> Answer {
    let caller = match version {
        "v1beta" | "v1alpha" => Caller::Gemini,
        _ => request.caller,
    };
    let body = model.map_or_else(|| caller.list(), |model| caller.one(model));
    Answers::new(&OpenAiChat, request).json(body, Behaviour::default())
}

fn not_found(request: &Request<'_>) -> Box<Answer> {
    let (method, target) = (request.method, request.target);
    let message = format!("the mock does not serve {method} {target}; it serves {SERVED}");
    let answers = Answers::new(&OpenAiChat, request);
    Box::new(answers.refusal(404, &message, Behaviour::default()))
}
