//! How a provider's stored secret is put on a request, and where a client's own key stands.
//!
//! [`Credential`] is a stored secret, checked once when the configuration is read;
//! [`KeyPlaces`] tells whether a request brings a key of its own. Signing ([`aws`]) and
//! the exchange for short-lived tokens ([`google`], [`token_cache`], [`token_client`])
//! take the time as an argument and know nothing of the proxy.
//!
//! Left out on purpose: who may spend a stored key. That is the gateway's decision.

pub mod aws;
mod fields;
pub mod google;
mod key_places;
pub mod token_cache;
pub mod token_client;
mod token_exchange;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::config::schema::Auth;

pub use aws::AwsKey;
pub use google::ServiceAccount;
pub use key_places::{KeyPlaces, OwnKey, names_who_pays, without_who_pays};
pub use token_cache::TokenCache;
pub use token_client::TokenClient;
pub use token_exchange::TokenError;

/// A provider's stored secret in the form in which it is used.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A header to set; the value is marked sensitive.
    Header {
        /// Header name.
        name: HeaderName,
        /// Prefix and key.
        value: HeaderValue,
    },
    /// Requests are signed: see [`aws::sign`].
    Aws {
        /// Who signs.
        key: AwsKey,
        /// The service name that is signed, such as `bedrock`.
        service: String,
    },
    /// Exchanged for short-lived tokens: see [`TokenCache`].
    Google(Arc<ServiceAccount>),
}

/// Reads a stored secret for a provider that takes its key as `auth` says.
///
/// # Errors
/// A sentence for the operator that names what is wrong, a JSON field where there is
/// one, and never contains any of the secret.
pub fn parse(auth: &Auth, secret: &str) -> Result<Credential, String> {
    let secret = secret.trim();
    match auth {
        Auth::Bearer => header(AUTHORIZATION, "Bearer ", secret),
        Auth::Header { name, prefix, .. } => header(key_places::header_name(name)?, prefix, secret),
        Auth::AwsSigv4 { service } => {
            if !fields::is_visible_ascii(service) || service.contains('/') {
                return Err("`service` must be a service's signing name such as bedrock".into());
            }
            Ok(Credential::Aws {
                key: AwsKey::parse(secret)?,
                service: service.clone(),
            })
        }
        Auth::GoogleServiceAccount => {
            Ok(Credential::Google(Arc::new(ServiceAccount::parse(secret)?)))
        }
        Auth::None => Err("this provider takes no key; remove it or set `auth`".into()),
    }
}

fn header(name: HeaderName, prefix: &str, key: &str) -> Result<Credential, String> {
    if key.is_empty() {
        return Err("the key is empty".into());
    }
    let scheme = prefix.trim();
    if !scheme.is_empty() && key_places::after_scheme(key, scheme).is_some() {
        return Err(format!("give the key alone, without `{scheme}`"));
    }
    let mut value = HeaderValue::from_str(&format!("{prefix}{key}")).map_err(
        |_| "the key contains a character that cannot stand in a header, such as a line break",
    )?;
    value.set_sensitive(true);
    Ok(Credential::Header { name, value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header_auth(name: &str, prefix: &str) -> Auth {
        Auth::Header {
            name: name.into(),
            prefix: prefix.into(),
            also: vec![],
            query: None,
        }
    }

    fn set_by(auth: &Auth, secret: &str) -> (String, String) {
        match parse(auth, secret).unwrap() {
            Credential::Header { name, value } => {
                assert!(value.is_sensitive());
                (name.to_string(), value.to_str().unwrap().to_owned())
            }
            other => panic!("not a header: {other:?}"),
        }
    }

    #[test]
    fn a_key_becomes_the_header_its_provider_reads() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            set_by(&Auth::Bearer, " sk-1\n"),
            pair("authorization", "Bearer sk-1")
        );
        assert_eq!(
            set_by(&header_auth("X-API-Key", ""), "k"),
            pair("x-api-key", "k")
        );
        assert_eq!(
            set_by(&header_auth("Authorization", "Key "), "id:k"),
            pair("authorization", "Key id:k")
        );
    }

    #[test]
    fn mistakes_are_told_without_the_secret() {
        let cases = [
            (Auth::Bearer, "", "the key is empty"),
            (Auth::Bearer, "  \n", "the key is empty"),
            (
                Auth::Bearer,
                "bearer hunter2",
                "give the key alone, without `Bearer`",
            ),
            (
                header_auth("authorization", "Key "),
                "Key hunter2",
                "give the key alone, without `Key`",
            ),
            (
                Auth::Bearer,
                "hunter2\nhunter2",
                "the key contains a character that cannot stand in a header, such as a line break",
            ),
            (
                header_auth("no good", ""),
                "hunter2",
                "`no good` is not a header name",
            ),
            (
                Auth::None,
                "hunter2",
                "this provider takes no key; remove it or set `auth`",
            ),
            (
                Auth::AwsSigv4 {
                    service: "bed rock".into(),
                },
                "{}",
                "`service` must be a service's signing name such as bedrock",
            ),
        ];
        for (auth, secret, message) in cases {
            assert_eq!(parse(&auth, secret).unwrap_err(), message);
        }
    }

    #[test]
    fn printing_a_credential_prints_no_secret() {
        let printed = format!("{:?}", parse(&Auth::Bearer, "hunter2").unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
