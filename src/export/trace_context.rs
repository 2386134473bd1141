//! Where in a trace a request stands: what its client says of it, or a trace of its own.
//!
//! Sources: Cloudflare AI Gateway, OpenTelemetry export (`cf-aig-otel-trace-id`,
//! `cf-aig-otel-parent-span-id`); W3C Trace Context, level 1 (`traceparent`). Leaves out
//! `tracestate`, which belongs to the vendors along the way.

use http::{HeaderMap, HeaderName};
use uuid::Uuid;

use crate::record::RequestRecord;

/// 32 hexadecimal digits.
static TRACE_ID: HeaderName = HeaderName::from_static("cf-aig-otel-trace-id");
/// 16 hexadecimal digits.
static PARENT: HeaderName = HeaderName::from_static("cf-aig-otel-parent-span-id");

/// Of a trace; never all zeros, which is no id.
pub type TraceId = [u8; 16];
/// Of a span; never all zeros.
pub type SpanId = [u8; 8];

/// What the headers `cf-aig-otel-*` say. What is malformed is as good as absent: a request is not
/// refused for its telemetry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// The trace that the client wants the request in.
    pub trace_id: Option<TraceId>,
    /// The client's span that it belongs under; means nothing without the trace.
    pub parent: Option<SpanId>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The client's span; `None` where the request begins the trace.
    pub parent: Option<SpanId>,
}

impl Given {
    /// Reads the headers of a request.
    pub fn read(headers: &HeaderMap) -> Self {
        let value = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes());
        Self {
            trace_id: value(&TRACE_ID).and_then(id),
            parent: value(&PARENT).and_then(id),
        }
    }
}

impl TraceContext {
    /// The headers `cf-aig-otel-*` go first, then `traceparent`, which also names the parent where
    /// only the trace is given and is the same. Else the request begins a trace.
    ///
    /// `traceparent`'s flag *sampled* is not asked: it says what the client's own tracing keeps,
    /// but what its calls cost is wanted of all of them, as Cloudflare exports all of them.
    pub fn of(record: &RequestRecord) -> Self {
        let w3c = record.traceparent.as_deref().and_then(traceparent);
        let Some(trace_id) = record.otel.trace_id else {
            return w3c.unwrap_or_else(|| Self::begun_by(record.id));
        };
        let same = w3c.filter(|w3c| w3c.trace_id == trace_id);
        Self {
            trace_id,
            parent: record.otel.parent.or(same.and_then(|w3c| w3c.parent)),
        }
    }

    /// A trace of the request's own has the id of the request (`cf-aig-log-id`), so that one is
    /// found by the other. Its last 62 bits are random, as samplers want them.
    fn begun_by(request: Uuid) -> Self {
        let digest = *blake3::hash(request.as_bytes()).as_bytes();
        let [hashed, _] = halves(digest);
        let id = *request.as_bytes();
        Self {
            trace_id: if id == [0; 16] { hashed } else { id },
            parent: None,
        }
    }
}

/// The id of a span of a request: 0 is its own, its failed attempts follow. All that is left to
/// chance in it is the request's own id, so that whoever is told of a request twice can see that.
pub fn span_id(request: Uuid, number: u32) -> SpanId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(request.as_bytes());
    hasher.update(&number.to_be_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // One in 2⁶⁴.
    if id == [0; 8] {
        id = [1; 8];
    }
    id
}

fn halves(digest: [u8; 32]) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    for (half, bytes) in halves.iter_mut().zip(digest.chunks_exact(16)) {
        half.copy_from_slice(bytes);
    }
    halves
}

/// `00-<trace id>-<parent id>-<flags>`, all in lower case. Later versions may say more behind
/// another hyphen; version `ff` is forbidden.
fn traceparent(text: &str) -> Option<TraceContext> {
    let bytes = text.trim().as_bytes();
    let (known, rest) = bytes.split_at_checked(55)?;
    let [version, trace_id, parent, flags] =
        [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    let hyphens = [known[2], known[35], known[52]] == [b'-'; 3];
    let is_whole = match version {
        b"ff" => false,
        b"00" => rest.is_empty(),
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let is_lower = !known.iter().any(u8::is_ascii_uppercase);
    let is_hex = hex::<1>(version).is_some() && hex::<1>(flags).is_some();
    if !(hyphens && is_whole && is_lower && is_hex) {
        return None;
    }
    Some(TraceContext {
        trace_id: id(trace_id)?,
        parent: Some(id(parent)?),
    })
}

/// An id in hexadecimal digits, unless it is all zeros.
fn id<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    hex(digits).filter(|id| *id != [0; N])
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    let digit = char::from(character).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::telemetry::access::tests::record;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn given(trace: &[u8], parent: &[u8]) -> Given {
        let mut headers = HeaderMap::new();
        for (name, value) in [(&TRACE_ID, trace), (&PARENT, parent)] {
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        }
        Given::read(&headers)
    }

    /// (trace id, parent) as text.
    fn context(otel: Given, traceparent: Option<&str>) -> (String, Option<String>) {
        let mut record = record();
        record.id = Uuid::from_u128(0x0123);
        record.otel = otel;
        record.traceparent = traceparent.map(Into::into);
        let context = TraceContext::of(&record);
        let show = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
        (
            show(&context.trace_id),
            context.parent.map(|parent| show(&parent)),
        )
    }

    #[test]
    fn the_headers_of_the_contract_go_before_the_standard_one() {
        let own = format!("{:032x}", 0x0123);
        let other = "11111111111111111111111111111111";
        let both = given(TRACE.as_bytes(), SPAN.as_bytes());
        let only_trace = given(TRACE.as_bytes(), b"");
        let only_parent = given(b"", SPAN.as_bytes());
        let same = format!("00-{TRACE}-2222222222222222-01");
        let differs = format!("00-{other}-2222222222222222-00");
        let parent = |text: &str| Some(text.to_owned());
        for (otel, w3c, expected) in [
            (Given::default(), None, (own.as_str(), None)),
            (only_parent, None, (&own, None)),
            (both, None, (TRACE, parent(SPAN))),
            (both, Some(&*differs), (TRACE, parent(SPAN))),
            (only_trace, None, (TRACE, None)),
            (only_trace, Some(&differs), (TRACE, None)),
            (only_trace, Some(&same), (TRACE, parent("2222222222222222"))),
            // Not sampled by the client, and told all the same.
            (
                Given::default(),
                Some(&differs),
                (other, parent("2222222222222222")),
            ),
        ] {
            let expected = (expected.0.to_owned(), expected.1);
            assert_eq!(context(otel, w3c), expected, "{otel:?} {w3c:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_as_good_as_absent() {
        let long = "a".repeat(10_000);
        for text in [
            &b""[..],
            b"xyz",
            b"00000000000000000000000000000000",
            b"0af7651916cd43dd8448eb211c80319",
            b"0af7651916cd43dd8448eb211c80319cc",
            b"0af7651916cd43dd8448eb211c80319g",
            b"0af76519-16cd-43dd-8448-eb211c80319c",
            b"+af7651916cd43dd8448eb211c80319c",
            b"\xff\xff7651916cd43dd8448eb211c80319c",
            long.as_bytes(),
        ] {
            assert_eq!(given(text, text), Given::default(), "{text:?}");
        }
        let upper = given(TRACE.to_uppercase().as_bytes(), b"0000000000000000");
        assert_eq!(upper, given(TRACE.as_bytes(), b""));
    }

    #[test]
    fn traceparent_is_read_as_the_standard_says() {
        for (text, is_valid) in [
            (format!("00-{TRACE}-{SPAN}-00"), true),
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!(" 00-{TRACE}-{SPAN}-01 "), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-is-new"), true),
            (format!("cc-{TRACE}-{SPAN}-01.what-is-new"), false),
            (format!("00-{TRACE}-{SPAN}-01-more"), false),
            (format!("ff-{TRACE}-{SPAN}-01"), false),
            (format!("0x-{TRACE}-{SPAN}-01"), false),
            (format!("00-{TRACE}-{SPAN}-0"), false),
            (format!("00-{TRACE}-{SPAN}-zz"), false),
            (format!("00_{TRACE}-{SPAN}-01"), false),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), false),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-{SPAN}"), false),
            ("é".repeat(40), false),
            (String::new(), false),
        ] {
            assert_eq!(traceparent(&text).is_some(), is_valid, "{text}");
        }
    }

    #[test]
    fn ids_are_those_of_the_request_and_never_zero() {
        let request = Uuid::from_u128(7);
        assert_eq!(span_id(request, 0), span_id(request, 0));
        assert_ne!(span_id(request, 0), span_id(request, 1));
        assert_ne!(span_id(request, 0), span_id(Uuid::nil(), 0));
        assert_ne!(TraceContext::begun_by(Uuid::nil()).trace_id, [0; 16]);
        assert_eq!(
            TraceContext::begun_by(request).trace_id,
            *request.as_bytes()
        );
    }
}
