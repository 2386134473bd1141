//! `cf-aig-*` request headers: what a client asks of the gateway itself.
//!
//! Header names and meanings: contract of Cloudflare AI Gateway, request headers. None of
//! them reaches a provider.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Failure, Kind};

/// Prefix of all of them.
pub const PREFIX: &str = "cf-aig-";

const EVENT_ID: HeaderName = HeaderName::from_static("cf-aig-event-id");
const KEY_ALIAS: HeaderName = HeaderName::from_static("cf-aig-byok-alias");

/// Longest correlation id that is echoed, in bytes.
const MAX_EVENT_ID: usize = 256;

/// Headers that speak to a gateway without bearing the prefix: credentials of an access
/// proxy in front of it.
const GATEWAY_CREDENTIALS: [HeaderName; 2] = [
    HeaderName::from_static("cf-access-jwt-assertion"),
    HeaderName::from_static("cf-access-token"),
];

/// The directives of one request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `cf-aig-event-id`: the client's correlation id, echoed.
    pub event_id: Option<HeaderValue>,
    /// `cf-aig-byok-alias`: which stored key to use.
    pub key_alias: Option<Box<str>>,
}

impl Directives {
    /// Reads them; a failure names the header.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        let event_id = headers.get(EVENT_ID);
        if event_id.is_some_and(|id| id.len() > MAX_EVENT_ID) {
            return Err(wrong(
                "cf-aig-event-id",
                &format!("must be at most {MAX_EVENT_ID} bytes long"),
            ));
        }
        let key_alias = match headers.get(KEY_ALIAS).map(HeaderValue::to_str) {
            None => None,
            Some(Ok(alias)) if !alias.trim().is_empty() => Some(alias.trim().into()),
            Some(_) => return Err(wrong("cf-aig-byok-alias", "must name a stored key")),
        };
        Ok(Self {
            event_id: event_id.filter(|id| !id.is_empty()).cloned(),
            key_alias,
        })
    }
}

fn wrong(header: &str, rule: &str) -> Failure {
    Failure::because(Kind::BadRequest, format!("The header {header} {rule}"))
}

/// Whether a header is for the gateway and must not reach a provider.
pub fn is_for_gateway(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX) || GATEWAY_CREDENTIALS.contains(name)
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
    fn knows_what_is_for_the_gateway() {
        for name in ["cf-aig-authorization", "cf-aig-anything", "cf-access-token"] {
            assert!(is_for_gateway(&name.parse().unwrap()), "{name}");
        }
        for name in ["authorization", "cf-ray", "x-api-key", "traceparent"] {
            assert!(!is_for_gateway(&name.parse().unwrap()), "{name}");
        }
    }
}
