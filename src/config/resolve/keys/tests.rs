use super::*;
use crate::config::resolve::resolve;
use crate::gateway::{Mounted, Snapshot};

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
