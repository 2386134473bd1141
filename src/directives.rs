//! `cf-aig-*` request headers: what a client asks of the gateway itself.
//!
//! Header names and meanings: contract of Cloudflare AI Gateway, request headers. None of
//! them reaches a provider.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::policy::Wishes;
use crate::error::{Failure, Kind};
use crate::logs::policy;
use crate::pricing::CustomCost;
use crate::routing::retry::{self, Backoff};
use crate::routing::timeouts::Timeouts;

/// Prefix of all of them but the legacy ones.
pub const PREFIX: &str = "cf-aig-";

/// Asks to be told what the answer took and cost, and tells it.
pub const USAGE: &str = "cf-aig-usage";

/// What all of them begin with, legacy ones included.
const FAMILY: &str = "cf-";
/// What those begin with that the contract does not know.
const OWN: &str = "tollgate-";

/// Longest correlation id that is echoed, in bytes.
const MAX_EVENT_ID: usize = 256;
/// Longest cache key that a client may choose, in bytes.
const MAX_CACHE_KEY: usize = 1024;
/// Most tags of one answer, and the longest one in bytes.
const MAX_TAGS: usize = 16;
const MAX_TAG: usize = 128;

/// Headers that speak to a gateway without bearing the prefix: credentials of an access
/// proxy in front of it, and names from before the prefix existed.
const UNPREFIXED: [HeaderName; 4] = [
    HeaderName::from_static("cf-access-jwt-assertion"),
    HeaderName::from_static("cf-access-token"),
    HeaderName::from_static("cf-cache-ttl"),
    HeaderName::from_static("cf-skip-cache"),
];

/// The directives of one request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `cf-aig-event-id`: the client's correlation id, echoed.
    pub event_id: Option<HeaderValue>,
    /// `cf-aig-byok-alias`: which stored key to use.
    pub key_alias: Option<Box<str>>,
    /// `cf-aig-cache-…`, `cf-aig-skip-cache`.
    pub cache: Wishes,
    /// `cf-aig-max-attempts`, `cf-aig-retry-delay`, `cf-aig-backoff`.
    pub retry: retry::Wishes,
    /// `cf-aig-request-timeout`: how long the answer's first byte may take.
    pub first_byte: Option<Duration>,
    /// `tollgate-trace`: the answer is to tell of all attempts.
    pub trace: bool,
    /// `cf-aig-usage`: the answer is to tell what it took and cost.
    pub usage: bool,
    /// `cf-aig-collect-log`, `cf-aig-collect-log-payload`.
    pub logs: policy::Wishes,
    /// `cf-aig-metadata`, unread: how it is read is up to the gateway.
    pub metadata: Option<HeaderValue>,
    /// `cf-aig-custom-cost`: what the call costs, whatever the price list says.
    pub custom_cost: Option<Box<CustomCost>>,
}

impl Directives {
    /// Reads them; a failure names the header.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut directives = Self::default();
        let mut legacy = Wishes::default();
        for (name, value) in headers {
            let name = name.as_str();
            if !name.starts_with(FAMILY) && !name.starts_with(OWN) {
                continue;
            }
            let Self {
                cache, retry, logs, ..
            } = &mut directives;
            match name {
                "cf-aig-event-id" => directives.event_id = event_id(value)?,
                "cf-aig-byok-alias" => directives.key_alias = Some(key_alias(value)?),
                "cf-aig-cache-ttl" => cache.ttl = Some(seconds(name, value)?),
                "cf-aig-skip-cache" => cache.skip = flag(name, value)?,
                "cf-aig-cache-key" => cache.key = Some(cache_key(value)?),
                "cf-aig-cache-tag" => tags(value, &mut cache.tags)?,
                "cf-aig-max-attempts" => retry.max_attempts = Some(max_attempts(value)?),
                "cf-aig-retry-delay" => retry.delay = Some(retry_delay(value)?),
                "cf-aig-backoff" => retry.backoff = Some(backoff(value)?),
                "cf-aig-request-timeout" => directives.first_byte = Some(request_timeout(value)?),
                "cf-aig-collect-log" => logs.collect = Some(flag(name, value)?),
                "cf-aig-collect-log-payload" => logs.payload = Some(flag(name, value)?),
                "cf-aig-metadata" => directives.metadata = Some(value.clone()),
                "cf-aig-custom-cost" => directives.custom_cost = Some(custom_cost(value)?),
                USAGE => directives.usage = flag(name, value)?,
                "tollgate-trace" => directives.trace = flag(name, value)?,
                "cf-cache-ttl" => legacy.ttl = Some(seconds(name, value)?),
                "cf-skip-cache" => legacy.skip = flag(name, value)?,
                _ => {}
            }
        }
        directives.cache.ttl = directives.cache.ttl.or(legacy.ttl);
        directives.cache.skip |= legacy.skip;
        Ok(directives)
    }
}

fn event_id(value: &HeaderValue) -> Result<Option<HeaderValue>, Failure> {
    if value.len() > MAX_EVENT_ID {
        let rule = format!("must be at most {MAX_EVENT_ID} bytes long");
        return Err(wrong("cf-aig-event-id", &rule));
    }
    Ok(Some(value.clone()).filter(|id| !id.is_empty()))
}

fn key_alias(value: &HeaderValue) -> Result<Box<str>, Failure> {
    text(value, usize::MAX).ok_or_else(|| wrong("cf-aig-byok-alias", "must name a stored key"))
}

fn seconds(name: &str, value: &HeaderValue) -> Result<u64, Failure> {
    digits(value).ok_or_else(|| {
        wrong(
            name,
            "must be a whole number of seconds, such as 3600; 0 switches the cache off",
        )
    })
}

fn flag(name: &str, value: &HeaderValue) -> Result<bool, Failure> {
    match value.as_bytes().trim_ascii() {
        yes if yes.eq_ignore_ascii_case(b"true") || yes == b"1" => Ok(true),
        no if no.eq_ignore_ascii_case(b"false") || no == b"0" || no.is_empty() => Ok(false),
        _ => Err(wrong(name, "must be true or false")),
    }
}

fn cache_key(value: &HeaderValue) -> Result<Box<str>, Failure> {
    let rule = || format!("must be 1 to {MAX_CACHE_KEY} visible ASCII characters");
    text(value, MAX_CACHE_KEY).ok_or_else(|| wrong("cf-aig-cache-key", &rule()))
}

/// Several headers, or several tags in one, separated by commas.
fn tags(value: &HeaderValue, tags: &mut Vec<Box<str>>) -> Result<(), Failure> {
    let rule = || {
        format!(
            "must be at most {MAX_TAGS} tags of visible ASCII characters, at most {MAX_TAG} each, separated by commas"
        )
    };
    let list = value
        .to_str()
        .map_err(|_| wrong("cf-aig-cache-tag", &rule()))?;
    let given = list.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    tags.extend(given.map(Into::into));
    if tags.len() > MAX_TAGS || tags.iter().any(|tag| tag.len() > MAX_TAG) {
        return Err(wrong("cf-aig-cache-tag", &rule()));
    }
    Ok(())
}

fn max_attempts(value: &HeaderValue) -> Result<u32, Failure> {
    let (least, most) = retry::MAX_ATTEMPTS.into_inner();
    let rule = || format!("must be a whole number from {least} to {most}");
    let number = digits(value).and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| retry::MAX_ATTEMPTS.contains(number))
        .ok_or_else(|| wrong("cf-aig-max-attempts", &rule()))
}

fn retry_delay(value: &HeaderValue) -> Result<Duration, Failure> {
    let range = Duration::ZERO..=retry::LONGEST_DELAY;
    milliseconds("cf-aig-retry-delay", value, range)
}

fn request_timeout(value: &HeaderValue) -> Result<Duration, Failure> {
    let range = Duration::from_millis(1)..=Timeouts::LONGEST;
    milliseconds("cf-aig-request-timeout", value, range)
}

fn milliseconds(
    name: &str,
    value: &HeaderValue,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Failure> {
    let rule = || {
        let (least, most) = (range.start().as_millis(), range.end().as_millis());
        format!("must be a whole number of milliseconds from {least} to {most}")
    };
    let time = digits(value).map(Duration::from_millis);
    time.filter(|time| range.contains(time))
        .ok_or_else(|| wrong(name, &rule()))
}

fn backoff(value: &HeaderValue) -> Result<Backoff, Failure> {
    match value.as_bytes().trim_ascii() {
        b"constant" => Ok(Backoff::Constant),
        b"linear" => Ok(Backoff::Linear),
        b"exponential" => Ok(Backoff::Exponential),
        _ => {
            let rule = "must be constant, linear or exponential";
            Err(wrong("cf-aig-backoff", rule))
        }
    }
}

fn custom_cost(value: &HeaderValue) -> Result<Box<CustomCost>, Failure> {
    let text = value
        .to_str()
        .map_err(|_| "it has other than visible ASCII characters".to_owned());
    let cost = text.and_then(CustomCost::parse);
    let refused = |fault: String| {
        let example =
            r#"{"per_token_in": 0.000003, "per_token_out": 0.000015} or {"total_cost": 0.02}"#;
        wrong(
            "cf-aig-custom-cost",
            &format!("must be such as {example}: {fault}"),
        )
    };
    Ok(Box::new(cost.map_err(refused)?))
}

/// A whole number; more digits than a number has are the largest one.
fn digits(value: &HeaderValue) -> Option<u64> {
    let digits = text(value, 32).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.map(|digits| digits.parse().unwrap_or(u64::MAX))
}

/// The value as text of 1 to `most` bytes, without the blanks around it.
fn text(value: &HeaderValue, most: usize) -> Option<Box<str>> {
    let text = value.to_str().ok()?.trim();
    (!text.is_empty() && text.len() <= most).then(|| text.into())
}

fn wrong(header: &str, rule: &str) -> Failure {
    Failure::because(Kind::BadRequest, format!("The header {header} {rule}"))
}

/// Whether a header is for the gateway and must not reach a provider.
pub fn is_for_gateway(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with(PREFIX)
        || name.starts_with(OWN)
        || (name.starts_with(FAMILY) && UNPREFIXED.iter().any(|known| known.as_str() == name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn reads_what_it_knows_and_ignores_the_rest() {
        let directives = Directives::parse(&headers(&[
            ("cf-aig-event-id", "e-1"),
            ("cf-aig-byok-alias", " team "),
            ("cf-aig-something-new", "x"),
        ]))
        .unwrap();
        assert_eq!(directives.event_id.unwrap(), "e-1");
        assert_eq!(directives.key_alias.as_deref(), Some("team"));
        assert_eq!(
            Directives::parse(&HeaderMap::new()).unwrap(),
            Directives::default()
        );
    }

    #[test]
    fn a_mistake_names_the_header() {
        let failure = Directives::parse(&headers(&[("cf-aig-byok-alias", " ")])).unwrap_err();
        assert!(failure.public.contains("cf-aig-byok-alias"));
        let long = "x".repeat(MAX_EVENT_ID + 1);
        let failure = Directives::parse(&headers(&[("cf-aig-event-id", &long)])).unwrap_err();
        assert!(failure.public.contains("cf-aig-event-id"));
    }

    #[test]
    fn reads_what_is_asked_of_the_cache() {
        let asked = Directives::parse(&headers(&[
            ("cf-aig-cache-ttl", " 3600 "),
            ("cf-aig-skip-cache", "True"),
            ("cf-aig-cache-key", "faq-1"),
            ("cf-aig-cache-tag", "a, b,,c"),
        ]))
        .unwrap();
        assert_eq!((asked.cache.ttl, asked.cache.skip), (Some(3600), true));
        assert_eq!(asked.cache.key.as_deref(), Some("faq-1"));
        assert_eq!(
            asked.cache.tags,
            ["a".into(), "b".into(), "c".into()] as [Box<str>; 3]
        );
    }

    #[test]
    fn legacy_names_work_and_the_new_ones_go_before_them() {
        let parse = |pairs| Directives::parse(&headers(pairs)).unwrap().cache;
        let legacy = parse(&[("cf-cache-ttl", "90"), ("cf-skip-cache", "true")]);
        assert_eq!((legacy.ttl, legacy.skip), (Some(90), true));
        let both = parse(&[("cf-cache-ttl", "90"), ("cf-aig-cache-ttl", "120")]);
        assert_eq!(both.ttl, Some(120));
    }

    #[test]
    fn what_is_asked_wrongly_of_the_cache_names_the_header() {
        let long = "x".repeat(MAX_CACHE_KEY + 1);
        let many = "t,".repeat(MAX_TAGS + 1);
        for (name, value) in [
            ("cf-aig-cache-ttl", "soon"),
            ("cf-aig-cache-ttl", "-1"),
            ("cf-aig-cache-ttl", "1.5"),
            ("cf-cache-ttl", "5m"),
            ("cf-aig-skip-cache", "maybe"),
            ("cf-aig-cache-key", ""),
            ("cf-aig-cache-key", &long),
            ("cf-aig-cache-tag", &many),
        ] {
            let failure = Directives::parse(&headers(&[(name, value)])).unwrap_err();
            assert!(failure.public.contains(name), "{name}: {value}: {failure}");
        }
        let endless = "9".repeat(30);
        let endless = Directives::parse(&headers(&[("cf-aig-cache-ttl", &endless)])).unwrap();
        assert_eq!(endless.cache.ttl, Some(u64::MAX));
    }

    #[test]
    fn reads_how_often_and_how_long_it_may_be_tried() {
        let asked = Directives::parse(&headers(&[
            ("cf-aig-max-attempts", " 5 "),
            ("cf-aig-retry-delay", "0"),
            ("cf-aig-backoff", "linear"),
            ("cf-aig-request-timeout", "86400000"),
        ]))
        .unwrap();
        let wishes = retry::Wishes {
            max_attempts: Some(5),
            delay: Some(Duration::ZERO),
            backoff: Some(Backoff::Linear),
        };
        assert_eq!(asked.retry, wishes);
        assert_eq!(asked.first_byte, Some(Timeouts::LONGEST));
        let longest = Directives::parse(&headers(&[("cf-aig-retry-delay", "60000")])).unwrap();
        assert_eq!(longest.retry.delay, Some(retry::LONGEST_DELAY));
    }

    #[test]
    fn an_answer_may_be_asked_to_tell_what_it_took() {
        let asked = |value| Directives::parse(&headers(&[("cf-aig-usage", value)]));
        assert!(asked("true").unwrap().usage);
        assert!(!asked("false").unwrap().usage);
        let failure = asked("yes").unwrap_err();
        assert_eq!(
            failure.public,
            "The header cf-aig-usage must be true or false"
        );
    }

    #[test]
    fn what_is_asked_wrongly_of_tries_names_the_header_and_the_rule() {
        let endless = "9".repeat(30);
        for (name, values, rule) in [
            (
                "cf-aig-max-attempts",
                ["0", "6", "4294967297", "many"],
                "must be a whole number from 1 to 5",
            ),
            (
                "cf-aig-retry-delay",
                ["60001", "1s", "-1", &endless],
                "must be a whole number of milliseconds from 0 to 60000",
            ),
            (
                "cf-aig-backoff",
                ["", "none", "Linear", "linear, constant"],
                "must be constant, linear or exponential",
            ),
            (
                "cf-aig-request-timeout",
                ["0", "86400001", "+5", ""],
                "must be a whole number of milliseconds from 1 to 86400000",
            ),
        ] {
            for value in values {
                let failure = Directives::parse(&headers(&[(name, value)])).unwrap_err();
                let expected = format!("The header {name} {rule}");
                assert_eq!(failure.public, expected, "{value}");
                assert_eq!(failure.kind, Kind::BadRequest);
            }
        }
    }

    #[test]
    fn knows_what_is_for_the_gateway() {
        for name in [
            "cf-aig-authorization",
            "cf-aig-anything",
            "cf-access-token",
            "cf-cache-ttl",
            "tollgate-trace",
        ] {
            assert!(is_for_gateway(&name.parse().unwrap()), "{name}");
        }
        for name in ["authorization", "cf-ray", "x-api-key", "traceparent"] {
            assert!(!is_for_gateway(&name.parse().unwrap()), "{name}");
        }
    }
}
