//! Models by the names that clients and providers write.

use super::*;

#[test]
fn names_lead_to_models() {
    for (slug, name, model) in [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "GPT-4o-mini", "gpt-4o-mini"),
        ("openai", "gpt-5-2025-08-07", "gpt-5"),
        ("openai", "gpt-5-20250807", "gpt-5"),
        (
            "openai",
            "ft:gpt-4o-mini-2024-07-18:acme::abc",
            "ft:gpt-4o-mini",
        ),
        (
            "anthropic",
            "claude-sonnet-4-5-20250929",
            "claude-sonnet-4-5",
        ),
        ("anthropic", "claude-haiku-4-5", "claude-haiku-4-5"),
        (
            "google-ai-studio",
            "models/gemini-2.5-pro",
            "gemini-2.5-pro",
        ),
        ("google-ai-studio", "gemini-2.5-flash", "gemini-2.5-flash"),
        (
            "google-vertex-ai",
            "publishers/google/models/gemini-2.5-pro",
            "gemini-2.5-pro",
        ),
        (
            "google-vertex-ai",
            "projects/p/locations/eu/publishers/anthropic/models/claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5",
        ),
        (
            "google-vertex-ai",
            "claude-opus-5@20260731",
            "claude-opus-5",
        ),
        (
            "google-vertex-ai",
            "claude-opus-4-5@default",
            "claude-opus-4-5",
        ),
        (
            "aws-bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws-bedrock",
            "ca.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws-bedrock",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws-bedrock",
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-5-5",
            "regional.anthropic.claude-opus-5-5",
        ),
        (
            "aws-bedrock",
            "eu.amazon.nova-pro-v1:0",
            "amazon.nova-pro-v1:0",
        ),
        ("azure-openai", "gpt-4o-mini", "gpt-4o-mini"), // of the provider it falls back to
        ("azure-openai", "phi-4", "phi-4"),
        ("azure-openai", "our-deployment", "-"), // the answer names the model
        (
            "openrouter",
            "anthropic/claude-sonnet-4.5",
            "anthropic/claude-sonnet-4.5",
        ),
        (
            "openrouter",
            "openai/gpt-oss-20b:free",
            "openai/gpt-oss-20b:free",
        ),
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        (
            "workers-ai",
            "@cf/meta/llama-3.1-8b-instruct",
            "@cf/meta/llama-3.1-8b-instruct",
        ),
        ("fireworks", "accounts/fireworks/models/kimi-k3", "kimi-k3"),
        (
            "together",
            "meta-llama/Llama-3.3-70B-Instruct-Turbo",
            "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        ),
        ("mistral", "mistral-large-latest", "mistral-large"),
        ("cohere", "command-a-03-2025", "command-a"),
        ("deepseek", "deepseek-chat", "deepseek-chat"),
        ("grok", "grok-4.7", "grok-4.7"),
        ("perplexity-ai", "sonar-pro", "sonar-pro"),
        ("voyage", "voyage-3.5", "voyage-3.5"),
    ] {
        let found = CATALOGUE.model_id(&PRICES[slug], name);
        assert_eq!(found.as_deref().unwrap_or("-"), model, "{slug} {name}");
        // What is remembered says the same.
        let again = CATALOGUE.model_id(&PRICES[slug], name);
        assert_eq!(found, again, "{slug} {name}");
    }
}
