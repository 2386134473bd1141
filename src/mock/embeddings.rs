//! Embeddings, as OpenAI and Gemini shape them.
//! <https://platform.openai.com/docs/api-reference/embeddings>,
//! <https://ai.google.dev/api/embeddings>
//!
//! A vector is the text's words hashed into its dimensions, at length one: the same
//! text has the same vector, and texts that share words are near to each other, so
//! that similarity search has something to find.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::reply::Quoted;

/// Dimensions of a vector when the request does not say: OpenAI's small model's.
const OPENAI_DIMENSIONS: usize = 1536;
/// Dimensions of a Gemini vector when the request does not say.
const GEMINI_DIMENSIONS: usize = 768;
/// The most dimensions a request may ask for.
const MAX_DIMENSIONS: usize = 4096;

/// A request for OpenAI embeddings.
#[derive(Deserialize)]
pub(super) struct OpenAiRequest<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    #[serde(borrow)]
    input: Input<'a>,
    encoding_format: Option<Cow<'a, str>>,
    dimensions: Option<usize>,
}

/// Texts, or texts already split into tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum Input<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Texts(#[serde(borrow)] Vec<Cow<'a, str>>),
    Tokens(Vec<u64>),
    TokenLists(Vec<Vec<u64>>),
}

/// A body, and the model's name to take its behaviour from.
impl OpenAiRequest<'_> {
    /// The body of the answer. `input_tokens` replaces the counted ones.
    pub(super) fn answer(&self, input_tokens: Option<u64>) -> String {
        let texts = self.texts();
        let words = texts.iter().map(|text| words(text)).sum();
        let tokens = input_tokens.unwrap_or(words);
        let vectors: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| {
                let vector = self.encoded(text);
                format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)
            })
            .collect();
        format!(
            r#"{{"object":"list","data":[{data}],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
            data = vectors.join(","),
            model = Quoted(&self.model),
        )
    }

    fn texts(&self) -> Vec<Cow<'_, str>> {
        match &self.input {
            Input::Text(text) => vec![Cow::Borrowed(text)],
            Input::Texts(texts) => texts.iter().map(|text| Cow::Borrowed(&**text)).collect(),
            Input::Tokens(tokens) => vec![Cow::Owned(spelled(tokens))],
            Input::TokenLists(lists) => lists.iter().map(|l| Cow::Owned(spelled(l))).collect(),
        }
    }

    fn encoded(&self, text: &str) -> String {
        let vector = vector(text, self.dimensions.unwrap_or(OPENAI_DIMENSIONS));
        if self.encoding_format.as_deref() == Some("base64") {
            let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
            return format!("\"{}\"", STANDARD.encode(bytes));
        }
        numbers(&vector)
    }
}

/// A request for one Gemini embedding.
#[derive(Deserialize)]
pub(super) struct GeminiRequest<'a> {
    #[serde(borrow)]
    content: GeminiContent<'a>,
    #[serde(rename = "outputDimensionality", alias = "output_dimensionality")]
    dimensions: Option<usize>,
}

/// A request for several Gemini embeddings.
#[derive(Deserialize)]
pub(super) struct GeminiBatch<'a> {
    #[serde(borrow)]
    requests: Vec<GeminiRequest<'a>>,
}

#[derive(Deserialize)]
struct GeminiContent<'a> {
    #[serde(borrow)]
    parts: Vec<GeminiPart<'a>>,
}

#[derive(Deserialize)]
struct GeminiPart<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

impl GeminiRequest<'_> {
    /// The body of the answer.
    pub(super) fn answer(&self) -> String {
        format!(r#"{{"embedding":{}}}"#, self.values())
    }

    fn values(&self) -> String {
        let texts = self
            .content
            .parts
            .iter()
            .filter_map(|part| part.text.as_deref());
        let text = texts.collect::<Vec<_>>().join(" ");
        let vector = vector(&text, self.dimensions.unwrap_or(GEMINI_DIMENSIONS));
        format!(r#"{{"values":{}}}"#, numbers(&vector))
    }
}

impl GeminiBatch<'_> {
    /// The body of the answer.
    pub(super) fn answer(&self) -> String {
        let all: Vec<String> = self.requests.iter().map(GeminiRequest::values).collect();
        format!(r#"{{"embeddings":[{}]}}"#, all.join(","))
    }
}

fn words(text: &str) -> u64 {
    text.split_ascii_whitespace().count() as u64
}

fn spelled(tokens: &[u64]) -> String {
    let tokens: Vec<String> = tokens.iter().map(u64::to_string).collect();
    tokens.join(" ")
}

fn numbers(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// The vector of a text: each word adds or takes one in the dimension of its hash.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let dimensions = dimensions.clamp(1, MAX_DIMENSIONS);
    let mut vector = vec![0_f32; dimensions];
    for word in text.split_ascii_whitespace() {
        let hash = hash(word);
        let sign = if hash & 1 == 0 { 1.0 } else { -1.0 };
        vector[(hash >> 32) as usize % dimensions] += sign;
    }
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length == 0.0 {
        vector[0] = 1.0;
    } else {
        vector.iter_mut().for_each(|v| *v /= length);
    }
    vector
}

/// FNV-1a and a last mixing: stable on every machine, unlike the hashers of hash maps.
/// Case is folded.
fn hash(word: &str) -> u64 {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn openai(json: &str) -> serde_json::Value {
        let request: OpenAiRequest<'_> = serde_json::from_str(json).unwrap();
        serde_json::from_str(&request.answer(None)).unwrap()
    }

    fn similarity(a: &str, b: &str) -> f32 {
        let (a, b) = (vector(a, 256), vector(b, 256));
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn the_whole_answer() {
        let json = r#"{"model":"mock","input":["Hello hello","world",""],"dimensions":4}"#;
        let request: OpenAiRequest<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(
            request.answer(None),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0,0,-1,0]},{"object":"embedding","index":1,"embedding":[0,0,0,1]},{"object":"embedding","index":2,"embedding":[1,0,0,0]}],"model":"mock","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
    }

    #[test]
    fn base64_is_the_same_vector() {
        let floats = openai(r#"{"model":"m","input":"a b c","dimensions":8}"#);
        let packed =
            openai(r#"{"model":"m","input":"a b c","dimensions":8,"encoding_format":"base64"}"#);
        let bytes = STANDARD
            .decode(packed["data"][0]["embedding"].as_str().unwrap())
            .unwrap();
        let unpacked: Vec<f32> = bytes
            .chunks(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        let floats: Vec<f32> =
            serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
        assert_eq!(unpacked, floats);
    }

    #[test]
    fn tokens_are_texts_too() {
        let one = openai(r#"{"model":"m","input":[1,22,333],"dimensions":8}"#);
        assert_eq!(one["usage"]["prompt_tokens"], 3);
        let two = openai(r#"{"model":"m","input":[[1,22,333],[4]],"dimensions":8}"#);
        assert_eq!(one["data"][0], two["data"][0]);
        assert_eq!(two["data"].as_array().unwrap().len(), 2);
        assert_eq!(
            openai(r#"{"model":"m","input":"x"}"#)["data"][0]["embedding"]
                .as_array()
                .unwrap()
                .len(),
            1536
        );
    }

    #[test]
    fn texts_that_share_words_are_near() {
        assert!((similarity("the cat sat", "sat the cat") - 1.0).abs() < 1e-6);
        let near = similarity(
            "what is the weather in Paris",
            "what is the weather in Rome",
        );
        let far = similarity(
            "what is the weather in Paris",
            "sell all my shares now please",
        );
        assert!(near > 0.7 && far < 0.4, "{near} {far}");
    }

    #[test]
    fn gemini_embeds_one_or_many() {
        let one: GeminiRequest<'_> = serde_json::from_str(
            r#"{"content":{"parts":[{"text":"hello"}]},"outputDimensionality":4}"#,
        )
        .unwrap();
        assert_eq!(one.answer(), r#"{"embedding":{"values":[0,0,-1,0]}}"#);
        let many: GeminiBatch<'_> = serde_json::from_str(
            r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"hello"}]},"outputDimensionality":4}]}"#,
        )
        .unwrap();
        assert_eq!(many.answer(), r#"{"embeddings":[{"values":[0,0,-1,0]}]}"#);
    }
}
