//! A filter as SQL. Values are bound, never written into the text.

use rusqlite::Connection;
use rusqlite::types::Value;
use uuid::Uuid;

use super::super::insert::SLACK;
use super::super::metadata_test::FUNCTION;
use super::super::operator::Operator;
use super::super::schema::{first_key, id_milliseconds};
use super::super::words::{Word, find};
use super::{Condition, Filter};

/// A condition in SQL and what is bound to its marks, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sql {
    /// Conditions, joined by AND; never empty.
    pub text: String,
    /// Values of its marks.
    pub values: Vec<Value>,
}

/// The text of an id as the API shows it.
const ID_TEXT: &str = "lower(substr(hex(id),1,8)||'-'||substr(hex(id),9,4)||'-'||substr(hex(id),13,4)||'-'||substr(hex(id),17,4)||'-'||substr(hex(id),21))";

impl Filter {
    /// The first and the last key of the stretch of the table in which all that pass can be.
    pub(in crate::logs) fn stretch(&self) -> (i64, i64) {
        let (mut first, mut last) = (0, i64::MAX);
        for condition in &self.conditions {
            let (least, most) = match condition {
                Condition::Time { operator, values } => of_times(*operator, values),
                Condition::Id {
                    operator: Operator::Eq,
                    values,
                } => of_ids(values),
                _ => continue,
            };
            first = first.max(least);
            last = last.min(most);
        }
        (first, last)
    }
}

/// Where entries are of which one of the times is true.
fn of_times(operator: Operator, times: &[i64]) -> (i64, i64) {
    let least = times.iter().min().copied().unwrap_or(0);
    let most = times.iter().max().copied().unwrap_or(i64::MAX);
    let (early, late) = (early(least), late(most));
    match operator {
        Operator::Lt | Operator::Le => (0, late),
        Operator::Gt | Operator::Ge => (early, i64::MAX),
        Operator::Eq => (early, late),
        Operator::Neq | Operator::Contains => (0, i64::MAX),
    }
}

fn of_ids(ids: &[Uuid]) -> (i64, i64) {
    let keys = || ids.iter().map(|id| around(*id));
    let first = keys().map(|[first, _]| first).min();
    let last = keys().map(|[_, last]| last).max();
    (first.unwrap_or(0), last.unwrap_or(i64::MAX))
}

/// The first key of an entry that can have begun at a time.
fn early(time: i64) -> i64 {
    first_key(time.saturating_sub(SLACK))
}

/// A key behind all of them.
fn late(time: i64) -> i64 {
    first_key(time.saturating_add(SLACK + 1))
}

/// The keys between which an id is. One that was taken may have been counted up into the next
/// millisecond.
fn around(id: Uuid) -> [i64; 2] {
    let time = id_milliseconds(id);
    [first_key(time), first_key(time + 2)]
}

impl Sql {
    /// What of a gateway (`account/gateway`), or of all, passes a filter. The words are looked
    /// up here, so that an index of numbers can be used.
    pub fn new(
        connection: &Connection,
        label: Option<&str>,
        filter: &Filter,
    ) -> rusqlite::Result<Self> {
        let mut sql = Self {
            text: "1".to_owned(),
            values: Vec::new(),
        };
        if let Some(label) = label {
            sql.text += " AND gateway = ?";
            sql.values.push(word(connection, label)?);
        }
        for condition in &filter.conditions {
            sql.text += " AND ";
            sql.condition(connection, condition)?;
        }
        Ok(sql)
    }

    fn condition(
        &mut self,
        connection: &Connection,
        condition: &Condition,
    ) -> rusqlite::Result<()> {
        match condition {
            Condition::Text {
                sql,
                words,
                operator: Operator::Contains,
                values,
            } => self.contains(sql, *words, values),
            Condition::Text {
                sql,
                words,
                operator,
                values,
            } => {
                let stored = |value: &String| match words {
                    true => word(connection, value),
                    false => Ok(Value::Text(value.clone())),
                };
                let values = values.iter().map(stored).collect::<Result<_, _>>()?;
                self.any(sql, *operator, values);
            }
            Condition::Number {
                sql,
                operator,
                values,
            } => {
                self.any(
                    sql,
                    *operator,
                    values.iter().map(|&value| Value::Real(value)).collect(),
                );
            }
            Condition::Flag {
                sql,
                operator,
                values,
            } => {
                self.any(
                    sql,
                    *operator,
                    values
                        .iter()
                        .map(|&value| Value::Integer(value.into()))
                        .collect(),
                );
            }
            Condition::Time { operator, values } => self.each(*operator, values, Self::time),
            Condition::Id { operator, values } => self.each(*operator, values, Self::id),
            Condition::IdPart { values } => self.contains(ID_TEXT, false, values),
            Condition::Metadata(test) => {
                for traces in test.traces() {
                    self.contains("metadata", false, &traces);
                    self.text += " AND ";
                }
                self.text += &format!("{FUNCTION}(metadata, ?)");
                let json = serde_json::to_string(test).unwrap_or_default();
                self.values.push(Value::Text(json));
            }
        }
        Ok(())
    }

    /// A comparison with any of the values. One value of `eq` stays a plain equality, for the
    /// sake of indexes.
    fn any(&mut self, sql: &str, operator: Operator, values: Vec<Value>) {
        let marks = vec!["?"; values.len()].join(",");
        self.text += &match (operator, values.len()) {
            (Operator::Neq, _) => format!("COALESCE({sql} NOT IN ({marks}), 1)"),
            (Operator::Eq, 1) => format!("{sql} = ?"),
            (Operator::Eq, _) => format!("{sql} IN ({marks})"),
            _ => {
                let one = format!("{sql} {} ?", operator.sql());
                format!("({})", vec![one; values.len()].join(" OR "))
            }
        };
        self.values.extend(values);
    }

    fn contains(&mut self, sql: &str, words: bool, values: &[String]) {
        let like = "LIKE ? ESCAPE '\\'";
        let one = match words {
            true => format!(
                "{sql} IN (SELECT id FROM words WHERE text {like}) OR (typeof({sql}) = 'text' AND {sql} {like})"
            ),
            false => format!("{sql} {like}"),
        };
        self.text += &format!("({})", vec![one; values.len()].join(" OR "));
        for value in values {
            let pattern = Value::Text(format!("%{}%", escape(value)));
            let times = if words { 2 } else { 1 };
            self.values.extend(std::iter::repeat_n(pattern, times));
        }
    }

    fn each<T: Copy>(
        &mut self,
        operator: Operator,
        values: &[T],
        one: impl Fn(&mut Self, Operator, T),
    ) {
        self.text += if operator == Operator::Neq {
            "NOT ("
        } else {
            "("
        };
        for (index, value) in values.iter().enumerate() {
            self.text += if index > 0 { " OR " } else { "" };
            one(self, operator, *value);
        }
        self.text += ")";
    }

    /// The time itself, and the stretch of the table in which it can be.
    fn time(&mut self, operator: Operator, time: i64) {
        let (early, late) = (Value::Integer(early(time)), Value::Integer(late(time)));
        let (stretch, keys) = match operator {
            Operator::Lt | Operator::Le => ("key < ?", vec![late]),
            Operator::Gt | Operator::Ge => ("key >= ?", vec![early]),
            _ => ("key >= ? AND key < ?", vec![early, late]),
        };
        self.text += &format!("({stretch} AND created_at {} ?)", operator.sql());
        self.values.extend(keys);
        self.values.push(Value::Integer(time));
    }

    /// An id, and the stretch of the table in which it can be.
    fn id(&mut self, operator: Operator, id: Uuid) {
        let bytes = Value::Blob(id.as_bytes().to_vec());
        if matches!(operator, Operator::Eq | Operator::Neq) {
            self.text += "(key >= ? AND key <= ? AND id = ?)";
            self.values.extend(around(id).map(Value::Integer));
        } else {
            self.text += &format!("id {} ?", operator.sql());
        }
        self.values.push(bytes);
    }
}

fn word(connection: &Connection, text: &str) -> rusqlite::Result<Value> {
    Ok(match find(connection, text)? {
        Word::Number(number) => Value::Integer(number),
        Word::Text(text) => Value::Text(text.to_owned()),
    })
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}
