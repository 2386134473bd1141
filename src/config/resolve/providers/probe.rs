//! What looks whether a provider is there.

use std::time::Duration;

use super::Builder;
use crate::config::schema;
use crate::provider::{Address, Probe, Target};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60 * 60);
const DEFAULT_EVERY: Duration = Duration::from_secs(30);

const LEAST_TIMEOUT: Duration = Duration::from_millis(100);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

impl Builder<'_> {
    /// What looks whether the provider at `address` is there.
    pub(super) fn probe(&mut self, probe: &schema::Probe, address: &Address) -> Option<Probe> {
        let schema::Probe {
            path,
            every,
            timeout,
        } = probe;
        // Who has no address has been told so.
        let has_place = address.base.is_some() || !address.rules.is_empty();
        let target = checked(path).and_then(|path| target(path, address));
        let target = has_place.then(|| self.ok("probe.path", target)).flatten();
        let every = every.map_or(DEFAULT_EVERY, |every| every.0);
        if !(SHORTEST..=LONGEST).contains(&every) {
            self.problems
                .add(self.at("probe.every"), "must be 1s to 1h");
        }
        let timeout = timeout.map_or(DEFAULT_TIMEOUT.min(every), |timeout| timeout.0);
        if !(LEAST_TIMEOUT..=every.max(LEAST_TIMEOUT)).contains(&timeout) {
            self.problems.add(
                self.at("probe.timeout"),
                "must be 100ms to as long as `every`",
            );
        }
        Some(Probe {
            target: target?,
            every,
            timeout,
        })
    }
}

/// The path without slashes in front, which a base URL brings.
fn checked(path: &str) -> Result<&str, String> {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return Err("is missing; write what costs nothing to ask for, such as `models`".into());
    }
    let visible = path.bytes().all(|byte| byte.is_ascii_graphic());
    let is_path = format!("/{path}")
        .parse::<http::uri::PathAndQuery>()
        .is_ok();
    if !visible || !is_path || path.contains('#') {
        return Err("must be visible ASCII as in a URL, without a `#`".into());
    }
    Ok(path)
}

/// Where a probe goes. Nobody's call is there to fill in captures of a base URL.
fn target(path: &str, address: &Address) -> Result<Target, String> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    if let Some(name) = address.capture_of(path) {
        return Err(format!(
            "leads to a base URL with `{{{name}}}`, which every call fills in anew: such a place cannot be probed; take `probe` out, or make a provider with a fixed `base_url`"
        ));
    }
    let target = address.checked_target(path, "");
    let mut target = target.map_err(|failure| failure.public.into_owned())?;
    if let Some(query) = query {
        target.path_and_query.push('?');
        target.path_and_query.push_str(query);
    }
    Ok(target)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::config::resolve::{Problems, providers};
    use crate::provider::Provider;
    use crate::provider_keys::Kept;

    /// The provider `slug` that says `says`, or what is wrong with it.
    fn resolved(slug: &str, says: &str) -> Result<Arc<Provider>, Vec<String>> {
        let yaml = format!("{slug}: {says}");
        let overrides: BTreeMap<String, schema::Provider> =
            crate::config::load::parse_as(&yaml, &|_| None).unwrap();
        let mut problems = Problems::default();
        let resolved = providers::resolve(
            &overrides,
            ([127, 0, 0, 1], 1).into(),
            &Kept::default(),
            &mut problems,
        );
        match problems.0.is_empty() {
            true => Ok(Arc::clone(&resolved[slug])),
            false => Err(problems.0.iter().map(ToString::to_string).collect()),
        }
    }

    fn probe(says: &str) -> Probe {
        let provider = resolved("openai", &format!("{{ probe: {says} }}"));
        provider.unwrap().probe.clone().unwrap()
    }

    #[test]
    fn nobody_is_probed_unless_it_is_said() {
        assert!(resolved("openai", "{}").unwrap().probe.is_none());
        assert!(resolved("openai", "{ probe: }").unwrap().probe.is_none());
    }

    #[test]
    fn it_goes_where_a_call_would() {
        for path in ["models", "/models", "v1/models", "//v1/v1/models"] {
            let target = probe(&format!("{{ path: {path} }}")).target;
            assert_eq!(target.origin.authority, "api.openai.com", "{path}");
            assert_eq!(target.path_and_query, "/v1/models", "{path}");
        }
        let target = probe("{ path: 'models?limit=1' }").target;
        assert_eq!(target.path_and_query, "/v1/models?limit=1");
        let mapped = "{ base_url: 'https://a.example/x', paths: [{ match: 'models', path: 'list' }], probe: { path: models } }";
        let mapped = resolved("custom-a", mapped).unwrap();
        let target = &mapped.probe.as_ref().unwrap().target;
        assert_eq!(target.path_and_query, "/x/list");
    }

    #[test]
    fn times_have_defaults_and_a_short_turn_a_short_timeout() {
        let times = |says: &str| {
            let probe = probe(&format!("{{ path: models{says} }}"));
            (probe.every.as_millis(), probe.timeout.as_millis())
        };
        assert_eq!(times(""), (30_000, 5_000));
        assert_eq!(times(", every: 1s"), (1_000, 1_000));
        assert_eq!(times(", every: 1h, timeout: 1h"), (3_600_000, 3_600_000));
        assert_eq!(times(", timeout: 100ms"), (30_000, 100));
    }

    #[test]
    fn mistakes_are_told_by_their_path_with_the_range() {
        let wrong = |says: &str| resolved("openai", &format!("{{ probe: {{ {says} }} }}"));
        let times = wrong("path: models, every: 999ms, timeout: 99ms");
        assert_eq!(
            times.unwrap_err(),
            [
                "providers.openai.probe.every: must be 1s to 1h",
                "providers.openai.probe.timeout: must be 100ms to as long as `every`",
            ]
        );
        assert_eq!(wrong("path: m, every: 61m").unwrap_err().len(), 1);
        assert_eq!(
            wrong("path: m, every: 2s, timeout: 2001ms")
                .unwrap_err()
                .len(),
            1
        );
        for (path, told) in [
            ("''", "is missing"),
            ("/", "is missing"),
            ("../v2/models", "`..` segments"),
            ("a/%2e%2e/b", "`..` segments"),
            ("\"a b\"", "visible ASCII"),
            ("modèles", "visible ASCII"),
            ("'models#a'", "visible ASCII"),
        ] {
            let found = wrong(&format!("path: {path}")).unwrap_err();
            let [problem] = &found[..] else {
                panic!("{path}: {found:?}")
            };
            let place = problem.starts_with("providers.openai.probe.path: ");
            assert!(place && problem.contains(told), "{path}: {problem}");
        }
    }

    #[test]
    fn what_every_call_fills_in_cannot_be_probed() {
        let region = "aws-bedrock";
        for (slug, path, name) in [
            (region, "models", "region"),
            (region, "bedrock-runtime/us-east-1/models", "region"),
            ("azure-openai", "models", "resource"),
            ("workers-ai", "models/search", "account"),
        ] {
            let found = resolved(slug, &format!("{{ probe: {{ path: {path} }} }}"));
            let problems = found.unwrap_err();
            let told = format!(
                "providers.{slug}.probe.path: leads to a base URL with `{{{name}}}`, which every call fills in anew"
            );
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&told), "{problems:?}");
        }
        // A deployment's own base URL is one place.
        let fixed =
            "{ base_url: 'https://my.openai.azure.com', probe: { path: 'r/openai/models' } }";
        let fixed = resolved("azure-openai", fixed).unwrap();
        let target = &fixed.probe.as_ref().unwrap().target;
        assert_eq!(target.origin.authority, "my.openai.azure.com");
        assert_eq!(target.path_and_query, "/openai/models");
    }

    #[test]
    fn one_without_a_place_is_told_that_only() {
        let problems = resolved("custom-a", "{ probe: { path: models } }").unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("base_url: is missing"), "{problems:?}");
    }
}
