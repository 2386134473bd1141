//! `tollgate logs`: finished requests, for people in a terminal.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::asking::{Problem, ask, ended, print};
use crate::admin::client::Place;

pub const EXAMPLES: &str = "\
Examples:
  tollgate logs                                      the newest twenty, the last one at the bottom
  tollgate logs -f                                   and those that end from now on
  tollgate logs -n 100 --filter model=gpt-5-mini     the newest hundred of a model
  tollgate logs --filter success=false --filter 'duration>5000'
  tollgate logs --filter metadata.team=search --json one JSON object a line
  tollgate logs 019ac3e0-0000-7000-8000-000000000001 all of one request, with its bodies";

/// Most entries that the API gives at once.
const PAGE: usize = 50;
/// How often it is asked for new ones.
const EVERY: Duration = Duration::from_millis(500);

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// The id of one request (`cf-aig-log-id` of its answer): everything about it
    #[arg(conflicts_with_all = ["follow", "count", "filter"])]
    id: Option<Uuid>,
    /// Go on with requests as they end, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    count: u16,
    /// Only requests for which this holds: KEY=VALUE, KEY!=VALUE, KEY~TEXT (contains), KEY < NUMBER or
    /// KEY > NUMBER; several must all hold. Keys: provider, model, success, cached, status_code,
    /// duration (ms), cost (USD), tokens, gateway, route, error, user_agent, metadata.NAME, …
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    filter: Vec<Value>,
    /// One JSON object a line instead of words
    #[arg(long)]
    json: bool,
}

/// Reads a condition into a filter of the API, which checks the rest.
pub(super) fn condition(text: &str) -> Result<Value, String> {
    const OPERATORS: [(&str, &str); 5] = [
        ("!=", "neq"),
        ("=", "eq"),
        ("~", "contains"),
        ("<", "lt"),
        (">", "gt"),
    ];
    let found = OPERATORS
        .iter()
        .filter_map(|(sign, operator)| Some((text.find(sign)?, *sign, *operator)))
        // The first one, and of `!=` and `=` the longer.
        .min_by_key(|(at, sign, _)| (*at, usize::MAX - sign.len()));
    match found {
        Some((at, sign, operator)) if at > 0 => {
            let (key, value) = (text[..at].trim(), text[at + sign.len()..].trim());
            Ok(json!({ "key": key, "operator": operator, "value": [value] }))
        }
        _ => Err("must be such as provider=openai, model!=gpt-5, error~timeout, duration>5000 or cost<0.01".to_owned()),
    }
}

/// Shows it.
pub fn show(place: &Place, wanted: &Wanted) -> ExitCode {
    let shown = match wanted.id {
        Some(id) => one(place, id, wanted.json),
        None => newest(place, wanted),
    };
    ended(place, shown)
}

fn get(place: &Place, path: &str) -> Result<Value, Problem> {
    ask(place, "GET", path, None)
}

fn newest(place: &Place, wanted: &Wanted) -> Result<(), Problem> {
    let filters = Value::Array(wanted.filter.clone()).to_string();
    let filters: String = form_urlencoded::byte_serialize(filters.as_bytes()).collect();
    let mut seen = HashSet::new();
    let mut most = usize::from(wanted.count);
    loop {
        let mut entries = unseen(place, &filters, &seen, most)?;
        seen.extend(entries.iter().map(id));
        entries.reverse();
        for entry in &entries {
            print(&if wanted.json {
                entry.to_string()
            } else {
                line(entry)
            })?;
        }
        if !wanted.follow {
            return Ok(());
        }
        std::thread::sleep(EVERY);
        most = usize::MAX;
        // What has been seen stays among the newest for a while only.
        if seen.len() > 100_000 {
            seen = newest_ids(place, &filters)?;
        }
    }
}

fn newest_ids(place: &Place, filters: &str) -> Result<HashSet<String>, Problem> {
    let newest = unseen(place, filters, &HashSet::new(), 10_000)?;
    Ok(newest.iter().map(id).collect())
}

/// The newest entries up to the first page that brings nothing new, at most so many.
fn unseen(
    place: &Place,
    filters: &str,
    seen: &HashSet<String>,
    most: usize,
) -> Result<Vec<Value>, Problem> {
    let mut entries = Vec::new();
    let mut cursor = String::new();
    while entries.len() < most {
        let size = PAGE.min(most - entries.len());
        let path = format!("/-/logs?per_page={size}&filters={filters}{cursor}");
        let page = get(place, &path)?;
        let found = page["result"].as_array().cloned().unwrap_or_default();
        let count = found.len();
        let fresh = found.into_iter().filter(|entry| !seen.contains(&id(entry)));
        let before = entries.len();
        entries.extend(fresh);
        // When following begins without any, all there is would be new.
        let ended = seen.is_empty() && most == usize::MAX;
        match page["result_info"]["cursor"].as_str() {
            Some(next) if entries.len() - before == count && !ended => {
                cursor = format!("&cursor={next}");
            }
            _ => break,
        }
    }
    Ok(entries)
}

fn id(entry: &Value) -> String {
    entry["id"].as_str().unwrap_or_default().to_owned()
}

/// What strangers wrote must not steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// One entry in words.
fn line(entry: &Value) -> String {
    let text = |name: &str| harmless(entry[name].as_str().unwrap_or("-"));
    let number = |name: &str| {
        entry[name]
            .as_i64()
            .map_or("-".to_owned(), |n| n.to_string())
    };
    let money = entry["cost"]
        .as_f64()
        .map_or("-".to_owned(), |cost| format!("${cost:.6}"));
    let mut line = format!(
        "{}  {}  {} {}  {}/{}  {} ms  in {} out {}  {money}",
        text("created_at"),
        text("id"),
        text("gateway"),
        entry["status_code"],
        text("provider"),
        text("model"),
        number("duration"),
        number("tokens_in"),
        number("tokens_out"),
    );
    if entry["cached"] == true {
        line += &format!("  {}", text("cache_status"));
    }
    if let Some(error) = entry["error"].as_str() {
        line += &format!("  {}: {error}", text("error_source"));
    }
    if entry["attempts"].as_u64().unwrap_or(0) > 1 {
        line += &format!("  {} attempts", entry["attempts"]);
    }
    line
}

/// All of one entry, and its bodies.
fn one(place: &Place, id: Uuid, as_json: bool) -> Result<(), Problem> {
    let answer = get(place, &format!("/-/logs/{id}"))?;
    let mut entry = answer["result"].clone();
    // Whole bodies follow; their beginnings would be here twice.
    for part in [
        "request_head",
        "request_head_complete",
        "response_head",
        "response_head_complete",
    ] {
        entry.as_object_mut().map(|entry| entry.remove(part));
    }
    let bodies = ["request", "response"].map(|which| {
        let path = format!("/-/logs/{id}/{which}");
        place.get_bytes(&path).map_err(Problem::Nobody)
    });
    let [request, response] = bodies;
    let (request, response) = (request?, response?);
    if as_json {
        let text =
            |body: Option<Vec<u8>>| body.map(|body| String::from_utf8_lossy(&body).into_owned());
        entry["request"] = json!(text(request));
        entry["response"] = json!(text(response));
        return print(&entry.to_string());
    }
    print(&serde_json::to_string_pretty(&entry).unwrap_or_default())?;
    for (which, body) in [("request", request), ("response", response)] {
        match body {
            Some(body) => {
                print(&format!("\n--- {which} ---"))?;
                print_body(&body)?;
            }
            None => print(&format!("\n--- no {which} is kept ---"))?,
        }
    }
    Ok(())
}

/// To a terminal only what is harmless there; to a file as it is.
fn print_body(body: &[u8]) -> Result<(), Problem> {
    if !io::stdout().is_terminal() {
        let written = io::stdout()
            .write_all(body)
            .and_then(|()| io::stdout().write_all(b"\n"));
        return written.map_err(|_| Problem::Output);
    }
    let text = String::from_utf8_lossy(body);
    let lines = text
        .split('\n')
        .map(|line| harmless(&line.replace('\t', "    ")));
    lines
        .map(|line| print(&line))
        .try_for_each(|printed| printed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_filters() {
        for (text, key, operator, value) in [
            ("provider=openai", "provider", "eq", "openai"),
            ("model!=gpt-5", "model", "neq", "gpt-5"),
            ("error~time=out", "error", "contains", "time=out"),
            ("duration>5000", "duration", "gt", "5000"),
            ("duration > 5000", "duration", "gt", "5000"),
            ("cost<0.01", "cost", "lt", "0.01"),
            ("metadata.team=", "metadata.team", "eq", ""),
            ("user_agent=a!=b", "user_agent", "eq", "a!=b"),
        ] {
            let filter = condition(text).unwrap();
            assert_eq!(
                filter,
                json!({ "key": key, "operator": operator, "value": [value] }),
                "{text}"
            );
        }
        for text in ["", "provider", "=x", "!=x"] {
            assert!(condition(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_steers_no_terminal() {
        let entry = json!({
            "created_at": "2026-11-28T06:30:00.123Z", "id": "x", "gateway": "a/b", "status_code": 502,
            "provider": "openai", "model": "m\u{1b}[2J\n", "duration": 12, "tokens_in": 1,
            "error": "upstream_cut", "error_source": "provider", "attempts": 3,
        });
        let line = line(&entry);
        assert!(!line.contains(['\u{1b}', '\n']), "{line}");
        assert!(
            line.ends_with("in 1 out -  -  provider: upstream_cut  3 attempts"),
            "{line}"
        );
    }
}
