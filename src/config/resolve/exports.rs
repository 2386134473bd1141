//! Who else is told of finished requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use pingora_core::protocols::tls::CaType;

use super::Problems;
use super::providers::authorities;
use crate::config::Problem;
use crate::config::schema::{self, Collector};
use crate::config::secret::Secret;
use crate::export::{Exporter, Headers, Settings, Sink};

/// The configuration of all of them, to tell whether it has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exports {
    /// Collectors.
    pub otel: Vec<Collector>,
    /// Files and webhooks.
    pub sinks: Vec<schema::Sink>,
}

impl Exports {
    /// What the exports are started with.
    ///
    /// # Errors
    /// The mistakes, by their paths.
    pub fn settings(&self) -> Result<Settings, Vec<Problem>> {
        let mut problems = Problems::default();
        let settings = settings(self, &mut problems);
        match problems.0.is_empty() {
            true => Ok(settings),
            false => Err(problems.0),
        }
    }
}

pub(super) fn resolve(
    otel: &[Collector],
    sinks: &[schema::Sink],
    problems: &mut Problems,
) -> Exports {
    let exports = Exports {
        otel: otel.to_vec(),
        sinks: sinks.to_vec(),
    };
    settings(&exports, problems);
    exports
}

fn settings(exports: &Exports, problems: &mut Problems) -> Settings {
    let collectors = exports.otel.iter().enumerate();
    let sinks = exports.sinks.iter().enumerate();
    let settings = Settings {
        exporters: collectors
            .map(|(index, collector)| exporter(&format!("otel[{index}]"), collector, problems))
            .collect(),
        sinks: sinks
            .filter_map(|(index, told)| sink(&format!("sinks[{index}]"), told, problems))
            .collect(),
        ..Settings::default()
    };
    for (path, fault) in settings.faults() {
        problems.add(path, fault);
    }
    settings
}

fn exporter(path: &str, collector: &Collector, problems: &mut Problems) -> Exporter {
    let Collector {
        url,
        headers,
        content_type,
        traces,
        metrics,
        payload,
        ca,
    } = collector;
    if !traces && !metrics {
        problems.add(
            path,
            "sends nothing: switch traces or metrics on, or remove it",
        );
    }
    Exporter {
        url: url.clone(),
        headers: names_and_values(path, headers, problems),
        content_type: *content_type,
        traces: *traces,
        metrics: *metrics,
        payload: *payload,
        ca: trusted(path, ca.as_deref(), problems),
    }
}

fn sink(path: &str, sink: &schema::Sink, problems: &mut Problems) -> Option<Sink> {
    let schema::Sink {
        file,
        webhook,
        headers,
        ca,
    } = sink;
    let headers = names_and_values(path, headers, problems);
    let ca = trusted(path, ca.as_deref(), problems);
    match (file, webhook) {
        (Some(file), None) => Some(Sink::File(file.clone())),
        (None, Some(url)) => Some(Sink::Webhook {
            url: url.clone(),
            headers,
            ca,
        }),
        _ => {
            problems.add(path, "must have either `file` or `webhook`");
            None
        }
    }
}

fn names_and_values(
    path: &str,
    headers: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> Headers {
    let mut resolved = Headers::new();
    for (name, secret) in headers {
        let at = format!("{path}.headers.{name}");
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let Ok(parsed) = parsed else {
            problems.add(at, "is no name of a header");
            continue;
        };
        let Some(secret) = problems.ok(&at, secret.read()) else {
            continue;
        };
        match HeaderValue::from_str(secret.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                resolved.push((parsed, value));
            }
            Err(_) => problems.add(at, "cannot stand in a header"),
        }
    }
    resolved
}

fn trusted(path: &str, ca: Option<&Path>, problems: &mut Problems) -> Option<Arc<CaType>> {
    problems.ok(&format!("{path}.ca"), authorities(ca?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problems(otel: &str, sinks: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let otel: Vec<Collector> = serde_yaml::from_str(otel).unwrap();
        let sinks: Vec<schema::Sink> = serde_yaml::from_str(sinks).unwrap();
        resolve(&otel, &sinks, &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mistakes_name_the_key_and_show_no_secret() {
        for (otel, sinks, expected) in [
            (
                "[{ url: 'ftp://x' }]",
                "[]",
                "otel[0]: the URL must begin with",
            ),
            (
                "[{ url: 'http://x', traces: false }]",
                "[]",
                "otel[0]: sends nothing",
            ),
            (
                "[{ url: 'http://x', headers: { 'a b': s3cret } }]",
                "[]",
                "otel[0].headers.a b: is no name",
            ),
            (
                "[{ url: 'http://x', headers: { a: \"s3cret\\n\" } }]",
                "[]",
                "otel[0].headers.a: cannot stand",
            ),
            (
                "[{ url: 'http://x', headers: { host: s3cret } }]",
                "[]",
                "otel[0]: the header host cannot",
            ),
            (
                "[{ url: 'https://x', ca: /nowhere.pem }]",
                "[]",
                "otel[0].ca: ",
            ),
            ("[]", "[{}]", "sinks[0]: must have either"),
            (
                "[]",
                "[{ file: a, webhook: 'http://x' }]",
                "sinks[0]: must have either",
            ),
            (
                "[]",
                "[{ webhook: 'http://u:s3cret@x' }]",
                "sinks[0]: credentials belong",
            ),
        ] {
            let found = problems(otel, sinks);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{expected}: {found:?}"
            );
            assert!(!found[0].contains("s3cret"), "{found:?}");
        }
        let good = "[{ url: 'http://127.0.0.1:4318', metrics: true, content_type: protobuf }]";
        assert_eq!(
            problems(good, "[{ file: /var/log/requests.ndjson }]"),
            [""; 0]
        );
    }
}
