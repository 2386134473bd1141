//! Filters that are spread over several parameters, as Cloudflare's SDKs send them:
//! `filters.key=model&filters.operator=eq&filters.value=a&filters.value=b`, and so on for the next
//! filter, by nothing but their order; with brackets (`filters[key]`) in some of them. Python's HTTP
//! library puts parameters of one name together: all keys, then all operators, then all values.

use serde_json::{Value, json};

use super::FieldError;

/// The parameters so far.
#[derive(Debug, Default)]
pub struct Spread(Vec<(&'static str, String)>);

/// One filter, as far as it has come.
#[derive(Debug, Default)]
struct One {
    key: Option<String>,
    operator: Option<String>,
    values: Vec<String>,
}

impl Spread {
    /// Takes a parameter, if it is part of a filter.
    pub fn take(&mut self, name: &str, value: &str) -> bool {
        let part = part(name);
        self.0.extend(part.map(|part| (part, value.to_owned())));
        part.is_some()
    }

    /// The filters as the API's JSON; nothing where there was none.
    pub fn json(self) -> Result<Option<String>, FieldError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let filters = match self.is_put_together() {
            true => self.by_place()?,
            false => self.in_turn(),
        };
        let filters = filters.into_iter().map(One::json);
        Ok(Some(Value::Array(filters.collect()).to_string()))
    }

    /// Several filters whose keys stand together.
    fn is_put_together(&self) -> bool {
        let mut pairs = self.0.windows(2);
        pairs.any(|pair| pair[0].0 == pair[1].0 && pair[0].0 != "value")
    }

    /// The first value belongs to the first key, and so on.
    fn by_place(self) -> Result<Vec<One>, FieldError> {
        let all = |wanted: &str| {
            let parts = self.0.iter().filter(|(part, _)| *part == wanted);
            parts.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let [keys, operators, values] = ["key", "operator", "value"].map(all);
        if keys.len() != operators.len() || keys.len() != values.len() {
            let reason = "cannot be told apart: several filters came with all keys first and not with one value each; send them as one parameter, a JSON array of {\"key\", \"operator\", \"value\": []}";
            return Err(FieldError::new("filters", reason));
        }
        let filters = keys.into_iter().zip(operators).zip(values);
        let filter = |((key, operator), value)| One {
            key: Some(key),
            operator: Some(operator),
            values: vec![value],
        };
        Ok(filters.map(filter).collect())
    }

    /// A filter ends where the next one has a part that it has already.
    fn in_turn(self) -> Vec<One> {
        let mut filters = vec![One::default()];
        let mut last = "";
        for (part, value) in self.0 {
            if filters
                .last()
                .is_some_and(|filter| filter.has(part) && !(part == "value" && last == part))
            {
                filters.push(One::default());
            }
            last = part;
            if let Some(filter) = filters.last_mut() {
                filter.set(part, value);
            }
        }
        filters
    }
}

impl One {
    fn has(&self, part: &str) -> bool {
        match part {
            "key" => self.key.is_some(),
            "operator" => self.operator.is_some(),
            _ => !self.values.is_empty(),
        }
    }

    fn set(&mut self, part: &str, value: String) {
        match part {
            "key" => self.key = Some(value),
            "operator" => self.operator = Some(value),
            _ => self.values.push(value),
        }
    }

    fn json(self) -> Value {
        json!({ "key": self.key, "operator": self.operator, "value": self.values })
    }
}

fn part(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix("filters")?;
    let inner = rest
        .strip_prefix('.')
        .or_else(|| rest.strip_prefix('[')?.strip_suffix(']'))?;
    ["key", "operator", "value"]
        .into_iter()
        .find(|part| inner == *part || (*part == "value" && matches!(inner, "value[]" | "value][")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn joined(query: &str) -> Value {
        let mut spread = Spread::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            assert!(spread.take(&name, &value), "{name}");
        }
        serde_json::from_str(&spread.json().unwrap().unwrap()).unwrap()
    }

    #[test]
    fn filters_are_told_apart_by_their_order() {
        let expected = serde_json::json!([
            { "key": "model", "operator": "eq", "value": ["a", "b"] },
            { "key": "cached", "operator": "neq", "value": ["true"] },
        ]);
        for query in [
            "filters.key=model&filters.operator=eq&filters.value=a&filters.value=b&filters.key=cached&filters.operator=neq&filters.value=true",
            "filters[value]=a&filters[value]=b&filters[key]=model&filters[operator]=eq&filters[value]=true&filters[key]=cached&filters[operator]=neq",
            "filters.operator=eq&filters.value=a&filters.value=b&filters.key=model&filters.operator=neq&filters.value=true&filters.key=cached",
        ] {
            assert_eq!(joined(query), expected, "{query}");
        }
    }

    #[test]
    fn other_parameters_are_none_of_it() {
        for name in [
            "filters",
            "filter.key",
            "filters.",
            "filters.keys",
            "filters[key",
            "filtersx",
        ] {
            assert!(!Spread::default().take(name, "x"), "{name}");
        }
        assert_eq!(Spread::default().json().unwrap(), None);
    }

    #[test]
    fn parameters_of_one_name_may_stand_together() {
        let expected = serde_json::json!([
            { "key": "model", "operator": "eq", "value": ["a"] },
            { "key": "cached", "operator": "neq", "value": ["true"] },
        ]);
        let together = "filters.key=model&filters.key=cached&filters.operator=eq&filters.operator=neq&filters.value=a&filters.value=true";
        assert_eq!(joined(together), expected);
        let mut spread = Spread::default();
        for (name, value) in
            form_urlencoded::parse(format!("{together}&filters.value=b").as_bytes())
        {
            spread.take(&name, &value);
        }
        let refused = spread.json().unwrap_err().to_string();
        assert!(
            refused.contains("as one parameter, a JSON array"),
            "{refused}"
        );
    }
}
