//! Provider keys that the gateway keeps itself, encrypted at rest: who they are for, how they are
//! sealed ([`seal`]) under the master key ([`master_key`]), and where they lie ([`store`]).
//!
//! Left out on purpose: which key a request spends. [`crate::config::resolve`] makes one keyring of
//! these and of the configured ones, and [`crate::lifecycle::stored_keys`] has it done again when
//! these change.

pub mod master_key;
pub mod seal;
pub mod store;

use std::collections::BTreeMap;
use std::fmt;

use crate::config::secret::Secret;
use store::Seen;

/// Whose requests a key is for, and by what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `account/gateway`; empty for all of the deployment's.
    pub scope: Box<str>,
    /// The provider's slug.
    pub provider: Box<str>,
    /// What `cf-aig-byok-alias` names it by.
    pub alias: Box<str>,
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{} `{}`", self.provider, self.alias)?;
        match &*self.scope {
            "" => Ok(()),
            gateway => write!(out, " of {gateway}"),
        }
    }
}

/// Why a key that is stored cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unavailable {
    /// There is no master key.
    NoMasterKey,
    /// It is sealed under another one.
    OtherMasterKey,
    /// What lies there is not what was written for this name.
    Damaged,
}

impl Unavailable {
    /// For operators: why, and what to do.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoMasterKey => {
                "no master key is configured: set secrets.master_key, or give the process the credential tollgate-master-key"
            }
            Self::OtherMasterKey => {
                "they are encrypted under another master key: set that one as secrets.master_key or secrets.previous_master_key, or remove them with `tollgate provider-keys remove`"
            }
            Self::Damaged => {
                "their rows were damaged or exchanged: store them again with `tollgate provider-keys set`"
            }
        }
    }
}

/// A key out of the store.
#[derive(Debug, Clone)]
pub struct KeptKey {
    /// Whose it is.
    pub name: Name,
    /// Its share of the pool's requests; 0 when it is not in the pool.
    pub weight: u32,
    /// The key itself.
    pub secret: Result<Secret, Unavailable>,
}

/// All that the store has.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Keys may be in the store, now or later: it is there, or there is a master key.
    pub in_use: bool,
    /// Which state of the store this is; `None` where there is none.
    pub seen: Option<Seen>,
    by_scope: BTreeMap<Box<str>, Vec<KeptKey>>,
}

/// Names that a warning tells; of more it tells the number.
const NAMED: usize = 5;

impl Kept {
    /// `keys`, in a store that looks like `seen`.
    pub fn new(in_use: bool, seen: Option<Seen>, keys: Vec<KeptKey>) -> Self {
        let mut by_scope = BTreeMap::<_, Vec<_>>::new();
        for key in keys {
            let scope = key.name.scope.clone();
            by_scope.entry(scope).or_default().push(key);
        }
        Self {
            in_use,
            seen,
            by_scope,
        }
    }

    /// The keys of a gateway by its label, or by `""` of the deployment.
    pub fn of(&self, scope: &str) -> &[KeptKey] {
        self.by_scope.get(scope).map_or(&[], Vec::as_slice)
    }

    /// Which keys cannot be used, and why: a sentence for each cause.
    pub fn warnings(&self) -> Vec<String> {
        let mut causes = BTreeMap::<Unavailable, Vec<&Name>>::new();
        for key in self.by_scope.values().flatten() {
            if let Err(cause) = key.secret {
                causes.entry(cause).or_default().push(&key.name);
            }
        }
        let warnings = causes.iter().map(|(cause, names)| warning(*cause, names));
        warnings.collect()
    }
}

fn warning(cause: Unavailable, names: &[&Name]) -> String {
    let shown = names.iter().take(NAMED).map(ToString::to_string);
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        list += &format!(" and {} more", names.len() - NAMED);
    }
    format!(
        "stored provider keys are unavailable ({list}): {}",
        cause.message()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(scope: &str, alias: &str, secret: Result<Secret, Unavailable>) -> KeptKey {
        KeptKey {
            name: Name {
                scope: scope.into(),
                provider: "openai".into(),
                alias: alias.into(),
            },
            weight: 0,
            secret,
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_by_its_name_and_cause() {
        let mut keys = vec![
            kept("", "default", Err(Unavailable::Damaged)),
            kept("a/g", "team", Ok(Secret::new("hunter2"))),
        ];
        keys.extend((0..7).map(|n| kept("a/g", &n.to_string(), Err(Unavailable::OtherMasterKey))));
        let kept = Kept::new(true, None, keys);
        assert_eq!(
            (
                kept.of("").len(),
                kept.of("a/g").len(),
                kept.of("b/g").len()
            ),
            (1, 8, 0)
        );
        let told = kept.warnings();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("openai `4` of a/g and 2 more): they are encrypted under another")
        );
        assert!(told[1].contains("(openai `default`): their rows were damaged"));
        assert!(!format!("{kept:?} {told:?}").contains("hunter2"));
    }
}
