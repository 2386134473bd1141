//! One finished request, as the request path hands it to the store.
//!
//! Everything here is owned, so that nothing of the request is borrowed once it was offered.
//! Durations are microseconds, sizes bytes, money pico-dollars (1e-12 US dollars).

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::metadata::Metadata;
use crate::record::Lines;

/// A text that is often one of a closed vocabulary, and then costs nothing.
pub type Text = Cow<'static, str>;

/// Names and values of a head, in order.
pub type Head = Vec<(Text, Text)>;

/// One finished request.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// UUIDv7. Entries are ordered by its time; any other version is kept, in an order of chance.
    pub id: Uuid,
    /// When the request began; kept in milliseconds. The time in `id` is taken instead when it
    /// is absent, or more than ten seconds away from that: date filters look no farther.
    pub created_at: Option<SystemTime>,
    /// Account of the gateway.
    pub account: Text,
    /// Name of the gateway.
    pub gateway: Text,
    /// Provider that answered, or was asked last.
    pub provider: Option<Text>,
    /// Model that was asked, or else the one that answered.
    pub model: Option<Text>,
    /// Model that the answer names, where that is another.
    pub answer_model: Option<Text>,
    /// Kind of model, such as `chat`.
    pub model_type: Option<Text>,
    /// Path without query.
    pub path: Text,
    /// HTTP method.
    pub method: Text,
    /// `Universal`, `WebSockets`, …
    pub request_type: Option<Text>,
    /// HTTP version of the client's request.
    pub http_version: Text,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The client's `user-agent`.
    pub user_agent: Option<Text>,
    /// `cf-aig-event-id`.
    pub event_id: Option<Text>,
    /// The gateway demanded a token.
    pub authentication: bool,
    /// A stored key was spent.
    pub byok: bool,
    /// Its alias.
    pub key_alias: Option<Text>,
    /// The consumer whose key the client showed.
    pub consumer: Option<Text>,
    /// Who owns that key.
    pub owner: Option<Text>,
    /// The route that served it.
    pub route: Option<Text>,
    /// Place of the step that answered, from 0.
    pub step: u32,
    /// Place of the target that answered, from 0.
    pub target: u32,
    /// Status that the client received; 0 when it received none.
    pub status: u16,
    /// Status that the provider gave, where that is another.
    pub provider_status: Option<u16>,
    /// The client got a good answer.
    pub success: bool,
    /// It came out of the cache.
    pub cached: bool,
    /// `hit`, `miss`, …
    pub cache_status: Option<Text>,
    /// Where in the cache it lay.
    pub cache_tier: Option<Text>,
    /// The request to which the provider gave the answer.
    pub cache_source: Option<Uuid>,
    /// An answer of events or a protocol upgrade.
    pub streamed: bool,
    /// The answer reached its end.
    pub complete: bool,
    /// Who is at fault.
    pub error_source: Option<Text>,
    /// What went wrong, out of a closed vocabulary.
    pub error: Option<Text>,
    /// The same for people. A detail.
    pub error_detail: Option<Text>,
    /// Which policy said no.
    pub denied_by: Option<Text>,
    /// Attempts, at whatever provider.
    pub attempts: u32,
    /// Those that failed, in order. A detail.
    pub tried: Vec<Attempt>,
    /// The client's `content-type`.
    pub request_content_type: Option<Text>,
    /// The answer's.
    pub response_content_type: Option<Text>,
    /// Body bytes from the client, kept or not.
    pub request_size: u64,
    /// Body bytes to the client, kept or not.
    pub response_size: u64,
    /// How long it took.
    pub timings: Timings,
    /// Tokens, where they are known.
    pub usage: Option<Tokens>,
    /// They are an estimate.
    pub usage_estimated: bool,
    /// The provider's class of service.
    pub service_tier: Option<Text>,
    /// Cost in pico-dollars.
    pub cost: Option<i64>,
    /// What the cache saved, in pico-dollars.
    pub saved: Option<i64>,
    /// Where the price came from.
    pub cost_source: Option<Text>,
    /// The price was the client's own.
    pub custom_cost: bool,
    /// The client's metadata. A detail.
    pub metadata: Metadata,
    /// The client's `traceparent`.
    pub traceparent: Option<Text>,
    /// Heads (details) and bodies; `None` where only the row is wanted.
    pub payload: Option<Box<Payload>>,
}

/// Microseconds, from the request's head on unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// To the end of the answer.
    pub duration: u64,
    /// From the first try to the provider's last byte.
    pub upstream: Option<u64>,
    /// Spent in the gateway itself.
    pub overhead: Option<u64>,
    /// To the provider's response head.
    pub first_byte: Option<u64>,
    /// To the first token of a streamed answer.
    pub first_token: Option<u64>,
    /// Spent waiting for a place at a provider.
    pub waited: Option<u64>,
}

/// Tokens of one answer; what is absent was not reported. `input` and `output` contain the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the words of OpenTelemetry's GenAI conventions
pub struct Tokens {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cached_input: Option<u64>,
    pub cache_write: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub reasoning: Option<u64>,
    pub input_audio: Option<u64>,
    pub output_audio: Option<u64>,
    pub cached_audio: Option<u64>,
    pub input_image: Option<u64>,
    pub output_image: Option<u64>,
    pub web_searches: Option<u64>,
}

/// One attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `provider/model`, where there are several.
    pub target: Option<Text>,
    /// Why.
    pub cause: Text,
    /// The provider's status, if it came to one.
    pub status: Option<u16>,
    /// Milliseconds until it failed.
    pub ms: u64,
}

/// Heads and bodies, as they were sent and received.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// Head of the client's request.
    pub request_head: Lines,
    /// Head of the answer.
    pub response_head: Lines,
    /// Body of the request, in pieces; `None` is a body that is not to be kept.
    pub request: Option<Vec<Bytes>>,
    /// Body of the answer.
    pub response: Option<Vec<Bytes>>,
    /// `request` is all of it.
    pub request_complete: bool,
    /// `response` is all of it.
    pub response_complete: bool,
}

impl Entry {
    /// About how many bytes it occupies while it waits.
    pub fn weight(&self) -> usize {
        let payload = self.payload.as_deref().map_or(0, Payload::weight);
        size_of::<Self>() + self.details_weight() + payload
    }

    fn details_weight(&self) -> usize {
        let tried = self.tried.len() * size_of::<Attempt>();
        let detail = self.error_detail.as_ref().map_or(0, |detail| detail.len());
        tried + detail + self.metadata.weight()
    }

    /// Gives up the bodies; says whether there were any.
    pub fn shed_bodies(&mut self) -> bool {
        let Some(payload) = &mut self.payload else {
            return false;
        };
        let had = payload.request.is_some() || payload.response.is_some();
        payload.request = None;
        payload.response = None;
        had
    }

    /// Gives up heads, metadata, the trace of attempts and the error's detail, and with the
    /// heads the bodies, which could no longer be understood; says whether there were any.
    pub fn shed_details(&mut self) -> bool {
        let had = self.payload.is_some() || self.details_weight() > 0;
        self.payload = None;
        self.tried = Vec::new();
        self.error_detail = None;
        self.metadata = Metadata::default();
        had
    }

    /// Cuts both bodies to `most` bytes each.
    pub fn cut_bodies(&mut self, most: usize) {
        if let Some(payload) = &mut self.payload {
            payload.request_complete &= !cut(&mut payload.request, most);
            payload.response_complete &= !cut(&mut payload.response, most);
        }
    }
}

impl Payload {
    fn weight(&self) -> usize {
        let body = |body: &Option<Vec<Bytes>>| {
            body.iter()
                .flatten()
                .map(|piece| size_of::<Bytes>() + piece.len())
                .sum::<usize>()
        };
        let heads = self.request_head.held() + self.response_head.held();
        size_of::<Self>() + heads + body(&self.request) + body(&self.response)
    }
}

/// Says whether anything was cut off.
fn cut(body: &mut Option<Vec<Bytes>>, most: usize) -> bool {
    let mut left = most;
    let mut cut = false;
    if let Some(pieces) = body {
        pieces.retain_mut(|piece| {
            cut |= piece.len() > left;
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
    }
    cut
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with_bodies(pieces: &[&'static str]) -> Entry {
        let body = || Some(pieces.iter().map(|piece| Bytes::from(*piece)).collect());
        Entry {
            payload: Some(Box::new(Payload {
                request: body(),
                response: body(),
                request_complete: true,
                response_complete: true,
                ..Payload::default()
            })),
            ..Entry::default()
        }
    }

    #[test]
    fn bodies_are_cut_at_the_byte() {
        for (most, left, complete) in [
            (6, "abcdef", true),
            (5, "abcde", false),
            (3, "abc", false),
            (0, "", false),
        ] {
            let mut entry = with_bodies(&["abc", "def"]);
            entry.cut_bodies(most);
            let payload = entry.payload.unwrap();
            assert_eq!(payload.request.unwrap().concat(), left.as_bytes());
            assert_eq!(payload.response_complete, complete, "{most}");
        }
    }

    #[test]
    fn bodies_go_before_details() {
        let mut entry = with_bodies(&["abc"]);
        entry.error_detail = Some("x".into());
        let full = entry.weight();
        assert!(entry.shed_bodies() && !entry.shed_bodies());
        assert!(entry.weight() < full && entry.error_detail.is_some());
        assert!(entry.shed_details() && !entry.shed_details());
        assert_eq!(entry.weight(), size_of::<Entry>());
    }
}
