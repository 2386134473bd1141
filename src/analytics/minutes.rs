//! The minutes that are not over, in memory: each finished request is added to its minute, and
//! the writer takes from here what has changed.
//!
//! Each minute in memory has a writer's number of its own, under which its rows are stored. A
//! minute that comes back after it was forgotten gets another one, and so does the same minute in
//! another process: rows are replaced by who wrote them only, and readers add them up.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::agent;
use super::facts::Facts;
use super::figures::Figures;
use super::series::Dimension;
use super::table::Table;
use crate::metadata::Value;
use crate::record::RequestRecord;

/// Seconds of a minute.
pub const MINUTE: i64 = 60;

/// Most minutes in memory. More than two there are only while they cannot be written.
const MOST_MINUTES: usize = 60;
/// Series in memory above which no minute is added before the oldest are given up: some 20 MB.
const MOST_SERIES: usize = 20_000;

/// Seconds since 1970; 0 before.
pub fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// One minute.
struct Minute {
    /// Its beginning, in seconds since 1970.
    at: i64,
    /// Whose its rows are.
    writer: i64,
    tables: [Table; 3],
    /// Requests since it was written.
    unwritten: u64,
}

impl Minute {
    fn new(at: i64) -> Self {
        Self {
            at,
            // 48 bits of chance and counting: they differ between processes and minutes.
            writer: (Uuid::now_v7().as_u128() & 0xffff_ffff_ffff) as i64,
            tables: Dimension::ALL.map(Table::new),
            unwritten: 0,
        }
    }

    fn series(&self) -> usize {
        self.tables.iter().map(|table| table.rows().len()).sum()
    }

    fn is_unchanged(&self) -> bool {
        self.tables.iter().all(Table::is_unchanged)
    }
}

/// Where a row is in memory.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    writer: i64,
    dimension: Dimension,
    row: u32,
}

/// A row as it is to be stored.
pub struct Unwritten {
    /// The minute's beginning, in seconds since 1970.
    pub at: i64,
    /// Whose row it is.
    pub writer: i64,
    /// Of which dimension.
    pub dimension: Dimension,
    /// Of which series.
    pub key: Arc<[u8]>,
    /// How many requests.
    pub requests: u64,
    /// [`Figures::encode`].
    pub figures: Vec<u8>,
}

/// What was given up for want of memory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Minutes.
    pub minutes: u64,
    /// Their requests that were not written.
    pub requests: u64,
}

/// See the module.
#[derive(Default)]
pub struct Minutes {
    /// In their order.
    minutes: Vec<Minute>,
    /// Text of a number in metadata.
    scratch: String,
}

impl Minutes {
    /// Counts a finished request. Tells what had to be given up for it.
    pub fn observe(&mut self, record: &RequestRecord, facts: &Facts) -> Dropped {
        let at = seconds(facts.ended) / MINUTE * MINUTE;
        let (place, dropped) = self.place(at);
        let Self { minutes, scratch } = self;
        let minute = &mut minutes[place];
        minute.unwritten += 1;
        let [calls, agents, labels] = &mut minute.tables;
        let gateway = record.gateway_label();
        calls.figures(&call(record)).count(facts);
        let agent = agent::short(record.user_agent.as_deref().unwrap_or_default());
        agents.figures(&[gateway, agent]).count(facts);
        for (key, value) in &record.metadata {
            let value = text(value, scratch);
            labels.figures(&[gateway, key, value]).count(facts);
        }
        dropped
    }

    /// The place of a minute, which is added when it is missing.
    fn place(&mut self, at: i64) -> (usize, Dropped) {
        // Nearly always the last one.
        if let Some(place) = self.minutes.iter().rposition(|minute| minute.at == at) {
            return (place, Dropped::default());
        }
        let dropped = self.make_room();
        let place = self.minutes.partition_point(|minute| minute.at < at);
        self.minutes.insert(place, Minute::new(at));
        (place, dropped)
    }

    fn make_room(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        let series = |minutes: &[Minute]| minutes.iter().map(Minute::series).sum::<usize>();
        while self.minutes.len() >= MOST_MINUTES || series(&self.minutes) >= MOST_SERIES {
            let oldest = self.minutes.remove(0);
            dropped.minutes += 1;
            dropped.requests += oldest.unwritten;
        }
        dropped
    }

    /// Which rows have changed since this was asked for the last time.
    pub fn take_changed(&mut self) -> Vec<Place> {
        let mut places = Vec::new();
        for minute in &mut self.minutes {
            minute.unwritten = 0;
            for (dimension, table) in Dimension::ALL.into_iter().zip(&mut minute.tables) {
                places.extend(table.take_changed().into_iter().map(|row| Place {
                    writer: minute.writer,
                    dimension,
                    row,
                }));
            }
        }
        places
    }

    /// Rows as they are now. Those of minutes that were given up are gone.
    pub fn encode(&mut self, places: &[Place]) -> Vec<Unwritten> {
        places
            .iter()
            .filter_map(|place| self.encode_one(*place))
            .collect()
    }

    fn encode_one(&mut self, place: Place) -> Option<Unwritten> {
        let minute = self.minute(place)?;
        let at = minute.at;
        let row = minute.tables[place.dimension as usize].row_mut(place.row)?;
        row.changed = false;
        Some(Unwritten {
            at,
            writer: place.writer,
            dimension: place.dimension,
            key: Arc::clone(&row.key),
            requests: row.figures.requests,
            figures: Figures::encode(&row.figures),
        })
    }

    /// Rows that could not be written after all.
    pub fn put_back(&mut self, places: &[Place]) {
        for place in places {
            if let Some(minute) = self.minute(*place) {
                // Their requests are not known apart any more: this one at least.
                minute.unwritten = minute.unwritten.max(1);
                minute.tables[place.dimension as usize].put_back(place.row);
            }
        }
    }

    fn minute(&mut self, place: Place) -> Option<&mut Minute> {
        let mut minutes = self.minutes.iter_mut();
        minutes.find(|minute| minute.writer == place.writer)
    }

    /// Forgets what is written of minutes that begin before `before`, in seconds since 1970.
    pub fn forget(&mut self, before: i64) {
        self.minutes
            .retain(|minute| minute.at >= before || !minute.is_unchanged());
    }

    /// Forgets all.
    pub fn clear(&mut self) -> Dropped {
        let minutes = std::mem::take(&mut self.minutes);
        Dropped {
            minutes: minutes.len() as u64,
            requests: minutes.iter().map(|minute| minute.unwritten).sum(),
        }
    }

    /// All is written as it is.
    pub fn is_unchanged(&self) -> bool {
        self.minutes.iter().all(Minute::is_unchanged)
    }

    /// Minutes and series in memory.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        let series = self.minutes.iter().map(Minute::series).sum();
        (self.minutes.len(), series)
    }
}

/// The name of a request's series. The model is the one that was asked for, which is what people
/// choose and pay by, and the target's where a route chose: the names that answers give
/// (`gpt-5-mini-2025-08-07`) would split it by date. Only where none was seen is it the answer's.
fn call(record: &RequestRecord) -> [&str; 6] {
    let model = record.model.as_deref().filter(|model| !model.is_empty());
    let consumer = record.consumer.as_ref();
    let owner = consumer.and_then(|consumer| consumer.owner.as_deref());
    [
        record.gateway_label(),
        record.provider_label(),
        model.or(record.spent.model.as_deref()).unwrap_or_default(),
        record.route.as_deref().unwrap_or_default(),
        record.key_alias.as_deref().unwrap_or_default(),
        owner.unwrap_or_default(),
    ]
}

/// A value of metadata as text.
fn text<'a>(value: &'a Value, scratch: &'a mut String) -> &'a str {
    match value {
        Value::Text(text) => text,
        Value::Flag(true) => "true",
        Value::Flag(false) => "false",
        Value::Number(number) => {
            scratch.clear();
            // Writing to a string does not fail.
            let _ = write!(scratch, "{number}");
            scratch
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::analytics::tests::Maker;

    fn observe(minutes: &mut Minutes, record: &RequestRecord) -> Dropped {
        minutes.observe(record, &Facts::of(record))
    }

    #[test]
    fn a_request_belongs_to_the_minute_in_which_it_ended() {
        let mut minutes = Minutes::default();
        let mut record = Maker::new(1).record(119);
        record.duration = Duration::from_millis(1_500);
        observe(&mut minutes, &record);
        let places = minutes.take_changed();
        let rows = minutes.encode(&places);
        assert!(rows.iter().all(|row| row.at == 120 && row.requests == 1));
    }

    #[test]
    fn what_is_written_is_what_changed() {
        let mut minutes = Minutes::default();
        let mut maker = Maker::new(1);
        let record = maker.record(0);
        observe(&mut minutes, &record);
        let places = minutes.take_changed();
        assert_eq!(places.len(), 2 + record.metadata.len());
        assert!(minutes.is_unchanged());
        // Before it is encoded: the row that is written has it already.
        observe(&mut minutes, &record);
        assert!(minutes.is_unchanged());
        assert!(minutes.encode(&places).iter().all(|row| row.requests == 2));
        minutes.put_back(&places[..1]);
        assert!(!minutes.is_unchanged());
        assert_eq!(minutes.take_changed().len(), 1);
        minutes.encode(&places[..1]);
        minutes.forget(60);
        assert_eq!(minutes.size(), (0, 0));
        assert!(minutes.encode(&places).is_empty());
        minutes.put_back(&places);
        observe(&mut minutes, &record);
        let again = minutes.take_changed();
        assert_ne!(again[0].writer, places[0].writer);
    }

    #[test]
    fn memory_is_bounded_when_nothing_is_written() {
        let mut minutes = Minutes::default();
        let mut maker = Maker::new(1);
        let mut dropped = 0;
        for minute in 0..200 {
            dropped += observe(&mut minutes, &maker.record(minute * 60)).requests;
            let (open, _) = minutes.size();
            assert!(open <= MOST_MINUTES);
        }
        assert_eq!(dropped, 140);
        for minute in 200..220 {
            for number in 0..4_000 {
                let mut record = maker.record(minute * 60);
                record.model = Some(format!("model-{number}").into());
                observe(&mut minutes, &record);
            }
        }
        assert!(minutes.size().1 < MOST_SERIES + 6_000);
        assert!(minutes.clear().minutes > 1);
        assert_eq!(minutes.size(), (0, 0));
    }
}
