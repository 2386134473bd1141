//! Who may use a gateway, as users write it.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::secret::Secret;

/// A token of a gateway: exactly one of `value`, `file` and `sha256`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayToken {
    /// Whose it is, as the log calls it: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Who answers for it, by which costs are added up (`group_by=owner`): 1 to 64 characters as in
    /// `name`.
    pub owner: Option<String>,
    /// The token itself, usually `${ENV}`: at least 16 visible characters.
    pub value: Option<Secret>,
    /// A file that holds it; surrounding white space is ignored.
    pub file: Option<PathBuf>,
    /// Its SHA-256 in 64 hexadecimal digits, so that the configuration does not hold it
    /// (`printf %s "$TOKEN" | sha256sum`).
    pub sha256: Option<String>,
}

/// A token of an operator: exactly one of `value`, `file` and `sha256`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminToken {
    /// Whose it is, as the log calls it: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The token itself, usually `${TOLLGATE_ADMIN_TOKEN}`: at least 16 visible characters.
    pub value: Option<Secret>,
    /// A file that holds it; surrounding white space is ignored.
    pub file: Option<PathBuf>,
    /// Its SHA-256 in 64 hexadecimal digits, so that the configuration does not hold it
    /// (`printf %s "$TOKEN" | sha256sum`).
    pub sha256: Option<String>,
}

/// Who may use a gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authentication {
    /// Refuse requests that bring none of `tokens` and no API key of ours (401; `tollgate keys`).
    /// Default false: then these only let a request spend stored keys, and say in the log whose it
    /// is.
    pub required: bool,
    /// Who may pass, and by what: `cf-aig-authorization: Bearer <token>`, or in place of a key for
    /// the provider.
    pub tokens: Vec<GatewayToken>,
    /// Let requests without any authentication spend the stored provider keys.
    /// Everyone who reaches the listener can then spend your money. Default false.
    pub anyone_may_spend_stored_keys: bool,
}
