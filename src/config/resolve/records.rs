//! What is kept of requests.

use std::time::Duration;

use super::Problems;
use crate::config::schema;
use crate::logs::policy::Policy;
use crate::logs::redaction::Rules;
use crate::logs::settings::Settings as Store;
use crate::metadata::Settings;

const DAY: u64 = 86_400;
const RETENTION: Duration = Duration::from_secs(30 * DAY);
const SHORTEST: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(3650 * DAY);
const MAX_SIZE: u64 = 20 << 30;
const LEAST_SIZE: u64 = 64 << 20;
const MAX_BODY: u64 = 1 << 20;
const LARGEST_BODY: u64 = 32 << 20;

pub(super) fn metadata(
    path: &str,
    metadata: &schema::Metadata,
    problems: &mut Problems,
) -> Settings {
    let schema::Metadata {
        max_entries,
        max_size,
        strict,
    } = metadata;
    let default = Settings::default();
    let entries = max_entries.map_or(Some(default.max_entries), |most| usize::try_from(most).ok());
    let entries = entries.filter(|most| (1..=64).contains(most));
    if entries.is_none() {
        problems.add(format!("{path}.max_entries"), "must be 1 to 64");
    }
    let bytes = max_size.map_or(default.max_bytes as u64, |size| size.0);
    if !(64..=64 << 10).contains(&bytes) {
        problems.add(format!("{path}.max_size"), "must be 64B to 64KiB");
    }
    Settings {
        max_entries: entries.unwrap_or(default.max_entries),
        max_bytes: usize::try_from(bytes).unwrap_or(default.max_bytes),
        strict: *strict,
    }
}

/// The log store; `None` for none.
pub(super) fn store(logs: &schema::Logs, problems: &mut Problems) -> Option<Store> {
    let schema::Logs {
        retention,
        max_size,
        max_body,
        redact,
    } = logs;
    let retention = retention.map_or(RETENTION, |retention| retention.0);
    if !(SHORTEST..=LONGEST).contains(&retention) {
        problems.add("logs.retention", "must be 1h to 3650d");
    }
    let max_size = max_size.map_or(MAX_SIZE, |size| size.0);
    if max_size > 0 && max_size < LEAST_SIZE {
        let rule = "must be at least 64MiB, or 0 for no log store";
        problems.add("logs.max_size", rule);
    }
    let max_body = max_body.map_or(MAX_BODY, |size| size.0);
    if max_body > LARGEST_BODY {
        problems.add("logs.max_body", "must be 0 to 32MiB");
    }
    let settings = Store {
        retention,
        max_size,
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        redact: rules(redact),
    };
    if let Err(rule) = settings.options() {
        problems.add("logs.redact", rule.to_string());
    }
    (max_size > 0).then_some(settings)
}

pub(super) fn rules(redact: &schema::Redact) -> Rules {
    let schema::Redact {
        headers,
        json,
        patterns,
    } = redact;
    Rules {
        headers: headers.clone(),
        request_pointers: json.clone(),
        response_pointers: json.clone(),
        patterns: patterns.clone(),
    }
}

pub(super) fn policy(logs: schema::GatewayLogs) -> Policy {
    let schema::GatewayLogs { collect, payload } = logs;
    Policy { collect, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let logs = serde_yaml::from_str(yaml).unwrap_or_default();
        let mut problems = Problems::default();
        store(&logs, &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mistakes_name_the_key() {
        for (yaml, expected) in [
            ("{ retention: 59m }", "logs.retention: must be 1h to 3650d"),
            (
                "{ max_size: 1MiB }",
                "logs.max_size: must be at least 64MiB, or 0 for no log store",
            ),
            ("{ max_body: 33MiB }", "logs.max_body: must be 0 to 32MiB"),
            ("{ redact: { json: [messages] } }", "logs.redact: "),
            (
                "{ redact: { patterns: ['('] } }",
                "logs.redact: pattern `(`",
            ),
        ] {
            let found = problems(yaml);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{yaml}: {found:?}"
            );
        }
        assert_eq!(
            problems("{ retention: 1h, max_size: 64MiB, max_body: 0 }"),
            [""; 0]
        );
    }

    #[test]
    fn without_disk_there_is_no_store() {
        let none = schema::Logs {
            max_size: Some(crate::config::units::ByteSize(0)),
            ..Default::default()
        };
        assert_eq!(store(&none, &mut Problems::default()), None);
        let usual = store(&schema::Logs::default(), &mut Problems::default());
        assert_eq!(usual.map(|store| store.max_body), Some(1 << 20));
    }
}
