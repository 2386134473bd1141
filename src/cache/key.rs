//! The cache key: a digest over everything that may change a provider's answer, and over
//! whose answer it is.
//!
//! Every field is written with its own tag and its length, so that none can bleed into
//! another. Also here: what a client's `Accept-Encoding` says, since answers are stored in
//! the encoding in which they came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Written first: a change of the layout must change every key.
const VERSION: &[u8] = b"tollgate cache key 1";

/// What identifies a stored answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Everything that a key is made of.
#[derive(Debug, Clone)]
pub struct KeyParts<'a> {
    /// The account's id.
    pub account: &'a str,
    /// The gateway's id.
    pub gateway: &'a str,
    /// Who pays for the answer.
    pub identity: Identity<'a>,
    /// The provider's slug.
    pub provider: &'a str,
    /// The request method.
    pub method: &'a str,
    /// Scheme, authority, and whatever else tells one upstream from another, written one
    /// after the other.
    pub origin: [&'a str; 4],
    /// Path and query of the upstream request.
    pub path_and_query: &'a str,
    /// The encodings that the client takes, as [`encodings`] gives them.
    pub encodings: &'a str,
    /// Whether the client asks for a stream.
    pub stream: bool,
    /// The request headers that change a provider's answer. Names compare without regard to
    /// case; their order matters only between values of one name.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// What is asked.
    pub content: Content<'a>,
}

/// Who pays for an answer: what one client's key may read must not be served to another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Everyone: the gateway shares answers between its callers.
    Shared,
    /// Nobody: no credential goes to the provider.
    Anonymous,
    /// A stored key of the provider.
    Stored {
        /// Its alias.
        alias: &'a str,
    },
    /// The client's own: the headers or parameters that carry it, by name.
    Sent(Vec<(&'a str, &'a [u8])>),
}

/// What is asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// The request's own model and body.
    Body {
        /// The model, from the body or the path.
        model: Option<&'a str>,
        /// The digest of the body, from [`super::canonical::digest`].
        digest: &'a [u8; 32],
    },
    /// The client's `cf-aig-cache-key`, in place of both.
    Custom(&'a str),
}

/// One byte before every field.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Field {
    Account,
    Gateway,
    Shared,
    Anonymous,
    Stored,
    Sent,
    Provider,
    Method,
    Origin,
    PathAndQuery,
    Encodings,
    Stream,
    Headers,
    Model,
    NoModel,
    Digest,
    Custom,
}

impl Key {
    /// The key of a request.
    pub fn of(parts: &KeyParts) -> Self {
        // Exhaustive: a new field does not compile until it is in the key.
        let KeyParts {
            account,
            gateway,
            identity,
            provider,
            method,
            origin,
            path_and_query,
            encodings,
            stream,
            headers,
            content,
        } = parts;
        let mut layout = Layout(Vec::with_capacity(1024));
        layout.0.extend_from_slice(VERSION);
        layout.field(Field::Account, account.as_bytes());
        layout.field(Field::Gateway, gateway.as_bytes());
        layout.identity(identity);
        layout.field(Field::Provider, provider.as_bytes());
        layout.field(Field::Method, method.as_bytes());
        layout.joined(Field::Origin, origin);
        layout.field(Field::PathAndQuery, path_and_query.as_bytes());
        layout.field(Field::Encodings, encodings.as_bytes());
        layout.field(Field::Stream, &[u8::from(*stream)]);
        layout.pairs(Field::Headers, headers);
        layout.content(content);
        Self(*blake3::hash(&layout.0).as_bytes())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that [`Key::hex`] gives as `text`.
    pub fn from_hex(text: &str) -> Option<Self> {
        let hash = blake3::Hash::from_hex(text).ok()?;
        Some(Self(*hash.as_bytes()))
    }

    /// Which of `count` shards it belongs to.
    pub fn shard(&self, count: usize) -> usize {
        usize::from(self.0[0]) % count
    }

    /// As 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.hex())
    }
}

/// Most names are in lower case already.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// The bytes that are digested.
struct Layout(Vec<u8>);

impl Layout {
    fn field(&mut self, field: Field, value: &[u8]) {
        self.0.push(field as u8);
        self.value(value);
    }

    fn joined(&mut self, field: Field, parts: &[&str]) {
        self.0.push(field as u8);
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.0.extend_from_slice(&(length as u64).to_le_bytes());
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    fn value(&mut self, value: &[u8]) {
        self.0
            .extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
    }

    fn pairs(&mut self, field: Field, pairs: &[(&str, &[u8])]) {
        let mut pairs: Vec<(Cow<str>, &[u8])> = pairs
            .iter()
            .map(|(name, value)| (lower_case(name), *value))
            .collect();
        // Stable: values of one name keep their order.
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.field(field, &(pairs.len() as u64).to_le_bytes());
        for (name, value) in pairs {
            self.value(name.as_bytes());
            self.value(value);
        }
    }

    fn identity(&mut self, identity: &Identity) {
        match identity {
            Identity::Shared => self.field(Field::Shared, b""),
            Identity::Anonymous => self.field(Field::Anonymous, b""),
            Identity::Stored { alias } => self.field(Field::Stored, alias.as_bytes()),
            Identity::Sent(pairs) => self.pairs(Field::Sent, pairs),
        }
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Custom(key) => self.field(Field::Custom, key.as_bytes()),
            Content::Body { model, digest } => {
                match model {
                    Some(model) => self.field(Field::Model, model.as_bytes()),
                    None => self.field(Field::NoModel, b""),
                }
                self.field(Field::Digest, *digest);
            }
        }
    }
}

/// The content codings that `Accept-Encoding` header values allow (RFC 9110, section
/// 12.5.3), in a form that is equal for equal meanings: lower-case names, sorted, joined by
/// commas.
///
/// A refused coding (`q=0`) is kept as `name;q=0` only where it would be allowed otherwise:
/// `identity` always is, others beside a `*`. Without the header the result is empty.
/// What does not parse allows nothing.
pub fn encodings<'a>(accept_encoding: impl Iterator<Item = &'a [u8]>) -> String {
    let mut allowed: BTreeMap<Cow<str>, bool> = BTreeMap::new();
    let items = accept_encoding.flat_map(|value| value.split(|byte| *byte == b','));
    for (coding, allows) in items.filter_map(preference) {
        let entry = allowed.entry(coding).or_insert(true);
        *entry &= allows;
    }
    let any = allowed.get("*").copied();
    if any == Some(false) {
        // "*;q=0" refuses what is not named, identity included.
        allowed.entry("identity".into()).or_insert(false);
    }
    let kept = allowed.iter().filter_map(|(coding, allows)| match allows {
        true => Some(Cow::from(&**coding)),
        false if coding == "identity" || any == Some(true) => Some(format!("{coding};q=0").into()),
        false => None,
    });
    kept.collect::<Vec<_>>().join(",")
}

/// One item of an `Accept-Encoding` list: a coding, and whether its quality is above zero.
fn preference(item: &[u8]) -> Option<(Cow<'_, str>, bool)> {
    let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let coding = coding(parts.next()?)?;
    let quality = match parts.next() {
        None => 1.0,
        Some(weight) => quality(weight)?,
    };
    Some((coding, quality > 0.0))
}

fn quality(weight: &[u8]) -> Option<f32> {
    let (name, value) = std::str::from_utf8(weight).ok()?.split_once('=')?;
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = value.parse().ok().filter(|_| plain)?;
    (name.eq_ignore_ascii_case("q") && value <= 1.0).then_some(value)
}

/// A coding's name in lower case; the old names of RFC 9110, section 8.4.1, as the new.
fn coding(token: &[u8]) -> Option<Cow<'_, str>> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if token.is_empty() || !token.iter().all(is_token) {
        return None;
    }
    let name = lower_case(std::str::from_utf8(token).ok()?);
    Some(match &*name {
        "x-gzip" => "gzip".into(),
        "x-compress" => "compress".into(),
        _ => name,
    })
}

/// Whether an answer of this `Content-Encoding` may be served to a client whose encodings
/// are `normalised` (from [`encodings`]).
///
/// A client that sends no `Accept-Encoding` gets plain answers only: it may well decode
/// nothing.
pub fn accepts(normalised: &str, content_encoding: Option<&[u8]>) -> bool {
    let list = content_encoding.unwrap_or_default().trim_ascii();
    if list.is_empty() {
        return allows(normalised, "identity");
    }
    list.split(|byte| *byte == b',')
        .all(|item| coding(item.trim_ascii()).is_some_and(|coding| allows(normalised, &coding)))
}

fn allows(normalised: &str, coding: &str) -> bool {
    let named = normalised.split(',').find_map(|item| {
        let (name, refused) = match item.split_once(';') {
            Some((name, _)) => (name, true),
            None => (item, false),
        };
        (name == coding).then_some(!refused)
    });
    let any = || coding == "identity" || normalised.split(',').any(|item| item == "*");
    named.unwrap_or_else(any)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DIGEST: [u8; 32] = [7; 32];
    const OTHER: [u8; 32] = [8; 32];
    type Header = (&'static str, &'static [u8]);
    const VERSION_1: Header = ("anthropic-version", b"1");
    const VERSION_2: Header = ("anthropic-version", b"2");
    const BETA_A: Header = ("beta", b"a");
    const BETA_B: Header = ("beta", b"b");
    const BETAA: Header = ("betaa", b"");
    const UPPER_A: Header = ("Beta", b"a");
    const UPPER_B: Header = ("BETA", b"b");
    const HEADERS: &[Header] = &[VERSION_1, BETA_A, BETA_B];

    fn parts() -> KeyParts<'static> {
        KeyParts {
            account: "acme",
            gateway: "prod",
            identity: Identity::Shared,
            provider: "openai",
            method: "POST",
            origin: ["https://", "api.openai.com", " ", "0"],
            path_and_query: "/v1/chat/completions",
            encodings: "gzip",
            stream: false,
            headers: HEADERS,
            content: Content::Body {
                model: Some("gpt-5"),
                digest: &DIGEST,
            },
        }
    }

    fn changed(change: impl FnOnce(&mut KeyParts<'static>)) -> KeyParts<'static> {
        let mut parts = parts();
        change(&mut parts);
        parts
    }

    fn sent(pairs: &[(&'static str, &'static [u8])]) -> Identity<'static> {
        Identity::Sent(pairs.to_vec())
    }

    /// The request above, and that request with one thing changed.
    fn different() -> Vec<KeyParts<'static>> {
        let content = |model, digest| Content::Body { model, digest };
        vec![
            parts(),
            changed(|p| p.account = "acm"),
            changed(|p| p.gateway = "prod2"),
            changed(|p| (p.account, p.gateway) = ("acmep", "rod")),
            changed(|p| (p.account, p.gateway) = ("prod", "acme")),
            changed(|p| p.identity = Identity::Anonymous),
            changed(|p| p.identity = Identity::Stored { alias: "" }),
            changed(|p| p.identity = Identity::Stored { alias: "default" }),
            changed(|p| p.identity = sent(&[])),
            changed(|p| p.identity = sent(&[("authorization", b"Bearer a")])),
            changed(|p| p.identity = sent(&[("authorization", b"Bearer b")])),
            changed(|p| p.identity = sent(&[("x-api-key", b"Bearer a")])),
            changed(|p| p.identity = sent(&[("authorizationB", b"earer a")])),
            changed(|p| p.provider = "azure-openai"),
            changed(|p| p.method = "GET"),
            changed(|p| p.origin[0] = "http://"),
            changed(|p| p.origin[1] = "api.openai.example"),
            changed(|p| p.origin[3] = "1"),
            changed(|p| p.path_and_query = "/v1/chat/completions?a=1"),
            changed(|p| p.encodings = ""),
            changed(|p| p.encodings = "br,gzip"),
            changed(|p| p.stream = true),
            changed(|p| p.headers = &[]),
            changed(|p| p.headers = &HEADERS[..2]),
            changed(|p| p.headers = &[VERSION_2, BETA_A, BETA_B]),
            changed(|p| p.headers = &[VERSION_1, BETA_B, BETA_A]),
            changed(|p| p.headers = &[VERSION_1, BETAA, BETA_B]),
            changed(|p| p.content = content(None, &DIGEST)),
            changed(|p| p.content = content(Some(""), &DIGEST)),
            changed(|p| p.content = content(Some("gpt-5-mini"), &DIGEST)),
            changed(|p| p.content = content(Some("gpt-5"), &OTHER)),
            changed(|p| p.content = Content::Custom("")),
            changed(|p| p.content = Content::Custom("gpt-5")),
            changed(|p| p.content = Content::Custom("\x07\x07\x07\x07\x07\x07\x07\x07")),
        ]
    }

    #[test]
    fn every_field_counts_and_none_bleeds_into_another() {
        let parts = different();
        let keys: HashSet<Key> = parts.iter().map(Key::of).collect();
        for (number, one) in parts.iter().enumerate() {
            for other in &parts[number + 1..] {
                assert_ne!(Key::of(one), Key::of(other), "{one:?}\n{other:?}");
            }
        }
        assert_eq!(keys.len(), parts.len());
    }

    #[test]
    fn header_order_and_case_matter_only_within_a_name() {
        let reordered: &[Header] = &[UPPER_A, UPPER_B, VERSION_1];
        let other = changed(|p| p.headers = reordered);
        assert_eq!(Key::of(&parts()), Key::of(&other));
        let one = changed(|p| p.identity = sent(&[("a", b"1"), ("b", b"2")]));
        let other = changed(|p| p.identity = sent(&[("B", b"2"), ("A", b"1")]));
        assert_eq!(Key::of(&one), Key::of(&other));
    }

    #[test]
    fn a_custom_key_replaces_model_and_body_only() {
        let custom = |p: &mut KeyParts| p.content = Content::Custom("mine");
        let key = Key::of(&changed(custom));
        for mut parts in different() {
            let content_only = matches!(parts.content, Content::Custom(_))
                || parts.content != changed(|_| ()).content;
            custom(&mut parts);
            let same = Key::of(&parts) == key;
            let untouched =
                content_only || format!("{parts:?}") == format!("{:?}", changed(custom));
            assert_eq!(same, untouched, "{parts:?}");
        }
    }

    #[test]
    fn a_key_is_shown_as_hex() {
        let key = Key([0xab; 32]);
        assert_eq!(key.hex(), "ab".repeat(32));
        assert_eq!(format!("{key:?}"), key.hex());
    }

    #[test]
    fn accepted_encodings_are_normalised() {
        let cases: [(&[&str], &str); 22] = [
            (&[], ""),
            (&[""], ""),
            (&["gzip"], "gzip"),
            (&["GZIP, Br;q=0.5"], "br,gzip"),
            (&["br", "gzip"], "br,gzip"),
            (&["gzip, gzip"], "gzip"),
            (&["gzip;q=0"], ""),
            (&["gzip; q=0.000, br"], "br"),
            (&["gzip;q=0.001"], "gzip"),
            (&["gzip, gzip;q=0"], ""),
            (&["*"], "*"),
            (&["*, gzip;q=0"], "*,gzip;q=0"),
            (&["identity;q=0"], "identity;q=0"),
            (&["br, identity;Q=0"], "br,identity;q=0"),
            (&["*;q=0"], "identity;q=0"),
            (&["*;q=0, identity"], "identity"),
            (&["*;q=0, gzip"], "gzip,identity;q=0"),
            (&["x-gzip, x-compress"], "compress,gzip"),
            (&["gzip;q=no, br;q=2, zstd;q=-1, deflate;level=1"], ""),
            (&["gzip;q=NaN, br;q=inf, zstd;q="], ""),
            (&["g\u{fc}zip, a b, , br"], "br"),
            (&[" gzip ,\tbr\t; q=1.0 "], "br,gzip"),
        ];
        for (values, expected) in cases {
            let values = values.iter().map(|value| value.as_bytes());
            assert_eq!(
                encodings(values.clone()),
                expected,
                "{:?}",
                values.collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn answers_are_served_in_accepted_encodings_only() {
        let cases = [
            ("", None, true),
            ("", Some(""), true),
            ("", Some("identity"), true),
            ("", Some("gzip"), false),
            ("gzip", None, true),
            ("gzip", Some("gzip"), true),
            ("gzip", Some("GZip"), true),
            ("gzip", Some("x-gzip"), true),
            ("gzip", Some("br"), false),
            ("br,gzip", Some("gzip, br"), true),
            ("gzip", Some("gzip, br"), false),
            ("gzip", Some("gzip, identity"), true),
            ("*", Some("zstd"), true),
            ("*", None, true),
            ("*,gzip;q=0", Some("gzip"), false),
            ("*,gzip;q=0", Some("br"), true),
            ("identity;q=0", None, false),
            ("gzip,identity;q=0", None, false),
            ("gzip,identity;q=0", Some("gzip"), true),
            ("*,identity;q=0", None, false),
            ("*", Some("not a token"), false),
        ];
        for (normalised, encoding, expected) in cases {
            let accepted = accepts(normalised, encoding.map(str::as_bytes));
            assert_eq!(accepted, expected, "{normalised:?} {encoding:?}");
        }
    }
}
