//! Who calls: the token that a request brings, and whose it is.
//!
//! A gateway keeps digests of its tokens. All of them are compared with each one that is brought, in
//! constant time: how long that takes tells neither whose it is nor how near it came.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ring::digest;
use subtle::ConstantTimeEq;

use crate::credential::{KeyPlaces, usual_headers};

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// What the configuration calls it.
    pub name: Box<str>,
}

/// Fewest bytes of a token: fewer can be guessed.
pub const SHORTEST: usize = 16;

/// SHA-256 of a token.
pub type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// Who may pass a gateway.
#[derive(Debug, Default)]
pub struct Authentication {
    /// Requests without one of the tokens are refused.
    pub required: bool,
    tokens: Vec<Token>,
}

struct Token {
    digest: Digest,
    consumer: Arc<Consumer>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(f)
    }
}

/// The digest of a token.
pub fn digest_of(token: &[u8]) -> Digest {
    let mut all = Digest::default();
    all.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    all
}

/// A token without `Bearer ` or another scheme before it: no token has a space.
pub fn bare(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let space = value.iter().rposition(u8::is_ascii_whitespace);
    &value[space.map_or(0, |space| space + 1)..]
}

impl Authentication {
    /// These tokens and whose they are.
    pub fn new(required: bool, tokens: impl IntoIterator<Item = (Digest, Box<str>)>) -> Self {
        let token = |(digest, name)| Token {
            digest,
            consumer: Arc::new(Consumer { name }),
        };
        Self {
            required,
            tokens: tokens.into_iter().map(token).collect(),
        }
    }

    /// Nobody has a token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whose token it is. What stands before it is left out ([`bare`]).
    pub fn consumer(&self, brought: &[u8]) -> Option<&Arc<Consumer>> {
        let brought = bare(brought);
        if brought.len() < SHORTEST {
            // A head may have thousands of such values: none is worth a digest.
            return None;
        }
        let digest = digest_of(brought);
        let mut found = None;
        for token in &self.tokens {
            if token.digest.ct_eq(&digest).into() {
                found = Some(&token.consumer);
            }
        }
        found
    }

    /// The tokens that stand where keys for providers do: in the places of this provider, in the
    /// headers in which SDKs send keys, in its query.
    pub fn in_key_slots(
        &self,
        places: Option<&KeyPlaces>,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Slots {
        let mut slots = Slots::default();
        let own = places.into_iter().flat_map(KeyPlaces::headers);
        for name in own.chain(usual_headers()) {
            let mut values = headers.get_all(name).iter();
            let consumer = values.find_map(|value| self.consumer(value.as_bytes()));
            if let Some(consumer) = consumer
                && !slots.headers.contains(name)
            {
                slots.consumer.get_or_insert_with(|| Arc::clone(consumer));
                slots.headers.push(name.clone());
            }
        }
        let is_token = |pair: &str| {
            let places = places?;
            // The name as it is written: so it is taken off, too.
            let (name, _) = pair.split_once('=')?;
            let mut places = places
                .query()
                .filter(|place| place.eq_ignore_ascii_case(name));
            places.next()?;
            let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            self.consumer(value.as_bytes())
        };
        let consumer = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(is_token);
        slots.in_query = consumer.is_some();
        slots.consumer = slots.consumer.or_else(|| consumer.cloned());
        slots
    }
}

/// Where tokens stand that providers must not see.
#[derive(Debug, Default)]
pub struct Slots {
    /// Whose the first of them is.
    pub consumer: Option<Arc<Consumer>>,
    /// In these headers.
    pub headers: Vec<HeaderName>,
    /// In a parameter in which a key may stand.
    pub in_query: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::schema::Auth;

    fn two() -> Authentication {
        let token = |token: &str, name: &str| (digest_of(token.as_bytes()), name.into());
        Authentication::new(
            true,
            [
                token("one-token-of-a-gateway", "ci"),
                token("other-token-of-a-gateway", "app"),
            ],
        )
    }

    fn name(consumer: Option<&Arc<Consumer>>) -> Option<&str> {
        consumer.map(|consumer| &*consumer.name)
    }

    #[test]
    fn a_token_is_found_with_and_without_a_scheme_and_only_whole() {
        let all = two();
        for brought in [
            "one-token-of-a-gateway",
            "Bearer one-token-of-a-gateway",
            "bearer  one-token-of-a-gateway ",
            "Key one-token-of-a-gateway",
        ] {
            assert_eq!(
                name(all.consumer(brought.as_bytes())),
                Some("ci"),
                "{brought}"
            );
        }
        assert_eq!(name(all.consumer(b"other-token-of-a-gateway")), Some("app"));
        for none in [
            "",
            "Bearer",
            "one-token-of-a-gatewa",
            "one-token-of-a-gateway2",
            "ONE-TOKEN-OF-A-GATEWAY",
            "one-token-of-a-gateway x",
        ] {
            assert_eq!(all.consumer(none.as_bytes()), None, "{none}");
        }
        assert_eq!(Authentication::default().consumer(b""), None);
    }

    #[test]
    fn what_is_printed_of_it_holds_no_digest() {
        let shown = format!("{:?}", two());
        assert!(shown.contains("ci") && !shown.contains("digest"), "{shown}");
    }

    #[test]
    fn tokens_are_found_where_keys_stand() {
        let auth = Auth::Header {
            name: "x-goog-api-key".into(),
            prefix: String::new(),
            also: Vec::new(),
            query: Some("key".into()),
        };
        let places = KeyPlaces::new(&auth).unwrap();
        let slots = |header: (&'static str, &str), query| {
            let mut headers = HeaderMap::new();
            headers.insert(header.0, header.1.parse().unwrap());
            two().in_key_slots(Some(&places), &headers, query)
        };
        for header in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
            let found = slots(
                (header, "Bearer one-token-of-a-gateway"),
                Some("key=sk-own"),
            );
            assert_eq!(name(found.consumer.as_ref()), Some("ci"), "{header}");
            assert_eq!(found.headers, [header]);
            assert!(!found.in_query);
        }
        let found = slots(
            ("x-api-key", "sk-own"),
            Some("alt=sse&KEY=other%2Dtoken-of-a-gateway"),
        );
        assert_eq!(name(found.consumer.as_ref()), Some("app"));
        assert!(found.in_query && found.headers.is_empty());
        for elsewhere in [
            "q=one-token-of-a-gateway",
            "k%65y=one-token-of-a-gateway",
            "key",
            "key=",
            "",
        ] {
            let found = slots(("x-note", "one-token-of-a-gateway"), Some(elsewhere));
            assert_eq!(found.consumer, None, "{elsewhere}");
        }
    }
}
