use super::*;
use crate::config::resolve::{resolve, resolve_with};
use crate::gateway::{Mounted, Snapshot};
use crate::provider_keys::{Kept, Unavailable};

const DEPLOYMENT: &str = "providers: { openai: { keys: [ { value: shared }, { alias: team, value: shared } ] }, mock: {} }";

/// A deployment with gateways `one`, which says `gateway`, and `two`, which says nothing.
fn with(gateway: &str) -> Result<Snapshot, Vec<String>> {
    let yaml = format!(
        "{DEPLOYMENT}\naccounts: {{ a: {{ gateways: {{ one: {{ {gateway} }}, two: {{}} }} }} }}"
    );
    let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
    let resolved = resolve(&config, ([127, 0, 0, 1], 1).into());
    let resolved = resolved.map(|resolved| resolved.snapshot);
    resolved.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn mounted<'a>(snapshot: &'a Snapshot, gateway: &str, slug: &str) -> &'a Mounted {
    &snapshot.gateway("a", gateway).unwrap().providers[slug]
}

/// Owner and alias of each key.
fn keys(mounted: &Mounted) -> Vec<(&str, &str)> {
    let keys = mounted.provider.keyring.keys.iter();
    keys.map(|key| (&*key.owner, &*key.alias)).collect()
}

#[test]
fn a_gateways_list_stands_in_place_of_the_deployments() {
    let snapshot = with("providers: { openai: { keys: [ { value: own } ] } }").unwrap();
    assert_eq!(
        keys(mounted(&snapshot, "one", "openai")),
        [("a/one", "default")]
    );
    let others = mounted(&snapshot, "two", "openai");
    assert_eq!(keys(others), [("", "default"), ("", "team")]);
    let none = with("providers: { openai: { keys: [] } }").unwrap();
    assert!(keys(mounted(&none, "one", "openai")).is_empty());
}

/// As what a gateway may pay with, what it may ask is said of providers that there are.
#[test]
fn access_lists_name_providers_by_their_slugs() {
    let told = |access: &str| with(&format!("access: {{ {access} }}"));
    let refused = told("providers: { deny: [xai, nowhere] }, models: { deny: [xai/*] }");
    let refused = refused.map(drop).unwrap_err();
    let at = "accounts.a.gateways.one.access";
    for (field, expected) in [
        ("models.deny[0]", "write `grok/*`"),
        ("providers.deny[0]", "write `grok`"),
        ("providers.deny[1]", "no such provider as `nowhere`"),
    ] {
        let start = format!("{at}.{field}: ");
        let mut of_field = refused.iter().filter(|why| why.starts_with(&start));
        assert!(of_field.any(|why| why.contains(expected)), "{refused:?}");
    }
    assert_eq!(refused.len(), 3, "{refused:?}");
    let good =
        "providers: { deny: [grok, mock] }, models: { deny: [grok/*, qwen3*, meta-llama/*] }";
    assert!(told(good).is_ok());
}

#[test]
fn all_but_the_keys_is_shared() {
    let snapshot = with("providers: { openai: { keys: [ { value: own } ] } }").unwrap();
    let provider = |gateway, slug| &mounted(&snapshot, gateway, slug).provider;
    assert!(Arc::ptr_eq(
        provider("one", "mock"),
        provider("two", "mock")
    ));
    let (one, two) = (provider("one", "openai"), provider("two", "openai"));
    assert!(!Arc::ptr_eq(one, two));
    assert_eq!(one.connection.group, two.connection.group);
    assert_eq!(one.fingerprint, two.fingerprint);
}

#[test]
fn every_name_of_a_provider_and_every_place_of_its_has_the_own_keys() {
    let account = serde_json::json!({
        "type": "service_account", "client_email": "a@example.com",
        "private_key": include_str!("../../../../tests/keys/google-service-account-test-only.pem"),
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let account = serde_json::to_string(&account.to_string()).unwrap();
    for (slug, secret) in [("google-ai-studio", "k"), ("google-vertex-ai", &*account)] {
        let says = format!("providers: {{ {slug}: {{ keys: [ {{ value: {secret} }} ] }} }}");
        let snapshot = with(&says).unwrap();
        let gateway = snapshot.gateway("a", "one").unwrap();
        let named = gateway.providers.iter();
        let named: Vec<_> = named
            .filter(|(_, one)| *one.provider.slug == *slug)
            .collect();
        assert!(!named.is_empty());
        for (name, mounted) in named {
            assert_eq!(keys(mounted), [("a/one", "default")], "{name}");
            let rules = mounted.provider.address.rules.iter();
            for keyring in rules.filter_map(|rule| rule.keyring.as_ref()) {
                assert_eq!(&*keyring.keys[0].owner, "a/one", "{name}");
            }
        }
    }
}

#[test]
fn keys_of_different_gateways_are_not_taken_for_one() {
    let snapshot = with("providers: { openai: { keys: [ { value: shared } ] } }").unwrap();
    let identity = |gateway| {
        let mounted = mounted(&snapshot, gateway, "openai");
        mounted.provider.keyring.keys[0].identity.clone()
    };
    assert_ne!(identity("one"), identity("two"));
    assert!(!identity("one").contains("shared"));
}

#[test]
fn a_route_has_the_keys_of_its_gateway() {
    let route = |key: &str| {
        format!(
            "authentication: {{ anyone_may_spend_stored_keys: true }}, \
             providers: {{ openai: {{ keys: [ {{ alias: own, value: k }} ] }} }}, \
             routes: {{ r: {{ targets: [ {{ provider: openai, model: m, key: {key} }} ] }} }}"
        )
    };
    assert!(with(&route("own")).is_ok());
    let said = with(&route("team")).unwrap_err();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("no key `team` of openai is stored"),
        "{said:?}"
    );
}

#[test]
fn mistakes_are_told_by_their_path() {
    for (says, expected) in [
        (
            "openia: { keys: [] }",
            "openia: no such provider; did you mean `openai`?",
        ),
        ("openai: {}", "openai.keys: is missing"),
        (
            "openai: { keys: [ {} ] }",
            "openai.keys[0]: write exactly one of",
        ),
        (
            "openai: { keys: [ { value: k, weight: 0 } ] }",
            "openai.keys[0].weight: must be 1 to 1000000",
        ),
        (
            "openai: { keys: [ { value: k }, { value: l } ] }",
            "openai.keys[1]: the alias `default` stands twice",
        ),
        (
            "grok: { keys: [] }, xai: { keys: [] }",
            "another name of `grok` stands here too",
        ),
    ] {
        let said = with(&format!("providers: {{ {says} }}"))
            .unwrap_err()
            .join("\n");
        assert!(said.contains(expected), "{says}: {said}");
        assert!(
            said.starts_with("accounts.a.gateways.one.providers."),
            "{said}"
        );
    }
}

fn kept(scope: &str, alias: &str, weight: u32) -> KeptKey {
    KeptKey {
        name: Name {
            scope: scope.into(),
            provider: "openai".into(),
            alias: alias.into(),
        },
        weight,
        secret: Ok(Secret::new(format!("kept-{scope}-{alias}"))),
    }
}

/// The keys of gateway `one` for openai: whose they are and how they go onto a request, by alias.
fn merged(deployment: &str, gateway: &str, kept: Vec<KeptKey>) -> Vec<String> {
    let yaml = format!(
        "providers: {{ openai: {{ keys: {deployment} }} }}\n\
         accounts: {{ a: {{ gateways: {{ one: {{ {gateway} }} }} }} }}"
    );
    let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
    let kept = Kept::new(true, None, kept);
    let snapshot = resolve_with(&config, ([127, 0, 0, 1], 1).into(), &kept);
    let snapshot = snapshot.unwrap().snapshot;
    let keys = mounted(&snapshot, "one", "openai")
        .provider
        .keyring
        .keys
        .iter();
    let mut told: Vec<_> = keys
        .map(|key| {
            let secret = match &key.credential {
                Ok(Credential::Header { value, .. }) => value.to_str().unwrap().to_owned(),
                other => format!("{other:?}"),
            };
            let secret = secret.trim_start_matches("Bearer ");
            format!("{} {secret} {}", key.alias, key.weight)
        })
        .collect();
    told.sort();
    told
}

/// The whole order, one after another taken away.
#[test]
fn for_one_alias_the_nearest_key_is_taken_and_the_kept_one_before_the_configured() {
    let configured = "[ { value: yaml } ]";
    let own = "providers: { openai: { keys: [ { value: own-yaml } ] } }";
    let (of_gateway, of_all) = (kept("a/one", "default", 0), kept("", "default", 0));
    let both = vec![of_gateway.clone(), of_all.clone()];
    assert_eq!(
        merged(configured, own, both.clone()),
        ["default kept-a/one-default 0"]
    );
    assert_eq!(
        merged(configured, own, vec![of_all.clone()]),
        ["default own-yaml 0"]
    );
    assert_eq!(
        merged(configured, "", both),
        ["default kept-a/one-default 0"]
    );
    assert_eq!(
        merged(configured, "", vec![of_all]),
        ["default kept--default 0"]
    );
    assert_eq!(merged(configured, "", vec![]), ["default yaml 0"]);
    assert!(merged("[]", "", vec![kept("a/two", "default", 0)]).is_empty());
}

#[test]
fn a_kept_key_of_a_gateway_stands_beside_the_deployments_and_a_configured_list_alone() {
    let configured = "[ { value: yaml }, { alias: b, value: yaml-b } ]";
    let of_gateway = || vec![kept("a/one", "b", 0), kept("", "c", 0)];
    assert_eq!(
        merged(configured, "", of_gateway()),
        ["b kept-a/one-b 0", "c kept--c 0", "default yaml 0"]
    );
    let own = "providers: { openai: { keys: [] } }";
    assert_eq!(merged(configured, own, of_gateway()), ["b kept-a/one-b 0"]);
}

/// Else requests that name no key would be spread over a pool that the gateway wanted to leave.
#[test]
fn what_a_gateway_pays_with_itself_ends_the_deployments_pool() {
    let pool = "[ { alias: p, value: yaml-p, weight: 2 } ]";
    let with = |alias, weight| merged(pool, "", vec![kept("a/one", alias, weight)]);
    assert_eq!(with("x", 0), ["p yaml-p 2", "x kept-a/one-x 0"]);
    assert_eq!(with("x", 1), ["p yaml-p 0", "x kept-a/one-x 1"]);
    assert_eq!(
        with("default", 0),
        ["default kept-a/one-default 0", "p yaml-p 0"]
    );
}

#[test]
fn a_kept_key_that_cannot_be_used_keeps_its_place() {
    let mut closed = kept("", "default", 0);
    closed.secret = Err(Unavailable::NoMasterKey);
    let mut wrong = kept("", "b", 1);
    wrong.secret = Ok(Secret::new("two\nlines"));
    let told = merged("[ { value: yaml } ]", "", vec![closed, wrong]);
    assert!(
        told[0].starts_with("b Err(\"the key contains a character"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("default Err(\"no master key is configured"),
        "{told:?}"
    );
}

/// What is stored and removed must not decide whether the configuration has mistakes.
#[test]
fn a_route_may_name_a_key_that_only_the_store_may_have() {
    let yaml = "accounts: { a: { gateways: { one: { routes: { r: { targets: [ \
                { provider: openai, model: m, key: team } ] } } } } } }";
    let config = crate::config::load::parse(yaml, &|_| None).unwrap();
    let mistakes = |kept: &Kept| {
        let resolved = resolve_with(&config, ([127, 0, 0, 1], 1).into(), kept);
        resolved.err().unwrap_or_default().len()
    };
    let there = vec![kept("", "team", 0)];
    for kept in [Kept::new(true, None, vec![]), Kept::new(true, None, there)] {
        assert_eq!(mistakes(&kept), 0);
    }
    assert_eq!(mistakes(&Kept::default()), 1);
}
