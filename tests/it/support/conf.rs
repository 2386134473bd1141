//! Pieces of configuration that many tests share.

use super::upstream::Upstream;

/// Accounts whose only gateway lets anyone spend stored keys.
pub const SPENDING: &str = "accounts: { default: { gateways: { default: \
     { authentication: { anyone_may_spend_stored_keys: true } } } } }\n";

/// `providers:` with `slug` at the root of `upstream`'s `base` path over plain HTTP;
/// `more` adds keys, such as `timeouts: { idle: 300ms }`.
pub fn at(upstream: &Upstream, slug: &str, base: &str, more: &str) -> String {
    format!("providers:\n{}", entry(upstream, slug, base, more))
}

/// One entry of `providers:`, for tests with several.
pub fn entry(upstream: &Upstream, slug: &str, base: &str, more: &str) -> String {
    let url = upstream.url(base);
    let separator = if more.is_empty() { "" } else { ", " };
    format!("  {slug}: {{ base_url: \"{url}\", allow_insecure: true{separator}{more} }}\n")
}

/// The openai provider at `upstream`.
pub fn openai(upstream: &Upstream) -> String {
    at(upstream, "openai", "/v1", "")
}

/// The path of `provider`'s `path` at the default gateway.
pub fn path(provider: &str, path: &str) -> String {
    format!("/v1/default/default/{provider}/{path}")
}

/// Where OpenAI's chat completions are served.
pub const CHAT: &str = "/v1/default/default/openai/chat/completions";
