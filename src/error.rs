//! The one table of what clients can receive from the gateway itself.
//!
//! A provider's own errors are not here: they pass verbatim. To add a kind, add a
//! variant; the exhaustive `match`es refuse to compile until it has a status, a code
//! and a message.

use std::borrow::Cow;

use serde_json::json;

use crate::record::Source;

/// Why the gateway answered instead of a provider. A closed vocabulary: metrics and the
/// access log use [`Kind::name`] as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The URL names no configured account or gateway.
    UnknownGateway,
    /// The URL names no configured provider.
    UnknownProvider,
    /// The model names a route that is not configured.
    UnknownRoute,
    /// The request brings no token of its gateway, which wants one.
    Unauthorized,
    /// More came in a time than a rule lets pass.
    RateLimited,
    /// It could cost more than is left of a budget.
    SpendLimited,
    /// What it asks for is not allowed to whom it is from.
    Denied,
    /// A call to `compat` whose model does not say who is asked.
    ModelWithoutProvider,
    /// The path is none that tollgate serves, or not of the provider's shape.
    BadPath,
    /// A `cf-aig-*` header, or another part of the request the gateway reads, is malformed.
    BadRequest,
    /// The method is `CONNECT`: the gateway is no tunnel.
    MethodNotAllowed,
    /// A part of the URL that would enter a host name does not look like one.
    BadHostPart,
    /// The client took too long to send its request.
    ClientTimeout,
    /// The client went away before it had its answer. Nothing can be sent.
    ClientGone,
    /// The body is over `server.max_body` or `server.max_upload`.
    BodyTooLarge,
    /// The request head is over `server.max_header`.
    HeadTooLarge,
    /// All held bodies together would exceed `server.max_buffered`.
    Overloaded,
    /// The provider, its gateway or the process has as many calls in flight as it may.
    Busy,
    /// The stored key that the request asks for does not exist.
    UnknownKey,
    /// The provider's credential could not be used, or not be exchanged for a token.
    Credential,
    /// The provider's name does not resolve, or refuses the connection, or breaks it.
    UpstreamUnreachable,
    /// The provider's name resolves to an address that is never connected to.
    UpstreamForbidden,
    /// TLS with the provider failed.
    UpstreamTls,
    /// The provider was silent for too long.
    UpstreamTimeout,
    /// What the provider sent is not HTTP.
    UpstreamInvalid,
    /// The provider's answer broke off after its first byte.
    UpstreamCut,
    /// A fault of the gateway.
    Internal,
}

/// What a kind looks like on the wire.
struct Row {
    name: &'static str,
    status: u16,
    code: u32,
    message: &'static str,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 27] = [
        Self::UnknownGateway,
        Self::UnknownProvider,
        Self::UnknownRoute,
        Self::Unauthorized,
        Self::RateLimited,
        Self::SpendLimited,
        Self::Denied,
        Self::ModelWithoutProvider,
        Self::BadPath,
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::BadHostPart,
        Self::ClientTimeout,
        Self::ClientGone,
        Self::BodyTooLarge,
        Self::HeadTooLarge,
        Self::Overloaded,
        Self::Busy,
        Self::UnknownKey,
        Self::Credential,
        Self::UpstreamUnreachable,
        Self::UpstreamForbidden,
        Self::UpstreamTls,
        Self::UpstreamTimeout,
        Self::UpstreamInvalid,
        Self::UpstreamCut,
        Self::Internal,
    ];

    #[rustfmt::skip] // a table: one row a line
                     /// The table. Codes below 8000 are Cloudflare AI Gateway's, which its clients know;
                     /// 8000 and above are tollgate's own.
    const fn row(self) -> Row {
        const fn row(name: &'static str, status: u16, code: u32, message: &'static str) -> Row {
            Row { name, status, code, message }
        }
        match self {
            Self::UnknownGateway => row("unknown_gateway", 400, 2001, "Please configure AI Gateway: no such account or gateway"),
            Self::UnknownProvider => row("unknown_provider", 400, 2008, "No such provider"),
            Self::UnknownRoute => row("unknown_route", 400, 8012, "No such route"),
            Self::Unauthorized => row("unauthorized", 401, 2009, "Unauthorized"),
            Self::RateLimited => row("rate_limited", 429, 2003, "Rate limited"),
            Self::SpendLimited => row("spend_limited", 429, 2045, "Spend limit exceeded"),
            Self::Denied => row("denied", 403, 8014, "Access denied by policy"),
            Self::ModelWithoutProvider => row("model_without_provider", 400, 2019, "The model must be of the form {provider}/{model}"),
            Self::BadPath => row("bad_path", 404, 8001, "Nothing is served at this path"),
            Self::BadRequest => row("bad_request", 400, 8002, "Bad request"),
            Self::MethodNotAllowed => row("method_not_allowed", 405, 8011, "CONNECT is not served: the gateway is no tunnel"),
            Self::BadHostPart => row("bad_host_part", 400, 8003, "A part of the URL does not look like what it stands for"),
            Self::ClientTimeout => row("client_timeout", 408, 8004, "The request took too long to arrive"),
            Self::ClientGone => row("client_gone", 499, 8005, "The client closed the connection"),
            Self::BodyTooLarge => row("body_too_large", 413, 8006, "The request body is too large"),
            Self::HeadTooLarge => row("head_too_large", 431, 8007, "The request head is too large"),
            Self::Overloaded => row("overloaded", 503, 8008, "The gateway holds as many request bodies as it may; try again shortly"),
            Self::Busy => row("busy", 503, 8013, "As many calls are in flight as may be; try again shortly"),
            Self::UnknownKey => row("unknown_key", 400, 8009, "No such stored provider key"),
            Self::Credential => row("credential", 502, 8010, "The gateway's stored credential for this provider could not be used"),
            Self::UpstreamUnreachable => row("upstream_unreachable", 502, 2005, "Failed to get response from provider: it could not be reached"),
            Self::UpstreamForbidden => row("upstream_forbidden", 502, 2005, "Failed to get response from provider: its address is not one the gateway connects to"),
            Self::UpstreamTls => row("upstream_tls", 502, 2005, "Failed to get response from provider: no secure connection could be made"),
            Self::UpstreamTimeout => row("upstream_timeout", 504, 2005, "Failed to get response from provider: it did not answer in time"),
            Self::UpstreamInvalid => row("upstream_invalid", 502, 2005, "Failed to get response from provider: its answer was not valid HTTP"),
            Self::UpstreamCut => row("upstream_cut", 502, 2005, "The provider's answer broke off"),
            Self::Internal => row("internal", 500, 8500, "The gateway failed; see its log"),
        }
    }

    /// The label in metrics and logs.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// HTTP status of the answer.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// Internal code of the envelope.
    pub const fn code(self) -> u32 {
        self.row().code
    }

    /// What the public may read when nothing more precise is said.
    pub const fn message(self) -> &'static str {
        self.row().message
    }

    /// Who is at fault. An answer of the gateway's own is not always its own fault.
    pub const fn source(self) -> Source {
        match self {
            Self::UnknownGateway
            | Self::UnknownProvider
            | Self::UnknownRoute
            | Self::Unauthorized
            | Self::RateLimited
            | Self::SpendLimited
            | Self::Denied
            | Self::ModelWithoutProvider
            | Self::BadPath
            | Self::BadRequest
            | Self::MethodNotAllowed
            | Self::BadHostPart
            | Self::ClientTimeout
            | Self::ClientGone
            | Self::BodyTooLarge
            | Self::HeadTooLarge
            | Self::UnknownKey => Source::Client,
            Self::Overloaded
            | Self::Busy
            | Self::Credential
            | Self::UpstreamForbidden
            | Self::Internal => Source::Gateway,
            Self::UpstreamUnreachable
            | Self::UpstreamTls
            | Self::UpstreamTimeout
            | Self::UpstreamInvalid
            | Self::UpstreamCut => Source::Provider,
        }
    }

    /// The methods that are served, for an answer that must name them (RFC 9110, 15.5.6).
    pub const fn allow(self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            _ => None,
        }
    }

    /// Whether sending the same request again can help, and after how many seconds, where a
    /// failure does not know it better.
    const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::Busy => Some(1),
            _ => None,
        }
    }
}

/// An error of the gateway, on its way to a client.
///
/// `public` may go to the client and must name neither an upstream address nor a secret;
/// `detail` goes to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which row of the table.
    pub kind: Kind,
    /// What the client reads.
    pub public: Cow<'static, str>,
    /// What only the log reads.
    pub detail: Option<Box<str>>,
    /// The rule of ours that refused the request: a denial, and no failure.
    pub denied_by: Option<Box<str>>,
    /// When the client may come back, in seconds, where that is known of this failure.
    patience: Option<u32>,
}

impl Failure {
    /// The kind with its own message.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            public: Cow::Borrowed(kind.message()),
            detail: None,
            denied_by: None,
            patience: None,
        }
    }

    /// The kind with a message that says more.
    pub fn because(kind: Kind, public: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            public: public.into(),
            detail: None,
            denied_by: None,
            patience: None,
        }
    }

    /// Adds what only the log may read.
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says which rule of ours refused the request.
    pub fn denied_by(mut self, rule: impl Into<Box<str>>) -> Self {
        self.denied_by = Some(rule.into());
        self
    }

    /// Says when the client may come back, in seconds.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.patience = Some(seconds);
        self
    }

    /// Whether sending the same request again can help, and after how many seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.patience.or(self.kind.retry_after())
    }

    /// The envelope of Cloudflare AI Gateway: singular `error`, an array.
    pub fn body(&self) -> Vec<u8> {
        let (status, code) = (self.kind.status(), self.kind.code());
        json!({
            "success": false,
            "result": [],
            "messages": [],
            "error": [{ "code": code, "message": self.public }],
            "name": "AiGatewayError",
            "httpCode": status,
            "internalCode": code,
            "message": self.public,
            "description": self.public,
        })
        .to_string()
        .into_bytes()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.public)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_statuses_are_errors() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(
            Kind::ALL
                .iter()
                .all(|kind| (400..600).contains(&kind.status()))
        );
    }

    #[test]
    fn the_envelope_is_the_one_that_clients_of_cloudflare_parse() {
        let body: serde_json::Value =
            serde_json::from_slice(&Failure::new(Kind::UnknownGateway).body()).unwrap();
        assert_eq!(body["success"], false);
        assert_eq!(body["error"][0]["code"], 2001);
        assert_eq!(body["internalCode"], 2001);
        assert_eq!(body["httpCode"], 400);
        assert_eq!(body["name"], "AiGatewayError");
        assert_eq!(body["message"], body["description"]);
        assert_eq!(body["result"], serde_json::json!([]));
    }

    #[test]
    fn a_failure_may_know_better_than_its_kind_when_to_come_back() {
        let busy = Failure::new(Kind::Busy);
        assert_eq!(busy.retry_after(), Some(1));
        assert_eq!(busy.with_retry_after(7).retry_after(), Some(7));
        assert_eq!(Failure::new(Kind::Internal).retry_after(), None);
    }

    #[test]
    fn detail_never_reaches_the_client() {
        let failure = Failure::new(Kind::UpstreamUnreachable).with_detail("10.1.2.3:443 refused");
        assert!(
            !String::from_utf8(failure.body())
                .unwrap()
                .contains("10.1.2.3")
        );
        assert!(failure.to_string().contains("10.1.2.3"));
    }
}
