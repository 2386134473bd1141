//! The numbers of series in the database, remembered by the writer.

use std::sync::Arc;

use ahash::AHashMap;
use rusqlite::Connection;

use super::series::{Dimension, to_text};

/// Series that are remembered; then they are looked up anew.
const MOST: usize = 50_000;

/// How much longer than asked for a series is kept, in seconds: it is noted that it is needed
/// once a day, not with each row.
const AHEAD: i64 = 86_400;

/// A series in the database.
#[derive(Clone, Copy)]
struct Known {
    id: i64,
    /// Seconds since 1970.
    needed_until: i64,
}

/// See the module.
#[derive(Default)]
pub struct Ids {
    known: AHashMap<(Dimension, Arc<[u8]>), Known>,
}

impl Ids {
    /// The number of a series, which is added when it is missing and not removed before
    /// `needed_until` (seconds since 1970).
    ///
    /// # Errors
    /// SQLite's. The transaction is to be given up then, and [`Self::clear`] to be called.
    pub fn id(
        &mut self,
        connection: &Connection,
        dimension: Dimension,
        key: &Arc<[u8]>,
        needed_until: i64,
    ) -> rusqlite::Result<i64> {
        let series = (dimension, Arc::clone(key));
        if let Some(known) = self.known.get(&series)
            && known.needed_until >= needed_until
        {
            return Ok(known.id);
        }
        let needed_until = needed_until.saturating_add(AHEAD);
        let id = connection
            .prepare_cached(
                "INSERT INTO series (dimension, name, needed_until) VALUES (?1, ?2, ?3)
                 ON CONFLICT (dimension, name)
                 DO UPDATE SET needed_until = MAX(needed_until, excluded.needed_until)
                 RETURNING id",
            )?
            .query_row((dimension.number(), to_text(key), needed_until), |row| {
                row.get(0)
            })?;
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(series, Known { id, needed_until });
        Ok(id)
    }

    /// Notes that a series is needed for longer, by its number.
    ///
    /// # Errors
    /// SQLite's.
    pub fn keep(connection: &Connection, id: i64, needed_until: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "UPDATE series SET needed_until = ?3 WHERE id = ?1 AND needed_until < ?2",
            )?
            .execute((id, needed_until, needed_until.saturating_add(AHEAD)))?;
        Ok(())
    }

    /// Forgets all: a transaction was given up.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::analytics::schema;

    #[test]
    fn a_series_has_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let connection = schema::open(dir.path()).unwrap();
        let key: Arc<[u8]> = b"a/b\xffcurl\xff".as_slice().into();
        let mut ids = Ids::default();
        let id = ids.id(&connection, Dimension::Agents, &key, 10).unwrap();
        for ids in [&mut ids, &mut Ids::default()] {
            for until in [5, 1_000_000] {
                let found = ids.id(&connection, Dimension::Agents, &key, until);
                assert_eq!(found.unwrap(), id);
            }
        }
        Ids::keep(&connection, id, 2_000_000).unwrap();
        Ids::keep(&connection, id, 3).unwrap();
        let (name, until): (String, i64) = connection
            .query_row("SELECT name, needed_until FROM series", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((&*name, until), (r#"["a/b","curl"]"#, 2_086_400));
        let other = ids.id(&connection, Dimension::Labels, &key, 10).unwrap();
        assert_ne!(other, id);
    }
}
