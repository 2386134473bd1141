//! What providers say of usage, in their own words, as one struct that says for each number
//! whether it is a part of another or stands apart from it.
//!
//! Sources: the API references of OpenAI (usage objects of chat, responses, embeddings and
//! images), Anthropic (usage, streaming), Google (`UsageMetadata`), AWS (`TokenUsage`,
//! invocation metrics), Cohere (`Usage`, `ApiMeta`), and recorded answers. Everything else in
//! an answer is skipped unread, and a word of an unexpected type counts as absent.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Usage;

/// The numbers of one answer, or of one event of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    /// Parts of `input`.
    cached: Option<u64>,
    written: Option<u64>,
    /// Part of `output`, except where the total says otherwise.
    reasoning: Option<u64>,
    /// Read besides `input`.
    cached_apart: Option<u64>,
    written_apart: Option<u64>,
    tools_apart: Option<u64>,
    /// Written besides `output`.
    reasoning_apart: Option<u64>,
}

impl Report {
    /// Takes over what a later event says. Its counts include those of earlier events, but
    /// what it leaves out or puts at zero was said before.
    pub fn merge(&mut self, later: &Self) {
        for (mine, new) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.total, later.total),
            (&mut self.cached, later.cached),
            (&mut self.written, later.written),
            (&mut self.reasoning, later.reasoning),
            (&mut self.cached_apart, later.cached_apart),
            (&mut self.written_apart, later.written_apart),
            (&mut self.tools_apart, later.tools_apart),
            (&mut self.reasoning_apart, later.reasoning_apart),
        ] {
            *mine = new.filter(|count| *count > 0).or(*mine).or(new);
        }
    }

    /// In one meaning for all; `None` if nothing was said.
    pub fn usage(&self) -> Option<Usage> {
        if [self.input, self.output, self.total] == [None; 3] {
            return None;
        }
        let count = |count: Option<u64>| count.unwrap_or(0);
        let apart = [self.cached_apart, self.written_apart, self.tools_apart];
        let input = apart
            .into_iter()
            .map(count)
            .fold(self.input(), u64::saturating_add);
        let output = count(self.output)
            .saturating_add(count(self.reasoning_apart))
            .saturating_add(self.reasoning_left_out());
        Some(Usage {
            input,
            output,
            cached_input: count(self.cached.or(self.cached_apart)),
            cache_write: count(self.written.or(self.written_apart)),
            reasoning: count(self.reasoning.or(self.reasoning_apart)),
        })
    }

    /// Voyage reports the total alone; its answers have no output.
    fn input(&self) -> u64 {
        let rest = || {
            self.total
                .unwrap_or(0)
                .saturating_sub(self.output.unwrap_or(0))
        };
        self.input.unwrap_or_else(rest)
    }

    /// xAI reports in OpenAI's words but leaves the thoughts out of the output. Its total
    /// tells.
    fn reasoning_left_out(&self) -> u64 {
        let (Some(input), Some(output), Some(total), Some(reasoning)) =
            (self.input, self.output, self.total, self.reasoning)
        else {
            return 0;
        };
        let sum = [output, reasoning]
            .into_iter()
            .fold(input, u64::saturating_add);
        if sum == total { reasoning } else { 0 }
    }
}

/// One JSON document: an answer, an event, or an array of them.
impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Leniently(PhantomData))
    }
}

impl<'de> Lenient<'de> for Report {
    fn nothing() -> Self {
        Self::default()
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let answer = Answer::deserialize(MapAccessDeserializer::new(map))?;
        Ok(answer.report())
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut all = Self::default();
        while let Some(one) = seq.next_element::<Self>()? {
            all.merge(&one);
        }
        Ok(all)
    }
}

/// Where in an answer or event usage is reported.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    /// Nearly everyone.
    usage: Object<Words>,
    /// Cohere, outside of chat v2.
    meta: Object<Words>,
    /// Gemini.
    #[serde(rename = "usageMetadata")]
    usage_metadata: Object<GeminiWords>,
    /// Groq's streams.
    x_groq: Object<Inner>,
    /// OpenAI's responses and Cohere's v1 streams, in their last event.
    response: Object<Inner>,
    /// Anthropic's streams, in their first event.
    message: Object<Inner>,
    /// Cohere's v2 streams, in their last event.
    delta: Object<Inner>,
    /// Cloudflare's Workers AI.
    result: Object<Inner>,
    /// Bedrock Invoke's streams, in their last event.
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    invocation_metrics: Object<Words>,
    /// Llama on Bedrock.
    prompt_token_count: Count,
    generation_token_count: Count,
    /// Titan's embeddings on Bedrock.
    #[serde(rename = "inputTextTokenCount")]
    input_text_token_count: Count,
    /// Ollama.
    prompt_eval_count: Count,
    eval_count: Count,
}

impl Answer {
    fn report(self) -> Report {
        let inputs = [
            self.prompt_token_count,
            self.input_text_token_count,
            self.prompt_eval_count,
        ];
        let mut report = Report {
            input: first(inputs),
            output: first([self.generation_token_count, self.eval_count]),
            ..Report::default()
        };
        for inner in [
            self.x_groq,
            self.response,
            self.message,
            self.delta,
            self.result,
        ] {
            let inner = inner.0.unwrap_or_default();
            report.read(inner.meta);
            report.read(inner.usage);
        }
        report.read(self.meta);
        report.read(self.invocation_metrics);
        report.read(self.usage);
        if let Some(words) = self.usage_metadata.0 {
            report.merge(&words.report());
        }
        report
    }
}

impl Report {
    fn read(&mut self, words: Object<Words>) {
        if let Some(words) = words.0 {
            self.merge(&words.report());
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner {
    usage: Object<Words>,
    meta: Object<Words>,
}

/// The words of a usage object, of whichever provider.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Words {
    /// OpenAI's chat, completions and embeddings, and all who follow it.
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
    completion_tokens_details: Object<Details>,
    /// DeepSeek; Moonshot.
    prompt_cache_hit_tokens: Count,
    cached_tokens: Count,
    /// OpenAI's responses and images; Anthropic.
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Object<Details>,
    output_tokens_details: Object<Details>,
    /// Anthropic, and some who follow OpenAI.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// Bedrock Converse.
    #[serde(rename = "inputTokens")]
    converse_input: Count,
    #[serde(rename = "outputTokens")]
    converse_output: Count,
    #[serde(rename = "cacheReadInputTokens")]
    converse_cache_read: Count,
    #[serde(rename = "cacheWriteInputTokens")]
    converse_cache_write: Count,
    /// Bedrock Invoke's metrics.
    #[serde(rename = "inputTokenCount")]
    invoke_input: Count,
    #[serde(rename = "outputTokenCount")]
    invoke_output: Count,
    #[serde(rename = "cacheReadInputTokenCount")]
    invoke_cache_read: Count,
    #[serde(rename = "cacheWriteInputTokenCount")]
    invoke_cache_write: Count,
    /// Cohere. Its `cached_tokens` are a part of `tokens`, not of what it bills.
    billed_units: Object<Units>,
    tokens: Object<Units>,
}

impl Words {
    fn report(self) -> Report {
        if let Some(units) = self.billed_units.0 {
            return units.report();
        }
        let units = self.tokens.0.unwrap_or_default();
        let input = self.input_details();
        let output = self.output_details();
        let hits = [
            input.cached_tokens,
            self.prompt_cache_hit_tokens,
            self.cached_tokens,
        ];
        let mut report = Report {
            input: first([self.prompt_tokens, units.input_tokens]),
            output: first([
                self.completion_tokens,
                self.output_tokens,
                units.output_tokens,
            ]),
            total: self.total_tokens.0,
            cached: first(hits),
            written: input.cache_write_tokens.0,
            reasoning: output.reasoning_tokens.0,
            ..Report::default()
        };
        self.read_caches(&mut report);
        report
    }

    fn input_details(&self) -> Details {
        let details = [self.prompt_tokens_details.0, self.input_tokens_details.0];
        details.into_iter().flatten().next().unwrap_or_default()
    }

    fn output_details(&self) -> Details {
        let details = [
            self.completion_tokens_details.0,
            self.output_tokens_details.0,
        ];
        details.into_iter().flatten().next().unwrap_or_default()
    }

    /// Anthropic and Bedrock count what their cache reads and writes besides the input.
    /// Those who say the same in OpenAI's words have it in `prompt_tokens`.
    fn read_caches(&self, report: &mut Report) {
        let read = [
            self.cache_read_input_tokens,
            self.converse_cache_read,
            self.invoke_cache_read,
        ];
        let write = [
            self.cache_creation_input_tokens,
            self.converse_cache_write,
            self.invoke_cache_write,
        ];
        if report.input.is_some() {
            report.cached = report.cached.or(first(read));
            report.written = report.written.or(first(write));
            return;
        }
        report.input = first([self.input_tokens, self.converse_input, self.invoke_input]);
        report.output = report
            .output
            .or(first([self.converse_output, self.invoke_output]));
        report.cached_apart = first(read);
        report.written_apart = first(write);
    }
}

/// Parts of one of OpenAI's sums.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    reasoning_tokens: Count,
}

/// Cohere's counts, billed or used.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Units {
    input_tokens: Count,
    output_tokens: Count,
    image_tokens: Count,
}

impl Units {
    fn report(self) -> Report {
        Report {
            input: sum([self.input_tokens, self.image_tokens]),
            output: self.output_tokens.0,
            ..Report::default()
        }
    }
}

/// Gemini's counts: cached content is a part of the prompt, the results of its own tools and
/// its thoughts stand apart.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GeminiWords {
    prompt_token_count: Count,
    candidates_token_count: Count,
    cached_content_token_count: Count,
    tool_use_prompt_token_count: Count,
    thoughts_token_count: Count,
}

impl GeminiWords {
    fn report(self) -> Report {
        Report {
            input: self.prompt_token_count.0,
            output: self.candidates_token_count.0,
            cached: self.cached_content_token_count.0,
            tools_apart: self.tool_use_prompt_token_count.0,
            reasoning_apart: self.thoughts_token_count.0,
            ..Report::default()
        }
    }
}

fn first<const N: usize>(counts: [Count; N]) -> Option<u64> {
    counts.into_iter().find_map(|count| count.0)
}

fn sum<const N: usize>(counts: [Count; N]) -> Option<u64> {
    let said = counts.into_iter().filter_map(|count| count.0);
    said.reduce(u64::saturating_add)
}

/// A number of tokens. Cohere writes `12.0` at times.
#[derive(Debug, Default, Clone, Copy)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Leniently(PhantomData))
    }
}

impl Lenient<'_> for Count {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_number(number: u64) -> Self {
        Self(Some(number))
    }
}

/// An object, where there is one: in other events the same key may hold a text.
#[derive(Debug, Default, Clone, Copy)]
struct Object<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Leniently(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Object<T> {
    fn nothing() -> Self {
        Self(None)
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|object| Self(Some(object)))
    }
}

/// What can be read from the JSON types that it expects, and is nothing for all others.
trait Lenient<'de>: Sized {
    fn nothing() -> Self;

    fn of_number(_number: u64) -> Self {
        Self::nothing()
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::nothing())
    }

    fn of_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::nothing())
    }
}

struct Leniently<T>(PhantomData<T>);

impl<'de, T: Lenient<'de>> Visitor<'de> for Leniently<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
        Ok(T::nothing())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok(T::of_number(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // The cast saturates; a fraction of a token cannot be.
        Ok(T::of_number(number as u64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
        T::of_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::of_map(map)
    }
}
