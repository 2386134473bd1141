//! What a key looks like: `tg-<id>-<secret>`.
//!
//! The id is public: it stands in lists and logs, and finds the key. The secret is 32 random bytes.
//! It is shown once and kept only as part of the digest of the whole text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;

use crate::auth::{Digest, digest_of};

/// What every key begins with.
pub const PREFIX: &str = "tg-";
/// Characters of an id: 60 random bits.
pub const ID_LENGTH: usize = 12;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Letters and digits that nobody mistakes for each other (Crockford's, in lower case).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A key as it is shown, once.
pub struct Fresh {
    /// Its id.
    pub id: Box<str>,
    /// All of it.
    pub text: String,
}

impl Fresh {
    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        digest_of(self.text.as_bytes())
    }

    /// A new key with an id of its own.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn new(random: &dyn SecureRandom) -> Result<Self, ring::error::Unspecified> {
        let mut bytes = [0; ID_LENGTH];
        random.fill(&mut bytes)?;
        let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 32)]);
        let id: String = bytes.iter().map(letter).collect();
        Self::of(&id, random)
    }

    /// A new secret for the key with this id.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn of(id: &str, random: &dyn SecureRandom) -> Result<Self, ring::error::Unspecified> {
        let mut secret = [0; SECRET_BYTES];
        random.fill(&mut secret)?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        Ok(Self {
            id: id.into(),
            text: format!("{PREFIX}{id}-{secret}"),
        })
    }
}

/// Whether a text is, or was meant to be, one of our keys: nothing else may stand where it stands.
pub fn begins_like_one(brought: &[u8]) -> bool {
    brought.starts_with(PREFIX.as_bytes())
}

/// The id in a text that has the form of a key, its secret whole or not. Other words may begin with
/// `tg-` too.
pub fn id_in(brought: &[u8]) -> Option<&str> {
    let rest = brought.strip_prefix(PREFIX.as_bytes())?;
    let (id, behind) = rest.split_at_checked(ID_LENGTH)?;
    let is_id = id.iter().all(|byte| ALPHABET.contains(byte)) && behind.starts_with(b"-");
    std::str::from_utf8(id).ok().filter(|_| is_id)
}

/// Whether a text may be the id of a key.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_key_is_known_by_its_form_and_two_are_never_alike() {
        let random = SystemRandom::new();
        let one = Fresh::new(&random).unwrap();
        let other = Fresh::new(&random).unwrap();
        assert_eq!(one.text.len(), 3 + 12 + 1 + 43);
        assert_eq!(id_in(one.text.as_bytes()), Some(&*one.id));
        assert!(is_id(&one.id) && one.id != other.id);
        let again = Fresh::of(&one.id, &random).unwrap();
        assert!(again.id == one.id && again.text != one.text);
        assert!(again.digest() != one.digest());
    }

    #[test]
    fn also_half_a_key_is_known_and_other_words_are_not() {
        assert_eq!(id_in(b"tg-0123456789ab-"), Some("0123456789ab"));
        assert_eq!(id_in(b"tg-0123456789ab-x"), Some("0123456789ab"));
        for other in [
            "tg-",
            "tg-12345678",
            "tg-ci-0123456789abcdef",
            "tg-0123456789ab",
            "tg-0123456789abc-x",
            "tg-0123456789aB-x",
            "sk-0123456789ab-x",
            "",
        ] {
            assert_eq!(id_in(other.as_bytes()), None, "{other}");
        }
    }
}
