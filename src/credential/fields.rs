//! Reads the fields of a credential's JSON.
//!
//! By hand and not by deriving `Deserialize`: serde's messages quote the value they
//! stumbled over, and here every value may be a secret. Messages name fields only.

use serde_json::{Map, Value};

/// The fields of one JSON object.
pub(super) struct Fields {
    object: Map<String, Value>,
    form: &'static str,
}

impl Fields {
    /// Parses `text`; `form` is shown to people whose JSON is not of that form.
    pub(super) fn parse(text: &str, form: &'static str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(Self { object, form }),
            Ok(_) => Err(format!("must be a JSON object {form}")),
            Err(error) => Err(format!(
                "must be JSON {form}; it stops being JSON at line {}, column {}",
                error.line(),
                error.column()
            )),
        }
    }

    /// A field that must be there and hold text.
    pub(super) fn required(&self, name: &str) -> Result<&str, String> {
        self.optional(name)?
            .ok_or_else(|| format!("`{name}` is missing; expected JSON {}", self.form))
    }

    /// A field that may be absent (or `null`), but else holds text.
    pub(super) fn optional(&self, name: &str) -> Result<Option<&str>, String> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(format!("`{name}` is empty"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{name}` must be a string, not {}", kind(other))),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether `text` can stand in a header or a signature scope as it is: visible ASCII, no space.
pub(super) fn is_visible_ascii(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A cloud region such as `us-east-1`, `europe-west4` or `global`.
///
/// # Errors
/// When it holds anything but lower-case letters, digits and inner hyphens, or more than 63 of them.
pub(super) fn region(text: &str) -> Result<String, String> {
    let shaped = (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if shaped {
        Ok(text.to_owned())
    } else {
        Err("`region` must be a region's name such as us-east-1".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_field_and_never_its_value() {
        let fields =
            Fields::parse(r#"{"a": 12345, "b": " ", "c": ["hunter2"]}"#, "{a, b, c}").unwrap();
        assert_eq!(
            fields.required("a").unwrap_err(),
            "`a` must be a string, not a number"
        );
        assert_eq!(fields.required("b").unwrap_err(), "`b` is empty");
        assert_eq!(
            fields.required("c").unwrap_err(),
            "`c` must be a string, not an array"
        );
        assert_eq!(
            fields.required("d").unwrap_err(),
            "`d` is missing; expected JSON {a, b, c}"
        );
        assert_eq!(fields.optional("d"), Ok(None));
    }

    #[test]
    fn what_is_not_an_object_is_told_where_it_breaks() {
        let broken = Fields::parse("{\"a\": \"hunter2", "{a}").err().unwrap();
        assert_eq!(
            broken,
            "must be JSON {a}; it stops being JSON at line 1, column 14"
        );
        let list = Fields::parse("[\"hunter2\"]", "{a}").err().unwrap();
        assert_eq!(list, "must be a JSON object {a}");
    }

    #[test]
    fn regions_cannot_carry_a_host_or_a_path() {
        for good in ["us-east-1", "us-gov-west-1", "europe-west4", "global"] {
            assert_eq!(region(good).unwrap(), good);
        }
        for bad in ["", "-a", "a-", "us.east", "us/east", "US-EAST-1", "a b"] {
            assert!(region(bad).is_err(), "{bad:?} passed");
        }
    }
}
