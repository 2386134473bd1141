//! Google service accounts: the JSON, and the signed assertion that buys a token.
//!
//! The exchange is OAuth 2.0's JWT bearer grant (RFC 7523): an RS256-signed assertion is
//! posted to the account's `token_uri`, see [`super::token_cache`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Uri;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::fields::{self, Fields};
use super::key_places::after_scheme;

const FORM: &str = "{type, client_email, private_key, token_uri}";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How long an assertion, and the token bought with it, may live: the longest Google allows.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

/// A service account that can buy tokens.
pub struct ServiceAccount {
    client_email: String,
    private_key_id: Option<String>,
    token_uri: String,
    token_url: Uri,
    region: Option<String>,
    key: RsaKeyPair,
    digest: Digest,
}

/// SHA-256 of an account's JSON: who may share a cached token.
pub(super) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// The account's private key does not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotSign;

impl ServiceAccount {
    /// Reads a service account's JSON as Google hands it out; `region` may have been added.
    ///
    /// # Errors
    /// Which field is missing or wrong, without any secret.
    pub fn parse(json: &str) -> Result<Self, String> {
        let fields = Fields::parse(json, FORM)?;
        if fields.required("type")? != "service_account" {
            return Err(
                "`type` must be service_account: other kinds hold no key to sign with".into(),
            );
        }
        let token_uri = fields.required("token_uri")?;
        Ok(Self {
            client_email: fields.required("client_email")?.to_owned(),
            private_key_id: fields.optional("private_key_id")?.map(str::to_owned),
            token_uri: token_uri.to_owned(),
            token_url: token_url(token_uri)?,
            region: fields.optional("region")?.map(fields::region).transpose()?,
            key: private_key(fields.required("private_key")?)?,
            digest: sha256(json.as_bytes()),
        })
    }

    /// The service account that a client brings in `Authorization`: its JSON in base64 (standard
    /// or URL-safe, padded or not), with or without `Bearer`. `None` is anything else: a token.
    ///
    /// A client must not make the gateway call addresses of its choice: `token_uri` must be
    /// Google's here.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn from_header(authorization: &str) -> Option<Result<Self, String>> {
        let authorization = authorization.trim();
        let encoded = after_scheme(authorization, "Bearer").unwrap_or(authorization);
        let decoded = decode(encoded)?;
        if !decoded.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let Ok(json) = String::from_utf8(decoded) else {
            return Some(Err(format!("must be JSON {FORM} in UTF-8")));
        };
        Some(Self::parse(&json).and_then(Self::with_googles_token_uri))
    }

    fn with_googles_token_uri(self) -> Result<Self, String> {
        let host = self.token_url.host().unwrap_or_default();
        let googles = host == "accounts.google.com" || host.ends_with(".googleapis.com");
        if googles && self.is_https() && self.token_url.port().is_none() {
            Ok(self)
        } else {
            Err("`token_uri` must be Google's, such as https://oauth2.googleapis.com/token".into())
        }
    }

    /// A signed assertion (JWT, RS256) that asks for a token from `now` on.
    ///
    /// Valid for an hour. Costs one RSA signature, about a millisecond.
    ///
    /// # Errors
    /// When the private key's parts do not belong together.
    pub fn assertion(&self, now: SystemTime) -> Result<String, CannotSign> {
        let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.private_key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": issued.as_secs(),
            "exp": (issued + LIFETIME).as_secs(),
        });
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CannotSign> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .map_err(|_| CannotSign)?;
        Ok(signature)
    }

    /// Whom tokens are issued to.
    pub fn client_email(&self) -> &str {
        &self.client_email
    }

    /// Where tokens are bought: an `https` URL, or `http` where [`is_https`](Self::is_https) is false.
    pub fn token_url(&self) -> &Uri {
        &self.token_url
    }

    /// Whether `token_uri` is `https`. A provider that does not allow insecure URLs refuses others.
    pub fn is_https(&self) -> bool {
        self.token_url.scheme_str() == Some("https")
    }

    /// The region stored with the account: for requests whose URL names none.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("client_email", &self.client_email)
            .field("token_uri", &self.token_uri)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

fn token_url(text: &str) -> Result<Uri, String> {
    let refusal = || "`token_uri` must be a URL such as https://oauth2.googleapis.com/token";
    let url: Uri = text.parse().map_err(|_| refusal())?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let scheme_fits = matches!(url.scheme_str(), Some("https" | "http"));
    if scheme_fits && !authority.is_empty() && !authority.contains('@') {
        Ok(url)
    } else {
        Err(refusal().into())
    }
}

fn private_key(pem: &str) -> Result<RsaKeyPair, String> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(
        |_| "`private_key` is not a PEM private key; in JSON its line breaks are written \\n",
    )?;
    let key = match &der {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err("`private_key` must be an RSA key in PKCS#8".into()),
    };
    // ring's words are a closed set (InvalidEncoding, TooSmall, …) and say nothing of the key.
    key.map_err(|why| format!("`private_key` must be an RSA key of 2048 to 4096 bits: {why}"))
}

fn decode(encoded: &str) -> Option<Vec<u8>> {
    let any_padding =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if encoded.contains(['-', '_']) {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    GeneralPurpose::new(alphabet, any_padding)
        .decode(encoded)
        .ok()
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
    use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    const PKCS8: &str = include_str!("../../tests/keys/google-service-account-test-only.pem");
    const PKCS1: &str = include_str!("../../tests/keys/pkcs1-test-only.pem");
    const EC: &str = include_str!("../../tests/keys/ec-test-only.pem");

    fn account_json() -> Value {
        json!({
            "type": "service_account",
            "project_id": "lighthouse",
            "private_key_id": "0123abcd",
            "private_key": PKCS8,
            "client_email": "keeper@lighthouse.example",
            "token_uri": "https://oauth2.googleapis.com/token",
            "universe_domain": "googleapis.com"
        })
    }

    /// An account of its own, told apart by its e-mail address.
    pub(in super::super) fn account(client_email: &str) -> ServiceAccount {
        let mut json = account_json();
        json["client_email"] = client_email.into();
        ServiceAccount::parse(&json.to_string()).unwrap()
    }

    fn with(field: &str, value: Value) -> String {
        let mut json = account_json();
        json[field] = value;
        json.to_string()
    }

    fn part(text: &str) -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn the_assertion_is_a_jwt_that_the_public_key_verifies() {
        let account = account("keeper@lighthouse.example");
        let now = UNIX_EPOCH + Duration::from_millis(1_790_000_000_900);
        let jwt = account.assertion(now).unwrap();

        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let public_key = account.key.public_key().as_ref();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
            .verify(
                signed.as_bytes(),
                &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .expect("the signature is the key's");

        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(
            part(header),
            json!({ "alg": "RS256", "typ": "JWT", "kid": "0123abcd" })
        );
        assert_eq!(
            part(claims),
            json!({
                "iss": "keeper@lighthouse.example",
                "scope": "https://www.googleapis.com/auth/cloud-platform",
                "aud": "https://oauth2.googleapis.com/token",
                "iat": 1_790_000_000,
                "exp": 1_790_003_600
            })
        );
    }

    #[test]
    fn a_key_without_an_id_is_signed_without_kid() {
        let account = ServiceAccount::parse(&with("private_key_id", Value::Null)).unwrap();
        let jwt = account.assertion(UNIX_EPOCH).unwrap();
        assert_eq!(
            part(jwt.split('.').next().unwrap()),
            json!({ "alg": "RS256", "typ": "JWT" })
        );
    }

    #[test]
    fn a_region_may_be_added_and_a_key_may_be_pkcs1() {
        let account = ServiceAccount::parse(&with("region", json!("europe-west4"))).unwrap();
        assert_eq!(account.region(), Some("europe-west4"));
        ServiceAccount::parse(&with("private_key", json!(PKCS1))).unwrap();
    }

    #[test]
    fn a_broken_account_is_told_by_its_field_without_the_key() {
        let no_pem =
            "`private_key` is not a PEM private key; in JSON its line breaks are written \\n";
        let no_url = "`token_uri` must be a URL such as https://oauth2.googleapis.com/token";
        let cases = [
            (
                "type",
                json!("authorized_user"),
                "`type` must be service_account: other kinds hold no key to sign with",
            ),
            (
                "client_email",
                Value::Null,
                "`client_email` is missing; expected JSON {type, client_email, private_key, token_uri}",
            ),
            ("private_key", json!("hunter2"), no_pem),
            ("private_key", json!(PKCS8.replace('\n', "\\n")), no_pem),
            (
                "private_key",
                json!(EC),
                "`private_key` must be an RSA key of 2048 to 4096 bits: WrongAlgorithm",
            ),
            ("token_uri", json!("oauth2.googleapis.com/token"), no_url),
            (
                "token_uri",
                json!("ftp://oauth2.googleapis.com/token"),
                no_url,
            ),
            ("token_uri", json!("https://a@b/token"), no_url),
            (
                "region",
                json!("europe.west4"),
                "`region` must be a region's name such as us-east-1",
            ),
        ];
        for (field, value, message) in cases {
            assert_eq!(
                ServiceAccount::parse(&with(field, value)).unwrap_err(),
                message
            );
        }
    }

    #[test]
    fn an_account_is_read_from_the_header_in_every_base64() {
        let json = with("client_email", json!("~~~???@lighthouse.example"));
        let encodings = [
            BASE64_STANDARD.encode(&json),
            BASE64_STANDARD_NO_PAD.encode(&json),
            BASE64_URL_SAFE.encode(&json),
            format!("Bearer {}", BASE64_STANDARD.encode(&json)),
            format!("bearer  {} ", BASE64_URL_SAFE_NO_PAD.encode(&json)),
        ];
        for header in encodings {
            let account = ServiceAccount::from_header(&header).unwrap().unwrap();
            assert_eq!(account.client_email(), "~~~???@lighthouse.example");
        }
    }

    #[test]
    fn tokens_in_the_header_are_no_accounts() {
        let not_json = BASE64_STANDARD.encode("a token in base64");
        for header in [
            "",
            "Bearer ",
            "Bearer ya29.a0Af-token_x",
            "AKIDEXAMPLE",
            &not_json,
        ] {
            assert!(ServiceAccount::from_header(header).is_none(), "{header:?}");
        }
    }

    #[test]
    fn a_clients_account_cannot_send_the_gateway_elsewhere() {
        let from = |token_uri: &str| {
            let encoded = BASE64_STANDARD.encode(with("token_uri", json!(token_uri)));
            ServiceAccount::from_header(&encoded).unwrap()
        };
        assert!(from("https://accounts.google.com/o/oauth2/token").is_ok());
        for elsewhere in [
            "http://oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com:8443/token",
            "https://169.254.169.254/token",
            "https://googleapis.com.evil.example/token",
            "https://evilgoogleapis.com/token",
        ] {
            assert_eq!(
                from(elsewhere).unwrap_err(),
                "`token_uri` must be Google's, such as https://oauth2.googleapis.com/token"
            );
        }
    }

    #[test]
    fn accounts_are_told_apart_and_printed_without_their_key() {
        assert_ne!(account("a@x").digest(), account("b@x").digest());
        assert_eq!(account("a@x").digest(), account("a@x").digest());
        let printed = format!("{:?}", account("a@x"));
        assert!(
            !printed.contains("PRIVATE") && !printed.contains("key"),
            "{printed}"
        );
    }
}
