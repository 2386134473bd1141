//! One exchange with a token server: an assertion for a token (RFC 7523, RFC 6749).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::fields::is_visible_ascii;
use super::google::{self, ServiceAccount};
use super::token_client::{PostError, TokenEndpoint};

/// A token with less than this left is not handed out any more.
const MARGIN: Duration = Duration::from_secs(60);

/// A token with less than this left is replaced in the background.
const REFRESH_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Lifetimes beyond this are not believed.
const MAX_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Why there is no token. Holds nothing that a client must not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// The account's private key does not sign.
    BadKey,
    /// The token server could not be reached, or did not answer in time.
    Unreachable,
    /// The token server refused the account.
    Refused {
        /// Its HTTP status.
        status: u16,
    },
    /// The token server answered something that is no token.
    BadAnswer,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadKey => f.write_str("the service account's private key does not sign"),
            Self::Unreachable => f.write_str("the token server could not be reached"),
            Self::Refused { status } => {
                write!(
                    f,
                    "the token server refused the service account with status {status}"
                )
            }
            Self::BadAnswer => f.write_str("the token server's answer holds no token"),
        }
    }
}

impl std::error::Error for TokenError {}

/// A token and how long it serves.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: Arc<str>,
    refresh_from: SystemTime,
    usable_until: SystemTime,
}

impl Token {
    /// A token bought at `now`. For short lives the margins shrink with them, so that a
    /// server of such tokens is not called once per request.
    fn new(text: &str, lifetime: Duration, now: SystemTime) -> Self {
        let lifetime = lifetime.min(MAX_LIFETIME);
        Self {
            text: text.into(),
            refresh_from: now + (lifetime - REFRESH_AHEAD.min(lifetime / 2)),
            usable_until: now + (lifetime - MARGIN.min(lifetime / 4)),
        }
    }

    pub(super) fn is_usable(&self, now: SystemTime) -> bool {
        now < self.usable_until
    }

    pub(super) fn is_ageing(&self, now: SystemTime) -> bool {
        self.is_usable(now) && now >= self.refresh_from
    }
}

/// Buys a token for `account` at `now`. What a client must not see goes to the log.
pub(super) async fn buy(
    endpoint: &dyn TokenEndpoint,
    account: &ServiceAccount,
    now: SystemTime,
) -> Result<Token, TokenError> {
    let who = account.client_email();
    let assertion = account.assertion(now).map_err(|_| TokenError::BadKey)?;
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
    );
    match endpoint.post_form(account.token_url(), form).await {
        Ok((200, body)) => read_token(&body, now).inspect_err(|_| {
            log::warn!("token server: the answer for {who:?} holds no token");
        }),
        Ok((status, body)) => {
            let reason = refusal_reason(&body);
            log::warn!("token server: refused {who:?} with status {status}, {reason}");
            Err(TokenError::Refused { status })
        }
        Err(PostError::Unreachable(why)) => {
            log::warn!("token server: unreachable for {who:?}: {why}");
            Err(TokenError::Unreachable)
        }
        Err(PostError::TooLarge) => {
            log::warn!("token server: the answer for {who:?} is too large");
            Err(TokenError::BadAnswer)
        }
    }
}

/// RFC 6749, section 5.1. Without `expires_in` the token is taken to live as long as was asked for.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

fn read_token(body: &[u8], now: SystemTime) -> Result<Token, TokenError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| TokenError::BadAnswer)?;
    if !is_visible_ascii(&answer.access_token) {
        return Err(TokenError::BadAnswer);
    }
    let lifetime = answer
        .expires_in
        .map_or(google::LIFETIME, Duration::from_secs);
    Ok(Token::new(&answer.access_token, lifetime, now))
}

/// The error code of RFC 6749, section 5.2 (`invalid_grant`): the one part of a refusal
/// that tells an operator what to mend and cannot repeat the assertion.
fn refusal_reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let is_code = |text: &str| {
        (1..=40).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if is_code(&refusal.error) => refusal.error,
        _ => "no reason given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_reason_is_a_code_or_nothing() {
        assert_eq!(
            refusal_reason(br#"{"error":"invalid_grant"}"#),
            "invalid_grant"
        );
        for other in [
            &br#"{"error":"ey J.x"}"#[..],
            br#"{"error":{"code":1}}"#,
            b"<html>",
        ] {
            assert_eq!(refusal_reason(other), "no reason given");
        }
    }
}
