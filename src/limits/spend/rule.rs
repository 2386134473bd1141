//! Which requests a budget is for, and which of its accounts pays for one.

use std::borrow::Cow;

use super::window::Window;
use crate::config::schema::{SpendAction, Unpriced};
use crate::limits::facts::Facts;
use crate::pattern;
use crate::pricing::Cost;

/// Output tokens that a request without a maximum is taken to cost, where nothing is said.
pub const ASSUMED_OUTPUT: u64 = 4_096;

/// Longest value, in bytes, by which accounts are told apart as it is; longer ones by a digest, so
/// that the memory of an account is bounded.
const LONGEST_VALUE: usize = 128;

/// A budget, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called: letters, digits, `-`, `_` and `.`.
    pub id: Box<str>,
    /// At most so much, more than nothing.
    pub limit: Cost,
    /// In such a window.
    pub window: Window,
    /// About which requests it is, all of these together.
    pub selection: Box<[(Field, Select)]>,
    /// Output tokens of requests that set no maximum, where that is said.
    pub assume_output: Option<u64>,
    /// Otherwise as many as the model can write; where nobody knows that, the cost is not known
    /// beforehand.
    pub strict: bool,
    /// What becomes of requests whose cost is not known beforehand.
    pub unpriced: Unpriced,
    /// What happens at the limit.
    pub action: SpendAction,
}

/// What of a request is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The model, by the name that goes to the provider.
    Model,
    /// The provider, by its slug.
    Provider,
    /// The name of the consumer.
    Key,
    /// Whose key it is.
    Owner,
    /// What the client says of its call under this key.
    Metadata(Box<str>),
}

/// What must be the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// It is one of these. Of models `*` stands for anything but `/`, and `provider/model` names one
    /// of one provider.
    Filter(Box<[Box<str>]>),
    /// It is there, and each value has a budget of its own.
    Partition,
}

/// Which account of a rule: the values that it is for, with the names of their fields.
pub type Partition = Box<[(Box<str>, Box<str>)]>;

impl Rule {
    /// Output tokens that a request without a maximum is taken to cost; `most` is what the model can
    /// write, where that is known.
    pub fn assumed_output(&self, most: Option<u64>) -> u64 {
        let strict = most.filter(|_| self.strict);
        self.assume_output.or(strict).unwrap_or(ASSUMED_OUTPUT)
    }

    /// Whether that is less than it wants to assume: all that the model can write, which nobody knows.
    pub fn is_at_a_loss(&self, most: Option<u64>) -> bool {
        self.strict && self.assume_output.or(most).is_none()
    }

    /// Whether it has more than one account.
    pub fn is_partitioned(&self) -> bool {
        let mut selects = self.selection.iter();
        selects.any(|(_, select)| *select == Select::Partition)
    }

    /// Whether clients can make up accounts of it, by values that nobody has configured.
    pub fn is_open(&self) -> bool {
        let mut selects = self.selection.iter();
        selects.any(|(field, select)| *select == Select::Partition && field.is_open())
    }

    /// Whether a request is limited by it.
    pub fn applies(&self, facts: &Facts<'_>) -> bool {
        let mut selects = self.selection.iter();
        selects.all(|(field, select)| {
            let value = field.value(facts);
            value.is_some_and(|value| select.admits(field, &value, facts))
        })
    }

    /// Which of its accounts a request is for; `None` if it is not limited by it.
    pub fn partition(&self, facts: &Facts<'_>) -> Option<Partition> {
        if !self.applies(facts) {
            return None;
        }
        let selects = self.selection.iter();
        let parted = selects.filter(|(_, select)| *select == Select::Partition);
        let values = parted.filter_map(|(field, _)| {
            let value = field.value(facts)?;
            Some((field.name().into(), short(&value).into()))
        });
        Some(values.collect())
    }
}

impl Field {
    /// As the configuration and answers have it: `model`, `metadata.user`.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Model => "model".into(),
            Self::Provider => "provider".into(),
            Self::Key => "key".into(),
            Self::Owner => "owner".into(),
            Self::Metadata(key) => format!("metadata.{key}").into(),
        }
    }

    /// Whether clients can say what they want in it.
    fn is_open(&self) -> bool {
        match self {
            Self::Model | Self::Metadata(_) => true,
            Self::Provider | Self::Key | Self::Owner => false,
        }
    }
}

impl Select {
    fn admits(&self, field: &Field, value: &str, facts: &Facts<'_>) -> bool {
        let values = match self {
            Self::Partition => return true,
            Self::Filter(values) => values,
        };
        let mut values = values.iter();
        match field {
            Field::Model => {
                values.any(|pattern| is_model(pattern, value, facts.provider.unwrap_or_default()))
            }
            Field::Key => values.any(|own| **own == *value || Some(&**own) == facts.key_name),
            _ => values.any(|other| **other == *value),
        }
    }
}

impl Field {
    /// What a request says of it; an empty text says nothing.
    fn value<'a>(&self, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
        let value = match self {
            Self::Model => facts.model.map(Cow::Borrowed),
            Self::Provider => facts.provider.map(Cow::Borrowed),
            Self::Key => facts.key.map(Cow::Borrowed),
            Self::Owner => facts.owner.map(Cow::Borrowed),
            Self::Metadata(key) => {
                let mut entries = facts.metadata.iter();
                let entry = entries.find(|(other, _)| other == key);
                entry.map(|(_, value)| Cow::Owned(value.to_string()))
            }
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Whether a pattern means a model, by its name alone or behind its provider's.
fn is_model(pattern: &str, model: &str, provider: &str) -> bool {
    let of_provider = pattern.strip_prefix(provider);
    let behind = of_provider.and_then(|rest| rest.strip_prefix('/'));
    pattern::fits_in_parts(pattern, model)
        || behind.is_some_and(|pattern| pattern::fits_in_parts(pattern, model))
}

/// A value that is not too long, or a digest that begins like it.
fn short(value: &str) -> Cow<'_, str> {
    if value.len() <= LONGEST_VALUE {
        return Cow::Borrowed(value);
    }
    let digest = blake3::hash(value.as_bytes()).to_hex();
    let room = LONGEST_VALUE - digest.len() - "…".len();
    let start = value.floor_char_boundary(room);
    Cow::Owned(format!("{}…{digest}", &value[..start]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{filter, metadata, rule};
    use super::*;
    use crate::metadata::Metadata;

    fn facts<'a>(provider: &'a str, model: &'a str, metadata: &'a Metadata) -> Facts<'a> {
        Facts {
            provider: Some(provider),
            model: Some(model),
            key: Some("ci"),
            ..Facts::of(metadata)
        }
    }

    #[test]
    fn filters_let_through_what_they_name() {
        let said = metadata(&[("tier", "gold"), ("empty", "")]);
        let facts = facts("openai", "gpt-4o-mini", &said);
        let key = |key: &str| Field::Metadata(key.into());
        for (field, values, applies) in [
            (Field::Model, &["gpt-4o-mini"][..], true),
            (Field::Model, &["gpt-4o"], false),
            (Field::Model, &["gpt-4.1", "gpt-*-mini"], true),
            (Field::Model, &["openai/gpt-4o*"], true),
            (Field::Model, &["openai/*"], true),
            (Field::Model, &["groq/*"], false),
            (Field::Model, &["*/*"], false),
            (Field::Provider, &["groq", "openai"], true),
            (Field::Provider, &["open*"], false),
            (Field::Key, &["ci"], true),
            (Field::Key, &["cd"], false),
            (Field::Owner, &["ci"], false),
            (key("tier"), &["gold"], true),
            (key("tier"), &["silver"], false),
            (key("other"), &["gold"], false),
            (key("empty"), &[""], false),
        ] {
            let rule = rule("r", "1", vec![(field.clone(), filter(values))]);
            assert_eq!(rule.applies(&facts), applies, "{field:?} {values:?}");
            let partition = rule.partition(&facts).map(|values| values.len());
            assert_eq!(partition, applies.then_some(0));
        }
    }

    #[test]
    fn stars_do_not_cross_a_slash() {
        for (pattern, model, matches) in [
            ("*", "gpt-4o", true),
            ("*", "meta/llama", false),
            ("meta/*", "meta/llama-3-8b", true),
            ("meta/*", "meta/llama/3", false),
            ("*/*", "meta/llama", true),
            (
                "@cf/*/llama-*-instruct",
                "@cf/meta/llama-3.1-8b-instruct",
                true,
            ),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("", "", true),
        ] {
            assert_eq!(
                pattern::fits_in_parts(pattern, model),
                matches,
                "{pattern} {model}"
            );
        }
        assert!(is_model("meta/llama", "meta/llama", "openrouter"));
        assert!(is_model("openrouter/meta/*", "meta/llama", "openrouter"));
        assert!(!is_model("openrouter*", "meta/llama", "openrouter"));
    }

    #[test]
    fn partitions_are_told_apart_by_their_values() {
        let parts = vec![
            (Field::Provider, Select::Partition),
            (Field::Key, filter(&["ci"])),
            (Field::Metadata("user".into()), Select::Partition),
        ];
        let rule = rule("r", "1", parts);
        assert!(rule.is_partitioned() && rule.is_open());
        let said = metadata(&[("user", "alice")]);
        let partition = rule.partition(&facts("openai", "m", &said)).unwrap();
        let expected: [(Box<str>, Box<str>); 2] = [
            ("provider".into(), "openai".into()),
            ("metadata.user".into(), "alice".into()),
        ];
        assert_eq!(*partition, expected);
        let nobody = metadata(&[("team", "a")]);
        assert_eq!(rule.partition(&facts("openai", "m", &nobody)), None);
    }

    #[test]
    fn long_values_stay_apart_and_become_short() {
        let long = |end: &str| format!("{}{end}", "é".repeat(5_000));
        let (one, other) = (long("1"), long("2"));
        assert!(short(&one).len() <= LONGEST_VALUE && short(&one).starts_with("éé"));
        assert_ne!(short(&one), short(&other));
        assert_eq!(short(&one), short(&one));
        assert_eq!(short("alice"), "alice");
    }

    #[test]
    fn only_what_clients_say_makes_accounts_without_end() {
        for (field, open) in [
            (Field::Model, true),
            (Field::Metadata("a".into()), true),
            (Field::Provider, false),
            (Field::Key, false),
            (Field::Owner, false),
        ] {
            let parted = rule("r", "1", vec![(field.clone(), Select::Partition)]);
            assert_eq!(parted.is_open(), open);
            assert!(!rule("r", "1", vec![(field, filter(&["a"]))]).is_open());
        }
    }

    #[test]
    fn what_is_said_goes_before_what_the_model_can_write() {
        let mut rule = rule("r", "1", Vec::new());
        let assumed = |rule: &Rule, most| (rule.assumed_output(most), rule.is_at_a_loss(most));
        assert_eq!(assumed(&rule, Some(9)), (ASSUMED_OUTPUT, false));
        assert_eq!(assumed(&rule, None), (ASSUMED_OUTPUT, false));
        rule.strict = true;
        assert_eq!(assumed(&rule, Some(9)), (9, false));
        assert_eq!(assumed(&rule, None), (ASSUMED_OUTPUT, true));
        rule.assume_output = Some(5);
        assert_eq!(assumed(&rule, Some(9)), (5, false));
        assert_eq!(assumed(&rule, None), (5, false));
    }
}
