//! All keys in memory: what a request looks in. Immutable; a change makes a new one, which shares the
//! keys that stayed as they were.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use subtle::{Choice, ConstantTimeEq};

use super::secret;
use crate::auth::{Consumer, Digest};
use crate::pattern;

/// What a digest is compared with where there is none: no text has it that anybody could find.
const NOBODYS: Digest = [0; 32];

/// A key, as far as requests need it. Times are milliseconds since 1970.
#[derive(Clone)]
pub struct Key {
    /// Its public id.
    pub id: Box<str>,
    /// When it was made.
    pub created_at: i64,
    pub(super) digest: Digest,
    /// The secret before the last rotation, and until when it still works.
    pub(super) previous: Option<(Digest, i64)>,
    /// `None`: all.
    pub(super) account: Option<Box<str>>,
    pub(super) gateways: Box<[Box<str>]>,
    pub(super) expires_at: Option<i64>,
    pub(super) revoked_at: Option<i64>,
    /// Who passes by it; `None` where what the file says of it cannot be read, such as the bounds
    /// that a newer tollgate wrote. Then nobody does, rather than somebody without bounds.
    pub(super) consumer: Option<Arc<Consumer>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "key {}", self.id)
    }
}

/// Why a key does not let a request pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody has it, or not with this secret.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// It is for other gateways.
    NotOfThisGateway,
    /// What the store says of it cannot be read.
    Unreadable,
    /// The store cannot be read.
    NoStore,
}

impl Refused {
    /// What its client is told.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unknown => "Unauthorized: this API key is unknown",
            Self::Revoked => "Unauthorized: this API key has been revoked",
            Self::Expired => "Unauthorized: this API key has expired",
            Self::NotOfThisGateway => "Unauthorized: this API key is not of this gateway",
            Self::Unreadable => {
                "Unauthorized: this API key cannot be used: its definition cannot be read; the gateway's log says why"
            }
            Self::NoStore => {
                "Unauthorized: API keys cannot be checked right now: their store cannot be opened"
            }
        }
    }
}

/// All keys.
#[derive(Debug, Default, Clone)]
pub struct Table {
    pub(super) keys: AHashMap<Box<str>, Arc<Key>>,
    /// There was no store to read them from.
    pub(super) is_missing: bool,
}

/// Which gateway is to be passed, and when.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// Its account.
    pub account: &'a str,
    /// Its id.
    pub gateway: &'a str,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl Table {
    /// One for when there is no store.
    pub fn missing() -> Self {
        Self {
            is_missing: true,
            ..Self::default()
        }
    }

    /// How many keys there are, revoked ones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Who passes `gate` by what was brought, which has the digest.
    ///
    /// # Errors
    /// Why it does not let pass.
    pub fn pass(
        &self,
        brought: &[u8],
        digest: &Digest,
        gate: Gate<'_>,
    ) -> Result<&Arc<Consumer>, Refused> {
        if self.is_missing {
            return Err(Refused::NoStore);
        }
        let key = secret::id_in(brought).and_then(|id| self.keys.get(id));
        // The same way whether there is one or not.
        let current = key.map_or(&NOBODYS, |key| &key.digest);
        let previous = key.and_then(|key| key.previous.as_ref());
        let previous = previous.filter(|(_, until)| gate.now < *until);
        let previous = previous.map_or(&NOBODYS, |(digest, _)| digest);
        let is_its: Choice = digest.ct_eq(current) | digest.ct_eq(previous);
        let key = key.filter(|_| is_its.into()).ok_or(Refused::Unknown)?;
        key.lets_pass(gate)
    }

    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        self.keys.get(id).map(|key| &**key)
    }

    /// The ids of the keys for which this holds, the newest first.
    pub fn newest(&self, holds: impl Fn(&Key) -> bool) -> Vec<Box<str>> {
        let mut found: Vec<_> = self.keys.values().filter(|key| holds(key)).collect();
        found.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
        found.into_iter().map(|key| key.id.clone()).collect()
    }
}

impl Key {
    fn lets_pass(&self, gate: Gate<'_>) -> Result<&Arc<Consumer>, Refused> {
        if self.revoked_at.is_some() {
            return Err(Refused::Revoked);
        }
        let consumer = self.consumer.as_ref().ok_or(Refused::Unreadable)?;
        if self.expires_at.is_some_and(|end| end <= gate.now) {
            return Err(Refused::Expired);
        }
        match self.is_of(gate.account) && self.may_pass(gate.gateway) {
            true => Ok(consumer),
            false => Err(Refused::NotOfThisGateway),
        }
    }

    /// Whether it is for gateways of this account.
    pub fn is_of(&self, account: &str) -> bool {
        self.account.as_deref().is_none_or(|own| own == account)
    }

    /// Whether it is for the gateway with this id, of its account.
    pub fn may_pass(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|own| pattern::fits(own, gateway))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::digest_of;

    const TEXT: &str = "tg-0123456789ab-secret";

    fn key() -> Key {
        Key {
            id: "0123456789ab".into(),
            created_at: 1,
            digest: digest_of(TEXT.as_bytes()),
            previous: None,
            account: Some("a".into()),
            gateways: ["team-*".into()].into(),
            expires_at: Some(1_000),
            revoked_at: None,
            consumer: Some(Arc::new(Consumer::named("app"))),
        }
    }

    fn pass(key: Key, text: &str, gate: (&str, &str, i64)) -> Result<Box<str>, Refused> {
        let keys = [(key.id.clone(), Arc::new(key))].into_iter().collect();
        let table = Table {
            keys,
            is_missing: false,
        };
        let (account, gateway, now) = gate;
        let gate = Gate {
            account,
            gateway,
            now,
        };
        let digest = digest_of(text.as_bytes());
        let found = table.pass(text.as_bytes(), &digest, gate);
        found.map(|consumer| consumer.name.clone())
    }

    #[test]
    fn a_key_lets_pass_where_and_while_it_is_good() {
        let good = ("a", "team-x", 999);
        assert_eq!(pass(key(), TEXT, good), Ok("app".into()));
        for (key, text, gate, expected) in [
            (key(), "tg-0123456789ab-other", good, Refused::Unknown),
            (key(), "tg-0123456789ax-secret", good, Refused::Unknown),
            (key(), "tg-short", good, Refused::Unknown),
            (key(), TEXT, ("a", "team-x", 1_000), Refused::Expired),
            (key(), TEXT, ("b", "team-x", 1), Refused::NotOfThisGateway),
            (key(), TEXT, ("a", "tea", 1), Refused::NotOfThisGateway),
            (
                Key {
                    revoked_at: Some(2),
                    ..key()
                },
                TEXT,
                good,
                Refused::Revoked,
            ),
            (
                Key {
                    consumer: None,
                    ..key()
                },
                TEXT,
                good,
                Refused::Unreadable,
            ),
        ] {
            assert_eq!(pass(key, text, gate), Err(expected), "{text} {gate:?}");
        }
        let everywhere = Key {
            account: None,
            gateways: ["*".into()].into(),
            expires_at: None,
            ..key()
        };
        assert!(pass(everywhere, TEXT, ("z", "y", i64::MAX)).is_ok());
    }

    #[test]
    fn an_old_secret_works_for_its_time_of_grace() {
        const OLD: &str = "tg-0123456789ab-before";
        let rotated = Key {
            previous: Some((digest_of(OLD.as_bytes()), 500)),
            ..key()
        };
        assert!(pass(rotated.clone(), TEXT, ("a", "team-", 499)).is_ok());
        assert!(pass(rotated.clone(), OLD, ("a", "team-", 499)).is_ok());
        let late = pass(rotated, OLD, ("a", "team-", 500));
        assert_eq!(late, Err(Refused::Unknown));
    }

    #[test]
    fn without_a_store_no_key_is_good() {
        let gate = Gate {
            account: "a",
            gateway: "team-x",
            now: 1,
        };
        let table = Table::missing();
        let refused = table.pass(TEXT.as_bytes(), &digest_of(TEXT.as_bytes()), gate);
        assert_eq!(refused.unwrap_err(), Refused::NoStore);
    }
}
