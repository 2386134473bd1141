//! Where things are posted to: a URL, and headers that may be secret.

use std::fmt;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Uri};
use pingora_core::protocols::tls::CaType;

/// Headers as they are configured. Their values may be secrets.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Headers that say how the message is sent, which is not the configuration's business.
const OURS: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Longest text of a server's that is shown, in bytes.
const MOST_SHOWN: usize = 200;
/// A header's word that is shorter is no secret, and hiding it would hide too much.
const SHORTEST_SECRET: usize = 6;

/// Which of OTLP's two kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// The last segment of its path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// Where things are posted to.
#[derive(Clone)]
pub struct Place {
    /// Never empty; an IPv6 address without its brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// HTTPS.
    pub tls: bool,
    /// `host` and `port` as the URL has them.
    pub authority: Box<str>,
    /// Path and query.
    pub path: Box<str>,
    /// What is sent with every request.
    pub headers: Headers,
    /// The header `content-type`.
    pub content_type: &'static str,
    /// Authorities to trust instead of the system's.
    pub ca: Option<Arc<CaType>>,
}

/// Paths and queries may hold keys too: only the origin is shown.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(out, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says what is wrong with it or the headers, and shows neither.
    pub fn new(
        url: &str,
        headers: &Headers,
        content_type: &'static str,
        ca: Option<Arc<CaType>>,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("no URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL must begin with https:// or http://".to_owned()),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("credentials belong into a header, not into the URL".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        if let Some((name, _)) = headers.iter().find(|(name, _)| OURS.contains(name)) {
            return Err(format!("the header {name} cannot be configured"));
        }
        Ok(Self {
            host: host.into(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            authority: authority.into(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .into(),
            headers: headers.clone(),
            content_type,
            ca,
        })
    }

    /// For one of OTLP's signals. A path that ends in `/traces` or `/metrics` is that signal's,
    /// and the other's is beside it; below any other, or none, there is `v1/traces` and
    /// `v1/metrics`, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    #[must_use]
    pub fn of_signal(mut self, signal: Signal) -> Self {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (&*self.path, String::new()),
        };
        let path = path.trim_end_matches('/');
        let (before, last) = path.rsplit_once('/').unwrap_or((path, ""));
        let is_named = [Signal::Traces, Signal::Metrics].map(Signal::name);
        let name = signal.name();
        let path = match is_named.contains(&last) {
            true => format!("{before}/{name}{query}"),
            false => format!("{path}/v1/{name}{query}"),
        };
        self.path = path.into();
        self
    }

    /// What a server said, fit to be shown: short, on one line, and without the secrets that it
    /// was sent.
    pub fn shown(&self, told: &str) -> String {
        let mut told = told.to_owned();
        for secret in self.secrets() {
            told = told.replace(secret, "***");
        }
        let line = told.replace(char::is_control, " ");
        let line = line.trim();
        line[..line.floor_char_boundary(MOST_SHOWN)].to_owned()
    }

    /// All words of the headers: `Bearer` stands in front of one.
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let values = self.headers.iter().map(|(_, value)| value.as_bytes());
        let words = values.filter_map(|value| std::str::from_utf8(value).ok());
        let words = words.flat_map(|value| value.split([' ', ',', ';', '=']));
        words.filter(|word| word.len() >= SHORTEST_SECRET)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        let secret = HeaderValue::from_static("Bearer sk-very-secret, key=another1");
        let headers = vec![(HeaderName::from_static("authorization"), secret)];
        Place::new(url, &headers, "application/json", None)
    }

    #[test]
    fn signals_have_paths_of_their_own() {
        for (url, traces, metrics) in [
            ("http://c:4318", "/v1/traces", "/v1/metrics"),
            ("http://c:4318/", "/v1/traces", "/v1/metrics"),
            ("https://c/v1/traces", "/v1/traces", "/v1/metrics"),
            ("https://c/v1/traces/", "/v1/traces", "/v1/metrics"),
            ("https://c/v1/metrics", "/v1/traces", "/v1/metrics"),
            ("https://c/otlp", "/otlp/v1/traces", "/otlp/v1/metrics"),
            (
                "https://c/api/v0.2/traces?k=1",
                "/api/v0.2/traces?k=1",
                "/api/v0.2/metrics?k=1",
            ),
            ("https://c?k=1", "/v1/traces?k=1", "/v1/metrics?k=1"),
        ] {
            let of = |signal| place(url).unwrap().of_signal(signal).path;
            assert_eq!(&*of(Signal::Traces), traces, "{url}");
            assert_eq!(&*of(Signal::Metrics), metrics, "{url}");
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let six = place("https://[::1]:4318/x").unwrap();
        assert_eq!((&*six.host, six.port, six.tls), ("::1", 4318, true));
        let plain = place("http://collector").unwrap();
        assert_eq!((&*plain.host, plain.port), ("collector", 80));
        assert_eq!(
            place("https://c/secret?k=1").unwrap().to_string(),
            "https://c"
        );
        for (url, told) in [
            ("collector:4318", "must begin with"),
            ("ftp://collector", "must begin with"),
            ("", "no URL"),
            ("/v1/traces", "must begin with"),
            ("https://user:pass@c/", "belong into a header"),
        ] {
            let error = place(url).unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
            assert!(!error.contains("pass"), "{error}");
        }
    }

    #[test]
    fn headers_that_say_how_a_message_is_sent_are_refused() {
        for name in OURS {
            let headers = vec![(name, HeaderValue::from_static("x"))];
            let error = Place::new("http://c", &headers, "", None).unwrap_err();
            assert!(error.contains("cannot be configured"), "{error}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let place = place("https://c/").unwrap();
        let told = place.shown("bad\nkey sk-very-secret (another1) for key");
        assert_eq!(told, "bad key *** (***) for key");
        assert_eq!(format!("{place:?}"), "https://c");
        assert!(place.shown(&"é".repeat(1000)).len() <= MOST_SHOWN);
    }
}
