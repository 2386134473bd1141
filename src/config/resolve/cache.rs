//! The cache: its store, and each gateway's policy.

use std::time::Duration;

use super::Problems;
use crate::cache::flight::WhenAlone;
use crate::cache::pointers::Pointers;
use crate::cache::policy::{DEFAULT_TTL, Policy, TTL};
use crate::config::schema::{self, OnClientDisconnect};

const MIB: u64 = 1 << 20;

/// Bytes of memory and of disk.
pub(super) fn store(store: &schema::CacheStore, problems: &mut Problems) -> (u64, u64) {
    let schema::CacheStore { memory, disk } = store;
    let memory = memory.map_or(256 * MIB, |size| size.0);
    let disk = disk.map_or(10 * 1024 * MIB, |size| size.0);
    if memory < MIB {
        problems.add("cache.memory", "must be at least 1MiB");
    }
    if disk != 0 && disk < 64 * MIB {
        problems.add("cache.disk", "must be at least 64MiB, or 0 for no disk");
    }
    (memory, disk)
}

/// What a gateway says about its cache; `path` is where it says so.
pub(super) fn policy(
    path: &str,
    cache: Option<&schema::Cache>,
    on_client_disconnect: OnClientDisconnect,
    problems: &mut Problems,
) -> Policy {
    let is_on = cache.is_some();
    let schema::Cache {
        ttl,
        shared,
        ignore,
        max_body,
        replay,
        stale_while_revalidate,
        stale_if_error,
        store_fallback,
    } = cache.cloned().unwrap_or_default();
    let ttl = ttl.map_or(DEFAULT_TTL, |ttl| ttl.0);
    if !ttl.is_zero() && !TTL.contains(&ttl) {
        problems.add(
            format!("{path}.ttl"),
            "must be 60s to 30d, or 0s to cache only what a request asks for",
        );
    }
    let ignore = Pointers::parse(&ignore).map_err(|problem| {
        let index = problem.index;
        problems.add(format!("{path}.ignore[{index}]"), problem.reason);
    });
    let window = |window: Option<crate::config::units::Duration>| {
        window.map_or(Duration::ZERO, |window| window.0)
    };
    for (key, length) in [
        ("stale_while_revalidate", window(stale_while_revalidate)),
        ("stale_if_error", window(stale_if_error)),
    ] {
        if length > *TTL.end() {
            problems.add(format!("{path}.{key}"), "must be at most 30d");
        }
    }
    Policy {
        ttl: Some(ttl).filter(|ttl| is_on && !ttl.is_zero()),
        shared,
        ignore: ignore.unwrap_or_default(),
        max_body: max_body.map_or(4 * MIB, |size| size.0),
        replay,
        stale_while_revalidate: window(stale_while_revalidate),
        stale_if_error: window(stale_if_error),
        store_fallback,
        when_alone: match on_client_disconnect {
            OnClientDisconnect::Cancel => WhenAlone::Cancel,
            OnClientDisconnect::Drain(patience) => WhenAlone::Drain(patience.0),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mistakes(yaml: &str) -> Vec<String> {
        let config = crate::config::load::parse(yaml, &|_| None).unwrap();
        let mut problems = Problems::default();
        store(&config.cache, &mut problems);
        for (id, gateway) in &config.accounts["a"].gateways {
            let cache = gateway.cache.as_ref();
            policy(id, cache, gateway.on_client_disconnect, &mut problems);
        }
        problems.0.iter().map(ToString::to_string).collect()
    }

    fn resolved(gateway: &str) -> Policy {
        let yaml = format!("accounts: {{ a: {{ gateways: {{ g: {gateway} }} }} }}");
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        let gateway = &config.accounts["a"].gateways["g"];
        let mut problems = Problems::default();
        let cache = gateway.cache.as_ref();
        let policy = policy("g", cache, gateway.on_client_disconnect, &mut problems);
        assert!(problems.0.is_empty(), "{:?}", problems.0);
        policy
    }

    #[test]
    fn every_mistake_is_told_by_its_path() {
        let found = mistakes(
            "cache: { memory: 1KiB, disk: 1MiB }\n\
             accounts: { a: { gateways: { g: { cache: { ttl: 59s, ignore: ['/user', 'user'], \
             stale_if_error: 31d } } } } }",
        );
        let paths: Vec<_> = found
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "cache.memory",
                "cache.disk",
                "g.ttl",
                "g.ignore[1]",
                "g.stale_if_error"
            ],
            "{found:#?}"
        );
        let long = mistakes("accounts: { a: { gateways: { g: { cache: { ttl: 30d1s } } } } }");
        assert_eq!(long.len(), 1, "{long:?}");
    }

    #[test]
    fn a_gateway_caches_only_when_it_says_so() {
        assert_eq!(resolved("{}").ttl, None);
        assert_eq!(resolved("{ cache: {} }").ttl, Some(DEFAULT_TTL));
        assert_eq!(resolved("{ cache: { ttl: 0s } }").ttl, None);
        let draining = resolved("{ on_client_disconnect: { drain: 30s } }");
        assert_eq!(
            draining.when_alone,
            WhenAlone::Drain(Duration::from_secs(30))
        );
        assert_eq!(
            resolved("{ on_client_disconnect: cancel }").when_alone,
            WhenAlone::Cancel
        );
    }
}
