//! A provider key, sealed: AES-256-GCM under the master key, with a fresh random nonce each time it
//! is written, bound to its name so that a row put in another's place does not open.
//!
//! Random nonces of 96 bits are safe for some 2^32 writes under one master key.

use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::rand::SecureRandom;

use super::master_key::{MasterKey, MasterKeys};
use super::{Name, Unavailable};
use crate::config::secret::Secret;

/// What begins the text that a sealed key is bound to: nothing else that is sealed under the same
/// master key may open as one.
const PURPOSE: &str = "tollgate provider key 1";

/// A key as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The id of the master key.
    pub key_id: Box<str>,
    /// Never the same twice.
    pub nonce: [u8; NONCE_LEN],
    /// The key and 16 bytes that prove it.
    pub ciphertext: Vec<u8>,
}

/// Seals `secret` for `name`; `None` when there is no randomness to be had.
pub fn seal(
    name: &Name,
    secret: &Secret,
    master: &MasterKey,
    random: &dyn SecureRandom,
) -> Option<Sealed> {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).ok()?;
    let mut ciphertext = secret.expose().as_bytes().to_vec();
    let bound = Aad::from(bound_to(name));
    let unique = Nonce::assume_unique_for_key(nonce);
    let sealed = master
        .key()
        .seal_in_place_append_tag(unique, bound, &mut ciphertext);
    sealed.ok()?;
    Some(Sealed {
        key_id: master.id().into(),
        nonce,
        ciphertext,
    })
}

/// Opens what was sealed for `name`.
///
/// # Errors
/// Why it cannot be opened.
pub fn open(name: &Name, sealed: &Sealed, masters: &MasterKeys) -> Result<Secret, Unavailable> {
    let missing = match masters.is_empty() {
        true => Unavailable::NoMasterKey,
        false => Unavailable::OtherMasterKey,
    };
    let master = masters.with_id(&sealed.key_id).ok_or(missing)?;
    let mut text = sealed.ciphertext.clone();
    let nonce = Nonce::assume_unique_for_key(sealed.nonce);
    let opened = master
        .key()
        .open_in_place(nonce, Aad::from(bound_to(name)), &mut text);
    let opened = opened.map_err(|_| Unavailable::Damaged)?;
    let text = std::str::from_utf8(opened).map_err(|_| Unavailable::Damaged)?;
    Ok(Secret::new(text))
}

/// Each part with its length, so that no two names give the same text.
fn bound_to(name: &Name) -> Vec<u8> {
    let Name {
        scope,
        provider,
        alias,
    } = name;
    let mut text = Vec::new();
    for part in [PURPOSE, scope, provider, alias] {
        text.extend((part.len() as u64).to_le_bytes());
        text.extend(part.as_bytes());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::provider_keys::master_key::tests::of;

    fn name(scope: &str, provider: &str, alias: &str) -> Name {
        Name {
            scope: scope.into(),
            provider: provider.into(),
            alias: alias.into(),
        }
    }

    fn having(current: MasterKey) -> MasterKeys {
        MasterKeys {
            current: Some(current),
            previous: None,
        }
    }

    fn sealed() -> (Name, Sealed) {
        let name = name("a/g", "openai", "team");
        let sealed = seal(&name, &Secret::new("hunter2"), &of(1), &SystemRandom::new());
        (name, sealed.unwrap())
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_master_key_only() {
        let (name, sealed) = sealed();
        let opened = open(&name, &sealed, &having(of(1))).unwrap();
        assert_eq!(opened.expose(), "hunter2");
        assert!(memchr::memmem::find(&sealed.ciphertext, b"hunter2").is_none());
        let with = |masters: &MasterKeys| open(&name, &sealed, masters).unwrap_err();
        assert_eq!(with(&MasterKeys::default()), Unavailable::NoMasterKey);
        assert_eq!(with(&having(of(2))), Unavailable::OtherMasterKey);
        let rotating = MasterKeys {
            current: Some(of(2)),
            previous: Some(of(1)),
        };
        assert!(open(&name, &sealed, &rotating).is_ok());
        // One that claims to be another.
        let claims = Sealed {
            key_id: of(2).id().into(),
            ..sealed.clone()
        };
        assert_eq!(
            open(&name, &claims, &having(of(2))).unwrap_err(),
            Unavailable::Damaged
        );
    }

    #[test]
    fn no_two_are_sealed_alike() {
        let (one, other) = (sealed().1, sealed().1);
        assert_ne!(one.nonce, other.nonce);
        assert_ne!(one.ciphertext, other.ciphertext);
    }

    #[test]
    fn a_row_in_anothers_place_does_not_open() {
        let (_, sealed) = sealed();
        for other in [
            name("", "openai", "team"),
            name("a/h", "openai", "team"),
            name("a/g", "openait", "eam"),
            name("a/g", "openai", "default"),
            name("a/gopenai", "", "team"),
        ] {
            let opened = open(&other, &sealed, &having(of(1)));
            assert_eq!(opened.unwrap_err(), Unavailable::Damaged, "{other:?}");
        }
    }

    #[test]
    fn one_bit_more_or_less_and_it_does_not_open() {
        let (name, sealed) = sealed();
        for place in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[place] ^= 1;
            assert!(open(&name, &changed, &having(of(1))).is_err());
        }
        let mut changed = sealed;
        changed.ciphertext.clear();
        assert!(open(&name, &changed, &having(of(1))).is_err());
    }
}
