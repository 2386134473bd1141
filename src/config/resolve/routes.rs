//! Routes as requests need them: every target's provider, key and tries checked.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;

use super::{Problems, check_id, routing};
use crate::config::schema::{self, Auth};
use crate::config::units::Duration;
use crate::gateway::Mounted;
use crate::provider::Provider;
use crate::routing::affinity::Affinity;
use crate::routing::hedge::{After, Hedge};
use crate::routing::plan::{DYNAMIC, MAX_TARGETS, MAX_TRIES, Plan, Routes, Target};
use crate::routing::retry::Retry;
use crate::routing::timeouts::Timeouts;

/// What a gateway says that its routes depend on.
pub(super) struct Terms<'a> {
    /// Where its routes stand.
    pub path: &'a str,
    /// How often targets are tried that say nothing of it.
    pub retry: Retry,
    /// Keys may be stored, now or later, that the configuration does not name.
    pub may_be_kept: bool,
    /// Providers by slug.
    pub providers: &'a AHashMap<Box<str>, Arc<Mounted>>,
}

/// The routes of one gateway.
pub(super) fn resolve(
    routes: &BTreeMap<String, schema::Route>,
    terms: &Terms<'_>,
    problems: &mut Problems,
) -> Routes {
    let mut resolved = Routes::default();
    for (name, route) in routes {
        let schema::Route {
            matches,
            strategy,
            affinity,
            hedge,
            targets,
        } = route;
        let path = format!("{}.{name}", terms.path);
        check_id(&path, name, problems);
        let matches = matches
            .as_ref()
            .and_then(|matches| matching(&path, matches, terms, problems));
        let asked = matches.map(|(provider, _)| provider);
        let plan = Plan {
            name: name.as_str().into(),
            strategy: *strategy,
            affinity: affinity
                .as_ref()
                .and_then(|named| self::affinity(&path, named, problems)),
            targets: targets_of(&path, targets, asked, terms, problems),
            hedge: hedge
                .as_ref()
                .and_then(|named| self::hedge(&path, named, problems)),
            known: OnceLock::new(),
        };
        let matches = matches.map(|(provider, model)| (&*provider.slug, model));
        if let Some((provider, model)) = matches
            && let Some(other) = resolved.matching(provider, model)
        {
            let other = &other.name;
            problems.add(
                format!("{path}.match"),
                format!("`{other}` takes the same calls; a call can take one route only"),
            );
        }
        resolved.add(Arc::new(plan), matches);
    }
    resolved
}

fn affinity(path: &str, affinity: &schema::Affinity, problems: &mut Problems) -> Option<Affinity> {
    match affinity {
        schema::Affinity::Prompt => Some(Affinity::Prompt),
        schema::Affinity::Header(name) => {
            let parsed = name.parse().map(Affinity::Header);
            let parsed = parsed.map_err(|_| format!("`{name}` is not a header name"));
            problems.ok(&format!("{path}.affinity.header"), parsed)
        }
    }
}

fn hedge(path: &str, hedge: &schema::Hedge, problems: &mut Problems) -> Option<Hedge> {
    let schema::Hedge { after, budget } = hedge;
    let after = after.as_deref().unwrap_or("p95");
    let after = problems.ok(&format!("{path}.hedge.after"), lateness(after));
    let budget = budget.as_deref().unwrap_or("5%");
    let budget = problems.ok(&format!("{path}.hedge.budget"), share(budget));
    Some(Hedge {
        after: after?,
        budget: budget?,
    })
}

fn lateness(text: &str) -> Result<After, String> {
    let share = text
        .strip_prefix('p')
        .and_then(|digits| digits.parse::<u8>().ok());
    if let Some(share) = share.filter(|share| (50..=99).contains(share)) {
        return Ok(After::Share(f64::from(share) / 100.0));
    }
    let time = text.parse::<Duration>().ok().map(|time| time.0);
    let time = time.filter(|time| !time.is_zero() && *time <= Timeouts::LONGEST);
    time.map(After::Time).ok_or_else(|| {
        format!("`{text}` is neither `p50` to `p99` nor a time such as `800ms`, at most 24h")
    })
}

/// A share in ten-thousandths.
fn share(text: &str) -> Result<u64, String> {
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok());
    percent
        .map(|percent| (percent * 100.0).round())
        .filter(|share| (1.0..=10_000.0).contains(share))
        .map(|share| share as u64)
        .ok_or_else(|| format!("`{text}` is not a share from `0.01%` to `100%`"))
}

/// The provider and the model whose calls take a route.
fn matching<'a>(
    path: &str,
    matches: &'a schema::RouteMatch,
    terms: &Terms<'a>,
    problems: &mut Problems,
) -> Option<(&'a Provider, &'a str)> {
    let schema::RouteMatch { provider, model } = matches;
    let path = format!("{path}.match");
    check_model(&path, model, problems);
    let mounted = mounted(&path, provider, terms, problems)?;
    Some((&mounted.provider, model))
}

fn mounted<'a>(
    path: &str,
    slug: &str,
    terms: &Terms<'a>,
    problems: &mut Problems,
) -> Option<&'a Arc<Mounted>> {
    let found = terms.providers.get(slug);
    if found.is_none() {
        let message = match slug {
            "" => "is missing".to_owned(),
            _ => format!(
                "no provider is called `{slug}`; providers of your own are called custom-<slug> and configured under providers"
            ),
        };
        problems.add(format!("{path}.provider"), message);
    }
    found
}

fn check_model(path: &str, model: &str, problems: &mut Problems) {
    let message = if model.is_empty() {
        "is missing"
    } else if model.len() > crate::call::MAX_MODEL {
        "is longer than 256 bytes"
    } else if model.starts_with(DYNAMIC) {
        "names a route; a route's model is a provider's own"
    } else if model.bytes().any(|byte| byte.is_ascii_control()) {
        "must be visible characters"
    } else {
        return;
    };
    problems.add(format!("{path}.model"), message);
}

fn targets_of(
    path: &str,
    targets: &[schema::RouteTarget],
    asked: Option<&Provider>,
    terms: &Terms<'_>,
    problems: &mut Problems,
) -> Vec<Target> {
    let path = format!("{path}.targets");
    if !(1..=MAX_TARGETS).contains(&targets.len()) {
        problems.add(&path, "must be 1 to 16 targets");
    }
    let resolved: Vec<Target> = targets
        .iter()
        .enumerate()
        .filter_map(|(index, target)| {
            let path = format!("{path}[{index}]");
            self::target(&path, target, asked, terms, problems)
        })
        .collect();
    check_formats(&path, &resolved, problems);
    check_tries(&path, &resolved, terms, problems);
    resolved
}

fn target(
    path: &str,
    target: &schema::RouteTarget,
    asked: Option<&Provider>,
    terms: &Terms<'_>,
    problems: &mut Problems,
) -> Option<Target> {
    let schema::RouteTarget {
        provider,
        model,
        key,
        weight,
        retry,
        connect,
        first_byte,
        idle,
        total,
    } = target;
    check_model(path, model, problems);
    let timeouts = schema::Timeouts {
        connect: *connect,
        first_byte: *first_byte,
        idle: *idle,
        total: *total,
    };
    let timeouts: Timeouts = routing::timeouts(path, &timeouts, problems);
    let retry = routing::retry(&format!("{path}.retry"), retry, problems);
    let weight = weight
        .map_or(Ok(1), u32::try_from)
        .ok()
        .filter(|weight| *weight <= 1_000_000);
    let weight = weight.ok_or_else(|| "must be 0 to 1000000".to_owned());
    let weight = problems.ok(&format!("{path}.weight"), weight).unwrap_or(1);
    let mounted = mounted(path, provider, terms, problems)?;
    let clients_pay = asked.is_some_and(|asked| std::ptr::eq(asked, &*mounted.provider));
    check_key(
        path,
        &mounted.provider,
        key.as_deref(),
        clients_pay,
        terms,
        problems,
    );
    Some(Target {
        mounted: Arc::clone(mounted),
        model: model.as_str().into(),
        key: key.as_deref().map(Into::into),
        weight,
        retry,
        timeouts,
    })
}

/// A stored key pays wherever the client's own cannot: it must be there. Who may spend it is known
/// with each request: who brings a token, or a key of ours. Keys that come and go without the
/// configuration are looked for when a call wants them.
fn check_key(
    path: &str,
    provider: &Provider,
    key: Option<&str>,
    clients_pay: bool,
    terms: &Terms<'_>,
    problems: &mut Problems,
) {
    if key.is_none() && (clients_pay || matches!(provider.keyring.auth, Auth::None)) {
        return;
    }
    let alias = key.unwrap_or("default");
    let slug = &provider.slug;
    let pooled = key.is_none() && provider.keyring.pool.is_some();
    if !pooled
        && !terms.may_be_kept
        && !provider.keyring.keys.iter().any(|key| *key.alias == *alias)
    {
        let message = format!(
            "no key `{alias}` of {slug} is stored, and clients' keys are not for it; see providers.{slug}.keys"
        );
        problems.add(format!("{path}.key"), message);
    }
}

/// The body goes to every target as it is, but for the model.
fn check_formats(path: &str, targets: &[Target], problems: &mut Problems) {
    let Some(first) = targets.first() else { return };
    for (index, target) in targets.iter().enumerate() {
        let (one, other) = (&first.mounted.provider, &target.mounted.provider);
        if one.format != other.format {
            let message = format!(
                "{} speaks {}, and {} speaks {}: the targets of a route must speak the same format",
                other.slug,
                other.format.name(),
                one.slug,
                one.format.name()
            );
            problems.add(format!("{path}[{index}].provider"), message);
        }
    }
}

fn check_tries(path: &str, targets: &[Target], terms: &Terms<'_>, problems: &mut Problems) {
    let tries = targets
        .iter()
        .map(|target| terms.retry.with(&target.retry).max_attempts);
    let all: u32 = tries.sum();
    if all > MAX_TRIES {
        let message = format!(
            "all tries together are {all}, and a request has {MAX_TRIES} at most; lower retry.max_attempts of the gateway or of targets"
        );
        problems.add(path, message);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve as resolve_all;

    const KEYS: &str = "keys: [ { alias: default, value: s }, { alias: team, value: t } ]";

    /// The routes of a gateway that says `gateway`.
    fn routes(gateway: &str) -> Result<Routes, Vec<String>> {
        let yaml = format!(
            "providers: {{ openai: {{ {KEYS} }}, mock: {{}}, custom-local: {{ base_url: \"https://x.example\", auth: none }} }}\n\
             accounts: {{ a: {{ gateways: {{ g: {{ {gateway} }} }} }} }}"
        );
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        let resolved = resolve_all(&config, ([127, 0, 0, 1], 1).into());
        let resolved = resolved.map_err(|problems| -> Vec<String> {
            let told = problems.iter().map(ToString::to_string);
            told.map(|told| told.replace("accounts.a.gateways.g.routes.", ""))
                .collect()
        })?;
        let mut gateways = resolved.snapshot.accounts.into_values().flatten();
        let (_, gateway) = gateways.next().unwrap();
        Ok(Arc::into_inner(gateway).unwrap().routes)
    }

    #[test]
    fn a_route_is_found_by_its_name_and_by_what_it_matches() {
        let says = "authentication: { anyone_may_spend_stored_keys: true }, routes: { \
             one: { match: { provider: anthropic, model: m }, targets: [ { provider: anthropic, model: m } ] }, \
             two: { targets: [ { provider: openai, model: n, key: team, first_byte: 10s, retry: { max_attempts: 2 } }, \
                               { provider: custom-local, model: o } ] } }";
        let routes = routes(says).unwrap();
        assert!(!routes.is_empty());
        assert_eq!(&*routes.matching("anthropic", "m").unwrap().name, "one");
        assert!(routes.matching("anthropic", "n").is_none());
        assert!(routes.matching("openai", "n").is_none());
        let two = &routes.named("two").unwrap().targets;
        assert_eq!(
            (two[0].key.as_deref(), two[1].key.as_deref()),
            (Some("team"), None)
        );
        assert_eq!(two[0].retry.max_attempts, Some(2));
        assert_eq!(
            two[0].timeouts.first_byte,
            Some(std::time::Duration::from_secs(10))
        );
        assert_eq!(two[1].label(), "custom-local/o");
        assert!(super::Routes::default().is_empty());
    }

    #[test]
    fn a_route_says_when_it_asks_the_next_target_too() {
        let hedge = |says: &str| {
            let targets = "targets: [ { provider: mock, model: m } ]";
            let routes = routes(&format!("routes: {{ r: {{ {says}{targets} }} }}")).unwrap();
            routes.named("r").unwrap().hedge
        };
        assert_eq!(hedge(""), None);
        let said = |after, budget| Some(Hedge { after, budget });
        assert_eq!(hedge("hedge: {}, "), said(After::Share(0.95), 500));
        let time = After::Time(std::time::Duration::from_millis(1500));
        assert_eq!(
            hedge("hedge: { after: 1s500ms, budget: 0.5% }, "),
            said(time, 50)
        );
    }

    #[test]
    fn every_mistake_is_told_by_its_path() {
        let targets = |targets: &str| format!("routes: {{ r: {{ targets: [ {targets} ] }} }}");
        let five = "{ provider: custom-local, model: m },".repeat(4);
        let cases = [
            (targets(""), "r.targets: must be 1 to 16 targets"),
            (
                targets(&"{ provider: custom-local, model: m },".repeat(17)),
                "r.targets: must be 1 to 16 targets",
            ),
            (targets("{ model: m }"), "r.targets[0].provider: is missing"),
            (targets("{ provider: custom-local }"), "r.targets[0].model: is missing"),
            (
                targets("{ provider: custom-local, model: dynamic/s }"),
                "r.targets[0].model: names a route",
            ),
            (
                targets("{ provider: nobody, model: m }"),
                "r.targets[0].provider: no provider is called `nobody`",
            ),
            (
                targets("{ provider: anthropic, model: m }"),
                "r.targets[0].key: no key `default` of anthropic is stored",
            ),
            (
                targets("{ provider: openai, model: m, key: other }"),
                "r.targets[0].key: no key `other` of openai is stored",
            ),
            // Who brings a key of ours may spend it.
            (targets("{ provider: openai, model: m }"), ""),
            (
                targets("{ provider: custom-local, model: m }, { provider: mock, model: m, idle: 0s }"),
                "r.targets[1].idle: must be more than 0s and at most 24h",
            ),
            (
                "routes: { r: { hedge: { after: p100 }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.hedge.after: `p100` is neither `p50` to `p99` nor a time",
            ),
            (
                "routes: { r: { hedge: { after: 0s }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.hedge.after: `0s` is neither",
            ),
            (
                "routes: { r: { hedge: { budget: 101% }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.hedge.budget: `101%` is not a share from `0.01%` to `100%`",
            ),
            (
                targets("{ provider: mock, model: m, weight: -1 }"),
                "r.targets[0].weight: must be 0 to 1000000",
            ),
            (
                "routes: { r: { affinity: { header: \"a b\" }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.affinity.header: `a b` is not a header name",
            ),
            (
                targets("{ provider: mock, model: m, retry: { max_attempts: 9 } }"),
                "r.targets[0].retry.max_attempts: must be 1 to 5",
            ),
            (
                format!("retry: {{ max_attempts: 5 }}, {}", targets(&five)),
                "r.targets: all tries together are 20, and a request has 16 at most",
            ),
            (
                "routes: { r: { match: { provider: nobody, model: m }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.match.provider: no provider is called `nobody`",
            ),
            (
                "routes: { r: { match: { provider: mock, model: m }, targets: [ { provider: mock, model: m } ] }, \
                 q: { match: { provider: mock, model: m }, targets: [ { provider: mock, model: m } ] } }".to_owned(),
                "r.match: `q` takes the same calls",
            ),
            (
                "authentication: { anyone_may_spend_stored_keys: true }, routes: { r: { targets: [ \
                 { provider: openai, model: m }, { provider: custom-local, model: m } ] } }".to_owned(),
                "",
            ),
        ];
        for (says, expected) in cases {
            let told = routes(&says).err().unwrap_or_default();
            match expected {
                "" => assert_eq!(told, [""; 0], "{says}"),
                _ => assert!(
                    told.iter().any(|told| told.starts_with(expected)),
                    "{says}: {told:?}"
                ),
            }
        }
        let formats = "routes: { r: { match: { provider: anthropic, model: m }, targets: [ \
             { provider: anthropic, model: m }, { provider: custom-local, model: m } ] } }";
        let told = routes(formats).err().unwrap();
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains(
                "custom-local speaks openai-chat, and anthropic speaks anthropic-messages"
            ),
            "{told:?}"
        );
    }
}
