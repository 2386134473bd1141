use ring::rand::SystemRandom;

use super::*;
use crate::config::secret::Secret;
use crate::provider_keys::Unavailable;
use crate::provider_keys::master_key::tests::of;

const SECRET: &str = "sk-hunter2-hunter2-hunter2-wxyz";

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    masters: MasterKeys,
    random: SystemRandom,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::below(dir.path()),
            dir,
            masters: having(Some(1), None),
            random: SystemRandom::new(),
        }
    }

    fn with(&self, now: i64) -> Entropy<'_> {
        Entropy {
            masters: &self.masters,
            random: &self.random,
            now,
        }
    }

    fn add(&self, scope: &str, alias: &str, secret: &str) -> Result<Entry, Refusal> {
        let new = New {
            id: Uuid::now_v7(),
            name: Name {
                scope: scope.into(),
                provider: "openai".into(),
                alias: alias.into(),
            },
            weight: 0,
            secret: &Secret::new(secret),
        };
        self.store.add(&new, &self.with(1000))
    }

    /// What `load` finds of a scope: alias, and the secret or why there is none.
    fn loaded(&self, scope: &str) -> Vec<(String, Result<String, Unavailable>)> {
        let kept = self.store.load(&self.masters).unwrap();
        let keys = kept.of(scope).iter();
        keys.map(|key| {
            let secret = key.secret.clone().map(|secret| secret.expose().to_owned());
            (key.name.alias.to_string(), secret)
        })
        .collect()
    }

    /// All bytes of all files of the store.
    fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.dir.path().join("provider-keys")).unwrap();
        let content = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        content.collect::<Vec<_>>().concat()
    }
}

fn having(current: Option<u8>, previous: Option<u8>) -> MasterKeys {
    MasterKeys {
        current: current.map(of),
        previous: previous.map(of),
    }
}

fn id(entry: &Entry) -> Uuid {
    entry.id.parse().unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[test]
fn what_is_stored_is_found_again_and_lies_there_encrypted() {
    let place = Place::new();
    assert!(!place.store.load(&MasterKeys::default()).unwrap().in_use);
    let added = place.add("a/g", "team", SECRET).unwrap();
    place.add("", "default", "short").unwrap();
    assert_eq!((added.preview.as_str(), added.created_at), ("wxyz", 1000));
    assert_eq!(place.loaded("a/g"), [("team".into(), Ok(SECRET.into()))]);
    assert_eq!(place.loaded(""), [("default".into(), Ok("short".into()))]);
    let listed = place.store.list(None).unwrap();
    assert_eq!(listed[0].preview, "");
    assert_eq!(listed[1], added);
    assert_eq!(
        place.store.list(Some("a/g")).unwrap(),
        std::slice::from_ref(&added)
    );
    assert_eq!(
        place.store.get(Some("a/g"), id(&added)).unwrap(),
        Some(added.clone())
    );
    assert_eq!(place.store.get(Some(""), id(&added)).unwrap(), None);
    let bytes = place.bytes();
    assert!(has(&bytes, "team") && !has(&bytes, "hunter2"));
    let mode = std::fs::metadata(&place.store.dir).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// While somebody has it open the newest pages are in the WAL only.
#[test]
fn the_wal_has_no_secret_either() {
    let place = Place::new();
    place.add("", "default", "x").unwrap();
    let mut looking = None;
    place.store.look(&mut looking).unwrap();
    place.add("", "team", SECRET).unwrap();
    assert!(place.store.dir.join("provider-keys.db-wal").exists());
    assert!(!has(&place.bytes(), "hunter2"));
}

#[test]
fn a_key_gets_another_secret_or_another_weight() {
    let place = Place::new();
    let added = place.add("", "default", SECRET).unwrap();
    let id = id(&added);
    let update = |scope, secret: Option<&Secret>, weight| {
        place
            .store
            .update(scope, id, secret, weight, &place.with(2000))
            .unwrap()
    };
    let other = Secret::new("sk-another-another-abcd");
    let updated = update(None, Some(&other), None).unwrap();
    assert_eq!((updated.preview.as_str(), updated.weight), ("abcd", 0));
    assert_eq!((updated.created_at, updated.modified_at), (1000, 2000));
    assert_eq!(update(Some(""), None, Some(3)).unwrap().weight, 3);
    assert_eq!(
        place.loaded(""),
        [("default".into(), Ok(other.expose().into()))]
    );
    assert_eq!(update(Some("a/g"), None, Some(4)), None, "it is not theirs");
    assert_eq!(
        place.store.remove(Some("a/g"), id, &place.with(0)).unwrap(),
        None
    );
    assert!(
        place
            .store
            .remove(None, id, &place.with(0))
            .unwrap()
            .is_some()
    );
    assert_eq!(place.store.remove(None, id, &place.with(0)).unwrap(), None);
    assert!(place.loaded("").is_empty());
}

#[test]
fn a_name_is_there_once() {
    let place = Place::new();
    place.add("", "default", "x").unwrap();
    let again = place.add("", "default", "y").unwrap_err();
    assert!(matches!(again, Refusal::Exists(_)), "{again}");
    assert_eq!(place.loaded(""), [("default".into(), Ok("x".into()))]);
    place.add("a/g", "default", "y").unwrap();
}

#[test]
fn without_the_right_master_key_nothing_opens_and_nothing_is_written() {
    let mut place = Place::new();
    let added = place.add("", "default", SECRET).unwrap();
    for (masters, cause, refused) in [
        (
            having(None, None),
            Unavailable::NoMasterKey,
            "nothing can be stored without",
        ),
        (
            having(Some(2), None),
            Unavailable::OtherMasterKey,
            "1 of the stored keys are encrypted",
        ),
    ] {
        place.masters = masters;
        assert_eq!(place.loaded(""), [("default".into(), Err(cause))]);
        let said = place.add("", "team", "y").unwrap_err().to_string();
        assert!(said.starts_with(refused), "{said}");
        let said = place
            .store
            .reencrypt(&place.with(0))
            .unwrap_err()
            .to_string();
        assert!(said.starts_with(refused), "{said}");
    }
    // The way out when the master key is lost.
    assert!(
        place
            .store
            .remove(None, id(&added), &place.with(0))
            .unwrap()
            .is_some()
    );
    place.add("", "team", "y").unwrap();
}

#[test]
fn another_master_key_takes_the_place_of_one() {
    let mut place = Place::new();
    for alias in ["one", "two", "three"] {
        place.add("", alias, alias).unwrap();
    }
    place.masters = having(Some(2), Some(1));
    place.add("", "four", "four").unwrap();
    assert_eq!(place.store.reencrypt(&place.with(0)).unwrap(), 3);
    assert_eq!(place.store.reencrypt(&place.with(0)).unwrap(), 0);
    place.masters = having(Some(2), None);
    for (alias, secret) in place.loaded("") {
        assert_eq!(secret, Ok(alias));
    }
}

#[test]
fn one_that_does_not_open_keeps_all_under_the_old_master_key() {
    let mut place = Place::new();
    for alias in ["one", "two"] {
        place.add("", alias, alias).unwrap();
    }
    let connection = place.store.open().unwrap();
    let swap = "UPDATE keys SET ciphertext = x'00' WHERE alias = 'two'";
    connection.execute(swap, []).unwrap();
    let before = place.store.list(None).unwrap();
    place.masters = having(Some(2), Some(1));
    let said = place.store.reencrypt(&place.with(0)).unwrap_err();
    assert!(matches!(said, Refusal::Damaged(_)), "{said}");
    assert_eq!(place.store.list(None).unwrap(), before);
}

#[test]
fn every_change_is_seen_and_nothing_else() {
    let place = Place::new();
    let mut looking = None;
    let mut look = || place.store.look(&mut looking).unwrap();
    assert_eq!(look(), None);
    let added = place.add("", "default", "x").unwrap();
    let first = look();
    assert_eq!(first, place.store.load(&place.masters).unwrap().seen);
    assert_eq!(look(), first);
    place.store.list(None).unwrap();
    assert_eq!(look(), first);
    place
        .store
        .update(None, id(&added), None, Some(2), &place.with(0))
        .unwrap();
    let second = look();
    assert_ne!(second, first);
    place
        .store
        .remove(None, id(&added), &place.with(0))
        .unwrap();
    assert_ne!(look(), second);
}

#[test]
fn another_file_in_its_place_is_seen() {
    let (place, other) = (Place::new(), Place::new());
    for place in [&place, &other] {
        place.add("", "default", "x").unwrap();
    }
    let mut looking = None;
    let first = place.store.look(&mut looking).unwrap();
    std::fs::rename(
        DATABASE.path(&other.store.dir),
        DATABASE.path(&place.store.dir),
    )
    .unwrap();
    let second = place.store.look(&mut looking).unwrap();
    assert!(second.is_some() && second != first);
}

#[test]
fn a_key_may_be_set_whether_it_is_there_or_not() {
    let place = Place::new();
    let set = |secret: &str, weight, keep| {
        let new = New {
            id: Uuid::now_v7(),
            name: Name {
                scope: "".into(),
                provider: "openai".into(),
                alias: "team".into(),
            },
            weight,
            secret: &Secret::new(secret),
        };
        place.store.set(&new, keep, &place.with(0)).unwrap()
    };
    let first = set("one", 3, false);
    let second = set("two", 0, true);
    assert_eq!((&second.id, second.weight), (&first.id, 3));
    assert_eq!(set("two", 0, false).weight, 0);
    assert_eq!(place.loaded(""), [("team".into(), Ok("two".into()))]);
}
