//! What the client asks a provider for, as far as it can be read in passing.
//!
//! The model's name is wanted for the record and for `cf-aig-model`, but a body that
//! streams through is never held for it: [`ModelScan`] finds it while the bytes pass.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::config::schema::Format;

/// Longest model name that is recorded, in bytes; a longer one is cut off the record, not
/// the request.
pub const MAX_MODEL: usize = 256;

/// Bytes that hold the names of most models and of most of a request's fields.
const USUAL_NAME: usize = 64;

/// Whether a content type says JSON (`application/json`, `…+json`), parameters aside.
pub fn is_json(content_type: &[u8]) -> bool {
    let essence = essence(content_type);
    let ends_with = |suffix: &[u8]| {
        essence.len() >= suffix.len()
            && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    essence.eq_ignore_ascii_case(b"application/json") || ends_with(b"+json")
}

/// Whether a body may be JSON all the same: several providers read it so whatever its type says,
/// and `curl -d` says that it is a form. The types of files and uploads are none of these.
pub fn may_be_json(content_type: Option<&[u8]>) -> bool {
    const OFTEN: [&str; 2] = ["application/x-www-form-urlencoded", "text/plain"];
    content_type.is_none_or(|content_type| {
        let said = essence(content_type);
        let is_often = OFTEN
            .iter()
            .any(|it| said.eq_ignore_ascii_case(it.as_bytes()));
        is_often || is_json(content_type)
    })
}

/// A content type without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    let end = content_type.iter().position(|byte| *byte == b';');
    content_type[..end.unwrap_or(content_type.len())].trim_ascii()
}

/// The model in a path, for the APIs that put it there: `models/{model}:verb` (Gemini),
/// `model/{model}/verb` (Bedrock), `deployments/{model}/…` (Azure), `@cf/{author}/{model}`, and those
/// whose names have two parts.
pub fn model_in_path(path: &str) -> Option<&str> {
    let end = path.find('?').unwrap_or(path.len());
    let (path, mut start) = (&path[..end], 0);
    while start < path.len() {
        let segment_end = path[start..]
            .find('/')
            .map_or(path.len(), |slash| start + slash);
        let rest = path.get(segment_end + 1..).unwrap_or("");
        match &*decoded(&path[start..segment_end]) {
            "@cf" | "@hf" => return Some(&path[start..]),
            "models" => {
                return model_of_two_parts(&path[..start], rest).or_else(|| leading_model(rest));
            }
            "tunedModels" | "model" | "deployments" => return leading_model(rest),
            _ => start = segment_end + 1,
        }
    }
    None
}

/// A model's name as it is meant: in a path it may be percent-encoded.
pub fn decoded(model: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(model)
        .decode_utf8()
        .unwrap_or(Cow::Borrowed(model))
}

/// The path with `model` in the place of the one in it, encoded as far as a path demands it. A
/// slash stays one only where the one before had slashes too. `None`: there is none in it.
pub fn with_model_in_path(path: &str, model: &str) -> Option<String> {
    const NOT_IN_PATHS: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'[')
        .add(b'\\')
        .add(b']')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    const NOR_SLASHES: &AsciiSet = &NOT_IN_PATHS.add(b'/');
    let found = model_in_path(path)?;
    let start = found.as_ptr() as usize - path.as_ptr() as usize;
    let set = match found.contains('/') {
        true => NOT_IN_PATHS,
        false => NOR_SLASHES,
    };
    let (before, after) = (&path[..start], &path[start + found.len()..]);
    Some(format!(
        "{before}{}{after}",
        utf8_percent_encode(model, set)
    ))
}

/// Gemini's verb follows a colon, encoded or not; Bedrock's version does too, but then a segment
/// follows.
fn leading_model(rest: &str) -> Option<&str> {
    let model = match rest.split_once('/') {
        Some((model, _)) => model,
        None => {
            let model = rest.split(':').next().unwrap_or(rest);
            let encoded = ["%3A", "%3a"].into_iter().find_map(|it| model.find(it));
            encoded.map_or(model, |at| &model[..at])
        }
    };
    (!model.is_empty()).then_some(model)
}

/// `owner/name` behind `models/`: Hugging Face's `hf-inference/models/{org}/{model}/…`, and Replicate's
/// `models/{owner}/{name}/predictions`.
fn model_of_two_parts<'a>(before: &str, rest: &'a str) -> Option<&'a str> {
    let (owner, behind) = rest.split_once('/')?;
    let (name, verb) = behind.split_once('/').unwrap_or((behind, ""));
    // The models of Hugging Face's first years have no owner, and are followed by what is done.
    let is_of_hugging_face =
        before.ends_with("hf-inference/") && !matches!(name, "pipeline" | "v1");
    let has_two_parts = is_of_hugging_face || verb == "predictions";
    let is_whole = !owner.is_empty() && !name.is_empty();
    (has_two_parts && is_whole).then(|| &rest[..owner.len() + 1 + name.len()])
}

/// Whether an API takes the model from the `model` of a body, where its path names none: what others
/// are sent under that name decides nothing. Google's own methods (`…:generateContent`) never do; what
/// it has beside them, such as OpenAI's formats, does.
pub fn is_named_in_body(format: Format, path: &str) -> bool {
    match format {
        Format::OpenaiChat
        | Format::OpenaiResponses
        | Format::AnthropicMessages
        | Format::CohereChat => true,
        Format::GeminiGenerate => !decoded(path.split('?').next().unwrap_or(path)).contains(':'),
        Format::Bedrock | Format::Opaque => false,
    }
}

/// Finds the string value of the top-level key `model` in a JSON body fed in pieces.
///
/// Looks at structure only: strings are skipped at memory speed, nothing is kept but the
/// name (at most [`MAX_MODEL`] bytes). Malformed JSON finds nothing; it never fails.
#[derive(Debug, Default)]
pub struct ModelScan {
    state: State,
    depth: u32,
    /// The string just read is, or will be, a key of the top-level object.
    at_key: bool,
    /// Bytes of the string being read, when it is a top-level key or the model's value.
    text: Vec<u8>,
    keep: bool,
    value_is_model: bool,
    found: Option<Box<str>>,
    /// Looks for all of them and where they stand, not only for the first.
    places: Option<Vec<Range<usize>>>,
    /// Bytes looked at, and among them where the string being read begins.
    read: usize,
    opened: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between strings.
    #[default]
    Structure,
    /// Inside a string.
    Text,
    /// After a backslash in a string.
    Escape,
    /// Found, or beyond finding.
    Done,
}

impl ModelScan {
    /// Looks at the next piece of the body.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != State::Done {
            let rest = match self.state {
                State::Structure => self.structure(bytes),
                State::Text => self.string(bytes),
                State::Escape => {
                    self.keep_bytes(&bytes[..1]);
                    self.state = State::Text;
                    &bytes[1..]
                }
                State::Done => return,
            };
            self.read += bytes.len() - rest.len();
            bytes = rest;
        }
    }

    /// The model in a whole body.
    pub fn of(mut self, body: &[u8]) -> Option<Box<str>> {
        self.feed(body);
        self.found
    }

    /// The model, once it has passed.
    pub fn model(&self) -> Option<&str> {
        self.found.as_deref()
    }

    fn structure<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.opened = self.read + at;
                    self.text.clear();
                    self.keep = self.depth == 1 && (self.at_key || self.value_is_model);
                    if self.keep {
                        self.text.reserve(USUAL_NAME);
                    }
                    self.state = State::Text;
                    return &bytes[at + 1..];
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    self.at_key = self.depth == 1 && *byte == b'{';
                    self.value_is_model = false;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.state = State::Done;
                        return &[];
                    }
                }
                b',' if self.depth == 1 => {
                    self.at_key = true;
                    self.value_is_model = false;
                }
                _ => {}
            }
        }
        &[]
    }

    fn string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(at) = memchr2(b'"', b'\\', bytes) else {
            self.keep_bytes(bytes);
            return &[];
        };
        if bytes[at] == b'\\' {
            // The backslash is kept: the name is unescaped by the JSON parser at the end.
            self.keep_bytes(&bytes[..=at]);
            self.state = State::Escape;
        } else {
            self.keep_bytes(&bytes[..at]);
            self.end_of_string(self.read + at + 1);
        }
        &bytes[at + 1..]
    }

    fn keep_bytes(&mut self, bytes: &[u8]) {
        if self.keep {
            let room = (MAX_MODEL + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end_of_string(&mut self, end: usize) {
        self.state = State::Structure;
        if !self.keep {
            return;
        }
        if self.at_key {
            self.at_key = false;
            self.value_is_model = is_model(&self.text);
        } else if self.value_is_model {
            self.value_is_model = false;
            self.has_found(end);
        }
    }

    fn has_found(&mut self, end: usize) {
        if self.found.is_none() {
            self.found = unescape(&self.text);
        }
        match &mut self.places {
            Some(places) => places.push(self.opened..end),
            None => self.state = State::Done,
        }
    }
}

/// The model that a whole body names, and every place where it does so: the string values of
/// all top-level keys `model`, quotes included. Which of several counts is the provider's affair,
/// so whoever changes one changes all.
pub fn model_places(body: &[u8]) -> Option<(Box<str>, Vec<Range<usize>>)> {
    let mut scan = ModelScan {
        places: Some(Vec::new()),
        ..ModelScan::default()
    };
    scan.feed(body);
    Some((scan.found?, scan.places?))
}

/// The body with `model` in the place of the one it names; every other byte stays.
pub fn with_model(body: &[u8], places: &[Range<usize>], model: &str) -> Bytes {
    let quoted = serde_json::Value::from(model).to_string();
    let mut changed = BytesMut::with_capacity(body.len() + quoted.len() * places.len());
    let mut from = 0;
    for place in places {
        changed.extend_from_slice(&body[from..place.start]);
        changed.extend_from_slice(quoted.as_bytes());
        from = place.end;
    }
    changed.extend_from_slice(&body[from..]);
    changed.freeze()
}

/// Whether the name of a member means `model`: JSON lets it be written with escapes (RFC 8259,
/// section 8.3), and a provider reads it so.
fn is_model(name: &[u8]) -> bool {
    name == b"model" || (name.contains(&b'\\') && unescape(name).as_deref() == Some("model"))
}

fn unescape(text: &[u8]) -> Option<Box<str>> {
    if text.len() > MAX_MODEL {
        return None;
    }
    if !text.contains(&b'\\') {
        return std::str::from_utf8(text).ok().map(Into::into);
    }
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice::<String>(&quoted)
        .ok()
        .map(Into::into)
}

/// Kind of model, by the path that is asked: the contract's `model_type`, which has no closed list.
pub fn kind(path: &str) -> &'static str {
    const KINDS: [(&str, &str); 6] = [
        ("embed", "embeddings"),
        ("/images/", "image"),
        ("/audio/", "audio"),
        ("rerank", "rerank"),
        ("moderations", "moderation"),
        ("/models", "models"),
    ];
    let of_model = [
        ":generateContent",
        ":streamGenerateContent",
        "/converse",
        "/invoke",
    ];
    if of_model.iter().any(|verb| path.contains(verb)) {
        return "chat";
    }
    let found = KINDS.iter().find(|(part, _)| path.contains(part));
    found.map_or("chat", |(_, kind)| kind)
}

/// Whether a path ends in one of these, whatever a client puts behind it: a query, a fragment, slashes.
pub fn ends_in(path: &str, ends: &[&str]) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let path = path.trim_end_matches('/');
    ends.iter().any(|end| path.ends_with(end))
}

/// Whether the answer at a path is no text of a model's: by how the path ends, and nothing that a
/// client may put behind it. Whatever is not known writes text.
pub fn writes_no_text(path: &str) -> bool {
    const ENDS: [&str; 8] = [
        "/embeddings",
        "/embed",
        ":embedContent",
        ":batchEmbedContents",
        "/rerank",
        "/moderations",
        "/images/generations",
        "/images/edits",
    ];
    ends_in(path, &ENDS)
}

/// Whether what is asked at a path is only how many tokens a request has, which is free and asks no
/// model: by how the path ends, and nothing that a client may put behind it.
///
/// Sources: the API references of Anthropic (also on Vertex), Google (`countTokens`), OpenAI (responses,
/// "Get input token counts") and AWS (`CountTokens`).
pub fn only_counts_tokens(path: &str) -> bool {
    const ENDS: [&str; 5] = [
        "/messages/count_tokens",
        "/models/count-tokens:rawPredict",
        ":countTokens",
        "/responses/input_tokens",
        "/count-tokens",
    ];
    ends_in(path, &ENDS)
}

/// Whether a path encodes nothing that needs no encoding (RFC 3986, 2.3): a provider would read
/// `%6D` as the `m` that was not seen there.
pub fn is_plainly_written(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    let mut pieces = path.split('%').skip(1);
    pieces.all(|piece| {
        let digits = piece.get(..2).unwrap_or_default();
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

/// Whether a whole body names no two models: nobody knows which one a provider takes.
pub fn names_one_model(body: &[u8]) -> bool {
    let Some((model, places)) = model_places(body) else {
        return true;
    };
    let mut named = places.iter().map(|place| &body[place.clone()]);
    named.all(|quoted| {
        let inner = quoted.get(1..quoted.len().saturating_sub(1));
        inner.and_then(unescape).as_ref() == Some(&model)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scan(pieces: &[&[u8]]) -> Option<String> {
        let mut scan = ModelScan::default();
        for piece in pieces {
            scan.feed(piece);
        }
        scan.model().map(str::to_owned)
    }

    const CASES: [(&str, Option<&str>); 14] = [
        (r#"{"model":"gpt-5","messages":[]}"#, Some("gpt-5")),
        (
            r#"{"messages":[{"role":"user","content":"the \"model\": \"no\" {"}],"model":"m"}"#,
            Some("m"),
        ),
        (
            r#"{"messages":[{"model":"inner"}],"model":"outer"}"#,
            Some("outer"),
        ),
        (r#"{"a":"model","b":"x","model" : "y"}"#, Some("y")),
        (r#"{"a":["model","x"],"model":"y"}"#, Some("y")),
        (r#"{"model":{"name":"x"},"other":"model"}"#, None),
        (r#"{"model":null,"other":"x"}"#, None),
        (r#"{"model":12,"x":"y"}"#, None),
        ("{\"model\":\"a\\u002fb\\\\c\"}", Some(r"a/b\c")),
        (r#"{"models":"x"}"#, None),
        (r#"["model","x"]"#, None),
        (r#""model""#, None),
        ("", None),
        (
            r#"{"text":"\\","model":"after-escape"}"#,
            Some("after-escape"),
        ),
    ];

    #[test]
    fn finds_the_top_level_model() {
        for (body, expected) in CASES {
            assert_eq!(scan(&[body.as_bytes()]).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn finds_it_however_the_body_is_cut() {
        for (body, expected) in CASES {
            let body = body.as_bytes();
            for cut in 0..=body.len() {
                assert_eq!(scan(&[&body[..cut], &body[cut..]]).as_deref(), expected);
            }
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(scan(&bytes).as_deref(), expected);
        }
    }

    #[test]
    fn another_model_takes_its_place_and_nothing_else_changes() {
        let cases = [
            (
                r#"{"model":"gpt-5","messages":["model"]}"#,
                r#"{"model":"a\"b","messages":["model"]}"#,
            ),
            (
                r#" { "x" : {"model":"in"}, "model" : "g\u0070t-5" , "y":1.0 } "#,
                r#" { "x" : {"model":"in"}, "model" : "a\"b" , "y":1.0 } "#,
            ),
            (
                r#"{"model":"gpt-5","n":1,"model":"other"}"#,
                r#"{"model":"a\"b","n":1,"model":"a\"b"}"#,
            ),
        ];
        for (body, changed) in cases {
            let (model, places) = model_places(body.as_bytes()).unwrap();
            assert_eq!(&*model, "gpt-5");
            assert_eq!(with_model(body.as_bytes(), &places, "a\"b"), changed);
        }
        assert_eq!(model_places(br#"{"model":7}"#), None);
        assert_eq!(model_places(b"[]"), None);
    }

    #[test]
    fn an_endless_name_is_not_kept() {
        let body = format!(r#"{{"model":"{}"}}"#, "x".repeat(1 << 20));
        let mut scan = ModelScan::default();
        scan.feed(body.as_bytes());
        assert_eq!(scan.model(), None);
        assert!(scan.text.capacity() <= 4 * MAX_MODEL);
    }

    #[test]
    fn reads_models_out_of_paths() {
        let cases = [
            (
                "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                Some("gemini-2.5-pro"),
            ),
            (
                "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke",
                Some("anthropic.claude-3-haiku-20240307-v1:0"),
            ),
            (
                "/openai/deployments/my-gpt/chat/completions?api-version=1",
                Some("my-gpt"),
            ),
            (
                "/client/v4/accounts/0/ai/run/@cf/meta/llama-3",
                Some("@cf/meta/llama-3"),
            ),
            (
                "/ai/run/@hf/thebloke/zephyr-7b",
                Some("@hf/thebloke/zephyr-7b"),
            ),
            ("/ai/run/%40cf/meta/llama-3", Some("%40cf/meta/llama-3")),
            ("/v1beta/tunedModels/mine-1:generateContent", Some("mine-1")),
            ("/v1/models/gemini-3%3AgenerateContent", Some("gemini-3")),
            (
                "/hf-inference/models/meta-llama/Llama-3.3-70B/pipeline/x",
                Some("meta-llama/Llama-3.3-70B"),
            ),
            ("/hf-inference/models/gpt2", Some("gpt2")),
            ("/hf-inference/models/gpt2/pipeline/x", Some("gpt2")),
            ("/hf-inference/models/gpt2/v1/chat", Some("gpt2")),
            ("/v1/models/meta/llama-4/predictions", Some("meta/llama-4")),
            (
                "/workflows/accounts/fireworks/models/flux-1/text_to_image",
                Some("flux-1"),
            ),
            ("/v1/chat/completions", None),
            ("/v1/models/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(model_in_path(path), expected, "{path}");
        }
    }

    #[test]
    fn a_body_names_the_model_where_its_api_reads_it() {
        for (format, path, reads) in [
            (Format::OpenaiChat, "/v1/embeddings", true),
            (
                Format::GeminiGenerate,
                "/v1beta/openai/embeddings?a=b:c",
                true,
            ),
            (Format::GeminiGenerate, "/v1beta/x/y:generateContent", false),
            (
                Format::GeminiGenerate,
                "/v1beta/x/y%3AgenerateContent",
                false,
            ),
            (Format::Bedrock, "/async-invoke", false),
            (Format::Opaque, "/fal-ai/veo3", false),
        ] {
            assert_eq!(is_named_in_body(format, path), reads, "{path}");
        }
    }

    #[test]
    fn another_model_takes_its_place_in_a_path() {
        for (path, model, changed) in [
            (
                "/v1beta/models/gemini-3:generateContent?x=1",
                "gemini 3/b",
                "/v1beta/models/gemini%203%2Fb:generateContent?x=1",
            ),
            (
                "/model/c-v1%3A0/converse",
                "arn:aws:b/c",
                "/model/arn:aws:b%2Fc/converse",
            ),
            ("/ai/run/@cf/meta/a", "@cf/meta/b", "/ai/run/@cf/meta/b"),
        ] {
            assert_eq!(with_model_in_path(path, model).as_deref(), Some(changed));
        }
        assert_eq!(with_model_in_path("/v1/chat/completions", "m"), None);
        assert_eq!(decoded("c-v1%3A0"), "c-v1:0");
        assert_eq!(decoded("a%ff"), "a%ff");
    }

    #[test]
    fn knows_json() {
        for yes in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
        ] {
            assert!(is_json(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "multipart/form-data; boundary=x",
            "application/jsonl",
            "text/plain",
            "json",
        ] {
            assert!(!is_json(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn a_body_may_be_json_unless_its_type_is_that_of_a_file() {
        assert!(may_be_json(None));
        for yes in [
            "application/json",
            "Application/X-WWW-Form-Urlencoded",
            "text/plain; charset=utf-8",
        ] {
            assert!(may_be_json(Some(yes.as_bytes())), "{yes}");
        }
        for no in [
            "",
            "multipart/form-data; boundary=x",
            "audio/mpeg",
            "application/octet-stream",
        ] {
            assert!(!may_be_json(Some(no.as_bytes())), "{no}");
        }
    }

    #[test]
    fn what_writes_no_text_is_known_by_the_end_of_its_path() {
        for (path, expected) in [
            ("/v1/embeddings", true),
            ("/v1/embeddings/?a=b", true),
            ("/v1beta/models/e:embedContent", true),
            ("/v1/chat/completions?x=/embeddings", false),
            ("/v1/chat/completions?x=embed", false),
            ("/v1/embeddings/x", false),
            ("/publishers/anthropic/models/claude:rawPredict", false),
            ("/models/org/name", false),
        ] {
            assert_eq!(writes_no_text(path), expected, "{path}");
        }
    }

    #[test]
    fn what_only_counts_tokens_is_known_by_the_end_of_its_path() {
        for (path, expected) in [
            ("/v1/messages/count_tokens", true),
            ("/v1/messages/count_tokens/?beta=true", true),
            ("/v1beta/models/gemini-2.5-pro:countTokens", true),
            ("/v1/responses/input_tokens", true),
            ("/model/anthropic.claude/count-tokens", true),
            ("/publishers/anthropic/models/count-tokens:rawPredict", true),
            ("/v1/messages", false),
            ("/v1/messages?x=/messages/count_tokens", false),
            ("/v1/messages#/messages/count_tokens", false),
            ("/v1/messages/count_tokens/x", false),
            ("/v1/responses/resp_1/input_items", false),
        ] {
            assert_eq!(only_counts_tokens(path), expected, "{path}");
        }
    }

    #[test]
    fn what_needs_no_encoding_is_seen() {
        for (path, plain) in [
            ("/v1/models/a-b.c_d~e:generateContent?x=%61", true),
            ("/model/arn%3Aaws%3Ax%2Fy/invoke", true),
            ("/v1/mod%65ls/x", false),
            ("/v1/models/gemini-2%2e5", false),
            ("/v1/%zz/%", true),
        ] {
            assert_eq!(is_plainly_written(path), plain, "{path}");
        }
    }

    #[test]
    fn a_body_names_one_model_or_several() {
        for (body, one) in [
            (r#"{"model":"a","x":{"model":"b"}}"#, true),
            (r#"{"model":"a","model":"a"}"#, true),
            (r#"{"model":"a","model":"b"}"#, false),
            (r#"{"model":"a","model":""}"#, false),
            (r#"{}"#, true),
        ] {
            assert_eq!(names_one_model(body.as_bytes()), one, "{body}");
        }
    }
}
