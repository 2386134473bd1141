//! Estimates, held against what providers reported: each `tests/golden/estimate/*.answer` is an
//! exchange recorded from a real provider, its usage cut out of the body: `request` is that of the
//! client, `input` and `output` are the tokens that were reported, thoughts that nobody sees left
//! out. `unseen` names what else was counted that is in neither of them.

use bytes::Bytes;

use super::*;

/// The estimate of a recorded exchange.
fn estimated(case: &Case) -> Usage {
    let mut observer = case.observer(None);
    observer.push(&case.body.clone().into());
    let seen = observer.finish();
    assert_eq!(seen.usage, None, "{}", case.name);
    let request = case.field("request").as_bytes();
    let (model, format) = (case.field("model"), format(case.field("format")));
    let settled = estimate::settled(
        &seen,
        &[Bytes::copy_from_slice(request)],
        Some(model),
        format,
    );
    let (usage, is_estimate) = settled.unwrap();
    assert!(is_estimate);
    let model = seen.model.as_deref().or(Some(model));
    assert_eq!(estimate(request, &seen.text, model, format), usage);
    usage
}

/// Whether an estimate is within so many percent, or ten tokens, which surround any message.
fn is_near(estimate: u64, reported: u64, percent: u64) -> bool {
    estimate.abs_diff(reported) <= (reported * percent / 100).max(10)
}

/// What is wrong with the estimate of a recorded exchange.
fn error(case: &Case) -> Option<String> {
    let reported = |side: &str| case.field(side).parse::<u64>().unwrap();
    let (input, output) = (reported("input"), reported("output"));
    let usage = estimated(case);
    let is_seen = |side: &str| !case.lines.contains(&format!("unseen: {side}"));
    let (sees_input, sees_output) = (is_seen("input"), is_seen("output"));
    let both = (usage.input + usage.output, input + output);
    let is_right = (!sees_input || is_near(usage.input, input, 20))
        && (!sees_output || is_near(usage.output, output, 20))
        && (!(sees_input && sees_output) || is_near(both.0, both.1, 15));
    let said = format!("{}: {input}, {output} reported, {usage:?}", case.name);
    (!is_right).then_some(said)
}

#[test]
fn estimates_are_near_what_was_reported() {
    let cases = cases("estimate");
    assert!(cases.len() > 40);
    let wrong: Vec<_> = cases.iter().filter_map(error).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Each may be off by as much as the test allows; all of them together are not.
    let sum = |of: &dyn Fn(&Case) -> u64| cases.iter().map(of).sum::<u64>();
    let reported = sum(&|case| case.field("output").parse().unwrap());
    let estimate = sum(&|case| estimated(case).output);
    assert!(
        estimate.abs_diff(reported) * 100 < reported * 5,
        "{estimate} for {reported}"
    );
}

#[test]
fn what_broke_off_is_estimated_behind_what_was_reported() {
    let start = r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":900,"output_tokens":1}}}"#;
    let delta = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"one two three four five six "}}"#;
    let end = r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":60}}"#;
    let settled = |events: &[&str]| {
        let kind = Some(&b"text/event-stream"[..]);
        let mut observer = Observer::new(Format::AnthropicMessages, kind, None);
        for event in events {
            observer.push(&format!("data: {event}\n\n").into());
        }
        estimate::settled(&observer.finish(), &[], None, Format::AnthropicMessages).unwrap()
    };
    let (usage, is_estimate) = settled(&[start, delta, delta]);
    assert!(is_estimate && usage.input == 900);
    assert!((12..=18).contains(&usage.output), "{usage:?}");
    // All that was written has been counted, though the last event is missing.
    let (usage, is_estimate) = settled(&[start, delta, delta, end]);
    assert_eq!((usage.output, is_estimate), (60, false));
    let (usage, is_estimate) = settled(&[start]);
    assert_eq!((usage.output, is_estimate), (1, false));
}

#[test]
fn nothing_is_made_up() {
    let text = Text::default();
    for request in [
        "",
        "{}",
        "not json",
        "[]",
        r#"{"model":"m"}"#,
        "{\"messages\":[]}",
    ] {
        let usage = estimate(request.as_bytes(), &text, None, Format::OpenaiChat);
        assert_eq!(usage, Usage::default(), "{request}");
    }
    let request = br#"{"messages":[{"role":"user","content":"Hello"}]}"#;
    let usage = estimate(request, &text, None, Format::Opaque);
    assert_eq!(usage, Usage::default());
    assert!(estimate(request, &text, None, Format::OpenaiChat).input > 0);
    let models = br#"{"object":"list","data":[{"id":"m-1"}]}"#;
    let mut observer = Observer::new(Format::OpenaiChat, Some(b"application/json"), None);
    observer.push(&models.to_vec().into());
    let observed = observer.finish();
    assert_eq!(
        estimate::settled(&observed, &[], None, Format::OpenaiChat),
        None
    );
}

/// An image is no text, however long its data.
#[test]
fn media_count_as_a_round_number() {
    let data = "QUJD".repeat(100_000);
    let requests = [
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
        ),
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","data":"{data}"}}}}]}}]}}"#
        ),
        format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}]}}]}}"#
        ),
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"image":{{"format":"png","source":{{"bytes":"{data}"}}}}}}]}}]}}"#
        ),
    ];
    for request in requests {
        let usage = estimate(
            request.as_bytes(),
            &Text::default(),
            None,
            Format::OpenaiChat,
        );
        assert!((800..820).contains(&usage.input), "{usage:?}");
    }
}

/// Texts that would take a naive tokenizer hours.
#[test]
fn hostile_texts_are_counted() {
    for (text, least) in [("a", 1_000), (" ", 100), ("-", 100), ("\u{4e2d}", 10_000)] {
        let text = text.repeat(100_000);
        let request = format!(r#"{{"prompt":"{text}"}}"#);
        let usage = estimate(
            request.as_bytes(),
            &Text::default(),
            Some("gpt-4o"),
            Format::OpenaiChat,
        );
        assert!(usage.input > least, "{usage:?}");
    }
    let deep = format!(r#"{{"input":{}"#, "[".repeat(100_000));
    let usage = estimate(deep.as_bytes(), &Text::default(), None, Format::OpenaiChat);
    assert_eq!(usage, Usage::default());
}

/// Only the first of a long text is kept; the rest is taken to be like it.
#[test]
fn long_streams_are_extrapolated() {
    let event = |text: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let event = event("one two three four ");
    let output = |events: usize| {
        let kind = Some(&b"text/event-stream"[..]);
        let mut observer = Observer::new(Format::OpenaiChat, kind, None);
        (0..events).for_each(|_| observer.push(&event.clone().into()));
        assert!(observer.held() < 1 << 20);
        let seen = observer.finish();
        estimate(b"", &seen.text, Some("gpt-4o"), Format::OpenaiChat).output
    };
    assert_eq!(output(100), 401);
    let long = output(100_000);
    assert!(is_near(long, 400_000, 2), "{long}");
}
