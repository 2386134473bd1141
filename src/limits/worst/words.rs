//! The words of requests that bound what they take, or that make it boundless.
//!
//! Sources: the API references of OpenAI (chat, completions, responses), Anthropic (messages, text
//! completions), Google (`GenerateContentRequest`, Vertex's `predict`), AWS (converse; invoke of
//! Claude, Nova, Titan, Llama, Mistral, Cohere, AI21), Cohere (chat, generate), OpenRouter, xAI,
//! Azure, Alibaba and Ollama.

use super::walk::At;
use crate::call;
use crate::config::schema::Format;
use crate::usage::ServiceTier;

/// Why the input has no bound; each follows "because".
pub(super) const ADDRESS: &str = "it names an image, a sound or a file by its address or id";
pub(super) const FILE: &str = "it brings a file whose bytes do not tell its tokens";
pub(super) const STORED: &str = "it goes on from what the provider has stored";
pub(super) const SERVER_TOOLS: &str = "it lets the provider use tools, which read what they find";
pub(super) const OTHER_MODELS: &str = "it names other models that may answer in its place";
pub(super) const LATER: &str = "its answer comes later and is not seen";
pub(super) const SERVICE: &str = "it asks for a class of service whose price is not known";
pub(super) const JSON: &str = "its JSON cannot be read";
pub(super) const FORMAT: &str = "nothing is known of its format";

/// Types of tools that the client runs and the provider describes to the model; behind `_` comes a
/// date.
const CLIENTS_TOOLS: [&str; 8] = [
    "apply_patch",
    "bash_",
    "computer",
    "computer_",
    "computer_use_preview",
    "local_shell",
    "memory_",
    "text_editor_",
];

/// What a number bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// Tokens written; under which name, the same for all spellings of it.
    Output(&'static str),
    /// The same, where the request turns out to be in a model's own format ([`is_invocation`]).
    OutputOfModel(&'static str),
    /// How many answers are written.
    Choices,
    /// Tokens of thoughts beside those of the answer.
    Thoughts,
}

/// What the number at this place of a request bounds.
pub(super) fn bound(format: Format, at: At, key: &str) -> Option<Bound> {
    use Bound::{Choices, Output, OutputOfModel, Thoughts};
    let top = matches!(at, At::Top | At::Fields);
    let found = match (format, key) {
        (Format::OpenaiChat, "max_tokens") if top => Output("max_tokens"),
        (Format::OpenaiChat, "max_completion_tokens") if top => Output("max_completion_tokens"),
        (Format::OpenaiChat, "n" | "best_of") if top => Choices,
        // Alibaba's, which `max_tokens` does not bound.
        (Format::OpenaiChat, "thinking_budget") if top => Thoughts,
        (Format::OpenaiResponses, "max_output_tokens") if top => Output("max_output_tokens"),
        (Format::AnthropicMessages, "max_tokens") if top => Output("max_tokens"),
        (Format::AnthropicMessages, "max_tokens_to_sample") if top => {
            Output("max_tokens_to_sample")
        }
        (Format::CohereChat, "max_tokens") if top => Output("max_tokens"),
        (Format::CohereChat, "num_generations") if top => Choices,
        (Format::GeminiGenerate, "maxOutputTokens" | "max_output_tokens") if at == At::Config => {
            Output("maxOutputTokens")
        }
        (Format::GeminiGenerate, "candidateCount" | "candidate_count") if at == At::Config => {
            Choices
        }
        // Claude on Vertex.
        (Format::GeminiGenerate, "max_tokens") if top => OutputOfModel("max_tokens"),
        (Format::Bedrock, key) => return of_bedrock(at, key),
        _ => return None,
    };
    Some(found)
}

fn of_bedrock(at: At, key: &str) -> Option<Bound> {
    const CONFIG: [&str; 4] = [
        "maxTokens",
        "maxTokenCount",
        "max_new_tokens",
        "maxNewTokens",
    ];
    const TOP: [&str; 6] = [
        "max_tokens",
        "max_tokens_to_sample",
        "max_gen_len",
        "maxTokens",
        "max_new_tokens",
        "max_completion_tokens",
    ];
    let known = |names: &[&'static str]| names.iter().find(|name| **name == key).copied();
    match (at, key) {
        (At::Top | At::Fields, "num_generations" | "numResults" | "n") => Some(Bound::Choices),
        (At::Fields, _) => known(&TOP).map(Bound::Output),
        (At::Top, _) => known(&TOP).map(Bound::OutputOfModel),
        (At::Config, _) => known(&CONFIG).map(Bound::Output),
        _ => None,
    }
}

/// Whether this field shows that a request is not in its provider's format but in the one of a model,
/// where Bedrock and Vertex pass it on.
pub(super) fn is_invocation(format: Format, key: &str) -> bool {
    match format {
        Format::GeminiGenerate => key == "anthropic_version",
        Format::Bedrock => matches!(key, "anthropic_version" | "prompt" | "message"),
        _ => false,
    }
}

/// Why a field of the request itself makes it boundless, where something is said in it.
pub(super) fn boundless(key: &str) -> Option<&'static str> {
    Some(match key {
        "previous_response_id"
        | "conversation"
        | "cachedContent"
        | "cached_content"
        | "assistant_id"
        | "agent_id"
        | "promptVariables" => STORED,
        "web_search_options" | "search_parameters" | "plugins" | "connectors" | "mcp_servers"
        | "enable_search" | "data_sources" => SERVER_TOOLS,
        "models" | "fallbacks" => OTHER_MODELS,
        _ => return None,
    })
}

/// Whether a text under this key of the request itself asks for a class of service that may be dearer
/// than all that have a price: a tier that nobody knows, or Anthropic's fast mode. The `speed` of speech
/// is a number.
pub(super) fn is_another_service(key: &str, word: &str) -> bool {
    match key {
        // Some words leave it open which of the known ones it is.
        "service_tier" | "serviceTier" => {
            let is_open = ["auto", "standard_only", "unspecified"];
            let is_open = is_open.iter().any(|open| word.eq_ignore_ascii_case(open));
            !is_open && ServiceTier::of(word).is_none()
        }
        "speed" => word != "standard",
        _ => false,
    }
}

/// Whether a flag of the request itself has it only started (OpenAI's responses, xAI). Images have a
/// `background` too, which is a text.
pub(super) fn only_starts(key: &str) -> bool {
    matches!(key, "background" | "deferred")
}

/// Whether what is asked at this path is only started: by how it ends, and nothing that a client may
/// put behind it.
///
/// Sources: the API references of Google (`batchGenerateContent`, `asyncBatchEmbedContent`, Vertex's
/// `predictLongRunning`), OpenAI and Anthropic (batches), Mistral (batch jobs) and AWS
/// (`StartAsyncInvoke`).
pub(super) fn only_starts_at(path: &str) -> bool {
    const ENDS: [&str; 6] = [
        ":batchGenerateContent",
        ":asyncBatchEmbedContent",
        ":predictLongRunning",
        "/batches",
        "/batch/jobs",
        "/async-invoke",
    ];
    call::ends_in(path, &ENDS)
}

/// Whether a model searches the web without a word of it in the request, by its name;
/// `sells_searches`: its price list has a price for that.
///
/// Sources: Perplexity ("Sonar models"), OpenAI ("Web search") and OpenRouter (`:online`), where
/// whatever is found is read by the model, at its price.
pub(super) fn searches_unasked(model: &str, sells_searches: bool) -> bool {
    let model = model.to_ascii_lowercase();
    let name = model.rsplit('/').next().unwrap_or_default();
    let searches = name.starts_with("sonar")
        || name.contains("-search-preview")
        || name.contains("-search-api");
    model.ends_with(":online") || (sells_searches && searches)
}

/// Whether a field anywhere in a request refers to what is not in it.
pub(super) fn refers(key: &str) -> bool {
    matches!(
        key,
        "file_id"
            | "fileId"
            | "file_ids"
            | "file_url"
            | "fileUri"
            | "file_uri"
            | "fileData"
            | "s3Location"
            | "s3Uri"
            | "gcsUri"
            | "document_url"
            | "video_url"
            | "audio_url"
    )
}

/// Whether what stands here is what the client made up: names in it mean nothing.
pub(super) fn is_made_up(at: At, key: &str) -> bool {
    match (at, key) {
        (_, "metadata" | "logit_bias" | "response_format") => true,
        (At::Top, _) => false,
        (At::Content | At::Tool, "parameters" | "input" | "arguments" | "args" | "json") => true,
        (_, "input_schema" | "inputSchema" | "schema" | "json_schema" | "response") => true,
        (_, "responseSchema" | "response_schema" | "responseJsonSchema") => true,
        (_, "parametersJsonSchema") => true,
        _ => false,
    }
}

/// Whether the client runs a tool of this type, and if so whether the provider describes it.
pub(super) fn client_runs(kind: &str) -> Option<bool> {
    if matches!(kind, "function" | "custom") {
        return Some(false);
    }
    let is_known = |known: &str| match known.ends_with('_') {
        true => kind.starts_with(known),
        false => kind == known,
    };
    let mut known = CLIENTS_TOOLS.into_iter();
    known.any(is_known).then_some(true)
}
