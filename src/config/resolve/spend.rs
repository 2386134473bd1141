//! What calls may cost: rules as the code needs them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Problems;
use crate::config::schema::{self, Selection, SelectionMode, SpendLimit, SpendWindow, Technique};
use crate::config::units::Decimal;
use crate::limits::spend::{Field, Rule, Select, Window};
use crate::pricing::Cost;

/// As many as Cloudflare allows.
const MOST_RULES: usize = 20;
/// Most fields of metadata that one rule looks at: as many as a request may have.
const MOST_FIELDS: usize = 64;
/// Most values of one filter.
const MOST_VALUES: usize = 1_000;
/// Nine million dollars: what still fits into the store's numbers, twice over.
const MOST_MONEY: &str = "9000000";
/// More tokens than any model writes.
const MOST_TOKENS: i64 = 1_000_000_000;

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The rules that are written at `path` and hold.
pub(super) fn rules(path: &str, limits: &[SpendLimit], problems: &mut Problems) -> Vec<Rule> {
    if limits.len() > MOST_RULES {
        problems.add(path, format!("has more than {MOST_RULES} rules"));
    }
    let mut ids = BTreeSet::new();
    let mut rules = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if !limit.id.is_empty() && !ids.insert(&*limit.id) {
            let rule = format!("the id `{}` stands twice", limit.id);
            problems.add(format!("{at}.id"), rule);
        }
        let rule = rule(&at, limit, problems);
        rules.extend(rule.filter(|_| limit.enabled.unwrap_or(true)));
    }
    rules
}

/// `None` where something is wrong that was told.
fn rule(path: &str, limit: &SpendLimit, problems: &mut Problems) -> Option<Rule> {
    let SpendLimit {
        id,
        enabled: _, // of those who call this
        limit,
        window,
        technique,
        model,
        provider,
        key,
        owner,
        metadata,
        assume_output,
        strict,
        unpriced,
        action,
    } = limit;
    let at = |field: &str| format!("{path}.{field}");
    let id = problems.ok(&at("id"), checked_id(id));
    let money = problems.ok(&at("limit"), checked_money(limit.as_ref()));
    let window = problems.ok(&at("window"), checked_window(*window));
    let window =
        window.and_then(|window| problems.ok(&at("technique"), with_technique(window, *technique)));
    let assume_output = problems.ok(&at("assume_output"), checked_tokens(*assume_output));
    let named = [
        (Field::Model, model),
        (Field::Provider, provider),
        (Field::Key, key),
        (Field::Owner, owner),
    ];
    let named = named.into_iter();
    let named = named.filter_map(|(field, asked)| Some((field, asked.as_ref()?)));
    let said = metadata.iter();
    let said = said.map(|(key, asked)| (Field::Metadata(key.as_str().into()), asked));
    let selection = selection(path, named.chain(said), problems);
    if metadata.len() > MOST_FIELDS {
        problems.add(at("metadata"), format!("has more than {MOST_FIELDS} keys"));
    }
    Some(Rule {
        id: id?,
        limit: money?,
        window: window?,
        selection,
        assume_output: assume_output?,
        strict: *strict,
        unpriced: *unpriced,
        action: *action,
    })
}

/// What requests the rule at `path` is about.
fn selection<'a>(
    path: &str,
    asked: impl Iterator<Item = (Field, &'a Selection)>,
    problems: &mut Problems,
) -> Box<[(Field, Select)]> {
    let mut selection = Vec::new();
    for (field, asked) in asked {
        let at = format!("{path}.{}", field.name());
        let select = problems.ok(&at, checked_selection(&field, asked));
        selection.extend(select.map(|select| (field, select)));
    }
    selection.into()
}

fn checked_id(id: &str) -> Result<Box<str>, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match (id.len(), id.bytes().all(good)) {
        (0, _) => Err("is missing: under what is its spending remembered?".to_owned()),
        (1..=64, true) => Ok(id.into()),
        _ => Err("is 1 to 64 letters, digits, -, _ and .".to_owned()),
    }
}

fn checked_money(limit: Option<&Decimal>) -> Result<Cost, String> {
    let Some(Decimal(text)) = limit else {
        return Err("is missing: how many US dollars?".to_owned());
    };
    let cost = Cost::parse(text)?;
    if !is_exact(text) {
        return Err("has more than twelve decimal places".to_owned());
    }
    let most = Cost::parse(MOST_MONEY)?;
    match Cost::ZERO < cost && cost <= most {
        true => Ok(cost),
        false => Err(format!(
            "must be more than 0 and at most {MOST_MONEY} US dollars"
        )),
    }
}

/// Whether no digit of a decimal number stands behind the twelfth place.
fn is_exact(number: &str) -> bool {
    let (mantissa, exponent) = number
        .trim()
        .split_once(['e', 'E'])
        .unwrap_or((number.trim(), "0"));
    let fraction = mantissa
        .split_once('.')
        .map_or("", |(_, fraction)| fraction);
    let digits = fraction.trim_end_matches('0');
    let mut places = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if digits.is_empty() {
        let whole = mantissa.split('.').next().unwrap_or_default();
        let zeros = whole.len() - whole.trim_end_matches('0').len();
        places = -i64::try_from(zeros).unwrap_or_default();
    }
    exponent
        .parse::<i64>()
        .is_ok_and(|exponent| places.saturating_sub(exponent) <= 12)
}

fn checked_window(window: Option<SpendWindow>) -> Result<Window, String> {
    let length = match window {
        None => return Err("is missing: write `24h`, `day` or `month`".to_owned()),
        Some(SpendWindow::Calendar(calendar)) => return Ok(Window::Calendar(calendar)),
        Some(SpendWindow::Length(length)) => length.0,
    };
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    match (SHORTEST..=LONGEST).contains(&length) && length.subsec_nanos() == 0 {
        true => Ok(Window::Sliding(seconds)),
        false => Err("must be 1m to 366d, in whole seconds".to_owned()),
    }
}

fn with_technique(window: Window, technique: Option<Technique>) -> Result<Window, String> {
    match (window, technique) {
        (Window::Calendar(_), Some(Technique::Sliding)) => Err(
            "a window of the calendar does not slide: write `fixed`, or a length such as `24h` as the window"
                .to_owned(),
        ),
        (Window::Sliding(length), Some(Technique::Fixed)) => Ok(Window::Fixed(length)),
        (window, _) => Ok(window),
    }
}

fn checked_tokens(tokens: Option<i64>) -> Result<Option<u64>, String> {
    let Some(tokens) = tokens else {
        return Ok(None);
    };
    match u64::try_from(tokens) {
        Ok(good) if (1..=MOST_TOKENS).contains(&tokens) => Ok(Some(good)),
        _ => Err(format!("must be 1 to {MOST_TOKENS} tokens")),
    }
}

fn checked_selection(field: &Field, asked: &Selection) -> Result<Select, String> {
    let schema::Selection { mode, values } = asked;
    let name = field.name();
    match mode {
        SelectionMode::Partition if values.is_empty() => Ok(Select::Partition),
        SelectionMode::Partition => Err(
            "`values` belong to `mode: filter`; a partition has a budget for each value".to_owned(),
        ),
        SelectionMode::Filter if values.is_empty() => Err(format!(
            "no request would match: write `values: [ … ]`, or `mode: partition` for a budget for each {name}"
        )),
        SelectionMode::Filter if values.len() > MOST_VALUES => {
            Err(format!("has more than {MOST_VALUES} values"))
        }
        SelectionMode::Filter if values.iter().any(String::is_empty) => {
            Err("has an empty value, which no request has".to_owned())
        }
        SelectionMode::Filter => {
            let values = values.iter().map(|value| Box::from(value.as_str()));
            Ok(Select::Filter(values.collect()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::schema::{Calendar, SpendAction, Unpriced};

    /// The rules of a gateway that says this, or what is wrong with them.
    fn rules_of(limits: &str) -> Result<Vec<Rule>, Vec<String>> {
        let yaml =
            format!("accounts: {{ a: {{ gateways: {{ g: {{ spend_limits: [ {limits} ] }} }} }} }}");
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        let resolved = resolve(&config, ([127, 0, 0, 1], 1).into());
        let resolved =
            resolved.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let gateway = resolved.snapshot.gateway("a", "g").unwrap();
        Ok(gateway.bounds.spends.clone())
    }

    #[test]
    fn what_is_written_is_what_holds() {
        let rules = rules_of(
            "{ id: per-user, limit: 10.00, window: 24h, technique: fixed, metadata: { user: { mode: partition } } }, \
             { id: team, limit: \"500.000000000001\", window: month, assume_output: 100, unpriced: refuse }, \
             { id: off, enabled: false, limit: 1, window: 1m }, \
             { id: a.B_9, limit: 1e-12, window: 366d, strict: true, action: fallback, \
               model: { values: [ \"gpt-*\" ] }, provider: { mode: filter, values: [ openai ] }, \
               key: { mode: partition }, owner: { mode: partition } }",
        );
        let plain = |id: &str, pico, window| Rule {
            id: id.into(),
            limit: Cost(pico),
            window,
            selection: [].into(),
            assume_output: None,
            strict: false,
            unpriced: Unpriced::Allow,
            action: SpendAction::Block,
        };
        let filter = |value: &str| Select::Filter([value.into()].into());
        let expected = [
            Rule {
                selection: [(Field::Metadata("user".into()), Select::Partition)].into(),
                ..plain("per-user", 10_000_000_000_000, Window::Fixed(86_400))
            },
            Rule {
                assume_output: Some(100),
                unpriced: Unpriced::Refuse,
                ..plain(
                    "team",
                    500_000_000_000_001,
                    Window::Calendar(Calendar::Month),
                )
            },
            Rule {
                strict: true,
                action: SpendAction::Fallback,
                selection: [
                    (Field::Model, filter("gpt-*")),
                    (Field::Provider, filter("openai")),
                    (Field::Key, Select::Partition),
                    (Field::Owner, Select::Partition),
                ]
                .into(),
                ..plain("a.B_9", 1, Window::Sliding(366 * 86_400))
            },
        ];
        assert_eq!(rules.unwrap(), expected);
        assert_eq!(rules_of("").unwrap(), []);
    }

    #[test]
    fn mistakes_say_where_they_are_and_what_to_do() {
        for (limits, field, rule) in [
            ("{ limit: 1, window: day }", "[0].id", "is missing"),
            (
                "{ id: \"a b\", limit: 1, window: day }",
                "[0].id",
                "1 to 64 letters",
            ),
            (
                "{ id: a, limit: 1, window: day }, { id: a, enabled: false, limit: 1, window: day }",
                "[1].id",
                "`a` stands twice",
            ),
            (
                "{ id: a, window: day }",
                "[0].limit",
                "how many US dollars?",
            ),
            (
                "{ id: a, limit: 0, window: day }",
                "[0].limit",
                "more than 0",
            ),
            ("{ id: a, limit: -1, window: day }", "[0].limit", "negative"),
            (
                "{ id: a, limit: 9000000.01, window: day }",
                "[0].limit",
                "at most 9000000",
            ),
            (
                "{ id: a, limit: \"0.0000000000001\", window: day }",
                "[0].limit",
                "twelve decimal",
            ),
            (
                "{ id: a, limit: \"1.0000000000001\", window: day }",
                "[0].limit",
                "twelve decimal",
            ),
            (
                "{ id: a, limit: much, window: day }",
                "[0].limit",
                "not a decimal",
            ),
            ("{ id: a, limit: 1 }", "[0].window", "is missing"),
            (
                "{ id: a, limit: 1, window: 59s }",
                "[0].window",
                "1m to 366d",
            ),
            (
                "{ id: a, limit: 1, window: 367d }",
                "[0].window",
                "1m to 366d",
            ),
            (
                "{ id: a, limit: 1, window: 61s500ms }",
                "[0].window",
                "whole seconds",
            ),
            (
                "{ id: a, limit: 1, window: week, technique: sliding }",
                "[0].technique",
                "does not slide",
            ),
            (
                "{ id: a, limit: 1, window: day, assume_output: 0 }",
                "[0].assume_output",
                "must be 1",
            ),
            (
                "{ id: a, limit: 1, window: day, model: {} }",
                "[0].model",
                "write `values",
            ),
            (
                "{ id: a, limit: 1, window: day, owner: { values: [ \"\" ] } }",
                "[0].owner",
                "empty value",
            ),
            (
                "{ id: a, limit: 1, window: day, metadata: { user: { mode: partition, values: [ b ] } } }",
                "[0].metadata.user",
                "belong to `mode: filter`",
            ),
        ] {
            let problems = rules_of(limits).unwrap_err();
            let path = format!("accounts.a.gateways.g.spend_limits{field}: ");
            assert_eq!(problems.len(), 1, "{limits}: {problems:#?}");
            assert!(problems[0].starts_with(&path), "{path} {problems:?}");
            assert!(problems[0].contains(rule), "{rule} {problems:?}");
        }
        let many = |number| {
            let rules = (0..number).map(|n| format!("{{ id: r{n}, limit: 1, window: day }}"));
            rules_of(&rules.collect::<Vec<_>>().join(", "))
        };
        assert_eq!(many(20).unwrap().len(), 20);
        assert!(many(21).unwrap_err()[0].contains("more than 20 rules"));
    }

    #[test]
    fn exact_amounts_have_twelve_places_at_most() {
        for (text, exact) in [
            ("1", true),
            ("0.000000000001", true),
            ("0.0000000000010", true),
            ("0.0000000000011", false),
            ("1e-12", true),
            ("1e-13", false),
            ("10e-13", true),
            ("1.5e-12", false),
            ("1.5E+3", true),
        ] {
            assert_eq!(is_exact(text), exact, "{text}");
        }
    }
}
