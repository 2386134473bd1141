//! The facts of a record by name: the access log's view of it.

use std::borrow::Cow;
use std::time::Duration;

use super::{CacheFacts, RequestRecord, Value, trace};
use crate::export::trace_context::Given;
use crate::metadata;

impl RequestRecord {
    /// All facts by name, in the order of the access log. Absent ones are left out.
    pub fn fields(&self, mut write: impl FnMut(&'static str, Value<'_>)) {
        let Self {
            id,
            started: _, // the log line has a time stamp of its own
            gateway: _, // written as a label
            provider: _,
            model,
            consumer,
            key_alias,
            method,
            path,
            version,
            client,
            request_content_type: _, // in the log store
            response_content_type: _,
            user_agent,
            traceparent,
            otel: Given { trace_id, parent },
            event_id,
            metadata,
            unbounded,
            custom_cost: _, // the cost itself is written, and its source
            status,
            streamed,
            failure: _, // written as the error and its detail
            route,
            target: _, // a label in metrics; in the log it is the step, but for a route within a step
            step,
            hedged,
            attempts,
            asked_before: _, // told apart in metrics; the log has them in `tried`
            tried,
            reused,
            request_bytes,
            response_bytes,
            duration,
            reading: _, // taken off the overhead
            waited,
            upstream,
            first_byte,
            first_token,
            cache:
                CacheFacts {
                    status: cache,
                    key: cache_key,
                    from: cache_tier,
                    source: cache_source,
                    told: _, // taken over by `spent`
                    differs_at,
                    stood_in_for: _, // written as the error, with its status or its detail
                },
            spent,
        } = self;
        let text = |text: &str| Value::Text(Cow::Owned(text.to_owned()));
        let milliseconds = |duration: Duration| Value::Milliseconds(duration.as_secs_f64() * 1e3);
        write("id", Value::Text(id.to_string().into()));
        write("gateway", text(self.gateway_label()));
        write("provider", text(self.provider_label()));
        model
            .as_deref()
            .inspect(|model| write("model", text(model)));
        consumer.as_ref().inspect(|consumer| {
            write("consumer", text(&consumer.name));
            let id = consumer.id.as_deref();
            id.inspect(|id| write("consumer_id", text(id)));
            consumer
                .owner
                .as_deref()
                .inspect(|owner| write("owner", text(owner)));
        });
        key_alias
            .as_deref()
            .inspect(|alias| write("key", text(alias)));
        write("method", text(method.as_str()));
        write("path", text(path));
        write("http", Value::Text(format!("{version:?}").into()));
        client.inspect(|client| write("client", Value::Text(client.to_string().into())));
        write("status", Value::Number((*status).into()));
        write("streamed", Value::Flag(*streamed));
        self.error().inspect(|(source, kind)| {
            write("error_source", text(source.name()));
            write("error", text(kind));
        });
        self.denied_by()
            .inspect(|rule| write("denied_by", text(rule)));
        self.provider_status()
            .inspect(|status| write("provider_status", Value::Number((*status).into())));
        self.failure()
            .inspect(|failure| write("detail", Value::Text(failure.to_string().into())));
        route
            .as_deref()
            .inspect(|route| write("route", text(route)));
        if route.is_some() || *step > 0 {
            write("step", Value::Number((*step).into()));
        }
        hedged.inspect(|hedged| write("hedged", text(hedged.name())));
        write("attempts", Value::Number((*attempts).into()));
        if !tried.is_empty() {
            write("tried", Value::Text(trace(tried).into()));
        }
        write("reused", Value::Flag(*reused));
        write("bytes_in", Value::Number(*request_bytes));
        write("bytes_out", Value::Number(*response_bytes));
        write("duration_ms", milliseconds(*duration));
        if !waited.is_zero() {
            write("waited_ms", milliseconds(*waited));
        }
        upstream.inspect(|upstream| write("upstream_ms", milliseconds(*upstream)));
        write("overhead_ms", milliseconds(self.overhead()));
        first_byte.inspect(|first| write("first_byte_ms", milliseconds(*first)));
        first_token.inspect(|first| write("ttft_ms", milliseconds(*first)));
        self.output_rate()
            .inspect(|rate| write("output_tokens_per_second", Value::Number(*rate)));
        cache.inspect(|status| write("cache", text(status.name())));
        cache_tier.inspect(|tier| write("cache_tier", text(tier.name())));
        cache_key.inspect(|key| write("cache_key", Value::Text(key.hex().into())));
        cache_source.inspect(|id| write("cache_source", Value::Text(id.to_string().into())));
        spent.fields(&mut write);
        unbounded.inspect(|why| write("budget_unbounded", Value::Text((*why).into())));
        differs_at
            .as_deref()
            .inspect(|pointer| write("cache_differs_at", text(pointer)));
        user_agent
            .as_deref()
            .inspect(|agent| write("user_agent", text(agent)));
        traceparent
            .as_deref()
            .inspect(|trace| write("traceparent", text(trace)));
        let hex = |id: u128, digits| Value::Text(format!("{id:0digits$x}").into());
        trace_id.inspect(|id| write("otel_trace_id", hex(u128::from_be_bytes(*id), 32)));
        parent.inspect(|id| {
            write(
                "otel_parent_span_id",
                hex(u64::from_be_bytes(*id).into(), 16),
            )
        });
        event_id
            .as_deref()
            .inspect(|id| write("event_id", text(id)));
        if !metadata.is_empty() {
            write("metadata", Value::Text(metadata::to_json(metadata).into()));
        }
    }
}
