//! Within what requests may pass: the same for a gateway and for a key of our own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::{Problems, providers, rates, spend, tokens};
use crate::config::Problem;
use crate::config::schema::{self, RateLimit, SpendLimit};
use crate::limits::access::{Access, List};
use crate::limits::bounds::Bounds;
use crate::limits::spend::Scope;

/// Most entries of a list: each is compared with every request.
const MOST: usize = 256;

/// What users have written.
pub struct Written<'a> {
    /// Whose it is: what was counted and spent is remembered under it.
    pub scope: &'a Scope,
    /// What stands before the fields in messages, such as `accounts.a.gateways.g.`.
    pub path: &'a str,
    /// What may be asked for.
    pub access: &'a schema::Access,
    /// How much may pass in a time.
    pub rate_limits: &'a [RateLimit],
    /// How much they may cost in a time.
    pub spend_limits: &'a [SpendLimit],
}

/// The bounds of a key.
///
/// # Errors
/// Every mistake with its field.
pub fn of_key(written: &Written<'_>) -> Result<Bounds, Vec<Problem>> {
    let mut problems = Problems::default();
    let bounds = resolve(written, &mut problems);
    match problems.0.is_empty() {
        true => Ok(bounds),
        false => Err(problems.0),
    }
}

pub(super) fn resolve(written: &Written<'_>, problems: &mut Problems) -> Bounds {
    let Written {
        scope,
        path,
        access: said,
        rate_limits,
        spend_limits,
    } = written;
    Bounds {
        scope: (*scope).clone(),
        access: access(&format!("{path}access"), said, problems),
        rates: rates::rules(&format!("{path}rate_limits"), scope, rate_limits, problems),
        spends: spend::rules(&format!("{path}spend_limits"), spend_limits, problems),
    }
}

fn access(path: &str, access: &schema::Access, problems: &mut Problems) -> Access {
    let schema::Access {
        models,
        providers,
        addresses,
        max_tokens,
        max_body,
    } = access;
    let at = |field| format!("{path}.{field}");
    let positive = |most: &i64| u64::try_from(*most).ok().filter(|most| *most > 0);
    if max_tokens.is_some_and(|most| most < 1) {
        problems.add(at("max_tokens"), "must be at least 1");
    }
    if max_body.is_some_and(|most| most.0 == 0) {
        problems.add(at("max_body"), "must be more than 0");
    }
    Access {
        models: list(&at("models"), models, model, problems),
        providers: list(&at("providers"), providers, slug, problems),
        addresses: list(&at("addresses"), addresses, network, problems),
        max_tokens: max_tokens.as_ref().and_then(positive),
        max_body: max_body.map(|most| most.0),
    }
}

fn list<T>(
    path: &str,
    list: &schema::List,
    read: impl Fn(&str) -> Result<T, String>,
    problems: &mut Problems,
) -> List<T> {
    let schema::List { allow, deny } = list;
    let mut all = |field: &str, words: &[String]| -> Box<[T]> {
        let at = format!("{path}.{field}");
        if words.len() > MOST {
            problems.add(&at, format!("has more than {MOST} entries"));
        }
        let each = words.iter().enumerate();
        each.filter_map(|(index, word)| problems.ok(&format!("{at}[{index}]"), read(word)))
            .collect()
    };
    List {
        allow: all("allow", allow),
        deny: all("deny", deny),
    }
}

fn model(word: &str) -> Result<Box<str>, String> {
    match (1..=256).contains(&word.len()) {
        true => Ok(word.into()),
        false => Err("is a model, or a pattern of some, such as `gpt-4o*` or `openai/*`".into()),
    }
}

fn slug(word: &str) -> Result<Box<str>, String> {
    let named = tokens::good_name(word).map(|()| word.into());
    named.map_err(|_| "is the slug of a provider, such as `openai`".into())
}

/// Slugs of providers by all names that lead to them: the slugs themselves and aliases.
pub type Names<'a> = BTreeMap<&'a str, &'a str>;

/// The words that do not mean what they say, each with its field: what is asked for is compared by the
/// slug of its provider, so another name of it denies nothing, and no budget pays for it. In an `allow`
/// of models it may stand: if it is no part of a model's own name, it permits nothing. `path`: what
/// stands before the fields.
///
/// Keys that are stored are read without this, so that they outlive a provider that they name.
pub fn misnamed(
    path: &str,
    access: &schema::Access,
    spend_limits: &[SpendLimit],
    names: &Names<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut look = |list: &str, words: &[String], wrong: fn(&str, &Names<'_>) -> Option<String>| {
        for (index, word) in words.iter().enumerate() {
            let at = format!("{path}{list}[{index}]");
            problems.extend(wrong(word, names).map(|why| Problem::new(at, why)));
        }
    };
    look("access.models.deny", &access.models.deny, wrong_model);
    let providers = &access.providers;
    look("access.providers.allow", &providers.allow, wrong_provider);
    look("access.providers.deny", &providers.deny, wrong_provider);
    for (index, limit) in spend_limits.iter().enumerate() {
        let values = limit.provider.iter().flat_map(|asked| &asked.values);
        let values: Vec<_> = values.cloned().collect();
        let list = format!("spend_limits[{index}].provider.values");
        look(&list, &values, wrong_provider);
    }
    problems
}

fn wrong_provider(word: &str, names: &Names<'_>) -> Option<String> {
    match names.get(word) {
        Some(slug) if *slug == word => None,
        Some(slug) => Some(format!("{}; write `{slug}`", alias(word, slug))),
        // What is no slug at all is told by who reads the list.
        None if slug(word).is_err() => None,
        None => Some(format!(
            "no such provider as `{word}`; {}A provider of your own is called `custom-<slug>`",
            providers::hint(word, names.values().copied())
        )),
    }
}

/// Only aliases: what else stands before a `/` may be a part of a model's own name.
fn wrong_model(pattern: &str, names: &Names<'_>) -> Option<String> {
    let (provider, model) = pattern.split_once('/')?;
    let slug = names.get(provider).filter(|slug| **slug != provider)?;
    Some(format!(
        "{}; write `{slug}/{model}`, or `*/{pattern}` for models that their providers call `{pattern}`",
        alias(provider, slug)
    ))
}

fn alias(word: &str, slug: &str) -> String {
    format!("`{word}` is another name of the provider `{slug}`")
}

/// An address alone is the range of itself.
fn network(word: &str) -> Result<IpNet, String> {
    let alone = word
        .parse()
        .map(|address: std::net::IpAddr| IpNet::from(address));
    alone
        .or_else(|_| parsed(word))
        .map(|net: IpNet| canonical(net).trunc())
}

/// IPv4 within IPv6 (`::ffff:203.0.113.0/120`) as IPv4, as which clients' addresses are compared.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(six) = net else { return net };
    let length = six.prefix_len().checked_sub(96);
    let four = six.addr().to_ipv4_mapped().zip(length);
    four.and_then(|(address, length)| Ipv4Net::new(address, length).ok())
        .map_or(net, IpNet::V4)
}

fn parsed<T: FromStr<Err: Display>>(word: &str) -> Result<T, String> {
    let found = word.parse();
    found.map_err(|_| format!("`{word}` is no address or range, such as `10.0.0.0/8`"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn resolved(yaml: &str) -> Result<Bounds, String> {
        let access: schema::Access = serde_yaml::from_str(yaml).unwrap();
        let written = Written {
            scope: &Scope::Key("k".into()),
            path: "",
            access: &access,
            rate_limits: &[],
            spend_limits: &[],
        };
        let told = |problems: Vec<Problem>| {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            told.join("\n")
        };
        of_key(&written).map_err(told)
    }

    #[test]
    fn what_is_said_is_kept() {
        let bounds = resolved(
            "{models: {allow: ['gpt-4o*'], deny: [gpt-4]}, providers: {allow: [openai]}, addresses: {allow: [10.1.2.3/8, '::1']}, max_tokens: 5, max_body: 1KiB}",
        )
        .unwrap();
        let access = bounds.access;
        assert_eq!((access.max_tokens, access.max_body), (Some(5), Some(1024)));
        let shown: Vec<_> = access
            .addresses
            .allow
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["10.0.0.0/8", "::1/128"]);
        assert!(access.needs_body());
        assert!(!resolved("{}").unwrap().access.needs_body());
    }

    #[test]
    fn a_word_that_does_not_mean_what_it_says_is_named_with_what_is_meant() {
        let names = Names::from([
            ("grok", "grok"),
            ("xai", "grok"),
            ("openai", "openai"),
            ("custom-a", "custom-a"),
        ]);
        let told = |yaml: &str| {
            let access = serde_yaml::from_str(yaml).unwrap();
            let problems = misnamed("", &access, &[], &names);
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            told.join("\n")
        };
        for (yaml, expected) in [
            (
                "{providers: {allow: [grok, xai]}}",
                "access.providers.allow[1]: `xai` is another name of the provider `grok`; write `grok`",
            ),
            (
                "{providers: {deny: [opneai]}}",
                "access.providers.deny[0]: no such provider as `opneai`; did you mean `openai`? A provider of your own is called `custom-<slug>`",
            ),
            (
                "{models: {deny: ['xai/grok-*']}}",
                "access.models.deny[0]: `xai` is another name of the provider `grok`; write `grok/grok-*`, or `*/xai/grok-*` for models that their providers call `xai/grok-*`",
            ),
        ] {
            assert_eq!(told(yaml), expected, "{yaml}");
            // A key that was stored so goes on passing.
            assert!(resolved(yaml).is_ok(), "{yaml}");
        }
        for good in [
            "{}",
            "{providers: {allow: [grok, openai], deny: [custom-a]}}",
            "{models: {allow: ['grok/*', 'xai/*', xai]}}",
            "{models: {deny: ['grok/*', xai, 'xai*', '*/xai/*', 'meta-llama/*', 'x*i/*']}}",
            "{providers: {deny: ['']}}", // is told elsewhere
        ] {
            assert_eq!(told(good), "", "{good}");
        }
    }

    #[test]
    fn a_budget_pays_for_providers_by_their_slugs() {
        let names = Names::from([("grok", "grok"), ("xai", "grok")]);
        let limits: Vec<SpendLimit> = serde_yaml::from_str(
            "[{provider: {mode: partition}}, {provider: {mode: filter, values: [grok, xai]}}]",
        )
        .unwrap();
        let access = schema::Access::default();
        let told = misnamed("accounts.a.gateways.g.", &access, &limits, &names);
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        let expected = "accounts.a.gateways.g.spend_limits[1].provider.values[1]: `xai` is another name of the provider `grok`; write `grok`";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn ranges_of_ipv4_within_ipv6_are_those_of_ipv4() {
        for (word, expected) in [
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("::ffff:203.0.113.9/120", "203.0.113.0/24"),
            ("::ffff:203.0.113.9", "203.0.113.9/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"), // more than IPv4
            ("2001:db8::/32", "2001:db8::/32"),
            ("203.0.113.0/24", "203.0.113.0/24"),
        ] {
            assert_eq!(network(word).unwrap().to_string(), expected, "{word}");
        }
        let access = resolved("{addresses: {deny: ['::ffff:203.0.113.0/120']}}");
        let access = access.unwrap().access;
        for (address, permitted) in [
            ("203.0.113.7", false),
            ("::ffff:203.0.113.7", false),
            ("203.0.112.7", true),
        ] {
            let found = access.address(Some(address.parse().unwrap()));
            assert_eq!(found.is_ok(), permitted, "{address}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, expected) in [
            (
                "{models: {allow: ['']}}",
                "access.models.allow[0]: is a model",
            ),
            (
                "{providers: {deny: [a b]}}",
                "access.providers.deny[0]: is the slug",
            ),
            (
                "{addresses: {allow: [x]}}",
                "access.addresses.allow[0]: `x` is no address",
            ),
            (
                "{addresses: {allow: [10.0.0.0/33]}}",
                "`10.0.0.0/33` is no address",
            ),
            ("{max_tokens: 0}", "access.max_tokens: must be at least 1"),
            ("{max_body: 0}", "access.max_body: must be more than 0"),
        ] {
            let said = resolved(yaml).unwrap_err();
            assert!(said.contains(expected), "{yaml}: {said}");
        }
    }
}
