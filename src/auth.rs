//! Who calls: the token or the key of our own that a request brings, and whose it is.
//!
//! A gateway keeps digests of its tokens. All of them are compared with each one that is brought, in
//! constant time: how long that takes tells neither whose it is nor how near it came. Keys are found
//! by their public id ([`crate::keys`]) and compared in the same way. [`Known`] is both together, and
//! knows where on a request they may stand.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use ring::digest;
use subtle::ConstantTimeEq;

use crate::credential::KeyPlaces;
use crate::keys::table::Gate;
use crate::keys::{Refused, Table, secret};
use crate::limits::bounds::Bounds;
use crate::metadata::Metadata;

/// Who a token or a key belongs to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Consumer {
    /// The public id of the key; `None` for a token of the configuration.
    pub id: Option<Box<str>>,
    /// What the configuration, or who made the key, calls it.
    pub name: Box<str>,
    /// Who answers for it: a team, a cost centre.
    pub owner: Option<Box<str>>,
    /// What is noted of each of its requests.
    pub metadata: Metadata,
    /// Within what its requests may pass.
    pub bounds: Bounds,
}

impl Consumer {
    /// What tells it apart from all others: of keys names may be alike.
    pub fn identity(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }

    /// One that nothing else is known of.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
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
        self.of_digest(&digest_of(brought))
    }

    fn of_digest(&self, digest: &Digest) -> Option<&Arc<Consumer>> {
        let mut found = None;
        for token in &self.tokens {
            if token.digest.ct_eq(digest).into() {
                found = Some(&token.consumer);
            }
        }
        found
    }

    /// Whether a subprotocol is or carries a token, or what looks like a key of ours: no provider is
    /// to see it.
    pub fn is_in_offer(&self, offer: &str) -> bool {
        parts_of(offer).any(|part| {
            let part = part.as_bytes();
            self.consumer(part).is_some() || secret::id_in(bare(part)).is_some()
        })
    }
}

/// What a subprotocol may say: `<token>`, `xi-api-key.<token>`.
fn parts_of(offer: &str) -> impl Iterator<Item = &str> {
    let behind = |dot: Option<usize>| dot.map(|dot| &offer[dot + 1..]);
    let parts = [
        Some(offer),
        behind(offer.find('.')),
        behind(offer.rfind('.')),
    ];
    parts.into_iter().flatten()
}

/// Whose it is that was brought, or why it lets nobody pass.
pub type Brought = Result<Arc<Consumer>, Refused>;

/// Everybody whom a gateway knows at one moment: by its tokens, and by keys of our own.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its tokens.
    pub tokens: &'a Authentication,
    /// All keys.
    pub keys: &'a Table,
    /// Which gateway it is, and the moment.
    pub gate: Gate<'a>,
}

impl Known<'_> {
    /// Whose token or key it is; `None` where it is neither, and may be a provider's.
    pub fn whose(&self, brought: &[u8]) -> Option<Brought> {
        let brought = bare(brought);
        let is_key = secret::id_in(brought).is_some();
        let is_token = !self.tokens.is_empty() && brought.len() >= SHORTEST;
        if !is_key && !is_token {
            return None;
        }
        let digest = digest_of(brought);
        if let Some(consumer) = self.tokens.of_digest(&digest) {
            return Some(Ok(Arc::clone(consumer)));
        }
        is_key.then(|| self.keys.pass(brought, &digest, self.gate).cloned())
    }

    /// The same for a place in which nothing but ours may stand: also what only begins like a key is
    /// a bad one.
    pub fn whose_of_ours(&self, brought: &[u8]) -> Option<Brought> {
        let bad = || secret::begins_like_one(bare(brought)).then_some(Err(Refused::Unknown));
        self.whose(brought).or_else(bad)
    }

    /// The tokens and keys that stand where keys for providers may: in the places of this provider,
    /// in every header that sounds like a credential, in the query.
    pub fn in_key_slots(
        &self,
        places: Option<&KeyPlaces>,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Slots {
        let mut slots = Slots::default();
        let nowhere = KeyPlaces::default();
        for (name, value) in places.unwrap_or(&nowhere).credentials(headers) {
            if let Some(brought) = self.whose(value) {
                slots.headers.push(name.to_owned());
                slots.note(brought);
            }
        }
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            if let Some(brought) = self.in_parameter(pair) {
                slots.in_query = true;
                slots.note(brought);
            }
        }
        slots
    }

    /// Whose the value of a parameter is, whatever its name: providers rename some.
    fn in_parameter(&self, pair: &str) -> Option<Brought> {
        if pair.len() < SHORTEST {
            return None;
        }
        let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
        self.whose(value.as_bytes())
    }

    /// A path and query without the parameters that are tokens or keys.
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

    /// Whose a subprotocol is or carries: `<token>`, `xi-api-key.<token>`.
    pub fn in_offer(&self, offer: &str) -> Option<Brought> {
        parts_of(offer).find_map(|part| self.whose(part.as_bytes()))
    }
}

/// Whether a head may hold a key of ours at all. Most hold none, and are not looked through.
pub fn may_hold_a_key(headers: &HeaderMap, query: Option<&str>) -> bool {
    let mentions = |text: &[u8]| memchr::memmem::find(text, secret::PREFIX.as_bytes()).is_some();
    let in_query = |query: &str| query.contains('%') || mentions(query.as_bytes());
    query.is_some_and(in_query) || headers.values().any(|value| mentions(value.as_bytes()))
}

/// Where tokens and keys stand that providers must not see.
#[derive(Debug, Default)]
pub struct Slots {
    /// Whose the first of them is that is good.
    pub consumer: Option<Arc<Consumer>>,
    /// Why the first that is not lets nobody pass.
    pub refused: Option<Refused>,
    /// In these headers; a name may stand twice.
    pub headers: Vec<String>,
    /// In a parameter.
    pub in_query: bool,
}

impl Slots {
    fn note(&mut self, brought: Brought) {
        match brought {
            Ok(consumer) => {
                self.consumer.get_or_insert(consumer);
            }
            Err(why) => {
                self.refused.get_or_insert(why);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::schema::Auth;

    fn two() -> Authentication {
        let token = |token: &str, name: &str| (digest_of(token.as_bytes()), Consumer::named(name));
        Authentication::new(
            true,
            [
                token("one-token-of-a-gateway", "ci"),
                token("other-token-of-a-gateway", "app"),
            ],
        )
    }

    /// Without any key.
    fn known<'a>(tokens: &'a Authentication, keys: &'a Table) -> Known<'a> {
        let gate = Gate {
            account: "a",
            gateway: "g",
            now: 0,
        };
        Known { tokens, keys, gate }
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
        let (tokens, keys) = (two(), Table::default());
        let without = |target: &str| known(&tokens, &keys).without_tokens(target);
        let slots = |header: (&'static str, &str), query| {
            let mut headers = HeaderMap::new();
            headers.insert(header.0, header.1.parse().unwrap());
            known(&tokens, &keys).in_key_slots(Some(&places), &headers, query)
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
            assert_eq!(without(&format!("/p?{renamed}")), "/p?a=1&b");
        }
        let only = "/p?key=one-token-of-a-gateway";
        assert_eq!(without(only), "/p");
        for elsewhere in ["q=one", "key", "key=", ""] {
            let found = slots(("x-note", "one-token-of-a-gateway"), Some(elsewhere));
            assert_eq!(found.consumer, None, "{elsewhere}");
        }
    }

    #[test]
    fn what_looks_like_a_key_is_never_a_providers() {
        let (tokens, keys) = (Authentication::default(), Table::default());
        let known = known(&tokens, &keys);
        let key = "tg-0123456789ab-x";
        let bad = Some(Err(Refused::Unknown));
        for brought in [key, &format!("Bearer {key}"), &key[..16]] {
            assert_eq!(known.whose(brought.as_bytes()), bad, "{brought}");
        }
        // Other words begin so too, but not where only ours may stand.
        assert_eq!(known.whose(b"tg-12345678"), None);
        assert_eq!(known.whose_of_ours(b"tg-12345678"), bad);
        assert_eq!(known.whose_of_ours(b"Bearer sk-12345678"), None);
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key.parse().unwrap());
        let query = format!("key={}", key.replace('-', "%2D"));
        let slots = known.in_key_slots(None, &headers, Some(&query));
        assert_eq!(
            (slots.refused, slots.in_query),
            (Some(Refused::Unknown), true)
        );
        assert_eq!(slots.headers, ["x-api-key"]);
        assert_eq!(known.without_tokens(&format!("/p?{query}&a=1")), "/p?a=1");
        for offer in [key, &format!("xi-api-key.{key}")] {
            assert!(tokens.is_in_offer(offer) && known.in_offer(offer) == bad);
        }
        assert!(!tokens.is_in_offer("realtime"));
    }

    #[test]
    fn a_head_without_a_key_is_known_at_a_glance() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer sk-own".parse().unwrap());
        assert!(!may_hold_a_key(&headers, None));
        assert!(!may_hold_a_key(&headers, Some("alt=sse")));
        assert!(may_hold_a_key(&headers, Some("key=tg%2D0")));
        assert!(may_hold_a_key(&headers, Some("key=tg-0")));
        headers.insert("x-api-key", "tg-0".parse().unwrap());
        assert!(may_hold_a_key(&headers, None));
    }
}
