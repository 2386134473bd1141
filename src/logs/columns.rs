//! Reads the columns of a row one after the other, in the order of its statement.

use ahash::AHashMap;
use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Row};
use uuid::Uuid;

/// The words that a reader has met.
pub type Known = AHashMap<i64, String>;

/// The columns of one row.
pub struct Columns<'a> {
    connection: &'a Connection,
    known: &'a mut Known,
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    /// From the first.
    pub fn new(connection: &'a Connection, known: &'a mut Known, row: &'a Row<'a>) -> Self {
        Self {
            connection,
            known,
            row,
            next: 0,
        }
    }

    /// The next value as it is.
    pub fn plain<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// The next one, the number of a word or a text.
    pub fn word(&mut self) -> rusqlite::Result<Option<String>> {
        self.next += 1;
        match self.row.get_ref(self.next - 1)? {
            ValueRef::Integer(number) => self.lookup(number).map(Some),
            ValueRef::Text(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
            _ => Ok(None),
        }
    }

    /// The same, where an absent one is an empty one.
    pub fn some(&mut self) -> rusqlite::Result<String> {
        self.word().map(Option::unwrap_or_default)
    }

    /// The next one, the bytes of an id.
    pub fn id(&mut self) -> rusqlite::Result<Option<Uuid>> {
        let bytes: Option<Vec<u8>> = self.plain()?;
        Ok(bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()))
    }

    fn lookup(&mut self, number: i64) -> rusqlite::Result<String> {
        if let Some(text) = self.known.get(&number) {
            return Ok(text.clone());
        }
        let mut select = self
            .connection
            .prepare_cached("SELECT text FROM words WHERE id = ?1")?;
        let text: String = select.query_row([number], |row| row.get(0))?;
        self.known.insert(number, text.clone());
        Ok(text)
    }
}
