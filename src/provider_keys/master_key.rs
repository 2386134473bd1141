//! The key under which stored provider keys are encrypted: 32 bytes, from the configuration or from
//! a credential of systemd.
//!
//! While one takes the place of another, the previous one still opens what is sealed under it.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

use crate::config::secret::Secret;
use crate::config::{Environment, Problem, schema};

/// Bytes of a master key.
const LENGTH: usize = 32;

/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The file there that is looked for where the configuration names no master key.
const CREDENTIAL: &str = "tollgate-master-key";
/// The same for the previous one.
const PREVIOUS_CREDENTIAL: &str = "tollgate-previous-master-key";

/// A master key.
pub struct MasterKey {
    id: Box<str>,
    key: LessSafeKey,
}

/// Those that a process has.
#[derive(Debug, Default)]
pub struct MasterKeys {
    /// What keys are sealed under; without it nothing can be stored.
    pub current: Option<MasterKey>,
    /// What they may still be sealed under.
    pub previous: Option<MasterKey>,
}

impl MasterKey {
    /// Reads 64 hexadecimal digits, or base64 of 32 bytes (either alphabet, padded or not).
    ///
    /// # Errors
    /// Says what a master key looks like, and nothing of this one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = hex(text).or_else(|| from_base64(text));
        let wrong = || {
            "must be 32 bytes, as 64 hexadecimal digits or in base64; make one with `openssl rand -hex 32`"
                .to_owned()
        };
        let bytes = bytes.ok_or_else(wrong)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| wrong())?;
        Ok(Self {
            id: id(&bytes),
            key: LessSafeKey::new(key),
        })
    }

    /// Tells it from others, and nothing about it: rows say by it what they are sealed under, so
    /// that a wrong master key is known for one before anything is opened.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn key(&self) -> &LessSafeKey {
        &self.key
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("MasterKey").field(&self.id).finish()
    }
}

impl MasterKeys {
    /// Those that `secrets` names, or else those that systemd put into its directory, which
    /// `environment` tells.
    ///
    /// # Errors
    /// Each mistake by its path.
    pub fn find(
        secrets: &schema::Secrets,
        environment: Environment<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let schema::Secrets {
            master_key,
            previous_master_key,
        } = secrets;
        let mut problems = Vec::new();
        let mut find = |field: &str, configured: &Option<Secret>, credential| {
            let found = match configured {
                Some(secret) => secret.read().map(Some),
                None => given_by_systemd(environment, credential),
            };
            let parse = |secret: Secret| MasterKey::parse(secret.expose());
            let key = found.and_then(|found| found.map(parse).transpose());
            key.unwrap_or_else(|message| {
                problems.push(Problem::new(format!("secrets.{field}"), message));
                None
            })
        };
        let current = find("master_key", master_key, CREDENTIAL);
        let previous = find(
            "previous_master_key",
            previous_master_key,
            PREVIOUS_CREDENTIAL,
        );
        if problems.is_empty() && current.is_none() && previous.is_some() {
            let message = "is missing beside a previous one: nothing could be stored";
            problems.push(Problem::new("secrets.master_key", message));
        }
        match problems.is_empty() {
            true => Ok(Self { current, previous }),
            false => Err(problems),
        }
    }

    /// The one with this id.
    pub fn with_id(&self, id: &str) -> Option<&MasterKey> {
        let mut all = self.current.iter().chain(&self.previous);
        all.find(|key| *key.id == *id)
    }

    /// Whether there is one at all.
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }
}

/// The content of a credential of systemd, if there is such a one.
fn given_by_systemd(
    environment: Environment<'_>,
    credential: &str,
) -> Result<Option<Secret>, String> {
    let Some(directory) = environment(CREDENTIALS) else {
        return Ok(None);
    };
    let file = Path::new(&directory).join(credential);
    match file.exists() {
        true => Secret::from_file(&file).map(Some),
        false => Ok(None),
    }
}

fn id(bytes: &[u8; LENGTH]) -> Box<str> {
    let digest = blake3::derive_key("tollgate 2026-11 provider keys, id of a master key", bytes);
    blake3::Hash::from_bytes(digest).to_hex()[..32].into()
}

fn hex(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    if text.len() != 2 * LENGTH || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn from_base64(text: &str) -> Option<[u8; LENGTH]> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())?
        .try_into()
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1dfeff";

    /// A master key of equal bytes.
    pub fn of(byte: u8) -> MasterKey {
        MasterKey::parse(&format!("{byte:02x}").repeat(LENGTH)).unwrap()
    }

    fn find(secrets: &str, directory: &str) -> Result<MasterKeys, String> {
        let config = crate::config::load::parse(&format!("secrets: {secrets}"), &|_| None).unwrap();
        let environment =
            |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.to_owned());
        let found = MasterKeys::find(&config.secrets, &environment);
        found.map_err(|problems| {
            problems
                .iter()
                .map(|problem| format!("{problem}\n"))
                .collect()
        })
    }

    #[test]
    fn one_key_has_many_spellings_and_one_id() {
        let id = MasterKey::parse(HEX).unwrap().id().to_owned();
        assert_eq!(id.len(), 32);
        assert!(!HEX.contains(&id));
        for text in [
            &*HEX.to_uppercase(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd/v8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd/v8",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd_v8",
        ] {
            assert_eq!(MasterKey::parse(text).unwrap().id(), id, "{text}");
        }
        assert_ne!(of(1).id(), of(2).id());
        for wrong in [
            "",
            "hunter2",
            &HEX[2..],
            &format!("{HEX}00"),
            "é".repeat(32).as_str(),
        ] {
            let said = MasterKey::parse(wrong).unwrap_err();
            assert!(said.starts_with("must be 32 bytes"), "{said}");
        }
    }

    #[test]
    fn the_configured_one_goes_before_the_credential() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        assert!(find("{}", place).unwrap().is_empty());
        std::fs::write(directory.path().join(CREDENTIAL), format!("{HEX}\n")).unwrap();
        let given = find("{}", place).unwrap();
        assert_eq!(
            given.current.unwrap().id(),
            MasterKey::parse(HEX).unwrap().id()
        );
        let configured = format!("{{ master_key: '{}' }}", "07".repeat(32));
        assert_eq!(
            find(&configured, place).unwrap().current.unwrap().id(),
            of(7).id()
        );
        let by_file = format!("{{ master_key: 'file:{place}/{CREDENTIAL}' }}");
        assert!(!find(&by_file, "/nowhere").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_told_by_their_path() {
        for (secrets, expected) in [
            (
                "{ master_key: hunter2 }",
                "secrets.master_key: must be 32 bytes",
            ),
            (
                "{ master_key: 'file:/nowhere/k' }",
                "secrets.master_key: secret file `/nowhere/k`",
            ),
            (
                &*format!("{{ previous_master_key: '{HEX}' }}"),
                "secrets.master_key: is missing beside a previous one",
            ),
            (
                &*format!("{{ master_key: '{HEX}', previous_master_key: hunter2 }}"),
                "secrets.previous_master_key: must be 32 bytes",
            ),
        ] {
            let said = find(secrets, "/nowhere").unwrap_err();
            assert!(
                said.starts_with(expected) && !said.contains("hunter2"),
                "{said}"
            );
        }
    }

    #[test]
    fn printing_one_prints_no_secret() {
        let printed = format!("{:?}", MasterKey::parse(HEX).unwrap());
        assert!(
            !printed.contains(&HEX[..8]) && !printed.contains("0, 1, 2, 3"),
            "{printed}"
        );
    }
}
