//! Heads on their way through an exchange, as far as HTTP itself wants something of them.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, Uri, Version};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::proxy::context::Context;
use crate::proxy::{attempt, caching, response};

/// Of one connection only (RFC 9110, 7.6.1).
const OF_A_CONNECTION: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];
/// What makes an answer one to the client's own state (RFC 9110, 13.1 and 14.2).
const CONDITIONS: [HeaderName; 6] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    RANGE,
];
/// Names that a `Connection` header may have; as many as Pingora allows.
const MOST_NOMINATED: usize = 9;
/// Nobody may have these taken off the request by naming them in `Connection`.
const PROTECTED: [&str; 4] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The head that goes to the provider.
pub fn of(session: &Session, ctx: &mut Context, http2: bool, tls: bool) -> Result<RequestHeader> {
    let mut head = session.req_header().clone();
    head.set_version(match http2 {
        true => Version::HTTP_2,
        false => Version::HTTP_11,
    });
    leave_the_connection(&mut head).map_err(|error| error.into_down())?;
    if caching::is_leading(ctx) {
        // Others are to have the answer whole.
        CONDITIONS.iter().for_each(|name| {
            head.remove_header(name);
        });
    }
    attempt::head(session, &mut head, ctx).map_err(|failure| ctx.fail(failure))?;
    match http2 {
        true => of_http2(head, tls),
        false => Ok(head),
    }
}

/// Removes what is of the client's connection only, and what its `Connection` header names.
fn leave_the_connection(head: &mut RequestHeader) -> Result<()> {
    let mut nominated = Vec::new();
    for value in head.headers.get_all(CONNECTION) {
        let names = value.as_bytes().split(|byte| *byte == b',');
        let names = names.map(<[u8]>::trim_ascii);
        for name in names.filter(|name| !name.is_empty()) {
            if nominated.len() == MOST_NOMINATED {
                return broken("too many names in the Connection header");
            }
            nominated.push(nominee(name)?);
        }
    }
    for name in nominated.iter().chain(&OF_A_CONNECTION) {
        head.remove_header(name);
    }
    Ok(())
}

fn nominee(name: &[u8]) -> Result<HeaderName> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let parsed = HeaderName::from_bytes(name);
    match parsed {
        Ok(parsed) if name.iter().all(is_token) && !PROTECTED.contains(&parsed.as_str()) => {
            Ok(parsed)
        }
        _ => broken("a name in the Connection header that may not stand there"),
    }
}

fn broken<T>(what: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, what)
}

/// HTTP/2 has the host in its target (RFC 9113, 8.3.1).
fn of_http2(mut head: RequestHeader, tls: bool) -> Result<RequestHeader> {
    let host = head.remove_header(&HOST);
    let authority = host.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let target = head.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
        .build();
    head.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "a target for HTTP/2")?);
    // Without the cases of names, which there are none of in HTTP/2.
    Ok(http::request::Parts::from(head).into())
}

/// The provider's head goes to the client. `ends`: nothing follows it.
pub fn leaves(
    session: &mut Session,
    head: &mut ResponseHeader,
    ends: bool,
    ctx: &mut Context,
) -> Result<()> {
    if head.version == Version::HTTP_2 {
        response::head_leaves(session, head, ctx)?;
        // Pingora takes no other version, and makes of it what its client speaks.
        head.set_version(Version::HTTP_11);
        return frame(session, head);
    }
    if !ends {
        frame(session, head)?;
    }
    response::head_leaves(session, head, ctx)
}

/// Without a length the body goes in chunks; nothing tells the end of an HTTP/1.0 answer but the end
/// of its connection, which is not the client's.
fn frame(session: &Session, head: &mut ResponseHeader) -> Result<()> {
    let has_no_body = session.req_header().method == Method::HEAD
        || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
    let is_framed = |name| head.headers.contains_key(name);
    if has_no_body || is_framed(CONTENT_LENGTH) || is_framed(TRANSFER_ENCODING) {
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    head.insert_header(TRANSFER_ENCODING, "chunked")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn asked(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("POST", b"/v1/chat?a=b", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn names(head: &RequestHeader) -> Vec<&str> {
        head.headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_is_of_the_clients_connection_stays_there() {
        let mut head = asked(&[
            ("Host", "a"),
            ("Connection", "keep-alive, X-Mine"),
            ("Connection", "upgrade"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAA"),
            ("Proxy-Authorization", "Basic YTpi"),
            ("X-Mine", "1"),
            ("X-Theirs", "2"),
        ]);
        leave_the_connection(&mut head).unwrap();
        assert_eq!(names(&head), ["host", "x-theirs"]);
    }

    #[test]
    fn nobody_has_others_headers_taken_off() {
        for connection in [
            "host",
            "X-Forwarded-For",
            ":authority",
            "\"x-forwarded-for\"",
            "a b",
            "a,b,c,d,e,f,g,h,i,j",
        ] {
            let mut head = asked(&[("Connection", connection)]);
            let error = leave_the_connection(&mut head).unwrap_err();
            assert_eq!(error.etype(), &ErrorType::InvalidHTTPHeader, "{connection}");
        }
        let mut head = asked(&[("Connection", "a,b,c,d,e,f,g,h,,i,"), ("Accept", "*/*")]);
        leave_the_connection(&mut head).unwrap();
        assert_eq!(head.headers[ACCEPT], "*/*");
    }

    #[test]
    fn over_http2_the_host_is_in_the_target() {
        let mut head = asked(&[("Host", "api.example.com:8443"), ("Accept", "*/*")]);
        head.set_version(Version::HTTP_2);
        let head = of_http2(head, true).unwrap();
        assert_eq!(head.uri, "https://api.example.com:8443/v1/chat?a=b");
        assert_eq!(names(&head), ["accept"]);
        assert!(of_http2(asked(&[]), true).is_err());
    }
}
