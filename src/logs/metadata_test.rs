//! What a filter asks of metadata. SQLite calls [`register`]'s function for the rows it scans,
//! with the test as JSON, where it found the test's [`MetadataTest::traces`] in them.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use serde::{Deserialize, Serialize};

use super::metadata::{Metadata, MetadataValue};
use super::operator::Operator;

/// Which of the entries are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Names.
    Key,
    /// Values.
    Value,
    /// The value of this name.
    Of(String),
    /// Names and values.
    Any,
}

/// One question: whether any of those parts compares so with any of the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetadataTest {
    /// Which parts.
    pub part: Part,
    /// How they are compared. `neq`: none of them is equal.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// The name of the function in SQL: `metadata_matches(metadata, test)`.
pub const FUNCTION: &str = "metadata_matches";

/// Makes the function known to a connection.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(FUNCTION, 2, flags, |context| {
        let test = context.get_or_create_aux(1, |test| {
            let test: MetadataTest = serde_json::from_str(test.as_str()?)?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(test)
        })?;
        let json = context.get_raw(0).as_str_or_null().ok().flatten();
        let metadata = json.and_then(|json| serde_json::from_str(json).ok());
        Ok(test.passes(&metadata.unwrap_or_default()))
    })
}

impl MetadataTest {
    /// What to look for first, which is quicker than to parse: the JSON of metadata that passes
    /// contains one text of every group.
    pub fn traces(&self) -> Vec<Vec<String>> {
        let quoted = |text: &String| serde_json::to_string(text).unwrap_or_default();
        // Within a text or a number, and so without the quotes.
        let inner = |text: &String| {
            let quoted = quoted(text);
            quoted[1..quoted.len() - 1].to_owned()
        };
        let mut traces = Vec::new();
        if self.operator == Operator::Neq {
            return traces;
        }
        if let Part::Of(name) = &self.part {
            traces.push(vec![quoted(name)]);
        }
        if matches!(self.operator, Operator::Eq | Operator::Contains) {
            traces.push(self.values.iter().map(inner).collect());
        }
        traces
    }

    /// Whether metadata passes.
    pub fn passes(&self, metadata: &Metadata) -> bool {
        if self.operator == Operator::Neq {
            return !self.any(metadata, Operator::Eq);
        }
        self.any(metadata, self.operator)
    }

    fn any(&self, metadata: &Metadata, operator: Operator) -> bool {
        let value = |value: &MetadataValue| {
            self.values
                .iter()
                .any(|other| compare(value, operator, other))
        };
        let name = |name: &String| value(&MetadataValue::Text(name.clone()));
        metadata.0.iter().any(|(key, found)| match &self.part {
            Part::Key => name(key),
            Part::Value => value(found),
            Part::Of(wanted) => key == wanted && value(found),
            Part::Any => name(key) || value(found),
        })
    }
}

fn compare(value: &MetadataValue, operator: Operator, other: &str) -> bool {
    let numbers = || Some((value.number()?, other.parse::<f64>().ok()?));
    match operator {
        Operator::Eq | Operator::Neq => value.text() == other,
        Operator::Contains => contains(&value.text(), other),
        Operator::Lt => numbers().is_some_and(|(value, other)| value < other),
        Operator::Gt => numbers().is_some_and(|(value, other)| value > other),
        Operator::Le => numbers().is_some_and(|(value, other)| value <= other),
        Operator::Ge => numbers().is_some_and(|(value, other)| value >= other),
    }
}

/// As SQLite's LIKE has it: upper and lower case are one in ASCII.
pub fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase()
        .contains(&part.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn passes(part: Part, operator: Operator, values: &[&str], json: &str) -> bool {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        let test = MetadataTest {
            part,
            operator,
            values,
        };
        let metadata: Metadata = serde_json::from_str(json).unwrap();
        let passes = test.passes(&metadata);
        let traced = test
            .traces()
            .iter()
            .all(|group| group.iter().any(|trace| contains(json, trace)));
        assert!(traced || !passes, "what passes has its traces");
        passes
    }

    #[test]
    fn parts_are_compared() {
        use Operator::{Contains, Eq, Gt, Lt, Neq};
        let json = r#"{"user":"Ann \"A\"","plan":"5","n":42,"vip":true}"#;
        let of = |name: &str| Part::Of(name.to_owned());
        let cases = [
            (Part::Key, Eq, vec!["user"], true),
            (Part::Key, Eq, vec!["User"], false),
            (Part::Key, Neq, vec!["user"], false),
            (Part::Key, Neq, vec!["team"], true),
            (Part::Value, Eq, vec!["42"], true),
            (Part::Value, Eq, vec!["Ann \"A\""], true),
            (Part::Value, Eq, vec!["x", "true"], true),
            (Part::Value, Contains, vec!["ann"], true),
            (of("n"), Eq, vec!["5"], false),
            (of("plan"), Eq, vec!["5"], true),
            (of("plan"), Gt, vec!["4.5"], true),
            (of("n"), Lt, vec!["42"], false),
            (of("vip"), Lt, vec!["42"], false),
            (of("team"), Neq, vec!["5"], true),
            (of("team"), Eq, vec!["5"], false),
            (Part::Any, Contains, vec!["VIP"], true),
            (Part::Any, Contains, vec!["\"a\""], true),
            (Part::Any, Contains, vec!["\":"], false),
        ];
        for (part, operator, values, expected) in cases {
            let text = format!("{part:?} {operator:?} {values:?}");
            assert_eq!(passes(part, operator, &values, json), expected, "{text}");
        }
        assert!(passes(Part::Key, Neq, &["a"], "{}"));
        assert!(!passes(Part::Any, Contains, &[""], "{}"));
    }
}
