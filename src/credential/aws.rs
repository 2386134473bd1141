//! AWS Signature Version 4.
//!
//! What is signed is what goes on the wire: call [`sign`] with the final method, host,
//! path, query and body. The rules are those of services other than S3: the path is
//! normalised and each segment percent-encoded once more than it stands on the wire
//! (`:` becomes `%3A`, `%3A` becomes `%253A`), the whole body is hashed.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings};
use aws_sigv4::sign::v4;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest;

use super::fields::{self, Fields};
use crate::config::secret::Secret;

const FORM: &str = "{accessKeyId, secretAccessKey, region, sessionToken?}";

/// Headers that a signature makes or that a stale one leaves behind. Remove them from a
/// request before [`sign`]'s headers are set; they are never signed as the client sent them.
pub const SIGNATURE_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// Changed on the way by load balancers, and so never signed.
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// An AWS access key.
#[derive(Debug, Clone)]
pub struct AwsKey {
    access_key_id: String,
    secret_access_key: Secret,
    region: String,
    session_token: Option<Secret>,
}

impl AwsKey {
    /// Reads `{"accessKeyId", "secretAccessKey", "region", "sessionToken"?}`; other fields are ignored.
    ///
    /// # Errors
    /// Which field is missing or wrong, without any value.
    pub fn parse(json: &str) -> Result<Self, String> {
        let fields = Fields::parse(json, FORM)?;
        let access_key_id = word(fields.required("accessKeyId")?, "accessKeyId")?;
        if access_key_id.contains(['/', ',']) {
            return Err("`accessKeyId` must be letters and digits".into());
        }
        let secret_access_key = word(fields.required("secretAccessKey")?, "secretAccessKey")?;
        let session_token = match fields.optional("sessionToken")? {
            Some(token) => Some(Secret::new(word(token, "sessionToken")?)),
            None => None,
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key),
            region: fields::region(fields.required("region")?)?,
            session_token,
        })
    }

    /// The region stored with the key: for requests whose URL names none.
    pub fn region(&self) -> &str {
        &self.region
    }

    fn credentials(&self) -> Credentials {
        let session_token = self.session_token.as_ref();
        Credentials::new(
            &self.access_key_id,
            self.secret_access_key.expose(),
            session_token.map(|token| token.expose().to_owned()),
            None,
            "stored key",
        )
    }
}

fn word<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    if fields::is_visible_ascii(text) {
        Ok(text)
    } else {
        Err(format!(
            "`{name}` contains a space or another character that no key has"
        ))
    }
}

/// A request to sign, as it goes on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// Method.
    pub method: &'a str,
    /// `Host` header: with the port where the URL names one.
    pub host: &'a str,
    /// Path with its percent-encodings, from the first `/`.
    pub path: &'a str,
    /// Query without `?`. A `+` counts as a space, as everywhere at AWS.
    pub query: Option<&'a str>,
    /// Headers. `content-type` and `x-amz…` are signed; they must not change afterwards.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a request cannot be signed. Only a malformed request or region can be the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// Host, path or query do not form a URL.
    Url,
    /// A header that must be signed holds bytes that are not text.
    Header(HeaderName),
}

impl std::fmt::Display for SignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url => f.write_str("the request's URL cannot be signed"),
            Self::Header(name) => write!(f, "the header {name} cannot be signed: it is not text"),
        }
    }
}

impl std::error::Error for SignError {}

/// Signs `request` for `service` in `region`, the region of its URL and not the key's.
///
/// Returns the headers to set: `authorization`, `x-amz-date` and, for a temporary key,
/// `x-amz-security-token`. Remove [`SIGNATURE_HEADERS`] first. Costs one SHA-256 of the body.
///
/// # Errors
/// See [`SignError`].
pub fn sign(
    key: &AwsKey,
    service: &str,
    region: &str,
    request: &Unsigned<'_>,
    now: SystemTime,
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let identity = key.credentials().into();
    // The default settings are those of services other than S3; see the top of this file.
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| SignError::Url)?
        .into();
    let signature =
        aws_sigv4::http_request::sign(signable(request)?, &params).map_err(|_| SignError::Url)?;
    let (instructions, _) = signature.into_parts();
    instructions.headers().map(sensitive_header).collect()
}

fn sensitive_header((name, value): (&str, &str)) -> Result<(HeaderName, HeaderValue), SignError> {
    let name: HeaderName = name.parse().map_err(|_| SignError::Url)?;
    match HeaderValue::from_str(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok((name, value))
        }
        Err(_) => Err(SignError::Header(name)),
    }
}

fn signable<'a>(request: &Unsigned<'a>) -> Result<SignableRequest<'a>, SignError> {
    // A fragment would be cut off before it is signed, but not before it is sent.
    let has_fragment = |text: &str| text.contains('#');
    if !request.path.starts_with('/')
        || has_fragment(request.path)
        || request.query.is_some_and(has_fragment)
    {
        return Err(SignError::Url);
    }
    let question_mark = if request.query.is_some() { "?" } else { "" };
    let url = format!(
        "https://{}{}{question_mark}{}",
        request.host,
        request.path,
        request.query.unwrap_or_default()
    );
    let mut headers = vec![("host", request.host)];
    for (name, value) in request.headers.iter().filter(|(name, _)| is_signed(name)) {
        let value = value
            .to_str()
            .map_err(|_| SignError::Header(name.clone()))?;
        headers.push((name.as_str(), value));
    }
    SignableRequest::new(
        request.method,
        url,
        headers.into_iter(),
        SignableBody::Precomputed(sha256_hex(request.body)),
    )
    .map_err(|_| SignError::Url)
}

/// By ring and not by aws-sigv4, whose pure Rust takes a second for 32 MiB in a debug build.
fn sha256_hex(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    let bytes = digest.as_ref().iter();
    bytes.fold(String::with_capacity(64), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    })
}

fn is_signed(name: &HeaderName) -> bool {
    let candidate = *name == CONTENT_TYPE || name.as_str().starts_with("x-amz");
    candidate && *name != TRACE_ID && !SIGNATURE_HEADERS.contains(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::{Value, json};

    use super::*;

    fn key() -> AwsKey {
        AwsKey::parse(
            r#"{"accessKeyId":"AKIDEXAMPLE","secretAccessKey":"hunter2","region":"us-east-1"}"#,
        )
        .unwrap()
    }

    fn request(headers: &HeaderMap) -> Unsigned<'_> {
        Unsigned {
            method: "POST",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            path: "/model/m/invoke",
            query: None,
            headers,
            body: b"{}",
        }
    }

    fn signed(request: &Unsigned<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        sign(&key(), "bedrock", "us-east-1", request, now)
    }

    fn header_map(headers: &Value) -> HeaderMap {
        let pairs: Vec<(String, String)> = serde_json::from_value(headers.clone()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    /// What `sign` answers for a case of `sigv4.json`, in the form of its `expected`.
    fn answer(case: &Value) -> Value {
        let body = BASE64_STANDARD
            .decode(case["body"].as_str().unwrap())
            .unwrap();
        let request = Unsigned {
            method: case["method"].as_str().unwrap(),
            host: case["host"].as_str().unwrap(),
            path: case["path"].as_str().unwrap(),
            query: case["query"].as_str(),
            headers: &header_map(&case["headers"]),
            body: &body,
        };
        let headers = sign(
            &AwsKey::parse(&case["key"].to_string()).unwrap(),
            case["service"].as_str().unwrap(),
            case["region"].as_str().unwrap(),
            &request,
            SystemTime::UNIX_EPOCH + Duration::from_secs(case["time"].as_u64().unwrap()),
        );
        let headers: BTreeMap<String, String> = headers
            .unwrap()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        json!(headers)
    }

    #[test]
    fn signatures_are_those_of_botocore() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/vectors/sigv4.json")).unwrap();
        assert!(cases.len() >= 20, "the file lost its cases");
        for case in &cases {
            assert_eq!(answer(case), case["expected"], "{}", case["name"]);
        }
    }

    #[test]
    fn headers_that_change_on_the_way_or_come_from_an_old_signature_are_not_signed() {
        let plain = header_map(&json!([["content-type", "application/json"]]));
        let crowded = header_map(&json!([
            ["content-type", "application/json"],
            ["accept", "*/*"],
            ["user-agent", "sdk"],
            ["x-amzn-trace-id", "Root=1"],
            ["authorization", "AWS4-HMAC-SHA256 old"],
            ["x-amz-date", "20000101T000000Z"],
            ["x-amz-security-token", "old"],
            ["x-amz-content-sha256", "old"]
        ]));
        assert_eq!(
            signed(&request(&plain)).unwrap(),
            signed(&request(&crowded)).unwrap()
        );
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let mut headers = HeaderMap::new();
        let at = |path, query| {
            signed(&Unsigned {
                path,
                query,
                ..request(&HeaderMap::new())
            })
        };
        assert_eq!(at("model", None), Err(SignError::Url));
        assert_eq!(at("/a#b", None), Err(SignError::Url));
        assert_eq!(at("/a", Some("b#c")), Err(SignError::Url));
        assert_eq!(at("/a b", None), Err(SignError::Url));
        headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(
            signed(&request(&headers)),
            Err(SignError::Header(CONTENT_TYPE))
        );
    }

    #[test]
    fn a_broken_key_is_told_by_its_field() {
        let whole = json!({
            "accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2", "region": "us-east-1"
        });
        let cases = [
            (
                "accessKeyId",
                json!(null),
                "`accessKeyId` is missing; expected JSON {accessKeyId, secretAccessKey, region, sessionToken?}",
            ),
            (
                "accessKeyId",
                json!("hunter2/x"),
                "`accessKeyId` must be letters and digits",
            ),
            (
                "secretAccessKey",
                json!("hunter2 "),
                "`secretAccessKey` contains a space or another character that no key has",
            ),
            (
                "region",
                json!("us_east"),
                "`region` must be a region's name such as us-east-1",
            ),
            (
                "sessionToken",
                json!(7),
                "`sessionToken` must be a string, not a number",
            ),
            (
                "sessionToken",
                json!("hunter2\n"),
                "`sessionToken` contains a space or another character that no key has",
            ),
        ];
        for (field, value, message) in cases {
            let mut broken = whole.clone();
            broken[field] = value;
            assert_eq!(AwsKey::parse(&broken.to_string()).unwrap_err(), message);
        }
        assert_eq!(
            AwsKey::parse(&whole.to_string()).unwrap().region(),
            "us-east-1"
        );
    }

    #[test]
    fn printing_a_key_prints_no_secret() {
        let key = AwsKey::parse(
            r#"{"accessKeyId":"AKIDEXAMPLE","secretAccessKey":"hunter2","region":"r","sessionToken":"hunter3"}"#,
        );
        let printed = format!("{:?}", key.unwrap());
        assert!(!printed.contains("hunter"), "{printed}");
    }
}
