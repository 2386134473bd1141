//! Who calls: the token that a request brings, and whose it is.
//!
//! A gateway keeps digests of its tokens. All of them are compared with each one that is brought, in
//! constant time: how long that takes tells neither whose it is nor how near it came.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use ring::digest;
use subtle::ConstantTimeEq;

use crate::credential::KeyPlaces;

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// What the configuration calls it.
    pub name: Box<str>,
    /// Who answers for it: a team, a cost centre.
    pub owner: Option<Box<str>>,
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
    pub fn new(required: bool, tokens: impl IntoIterator<Item = (Digest, Consumer)>) -> Self {
        let token = |(digest, consumer)| Token {
            digest,
            consumer: Arc::new(consumer),
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
        if self.is_empty() || brought.len() < SHORTEST {
            // A head may have thousands of short values: none is worth a digest.
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

    /// The tokens that stand where keys for providers may: in the places of this provider, in every
    /// header that sounds like a credential, in the query.
    pub fn in_key_slots(
        &self,
        places: Option<&KeyPlaces>,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Slots {
        let mut slots = Slots::default();
        let nowhere = KeyPlaces::default();
        for (name, value) in places.unwrap_or(&nowhere).credentials(headers) {
            if let Some(consumer) = self.consumer(value) {
                slots.consumer.get_or_insert_with(|| Arc::clone(consumer));
                slots.headers.push(name.to_owned());
            }
        }
        let mut pairs = query.into_iter().flat_map(|query| query.split('&'));
        let in_query = pairs.find_map(|pair| self.in_parameter(pair));
        slots.in_query = in_query.is_some();
        slots.consumer = slots.consumer.or_else(|| in_query.cloned());
        slots
    }

    /// Whose token the value of a parameter is, whatever its name: providers rename some.
    fn in_parameter(&self, pair: &str) -> Option<&Arc<Consumer>> {
        if pair.len() < SHORTEST {
            return None;
        }
        let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
        self.consumer(value.as_bytes())
    }

    /// A path and query without the parameters that are tokens.
    pub fn without_tokens(&self, target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else {
            return target.to_owned();
        };
        let pairs = query.split('&');
        let kept: Vec<_> = pairs
            .filter(|pair| self.in_parameter(pair).is_none())
            .collect();
        let mark = if kept.is_empty() { "" } else { "?" };
        format!("{path}{mark}{}", kept.join("&"))
    }

    /// Whose token a subprotocol is or carries: `<token>`, `xi-api-key.<token>`.
    pub fn in_offer(&self, offer: &str) -> Option<&Arc<Consumer>> {
        let behind = |dot: Option<usize>| dot.map(|dot| &offer[dot + 1..]);
        let parts = [
            Some(offer),
            behind(offer.find('.')),
            behind(offer.rfind('.')),
        ];
        let mut parts = parts.into_iter().flatten();
        parts.find_map(|part| self.consumer(part.as_bytes()))
    }
}

/// Where tokens stand that providers must not see.
#[derive(Debug, Default)]
pub struct Slots {
    /// Whose the first of them is.
    pub consumer: Option<Arc<Consumer>>,
    /// In these headers; a name may stand twice.
    pub headers: Vec<String>,
    /// In a parameter.
    pub in_query: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::schema::Auth;

    fn two() -> Authentication {
        let token = |token: &str, name: &str| {
            let owner = None;
            let name = name.into();
            (digest_of(token.as_bytes()), Consumer { name, owner })
        };
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
        for renamed in [
            "a=1&api_key=one-token-of-a-gateway&b",
            "a=1&k%65y=one-token-of-a-gateway&b",
        ] {
            assert!(slots(("x-note", "x"), Some(renamed)).in_query, "{renamed}");
            assert_eq!(two().without_tokens(&format!("/p?{renamed}")), "/p?a=1&b");
        }
        let only = "/p?key=one-token-of-a-gateway";
        assert_eq!(two().without_tokens(only), "/p");
        for elsewhere in ["q=one", "key", "key=", ""] {
            let found = slots(("x-note", "one-token-of-a-gateway"), Some(elsewhere));
            assert_eq!(found.consumer, None, "{elsewhere}");
        }
    }
}
