//! How often a target is tried and how long it may take, as gateways and providers say it.

use std::time;

use super::Problems;
use crate::config::schema;
use crate::config::units::Duration;
use crate::routing::health::Settings;
use crate::routing::retry::{LONGEST_DELAY, MAX_ATTEMPTS, Wishes};
use crate::routing::timeouts::Timeouts;

/// What a gateway or a target says of tries; `path` is where it says so.
pub(super) fn retry(path: &str, retry: &schema::Retry, problems: &mut Problems) -> Wishes {
    let schema::Retry {
        max_attempts,
        delay,
        backoff,
    } = *retry;
    // What is no such number is out of range as well.
    let max_attempts = max_attempts.map(|number| u32::try_from(number).unwrap_or(0));
    if max_attempts.is_some_and(|number| !MAX_ATTEMPTS.contains(&number)) {
        problems.add(format!("{path}.max_attempts"), "must be 1 to 5");
    }
    let delay = delay.map(|delay| delay.0);
    if delay.is_some_and(|delay| delay > LONGEST_DELAY) {
        problems.add(format!("{path}.delay"), "must be 0s to 60s");
    }
    Wishes {
        max_attempts,
        delay,
        backoff,
    }
}

/// What a gateway, a provider or a target says of time; `path` is where it says so.
pub(super) fn timeouts(
    path: &str,
    timeouts: &schema::Timeouts,
    problems: &mut Problems,
) -> Timeouts {
    let schema::Timeouts {
        connect,
        first_byte,
        idle,
        total,
    } = *timeouts;
    let mut checked = |key, time: Option<Duration>| {
        let time = time?.0;
        if time.is_zero() || time > Timeouts::LONGEST {
            let message = "must be more than 0s and at most 24h";
            problems.add(format!("{path}.{key}"), message);
        }
        Some(time)
    };
    Timeouts {
        connect: checked("connect", connect),
        first_byte: checked("first_byte", first_byte),
        idle: checked("idle", idle),
        total: checked("total", total),
    }
}

/// What a gateway says of who is left alone; `path` is where it says so.
pub(super) fn health(path: &str, health: &schema::Health, problems: &mut Problems) -> Settings {
    let schema::Health {
        failures,
        window,
        open_for,
        longest,
    } = *health;
    const SECOND: time::Duration = time::Duration::from_secs(1);
    let defaults = Settings::default();
    let mut within = |key, said: Option<Duration>, default, least, most| {
        let time = said.map_or(default, |said| said.0);
        if time < least || time > most {
            let [least, most] = [least, most].map(humantime::format_duration);
            problems.add(
                format!("{path}.{key}"),
                format!("must be {least} to {most}"),
            );
        }
        time
    };
    let day = 24 * 3600 * SECOND;
    let settings = Settings {
        window: within("window", window, defaults.window, SECOND, 3600 * SECOND),
        open_for: within("open_for", open_for, defaults.open_for, SECOND / 10, day),
        longest: within("longest", longest, defaults.longest, SECOND / 10, day),
        failures: failures.unwrap_or(defaults.failures),
    };
    if settings.failures == 0 {
        problems.add(format!("{path}.failures"), "must be at least 1");
    }
    if settings.longest < settings.open_for {
        problems.add(format!("{path}.longest"), "must be at least open_for");
    }
    settings
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::resolve::{Resolved, resolve};
    use crate::gateway::Gateway;
    use crate::routing::retry::{Backoff, DEFAULT_DELAY, Retry};
    use std::sync::Arc;

    /// A gateway that says `gateway`, and a provider that says `provider`.
    fn resolved(gateway: &str, provider: &str) -> Result<Resolved, Vec<String>> {
        let yaml = format!(
            "providers: {{ openai: {provider} }}\n\
             accounts: {{ a: {{ gateways: {{ g: {gateway} }} }} }}"
        );
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        resolve(&config, ([127, 0, 0, 1], 1).into())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn gateway(gateway: &str, provider: &str) -> Arc<Gateway> {
        let resolved = resolved(gateway, provider).unwrap();
        Arc::clone(resolved.snapshot.gateway("a", "g").unwrap())
    }

    fn seconds(number: u64) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(number))
    }

    #[test]
    fn a_gateway_that_says_nothing_tries_once() {
        let silent = gateway("{}", "{}");
        assert_eq!(silent.retry, Retry::default());
        assert_eq!(silent.retry.max_attempts, 1);
        assert_eq!(silent.timeouts, Timeouts::default());
        let openai = &silent.providers["openai"].provider;
        assert_eq!(openai.connection.timeouts, Timeouts::default());
        assert_eq!(gateway("{ retry: , timeouts: }", "{}").retry, silent.retry);
    }

    #[test]
    fn what_is_said_holds_and_the_rest_is_the_default() {
        let all = "{ retry: { max_attempts: 3, delay: 1s, backoff: linear } }";
        let all = gateway(all, "{}").retry;
        assert_eq!((all.max_attempts, Some(all.delay)), (3, seconds(1)));
        assert_eq!(all.backoff, Backoff::Linear);
        let some = gateway("{ retry: { max_attempts: 5 } }", "{}").retry;
        assert_eq!((some.max_attempts, some.delay), (5, DEFAULT_DELAY));
        assert_eq!(some.backoff, Backoff::Exponential);
    }

    #[test]
    fn a_provider_and_its_gateway_say_their_own_times() {
        let gateway = gateway(
            "{ timeouts: { connect: 5s, first_byte: 60s, total: 10m } }",
            "{ timeouts: { first_byte: 5m, idle: 24h } }",
        );
        let said = Timeouts {
            connect: seconds(5),
            first_byte: seconds(60),
            idle: None,
            total: seconds(600),
        };
        assert_eq!(gateway.timeouts, said);
        let openai = gateway.providers["openai"].provider.connection.timeouts;
        assert_eq!((openai.first_byte, openai.connect), (seconds(300), None));
        assert_eq!((openai.idle, openai.total), (seconds(86_400), None));
    }

    #[test]
    fn a_gateway_says_when_who_fails_is_left_alone() {
        let said = gateway("{ health: { failures: 2, open_for: 1s } }", "{}").health;
        assert_eq!((said.failures, Some(said.open_for)), (2, seconds(1)));
        let defaults = Settings::default();
        assert_eq!(
            (said.window, said.longest),
            (defaults.window, defaults.longest)
        );
        let wrong = "{ health: { failures: 0, window: 100ms, open_for: 25h, longest: 10ms } }";
        let path = "accounts.a.gateways.g.health";
        assert_eq!(
            resolved(wrong, "{}").unwrap_err(),
            [
                format!("{path}.window: must be 1s to 1h"),
                format!("{path}.open_for: must be 100ms to 1day"),
                format!("{path}.longest: must be 100ms to 1day"),
                format!("{path}.failures: must be at least 1"),
                format!("{path}.longest: must be at least open_for"),
            ]
        );
    }

    #[test]
    fn keys_with_a_weight_are_a_pool() {
        let keys = |keys: &str| gateway("{}", &format!("{{ keys: [ {keys} ] }}"));
        let pooled = keys("{ alias: a, value: s, weight: 2 }, { alias: b, value: t }");
        let keyring = &pooled.providers["openai"].provider.keyring;
        assert!(
            keyring
                .pool
                .as_ref()
                .is_some_and(|pool| pool.starts_with("a "))
        );
        assert_eq!((keyring.keys[0].weight, keyring.keys[1].weight), (2, 0));
        let alone = keys("{ value: s }");
        assert_eq!(alone.providers["openai"].provider.keyring.pool, None);
        let wrong = resolved("{}", "{ keys: [ { value: s, weight: 0 } ] }").unwrap_err();
        assert_eq!(
            wrong,
            ["providers.openai.keys[0].weight: must be 1 to 1000000"]
        );
    }

    #[test]
    fn every_mistake_is_told_by_its_path_with_the_range() {
        let found = resolved(
            "{ retry: { max_attempts: 6, delay: 61s }, \
               timeouts: { connect: 0s, first_byte: 25h, idle: 1ms, total: 24h1s } }",
            "{ timeouts: { connect: 24h, first_byte: 0s, idle: 0s, total: 2d } }",
        );
        let time = "must be more than 0s and at most 24h";
        assert_eq!(
            found.unwrap_err(),
            [
                format!("providers.openai.timeouts.first_byte: {time}"),
                format!("providers.openai.timeouts.idle: {time}"),
                format!("providers.openai.timeouts.total: {time}"),
                "accounts.a.gateways.g.retry.max_attempts: must be 1 to 5".to_owned(),
                "accounts.a.gateways.g.retry.delay: must be 0s to 60s".to_owned(),
                format!("accounts.a.gateways.g.timeouts.connect: {time}"),
                format!("accounts.a.gateways.g.timeouts.first_byte: {time}"),
                format!("accounts.a.gateways.g.timeouts.total: {time}"),
            ]
        );
        for tries in ["0", "-1", "4294967297"] {
            let retry = format!("{{ retry: {{ max_attempts: {tries} }} }}");
            assert_eq!(resolved(&retry, "{}").unwrap_err().len(), 1, "{tries}");
        }
    }
}
