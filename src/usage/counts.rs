//! The words of usage objects, of whichever provider.
//!
//! Sources: the API references of OpenAI (usage objects of chat, responses, embeddings, images
//! and transcriptions), Anthropic (usage), Google (`UsageMetadata`), AWS (`TokenUsage`,
//! `CacheDetail`, invocation metrics), Cohere (`Usage`), xAI (searches), Perplexity (`UsageInfo`,
//! `ResponsesUsage`), and recorded answers. A word of an unexpected type counts as absent.

use serde::de::SeqAccess;
use serde::{Deserialize, Deserializer};

use super::lenient::{Count, Lenient, Name, Object, Tier, first, leniently, sum};
use super::report::Report;

/// The words of a usage object, of whichever provider.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Words {
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
    /// Transcriptions have it in the singular.
    #[serde(alias = "input_token_details")]
    input_tokens_details: Object<Details>,
    #[serde(alias = "output_token_details")]
    output_tokens_details: Object<Details>,
    /// Anthropic, and some who follow OpenAI.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Object<CacheCreation>,
    server_tool_use: Object<ServerTools>,
    pub service_tier: Tier,
    /// xAI.
    server_side_tool_usage_details: Object<ServerTools>,
    /// Perplexity: chat, and its agents.
    num_search_queries: Count,
    citation_tokens: Count,
    reasoning_tokens: Count,
    tool_calls_details: Object<AgentTools>,
    /// Bedrock Converse.
    #[serde(rename = "inputTokens")]
    converse_input: Count,
    #[serde(rename = "outputTokens")]
    converse_output: Count,
    #[serde(rename = "cacheReadInputTokens")]
    converse_cache_read: Count,
    #[serde(rename = "cacheWriteInputTokens")]
    converse_cache_write: Count,
    #[serde(rename = "cacheDetails")]
    converse_cache_details: CacheDetails,
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
    pub fn report(self) -> Report {
        if let Some(units) = self.billed_units.0 {
            return units.report();
        }
        let units = self.tokens.0.unwrap_or_default();
        let input = self.input_details();
        let output = self.output_details();
        let hits = [
            input.cached_tokens,
            input.cache_read_input_tokens,
            self.prompt_cache_hit_tokens,
            self.cached_tokens,
        ];
        let written = [input.cache_write_tokens, input.cache_creation_input_tokens];
        let mut report = Report {
            input: first([self.prompt_tokens, units.input_tokens]),
            output: first([
                self.completion_tokens,
                self.output_tokens,
                units.output_tokens,
            ]),
            total: self.total_tokens.0,
            cached: first(hits),
            written: first(written),
            input_audio: input.audio_tokens.0,
            input_image: input.image_tokens.0,
            cached_audio: input.cached_audio(),
            written_1h: self.written_for_an_hour(),
            reasoning: output.reasoning_tokens.0,
            output_audio: output.audio_tokens.0,
            output_image: output.image_tokens.0,
            searches: self.searches(),
            ..Report::default()
        };
        self.read_caches(&mut report);
        self.read_research(&mut report);
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

    fn written_for_an_hour(&self) -> Option<u64> {
        let anthropic = self.cache_creation.0.unwrap_or_default();
        first([
            anthropic.ephemeral_1h_input_tokens,
            self.converse_cache_details.0,
        ])
    }

    fn searches(&self) -> Option<u64> {
        let anthropic = self.server_tool_use.0.unwrap_or_default();
        let xai = self.server_side_tool_usage_details.0.unwrap_or_default();
        let agent = self.tool_calls_details.0.unwrap_or_default();
        first([
            anthropic.web_search_requests,
            xai.web_search_calls,
            self.num_search_queries,
            agent.search_web.0.unwrap_or_default().invocation,
        ])
    }

    /// Perplexity counts what it read of its sources, and what it thought about them, besides
    /// its sums; SGLang's servers have thoughts of the same name in theirs.
    fn read_research(&self, report: &mut Report) {
        let apart = [self.citation_tokens, self.num_search_queries];
        if first(apart).is_some() {
            report.tools_apart = self.citation_tokens.0;
            report.reasoning_apart = self.reasoning_tokens.0;
        } else {
            report.reasoning = report.reasoning.or(self.reasoning_tokens.0);
        }
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
    /// Perplexity's agents.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// Anthropic's are thinking tokens.
    #[serde(alias = "thinking_tokens")]
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
    cached_tokens_details: Object<CachedDetails>,
}

impl Details {
    fn cached_audio(&self) -> Option<u64> {
        self.cached_tokens_details.0?.audio_tokens.0
    }
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct CachedDetails {
    audio_tokens: Count,
}

/// For how long Anthropic's cache keeps what was written to it.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Count,
}

/// The same for Bedrock: the sum of what it keeps for an hour, of a list by lifetime.
#[derive(Default, Clone, Copy)]
struct CacheDetails(Count);

impl<'de> Deserialize<'de> for CacheDetails {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de> Lenient<'de> for CacheDetails {
    fn nothing() -> Self {
        Self::default()
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut hour = Count(None);
        while let Some(detail) = seq.next_element::<Object<CacheDetail>>()? {
            let detail = detail.0.unwrap_or_default();
            if detail.ttl.0.as_deref() == Some("1h") {
                hour = Count(sum([hour, detail.tokens]));
            }
        }
        Ok(Self(hour))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CacheDetail {
    ttl: Name,
    #[serde(rename = "inputTokens")]
    tokens: Count,
}

/// How often tools were used that run at the provider.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
    web_search_calls: Count,
}

/// The same for Perplexity's agents.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct AgentTools {
    search_web: Object<Invocations>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Invocations {
    invocation: Count,
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
pub(super) struct GeminiWords {
    prompt_token_count: Count,
    candidates_token_count: Count,
    cached_content_token_count: Count,
    tool_use_prompt_token_count: Count,
    thoughts_token_count: Count,
    prompt_tokens_details: Modalities,
    candidates_tokens_details: Modalities,
    cache_tokens_details: Modalities,
    tool_use_prompt_tokens_details: Modalities,
    pub service_tier: Tier,
    /// Vertex has it in the place of the tier.
    pub traffic_type: Tier,
}

impl GeminiWords {
    pub fn report(&self) -> Report {
        let (prompt, tools) = (
            self.prompt_tokens_details,
            self.tool_use_prompt_tokens_details,
        );
        Report {
            input: self.prompt_token_count.0,
            output: self.candidates_token_count.0,
            cached: self.cached_content_token_count.0,
            input_audio: sum([prompt.audio, tools.audio]),
            input_image: sum([prompt.image, tools.image]),
            cached_audio: self.cache_tokens_details.audio.0,
            output_audio: self.candidates_tokens_details.audio.0,
            output_image: self.candidates_tokens_details.image.0,
            tools_apart: self.tool_use_prompt_token_count.0,
            reasoning_apart: self.thoughts_token_count.0,
            ..Report::default()
        }
    }
}

/// What a list of counts by modality says of those that have their own price.
#[derive(Default, Clone, Copy)]
struct Modalities {
    audio: Count,
    image: Count,
}

impl<'de> Deserialize<'de> for Modalities {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de> Lenient<'de> for Modalities {
    fn nothing() -> Self {
        Self::default()
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut all = Self::default();
        while let Some(one) = seq.next_element::<Object<Modality>>()? {
            let one = one.0.unwrap_or_default();
            match one.modality.0.as_deref() {
                Some("AUDIO") => all.audio = Count(sum([all.audio, one.token_count])),
                Some("IMAGE") => all.image = Count(sum([all.image, one.token_count])),
                _ => {}
            }
        }
        Ok(all)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Modality {
    modality: Name,
    token_count: Count,
}
