//! How much may pass in a time.

use std::sync::OnceLock;
use std::time::Duration;

use ahash::AHashSet;

use super::{Problems, tokens};
use crate::config::schema::{self, Counted, RateLimit};
use crate::limits::rate::{Dimension, Rule};
use crate::limits::spend::Scope;

/// Most rules of one list: each is looked at with every request.
const MOST: usize = 20;
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
/// Larger than any count of tokens in a month, and small enough for sums.
const LARGEST: i64 = 1_000_000_000_000_000;

/// The rules of a list. `scope`: whose they are.
pub(super) fn rules(
    path: &str,
    scope: &Scope,
    limits: &[RateLimit],
    problems: &mut Problems,
) -> Vec<Rule> {
    if limits.len() > MOST {
        problems.add(path, format!("has more than {MOST} rules"));
    }
    let mut ids = AHashSet::new();
    let mut resolved = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let Some(rule) = rule(&at, scope, index, limit, problems) else {
            continue;
        };
        if !ids.insert(rule.id.clone()) {
            problems.add(
                format!("{at}.id"),
                format!("another rule is called `{}`", rule.id),
            );
        }
        resolved.push(rule);
    }
    resolved
}

fn rule(
    path: &str,
    scope: &Scope,
    index: usize,
    written: &RateLimit,
    problems: &mut Problems,
) -> Option<Rule> {
    let schema::RateLimit {
        id,
        limit,
        window,
        technique,
        count,
        by,
    } = written;
    let before = problems.0.len();
    let id = id.clone().unwrap_or_else(|| format!("rate-{}", index + 1));
    if let Err(why) = tokens::good_name(&id) {
        problems.add(format!("{path}.id"), why);
    }
    let limit = limit.filter(|limit| (1..=LARGEST).contains(limit));
    if limit.is_none() {
        problems.add(
            format!("{path}.limit"),
            "must be said: how many, from 1 to 10^15",
        );
    }
    let length = length(&format!("{path}.window"), *window, *count, problems);
    let by = dimensions(&format!("{path}.by"), by, problems);
    let rule = Rule {
        id: id.into(),
        limit: limit?.unsigned_abs(),
        counted: *count,
        length,
        technique: *technique,
        by,
        scope: scope.clone(),
        state: OnceLock::new(),
    };
    (problems.0.len() == before).then_some(rule)
}

fn length(
    path: &str,
    window: Option<crate::config::units::Duration>,
    count: Counted,
    problems: &mut Problems,
) -> Duration {
    let good = |length: &Duration| (Duration::from_secs(1)..=LONGEST).contains(length);
    match (count, window.map(|window| window.0)) {
        (Counted::Concurrent, None) => Duration::ZERO,
        (Counted::Concurrent, Some(_)) => {
            problems.add(path, "calls at the same time have no window; leave it out");
            Duration::ZERO
        }
        (_, Some(length)) if good(&length) => length,
        _ => {
            problems.add(path, "must be said: in how long, from 1s to 31d");
            Duration::ZERO
        }
    }
}

fn dimensions(path: &str, words: &[String], problems: &mut Problems) -> Box<[Dimension]> {
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let at = format!("{path}[{index}]");
        match Dimension::parse(word) {
            None => problems.add(
                at,
                format!("`{word}` is none of gateway, key, owner, provider, model, client_address and metadata.<key>"),
            ),
            Some(dimension) if found.contains(&dimension) => {
                problems.add(at, format!("`{word}` stands twice"));
            }
            Some(dimension) => found.push(dimension),
        }
    }
    found.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn resolved(yaml: &str) -> (String, Vec<Rule>) {
        let limits: Vec<RateLimit> = serde_yaml::from_str(yaml).unwrap();
        let mut problems = Problems::default();
        let rules = rules("r", &Scope::Gateway("a/g".into()), &limits, &mut problems);
        let said = problems.0.iter().map(ToString::to_string);
        (said.collect::<Vec<_>>().join("\n"), rules)
    }

    #[test]
    fn rules_are_told_in_words() {
        let (said, rules) = resolved(
            "[{limit: 100, window: 60s},
              {id: a, limit: 5, window: 1h, technique: fixed, count: total_tokens, by: [key, model]},
              {limit: 20, count: concurrent, by: [metadata.user_id]}]",
        );
        assert_eq!(said, "");
        let told: Vec<_> = rules
            .iter()
            .map(|rule| format!("{} {rule}", rule.id))
            .collect();
        assert_eq!(
            told,
            [
                "rate-1 100 requests in 1m",
                "a 5 tokens in 1h for each key and model",
                "rate-3 20 calls at the same time for each metadata.user_id",
            ]
        );
        let bounded: Vec<_> = rules.iter().map(Rule::is_bounded).collect();
        assert_eq!(bounded, [true, false, false]);
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, expected) in [
            ("[{window: 1s}]", "r[0].limit: must be said"),
            ("[{limit: 0, window: 1s}]", "r[0].limit: must be said"),
            ("[{limit: -1, window: 1s}]", "r[0].limit: must be said"),
            ("[{limit: 1}]", "r[0].window: must be said"),
            ("[{limit: 1, window: 999ms}]", "r[0].window: must be said"),
            ("[{limit: 1, window: 32d}]", "r[0].window: must be said"),
            (
                "[{limit: 1, window: 1s, count: concurrent}]",
                "r[0].window: calls at the same time",
            ),
            (
                "[{limit: 1, window: 1s, by: [user]}]",
                "r[0].by[0]: `user` is none of",
            ),
            (
                "[{limit: 1, window: 1s, by: [metadata.]}]",
                "r[0].by[0]: `metadata.` is none of",
            ),
            (
                "[{limit: 1, window: 1s, by: [key, key]}]",
                "r[0].by[1]: `key` stands twice",
            ),
            ("[{id: 'a b', limit: 1, window: 1s}]", "r[0].id: is 1 to 64"),
            (
                "[{id: a, limit: 1, window: 1s}, {id: a, limit: 2, window: 1s}]",
                "r[1].id: another rule",
            ),
        ] {
            let (said, _) = resolved(yaml);
            assert!(said.contains(expected), "{yaml}: {said}");
        }
        let many = format!("[{}]", "{limit: 1, window: 1s},".repeat(21));
        assert!(resolved(&many).0.contains("more than 20 rules"));
    }
}
