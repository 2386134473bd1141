//! Which entries are wanted: parsed from the API's JSON filters and its older flat parameters,
//! every mistake named by its field (contract, logs REST API). `filter/sql.rs` makes SQL of it.

mod fields;
mod spread;
pub(super) mod sql;

pub(super) use fields::TOKENS;
pub(super) use spread::Spread;

use serde_json::Value;
use uuid::Uuid;

use super::metadata_test::{MetadataTest, Part};
use super::operator::Operator;
use super::times;
use fields::Kind;

/// Most filters of one request, and most values of one filter.
const MOST_FILTERS: usize = 32;
const MOST_VALUES: usize = 100;

/// Longest value, in bytes.
const LONGEST_VALUE: usize = 1_024;

/// A field of a request that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Such as `filters[1].operator` or `per_page`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
    /// It is a filter's key that does not exist (7001 at Cloudflare).
    pub unknown_key: bool,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            unknown_key: false,
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for FieldError {}

/// Conditions that all hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub(super) conditions: Vec<Condition>,
}

/// One condition. `sql` is the column, or an expression of columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// A column of words, or of plain text.
    Text {
        sql: &'static str,
        words: bool,
        operator: Operator,
        values: Vec<String>,
    },
    Number {
        sql: &'static str,
        operator: Operator,
        values: Vec<f64>,
    },
    Flag {
        sql: &'static str,
        operator: Operator,
        values: Vec<bool>,
    },
    /// Milliseconds since 1970.
    Time {
        operator: Operator,
        values: Vec<i64>,
    },
    Id {
        operator: Operator,
        values: Vec<Uuid>,
    },
    /// Part of an id's text.
    IdPart {
        values: Vec<String>,
    },
    Metadata(MetadataTest),
}

impl Filter {
    /// The one entry of this id.
    pub fn id(id: Uuid) -> Self {
        let condition = Condition::Id {
            operator: Operator::Eq,
            values: vec![id],
        };
        Self {
            conditions: vec![condition],
        }
    }

    /// Adds a JSON array of `{key, operator, value: []}`.
    pub fn add_json(&mut self, json: &str) -> Result<(), FieldError> {
        let wanted = "must be a JSON array of {\"key\", \"operator\", \"value\": []}";
        let list: Vec<Value> = serde_json::from_str(json)
            .map_err(|error| FieldError::new("filters", format!("{wanted}: {error}")))?;
        if list.len() > MOST_FILTERS {
            return Err(FieldError::new(
                "filters",
                format!("must be at most {MOST_FILTERS}"),
            ));
        }
        for (index, filter) in list.iter().enumerate() {
            self.conditions
                .push(one(&format!("filters[{index}]"), filter)?);
        }
        Ok(())
    }

    /// Adds filters that came in several parameters.
    pub fn add_spread(&mut self, spread: Spread) -> Result<(), FieldError> {
        match spread.json()? {
            Some(json) => self.add_json(&json),
            None => Ok(()),
        }
    }

    /// Adds a flat parameter; `false` when it is none.
    pub fn add_flat(&mut self, name: &str, value: &str) -> Result<bool, FieldError> {
        let (key, operator) = match name {
            "start_date" => ("created_at", Operator::Ge),
            "end_date" => ("created_at", Operator::Le),
            "cached"
            | "success"
            | "feedback"
            | "provider"
            | "model"
            | "model_type"
            | "request_content_type"
            | "response_content_type" => (name, Operator::Eq),
            _ => match bound(name) {
                Some(bound) => bound,
                None => return Ok(false),
            },
        };
        let values = [Value::String(value.to_owned())];
        self.conditions
            .push(condition(name, key, operator, &values)?);
        Ok(true)
    }

    /// Adds a text that a name or value in the metadata contains.
    pub fn add_search(&mut self, text: &str) -> Result<(), FieldError> {
        let values = texts("search", &[Value::String(text.to_owned())])?;
        let test = MetadataTest {
            part: Part::Any,
            operator: Operator::Contains,
            values,
        };
        self.conditions.push(Condition::Metadata(test));
        Ok(())
    }
}

/// `min_cost` and its like.
fn bound(name: &str) -> Option<(&str, Operator)> {
    let (key, operator) = match name.split_once('_')? {
        ("min", key) => (key, Operator::Ge),
        ("max", key) => (key, Operator::Le),
        _ => return None,
    };
    match key {
        "cost" | "duration" | "tokens_in" | "tokens_out" => Some((key, operator)),
        "total_tokens" => Some(("tokens", operator)),
        _ => None,
    }
}

fn one(field: &str, filter: &Value) -> Result<Condition, FieldError> {
    let text = |name: &str| {
        filter
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| FieldError::new(format!("{field}.{name}"), "must be a text"))
    };
    let operator = Operator::parse(text("operator")?).ok_or_else(|| {
        FieldError::new(
            format!("{field}.operator"),
            "must be one of eq, neq, contains, lt, gt",
        )
    })?;
    let value = filter.get("value").unwrap_or(&Value::Null);
    let values = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    condition(field, text("key")?, operator, values)
}

fn condition(
    field: &str,
    key: &str,
    operator: Operator,
    values: &[Value],
) -> Result<Condition, FieldError> {
    let value_field = format!("{field}.value");
    let at = if field == key || !field.starts_with("filters") {
        field
    } else {
        &value_field
    };
    if values.is_empty() || values.len() > MOST_VALUES {
        return Err(FieldError::new(
            at,
            format!("must be 1 to {MOST_VALUES} values"),
        ));
    }
    let kind = fields::kind(key).ok_or_else(|| FieldError {
        unknown_key: true,
        ..FieldError::new(
            format!("{field}.key"),
            format!("`{key}` is not one of {}", fields::names()),
        )
    })?;
    if !kind.allows(operator) {
        let reason = format!("`{key}` is compared with {} only", kind.operators());
        return Err(FieldError::new(format!("{field}.operator"), reason));
    }
    made(at, kind, operator, values)
}

fn made(
    at: &str,
    kind: Kind,
    operator: Operator,
    values: &[Value],
) -> Result<Condition, FieldError> {
    Ok(match kind {
        Kind::Words(sql) => Condition::Text {
            sql,
            words: true,
            operator,
            values: texts(at, values)?,
        },
        Kind::Text(sql) => Condition::Text {
            sql,
            words: false,
            operator,
            values: texts(at, values)?,
        },
        Kind::Number(sql, scale) => {
            let numbers = all(values, |value| number(at, value))?;
            let values = numbers
                .into_iter()
                .map(|number| scale.apply(number))
                .collect();
            Condition::Number {
                sql,
                operator,
                values,
            }
        }
        Kind::Flag(sql) => Condition::Flag {
            sql,
            operator,
            values: all(values, |value| flag(at, value))?,
        },
        Kind::Time => Condition::Time {
            operator,
            values: all(values, |value| time(at, value))?,
        },
        Kind::Id if operator == Operator::Contains => {
            let lower = |text: String| text.to_ascii_lowercase();
            Condition::IdPart {
                values: texts(at, values)?.into_iter().map(lower).collect(),
            }
        }
        Kind::Id => Condition::Id {
            operator,
            values: all(values, |value| id(at, value))?,
        },
        Kind::Metadata(part) => Condition::Metadata(MetadataTest {
            part,
            operator,
            values: texts(at, values)?,
        }),
    })
}

fn all<T>(
    values: &[Value],
    read: impl Fn(&Value) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    values.iter().map(read).collect()
}

fn texts(at: &str, values: &[Value]) -> Result<Vec<String>, FieldError> {
    all(values, |value| match value {
        Value::String(text) if text.len() <= LONGEST_VALUE => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err(FieldError::new(
            at,
            format!("must be a text of at most {LONGEST_VALUE} bytes"),
        )),
    })
}

fn number(at: &str, value: &Value) -> Result<f64, FieldError> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| FieldError::new(at, "must be a number"))
}

fn flag(at: &str, value: &Value) -> Result<bool, FieldError> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text == "true" || text == "1" => Ok(true),
        Value::String(text) if text == "false" || text == "0" => Ok(false),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        _ => Err(FieldError::new(at, "must be true or false")),
    }
}

fn time(at: &str, value: &Value) -> Result<i64, FieldError> {
    let time = match value {
        Value::String(text) => times::parse(text),
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    time.ok_or_else(|| {
        FieldError::new(
            at,
            "must be a time such as 2026-11-28T06:30:00Z, or milliseconds since 1970",
        )
    })
}

fn id(at: &str, value: &Value) -> Result<Uuid, FieldError> {
    let id = value.as_str().and_then(|text| Uuid::parse_str(text).ok());
    id.ok_or_else(|| FieldError::new(at, "must be a UUID"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "filter/tests.rs"]
mod tests;
