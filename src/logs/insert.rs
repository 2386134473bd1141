//! Writes an entry's row. The columns are bound in the order of [`schema::COLUMNS`].

use rusqlite::types::ToSql;
use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::entry::{Entry, Text};
use super::schema::{self, COLUMNS};
use super::segments::Place;
use super::times;
use super::words::Words;

/// Farthest that a row's time may be from the one in its id, in milliseconds. Date filters
/// look through so much more of the table on either side.
pub const SLACK: i64 = 10_000;

/// The statement that inserts a row.
pub fn prepare(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    connection.prepare_cached(&format!("INSERT INTO entries VALUES ({marks})"))
}

/// Inserts a row, with its payload at this place. Within a transaction.
pub fn insert<'c>(
    connection: &'c Connection,
    statement: &mut CachedStatement<'c>,
    words: &mut Words,
    entry: &Entry,
    place: Option<Place>,
) -> rusqlite::Result<()> {
    let mut row = Row {
        connection,
        words,
        statement,
        next: 2,
    };
    row.first(entry)?;
    row.second(entry)?;
    row.third(entry)?;
    row.plain(place.map(|place| place.segment))?;
    row.plain(place.map(|place| place.position))?;
    at_a_free_key(row.statement, schema::key_of(entry.id))
}

/// Two entries of one millisecond share a key once in 32,768 times.
fn at_a_free_key(statement: &mut CachedStatement, first: i64) -> rusqlite::Result<()> {
    for key in first.. {
        statement.raw_bind_parameter(1, key)?;
        match statement.raw_execute() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
            other => return other.map(|_| ()),
        }
    }
    Ok(())
}

struct Row<'a, 'c> {
    connection: &'c Connection,
    words: &'a mut Words,
    statement: &'a mut CachedStatement<'c>,
    next: usize,
}

impl Row<'_, '_> {
    fn plain(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.statement.raw_bind_parameter(self.next, value)?;
        self.next += 1;
        Ok(())
    }

    fn size(&mut self, value: Option<u64>) -> rusqlite::Result<()> {
        self.plain(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn word(&mut self, text: &Option<Text>) -> rusqlite::Result<()> {
        match text {
            None => self.plain(None::<i64>),
            Some(text) => {
                let word = self.words.word(self.connection, text)?;
                self.plain(word)
            }
        }
    }

    fn some(&mut self, text: &str) -> rusqlite::Result<()> {
        let word = self.words.word(self.connection, text)?;
        self.plain(word)
    }

    /// What filters read.
    fn first(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        self.some(&label(&entry.account, &entry.gateway))?;
        self.plain(created_at(entry))?;
        self.plain(entry.success)?;
        self.plain(entry.cached)?;
        self.plain(entry.status)?;
        self.word(&entry.provider)?;
        self.word(&entry.model)?;
        self.word(&entry.model_type)?;
        self.plain(entry.cost)?;
        self.size(entry.usage.and_then(|usage| usage.input))?;
        self.size(entry.usage.and_then(|usage| usage.output))?;
        self.size(Some(entry.timings.duration))?;
        self.plain(None::<i64>)?; // feedback
        self.word(&entry.request_type)?;
        self.word(&entry.request_content_type)?;
        self.word(&entry.response_content_type)?;
        self.word(&entry.user_agent)?;
        self.plain(entry.authentication)?;
        self.plain(entry.byok)?;
        self.plain(entry.event_id.as_deref())?;
        self.plain(entry.metadata.json())?;
        self.plain(&entry.id.as_bytes()[..])?;
        self.plain(None::<f64>) // score
    }

    fn second(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        self.word(&entry.route)?;
        self.word(&entry.key_alias)?;
        self.word(&entry.consumer)?;
        self.word(&entry.owner)?;
        self.word(&entry.error)?;
        self.word(&entry.error_source)?;
        self.word(&entry.cache_status)?;
        self.plain(entry.streamed)?;
        self.plain(entry.complete)?;
        self.word(&entry.answer_model)?;
        self.some(&entry.path)?;
        self.some(&entry.method)?;
        self.some(&entry.http_version)?;
        self.plain(entry.client.map(octets))?;
        self.plain(entry.step)?;
        self.plain(entry.target)?;
        self.plain(entry.provider_status)?;
        self.word(&entry.cache_tier)?;
        self.plain(entry.cache_source.as_ref().map(|id| &id.as_bytes()[..]))?;
        self.plain(entry.error_detail.as_deref())?;
        self.word(&entry.denied_by)?;
        self.plain(entry.attempts)?;
        let tried = (!entry.tried.is_empty())
            .then(|| serde_json::to_string(&entry.tried).unwrap_or_default());
        self.plain(tried)
    }

    fn third(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        let timings = &entry.timings;
        let usage = entry.usage.unwrap_or_default();
        let sizes = [
            Some(entry.request_size),
            Some(entry.response_size),
            timings.upstream,
            timings.overhead,
            timings.first_byte,
            timings.first_token,
            timings.waited,
            usage.cached_input,
            usage.cache_write,
            usage.cache_write_1h,
            usage.reasoning,
            usage.input_audio,
            usage.output_audio,
            usage.cached_audio,
            usage.input_image,
            usage.output_image,
            usage.web_searches,
        ];
        for size in sizes {
            self.size(size)?;
        }
        self.plain(entry.usage_estimated)?;
        self.word(&entry.service_tier)?;
        self.plain(entry.saved)?;
        self.word(&entry.cost_source)?;
        self.plain(entry.custom_cost)?;
        self.plain(entry.traceparent.as_deref())
    }
}

/// `account/gateway`, the word that stands for a gateway.
pub fn label(account: &str, gateway: &str) -> String {
    [account, "/", gateway].concat()
}

fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Milliseconds; never so far from the id's time that date filters would miss it.
pub fn created_at(entry: &Entry) -> i64 {
    let of_id = schema::id_milliseconds(entry.id);
    let told = entry.created_at.map_or(of_id, times::milliseconds);
    if told.abs_diff(of_id) > SLACK.unsigned_abs() {
        of_id
    } else {
        told
    }
}
