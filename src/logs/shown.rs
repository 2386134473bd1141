//! A log entry as the API shows it (contract, log entry), read from its row.

use std::net::IpAddr;

use rusqlite::{Connection, Row};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::columns::{Columns, Known};
use super::entry::{Attempt, Head, Tokens};
use super::segments::{Place, Record};
use super::times;
use crate::record::tokens_per_second;

/// One entry. Durations are whole milliseconds where the contract has them, and milliseconds
/// with their fractions in `timings`. Money is in dollars.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // the names of the API; see `Entry`
pub struct LogEntry {
    pub id: Uuid,
    pub created_at: String,
    pub gateway: String,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub model_type: Option<String>,
    pub answer_model: Option<String>,
    pub path: String,
    pub method: String,
    pub http_version: String,
    pub duration: i64,
    pub success: bool,
    pub status_code: u16,
    pub provider_status: Option<u16>,
    pub cached: bool,
    pub cache_status: Option<String>,
    pub cache_tier: Option<String>,
    pub cache_source: Option<Uuid>,
    pub tokens_in: Option<i64>,
    pub tokens_out: Option<i64>,
    /// Whole ones; see [`crate::record::RequestRecord::output_rate`].
    pub output_tokens_per_second: Option<u64>,
    pub usage_metadata: Option<Tokens>,
    pub usage_estimated: bool,
    pub cost: Option<f64>,
    pub custom_cost: bool,
    pub cost_source: Option<String>,
    pub saved: Option<f64>,
    pub service_tier: Option<String>,
    pub metadata: Box<RawValue>,
    pub route: Option<String>,
    pub step: u32,
    pub target: u32,
    pub attempts: u32,
    pub tried: Vec<Attempt>,
    pub request_type: Option<String>,
    pub request_content_type: Option<String>,
    pub response_content_type: Option<String>,
    pub request_size: i64,
    pub response_size: i64,
    pub streamed: bool,
    pub complete: bool,
    pub error_source: Option<String>,
    pub error: Option<String>,
    pub error_detail: Option<String>,
    pub denied_by: Option<String>,
    pub feedback: Option<i8>,
    pub score: Option<f64>,
    pub event_id: Option<String>,
    pub authentication: bool,
    /// Never: there is no unified billing here.
    pub wholesale: bool,
    pub byok: bool,
    pub key_alias: Option<String>,
    pub consumer: Option<String>,
    pub owner: Option<String>,
    pub client: Option<IpAddr>,
    pub user_agent: Option<String>,
    pub traceparent: Option<String>,
    pub timings: ShownTimings,
    /// Only where one entry is asked for.
    #[serde(flatten)]
    pub preview: Option<Preview>,
    /// Where its heads and bodies lie.
    #[serde(skip)]
    pub place: Option<Place>,
    #[serde(skip)]
    pub(super) key: i64,
}

/// Milliseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // see `Timings`
pub struct ShownTimings {
    pub duration: Option<f64>,
    pub upstream: Option<f64>,
    pub overhead: Option<f64>,
    pub first_byte: Option<f64>,
    pub first_token: Option<f64>,
    pub waited: Option<f64>,
}

/// The begin of the bodies, and the heads.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // the names of the API
pub struct Preview {
    /// The first KiB of the body.
    pub request_head: Option<String>,
    /// That is all of it.
    pub request_head_complete: bool,
    pub response_head: Option<String>,
    pub response_head_complete: bool,
    pub request_headers: Option<Head>,
    pub response_headers: Option<Head>,
}

/// Bytes of a body's preview.
const PREVIEW: usize = 1_024;

impl Preview {
    /// Of a record that may be gone.
    pub(super) fn of(record: Option<Record>) -> Self {
        let Some(record) = record else {
            return Self::default();
        };
        let begin = |bytes: &[u8]| {
            let end = (PREVIEW.saturating_sub(3)..=PREVIEW)
                .rev()
                .find(|&end| bytes.get(end).is_none_or(|byte| byte & 0xc0 != 0x80));
            let end = end.unwrap_or(PREVIEW).min(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let text =
            |body: &Option<super::segments::Body>| body.as_ref().map(|body| begin(&body.bytes));
        let whole = |body: &Option<super::segments::Body>| {
            body.as_ref()
                .is_some_and(|body| body.complete && body.bytes.len() <= PREVIEW)
        };
        Self {
            request_head: text(&record.request),
            request_head_complete: whole(&record.request),
            response_head: text(&record.response),
            response_head_complete: whole(&record.response),
            request_headers: Some(record.request_head),
            response_headers: Some(record.response_head),
        }
    }
}

/// Reads the row of a statement that selects all columns in their order.
pub fn read(connection: &Connection, known: &mut Known, row: &Row) -> rusqlite::Result<LogEntry> {
    let mut columns = Columns::new(connection, known, row);
    let mut entry = columns.first()?;
    columns.second(&mut entry)?;
    columns.third(&mut entry)?;
    Ok(entry)
}

impl Columns<'_> {
    /// Of pico-dollars.
    #[allow(clippy::cast_precision_loss)] // exact up to 9,000 dollars
    fn dollars(&mut self) -> rusqlite::Result<Option<f64>> {
        Ok(self.plain::<Option<i64>>()?.map(|pico| pico as f64 / 1e12))
    }

    /// Of microseconds.
    #[allow(clippy::cast_precision_loss)] // exact for 285 years
    fn milliseconds(&mut self) -> rusqlite::Result<Option<f64>> {
        Ok(self
            .plain::<Option<i64>>()?
            .map(|micros| micros as f64 / 1e3))
    }

    fn first(&mut self) -> rusqlite::Result<LogEntry> {
        let mut entry = LogEntry::empty();
        entry.key = self.plain()?;
        entry.gateway = self.some()?;
        entry.created_at = times::shown(self.plain()?);
        entry.success = self.plain()?;
        entry.cached = self.plain()?;
        entry.status_code = self.plain()?;
        entry.provider = self.word()?;
        entry.model = self.word()?;
        entry.model_type = self.word()?;
        entry.cost = self.dollars()?;
        entry.tokens_in = self.plain()?;
        entry.tokens_out = self.plain()?;
        entry.timings.duration = self.milliseconds()?;
        #[allow(clippy::cast_possible_truncation)] // it was a whole number of microseconds
        let shown = entry
            .timings
            .duration
            .map_or(0, |ms| (ms + 0.5).floor() as i64);
        entry.duration = shown;
        entry.feedback = self.plain()?;
        entry.request_type = self.word()?;
        entry.request_content_type = self.word()?;
        entry.response_content_type = self.word()?;
        entry.user_agent = self.word()?;
        entry.authentication = self.plain()?;
        entry.byok = self.plain()?;
        entry.event_id = self.plain()?;
        if let Some(metadata) = self.plain::<Option<String>>()? {
            entry.metadata = RawValue::from_string(metadata).unwrap_or(entry.metadata);
        }
        entry.id = self.id()?.unwrap_or_default();
        entry.score = self.plain()?;
        Ok(entry)
    }

    fn second(&mut self, entry: &mut LogEntry) -> rusqlite::Result<()> {
        entry.route = self.word()?;
        entry.key_alias = self.word()?;
        entry.consumer = self.word()?;
        entry.owner = self.word()?;
        entry.error = self.word()?;
        entry.error_source = self.word()?;
        entry.cache_status = self.word()?;
        entry.streamed = self.plain()?;
        entry.complete = self.plain()?;
        entry.answer_model = self.word()?;
        entry.path = self.some()?;
        entry.method = self.some()?;
        entry.http_version = self.some()?;
        entry.client = self
            .plain::<Option<Vec<u8>>>()?
            .as_deref()
            .and_then(address);
        entry.step = self.plain()?;
        entry.target = self.plain()?;
        entry.provider_status = self.plain()?;
        entry.cache_tier = self.word()?;
        entry.cache_source = self.id()?;
        entry.error_detail = self.plain()?;
        entry.denied_by = self.word()?;
        entry.attempts = self.plain()?;
        let tried: Option<String> = self.plain()?;
        entry.tried = tried
            .and_then(|tried| serde_json::from_str(&tried).ok())
            .unwrap_or_default();
        Ok(())
    }

    fn third(&mut self, entry: &mut LogEntry) -> rusqlite::Result<()> {
        entry.request_size = self.plain()?;
        entry.response_size = self.plain()?;
        entry.timings.upstream = self.milliseconds()?;
        entry.timings.overhead = self.milliseconds()?;
        entry.timings.first_byte = self.milliseconds()?;
        entry.timings.first_token = self.milliseconds()?;
        entry.timings.waited = self.milliseconds()?;
        entry.usage_metadata = self.tokens(entry)?;
        entry.usage_estimated = self.plain()?;
        entry.service_tier = self.word()?;
        entry.saved = self.dollars()?;
        entry.cost_source = self.word()?;
        entry.custom_cost = self.plain()?;
        entry.traceparent = self.plain()?;
        let (segment, position): (Option<i64>, Option<i64>) = (self.plain()?, self.plain()?);
        entry.place = segment
            .zip(position)
            .map(|(segment, position)| Place { segment, position });
        entry.output_tokens_per_second = output_rate(entry);
        Ok(())
    }

    fn tokens(&mut self, entry: &LogEntry) -> rusqlite::Result<Option<Tokens>> {
        let whole = |number: i64| number.unsigned_abs();
        let mut next = || Ok::<_, rusqlite::Error>(self.plain::<Option<i64>>()?.map(whole));
        let tokens = Tokens {
            input: entry.tokens_in.map(whole),
            output: entry.tokens_out.map(whole),
            cached_input: next()?,
            cache_write: next()?,
            cache_write_1h: next()?,
            reasoning: next()?,
            input_audio: next()?,
            output_audio: next()?,
            cached_audio: next()?,
            input_image: next()?,
            output_image: next()?,
            web_searches: next()?,
        };
        Ok((tokens != Tokens::default()).then_some(tokens))
    }
}

/// As the record has it: times were stored in whole microseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // far below 2^53, and positive
fn output_rate(entry: &LogEntry) -> Option<u64> {
    let output = entry.tokens_out.filter(|_| !entry.cached)?;
    let times = &entry.timings;
    let taken = match times.first_token {
        Some(first) => times.duration? - first,
        None => times.upstream?,
    };
    let micros = (taken * 1e3).round().max(0.0) as u64;
    tokens_per_second(u64::try_from(output).ok()?, micros)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(octets).map(IpAddr::from).ok())
}

/// An entry without anything, to be filled column by column.
impl LogEntry {
    /// One of which nothing is known.
    pub fn empty() -> Self {
        Self {
            id: Uuid::nil(),
            created_at: String::new(),
            gateway: String::new(),
            provider: None,
            model: None,
            model_type: None,
            answer_model: None,
            path: String::new(),
            method: String::new(),
            http_version: String::new(),
            duration: 0,
            success: false,
            status_code: 0,
            provider_status: None,
            cached: false,
            cache_status: None,
            cache_tier: None,
            cache_source: None,
            tokens_in: None,
            tokens_out: None,
            output_tokens_per_second: None,
            usage_metadata: None,
            usage_estimated: false,
            cost: None,
            custom_cost: false,
            cost_source: None,
            saved: None,
            service_tier: None,
            metadata: RawValue::from_string("{}".to_owned()).unwrap_or_default(),
            route: None,
            step: 0,
            target: 0,
            attempts: 0,
            tried: Vec::new(),
            request_type: None,
            request_content_type: None,
            response_content_type: None,
            request_size: 0,
            response_size: 0,
            streamed: false,
            complete: false,
            error_source: None,
            error: None,
            error_detail: None,
            denied_by: None,
            feedback: None,
            score: None,
            event_id: None,
            authentication: false,
            wholesale: false,
            byok: false,
            key_alias: None,
            consumer: None,
            owner: None,
            client: None,
            user_agent: None,
            traceparent: None,
            timings: ShownTimings {
                duration: None,
                upstream: None,
                overhead: None,
                first_byte: None,
                first_token: None,
                waited: None,
            },
            preview: None,
            place: None,
            key: 0,
        }
    }
}
