//! Whether a request may be for the listener for operators: its own `Host` and `Origin` only. Who
//! brings a token may call it by any name: no browser sends one to a name that it was not told.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Checks the headers of a request to the listener at `address`.
///
/// # Errors
/// What the client should know.
pub fn check(address: SocketAddr, headers: &HeaderMap) -> Result<(), String> {
    let own = own_names(address);
    let mut hosts = headers.get_all(HOST).iter();
    let host_is_own = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_own(&own, host.as_bytes()),
        _ => false,
    };
    if !host_is_own {
        return Err(format!("the Host must be one of {}", own.join(", ")));
    }
    origin(headers, |scheme, authority| {
        scheme == "http" && is_own(&own, authority)
    })
}

/// The same for a request that brought a token: only other web pages are refused, which a browser
/// may let ride on what its user once typed.
///
/// # Errors
/// What the client should know.
pub fn check_origin(headers: &HeaderMap) -> Result<(), String> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    // Behind a proxy with TLS the page is not from where it is asked for.
    origin(headers, |_, authority| {
        host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority))
    })
}

/// Every origin that is said must be an own one: by its scheme and what stands behind it.
fn origin(headers: &HeaderMap, is_own: impl Fn(&str, &[u8]) -> bool) -> Result<(), String> {
    let foreign = |origin: &http::HeaderValue| {
        let parts = origin.to_str().ok().and_then(|text| text.split_once("://"));
        !parts.is_some_and(|(scheme, authority)| is_own(scheme, authority.as_bytes()))
    };
    match headers.get_all(ORIGIN).iter().any(foreign) {
        true => Err("requests of other web pages are not answered".to_owned()),
        false => Ok(()),
    }
}

fn is_own(own: &[String], authority: &[u8]) -> bool {
    own.iter()
        .any(|name| name.as_bytes().eq_ignore_ascii_case(authority))
}

/// The authorities that name this listener.
fn own_names(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let mut names = vec![address.to_string()];
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        names.push(format!("{name}:{port}"));
        if port == 80 {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn allowed(headers: &[(&'static str, &str)]) -> bool {
        let address = "127.0.0.1:8788".parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check(address, &map).is_ok()
    }

    #[test]
    fn its_own_names_are_answered() {
        for host in [
            "127.0.0.1:8788",
            "localhost:8788",
            "LocalHost:8788",
            "[::1]:8788",
        ] {
            assert!(allowed(&[("host", host)]), "{host}");
            assert!(
                allowed(&[("host", host), ("origin", "http://localhost:8788")]),
                "{host}"
            );
        }
    }

    #[test]
    fn other_hosts_are_not() {
        for host in [
            "evil.example",
            "evil.example:8788",
            "localhost",
            "localhost:8787",
            "127.0.0.1.evil.example:8788",
            "",
        ] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
        assert!(!allowed(&[]));
        assert!(!allowed(&[
            ("host", "localhost:8788"),
            ("host", "evil.example")
        ]));
    }

    #[test]
    fn other_origins_are_not() {
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:8788",
            "http://localhost:3000",
            "",
        ] {
            assert!(
                !allowed(&[("host", "localhost:8788"), ("origin", origin)]),
                "{origin}"
            );
        }
    }

    #[test]
    fn who_brings_a_token_may_use_any_name_but_not_from_another_page() {
        for (host, origin, good) in [
            ("gate.example", None, true),
            ("gate.example", Some("https://gate.example"), true),
            ("10.0.0.5:8788", Some("http://10.0.0.5:8788"), true),
            ("gate.example", Some("https://evil.example"), false),
            ("gate.example", Some("null"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            origin.map(|origin| headers.insert("origin", origin.parse().unwrap()));
            assert_eq!(check_origin(&headers).is_ok(), good, "{host} {origin:?}");
        }
    }
}
