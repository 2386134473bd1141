//! What can be filtered by: the contract's keys and a few of our own.

use super::super::metadata_test::Part;
use super::super::operator::Operator;

/// What a field holds, and where.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A column of words.
    Words(&'static str),
    /// A column of text.
    Text(&'static str),
    /// A number in the API's unit; in the store it may be another.
    Number(&'static str, Scale),
    /// Yes or no.
    Flag(&'static str),
    /// When it began.
    Time,
    /// The id.
    Id,
    /// Metadata.
    Metadata(Part),
}

/// From the API's unit to the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The same.
    Same,
    /// Dollars to pico-dollars.
    Dollars,
}

impl Scale {
    /// In the store's unit.
    pub fn apply(self, number: f64) -> f64 {
        match self {
            Self::Same => number,
            Self::Dollars => (number * 1e12).round(),
        }
    }
}

/// Milliseconds as the API shows them, of microseconds.
pub const DURATION: &str = "(duration + 500) / 1000";

/// Tokens of both ways, as far as they are known.
pub const TOKENS: &str = "COALESCE(input + output, input, output)";

/// Of what is not recorded, because it does not exist here: never wholesale billing, a
/// compatibility mode or a DLP action.
const FIELDS: [(&str, Kind); 34] = [
    ("id", Kind::Id),
    ("created_at", Kind::Time),
    ("request_content_type", Kind::Words("request_content_type")),
    (
        "response_content_type",
        Kind::Words("response_content_type"),
    ),
    ("request_type", Kind::Words("request_type")),
    ("success", Kind::Flag("success")),
    ("cached", Kind::Flag("cached")),
    ("provider", Kind::Words("provider")),
    ("model", Kind::Words("model")),
    ("model_type", Kind::Words("model_type")),
    ("cost", Kind::Number("cost", Scale::Dollars)),
    ("tokens", Kind::Number(TOKENS, Scale::Same)),
    ("tokens_in", Kind::Number("input", Scale::Same)),
    ("tokens_out", Kind::Number("output", Scale::Same)),
    ("duration", Kind::Number(DURATION, Scale::Same)),
    ("feedback", Kind::Number("feedback", Scale::Same)),
    ("event_id", Kind::Text("event_id")),
    ("authentication", Kind::Flag("authentication")),
    ("byok", Kind::Flag("byok")),
    ("wholesale", Kind::Flag("0")),
    ("compatibilityMode", Kind::Flag("0")),
    ("dlp_action", Kind::Text("NULL")),
    ("user_agent", Kind::Words("user_agent")),
    ("status_code", Kind::Number("status", Scale::Same)),
    ("error", Kind::Words("error")),
    ("route", Kind::Words("route")),
    ("consumer", Kind::Words("consumer")),
    ("owner", Kind::Words("owner")),
    ("gateway", Kind::Words("gateway")),
    ("key_alias", Kind::Words("key_alias")),
    ("cache_status", Kind::Words("cache_status")),
    ("answer_model", Kind::Words("answer_model")),
    ("error_source", Kind::Words("error_source")),
    ("cost_source", Kind::Words("cost_source")),
];

/// The field of this name.
pub fn kind(key: &str) -> Option<Kind> {
    match key {
        "metadata.key" => Some(Kind::Metadata(Part::Key)),
        "metadata.value" => Some(Kind::Metadata(Part::Value)),
        _ => match key.strip_prefix("metadata.") {
            Some(name) if !name.is_empty() => Some(Kind::Metadata(Part::Of(name.to_owned()))),
            _ => FIELDS
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, kind)| kind.clone()),
        },
    }
}

/// All names, for a message.
pub fn names() -> String {
    let names = FIELDS.iter().map(|(name, _)| *name);
    names
        .chain(["metadata.key", "metadata.value", "metadata.{name}"])
        .collect::<Vec<_>>()
        .join(", ")
}

impl Kind {
    /// Whether a field can be compared so.
    pub fn allows(&self, operator: Operator) -> bool {
        use Operator::{Contains, Eq, Neq};
        match self {
            Self::Words(_) | Self::Text(_) => matches!(operator, Eq | Neq | Contains),
            Self::Number(..) | Self::Time => operator != Contains,
            Self::Flag(_) => matches!(operator, Eq | Neq),
            Self::Id | Self::Metadata(_) => true,
        }
    }

    /// The same for a message.
    pub fn operators(&self) -> &'static str {
        match self {
            Self::Words(_) | Self::Text(_) => "eq, neq, contains",
            Self::Number(..) | Self::Time => "eq, neq, lt, gt",
            Self::Flag(_) => "eq, neq",
            Self::Id | Self::Metadata(_) => "eq, neq, contains, lt, gt",
        }
    }
}
