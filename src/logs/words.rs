//! Texts that repeat are stored once and numbered.
//!
//! The dictionary is bounded: clients choose some of these texts. Beyond [`MOST_WORDS`], and
//! for texts longer than [`LONGEST`], a column holds the text itself. A text is one or the
//! other for good, so that a filter knows which to look for.

use ahash::AHashMap;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

/// Most words of one store: some 10 MB.
const MOST_WORDS: i64 = 60_000;

/// Longest word, in bytes.
const LONGEST: usize = 256;

/// How a text stands in a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Word<'a> {
    /// As the number of a word.
    Number(i64),
    /// As itself.
    Text(&'a str),
}

impl ToSql for Word<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The words that a writer has met.
#[derive(Debug, Default)]
pub struct Words {
    known: AHashMap<Box<str>, i64>,
    /// Met in the transaction that is open: they may yet not come to be.
    fresh: Vec<Box<str>>,
}

impl Words {
    /// The number of a text, which becomes a word if there is place. Within a transaction.
    pub fn word<'a>(
        &mut self,
        connection: &Connection,
        text: &'a str,
    ) -> rusqlite::Result<Word<'a>> {
        if let Some(number) = self.known.get(text) {
            return Ok(Word::Number(*number));
        }
        let found = match find(connection, text)? {
            Word::Text(_) if text.len() <= LONGEST => self.make(connection, text)?,
            found => found,
        };
        if let Word::Number(number) = found {
            self.known.insert(text.into(), number);
            self.fresh.push(text.into());
        }
        Ok(found)
    }

    fn make<'a>(&self, connection: &Connection, text: &'a str) -> rusqlite::Result<Word<'a>> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO words (text) SELECT ?1 WHERE (SELECT COALESCE(MAX(id), 0) FROM words) < ?2",
        )?;
        Ok(match insert.execute((text, MOST_WORDS))? {
            0 => Word::Text(text),
            _ => Word::Number(connection.last_insert_rowid()),
        })
    }

    /// The transaction came to be.
    pub fn committed(&mut self) {
        self.fresh.clear();
    }

    /// It did not.
    pub fn rolled_back(&mut self) {
        for text in self.fresh.drain(..) {
            self.known.remove(&text);
        }
    }
}

/// How a text stands in columns.
pub fn find<'a>(connection: &Connection, text: &'a str) -> rusqlite::Result<Word<'a>> {
    let mut select = connection.prepare_cached("SELECT id FROM words WHERE text = ?1")?;
    let number = select.query_row([text], |row| row.get(0)).optional()?;
    Ok(number.map_or(Word::Text(text), Word::Number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_word_or_itself_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let connection = super::super::schema::open(dir.path()).unwrap();
        let mut words = Words::default();
        let first = words.word(&connection, "openai").unwrap();
        assert_eq!(words.word(&connection, "openai").unwrap(), first);
        assert_eq!(find(&connection, "openai").unwrap(), first);
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(words.word(&connection, &long).unwrap(), Word::Text(&long));

        connection
            .execute("INSERT INTO words VALUES (?1, 'last')", [MOST_WORDS])
            .unwrap();
        assert_eq!(words.word(&connection, "late").unwrap(), Word::Text("late"));
        assert_eq!(
            words.word(&connection, "last").unwrap(),
            Word::Number(MOST_WORDS)
        );
    }

    #[test]
    fn words_of_a_failed_transaction_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = super::super::schema::open(dir.path()).unwrap();
        let mut words = Words::default();
        let transaction = connection.transaction().unwrap();
        words.word(&transaction, "a").unwrap();
        transaction.rollback().unwrap();
        words.rolled_back();
        words.word(&connection, "b").unwrap();
        words.committed();
        assert_ne!(
            words.word(&connection, "a").unwrap(),
            words.word(&connection, "b").unwrap()
        );
    }
}
