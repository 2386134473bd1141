//! How fast, for how much and within which bounds requests may pass, as users write it: for a gateway
//! in YAML, for a key of our own with the command or the management API that makes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use crate::config::units::{ByteSize, Decimal, Duration};

/// At most so much of something in a time.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// What refusals, the log and metrics call it: 1 to 64 letters, digits, `-`, `_` and `.`. Default
    /// `rate-<n>`, its place in the list from 1.
    pub id: Option<String>,
    /// So many: 1 to 10^15. Required.
    pub limit: Option<i64>,
    /// In so long: `1s` to `31d`. Required, but for `concurrent`, which has none.
    pub window: Option<Duration>,
    /// `sliding` (default): never more in any stretch of that length. `fixed`: in each window, and
    /// windows begin at whole multiples of their length since 1970 (UTC).
    pub technique: Technique,
    /// What is counted. Default `requests`.
    pub count: Counted,
    /// For whom it is counted apart, together where there are several: `gateway`, `key`, `owner`,
    /// `provider`, `model`, `client_address`, `metadata.<key>`. Default: the gateway. Requests that
    /// lack one of these are not limited by this rule.
    pub by: Vec<String>,
}

/// How a window lies in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Technique {
    /// The time that has just passed.
    #[default]
    Sliding,
    /// A stretch of the clock.
    Fixed,
}

/// What a rate limit counts. Answers from the cache are requests and nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Requests, whoever answers them.
    #[default]
    Requests,
    /// Tokens that providers read, cached ones too, when the answer is over.
    InputTokens,
    /// Tokens that providers wrote, when the answer is over.
    OutputTokens,
    /// Both.
    TotalTokens,
    /// Calls at providers at the same time.
    Concurrent,
}

/// At most so much money in a time: never more, also where many requests come at once.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpendLimit {
    /// What refusals, the log and metrics call it, and under what its spending is remembered: 1 to 64
    /// letters, digits, `-`, `_` and `.`. Required.
    pub id: String,
    /// Whether it holds. Default true.
    pub enabled: Option<bool>,
    /// US dollars: more than 0, to twelve decimal places. Required.
    pub limit: Option<Decimal>,
    /// In so long: `1m` to `366d`, or the `hour`, `day`, `week` (from Monday) or `month` of the calendar
    /// in UTC. Required.
    pub window: Option<SpendWindow>,
    /// `sliding` (default): the window before counts by the share of it that is less than a window
    /// ago. `fixed`: windows begin at whole multiples of their length since 1970 (UTC). Calendar
    /// windows are fixed.
    pub technique: Option<Technique>,
    /// Only these models, or each model apart.
    pub model: Option<Selection>,
    /// Only these providers, or each provider apart.
    pub provider: Option<Selection>,
    /// Only these keys (names of tokens, names or ids of API keys), or each key apart.
    pub key: Option<Selection>,
    /// Only these owners, or each owner apart.
    pub owner: Option<Selection>,
    /// Only these values of `cf-aig-metadata`, or each value apart, by key.
    pub metadata: BTreeMap<String, Selection>,
    /// Output tokens that a request which sets no maximum is taken to cost at most, until its real
    /// cost is known. Default 4096.
    pub assume_output: Option<i64>,
    /// For such requests assume the most that the model can write, as far as the price list tells,
    /// where `assume_output` is not said; where it does not tell, the cost is not known beforehand.
    /// Default false.
    pub strict: bool,
    /// What becomes of requests whose cost is not known beforehand, for want of a price: `refuse`, or
    /// `allow` (default).
    pub unpriced: Unpriced,
    /// What happens at the limit: `block` (default), or `fallback`: a route goes on to a target that
    /// fits.
    pub action: SpendAction,
}

/// Which requests a rule is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// `filter`: only requests with one of `values`. `partition`: each value has a budget of its own,
    /// and requests without one are not limited by the rule.
    pub mode: SelectionMode,
    /// With `filter`: these. Models may have `*` for anything but `/`.
    pub values: Vec<String>,
}

/// How a [`Selection`] selects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectionMode {
    /// One of the values.
    #[default]
    Filter,
    /// Each value apart.
    Partition,
}

/// In which time money is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendWindow {
    /// A stretch of the calendar, UTC.
    Calendar(Calendar),
    /// A stretch of this length.
    Length(Duration),
}

impl<'de> Deserialize<'de> for SpendWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let named = Calendar::ALL.iter().find(|(name, _)| *name == text);
        match (named, text.parse()) {
            (Some((_, calendar)), _) => Ok(Self::Calendar(*calendar)),
            (None, Ok(length)) => Ok(Self::Length(length)),
            (None, Err(_)) => Err(de::Error::invalid_value(
                de::Unexpected::Str(&text),
                &"`hour`, `day`, `week`, `month` or a duration such as `24h`",
            )),
        }
    }
}

/// A stretch of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calendar {
    /// From a full hour.
    Hour,
    /// From midnight.
    Day,
    /// From midnight before Monday.
    Week,
    /// From midnight before the first.
    Month,
}

impl Calendar {
    /// All of them, as they are written.
    pub const ALL: [(&'static str, Self); 4] = [
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
    ];
}

/// What becomes of requests without a price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpriced {
    /// They pass, and count nothing.
    #[default]
    Allow,
    /// They are refused.
    Refuse,
}

/// What happens at a spend limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpendAction {
    /// The request is refused.
    #[default]
    Block,
    /// A route goes on to its next target; refused where none fits.
    Fallback,
}

/// What requests may ask for. All that is said must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Which models, by the name that goes to the provider or `provider/model`.
    pub models: List,
    /// Which providers, by slug.
    pub providers: List,
    /// From where: addresses and ranges (`10.0.0.0/8`, `2001:db8::/32`).
    pub addresses: List,
    /// Most output tokens that a request may ask for, all choices together; one that sets no maximum
    /// is refused too.
    pub max_tokens: Option<i64>,
    /// Largest request body; 413 above.
    pub max_body: Option<ByteSize>,
}

/// What is allowed: in `allow`, where that is not empty, and not in `deny`. `*` stands for anything
/// but `/` in models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Only these. Empty: all.
    pub allow: Vec<String>,
    /// Not these, whatever `allow` says.
    pub deny: Vec<String>,
}
