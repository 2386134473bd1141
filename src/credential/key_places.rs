//! Whether a request brings a key of its own, and where.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, InvalidHeaderName};
use http::{HeaderMap, HeaderName};

use crate::config::schema::Auth;

/// The places of a request in which a client may bring its own key to a provider.
///
/// Built once per provider from its `auth`; the first place that holds a key wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPlaces {
    headers: Vec<HeaderPlace>,
    query: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HeaderPlace {
    name: HeaderName,
    /// Without its space; alone in the header it is no key.
    scheme: String,
}

/// Headers in which SDKs send keys, whichever provider they were made for.
static USUAL_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Where the key stands that a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKey<'a> {
    /// In this header.
    Header(&'a HeaderName),
    /// In this query parameter.
    Query(&'a str),
}

impl KeyPlaces {
    /// Where clients may bring a key to a provider that takes it as `auth` says.
    ///
    /// # Errors
    /// When `auth` names a header that cannot be one.
    pub fn new(auth: &Auth) -> Result<Self, String> {
        match auth {
            Auth::Bearer => Ok(Self::of([AUTHORIZATION], [])),
            Auth::Header {
                name,
                prefix,
                also,
                query,
            } => Self::configured(name, prefix, also, query.as_deref()),
            // A presigned URL carries its signature in the query.
            Auth::AwsSigv4 { .. } => Ok(Self::of([AUTHORIZATION], ["X-Amz-Signature"])),
            // The same APIs accept API keys in place of tokens.
            Auth::GoogleServiceAccount => Ok(Self::of(
                [AUTHORIZATION, HeaderName::from_static("x-goog-api-key")],
                ["key"],
            )),
            Auth::None => Ok(Self::of([], [])),
        }
    }

    fn of<const H: usize, const Q: usize>(headers: [HeaderName; H], query: [&str; Q]) -> Self {
        let place = |name| HeaderPlace {
            name,
            scheme: String::new(),
        };
        Self {
            headers: headers.into_iter().map(place).collect(),
            query: query.into_iter().map(str::to_owned).collect(),
        }
    }

    fn configured(
        name: &str,
        prefix: &str,
        also: &[String],
        query: Option<&str>,
    ) -> Result<Self, String> {
        let mut headers = vec![HeaderPlace {
            name: header_name(name)?,
            scheme: prefix.trim().to_owned(),
        }];
        for other in also {
            headers.push(HeaderPlace {
                name: header_name(other)?,
                scheme: String::new(),
            });
        }
        let query = query.into_iter().map(str::to_owned).collect();
        Ok(Self { headers, query })
    }

    /// The key that a request with these headers and this query (without `?`) brings.
    ///
    /// An empty value and a scheme without a key (`Bearer `) are none.
    pub fn find(&self, headers: &HeaderMap, query: Option<&str>) -> Option<OwnKey<'_>> {
        let header = self.headers.iter().find(|place| {
            let mut values = headers.get_all(&place.name).iter();
            values.any(|value| holds_key(value.as_bytes(), &place.scheme))
        });
        if let Some(place) = header {
            return Some(OwnKey::Header(&place.name));
        }
        let in_query = query.and_then(|query| {
            let mut names = self.query.iter();
            names.find(|name| query_holds(query, name))
        });
        in_query
            .map(|name| OwnKey::Query(name))
            .or_else(|| self.elsewhere(headers))
    }

    /// A key in a header that this provider does not read is the client's own all the same: a
    /// stored one is not spent beside it.
    fn elsewhere(&self, headers: &HeaderMap) -> Option<OwnKey<'static>> {
        let takes_keys = !self.headers.is_empty();
        let looked_at = |name: &HeaderName| self.headers.iter().any(|place| place.name == *name);
        let holds = |name: &&HeaderName| {
            let mut values = headers.get_all(*name).iter();
            !looked_at(name) && values.any(|value| holds_key(value.as_bytes(), ""))
        };
        let found = takes_keys.then(|| USUAL_HEADERS.iter().find(holds));
        found.flatten().map(OwnKey::Header)
    }

    /// Every header in which a key may stand: what to remove before another key is set.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|place| &place.name)
    }

    /// Everything on a request that may say who sends it: the values of the headers in which
    /// keys are sent to this provider, and of all whose name sounds like a credential. A
    /// provider may know its users by a header that nobody has told us of.
    pub fn credentials<'a>(&self, headers: &'a HeaderMap) -> Vec<(&'a str, &'a [u8])> {
        let tells = |name: &&HeaderName| {
            self.headers().any(|own| own == *name) || sounds_like_a_credential(name.as_str())
        };
        let told = headers.keys().filter(tells);
        told.flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect()
    }

    /// A path and query without the parameters in which a key may stand; borrowed when there
    /// are none.
    pub fn without_keys<'a>(&self, path_and_query: &'a str) -> Cow<'a, str> {
        let is_key = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or(pair);
            let mut places = self.query.iter();
            places.any(|place| place.eq_ignore_ascii_case(name))
        };
        match path_and_query.split_once('?') {
            Some((path, query)) if query.split('&').any(|pair| is_key(&pair)) => {
                let kept: Vec<_> = query.split('&').filter(|pair| !is_key(pair)).collect();
                let mark = if kept.is_empty() { "" } else { "?" };
                Cow::Owned(format!("{path}{mark}{}", kept.join("&")))
            }
            _ => Cow::Borrowed(path_and_query),
        }
    }
}

/// The headers that say who sends a request and who pays for it: those in which keys are sent to
/// the provider that it was meant for (`places`), those in which SDKs send keys, and all whose
/// name sounds like a credential or an account.
pub fn names_who_pays(places: Option<&KeyPlaces>, headers: &HeaderMap) -> Vec<HeaderName> {
    let tells = |name: &&HeaderName| {
        let own = places.is_some_and(|places| places.headers().any(|own| own == *name));
        own || tells_who_pays(name.as_str())
    };
    headers.keys().filter(tells).cloned().collect()
}

/// A path and query without the parameters that say so.
pub fn without_who_pays(places: Option<&KeyPlaces>, path_and_query: &str) -> String {
    let without_keys = match places {
        Some(places) => places.without_keys(path_and_query),
        None => Cow::Borrowed(path_and_query),
    };
    let Some((path, query)) = without_keys.split_once('?') else {
        return without_keys.into_owned();
    };
    let name = |pair: &&str| pair.split('=').next().unwrap_or(pair).to_ascii_lowercase();
    let kept = query.split('&').filter(|pair| !tells_who_pays(&name(pair)));
    let kept: Vec<_> = kept.collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    format!("{path}{mark}{}", kept.join("&"))
}

/// `name`: of a header or a parameter, in lower case. AWS signs with a family of them.
fn tells_who_pays(name: &str) -> bool {
    const ACCOUNTS: [&str; 4] = ["organization", "organisation", "project", "account"];
    sounds_like_a_credential(name)
        || name.starts_with("x-amz-")
        || ACCOUNTS.iter().any(|part| name.contains(part))
}

/// Parses a configured header name.
pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse()
        .map_err(|_: InvalidHeaderName| format!("`{name}` is not a header name"))
}

/// What follows `scheme` in `value`, if `value` is that scheme: schemes are compared without
/// regard to case and end at a space or at the end (RFC 9110, 11.1).
pub(super) fn after_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    let ends = rest.is_empty() || rest.starts_with([' ', '\t']);
    (start.eq_ignore_ascii_case(scheme) && ends).then(|| rest.trim())
}

fn sounds_like_a_credential(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "auth",
        "cookie",
        "credential",
        "key",
        "password",
        "secret",
        "session",
        "token",
        "user-id",
    ];
    // The usual ones first: every request has them. The others name a request or a connection,
    // not who sends it.
    let other = matches!(
        name,
        "host"
            | "user-agent"
            | "accept"
            | "accept-encoding"
            | "accept-language"
            | "connection"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "traceparent"
    ) || ["x-stainless-", "sec-", "cf-aig-"]
        .iter()
        .any(|family| name.starts_with(family))
        || name.ends_with("idempotency-key");
    !other && PARTS.iter().any(|part| name.contains(part))
}

fn holds_key(value: &[u8], scheme: &str) -> bool {
    let value = value.trim_ascii();
    let is_bare = |scheme: &str| value.eq_ignore_ascii_case(scheme.as_bytes());
    !value.is_empty() && !is_bare("Bearer") && !is_bare(scheme)
}

/// Names are compared without regard to case: rather a stored key too few than one too many.
fn query_holds(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| {
        pair.split_once('=')
            .is_some_and(|(key, value)| !value.is_empty() && key.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header_auth() -> Auth {
        Auth::Header {
            name: "x-api-key".into(),
            prefix: "Key ".into(),
            also: vec!["Authorization".into()],
            query: Some("key".into()),
        }
    }

    fn sigv4() -> Auth {
        Auth::AwsSigv4 {
            service: "bedrock".into(),
        }
    }

    /// Where the key stands, as text.
    fn found(auth: &Auth, headers: &[(&str, &str)], query: Option<&str>) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(header_name(name).unwrap(), value.parse().unwrap());
        }
        match KeyPlaces::new(auth).unwrap().find(&map, query) {
            None => "none".into(),
            Some(OwnKey::Header(name)) => format!("header {name}"),
            Some(OwnKey::Query(name)) => format!("query {name}"),
        }
    }

    #[test]
    fn keys_are_found_where_each_kind_of_provider_reads_them() {
        let google = Auth::GoogleServiceAccount;
        let bearer = [("authorization", "Bearer sk-1")];
        assert_eq!(found(&Auth::Bearer, &bearer, None), "header authorization");
        assert_eq!(
            found(&header_auth(), &bearer, None),
            "header authorization",
            "`also`"
        );
        assert_eq!(found(&sigv4(), &bearer, None), "header authorization");
        assert_eq!(found(&google, &bearer, None), "header authorization");
        assert_eq!(
            found(&header_auth(), &[("x-api-key", "k")], None),
            "header x-api-key"
        );
        assert_eq!(
            found(&google, &[("x-goog-api-key", "k")], None),
            "header x-goog-api-key"
        );
        assert_eq!(
            found(&header_auth(), &[], Some("alt=sse&key=k")),
            "query key"
        );
        let presigned = Some("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0f");
        assert_eq!(found(&sigv4(), &[], presigned), "query X-Amz-Signature");
    }

    #[test]
    fn a_key_where_another_provider_reads_it_is_the_clients_own_too() {
        assert_eq!(
            found(&Auth::Bearer, &[("x-api-key", "k")], None),
            "header x-api-key"
        );
        assert_eq!(
            found(&sigv4(), &[("x-api-key", "k")], None),
            "header x-api-key"
        );
        assert_eq!(found(&Auth::None, &[("x-api-key", "k")], None), "none");
    }

    #[test]
    fn what_holds_no_key_is_none() {
        for value in ["", "Bearer", "bearer ", "  "] {
            let headers = [("authorization", value), ("x-api-key", value)];
            for auth in [Auth::Bearer, header_auth(), sigv4()] {
                assert_eq!(found(&auth, &headers, None), "none", "{value:?}");
            }
        }
        assert_eq!(
            found(&header_auth(), &[("x-api-key", "Key ")], None),
            "none"
        );
        assert_eq!(
            found(&header_auth(), &[], Some("key=&monkey=1&key")),
            "none"
        );
        assert_eq!(
            found(&Auth::Bearer, &[("x-other-key", "k")], Some("key=k")),
            "none"
        );
        assert_eq!(
            found(&Auth::None, &[("authorization", "Bearer k")], None),
            "none"
        );
    }

    #[test]
    fn an_empty_line_does_not_hide_a_second_one() {
        let headers = [("authorization", ""), ("authorization", "Bearer k")];
        assert_eq!(found(&Auth::Bearer, &headers, None), "header authorization");
    }

    #[test]
    fn every_place_can_be_listed_for_removal() {
        let places = KeyPlaces::new(&header_auth()).unwrap();
        let headers: Vec<_> = places.headers().map(HeaderName::as_str).collect();
        assert_eq!(headers, ["x-api-key", "authorization"]);
        assert_eq!(places.query, ["key"]);
        for (asked, without) in [
            ("/a?x=1&KEY=s&y", "/a?x=1&y"),
            ("/a?key=s", "/a"),
            ("/a?keys=s", "/a?keys=s"),
            ("/a", "/a"),
        ] {
            assert_eq!(places.without_keys(asked), without);
        }
    }

    #[test]
    fn a_header_that_cannot_be_one_is_refused() {
        let auth = Auth::Header {
            name: "x-key".into(),
            prefix: String::new(),
            also: vec!["a b".into()],
            query: None,
        };
        assert_eq!(
            KeyPlaces::new(&auth).unwrap_err(),
            "`a b` is not a header name"
        );
    }

    #[test]
    fn what_says_who_pays_is_found() {
        let places = KeyPlaces::of([AUTHORIZATION], ["sig"]);
        for (asked, without) in [
            ("/a?x=1&sig=s&y=2", "/a?x=1&y=2"),
            ("/a?key=s", "/a"),
            (
                "/a?X-Amz-Credential=a&X-Amz-Security-Token=t&X-Amz-Signature=s&b",
                "/a?b",
            ),
            ("/a?api-version=1&access_token=t", "/a?api-version=1"),
            ("/a", "/a"),
        ] {
            assert_eq!(without_who_pays(Some(&places), asked), without);
        }
        assert_eq!(without_who_pays(None, "/a?api_key=s&b=1"), "/a?b=1");
        let mut headers = HeaderMap::new();
        for name in [
            "openai-organization",
            "chatgpt-account-id",
            "cookie",
            "x-amz-date",
            "x-kept",
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), "v".parse().unwrap());
        }
        let found = names_who_pays(None, &headers);
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
