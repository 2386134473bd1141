//! `GET …/logs/export`: all entries that a filter finds, one line each, sent while they are read.
//! `format=ndjson` (the default) or `csv`; with `bodies=true` NDJSON has the bodies too, as text.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};

use super::logs::{CATCHING_UP, STORE, unreadable};
use super::{Answer, Refusal};
use crate::admin::response;
use crate::logs::filter::FieldError;
use crate::logs::query::{OrderBy, Query};
use crate::logs::reader::{Export, ReadError, Reader, Scope};
use crate::logs::segments::Body;
use crate::logs::shown::LogEntry;
use crate::logs::store::Store;

/// Bytes that are sent in one go, about.
const PIECE: usize = 64 << 10;
/// Pieces that wait for a client that reads slowly.
const WAITING: usize = 4;

/// The columns of CSV, in this order: all that one entry has, but for its heads and bodies.
const COLUMNS: [&str; 56] = [
    "id",
    "created_at",
    "gateway",
    "provider",
    "model",
    "answer_model",
    "model_type",
    "success",
    "status_code",
    "provider_status",
    "duration",
    "tokens_in",
    "tokens_out",
    "output_tokens_per_second",
    "cost",
    "saved",
    "cost_source",
    "custom_cost",
    "usage_estimated",
    "service_tier",
    "cached",
    "cache_status",
    "cache_tier",
    "cache_source",
    "route",
    "step",
    "target",
    "attempts",
    "tried",
    "error_source",
    "error",
    "error_detail",
    "denied_by",
    "streamed",
    "complete",
    "metadata",
    "event_id",
    "key_alias",
    "consumer",
    "owner",
    "authentication",
    "byok",
    "wholesale",
    "feedback",
    "score",
    "method",
    "path",
    "http_version",
    "client",
    "user_agent",
    "request_type",
    "request_content_type",
    "response_content_type",
    "request_size",
    "response_size",
    "traceparent",
];
/// Objects whose members have columns of their own.
const NESTED: [(&str, &[&str]); 2] = [
    (
        "usage_metadata",
        &[
            "cached_input",
            "cache_write",
            "cache_write_1h",
            "reasoning",
            "input_audio",
            "output_audio",
            "cached_audio",
            "input_image",
            "output_image",
            "web_searches",
        ],
    ),
    (
        "timings",
        &[
            "upstream",
            "overhead",
            "first_byte",
            "first_token",
            "waited",
        ],
    ),
];

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ndjson { bodies: bool },
    Csv,
}

/// Begins an export; it goes on while its client reads.
pub fn answer(store: Store, scope: Scope, query: &[(String, String)]) -> Result<Answer, Refusal> {
    let (form, query) = read_parameters(query)?;
    let kind = match form {
        Form::Ndjson { .. } => "application/x-ndjson",
        Form::Csv => "text/csv; charset=utf-8",
    };
    let (sender, pieces) = channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let sent = send(&store, &scope, &query, form, &sender);
        if let Err(error) = sent {
            // Its client sees an answer that is cut off.
            let message = unreadable(STORE, &error).message;
            let _ = sender.blocking_send(Err(std::io::Error::other(message)));
        }
    });
    let head = response(StatusCode::OK, kind, Vec::new());
    Ok(Answer::Streamed(head, pieces))
}

fn read_parameters(query: &[(String, String)]) -> Result<(Form, Query), Refusal> {
    let (mut csv, mut bodies) = (false, false);
    let mut rest = Vec::new();
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("format", "ndjson") => csv = false,
            ("format", "csv") => csv = true,
            ("format", _) => return Err(FieldError::new("format", "must be ndjson or csv").into()),
            ("bodies", "true") => bodies = true,
            ("bodies", "false") => bodies = false,
            ("bodies", _) => return Err(FieldError::new("bodies", "must be true or false").into()),
            ("page" | "per_page" | "cursor" | "meta_info", _) => {
                let reason = "is no parameter of an export: that has all entries";
                return Err(FieldError::new(name, reason).into());
            }
            (name, value) => rest.push((name, value)),
        }
    }
    if csv && bodies {
        return Err(FieldError::new("bodies", "goes with format=ndjson only").into());
    }
    let query = Query::parse(rest)?;
    if query.order.by != OrderBy::CreatedAt {
        let reason = "must be created_at: an export is in the order of time";
        return Err(FieldError::new("order_by", reason).into());
    }
    let form = if csv {
        Form::Csv
    } else {
        Form::Ndjson { bodies }
    };
    Ok((form, query))
}

type Pieces = Sender<std::io::Result<Bytes>>;

fn send(
    store: &Store,
    scope: &Scope,
    query: &Query,
    form: Form,
    sender: &Pieces,
) -> Result<(), ReadError> {
    if let Err(late) = store.flush(CATCHING_UP) {
        log::debug!("an export begins without the newest entries: {late}");
    }
    let mut reader = Reader::open(store.dir(), std::time::Duration::MAX)?;
    let mut export = reader.export(scope, &query.filter, query.order.ascending)?;
    let mut lines = match form {
        Form::Csv => header(),
        Form::Ndjson { .. } => String::new(),
    };
    while let Some(entry) = export.next() {
        lines += &line(form, &entry?, &export)?;
        if lines.len() >= PIECE {
            let piece = Bytes::from(std::mem::take(&mut lines));
            if sender.blocking_send(Ok(piece)).is_err() {
                return Ok(()); // its client has left
            }
        }
    }
    let _ = sender.blocking_send(Ok(Bytes::from(lines)));
    Ok(())
}

fn line(form: Form, entry: &LogEntry, export: &Export<'_>) -> Result<String, ReadError> {
    let mut object = serde_json::to_value(entry).unwrap_or_default();
    match form {
        Form::Csv => return Ok(row(&object)),
        Form::Ndjson { bodies: false } => {}
        Form::Ndjson { bodies: true } => {
            let record = export.record(entry)?.unwrap_or_default();
            object["request"] = text(record.request);
            object["response"] = text(record.response);
        }
    }
    Ok(format!("{object}\n"))
}

fn text(body: Option<Body>) -> Value {
    match body {
        Some(body) => json!({
            "text": String::from_utf8_lossy(&body.bytes),
            "complete": body.complete,
        }),
        None => Value::Null,
    }
}

fn header() -> String {
    let nested = NESTED.iter().flat_map(|(_, members)| members.iter());
    let names: Vec<_> = COLUMNS.iter().chain(nested).copied().collect();
    names.join(",") + "\r\n"
}

fn row(entry: &Value) -> String {
    let plain = COLUMNS.iter().map(|name| cell(&entry[name]));
    let nested = NESTED.iter().flat_map(|(name, members)| {
        let object = &entry[name];
        members.iter().map(move |member| cell(&object[member]))
    });
    let cells: Vec<_> = plain.chain(nested).collect();
    cells.join(",") + "\r\n"
}

/// One value (RFC 4180). What strangers wrote must not become a formula in a spreadsheet: an
/// apostrophe stands before it, as OWASP advises.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => {
            format!("'{text}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_are_no_formulas() {
        for (value, expected) in [
            (json!(null), ""),
            (json!(true), "true"),
            (json!(-1), "-1"),
            (json!(0.25), "0.25"),
            (json!("plain"), "plain"),
            (json!("a,b"), "\"a,b\""),
            (json!("a\"b\nc"), "\"a\"\"b\nc\""),
            (json!("=1+1"), "'=1+1"),
            (json!("@x,y"), "\"'@x,y\""),
            (json!({ "a": "b" }), "\"{\"\"a\"\":\"\"b\"\"}\""),
        ] {
            assert_eq!(cell(&value), expected, "{value}");
        }
    }

    #[test]
    fn every_fact_of_an_entry_has_a_column() {
        let entry = serde_json::to_value(LogEntry::empty()).unwrap();
        for name in entry.as_object().unwrap().keys() {
            let nested = NESTED.iter().any(|(other, _)| other == name);
            assert!(nested || COLUMNS.contains(&name.as_str()), "{name}");
        }
        for name in COLUMNS {
            assert!(entry.get(name).is_some(), "{name} is no fact");
        }
        let columns = header().split(',').count();
        assert_eq!(row(&entry).split(',').count(), columns);
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |name: &str, value: &str| {
            read_parameters(&[(name.to_owned(), value.to_owned())]).map(|(form, _)| form)
        };
        assert_eq!(parse("format", "csv").unwrap(), Form::Csv);
        assert_eq!(
            parse("bodies", "true").unwrap(),
            Form::Ndjson { bodies: true }
        );
        for (name, value) in [
            ("format", "xml"),
            ("bodies", "1"),
            ("page", "2"),
            ("order_by", "model"),
            ("colour", "red"),
        ] {
            let refusal = parse(name, value).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(name), "{refusal:?}");
        }
    }
}
