//! Counts, tiers and models that no recorded answer shows: shapes from API references.

use super::*;

fn observed(format: Format, content_type: &str, body: &str) -> Observed {
    let mut observer = Observer::new(format, Some(content_type.as_bytes()), None);
    observer.push(&body.to_owned().into());
    observer.finish()
}

fn document(body: &str) -> Observed {
    observed(Format::OpenaiChat, "application/json", body)
}

#[test]
fn counts_by_kind() {
    let base = |input, output| Usage {
        input,
        output,
        ..Usage::default()
    };
    let cases = [
        // Anthropic, "Prompt caching" (one-hour cache) and "Web search tool".
        (
            r#"{"usage":{"input_tokens":4,"cache_read_input_tokens":90,"cache_creation_input_tokens":556,"cache_creation":{"ephemeral_5m_input_tokens":456,"ephemeral_1h_input_tokens":100},"output_tokens":503,"output_tokens_details":{"thinking_tokens":20},"server_tool_use":{"web_search_requests":2}}}"#,
            Usage {
                cached_input: 90,
                cache_write: 556,
                cache_write_1h: 100,
                reasoning: 20,
                web_searches: 2,
                ..base(650, 503)
            },
        ),
        // OpenAI, chat completions with audio; realtime's `cached_tokens_details`.
        (
            r#"{"usage":{"prompt_tokens":200,"completion_tokens":300,"total_tokens":500,"prompt_tokens_details":{"cached_tokens":40,"audio_tokens":150,"text_tokens":50,"cached_tokens_details":{"text_tokens":10,"audio_tokens":30}},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":250}}}"#,
            Usage {
                cached_input: 40,
                input_audio: 150,
                output_audio: 250,
                cached_audio: 30,
                ..base(200, 300)
            },
        ),
        // OpenAI, images.
        (
            r#"{"created":1,"data":[{"b64_json":"A"}],"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens_details":{"image_tokens":4160,"text_tokens":0}}}"#,
            Usage {
                input_image: 40,
                output_image: 4160,
                ..base(50, 4160)
            },
        ),
        // OpenAI, transcriptions.
        (
            r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
            Usage {
                input_audio: 14,
                ..base(14, 45)
            },
        ),
        // OpenAI, responses with its own web search.
        (
            r#"{"object":"response","status":"completed","usage":{"input_tokens":9,"output_tokens":5},"tool_usage":{"web_search":{"num_requests":3}}}"#,
            Usage {
                web_searches: 3,
                ..base(9, 5)
            },
        ),
        // Gemini, `UsageMetadata`.
        (
            r#"{"usageMetadata":{"promptTokenCount":300,"candidatesTokenCount":1450,"totalTokenCount":1757,"cachedContentTokenCount":30,"toolUsePromptTokenCount":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":12},{"modality":"AUDIO","tokenCount":30},{"modality":"IMAGE","tokenCount":258}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":20},{"modality":"TEXT","tokenCount":10}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1120},{"modality":"AUDIO","tokenCount":300}],"toolUsePromptTokensDetails":[{"modality":"IMAGE","tokenCount":7}]}}"#,
            Usage {
                cached_input: 30,
                input_audio: 30,
                input_image: 265,
                cached_audio: 20,
                output_audio: 300,
                output_image: 1120,
                ..base(307, 1450)
            },
        ),
        // AWS, `TokenUsage` with `CacheDetail`.
        (
            r#"{"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":65,"cacheReadInputTokens":30,"cacheWriteInputTokens":20,"cacheDetails":[{"ttl":"5m","inputTokens":8},{"ttl":"1h","inputTokens":12}]}}"#,
            Usage {
                cached_input: 30,
                cache_write: 20,
                cache_write_1h: 12,
                ..base(60, 5)
            },
        ),
        // xAI, responses with server-side tools.
        (
            r#"{"usage":{"input_tokens":7583,"output_tokens":3192,"total_tokens":10775,"num_server_side_tools_used":3,"server_side_tool_usage_details":{"web_search_calls":2,"x_search_calls":1}}}"#,
            Usage {
                web_searches: 2,
                ..base(7583, 3192)
            },
        ),
        // Perplexity, deep research: its sources and its thoughts stand besides the sums.
        (
            r#"{"usage":{"prompt_tokens":8,"completion_tokens":439,"total_tokens":447,"citation_tokens":5000,"num_search_queries":4,"reasoning_tokens":7000}}"#,
            Usage {
                reasoning: 7000,
                web_searches: 4,
                ..base(5008, 7439)
            },
        ),
        // SGLang's servers have theirs in the sum.
        (
            r#"{"usage":{"prompt_tokens":8,"completion_tokens":439,"total_tokens":447,"reasoning_tokens":400}}"#,
            Usage {
                reasoning: 400,
                ..base(8, 439)
            },
        ),
        // Perplexity, agents.
        (
            r#"{"usage":{"input_tokens":11575,"input_tokens_details":{"cache_creation_input_tokens":6296,"cache_read_input_tokens":5270},"output_tokens":227,"output_tokens_details":{"reasoning_tokens":28},"tool_calls_details":{"search_web":{"cost_usd":0.005,"invocation":2}},"total_tokens":11802}}"#,
            Usage {
                cached_input: 5270,
                cache_write: 6296,
                reasoning: 28,
                web_searches: 2,
                ..base(11575, 227)
            },
        ),
        // Unexpected types count as absent, here too.
        (
            r#"{"usage":{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":{"audio_tokens":"many"},"cache_creation":7,"server_tool_use":null},"usageMetadata":{"promptTokensDetails":{"modality":"AUDIO"},"cacheTokensDetails":[3,null,{"modality":1,"tokenCount":[]}]},"tool_usage":[],"service_tier":{"type":5},"model":{}}"#,
            base(8, 1),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(shown(document(body).usage), shown(Some(expected)), "{body}");
    }
}

#[test]
fn numbers_keep_their_place_in_stored_answers() {
    let counts: [u64; Usage::KINDS] = std::array::from_fn(|at| at as u64 + 1);
    let usage = Usage::from_array(counts);
    assert_eq!(usage.to_array(), counts);
    let first = [
        usage.input,
        usage.output,
        usage.cached_input,
        usage.cache_write,
        usage.reasoning,
    ];
    assert_eq!(first, [1, 2, 3, 4, 5]);
    let names: BTreeSet<_> = usage.by_kind().iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), Usage::KINDS);
}

#[test]
fn tiers_of_providers() {
    let cases = [
        // OpenAI: at the top of chat's answers, inside of responses' last event.
        (r#"{"service_tier":"default"}"#, ServiceTier::Standard),
        (r#"{"service_tier":"auto"}"#, ServiceTier::Standard),
        (r#"{"service_tier":"scale"}"#, ServiceTier::Standard),
        (r#"{"service_tier":"flex"}"#, ServiceTier::Flex),
        (r#"{"service_tier":"priority"}"#, ServiceTier::Priority),
        (r#"{"service_tier":"fast"}"#, ServiceTier::Priority),
        (r#"{"response":{"service_tier":"flex"}}"#, ServiceTier::Flex),
        // Anthropic.
        (
            r#"{"usage":{"service_tier":"standard"}}"#,
            ServiceTier::Standard,
        ),
        (
            r#"{"usage":{"service_tier":"priority"}}"#,
            ServiceTier::Priority,
        ),
        (r#"{"usage":{"service_tier":"batch"}}"#, ServiceTier::Batch),
        (
            r#"{"message":{"usage":{"service_tier":"batch"}}}"#,
            ServiceTier::Batch,
        ),
        // Gemini, Vertex, Bedrock.
        (
            r#"{"usageMetadata":{"serviceTier":"flex"}}"#,
            ServiceTier::Flex,
        ),
        (
            r#"{"usageMetadata":{"trafficType":"ON_DEMAND"}}"#,
            ServiceTier::Standard,
        ),
        (
            r#"{"usageMetadata":{"trafficType":"ON_DEMAND_PRIORITY"}}"#,
            ServiceTier::Priority,
        ),
        (
            r#"{"serviceTier":{"type":"priority"}}"#,
            ServiceTier::Priority,
        ),
        (r#"{"service_tier":null}"#, ServiceTier::Standard),
    ];
    for (body, expected) in cases {
        assert_eq!(document(body).tier, expected, "{body}");
    }
    // What was asked for comes before what was given.
    let stream = "data: {\"type\":\"response.created\",\"response\":{\"model\":\"m\",\"service_tier\":\"priority\",\"usage\":null}}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"service_tier\":\"default\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
    let seen = observed(Format::OpenaiResponses, "text/event-stream", stream);
    assert_eq!(seen.tier, ServiceTier::Standard);
}

#[test]
fn the_first_model_that_is_named_counts() {
    let long = "m".repeat(256);
    let cases = [
        (r#"{"model":"m-1"}"#.to_owned(), Some("m-1")),
        (r#"{"modelVersion":"m-1"}"#.to_owned(), Some("m-1")),
        (
            r#"[{"modelVersion":"m-1"},{"modelVersion":"m-2"}]"#.to_owned(),
            Some("m-1"),
        ),
        (format!(r#"{{"model":"{long}"}}"#), Some(&*long)),
        (format!(r#"{{"model":"{long}m"}}"#), None),
        (r#"{"model":""}"#.to_owned(), None),
        (r#"{"model":5}"#.to_owned(), None),
        (
            r#"{"choices":[{"message":{"model":"m"}}]}"#.to_owned(),
            None,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(document(&body).model.as_deref(), expected, "{body}");
    }
    let stream = "data: {\"model\":\"\"}\n\ndata: {\"model\":\"m-1\"}\n\ndata: {\"model\":\"m-2\",\"usage\":{\"prompt_tokens\":1}}\n\n";
    let seen = observed(Format::OpenaiChat, "text/event-stream", stream);
    assert_eq!(seen.model.as_deref(), Some("m-1"));
}

/// OpenAI, "Streaming events": a response that did not complete has its usage too.
#[test]
fn responses_that_do_not_complete_report_what_they_took() {
    for status in ["completed", "incomplete", "failed", "cancelled"] {
        let stream = format!(
            "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"usage\":null}}}}\n\nevent: response.{status}\ndata: {{\"type\":\"response.{status}\",\"response\":{{\"status\":\"{status}\",\"usage\":{{\"input_tokens\":3,\"output_tokens\":9}}}}}}\n\n"
        );
        let seen = observed(Format::OpenaiResponses, "text/event-stream", &stream);
        assert_eq!(seen.usage, Some(usage(3, 9, 0, 0, 0)), "{status}");
        assert!(seen.ended, "{status}");
    }
}
