//! What requests may ask for: models, providers, from where, how much. Whoever is refused learns
//! which rule it was.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::pattern;

/// What requests may ask for. All that is said must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// Which models, as patterns of `model` or `provider/model`.
    pub models: List<Box<str>>,
    /// Which providers, by slug.
    pub providers: List<Box<str>>,
    /// From where.
    pub addresses: List<IpNet>,
    /// Most output tokens that a request may ask for, all choices together.
    pub max_tokens: Option<u64>,
    /// Largest request body, in bytes.
    pub max_body: Option<u64>,
}

/// Those that are allowed (all, where none is named), but for those that are not.
#[derive(Debug, Clone, PartialEq)]
pub struct List<T> {
    /// Only these, where there are any.
    pub allow: Box<[T]>,
    /// Not these.
    pub deny: Box<[T]>,
}

/// A rule that a request does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The model, or that none is known where only some are allowed.
    Model(Option<Box<str>>),
    /// The provider.
    Provider(Box<str>),
    /// The client's address.
    Address,
    /// It asks for more tokens than this, or sets no maximum.
    Tokens {
        /// So many are allowed.
        most: u64,
        /// So many may be written; `None` where nothing is said.
        asked: Option<u64>,
    },
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            allow: Box::default(),
            deny: Box::default(),
        }
    }
}

impl<T> List<T> {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn permits(&self, is: impl Fn(&T) -> bool) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(&is)) && !self.deny.iter().any(is)
    }
}

impl Access {
    /// It needs to be known what the body says.
    pub fn needs_body(&self) -> bool {
        !self.models.is_empty() || self.max_tokens.is_some()
    }

    /// Whether a client may ask from where it is. Who is nowhere is not in any range.
    pub fn address(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        let address = address.map(|address| address.to_canonical());
        let within = |net: &IpNet| address.is_some_and(|address| net.contains(&address));
        match self.addresses.permits(within) {
            true => Ok(()),
            false => Err(Denied::Address),
        }
    }

    /// Whether this provider may be asked.
    pub fn provider(&self, slug: &str) -> Result<(), Denied> {
        match self.providers.permits(|own| **own == *slug) {
            true => Ok(()),
            false => Err(Denied::Provider(slug.into())),
        }
    }

    /// Whether this model of a provider may be asked for. Where not all may, one that cannot be told
    /// may not.
    pub fn model(&self, provider: &str, model: Option<&str>) -> Result<(), Denied> {
        if self.models.is_empty() {
            return Ok(());
        }
        let model = model.ok_or(Denied::Model(None))?;
        let whole = format!("{provider}/{model}");
        let is =
            |own: &str| pattern::fits_in_parts(own, model) || pattern::fits_in_parts(own, &whole);
        match self.models.permits(|own| is(own)) {
            true => Ok(()),
            false => Err(Denied::Model(Some(model.into()))),
        }
    }

    /// Whether so many tokens may be written; `None`: the request says nothing.
    pub fn tokens(&self, asked: Option<u64>) -> Result<(), Denied> {
        match (self.max_tokens, asked) {
            (None, _) => Ok(()),
            (Some(most), Some(asked)) if asked <= most => Ok(()),
            (Some(most), asked) => Err(Denied::Tokens { most, asked }),
        }
    }
}

impl Denied {
    /// The field of the rule.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Model(_) => "access.models",
            Self::Provider(_) => "access.providers",
            Self::Address => "access.addresses",
            Self::Tokens { .. } => "access.max_tokens",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access denied by policy: ")?;
        match self {
            Self::Model(Some(model)) => {
                let shown: String = model
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .take(64)
                    .collect();
                write!(f, "the model `{shown}` is not permitted")
            }
            Self::Model(None) => f.write_str(
                "not all models are permitted, and which one this asks for cannot be told",
            ),
            Self::Provider(slug) => write!(f, "the provider `{slug}` is not permitted"),
            Self::Address => f.write_str("not from this address"),
            Self::Tokens {
                most,
                asked: Some(asked),
            } => write!(
                f,
                "at most {most} output tokens may be asked for, all choices together, and this is {asked}"
            ),
            Self::Tokens { most, asked: None } => write!(
                f,
                "at most {most} output tokens may be asked for; set a maximum, such as max_tokens"
            ),
        }?;
        write!(f, " ({})", self.field())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list<T>(allow: &[&str], deny: &[&str], read: impl Fn(&str) -> T) -> List<T> {
        List {
            allow: allow.iter().map(|word| read(word)).collect(),
            deny: deny.iter().map(|word| read(word)).collect(),
        }
    }

    #[test]
    fn models_are_permitted_by_their_name_with_or_without_a_provider() {
        let access = |allow: &[&str], deny: &[&str]| Access {
            models: list(allow, deny, |word| word.into()),
            ..Access::default()
        };
        for (allow, deny, model, permitted) in [
            (&[][..], &[][..], Some("any"), true),
            (&["gpt-4o*"], &[], Some("gpt-4o-mini"), true),
            (&["gpt-4o*"], &[], Some("gpt-5"), false),
            (&["openai/*"], &[], Some("gpt-5"), true),
            (&["groq/*"], &[], Some("gpt-5"), false),
            (&["gpt-*"], &["*-pro"], Some("gpt-5-pro"), false),
            (&[], &["gpt-5"], Some("gpt-5"), false),
            (&[], &["gpt-5"], None, false),
            (&[], &[], None, true),
            (&["*"], &[], None, false),
        ] {
            let found = access(allow, deny).model("openai", model);
            assert_eq!(found.is_ok(), permitted, "{allow:?} {deny:?} {model:?}");
        }
        let denied = access(&["a"], &[])
            .model("openai", Some("b\n`"))
            .unwrap_err();
        assert_eq!(
            denied.to_string(),
            "Access denied by policy: the model `b`` is not permitted (access.models)"
        );
    }

    #[test]
    fn addresses_are_within_ranges() {
        let access = Access {
            addresses: list(&["10.0.0.0/8", "2001:db8::/32"], &["10.9.0.0/16"], |net| {
                net.parse().unwrap()
            }),
            ..Access::default()
        };
        for (address, permitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.9.2.3", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
        ] {
            let found = access.address(Some(address.parse().unwrap()));
            assert_eq!(found.is_ok(), permitted, "{address}");
        }
        assert!(access.address(None).is_err());
        assert!(Access::default().address(None).is_ok());
    }

    #[test]
    fn a_maximum_of_tokens_wants_one_to_be_set() {
        let access = Access {
            max_tokens: Some(100),
            ..Access::default()
        };
        assert!(access.tokens(Some(100)).is_ok());
        for asked in [Some(101), None] {
            assert_eq!(
                access.tokens(asked).unwrap_err().field(),
                "access.max_tokens"
            );
        }
        assert!(Access::default().tokens(None).is_ok());
    }
}
