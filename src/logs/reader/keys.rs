//! Which rows are selected: their keys, in an order.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::filter::sql::Sql;
use super::super::query::Order;

/// Keys of a selection.
pub struct Keys<'a> {
    /// Of which rows.
    pub sql: &'a Sql,
    /// In which order.
    pub order: Order,
    /// Beyond which key.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: usize,
    /// So many are left out before.
    pub offset: u64,
}

impl Keys<'_> {
    /// Gives them one by one, so that an interrupted read leaves those it found.
    pub fn read(&self, connection: &Connection, mut give: impl FnMut(i64)) -> rusqlite::Result<()> {
        let mut select = connection.prepare(&self.text())?;
        let numbers = [
            self.limit as i64,
            i64::try_from(self.offset).unwrap_or(i64::MAX),
        ];
        let after = self.after.map(Value::Integer);
        let values = self
            .sql
            .values
            .iter()
            .cloned()
            .chain(after)
            .chain(numbers.map(Value::Integer));
        let mut rows = select.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            give(row.get(0)?);
        }
        Ok(())
    }

    fn text(&self) -> String {
        let (direction, beyond) = if self.order.ascending {
            ("ASC", ">")
        } else {
            ("DESC", "<")
        };
        let after = if self.after.is_some() {
            format!(" AND key {beyond} ?")
        } else {
            String::new()
        };
        let by = self
            .order
            .by
            .sql()
            .map_or(String::new(), |by| format!("{by} {direction}, "));
        format!(
            "SELECT key FROM entries WHERE {}{after} ORDER BY {by}key {direction} LIMIT ? OFFSET ?",
            self.sql.text
        )
    }
}
