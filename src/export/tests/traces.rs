//! Spans: what is in them, in both encodings, and what clients cannot do to them.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue};

use super::*;
use crate::export::trace_context::Given;
use crate::logs::entry;
use crate::record::Lines;
use any_value::Value::{BoolValue, DoubleValue, IntValue, StringValue};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

/// What a collector receives of one request.
fn told(encoding: Encoding, record: &RequestRecord) -> Received {
    let collector = Collector::new();
    let exports = start(exporter(&collector, encoding));
    exports.offer(record, None);
    assert!(exports.flush(LONG));
    collector.next()
}

fn names(attributes: &[KeyValue]) -> Vec<&str> {
    attributes.iter().map(|one| one.key.as_str()).collect()
}

#[test]
fn a_request_is_told_in_every_field_in_both_encodings() {
    let record = rich(&gateway());
    let [json, protobuf] = BOTH.map(|encoding| told(encoding, &record));
    assert_eq!((&*json.path, &*protobuf.path), ("/v1/traces", "/v1/traces"));
    let [own, attempt] = &spans(&json)[..] else {
        panic!("not two spans");
    };
    assert_eq!(spans(&protobuf), [own.clone(), attempt.clone()]);

    let begin = 1_700_000_000_000_000_000;
    assert_eq!(own.trace_id, record.id.as_bytes());
    assert_eq!(own.span_id.len(), 8);
    assert_eq!(own.parent_span_id, [0; 0]);
    assert_eq!(own.name, "chat gpt-5-mini");
    assert_eq!((own.kind, own.flags), (3, 0x101));
    assert_eq!(own.start_time_unix_nano, begin);
    assert_eq!(own.end_time_unix_nano, begin + 250_000_000);
    assert_eq!(own.status, None);
    let text = |text: &str| StringValue(text.to_owned());
    for (name, expected) in [
        ("gen_ai.operation.name", text("chat")),
        ("gen_ai.provider.name", text("openai")),
        ("gen_ai.model.provider", text("openai")),
        ("gen_ai.request.model", text("gpt-5-mini")),
        ("gen_ai.response.model", text("gpt-5-mini-2025-08-07")),
        ("gen_ai.request.stream", BoolValue(true)),
        ("gen_ai.response.time_to_first_chunk", DoubleValue(0.08)),
        ("http.request.method", text("POST")),
        ("url.path", text("/v1/acc/gw/openai/chat/completions")),
        ("http.response.status_code", IntValue(200)),
        ("gen_ai.usage.input_tokens", IntValue(100)),
        ("gen_ai.usage.output_tokens", IntValue(20)),
        ("gen_ai.usage.cache_read.input_tokens", IntValue(60)),
        ("gen_ai.usage.cache_creation.input_tokens", IntValue(5)),
        ("gen_ai.usage.reasoning.output_tokens", IntValue(7)),
        ("gen_ai.usage.cost", DoubleValue(0.001_25)),
        ("tollgate.cost.source", text("catalogue")),
        ("tollgate.usage.estimated", BoolValue(true)),
        ("tollgate.service_tier", text("flex")),
        ("tollgate.request.id", text(&record.id.to_string())),
        ("tollgate.gateway", text("acc/gw")),
        ("tollgate.key.alias", text("default")),
        ("tollgate.route", text("cheap")),
        ("tollgate.step", IntValue(0)),
        ("tollgate.attempts", IntValue(2)),
        ("tollgate.cache.status", text("miss")),
        ("tollgate.overhead_ms", DoubleValue(10.0)),
        ("tollgate.upstream_ms", DoubleValue(240.0)),
        ("tollgate.ttft_ms", DoubleValue(80.0)),
        ("tollgate.output_tokens_per_second", IntValue(118)),
        ("team", text("search \"x\"\n")),
        ("n", IntValue(7)),
        ("beta", BoolValue(true)),
        ("tollgate.metadata.gen_ai.usage.cost", text("0")),
    ] {
        assert_eq!(value(&own.attributes, name), Some(&expected), "{name}");
    }
    assert_eq!(own.attributes.len(), 34, "{:?}", names(&own.attributes));

    assert_eq!(attempt.trace_id, own.trace_id);
    assert_eq!(attempt.parent_span_id, own.span_id);
    assert_ne!(attempt.span_id, own.span_id);
    assert_eq!(attempt.name, "attempt openai/gpt-5");
    assert_eq!((attempt.kind, attempt.flags), (3, 0x101));
    assert_eq!(attempt.start_time_unix_nano, begin);
    assert_eq!(attempt.end_time_unix_nano, begin + 30_000_000);
    let status = attempt.status.as_ref().unwrap();
    let cause = Cause::Status(503).name();
    assert_eq!((status.code, &*status.message), (2, cause));
    for (name, expected) in [
        ("tollgate.attempt.number", IntValue(1)),
        ("tollgate.attempt.target", text("openai/gpt-5")),
        ("error.type", text(cause)),
        ("http.response.status_code", IntValue(503)),
        ("tollgate.attempt.duration_ms", DoubleValue(30.0)),
    ] {
        assert_eq!(value(&attempt.attributes, name), Some(&expected), "{name}");
    }
    assert_eq!(attempt.attributes.len(), 5);
}

#[test]
fn the_collector_learns_who_tells_it() {
    for encoding in BOTH {
        let request: ExportTraceServiceRequest = read(&told(encoding, &plain(1)));
        let resource = &request.resource_spans[0];
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(text(attributes, "service.name"), Some("tollgate"));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(text(attributes, "service.version"), Some(version));
        let instance = text(attributes, "service.instance.id").unwrap();
        assert!(instance.parse::<Uuid>().is_ok());
        let scope = resource.scope_spans[0].scope.as_ref().unwrap();
        assert_eq!((&*scope.name, &*scope.version), ("tollgate", version));
    }
}

#[test]
fn a_failure_is_a_failed_span_without_its_detail() {
    let mut record = plain(1);
    let kind = crate::error::Kind::UpstreamTimeout;
    let failure = crate::error::Failure::new(kind).with_detail("10.1.2.3:443 is silent");
    record.status = kind.status();
    record.failure = Some(failure);
    for encoding in BOTH {
        let received = told(encoding, &record);
        let span = &spans(&received)[0];
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, &*status.message), (2, kind.name()));
        assert_eq!(text(&span.attributes, "error.type"), Some(kind.name()));
        let source = text(&span.attributes, "tollgate.error.source");
        assert_eq!(source, Some(kind.source().name()));
        assert!(!String::from_utf8_lossy(&received.body).contains("10.1.2.3"));
    }
}

#[test]
fn a_client_says_which_trace_and_parent_it_wants() {
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs.iter().map(|(name, value)| header(name, value));
        Given::read(&pairs.collect::<HeaderMap>())
    };
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let own = "00000000000000000000000000000007";
    let w3c = "00-11111111111111111111111111111111-2222222222222222-00";
    for (given, traceparent, expected) in [
        (
            headers(&[
                ("cf-aig-otel-trace-id", trace),
                ("cf-aig-otel-parent-span-id", parent),
            ]),
            Some(w3c),
            (trace, parent, 0x301),
        ),
        (
            headers(&[("cf-aig-otel-trace-id", trace)]),
            None,
            (trace, "", 0x101),
        ),
        (
            headers(&[("cf-aig-otel-trace-id", "'; drop table spans; --")]),
            Some(w3c),
            (
                "11111111111111111111111111111111",
                "2222222222222222",
                0x301,
            ),
        ),
        (headers(&[]), Some("00-zz"), (own, "", 0x101)),
        (headers(&[]), None, (own, "", 0x101)),
    ] {
        let mut record = plain(7);
        record.otel = given;
        record.traceparent = traceparent.map(Into::into);
        for encoding in BOTH {
            let span = &spans(&told(encoding, &record))[0];
            let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let told = (hex(&span.trace_id), hex(&span.parent_span_id), span.flags);
            assert_eq!((&*told.0, &*told.1, told.2), expected);
        }
    }
}

#[test]
fn what_clients_send_cannot_forge_or_break_a_span() {
    let text = |text: &str| metadata::Value::Text(text.into());
    let mut record = plain(1);
    record.model = Some("a\"},{\u{0}\u{7f}é\n😀".repeat(200).into());
    record.path = "/v1/\"\\\u{1b}[31m".into();
    record.metadata = vec![
        ("".into(), text("nameless")),
        ("tollgate.gateway".into(), text("other/gateway")),
        ("error.type".into(), text("none")),
        ("quote\"\n".into(), text("\u{2028}\\\"</script>")),
        (
            "huge".into(),
            metadata::Value::Number(serde_json::from_str("18446744073709551615").unwrap()),
        ),
        (
            "tiny".into(),
            metadata::Value::Number(serde_json::from_str("-1.5e-9").unwrap()),
        ),
        ("long".into(), text(&"x".repeat(60_000))),
    ];
    let [json, protobuf] = BOTH.map(|encoding| spans(&told(encoding, &record)));
    assert_eq!(json, protobuf);
    let attributes = &json[0].attributes;
    for (name, expected) in [
        ("tollgate.metadata.", "nameless"),
        ("tollgate.metadata.tollgate.gateway", "other/gateway"),
        ("tollgate.metadata.error.type", "none"),
        ("quote\"\n", "\u{2028}\\\"</script>"),
        ("url.path", &record.path),
    ] {
        assert_eq!(super::text(attributes, name), Some(expected), "{name}");
    }
    let number = |name| value(attributes, name).cloned();
    assert_eq!(
        number("huge"),
        Some(DoubleValue(18_446_744_073_709_551_615.0))
    );
    assert_eq!(number("tiny"), Some(DoubleValue(-1.5e-9)));
    let model = super::text(attributes, "gen_ai.request.model").unwrap();
    assert!(model.len() <= 1024 && record.model.as_ref().unwrap().starts_with(model));
    let mut all = names(attributes);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), attributes.len(), "a name is there twice");
}

#[test]
fn many_attempts_are_told_up_to_a_bound_and_within_the_request() {
    let mut record = plain(1);
    record.tried = vec![
        Tried {
            cause: Cause::Timeout,
            took: Duration::from_micros(400),
            provider: None,
            target: None,
        };
        100
    ];
    let spans = spans(&told(Encoding::Protobuf, &record));
    assert_eq!(spans.len(), 65);
    let own = &spans[0];
    for attempt in &spans[1..] {
        assert_eq!(attempt.name, "attempt");
        assert!(attempt.start_time_unix_nano >= own.start_time_unix_nano);
        assert!(attempt.start_time_unix_nano <= attempt.end_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= own.end_time_unix_nano);
    }
}

/// Both bodies as one exporter tells them.
fn told_bodies(payload: bool, given: &entry::Payload) -> [Option<String>; 2] {
    let collector = Collector::new();
    let exports = start(Exporter {
        payload,
        ..exporter(&collector, Encoding::Json)
    });
    assert_eq!(exports.wants_payload(), payload);
    exports.offer(&plain(1), Some(given));
    assert!(exports.flush(LONG));
    let attributes = &spans(&collector.next())[0].attributes;
    ["gen_ai.prompt_json", "gen_ai.completion_json"]
        .map(|name| text(attributes, name).map(str::to_owned))
}

#[test]
fn bodies_are_told_only_where_they_may_be() {
    let payload = entry::Payload {
        request: pieces(&["{\"a\":", "\"ü\"}"]),
        response: pieces(&["data: 1\n\n"]),
        ..entry::Payload::default()
    };
    let both = [
        Some("{\"a\":\"ü\"}".to_owned()),
        Some("data: 1\n\n".to_owned()),
    ];
    assert_eq!(told_bodies(true, &payload), both);
    assert_eq!(told_bodies(false, &payload), [None, None]);
}

#[test]
fn bodies_are_cut_between_characters_and_left_out_where_they_are_no_text() {
    let long = entry::Payload {
        request: Some(vec![Bytes::from("x"), Bytes::from("é".repeat(100_000))]),
        response: Some(vec![Bytes::from_static(b"\xff\xfe audio")]),
        ..entry::Payload::default()
    };
    let [prompt, completion] = told_bodies(true, &long);
    let prompt = prompt.unwrap();
    assert_eq!(prompt.len(), (64 << 10) - 1);
    assert!(prompt.ends_with('é'));
    assert_eq!(completion, None);
    let encoded = entry::Payload {
        request: None,
        response: pieces(&["looks like text"]),
        response_head: Lines::of(&HeaderMap::from_iter([(
            CONTENT_ENCODING,
            HeaderValue::from_static("br"),
        )])),
        ..entry::Payload::default()
    };
    assert_eq!(told_bodies(true, &encoded), [None, None]);
}

#[test]
fn several_exporters_have_their_own_form_each() {
    let collectors = [(); 3].map(|()| Collector::new());
    let [json, protobuf, bodies] = &collectors;
    let exporters = vec![
        exporter(json, Encoding::Json),
        exporter(protobuf, Encoding::Protobuf),
        Exporter {
            payload: true,
            ..exporter(bodies, Encoding::Json)
        },
    ];
    let exports = start_with(exporters, vec![], pace());
    let payload = entry::Payload {
        request: pieces(&["{}"]),
        ..entry::Payload::default()
    };
    for number in 1..=3 {
        exports.offer(&plain(number), Some(&payload));
    }
    assert!(exports.flush(LONG));
    let received = collectors.each_ref().map(Collector::next);
    for received in &received {
        assert_eq!(requests(received), [1, 2, 3]);
    }
    let has_prompt = received.each_ref().map(|received| {
        let attributes = &spans(received)[0].attributes;
        text(attributes, "gen_ai.prompt_json").is_some()
    });
    assert_eq!(has_prompt, [false, false, true]);
    assert_eq!(exports.reports().len(), 3);
    assert!(exports.reports().iter().all(|report| report.sent == 3));
}
