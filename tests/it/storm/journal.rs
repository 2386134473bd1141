//! The gateway's log, read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ask::traced;

/// The access log by the numbers of the requests, and what else the log says.
#[derive(Default)]
pub struct Journal {
    pub lines: BTreeMap<u64, Line>,
    pub others: BTreeMap<String, u64>,
    pub wrongs: Vec<String>,
}

/// A line of the access log.
pub struct Line {
    pub text: String,
    pub id: String,
    pub provider: String,
    pub status: u16,
    pub error: Option<String>,
    pub attempts: u64,
    /// Why attempts failed.
    pub tried: Vec<String>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub cache: Option<String>,
    /// In pico-dollars, as `saved`.
    pub cost: Option<u64>,
    pub saved: Option<u64>,
    /// Output tokens per second.
    pub rate: Option<u64>,
}

/// Dollars in JSON as whole pico-dollars: exact below some thousand dollars.
pub fn pico(dollars: &Value) -> Option<u64> {
    dollars
        .as_f64()
        .map(|dollars| (dollars * 1e12).round() as u64)
}

impl Journal {
    pub fn read(log: &str) -> Self {
        let mut journal = Self::default();
        log.lines().for_each(|text| journal.take(text));
        journal
    }

    fn take(&mut self, text: &str) {
        let line: Value = serde_json::from_str(text).unwrap_or_default();
        if line["id"].is_null() {
            return self.take_other(text, &line);
        }
        match line["traceparent"].as_str().and_then(traced) {
            None => self.wrongs.push(format!("a line for nobody: {text}")),
            Some(number) => {
                if self.lines.insert(number, Line::of(&line, text)).is_some() {
                    self.wrongs.push(format!("two lines for {number}"));
                }
            }
        }
    }

    fn take_other(&mut self, text: &str, line: &Value) {
        let level = line["level"].as_str().unwrap_or("-");
        let message = line["message"].as_str().unwrap_or(text);
        if text.contains("panicked") {
            self.wrongs.push(text.to_owned());
        }
        let message = message.chars().filter(|letter| !letter.is_numeric());
        let kind: String = message.take(120).collect();
        *self.others.entry(format!("{level} {kind}")).or_default() += 1;
    }
}

impl Line {
    fn of(line: &Value, raw: &str) -> Self {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let number = |name: &str| line[name].as_u64().unwrap_or_default();
        let cause = |tried: &str| tried.rsplit(':').nth(1).unwrap_or_default().to_owned();
        let tried = text("tried").unwrap_or_default();
        let tried = tried.split(',').filter(|tried| !tried.is_empty());
        Self {
            text: raw.to_owned(),
            id: text("id").unwrap_or_default(),
            provider: text("provider").unwrap_or_default(),
            status: u16::try_from(number("status")).unwrap_or_default(),
            error: text("error"),
            attempts: number("attempts"),
            tried: tried.map(cause).collect(),
            bytes_in: number("bytes_in"),
            bytes_out: number("bytes_out"),
            cache: text("cache"),
            cost: pico(&line["cost_usd"]),
            saved: pico(&line["saved_usd"]),
            rate: line["output_tokens_per_second"].as_u64(),
        }
    }
}
