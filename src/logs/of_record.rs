//! The log store's view of a finished request.

use std::borrow::Cow;

use bytes::Bytes;

use super::entry::{Attempt, Entry, Payload, Text, Timings, Tokens};
use super::metadata::{Metadata, MetadataValue};
use crate::call;
use crate::endpoint;
use crate::error::Kind;
use crate::metadata::Value;
use crate::pricing::{Cost, CostSource};
use crate::record::{Begun, RequestRecord, Seen, Tried};
use crate::routing::verdict::Cause;
use crate::usage::{ServiceTier, Usage};

/// The entry of a request: its facts and, where they were seen, its heads and bodies.
pub fn entry(record: &RequestRecord, seen: Option<Seen>) -> Entry {
    let mut entry = facts(record);
    (entry.error_source, entry.error) = match record.error() {
        Some((source, kind)) => (word(source.name()), word(kind)),
        None => (None, None),
    };
    money(record, &mut entry);
    if let Some(seen) = seen {
        entry.payload = Some(Box::new(payload(record, seen)));
    }
    entry
}

fn facts(record: &RequestRecord) -> Entry {
    let spent = &record.spent;
    let gateway = record.gateway.as_ref();
    let answered = spent.model.as_deref();
    let model = record.model.as_deref().or(answered);
    let status = record.status;
    let consumer = record.consumer.as_ref();
    Entry {
        id: record.id,
        created_at: Some(record.started),
        account: gateway.map_or(Text::Borrowed(""), |gateway| owned(&gateway.account)),
        gateway: gateway.map_or(Text::Borrowed(""), |gateway| owned(&gateway.id)),
        provider: record
            .provider
            .as_ref()
            .map(|mounted| owned(&mounted.provider.slug)),
        model: model.map(owned),
        answer_model: answered
            .filter(|answered| Some(*answered) != model)
            .map(owned),
        model_type: word(call::kind(&record.path)),
        path: owned(&record.path),
        method: owned(record.method.as_str()),
        request_type: request_type(record).and_then(word),
        http_version: Text::Owned(format!("{:?}", record.version)),
        client: record.client.map(|client| client.ip()),
        request_content_type: record.request_content_type.as_deref().map(owned),
        response_content_type: record.response_content_type.as_deref().map(owned),
        user_agent: record.user_agent.as_deref().map(owned),
        event_id: record.event_id.as_deref().map(owned),
        authentication: consumer.is_some(),
        consumer: consumer.map(|consumer| owned(&consumer.name)),
        owner: consumer.and_then(|consumer| consumer.owner.as_deref().map(owned)),
        denied_by: record.denied_by().map(owned),
        byok: record.key_alias.is_some(),
        key_alias: record.key_alias.as_deref().map(owned),
        route: record.route.as_deref().map(owned),
        step: record.step,
        target: u32::try_from(record.target).unwrap_or(u32::MAX),
        status,
        provider_status: record.provider_status(),
        success: record.is_success(),
        cached: record.cache.from.is_some(),
        cache_status: record.cache.status.and_then(|status| word(status.name())),
        cache_tier: record.cache.from.and_then(|from| word(from.name())),
        cache_source: record.cache.source,
        streamed: record.streamed,
        complete: record.is_complete(),
        error_detail: record
            .failure()
            .map(|failure| Text::Owned(failure.to_string())),
        attempts: record.attempts,
        tried: record.tried.iter().map(attempt).collect(),
        request_size: record.request_bytes,
        response_size: record.response_bytes,
        timings: timings(record),
        usage: spent.usage.map(tokens),
        usage_estimated: spent.is_estimate,
        metadata: metadata(&record.metadata),
        traceparent: record.traceparent.as_deref().map(owned),
        ..Entry::default()
    }
}

fn money(record: &RequestRecord, entry: &mut Entry) {
    let spent = &record.spent;
    entry.cost = spent.cost.map(whole_pico);
    entry.saved = spent.saved.map(whole_pico);
    entry.cost_source = spent.source.and_then(|source| word(source.name()));
    entry.custom_cost = spent.source == Some(CostSource::Custom);
    entry.service_tier = Some(spent.tier)
        .filter(|tier| *tier != ServiceTier::Standard)
        .and_then(|tier| word(tier.name()));
}

/// A cost as it is stored. A whole number that large is no price.
pub(super) fn whole_pico(cost: Cost) -> i64 {
    i64::try_from(cost.0).unwrap_or(i64::MAX)
}

fn timings(record: &RequestRecord) -> Timings {
    let whole =
        |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Timings {
        duration: whole(record.duration),
        upstream: record.upstream.map(whole),
        overhead: Some(whole(record.overhead())),
        first_byte: record.first_byte.map(whole),
        first_token: record.first_token.map(whole),
        waited: Some(record.waited)
            .filter(|waited| !waited.is_zero())
            .map(whole),
    }
}

/// Input and output always; of the rest what is not zero.
fn tokens(usage: Usage) -> Tokens {
    // Exhaustive: a new count does not compile until it is stored.
    let Usage {
        input,
        output,
        cached_input,
        cache_write,
        cache_write_1h,
        reasoning,
        input_audio,
        output_audio,
        cached_audio,
        input_image,
        output_image,
        web_searches,
    } = usage;
    let some = |count: u64| (count > 0).then_some(count);
    Tokens {
        input: Some(input),
        output: Some(output),
        cached_input: some(cached_input),
        cache_write: some(cache_write),
        cache_write_1h: some(cache_write_1h),
        reasoning: some(reasoning),
        input_audio: some(input_audio),
        output_audio: some(output_audio),
        cached_audio: some(cached_audio),
        input_image: some(input_image),
        output_image: some(output_image),
        web_searches: some(web_searches),
    }
}

fn attempt(tried: &Tried) -> Attempt {
    Attempt {
        target: tried.target.as_deref().map(owned),
        cause: Text::Borrowed(tried.cause.name()),
        status: match tried.cause {
            Cause::Status(status) => Some(status),
            _ => None,
        },
        ms: u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn metadata(metadata: &crate::metadata::Metadata) -> Metadata {
    let entries = metadata.iter().map(|(name, value)| {
        let value = match value {
            Value::Flag(flag) => MetadataValue::Flag(*flag),
            Value::Text(text) => MetadataValue::Text(text.to_string()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => MetadataValue::Whole(whole),
                (None, Some(number)) => MetadataValue::Number(number),
                (None, None) => MetadataValue::Text(number.to_string()),
            },
        };
        (name.to_string(), value)
    });
    Metadata(entries.collect())
}

/// The contract's words; a plain call has none.
fn request_type(record: &RequestRecord) -> Option<&'static str> {
    let universal = record.gateway.is_some() && endpoint::is_universal(record.path.as_bytes());
    match record.status {
        101 => Some("WebSockets"),
        _ if universal => Some("Universal"),
        _ => None,
    }
}

fn payload(record: &RequestRecord, seen: Seen) -> Payload {
    let Seen {
        request_head,
        request,
        response_head,
        response,
    } = seen;
    let cut_by_client = record.failure().is_some_and(|failure| {
        let kinds = [Kind::ClientGone, Kind::ClientTimeout, Kind::BodyTooLarge];
        kinds.contains(&failure.kind)
    });
    Payload {
        request_head,
        response_head,
        request_complete: request.is_whole && !cut_by_client,
        response_complete: response.is_whole && record.is_complete(),
        request: pieces(request),
        response: pieces(response),
    }
}

/// Nothing of a body that has no bytes.
fn pieces(body: Begun) -> Option<Vec<Bytes>> {
    body.pieces.filter(|pieces| !pieces.is_empty())
}

fn word(text: &'static str) -> Option<Text> {
    Some(Cow::Borrowed(text))
}

fn owned(text: &str) -> Text {
    Cow::Owned(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use crate::telemetry::access::tests::record;

    #[test]
    fn what_was_asked_of_a_model_is_its_type() {
        for (path, kind) in [
            ("/v1/a/g/openai/chat/completions", "chat"),
            ("/v1/a/g/anthropic/v1/messages", "chat"),
            ("/v1/a/g/openai/embeddings", "embeddings"),
            (
                "/v1/a/g/google-ai-studio/v1beta/models/gemini:generateContent",
                "chat",
            ),
            (
                "/v1/a/g/google-ai-studio/v1beta/models/e:embedContent",
                "embeddings",
            ),
            (
                "/v1/a/g/aws-bedrock/bedrock-runtime/us-east-1/model/x/converse",
                "chat",
            ),
            ("/v1/a/g/openai/images/generations", "image"),
            ("/v1/a/g/openai/audio/speech", "audio"),
            ("/v1/a/g/openai/models", "models"),
        ] {
            assert_eq!(call::kind(path), kind, "{path}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_is_not_complete() {
        let mut record = record();
        let whole = || Seen {
            request: Begun {
                pieces: Some(vec![Bytes::from_static(b"{}")]),
                is_whole: true,
            },
            response: Begun {
                pieces: Some(vec![Bytes::from_static(b"data")]),
                is_whole: true,
            },
            ..Seen::default()
        };
        let logged = entry(&record, Some(whole())).payload.unwrap();
        assert!(logged.request_complete && logged.response_complete);
        record.failure = Some(Failure::new(Kind::UpstreamCut));
        let logged = entry(&record, Some(whole()));
        assert!(!logged.complete && !logged.success);
        let logged = logged.payload.unwrap();
        assert!(logged.request_complete && !logged.response_complete);
        record.failure = Some(Failure::new(Kind::ClientGone));
        assert!(
            !entry(&record, Some(whole()))
                .payload
                .unwrap()
                .request_complete
        );
    }

    #[test]
    fn a_body_without_bytes_is_none() {
        let logged = entry(&record(), Some(Seen::default())).payload.unwrap();
        assert_eq!((logged.request, logged.response), (None, None));
    }
}
