//! What no request can be bounded for beforehand, and what only looks like it.

use super::*;

#[test]
fn what_is_not_in_the_body_has_no_bound() {
    let file = json!({ "type": "file", "file": { "file_id": "file-1" } });
    for (format, body, why) in [
        (
            OpenaiChat,
            message(json!({ "type": "image_url", "image_url": { "url": "https://a/b.png" } })),
            words::ADDRESS,
        ),
        (
            OpenaiChat,
            message(json!({ "image_url": "http://a/b.png" })),
            words::ADDRESS,
        ),
        (
            OpenaiChat,
            message(json!({ "image_url": { "file_id": "f" } })),
            words::ADDRESS,
        ),
        (OpenaiChat, message(file), words::ADDRESS),
        (
            OpenaiChat,
            message(
                json!({ "type": "file", "file": { "file_data": "data:application/pdf;base64,A" } }),
            ),
            words::FILE,
        ),
        (
            OpenaiChat,
            message(json!({ "video_url": { "url": "data:video/mp4;base64,A" } })),
            words::ADDRESS,
        ),
        (
            OpenaiChat,
            message(json!({ "type": "input_audio", "input_audio": { "data": "https://a/b.wav" } })),
            words::ADDRESS,
        ),
        (
            OpenaiChat,
            json!({ "messages": [{ "role": "assistant", "audio": { "id": "audio_1" } }] }),
            words::STORED,
        ),
        (
            OpenaiChat,
            json!({ "web_search_options": {} }),
            words::SERVER_TOOLS,
        ),
        (
            OpenaiChat,
            json!({ "enable_search": true }),
            words::SERVER_TOOLS,
        ),
        (
            OpenaiChat,
            json!({ "models": ["a", "b"] }),
            words::OTHER_MODELS,
        ),
        (
            OpenaiResponses,
            json!({ "previous_response_id": "resp_1" }),
            words::STORED,
        ),
        (
            OpenaiResponses,
            json!({ "conversation": { "id": "conv_1" } }),
            words::STORED,
        ),
        (
            OpenaiResponses,
            json!({ "prompt": { "id": "pmpt_1" } }),
            words::STORED,
        ),
        (
            OpenaiResponses,
            json!({ "input": [{ "type": "item_reference", "id": "m" }] }),
            words::STORED,
        ),
        (
            OpenaiResponses,
            json!({ "input": [{ "id": "m" }] }),
            words::STORED,
        ),
        (
            OpenaiResponses,
            json!({ "input": [{ "content": [{ "type": "input_file", "file_url": "https://a" }] }] }),
            words::ADDRESS,
        ),
        (
            OpenaiResponses,
            json!({ "tools": [{ "type": "web_search" }] }),
            words::SERVER_TOOLS,
        ),
        (
            OpenaiResponses,
            json!({ "tools": [{ "type": "code_interpreter", "container": {} }] }),
            words::SERVER_TOOLS,
        ),
        (
            OpenaiResponses,
            json!({ "tools": [{ "type": "mcp", "server_url": "https://a" }] }),
            words::SERVER_TOOLS,
        ),
        (
            AnthropicMessages,
            json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] }),
            words::SERVER_TOOLS,
        ),
        (
            AnthropicMessages,
            json!({ "mcp_servers": [{ "url": "https://a" }] }),
            words::SERVER_TOOLS,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "image", "source": { "type": "url", "url": "https://a" } })),
            words::ADDRESS,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "document", "source":
                { "type": "base64", "media_type": "application/pdf", "data": "A" } })),
            words::FILE,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "tool_result", "content": [
                { "type": "image", "source": { "type": "file", "file_id": "f" } }] })),
            words::ADDRESS,
        ),
        (
            GeminiGenerate,
            json!({ "cachedContent": "cachedContents/1" }),
            words::STORED,
        ),
        (
            GeminiGenerate,
            json!({ "tools": [{ "googleSearch": {} }] }),
            words::SERVER_TOOLS,
        ),
        (
            GeminiGenerate,
            json!({ "tools": [{ "functionDeclarations": [], "codeExecution": {} }] }),
            words::SERVER_TOOLS,
        ),
        (
            GeminiGenerate,
            json!({ "contents": [{ "parts": [{ "fileData": { "fileUri": "gs://a" } }] }] }),
            words::ADDRESS,
        ),
        (
            GeminiGenerate,
            json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "video/mp4", "data": "A" } }] }] }),
            words::FILE,
        ),
        (
            Bedrock,
            message(json!({ "image": { "source": { "s3Location": { "uri": "s3://a" } } } })),
            words::ADDRESS,
        ),
        (
            Bedrock,
            message(json!({ "document": { "source": { "bytes": "A" } } })),
            words::FILE,
        ),
        (
            Bedrock,
            json!({ "promptVariables": { "a": { "text": "b" } } }),
            words::STORED,
        ),
        (
            Bedrock,
            json!({ "toolConfig": { "tools": [{ "systemTool": { "name": "a" } }] } }),
            words::SERVER_TOOLS,
        ),
        (
            OpenaiResponses,
            json!({ "input": "a", "background": true }),
            words::LATER,
        ),
        (
            OpenaiChat,
            json!({ "messages": [], "deferred": true }),
            words::LATER,
        ),
        (
            OpenaiChat,
            json!({ "service_tier": "turbo" }),
            words::SERVICE,
        ),
        (
            Bedrock,
            json!({ "serviceTier": { "type": "turbo" } }),
            words::SERVICE,
        ),
        (
            AnthropicMessages,
            json!({ "max_tokens": 9, "speed": "fast" }),
            words::SERVICE,
        ),
        (
            Bedrock,
            json!({ "additionalModelRequestFields": { "speed": "fast" } }),
            words::SERVICE,
        ),
        (Opaque, json!({}), words::FORMAT),
    ] {
        assert_eq!(
            worst(format, &body).unbounded,
            Some(why),
            "{format:?} {body}"
        );
    }
}

#[test]
fn what_is_only_started_at_a_path_has_no_bound() {
    let plain = worst(GeminiGenerate, &json!({ "contents": [] }));
    for (path, why) in [
        ("/v1beta/models/g:batchGenerateContent", Some(words::LATER)),
        (
            "/v1beta/models/g:batchGenerateContent/?alt=sse",
            Some(words::LATER),
        ),
        (
            "/v1beta/models/e:asyncBatchEmbedContent",
            Some(words::LATER),
        ),
        ("/v1/batches", Some(words::LATER)),
        ("/v1/messages/batches", Some(words::LATER)),
        ("/v1beta/models/g:generateContent", None),
        ("/v1beta/models/e:batchEmbedContents", None),
        ("/v1/chat/completions?x=/batches", None),
    ] {
        assert_eq!(plain.at(path).unbounded, why, "{path}");
    }
    let stored = worst(GeminiGenerate, &json!({ "cachedContent": "c" }));
    let why = stored.at("/v1beta/models/g:batchGenerateContent").unbounded;
    assert_eq!(why, Some(words::STORED));
}

#[test]
fn models_that_search_unasked_have_no_bound_where_searches_are_sold() {
    let plain = worst(OpenaiChat, &json!({ "messages": [] }));
    for (model, sells_searches, searches) in [
        ("sonar-deep-research", true, true),
        ("perplexity/sonar", true, true),
        ("Sonar-Pro", true, true),
        // Their searches are in the price of each request.
        ("sonar-pro", false, false),
        ("gpt-4o-mini-search-preview-2025-03-11", true, true),
        ("openai/gpt-4o:online", true, true),
        ("openai/gpt-4o:online", false, true),
        ("gpt-4o-mini", true, false),
        ("claude-sonnet-4-5", true, false),
        ("", true, false),
    ] {
        let found = plain.of_model(model, sells_searches).unbounded;
        let why = searches.then_some(words::SERVER_TOOLS);
        assert_eq!(found, why, "{model} {sells_searches}");
    }
}

#[test]
fn what_only_looks_like_it_has_its_bound() {
    let schema = json!({ "type": "object", "properties": { "file_id": { "type": "string" },
        "image_url": "https://a", "source": { "type": "url" } } });
    for (format, body, tools) in [
        (
            OpenaiChat,
            json!({ "previous_response_id": null, "models": [], "enable_search": false }),
            0,
        ),
        (
            OpenaiChat,
            json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": schema } }] }),
            1,
        ),
        (
            OpenaiChat,
            message(json!({ "type": "text", "text": "image_url file_id https://a" })),
            0,
        ),
        (
            OpenaiChat,
            message(
                json!({ "type": "input_audio", "input_audio": { "data": "UklGR", "format": "wav" } }),
            ),
            0,
        ),
        (
            OpenaiChat,
            json!({ "metadata": { "file_id": "a" }, "response_format": schema }),
            0,
        ),
        (
            OpenaiChat,
            json!({ "audio": { "voice": "alloy", "format": "wav" } }),
            0,
        ),
        (
            OpenaiResponses,
            json!({ "prompt": null, "conversation": null, "tools": [], "background": false }),
            0,
        ),
        (
            OpenaiChat,
            json!({ "prompt": "a", "background": "transparent", "deferred": null }),
            0,
        ),
        (
            OpenaiResponses,
            json!({ "tools": [{ "type": "function", "name": "f", "parameters": schema }] }),
            1,
        ),
        (
            OpenaiResponses,
            json!({ "input": [{ "id": "m", "type": "message", "content": "a" }] }),
            0,
        ),
        (
            AnthropicMessages,
            json!({ "tools": [{ "name": "f", "input_schema": schema }] }),
            1,
        ),
        (
            AnthropicMessages,
            json!({ "tools": [{ "type": "bash_20250124", "name": "bash" },
                { "type": "computer_20250124", "name": "computer" }] }),
            3,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "tool_use", "name": "f", "input": schema })),
            0,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "search_result", "source": "https://a", "content": [] })),
            0,
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "document", "source": { "type": "text", "data": "A" } })),
            0,
        ),
        (
            GeminiGenerate,
            json!({ "tools": [{ "functionDeclarations": [{ "name": "f", "parameters": schema }] }] }),
            1,
        ),
        (
            GeminiGenerate,
            json!({ "contents": [{ "parts": [{ "functionResponse": { "name": "f", "response": schema } }] }] }),
            0,
        ),
        (
            Bedrock,
            json!({ "toolConfig": { "tools": [{ "toolSpec": { "name": "f", "inputSchema": { "json": schema } } },
                { "cachePoint": { "type": "default" } }] } }),
            1,
        ),
        (
            Bedrock,
            message(json!({ "document": { "source": { "text": "A" } } })),
            0,
        ),
    ] {
        let worst = worst(format, &body);
        assert_eq!(worst.unbounded, None, "{format:?} {body}");
        let length = body.to_string().len() as u64;
        assert_eq!(worst.input, length + tools * TOOLS, "{format:?} {body}");
    }
}

#[test]
fn classes_of_service_that_have_a_price_have_their_bound() {
    for tier in [
        "auto",
        "default",
        "flex",
        "priority",
        "scale",
        "standard",
        "standard_only",
        "batch",
        "reserved",
        "on_demand",
        "unspecified",
    ] {
        for (format, body) in [
            (OpenaiChat, json!({ "service_tier": tier })),
            (
                GeminiGenerate,
                json!({ "serviceTier": tier.to_uppercase() }),
            ),
            (Bedrock, json!({ "serviceTier": { "type": tier } })),
        ] {
            assert_eq!(worst(format, &body).unbounded, None, "{body}");
        }
    }
    for body in [
        json!({ "service_tier": null, "speed": null }),
        json!({ "speed": "standard" }),
        json!({ "input": "read it aloud", "speed": 1.5 }),
        json!({ "messages": [{ "role": "user", "content": "a", "speed": "fast", "service_tier": "turbo" }] }),
    ] {
        assert_eq!(worst(AnthropicMessages, &body).unbounded, None, "{body}");
    }
}
