mod unbounded;

use serde_json::{Value, json};

use super::*;
use crate::cache::canonical::{self, Pointers};
use crate::config::schema::Format::{
    AnthropicMessages, Bedrock, CohereChat, GeminiGenerate, Opaque, OpenaiChat, OpenaiResponses,
};

fn worst(format: Format, body: &Value) -> Worst {
    let body = body.to_string();
    let worst = of(body.as_bytes(), format);
    if let Some(judge) = Judge::new(format) {
        assert_eq!(in_passing(judge, body.as_bytes()), worst, "{body}");
    }
    worst
}

/// The same while the cache's key is made.
fn in_passing(mut judge: Judge, body: &[u8]) -> Worst {
    let read = canonical::digest_for(body, &Pointers::default(), Judge::TOP, &mut judge);
    assert!(read.canonical);
    judge.worst(body)
}

/// Output and choices.
fn bounds(format: Format, body: &Value) -> (Option<u64>, u64) {
    let worst = worst(format, body);
    (worst.output, worst.choices)
}

fn message(part: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": [part] }] })
}

#[test]
fn a_token_is_a_byte_at_least() {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "é".repeat(99) }] });
    for format in [
        OpenaiChat,
        AnthropicMessages,
        Bedrock,
        CohereChat,
        OpenaiResponses,
    ] {
        let worst = worst(format, &body);
        assert_eq!(worst.input, body.to_string().len() as u64);
        assert_eq!((worst.output, worst.choices), (None, 1));
        assert_eq!(worst.unbounded, None);
    }
}

#[test]
fn each_format_bounds_its_output_in_its_own_words() {
    for (format, body, output, choices) in [
        (OpenaiChat, json!({ "max_tokens": 7 }), Some(7), 1),
        (
            OpenaiChat,
            json!({ "max_completion_tokens": 8, "n": 3 }),
            Some(8),
            3,
        ),
        (
            OpenaiChat,
            json!({ "max_tokens": 7, "max_completion_tokens": 8 }),
            Some(8),
            1,
        ),
        (
            OpenaiChat,
            json!({ "max_tokens": null, "max_completion_tokens": 8 }),
            Some(8),
            1,
        ),
        (
            OpenaiChat,
            json!({ "max_tokens": 7, "n": 2, "best_of": 5 }),
            Some(7),
            5,
        ),
        (
            OpenaiChat,
            json!({ "max_tokens": 7, "thinking_budget": 100 }),
            Some(107),
            1,
        ),
        (OpenaiChat, json!({ "max_output_tokens": 7 }), None, 1),
        (
            OpenaiResponses,
            json!({ "max_output_tokens": 7 }),
            Some(7),
            1,
        ),
        (OpenaiResponses, json!({ "max_tokens": 7, "n": 7 }), None, 1),
        (
            AnthropicMessages,
            json!({ "max_tokens": 7, "n": 9 }),
            Some(7),
            1,
        ),
        (
            AnthropicMessages,
            json!({ "max_tokens_to_sample": 7 }),
            Some(7),
            1,
        ),
        (
            CohereChat,
            json!({ "max_tokens": 7, "num_generations": 2 }),
            Some(7),
            2,
        ),
        (
            GeminiGenerate,
            json!({ "generationConfig": { "maxOutputTokens": 7, "candidateCount": 4 } }),
            Some(7),
            4,
        ),
        (
            GeminiGenerate,
            json!({ "generation_config": { "max_output_tokens": "7", "candidate_count": "4" } }),
            Some(7),
            4,
        ),
        (
            GeminiGenerate,
            json!({ "instances": [{}, {}, {}], "parameters": { "maxOutputTokens": 7, "candidateCount": 2 } }),
            Some(7),
            6,
        ),
        (
            GeminiGenerate,
            json!({ "max_tokens": 7, "maxOutputTokens": 7 }),
            None,
            1,
        ),
        (
            GeminiGenerate,
            json!({ "max_tokens": 7, "anthropic_version": "vertex-2023-10-16" }),
            Some(7),
            1,
        ),
        (
            Bedrock,
            json!({ "inferenceConfig": { "maxTokens": 7 } }),
            Some(7),
            1,
        ),
        (
            Bedrock,
            json!({ "inferenceConfig": { "max_new_tokens": 7 } }),
            Some(7),
            1,
        ),
        (
            Bedrock,
            json!({ "textGenerationConfig": { "maxTokenCount": 7 } }),
            Some(7),
            1,
        ),
        (
            Bedrock,
            json!({ "inferenceConfig": { "maxTokens": 7 }, "additionalModelRequestFields": { "max_tokens": 8 } }),
            Some(8),
            1,
        ),
        (
            Bedrock,
            json!({ "prompt": "a", "max_gen_len": 7 }),
            Some(7),
            1,
        ),
        (
            Bedrock,
            json!({ "message": "a", "max_tokens": 7, "num_generations": 3 }),
            Some(7),
            3,
        ),
        (
            Bedrock,
            json!({ "max_tokens": 7, "messages": [], "anthropic_version": "bedrock-2023-05-31" }),
            Some(7),
            1,
        ),
        // Converse does not look there.
        (Bedrock, json!({ "max_tokens": 7, "messages": [] }), None, 1),
    ] {
        assert_eq!(
            bounds(format, &body),
            (output, choices),
            "{format:?} {body}"
        );
    }
}

/// Models that Bedrock and Vertex pass requests on to may go by it, or not.
#[test]
fn a_maximum_that_may_be_ignored_makes_a_call_dearer_and_never_cheaper() {
    for (format, body, most) in [
        (Bedrock, json!({ "messages": [], "max_tokens": 7 }), 100),
        (Bedrock, json!({ "messages": [], "max_tokens": 700 }), 700),
        (
            Bedrock,
            json!({ "messages": [], "max_completion_tokens": 700 }),
            700,
        ),
        (
            Bedrock,
            json!({ "max_tokens": 700, "inferenceConfig": { "maxTokens": 7 } }),
            700,
        ),
        (
            GeminiGenerate,
            json!({ "messages": [], "max_tokens": 700 }),
            700,
        ),
        (GeminiGenerate, json!({ "max_tokens": -1 }), 100),
        // It is known that the model goes by this one.
        (Bedrock, json!({ "prompt": "a", "max_tokens": 7 }), 7),
        (
            OpenaiChat,
            json!({ "max_tokens": 7, "max_gen_len": 700 }),
            7,
        ),
    ] {
        assert_eq!(worst(format, &body).most_output(100), most, "{body}");
    }
}

#[test]
fn what_is_no_bound_is_none() {
    for bad in [
        "-1", "null", "true", "{}", "[]", "\"many\"", "-0.5", "\"-3\"",
    ] {
        let body = format!(r#"{{"max_tokens":{bad}}}"#);
        assert_eq!(of(body.as_bytes(), OpenaiChat).output, None, "{bad}");
    }
    for (number, most) in [
        ("0", 0),
        ("1.2", 2),
        ("1e3", 1000),
        ("18446744073709551615", u64::MAX),
        ("18446744073709551616", u64::MAX),
        ("1e300", u64::MAX),
    ] {
        let body = format!(r#"{{"max_tokens":{number},"n":{number}}}"#);
        let worst = of(body.as_bytes(), OpenaiChat);
        assert_eq!(worst.output, Some(most), "{number}");
        assert_eq!(worst.choices, most.max(1));
    }
}

#[test]
fn a_name_that_stands_twice_bounds_by_the_larger_or_not_at_all() {
    for (body, output) in [
        (r#"{"max_tokens":5,"max_tokens":9}"#, Some(9)),
        (r#"{"max_tokens":9,"max_tokens":5}"#, Some(9)),
        (r#"{"max_tokens":5,"max_tokens":null}"#, None),
        (r#"{"max_tokens":null,"max_tokens":5}"#, None),
        (r#"{"max_tokens":5,"max_tokens":-1}"#, None),
        (r#"{"max_tokens":5,"max_completion_tokens":-1}"#, None),
    ] {
        assert_eq!(of(body.as_bytes(), OpenaiChat).output, output, "{body}");
    }
    let twice = r#"{"generationConfig":{"maxOutputTokens":5},"generation_config":{}}"#;
    assert_eq!(of(twice.as_bytes(), GeminiGenerate).output, None);
    let empty = r#"{"generationConfig":{}}"#;
    assert_eq!(of(empty.as_bytes(), GeminiGenerate).output, None);
}

#[test]
fn every_prompt_has_its_answers() {
    for (prompt, choices) in [
        (json!("a"), 2),
        (json!(["a"]), 2),
        (json!(["a", "b", "c"]), 6),
        (json!([1, 2, 3]), 2),
        (json!([[1, 2], [3]]), 4),
        (json!([]), 2),
    ] {
        let body = json!({ "prompt": prompt, "max_tokens": 5, "n": 2 });
        assert_eq!(bounds(OpenaiChat, &body), (Some(5), choices), "{body}");
    }
}

#[test]
fn a_prediction_may_be_billed_as_written() {
    let body = json!({ "max_tokens": 5, "prediction": { "type": "content", "content": "abc" } });
    let length = body.to_string().len() as u64;
    assert_eq!(worst(OpenaiChat, &body).output, Some(5 + length));
}

#[test]
fn an_image_counts_as_the_greediest_model_counts_it() {
    let data = "A".repeat(600_000);
    let url = format!("data:image/png;base64,{data}");
    for (format, body, text) in [
        (
            OpenaiChat,
            message(json!({ "type": "image_url", "image_url": { "url": url } })),
            url.len(),
        ),
        (
            OpenaiChat,
            message(json!({ "type": "image_url", "image_url": url })),
            url.len(),
        ),
        (
            OpenaiResponses,
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": url }] }] }),
            url.len(),
        ),
        (
            AnthropicMessages,
            message(json!({ "type": "image", "source":
                { "type": "base64", "media_type": "image/png", "data": data } })),
            data.len(),
        ),
        (
            GeminiGenerate,
            json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "image/png", "data": data } }] }] }),
            data.len(),
        ),
        (
            GeminiGenerate,
            json!({ "contents": [{ "parts": [{ "inline_data": { "mime_type": "IMAGE/png", "data": data } }] }] }),
            data.len(),
        ),
        (
            Bedrock,
            message(json!({ "image": { "format": "png", "source": { "bytes": data } } })),
            data.len(),
        ),
        (
            OpenaiChat,
            json!({ "messages": [{ "role": "user", "content": "x", "images": [data] }] }),
            0,
        ),
    ] {
        let worst = worst(format, &body);
        assert_eq!(worst.unbounded, None, "{format:?}");
        let rest = body.to_string().len() - text;
        assert_eq!(worst.input, rest as u64 + IMAGE, "{format:?}");
    }
}

#[test]
fn what_is_no_json_bounds_its_input_alone() {
    for (body, why) in [
        (&b"--boundary\r\nContent-Disposition: form-data"[..], None),
        (b"", None),
        (b"model=x&n=5", None),
        (b"{\"max_tokens\":5", Some(words::JSON)),
        (b" {\"max_tokens\":5} {}", Some(words::JSON)),
        (b"{\"max_tokens\":5,\"a\":\"\xff\"}", Some(words::JSON)),
        (b"\xef\xbb\xbf{\"max_tokens\":5}", Some(words::JSON)),
        (b"{\"max_tokens\":1e999}", Some(words::JSON)),
    ] {
        let expected = Worst {
            input: body.len() as u64,
            output: None,
            doubtful: 0,
            choices: 1,
            unbounded: why,
            other_models: false,
        };
        assert_eq!(of(body, OpenaiChat), expected);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(of(deep.as_bytes(), OpenaiChat).unbounded, Some(words::JSON));
}

/// Whatever arrives, there is an answer.
#[test]
fn every_beginning_of_a_body_has_its_worst() {
    let body = json!({ "max_tokens": 5, "n": 2, "tools": [{ "type": "function" }], "é": [1.5, null, true] });
    let body = body.to_string();
    for cut in 0..body.len() {
        for format in [
            OpenaiChat,
            OpenaiResponses,
            AnthropicMessages,
            GeminiGenerate,
            Bedrock,
            CohereChat,
        ] {
            let worst = of(&body.as_bytes()[..cut], format);
            assert_eq!((worst.output, worst.choices), (None, 1));
        }
    }
}

#[test]
fn all_choices_count() {
    let mut worst = worst(OpenaiChat, &json!({ "n": 3 }));
    assert_eq!(worst.most_output(100), 300);
    worst.output = Some(u64::MAX);
    assert_eq!(worst.most_output(100), u64::MAX);
    assert_eq!(worst.writing_nothing().most_output(100), 0);
}

/// A name that stands there often is looked at once.
#[test]
fn a_bound_that_is_said_a_million_times_is_one() {
    let body = format!("{{{}\"n\":1}}", "\"max_tokens\":7,".repeat(1_000_000));
    let worst = of(body.as_bytes(), Format::OpenaiChat);
    assert_eq!(worst.output, Some(7));
    let silent = body.replacen("\"max_tokens\":7", "\"max_tokens\":null", 1);
    assert_eq!(of(silent.as_bytes(), Format::OpenaiChat).output, None);
}
