//! `tollgate reprice`: stored requests by the prices of the running process's configuration. It
//! works in steps, one call after the other: whoever interrupts it interrupts between two of them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::logs::condition;
use super::{nobody_answers, refusal};
use crate::admin::client::Place;
use crate::logs::reprice::{Step, Sums};
use crate::logs::times;

pub const EXAMPLES: &str = "\
Examples:
  tollgate reprice --dry-run                         what all stored requests would cost
  tollgate reprice --since 2026-11-01 --until 2026-11-30T23:59:59Z
  tollgate reprice --filter cost_source=unpriced     only those that had no price
  tollgate reprice --filter provider=custom-acme --filter 'model~large' --json";

/// How often a file or a journal is told how far it is.
const EVERY: Duration = Duration::from_secs(10);

/// What to price again.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Only requests that began then or later: 2026-11-28, or 2026-11-28T06:30:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only requests that began then or before; a date is its first moment
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only requests for which this holds, as in `tollgate logs`: KEY=VALUE, KEY!=VALUE, KEY~TEXT,
    /// KEY < NUMBER or KEY > NUMBER; several must all hold. Keys: provider, model, cost_source, gateway,
    /// cached, metadata.NAME, …
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    filter: Vec<Value>,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

/// A time that the API reads.
fn time(text: &str) -> Result<String, String> {
    match times::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be a time such as 2026-11-28 or 2026-11-28T06:30:00Z".to_owned()),
    }
}

/// Prices it again, and tells what became of it.
pub fn run(place: &Place, wanted: &Wanted) -> ExitCode {
    let mut progress = Progress::default();
    let mut step = Step::default();
    loop {
        let answer = place.post(&path(wanted, step.cursor.as_deref()));
        let next = match answer {
            Ok(answer) if answer.done => read(answer.body),
            Ok(answer) => Err(refusal(&answer.body)),
            Err(error) if step.reached.is_none() => return nobody_answers(place, &error),
            Err(error) => Err(error.to_string()),
        };
        match next {
            Ok(next) => {
                let mut sums = std::mem::take(&mut step.sums);
                sums.add(&next.sums);
                step = Step { sums, ..next };
            }
            Err(why) => return stopped(&step, &progress, &why),
        }
        if step.cursor.is_none() {
            progress.clear();
            return tell(&step, wanted.json);
        }
        progress.tell(&step);
    }
}

fn path(wanted: &Wanted, cursor: Option<&str>) -> String {
    let filters = Value::Array(wanted.filter.clone()).to_string();
    let dry_run = wanted.dry_run.to_string();
    let parameters = [
        ("filters", Some(&*filters)),
        ("start_date", wanted.since.as_deref()),
        ("end_date", wanted.until.as_deref()),
        ("dry_run", Some(&*dry_run)),
        ("cursor", cursor),
    ];
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        value.map(|value| query.append_pair(name, value));
    }
    format!("/-/logs/reprice?{}", query.finish())
}

fn read(mut body: Value) -> Result<Step, String> {
    serde_json::from_value(body["result"].take())
        .map_err(|error| format!("the running process is of another version: {error}"))
}

fn stopped(step: &Step, progress: &Progress, why: &str) -> ExitCode {
    progress.clear();
    eprintln!("tollgate: {why}");
    if let Some(reached) = &step.reached {
        let changed = step.sums.changed;
        eprintln!(
            "tollgate: stopped at {reached}, {changed} entries changed; doing it again does the rest"
        );
    }
    ExitCode::FAILURE
}

fn tell(step: &Step, as_json: bool) -> ExitCode {
    let text = if as_json {
        let mut told = json!(step.sums);
        told["dry_run"] = json!(step.dry_run);
        told.to_string()
    } else {
        words(&step.sums, step.dry_run)
    };
    // Nobody reads it, or somebody does: it is done.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn words(sums: &Sums, dry_run: bool) -> String {
    let (after, changed) = match dry_run {
        true => ("would be", "would change"),
        false => ("is now", "changed"),
    };
    let left = &sums.left_alone;
    let mut lines = vec![
        format!("{} entries looked at", sums.looked_at),
        format!(
            "{} {changed}: {} newly priced, {} without a price any more",
            sums.changed, sums.newly_priced, sums.now_unpriced
        ),
        format!(
            "{} left alone: {} with a custom cost, {} without tokens, {} of providers that are configured no more",
            left.total(),
            left.custom_cost,
            left.no_usage,
            left.unknown_provider
        ),
    ];
    for (what, money) in [("cost", &sums.cost), ("saved", &sums.saved)] {
        lines.push(format!(
            "{what} was ${}, {after} ${}",
            money.before, money.after
        ));
    }
    if dry_run {
        lines.push("dry run: nothing was changed".to_owned());
    }
    lines.join("\n")
}

/// How far it is: on a terminal in one line that changes, elsewhere in a few.
struct Progress {
    on_terminal: bool,
    told: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }
}

impl Progress {
    fn tell(&mut self, step: &Step) {
        let reached = step.reached.as_deref().unwrap_or_default();
        let (looked_at, changed) = (step.sums.looked_at, step.sums.changed);
        let text = format!("up to {reached}: {looked_at} entries looked at, {changed} changed");
        if self.on_terminal {
            eprint!("\r{text}\x1b[K");
        } else if self.told.elapsed() >= EVERY {
            eprintln!("{text}");
            self.told = Instant::now();
        }
    }

    fn clear(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_api() {
        for text in [
            "2026-11-28",
            "2026-11-28T06:30:00Z",
            "2026-11-28T08:30:00+02:00",
        ] {
            assert_eq!(time(text).unwrap(), text);
        }
        for text in ["", "yesterday", "2026-13-01", "1795847400123"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_step_is_asked_for_where_the_last_one_ended() {
        let wanted = Wanted {
            since: Some("2026-11-28T08:30:00+02:00".to_owned()),
            until: None,
            filter: vec![condition("model~a&b").unwrap()],
            dry_run: true,
            json: false,
        };
        assert_eq!(
            path(&wanted, Some("07")),
            "/-/logs/reprice?filters=%5B%7B%22key%22%3A%22model%22%2C%22operator%22%3A%22contains%22%2C%22value%22%3A%5B%22a%26b%22%5D%7D%5D&start_date=2026-11-28T08%3A30%3A00%2B02%3A00&dry_run=true&cursor=07"
        );
    }

    #[test]
    fn sums_are_told_in_words() {
        let sums: Sums = serde_json::from_value(json!({
            "looked_at": 9, "changed": 3, "newly_priced": 2, "now_unpriced": 1,
            "left_alone": { "custom_cost": 1, "no_usage": 2, "unknown_provider": 3 },
            "cost": { "before": "0.00021", "after": "12.000000000001" },
            "saved": { "before": "0", "after": "1" },
        }))
        .unwrap();
        assert_eq!(
            words(&sums, true),
            "9 entries looked at\n\
             3 would change: 2 newly priced, 1 without a price any more\n\
             6 left alone: 1 with a custom cost, 2 without tokens, 3 of providers that are configured no more\n\
             cost was $0.00021, would be $12.000000000001\n\
             saved was $0, would be $1\n\
             dry run: nothing was changed"
        );
        assert!(words(&sums, false).ends_with("saved was $0, is now $1"));
    }
}
