//! How many tokens an answer took, read from the answer of any provider while it passes.
//!
//! Providers report in different words and, worse, in different sums. `words` and `counts` read
//! what they say; `report` brings it to one meaning. [`Observer`] reads it from answers of any
//! size, encoded or not, without holding them up. Only [`mod@estimate`] guesses, for answers that
//! report nothing.

mod counts;
mod decoded;
mod decoding;
mod document;
pub mod estimate;
mod events;
mod lenient;
mod observer;
mod report;
mod text;
mod tokens;
mod walk;
mod words;

use std::sync::{Arc, OnceLock};

use crate::config::schema::Format;

pub use decoded::decoded;
pub use decoding::Fault;
pub use estimate::estimate;
pub use observer::{Form, Observed, Observer};
pub use text::Text;

/// Tokens; the buckets that OpenTelemetry's GenAI conventions advise for
/// `gen_ai.client.token.usage`.
pub const TOKEN_BUCKETS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// What one answer took, in the words of OpenTelemetry's GenAI conventions and with one
/// meaning for every provider: tokens, and searches.
///
/// `input` is everything that was read: `cached_input`, `cache_write`, `input_audio` and
/// `input_image` are parts of it. OpenAI and Gemini report it so; Anthropic and Bedrock report
/// what their cache read and wrote apart. `output` is everything that was written: `reasoning`,
/// `output_audio` and `output_image` are parts of it. OpenAI and Anthropic report it so; Gemini
/// and xAI report thoughts apart. Where a provider reports both used and billed tokens (Cohere),
/// these are the billed ones, as the conventions demand.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, from whatever cache or none.
    pub input: u64,
    /// Tokens written, thoughts included.
    pub output: u64,
    /// Tokens of the input that the provider had in its prompt cache.
    pub cached_input: u64,
    /// Tokens of the input that the provider put into its prompt cache.
    pub cache_write: u64,
    /// Tokens of `cache_write` that stay there for an hour.
    pub cache_write_1h: u64,
    /// Tokens of the output that were thoughts.
    pub reasoning: u64,
    /// Tokens of the input that were sound.
    pub input_audio: u64,
    /// Tokens of the output that were sound.
    pub output_audio: u64,
    /// Tokens of both `cached_input` and `input_audio`.
    pub cached_audio: u64,
    /// Tokens of the input that were images.
    pub input_image: u64,
    /// Tokens of the output that were images.
    pub output_image: u64,
    /// Searches of the web that the provider made for the answer: no tokens.
    pub web_searches: u64,
}

impl Usage {
    /// How many numbers it has.
    pub const KINDS: usize = 12;

    /// All numbers with their names: of tokens, and `web_searches`.
    pub fn by_kind(self) -> [(&'static str, u64); Self::KINDS] {
        // Exhaustive: a new count does not compile until it has a name.
        let Self {
            input,
            output,
            cached_input,
            cache_write,
            cache_write_1h,
            reasoning,
            input_audio,
            output_audio,
            cached_audio,
            input_image,
            output_image,
            web_searches,
        } = self;
        [
            ("input_tokens", input),
            ("output_tokens", output),
            ("cached_input_tokens", cached_input),
            ("cache_write_tokens", cache_write),
            // The first five are in the order of the first form of stored answers.
            ("reasoning_tokens", reasoning),
            ("cache_write_1h_tokens", cache_write_1h),
            ("input_audio_tokens", input_audio),
            ("output_audio_tokens", output_audio),
            ("cached_audio_tokens", cached_audio),
            ("input_image_tokens", input_image),
            ("output_image_tokens", output_image),
            ("web_searches", web_searches),
        ]
    }

    /// As stored answers have it: the numbers in the order of [`Usage::by_kind`]. New ones are
    /// only ever added at the end.
    pub fn to_array(self) -> [u64; Self::KINDS] {
        self.by_kind().map(|(_, count)| count)
    }

    /// What [`Usage::to_array`] made.
    pub fn from_array(counts: [u64; Self::KINDS]) -> Self {
        let [
            input,
            output,
            cached_input,
            cache_write,
            reasoning,
            cache_write_1h,
            input_audio,
            output_audio,
            cached_audio,
            input_image,
            output_image,
            web_searches,
        ] = counts;
        Self {
            input,
            output,
            cached_input,
            cache_write,
            cache_write_1h,
            reasoning,
            input_audio,
            output_audio,
            cached_audio,
            input_image,
            output_image,
            web_searches,
        }
    }
}

/// The class of service that a provider gave: prices differ.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum ServiceTier {
    /// What is given unless something else is asked for, and capacity bought in advance.
    #[default]
    Standard,
    /// Answered when there is time, as a part of a batch.
    Batch,
    /// Answered when there is room.
    Flex,
    /// Answered before others.
    Priority,
}

impl ServiceTier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Standard, Self::Batch, Self::Flex, Self::Priority];

    /// Its name, as most providers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }

    /// What a provider means by `word`; `None` for words that name no class, such as OpenAI's
    /// `auto`, which leaves it open.
    ///
    /// Sources: the API references of OpenAI, Anthropic, Gemini (`serviceTier`), Vertex
    /// (`TrafficType`), Bedrock (`ServiceTier`) and Groq.
    pub fn of(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "standard"
            | "default"
            | "scale"
            | "reserved"
            | "on_demand"
            | "provisioned_throughput" => Self::Standard,
            "batch" => Self::Batch,
            "flex" | "on_demand_flex" => Self::Flex,
            "priority" | "fast" | "on_demand_priority" => Self::Priority,
            _ => return None,
        })
    }
}

/// The usage that a complete, decoded answer reports: one JSON document, a JSON array or
/// lines of them, server-sent events or an AWS event stream. A small one that another has read
/// already is not read again.
///
/// The words that providers use do not clash, so they are read whatever the format: hosts
/// serve others' formats under their own paths (Anthropic's on Bedrock and Vertex). Only
/// from an opaque answer nothing is read.
pub fn of_answer(format: Format, content_type: &str, body: &[u8], heard: &Heard) -> Option<Told> {
    // What is larger may be read otherwise piece by piece than as a whole: an event, or a document,
    // may be too large for the one and not for the other.
    let is_small = body.len() <= observer::MAX_WAITING;
    if let Some(told) = heard.get().filter(|_| is_small) {
        return Some(told.clone());
    }
    let mut observer = Observer::new(format, Some(content_type.as_bytes()), None);
    if is_small {
        observer.share(Arc::clone(heard));
    }
    observer.read(body);
    observer.finish().told()
}

/// What one answer tells, for two who each read it in their own time: who settles its request, and who
/// keeps it. The first tells the other.
pub type Heard = Arc<OnceLock<Told>>;

/// What an answer says of itself that its price depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it took.
    pub usage: Usage,
    /// The class of service that was given.
    pub tier: ServiceTier,
    /// The model that it names, 1 to 256 bytes.
    pub model: Option<Box<str>>,
}

#[cfg(test)]
mod tests;
