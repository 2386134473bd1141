//! Where in their answers providers say what an answer took: tokens, service tier, model. The
//! words of the usage objects themselves are in `counts`.
//!
//! Sources: the API references of OpenAI (chat, responses), Anthropic (streaming), Google
//! (`GenerateContentResponse`), AWS (converse, invoke), Cohere (`ApiMeta`), and recorded answers.
//! Everything else in an answer is skipped unread.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer};

use super::ServiceTier;
use super::counts::{GeminiWords, Words};
use super::lenient::{Boxed, Count, Lenient, Name, Tier, first, leniently};
use super::report::Report;

/// What one document or event says, or several of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    pub report: Report,
    /// The last one that was named: a request's wish comes before what was given.
    pub tier: Option<ServiceTier>,
    /// The first one that was named.
    pub model: Option<Box<str>>,
}

impl Said {
    /// Takes over what is said later.
    pub fn merge(&mut self, later: Self) {
        self.report.merge(&later.report);
        self.tier = later.tier.or(self.tier);
        self.model = self.model.take().or(later.model);
    }
}

/// One JSON document: an answer, an event, or an array of them.
impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        leniently(json)
    }
}

impl<'de> Lenient<'de> for Said {
    fn nothing() -> Self {
        Self::default()
    }

    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let answer = Answer::deserialize(MapAccessDeserializer::new(map))?;
        Ok(answer.said())
    }

    fn of_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut all = Self::default();
        while let Some(one) = seq.next_element::<Self>()? {
            all.merge(one);
        }
        Ok(all)
    }
}

/// Where in an answer or event usage is reported.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    /// Nearly everyone.
    model: Name,
    /// Gemini.
    #[serde(rename = "modelVersion")]
    model_version: Name,
    /// OpenAI and those who follow it.
    service_tier: Tier,
    /// Bedrock Converse.
    #[serde(rename = "serviceTier")]
    converse_tier: Tier,
    /// OpenAI's responses.
    tool_usage: Boxed<ToolUsage>,
    /// Nearly everyone.
    usage: Boxed<Words>,
    /// Cohere, outside of chat v2.
    meta: Boxed<Words>,
    /// Gemini.
    #[serde(rename = "usageMetadata")]
    usage_metadata: Boxed<GeminiWords>,
    /// Groq's streams.
    x_groq: Boxed<Inner>,
    /// OpenAI's responses and Cohere's v1 streams, in their last event.
    response: Boxed<Inner>,
    /// Anthropic's streams, in their first event.
    message: Boxed<Inner>,
    /// Cohere's v2 streams, in their last event.
    delta: Boxed<Inner>,
    /// Cloudflare's Workers AI.
    result: Boxed<Inner>,
    /// Bedrock Invoke's streams, in their last event.
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    invocation_metrics: Boxed<Words>,
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
    fn said(self) -> Said {
        let inputs = [
            self.prompt_token_count,
            self.input_text_token_count,
            self.prompt_eval_count,
        ];
        let mut said = Said {
            report: Report {
                input: first(inputs),
                output: first([self.generation_token_count, self.eval_count]),
                ..Report::default()
            },
            tier: self.service_tier.0.or(self.converse_tier.0),
            model: self.model.0.or(self.model_version.0),
        };
        let inner = [
            self.x_groq,
            self.response,
            self.message,
            self.delta,
            self.result,
        ];
        inner.into_iter().for_each(|inner| said.read_inner(inner));
        said.read(self.meta);
        said.read(self.invocation_metrics);
        said.read(self.usage);
        said.read_gemini(self.usage_metadata);
        said.read_tools(self.tool_usage);
        said
    }
}

impl Said {
    fn read_inner(&mut self, inner: Boxed<Inner>) {
        if let Some(inner) = inner.0 {
            self.read(inner.meta);
            self.read(inner.usage);
            self.read_tools(inner.tool_usage);
            self.tier = inner.service_tier.0.or(self.tier);
            self.model = self.model.take().or(inner.model.0);
        }
    }

    fn read(&mut self, words: Boxed<Words>) {
        if let Some(words) = words.0 {
            self.tier = words.service_tier.0.or(self.tier);
            self.report.merge(&words.report());
        }
    }

    fn read_gemini(&mut self, words: Boxed<GeminiWords>) {
        if let Some(words) = words.0 {
            let tier = [words.service_tier, words.traffic_type];
            self.tier = tier.into_iter().find_map(|tier| tier.0).or(self.tier);
            self.report.merge(&words.report());
        }
    }

    fn read_tools(&mut self, tools: Boxed<ToolUsage>) {
        if let Some(searches) = tools.0.and_then(|tools| tools.web_search.0) {
            self.report.merge(&Report {
                searches: searches.num_requests.0,
                ..Report::default()
            });
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner {
    usage: Boxed<Words>,
    meta: Boxed<Words>,
    model: Name,
    service_tier: Tier,
    tool_usage: Boxed<ToolUsage>,
}

/// What OpenAI's responses say of its own tools.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolUsage {
    web_search: Boxed<WebSearch>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WebSearch {
    num_requests: Count,
}
