//! OpenTelemetry's words for what the gateway has words of its own for.
//!
//! Source: the GenAI conventions (open-telemetry/semantic-conventions-genai, at gen-ai/1.42):
//! well-known values of `gen_ai.provider.name` and `gen_ai.operation.name`, which must be used
//! where they apply; other words may be used where none does.

/// Slugs of the catalogue whose providers have a well-known name.
const PROVIDERS: [(&str, &str); 17] = [
    ("anthropic", "anthropic"),
    ("aws-bedrock", "aws.bedrock"),
    ("azure-foundry", "azure.ai.inference"),
    ("azure-openai", "azure.ai.openai"),
    ("cohere", "cohere"),
    ("deepseek", "deepseek"),
    ("google-ai-studio", "gcp.gemini"),
    ("google-vertex-ai", "gcp.vertex_ai"),
    ("groq", "groq"),
    ("grok", "x_ai"),
    ("mistral", "mistral_ai"),
    ("moonshot", "moonshot_ai"),
    ("moonshot-cn", "moonshot_ai"),
    ("openai", "openai"),
    ("perplexity-ai", "perplexity"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
];

/// How the paths of operations end, the longer ones before those that they end like. The words
/// behind the first five are the conventions', the others ours.
const OPERATIONS: [(&str, &str); 28] = [
    ("/chat/completions", "chat"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
    (":generateContent", "generate_content"),
    (":streamGenerateContent", "generate_content"),
    ("/responses", "chat"),
    ("/messages", "chat"),
    ("/chat", "chat"),
    ("/converse", "chat"),
    ("/converse-stream", "chat"),
    ("/invoke", "chat"),
    ("/invoke-with-response-stream", "chat"),
    (":rawPredict", "chat"),
    (":streamRawPredict", "chat"),
    ("/generate", "text_completion"),
    ("/embed", "embeddings"),
    (":embedContent", "embeddings"),
    (":batchEmbedContents", "embeddings"),
    ("/images/generations", "image_generation"),
    ("/images/edits", "image_generation"),
    ("/images/variations", "image_generation"),
    ("/audio/speech", "speech"),
    ("/audio/transcriptions", "transcription"),
    ("/audio/translations", "transcription"),
    ("/moderations", "moderation"),
    ("/rerank", "rerank"),
    ("/realtime", "realtime"),
    ("/models", "list_models"),
];

/// What is asked for by a path that says nothing of it, such as the universal endpoint's.
const ANY_OPERATION: &str = "request";

/// `gen_ai.provider.name`: the slug itself where there is no well-known name.
pub fn provider(slug: &str) -> &str {
    let known = PROVIDERS.iter().find(|(known, _)| *known == slug);
    known.map_or(slug, |(_, name)| name)
}

/// `gen_ai.operation.name` of a request to `path`, which has no query.
pub fn operation(path: &str) -> &'static str {
    let path = path.trim_end_matches('/');
    let known = OPERATIONS.iter().find(|(end, _)| path.ends_with(end));
    known.map_or(ANY_OPERATION, |(_, operation)| operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_by_paths() {
        for (path, expected) in [
            ("/v1/a/g/openai/chat/completions", "chat"),
            ("/v1/a/g/openai/chat/completions/", "chat"),
            ("/v1/a/g/openai/completions", "text_completion"),
            ("/v1/a/g/openai/embeddings", "embeddings"),
            ("/v1/a/g/openai/responses", "chat"),
            ("/v1/a/g/anthropic/v1/messages", "chat"),
            ("/v1/a/g/anthropic/v1/messages/count_tokens", "request"),
            (
                "/v1/a/g/google-ai-studio/v1beta/models/gemini-2.5-pro:streamGenerateContent",
                "generate_content",
            ),
            ("/v1/a/g/google/v1beta/models/x:embedContent", "embeddings"),
            ("/v1/a/g/aws-bedrock/us-east-1/model/x/converse", "chat"),
            ("/v1/a/g/openai/images/generations", "image_generation"),
            ("/v1/a/g/openai/models", "list_models"),
            ("/v1/a/g", "request"),
            ("", "request"),
        ] {
            assert_eq!(operation(path), expected, "{path}");
        }
    }

    #[test]
    fn every_provider_with_a_name_of_its_own_is_found() {
        for (slug, name) in PROVIDERS {
            assert_eq!(provider(slug), name);
        }
        assert_eq!(provider("elevenlabs"), "elevenlabs");
        assert_eq!(provider(""), "");
    }
}
