//! The path of a request to a gateway, a provider and the provider's own path.
//!
//! `/v1/{account}/{gateway}/{provider}/{path}`, contract of Cloudflare AI Gateway,
//! provider-native endpoints. Bytes after the provider are kept as they came.

/// Where a request wants to go. All parts borrow from the request's raw path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Account id.
    pub account: &'a str,
    /// Gateway id.
    pub gateway: &'a str,
    /// Provider slug, as the client wrote it; empty for the universal endpoint, which takes an
    /// array of steps.
    pub provider: &'a str,
    /// What follows the slug, without the leading `/`: raw, percent-encodings untouched.
    pub path: &'a str,
    /// The query without its `?`: raw. `None` differs from an empty query.
    pub query: Option<&'a str>,
}

/// Why a path is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// Not of the form `/v1/{account}/{gateway}/{provider}/…`.
    Form,
    /// Not UTF-8.
    Encoding,
}

impl Unserved {
    /// What to tell the client.
    pub fn message(self) -> &'static str {
        match self {
            Self::Form => {
                "Nothing is served at this path; requests go to /v1/{account}/{gateway}/{provider}/{path}, for example /v1/default/default/openai/chat/completions"
            }
            Self::Encoding => "The path is not UTF-8; percent-encode it",
        }
    }
}

impl<'a> Endpoint<'a> {
    /// It takes an array of steps: `/v1/{account}/{gateway}`.
    pub fn is_universal(&self) -> bool {
        self.provider.is_empty()
    }

    /// Splits a raw request target in origin form (`/path?query`).
    pub fn parse(target: &'a [u8]) -> Result<Self, Unserved> {
        let target = std::str::from_utf8(target).map_err(|_| Unserved::Encoding)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let rest = path.strip_prefix("/v1/").ok_or(Unserved::Form)?;
        let (account, rest) = rest.split_once('/').ok_or(Unserved::Form)?;
        let (gateway, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if account.is_empty() || gateway.is_empty() {
            return Err(Unserved::Form);
        }
        let (provider, path) = rest.split_once('/').unwrap_or((rest, ""));
        if provider.is_empty() && !path.is_empty() {
            return Err(Unserved::Form);
        }
        Ok(Self {
            account,
            gateway,
            provider,
            path,
            query,
        })
    }
}

/// Whether a raw request target may be the universal endpoint's; cheap, for every request asks.
pub fn is_universal(target: &[u8]) -> bool {
    // In absolute form it is not looked into.
    let in_origin_form = target.starts_with(b"/");
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let slashes = memchr::memchr_iter(b'/', path).take(5).count();
    !in_origin_form || slashes < 4 || (slashes == 4 && path.ends_with(b"/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn splits_the_target_and_keeps_its_bytes() {
        let endpoint =
            Endpoint::parse(b"/v1/acc/gw/openai/v1/chat%2Fx/completions?a=%zz&b=?&c=+").unwrap();
        assert_eq!(endpoint.account, "acc");
        assert_eq!(endpoint.gateway, "gw");
        assert_eq!(endpoint.provider, "openai");
        assert_eq!(endpoint.path, "v1/chat%2Fx/completions");
        assert_eq!(endpoint.query, Some("a=%zz&b=?&c=+"));
    }

    #[test]
    fn a_provider_may_stand_alone_for_realtime_connections() {
        for target in [&b"/v1/a/g/openai?model=x"[..], b"/v1/a/g/openai/?model=x"] {
            let endpoint = Endpoint::parse(target).unwrap();
            assert_eq!(
                (endpoint.provider, endpoint.path, endpoint.query),
                ("openai", "", Some("model=x"))
            );
        }
    }

    #[test]
    fn a_gateway_alone_is_the_universal_endpoint() {
        for target in [
            &b"/v1/a/g"[..],
            b"/v1/a/g/",
            b"/v1/a/g?x=//y",
            b"/v1/a/g/?x",
        ] {
            let endpoint = Endpoint::parse(target).unwrap();
            assert!(endpoint.is_universal() && is_universal(target));
            assert_eq!((endpoint.account, endpoint.gateway), ("a", "g"));
        }
        for target in [&b"/v1/a/g/openai"[..], b"/v1/a/g/openai/", b"/v1/a/g/x/y/z"] {
            assert!(!Endpoint::parse(target).unwrap().is_universal());
            assert!(!is_universal(target));
        }
    }

    #[test]
    fn other_paths_are_refused_with_their_reason() {
        let cases: [(&[u8], Unserved); 9] = [
            (b"/", Unserved::Form),
            (b"*", Unserved::Form),
            (b"/v1/a", Unserved::Form),
            (b"/v1//g/openai/x", Unserved::Form),
            (b"/v1/a//openai/x", Unserved::Form),
            (b"/v1/a/g//x", Unserved::Form),
            (b"/v1/a/g//x", Unserved::Form),
            (b"/v2/a/g", Unserved::Form),
            (b"/v1/a/g/op\xffenai/x", Unserved::Encoding),
        ];
        for (target, reason) in cases {
            assert_eq!(
                Endpoint::parse(target),
                Err(reason),
                "{}",
                target.escape_ascii()
            );
        }
    }
}
