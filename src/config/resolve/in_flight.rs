//! How many calls may be in flight at once, as the process, gateways and providers say it.

use std::ops::RangeInclusive;

use super::Problems;
use crate::config::schema;
use crate::limits::concurrency::{DEFAULT_WAIT, LONGEST_WAIT, Settings};

const MAX: RangeInclusive<i64> = 1..=1_000_000;
const QUEUE: RangeInclusive<i64> = 0..=1_000_000;

/// What is said at `path`.
pub(super) fn cap(
    path: &str,
    said: Option<schema::InFlight>,
    problems: &mut Problems,
) -> Option<Settings> {
    let schema::InFlight { max, wait, queue } = said?;
    let mut problem = |key, message| problems.add(format!("{path}.{key}"), message);
    match max {
        None => problem("max", "is missing: how many calls at once?"),
        Some(max) if !MAX.contains(&max) => problem("max", "must be 1 to 1000000"),
        Some(_) => {}
    }
    let wait = wait.map_or(DEFAULT_WAIT, |wait| wait.0);
    if wait > LONGEST_WAIT {
        problem("wait", "must be 0s to 60s");
    }
    if queue.is_some_and(|queue| !QUEUE.contains(&queue)) {
        problem("queue", "must be 0 to 1000000");
    }
    // What does not fit was told above.
    let number = |number: i64| u32::try_from(number).unwrap_or_default();
    Some(Settings {
        max_in_flight: max.map(number),
        max_wait: wait,
        max_waiting: queue.map(number),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use crate::config::resolve::{Resolved, resolve};
    use crate::limits::concurrency::{Scope, Settings};

    /// A process, a provider and a gateway that say this.
    fn resolved(server: &str, provider: &str, gateway: &str) -> Result<Resolved, Vec<String>> {
        let yaml = format!(
            "server: {server}\n\
             providers: {{ google-ai-studio: {provider} }}\n\
             accounts: {{ a: {{ gateways: {{ g: {gateway}, h: {{}} }} }} }}"
        );
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        resolve(&config, ([127, 0, 0, 1], 1).into())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn settings(max: u32, wait: u64, queue: Option<u32>) -> Settings {
        Settings {
            max_in_flight: Some(max),
            max_wait: Duration::from_millis(wait),
            max_waiting: queue,
        }
    }

    #[test]
    fn what_is_said_holds_and_the_rest_is_the_default() {
        let resolved = resolved(
            "{ in_flight: { max: 1000000, wait: 60s, queue: 0 } }",
            "{ in_flight: { max: 200 } }",
            "{ in_flight: { max: 1, wait: 0s, queue: 1000000 } }",
        );
        let snapshot = resolved.unwrap().snapshot;
        let caps: Vec<_> = snapshot.caps().into_iter().collect();
        let provider = Scope::Provider("google-ai-studio".into());
        assert_eq!(
            caps,
            [
                (Scope::Process, settings(1_000_000, 60_000, Some(0))),
                (
                    Scope::Gateway("a/g".into()),
                    settings(1, 0, Some(1_000_000))
                ),
                (provider.clone(), settings(200, 1000, None)),
            ]
        );
        let capped = |gateway: &str, slug: &str| {
            let gateway = snapshot.gateway("a", gateway).unwrap();
            snapshot.capped(gateway, &gateway.providers[slug])
        };
        assert_eq!(
            capped("g", "google-ai-studio"),
            [provider, Scope::Gateway("a/g".into()), Scope::Process]
        );
        assert_eq!(capped("h", "openai"), [Scope::Process]);
    }

    #[test]
    fn without_a_word_there_is_no_cap() {
        for nothing in ["{}", "{ in_flight: }"] {
            let snapshot = resolved(nothing, nothing, nothing).unwrap().snapshot;
            assert!(snapshot.caps().is_empty());
            let gateway = snapshot.gateway("a", "g").unwrap();
            let mounted = &gateway.providers["google-ai-studio"];
            assert!(snapshot.capped(gateway, mounted).is_empty());
        }
    }

    #[test]
    fn mistakes_are_told_by_their_path() {
        let found = resolved(
            "{ in_flight: { wait: 61s, queue: 1000001 } }",
            "{ in_flight: { max: 0, queue: -1 } }",
            "{ in_flight: { max: 1000001 } }",
        );
        assert_eq!(
            found.unwrap_err(),
            [
                "providers.google-ai-studio.in_flight.max: must be 1 to 1000000",
                "providers.google-ai-studio.in_flight.queue: must be 0 to 1000000",
                "accounts.a.gateways.g.in_flight.max: must be 1 to 1000000",
                "server.in_flight.max: is missing: how many calls at once?",
                "server.in_flight.wait: must be 0s to 60s",
                "server.in_flight.queue: must be 0 to 1000000",
            ]
        );
    }
}
