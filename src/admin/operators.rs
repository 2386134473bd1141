//! Whose a request to the listener for operators is: by one of `admin.tokens`, as a bearer token, as
//! `x-auth-key`, or as the password that a browser asks for.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::{json_response, management, page};
use crate::auth::{Authentication, Consumer, bare};

/// Where Cloudflare's older clients have their key.
const AUTH_KEY: &str = "x-auth-key";

/// Whose the first token on a request is that somebody has.
pub fn whose(operators: &Authentication, headers: &HeaderMap) -> Option<Arc<Consumer>> {
    let mut brought = brought(headers);
    brought.find_map(|token| operators.consumer(&token).cloned())
}

/// What a request brings where a token may stand.
pub fn brought(headers: &HeaderMap) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let authorization = headers.get_all(AUTHORIZATION).iter();
    let authorization = authorization.map(|value| token_in(value.as_bytes()));
    let keys = headers.get_all(AUTH_KEY).iter();
    authorization.chain(keys.map(|value| Cow::Borrowed(value.as_bytes())))
}

/// The token in `Bearer <token>` or a token alone; the password in `Basic <base64>`.
fn token_in(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    let basic = value
        .get(..6)
        .filter(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
    if basic.is_none() {
        return Cow::Borrowed(bare(value));
    }
    let pair = STANDARD.decode(bare(value)).unwrap_or_default();
    let colon = memchr::memchr(b':', &pair);
    Cow::Owned(colon.map_or_else(Vec::new, |colon| pair[colon + 1..].to_vec()))
}

/// The answer to who brings none. A browser that opens a page asks its user then, and sends what it
/// was told with all that the page fetches.
pub fn refusal(method: &Method, path: &str) -> Response<Vec<u8>> {
    const MESSAGE: &str = "Authentication error: this listener wants one of admin.tokens, as `Authorization: Bearer <token>`";
    if management::is_cloudflares(path) {
        return management::unauthorized(MESSAGE);
    }
    let mut refusal = json_response(StatusCode::UNAUTHORIZED, &json!({ "error": MESSAGE }));
    if method == Method::GET && page::has(path) {
        let ask = HeaderValue::from_static("Basic realm=\"tollgate\"");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, ask);
    }
    refusal
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::digest_of;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_found_in_each_of_its_places() {
        let tokens = [(digest_of(TOKEN.as_bytes()), Consumer::named("ops"))];
        let operators = Authentication::new(true, tokens);
        let basic = |text: String| format!("Basic {}", STANDARD.encode(text));
        for (name, value, found) in [
            ("authorization", format!("Bearer {TOKEN}"), true),
            ("authorization", TOKEN.to_owned(), true),
            ("x-auth-key", TOKEN.to_owned(), true),
            ("authorization", basic(format!("me:{TOKEN}")), true),
            ("authorization", basic(format!(":{TOKEN}")), true),
            ("authorization", basic(TOKEN.to_owned()), false),
            ("authorization", basic(format!("{TOKEN}:")), false),
            ("authorization", "Basic ???".to_owned(), false),
            ("authorization", format!("Bearer {TOKEN}x"), false),
            ("x-auth-key", String::new(), false),
            ("cookie", TOKEN.to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let whose = whose(&operators, &headers);
            assert_eq!(whose.is_some(), found, "{name}: {value}");
        }
    }

    #[test]
    fn only_a_page_makes_a_browser_ask() {
        for (method, path, asks) in [
            (Method::GET, "/", true),
            (Method::GET, "/-/page/page.js", true),
            (Method::GET, "/-/logs", false),
            (Method::POST, "/", false),
            (Method::GET, "/client/v4/accounts/a/ai-gateway/keys", false),
        ] {
            let refusal = refusal(&method, path);
            assert_eq!(refusal.status(), 401, "{path}");
            assert_eq!(
                refusal.headers().contains_key(WWW_AUTHENTICATE),
                asks,
                "{path}"
            );
        }
    }
}
