//! A rule, what it counts by, and what is said when it refuses.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::RandomState;

use super::state::{Registry, State};
use super::table::Key;
use super::window::Window;
use crate::config::schema::{Counted, Technique};
use crate::limits::facts::Facts;
use crate::limits::spend::Scope;

/// One rate limit.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What refusals, the log and metrics call it.
    pub id: Box<str>,
    /// So many.
    pub limit: u64,
    /// Of what.
    pub counted: Counted,
    /// In so long; zero for calls at the same time.
    pub length: Duration,
    /// How the window lies.
    pub technique: Technique,
    /// For each of these apart; none: for all whom the rule is about.
    pub by: Box<[Dimension]>,
    /// Whose rule it is.
    pub scope: Scope,
    /// Looked up with the first request that it is about.
    pub state: OnceLock<Arc<State>>,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The gateway.
    Gateway,
    /// Whose token or key the client brought.
    Key,
    /// Who answers for that.
    Owner,
    /// The provider that is asked.
    Provider,
    /// The model that is asked for.
    Model,
    /// The client's address: all of IPv4, the first 64 bits of IPv6, which one client may have all of.
    ClientAddress,
    /// What `cf-aig-metadata` says under this key.
    Metadata(Box<str>),
}

/// Where a request stands with the rule that leaves it least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The rule's limit.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
    /// Seconds until the oldest of what was counted is forgotten.
    pub reset: u64,
}

/// A rule has refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub rule: Box<str>,
    /// What it says, in words: `100 requests in 60s for each key`.
    pub words: String,
    /// Where the request stands with it.
    pub standing: Standing,
    /// Seconds until it may pass, at least 1.
    pub retry_after: u64,
    /// Another provider or model may be within the rule.
    pub elsewhere: bool,
    /// It is a rule of the client's key, and not of the gateway.
    pub is_of_key: bool,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.limit == other.limit && self.identity() == other.identity()
    }
}

impl Rule {
    /// Its window; `None` where it counts calls at the same time.
    pub fn window(&self) -> Option<Window> {
        match (self.counted, self.technique) {
            (Counted::Concurrent, _) => None,
            (_, Technique::Fixed) => Some(Window::fixed(self.length)),
            (_, Technique::Sliding) => Some(Window::sliding(self.length)),
        }
    }

    /// What it has counted.
    pub fn state(&self, registry: &Registry) -> &Arc<State> {
        self.state.get_or_init(|| registry.state(self))
    }

    /// Under what its counts are remembered when the configuration changes: all that it says but how
    /// many.
    pub fn identity(&self) -> String {
        let Self {
            id,
            limit: _,
            counted,
            length,
            technique,
            by,
            scope,
            state: _,
        } = self;
        format!("{scope:?} {id} {counted:?} {length:?} {technique:?} {by:?}")
    }

    /// The values that it tells apart are all named by the configuration or by stores of ours.
    pub fn is_bounded(&self) -> bool {
        self.by.iter().all(|dimension| match dimension {
            Dimension::Gateway | Dimension::Key | Dimension::Owner | Dimension::Provider => true,
            Dimension::Model | Dimension::ClientAddress | Dimension::Metadata(_) => false,
        })
    }

    /// It needs to be known which provider or model is asked.
    pub fn needs_target(&self) -> bool {
        let target = |dimension| matches!(dimension, &Dimension::Provider | &Dimension::Model);
        self.by.iter().any(target)
    }

    /// It needs to be known which model is asked for.
    pub fn needs_model(&self) -> bool {
        self.by.contains(&Dimension::Model)
    }

    /// For whom a request is counted; `None` if the rule is not about it.
    pub fn key(&self, facts: &Facts<'_>) -> Option<Key> {
        static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        let mut halves = keys.each_ref().map(BuildHasher::build_hasher);
        for dimension in &self.by {
            for half in &mut halves {
                dimension.hash_of(facts, half)?;
            }
        }
        let [one, other] = halves.map(|half| Key::from(half.finish()));
        Some(one << 64 | other)
    }

    /// That it has refused a request.
    pub fn refused(&self, left: u64, retry_after: u64) -> Refused {
        Refused {
            rule: self.id.clone(),
            words: self.to_string(),
            standing: Standing {
                limit: self.limit,
                left,
                reset: retry_after,
            },
            retry_after,
            elsewhere: self.needs_target(),
            is_of_key: matches!(self.scope, Scope::Key(_)),
        }
    }
}

impl Dimension {
    /// As users write it.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "gateway" => Self::Gateway,
            "key" => Self::Key,
            "owner" => Self::Owner,
            "provider" => Self::Provider,
            "model" => Self::Model,
            "client_address" => Self::ClientAddress,
            other => {
                let key = other.strip_prefix("metadata.")?;
                (!key.is_empty()).then(|| Self::Metadata(key.into()))?
            }
        })
    }

    /// Hashes its value; `None` if the request has none.
    fn hash_of(&self, facts: &Facts<'_>, hasher: &mut impl Hasher) -> Option<()> {
        match self {
            Self::Gateway => facts.gateway.hash(hasher),
            Self::Key => facts.key?.hash(hasher),
            Self::Owner => facts.owner?.hash(hasher),
            Self::Provider => facts.provider?.hash(hasher),
            Self::Model => facts.model?.hash(hasher),
            Self::ClientAddress => network(facts.address?).hash(hasher),
            Self::Metadata(key) => {
                let mut entries = facts.metadata.iter();
                let (_, value) = entries.find(|(name, _)| name == key)?;
                value.to_string().hash(hasher);
            }
        }
        Some(())
    }
}

/// What of an address is one client's.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Key => f.write_str("key"),
            Self::Owner => f.write_str("owner"),
            Self::Provider => f.write_str("provider"),
            Self::Model => f.write_str("model"),
            Self::ClientAddress => f.write_str("client address"),
            Self::Metadata(key) => write!(f, "metadata.{key}"),
        }
    }
}

impl fmt::Display for Rule {
    /// `100 requests in 1m for each key and model`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        let length = crate::config::units::Duration(self.length);
        match self.counted {
            Counted::Requests => write!(f, "{limit} requests in {length}"),
            Counted::InputTokens => write!(f, "{limit} input tokens in {length}"),
            Counted::OutputTokens => write!(f, "{limit} output tokens in {length}"),
            Counted::TotalTokens => write!(f, "{limit} tokens in {length}"),
            Counted::Concurrent => write!(f, "{limit} calls at the same time"),
        }?;
        for (place, dimension) in self.by.iter().enumerate() {
            let before = if place == 0 { "for each" } else { "and" };
            write!(f, " {before} {dimension}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, words, seconds) = (&self.rule, &self.words, self.retry_after);
        write!(
            f,
            "Rate limited: rule `{rule}` allows {words}; try again in {seconds} s"
        )
    }
}
