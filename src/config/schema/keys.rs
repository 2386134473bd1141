//! A key of our own, as it is written where one is made: in the body of the management API, in the
//! file of `tollgate keys create --from`. It never stands in the configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Access, RateLimit, SpendLimit};
use crate::config::units::Duration;

/// Who may pass which gateways, until when, how fast and for how much.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VirtualKey {
    /// Whose it is, as the log calls it: 1 to 64 letters, digits, `-`, `_` and `.`. Required.
    pub name: String,
    /// Who answers for it, by which costs are added up (`group_by=owner`): 1 to 64 characters as in
    /// `name`.
    pub owner: Option<String>,
    /// What is noted of each of its requests, as with `cf-aig-metadata`, and before what that says of
    /// the same: at most 16 entries; texts, numbers and booleans.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// The account whose gateways it may pass. Where the path that is asked names one, that one.
    /// Without one: all accounts.
    pub account: Option<String>,
    /// Which gateways it may pass, by id; `*` stands for anything. At most 32. Default `["*"]`: all.
    pub gateways: Option<Vec<String>>,
    /// From when on it is refused (RFC 3339, such as `2027-01-31T00:00:00Z`). Default: never.
    pub expires_at: Option<String>,
    /// The same, as so long from now (`30d`).
    pub expires_in: Option<Duration>,
    /// What its requests may ask for.
    pub access: Access,
    /// How fast they may come.
    pub rate_limits: Vec<RateLimit>,
    /// How much they may cost.
    pub spend_limits: Vec<SpendLimit>,
}
