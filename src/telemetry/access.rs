//! The access log: one line per request, logfmt or JSON.

use std::fmt::Write;
use std::time::SystemTime;

use crate::config::schema::AccessLog;
use crate::record::{RequestRecord, Spent, Value};

/// The log target of access lines; everything else is the process log.
pub const TARGET: &str = "tollgate::access";

/// Writes the line of a finished request.
pub fn write(form: AccessLog, record: &RequestRecord) {
    if form != AccessLog::Off && ::log::log_enabled!(target: TARGET, ::log::Level::Info) {
        ::log::info!(target: TARGET, "{}", line(form, record));
    }
}

/// The line without its time stamp.
fn line(form: AccessLog, record: &RequestRecord) -> String {
    let mut line = String::with_capacity(512);
    record.fields(|key, value| match form {
        AccessLog::Json => json_field(&mut line, key, &value),
        AccessLog::Logfmt | AccessLog::Off => logfmt_field(&mut line, key, &value),
    });
    line
}

/// The facts of a finished request as a JSON object of one line, its time being its end.
pub fn json_line(record: &RequestRecord) -> String {
    let ended = record.started + record.duration;
    let time = humantime::format_rfc3339_micros(ended.max(SystemTime::UNIX_EPOCH));
    let mut object = format!("{{\"time\":\"{time}\"");
    record.fields(|key, value| json_field(&mut object, key, &value));
    object.push_str("}\n");
    object
}

/// What a request took and cost as one JSON object, with the names and values of its line; `None`
/// where nothing is known. ASCII only, for it goes into heads of answers.
pub fn spent(spent: &Spent) -> Option<String> {
    let mut json = String::with_capacity(192);
    spent.fields(&mut |key, value| json_field(&mut json, key, &value));
    if json.is_empty() {
        return None;
    }
    // In the place of the first comma.
    json.replace_range(..1, "{");
    json.push('}');
    Some(if is_printable(&json) {
        json
    } else {
        escaped(&json)
    })
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// JSON with everything but printable ASCII as `\u` escapes: that can stand in strings only.
fn escaped(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

fn logfmt_field(line: &mut String, key: &str, value: &Value<'_>) {
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(key);
    line.push('=');
    match value {
        Value::Text(text) if is_bare(text) => line.push_str(text),
        Value::Text(text) => push_quoted(line, text),
        other => push_plain(line, other),
    }
}

fn json_field(line: &mut String, key: &str, value: &Value<'_>) {
    line.push_str(",\"");
    line.push_str(key);
    line.push_str("\":");
    match value {
        Value::Text(text) => push_quoted(line, text),
        other => push_plain(line, other),
    }
}

/// Writing to a `String` cannot fail.
fn push_plain(line: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Text(text) => write!(line, "{text}"),
        Value::Number(number) => write!(line, "{number}"),
        Value::Milliseconds(milliseconds) => write!(line, "{milliseconds:.3}"),
        Value::Dollars(cost) => write!(line, "{cost}"),
        Value::Flag(flag) => write!(line, "{flag}"),
    };
}

fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=' && b != b'\\')
}

/// A JSON string, which is a logfmt string too: no line break or control character gets out.
pub fn push_quoted(line: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => line.push_str(&quoted),
        Err(_) => line.push_str("\"\""),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::{Failure, Kind};
    use crate::record::Fault;
    use std::time::Duration;

    pub(crate) fn record() -> RequestRecord {
        RequestRecord {
            id: uuid::Uuid::nil(),
            started: SystemTime::UNIX_EPOCH,
            gateway: None,
            provider: None,
            model: Some("a model\n\"x\"".into()),
            consumer: None,
            key_alias: None,
            method: http::Method::POST,
            path: "/v1/a/b/c".into(),
            version: http::Version::HTTP_11,
            client: None,
            request_content_type: None,
            response_content_type: None,
            user_agent: None,
            traceparent: None,
            otel: crate::export::trace_context::Given::default(),
            event_id: None,
            metadata: Vec::new(),
            unbounded: None,
            custom_cost: None,
            status: 200,
            streamed: false,
            failure: None,
            route: None,
            target: 0,
            step: 0,
            hedged: None,
            attempts: 1,
            asked_before: Vec::new(),
            tried: Vec::new(),
            reused: true,
            request_bytes: 10,
            response_bytes: 20,
            duration: Duration::from_micros(1500),
            reading: Duration::ZERO,
            waited: Duration::ZERO,
            upstream: Some(Duration::from_micros(1000)),
            first_byte: None,
            first_token: None,
            cache: crate::record::CacheFacts::default(),
            spent: crate::record::Spent::default(),
        }
    }

    #[test]
    fn a_line_cannot_be_forged_by_what_clients_send() {
        let line = line(AccessLog::Logfmt, &record());
        assert!(!line.contains('\n'));
        assert!(line.contains(r#"model="a model\n\"x\"""#), "{line}");
        assert!(
            line.contains("status=200 streamed=false attempts=1 reused=true"),
            "{line}"
        );
        assert!(
            line.contains("duration_ms=1.500 upstream_ms=1.000 overhead_ms=0.500"),
            "{line}"
        );
    }

    #[test]
    fn a_line_tells_of_a_wait_for_a_place_which_is_no_overhead() {
        let mut record = record();
        record.waited = Duration::from_micros(400);
        let line = line(AccessLog::Logfmt, &record);
        let told = "duration_ms=1.500 waited_ms=0.400 upstream_ms=1.000 overhead_ms=0.100";
        assert!(line.contains(told), "{line}");
    }

    #[test]
    fn a_line_tells_what_a_stored_answer_stood_in_for() {
        let mut record = record();
        record.cache.stood_in_for = Some(Fault::Status(503));
        let told = line(AccessLog::Logfmt, &record);
        assert!(
            told.contains(" error_source=provider error=provider_5xx provider_status=503 "),
            "{told}"
        );
        let told = json(&record);
        assert_eq!(
            (&told["status"], &told["error"], &told["provider_status"]),
            (&200.into(), &"provider_5xx".into(), &503.into())
        );
        let failure = Failure::new(Kind::UpstreamTimeout);
        record.cache.stood_in_for = Some(Fault::Failure(failure.clone()));
        let told = json(&record);
        assert_eq!(
            (&told["error"], &told["detail"], &told["provider_status"]),
            (
                &"upstream_timeout".into(),
                &failure.to_string().into(),
                &serde_json::Value::Null
            )
        );
    }

    fn json(record: &RequestRecord) -> serde_json::Value {
        let line = line(AccessLog::Json, record);
        serde_json::from_str(&format!("{{\"x\":0{line}}}")).unwrap_or_default()
    }

    #[test]
    fn what_a_request_took_is_one_line_of_ascii_with_the_values_of_its_log_line() {
        let mut record = record();
        assert_eq!(spent(&record.spent), None);
        record.spent = Spent {
            usage: Some(crate::usage::Usage {
                input: 3,
                ..Default::default()
            }),
            model: Some("m\"\u{e9}\u{1f980}\n\u{7f}".into()),
            cost: Some(crate::pricing::Cost(165_000_000)),
            source: Some(crate::pricing::CostSource::Catalogue),
            ..Spent::default()
        };
        let told = spent(&record.spent).unwrap_or_default();
        let expected = r#"{"input_tokens":3,"output_tokens":0,"answer_model":"m\"\u00e9\ud83e\udd80\n\u007f","cost_usd":0.000165,"cost_source":"catalogue"}"#;
        assert_eq!(told, expected);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
        let line = json(&record);
        for (name, value) in told.as_object().into_iter().flatten() {
            assert_eq!(&line[name], value, "{name}");
        }
    }

    #[test]
    fn json_lines_are_json() {
        let object = json(&record());
        assert_eq!(object["model"], "a model\n\"x\"");
        assert_eq!(object["bytes_out"], 20);
        assert_eq!(object["reused"], true);
        let line = json_line(&record());
        let whole: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(whole["time"], "1970-01-01T00:00:00.001500Z");
        assert_eq!(whole["model"], object["model"]);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
    }
}
