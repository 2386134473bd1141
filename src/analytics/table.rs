//! The series of one dimension and one minute, hour or day: as many as there may be.
//!
//! A series that there is no place for is counted in one with less of a name, in the last resort
//! in the one that has nothing but `(other)`. So totals are always exact, and only who they are
//! of gets lost.

use std::sync::Arc;

use ahash::AHashMap;

use super::figures::Figures;
use super::series::{Detail, Dimension, bounded, write_key};

/// A series and its figures.
pub struct Row {
    /// Its name: see [`write_key`].
    pub key: Arc<[u8]>,
    /// What its requests came to.
    pub figures: Figures,
    /// Not written as it is now; it is among those that [`Table::take_changed`] gives.
    pub changed: bool,
}

/// See the module.
pub struct Table {
    dimension: Dimension,
    places: AHashMap<Arc<[u8]>, u32>,
    rows: Vec<Row>,
    changed: Vec<u32>,
    /// Keys of metadata, and how many values each has a series for.
    keys: AHashMap<Box<str>, usize>,
    scratch: Vec<u8>,
}

impl Table {
    /// Without series.
    pub fn new(dimension: Dimension) -> Self {
        Self {
            dimension,
            places: AHashMap::new(),
            rows: Vec::new(),
            changed: Vec::new(),
            keys: AHashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The figures to which requests of this name are added. Makes no copy of a name that it
    /// knows.
    pub fn figures(&mut self, name: &[&str]) -> &mut Figures {
        let place = self.place(name);
        let row = &mut self.rows[place as usize];
        if !row.changed {
            row.changed = true;
            self.changed.push(place);
        }
        &mut row.figures
    }

    fn place(&mut self, name: &[&str]) -> u32 {
        for detail in [Detail::Full, Detail::Some, Detail::Gateway] {
            write_key(&mut self.scratch, self.dimension, name, detail);
            if let Some(place) = self.places.get(&self.scratch[..]) {
                return *place;
            }
            if self.admits(name, detail) {
                return self.insert(name, detail);
            }
        }
        write_key(&mut self.scratch, self.dimension, name, Detail::Nothing);
        match self.places.get(&self.scratch[..]) {
            Some(place) => *place,
            None => self.insert(name, Detail::Nothing),
        }
    }

    fn admits(&self, name: &[&str], detail: Detail) -> bool {
        let limits = self.dimension.limits();
        let (series, values) = match detail {
            Detail::Full => (limits.series, limits.values),
            Detail::Some => (limits.series / 4 * 5, usize::MAX),
            Detail::Gateway | Detail::Nothing => (limits.series / 2 * 3, usize::MAX),
        };
        let room = self.rows.len() < series;
        match key_of(self.dimension, name, detail) {
            Some(key) => {
                let known = self.keys.get(&*key);
                room && known.map_or(self.keys.len() < limits.keys, |count| *count < values)
            }
            None => room,
        }
    }

    /// Adds the series whose key is in the scratch.
    fn insert(&mut self, name: &[&str], detail: Detail) -> u32 {
        if let Some(key) = key_of(self.dimension, name, detail) {
            let count = self.keys.entry(key.into()).or_default();
            *count += usize::from(detail == Detail::Full);
        }
        let key: Arc<[u8]> = self.scratch.as_slice().into();
        let place = self.rows.len() as u32;
        self.places.insert(Arc::clone(&key), place);
        self.rows.push(Row {
            key,
            figures: Figures::default(),
            changed: false,
        });
        place
    }

    /// All series.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// One of them.
    pub fn row_mut(&mut self, place: u32) -> Option<&mut Row> {
        self.rows.get_mut(place as usize)
    }

    /// Which series have changed since this was asked for the last time.
    pub fn take_changed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.changed)
    }

    /// Nothing has changed since then.
    pub fn is_unchanged(&self) -> bool {
        self.changed.is_empty()
    }

    /// A series is to be written again.
    pub fn put_back(&mut self, place: u32) {
        if let Some(row) = self.rows.get_mut(place as usize) {
            row.changed = true;
            self.changed.push(place);
        }
    }
}

/// The key of metadata that a name still has.
fn key_of<'a>(
    dimension: Dimension,
    name: &[&'a str],
    detail: Detail,
) -> Option<std::borrow::Cow<'a, str>> {
    let named = dimension == Dimension::Labels && matches!(detail, Detail::Full | Detail::Some);
    name.get(1).filter(|_| named).map(|key| bounded(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::series::values;

    fn count(table: &mut Table, name: &[&str]) {
        table.figures(name).requests += 1;
    }

    fn total(table: &Table) -> u64 {
        table.rows().iter().map(|row| row.figures.requests).sum()
    }

    fn requests_of(table: &Table, name: &[&str]) -> u64 {
        let is_it = |row: &&Row| values(&row.key).eq(name.iter().copied());
        let found = table.rows().iter().find(is_it);
        found.map_or(0, |row| row.figures.requests)
    }

    #[test]
    fn a_flood_of_models_goes_to_other_ones() {
        let mut table = Table::new(Dimension::Calls);
        for number in 0..5_000 {
            let (gateway, model) = (format!("g{}", number % 3), format!("m{number}"));
            count(&mut table, &[&gateway, "openai", &model, "", "", ""]);
        }
        count(&mut table, &["g0", "openai", "m0", "", "", ""]);
        assert_eq!((table.rows().len(), total(&table)), (1_003, 5_001));
        assert_eq!(
            requests_of(&table, &["g0", "openai", "m0", "", "", ""]),
            2,
            "who was there first keeps the place"
        );
        let other = ["g0", "openai", "(other)", "", "", ""];
        assert_eq!(requests_of(&table, &other), 4_000 / 3);
    }

    #[test]
    fn whatever_the_flood_there_is_a_bound() {
        for dimension in Dimension::ALL {
            let mut table = Table::new(dimension);
            for number in 0..20_000 {
                let made_up = format!("x{number}");
                count(&mut table, &[made_up.as_str(); 6]);
            }
            let most = dimension.limits().series / 2 * 3 + 1;
            assert!(table.rows().len() <= most, "{}", table.rows().len());
            assert_eq!(total(&table), 20_000);
        }
    }

    #[test]
    fn a_key_with_endless_values_leaves_others_their_place() {
        let mut table = Table::new(Dimension::Labels);
        for number in 0..4_000 {
            count(&mut table, &["g", "request", &number.to_string()]);
        }
        count(&mut table, &["g", "team", "red"]);
        for number in 0..100 {
            count(&mut table, &["g", &format!("key-{number}"), "x"]);
        }
        assert_eq!(requests_of(&table, &["g", "request", "(other)"]), 3_000);
        assert_eq!(requests_of(&table, &["g", "team", "red"]), 1);
        assert_eq!(requests_of(&table, &["g", "(other)", "(other)"]), 70);
        assert_eq!(total(&table), 4_101);
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut table = Table::new(Dimension::Agents);
        for agent in ["a", "b", "a"] {
            count(&mut table, &["g", agent]);
        }
        assert_eq!(table.take_changed(), [0, 1]);
        assert!(table.is_unchanged());
        count(&mut table, &["g", "a"]);
        assert!(table.is_unchanged(), "it was not written meanwhile");
        table.put_back(1);
        assert_eq!(table.take_changed(), [1]);
    }
}
