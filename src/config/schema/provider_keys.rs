//! Stored provider keys, as users write them.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::secret::Secret;

/// A stored key: exactly one of `value` and `file`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// The name that `cf-aig-byok-alias` chooses it by. Default `default`.
    pub alias: Option<String>,
    /// Makes it one of the provider's pool: requests that name no key are spread over all keys
    /// that have a weight, by these. 1 to 1000000.
    pub weight: Option<i64>,
    /// The key itself, usually `${ENV}`.
    pub value: Option<Secret>,
    /// A file that holds it; surrounding white space is ignored.
    pub file: Option<PathBuf>,
}

/// What stored provider keys are encrypted under (`tollgate provider-keys`). Without a master key none
/// can be stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// 32 bytes, as 64 hexadecimal digits or in base64: `${ENV}` or `file:/path`. Default: the
    /// credential `tollgate-master-key` of systemd, where there is one.
    pub master_key: Option<Secret>,
    /// The one before it, while there are keys that are encrypted under it: until
    /// `tollgate provider-keys reencrypt`. Default: the credential `tollgate-previous-master-key`.
    pub previous_master_key: Option<Secret>,
}

/// What a gateway says of a provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayProvider {
    /// Stored keys of this gateway alone. The whole list stands in place of the deployment's
    /// `providers.<slug>.keys`: none of those is spent here, whatever its alias. `[]` for none at
    /// all. Required.
    pub keys: Option<Vec<Key>>,
}
