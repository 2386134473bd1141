use serde_json::json;

use super::*;
use crate::auth::digest_of;
use crate::keys::table::{Gate, Refused};

fn definition(said: Value) -> Definition {
    definition::read(&said, 0).unwrap()
}

/// Whether the text lets pass the gateway `a/g` at `now`, by whose name.
fn pass(keys: &Keys, text: &str, now: i64) -> Result<Box<str>, Refused> {
    let gate = Gate {
        account: "a",
        gateway: "g",
        now,
    };
    let table = keys.table();
    let found = table.pass(text.as_bytes(), &digest_of(text.as_bytes()), gate);
    found.map(|consumer| consumer.name.clone())
}

/// Waits for the thread of `keys` to see what another process did.
fn eventually(keys: &Keys, text: &str, expected: &Result<Box<str>, Refused>) {
    while pass(keys, text, 5) != *expected {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_key_lives_as_long_as_its_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::open(dir.path().join("keys")).unwrap();
    let (row, fresh) = keys
        .create(&definition(json!({ "name": "app" })), 1)
        .unwrap();
    assert_eq!((row.id, row.created_at), (fresh.id.clone(), 1));
    assert_eq!(pass(&keys, &fresh.text, 5), Ok("app".into()));
    let patched = keys.patch(&fresh.id, &json!({ "name": "b" }), 2).unwrap();
    assert_eq!(patched.definition["name"], "b");
    assert_eq!(pass(&keys, &fresh.text, 5), Ok("b".into()));
    let (_, second) = keys.rotate(&fresh.id, Duration::from_millis(7), 3).unwrap();
    for (text, now, good) in [
        (&second.text, 9, true),
        (&fresh.text, 9, true),
        (&second.text, 10, true),
        (&fresh.text, 10, false),
    ] {
        assert_eq!(pass(&keys, text, now).is_ok(), good, "{now}");
    }
    drop(keys);
    let keys = Keys::open(dir.path().join("keys")).unwrap();
    assert_eq!(pass(&keys, &second.text, 5), Ok("b".into()));
    let consumer = keys.table().keys[&fresh.id].consumer.clone().unwrap();
    assert_eq!(consumer.id, Some(fresh.id.clone()));
    let revoked = keys.revoke(&fresh.id, 8).unwrap();
    assert_eq!(revoked.revoked_at, Some(8));
    assert_eq!(keys.revoke(&fresh.id, 9).unwrap().revoked_at, Some(8));
    assert_eq!(pass(&keys, &second.text, 5), Err(Refused::Revoked));
    for done in [
        keys.patch(&fresh.id, &json!({}), 9).map(|_| ()),
        keys.rotate(&fresh.id, Duration::ZERO, 9).map(|_| ()),
    ] {
        assert!(matches!(done, Err(Failure::Revoked)), "{done:?}");
    }
    assert!(matches!(keys.revoke("nobody", 9), Err(Failure::NoKey)));
}

#[test]
fn two_processes_agree() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| Keys::open(dir.path().to_owned()).unwrap());
    let (_, fresh) = one
        .create(&definition(json!({ "name": "app" })), 1)
        .unwrap();
    eventually(&other, &fresh.text, &Ok("app".into()));
    other.revoke(&fresh.id, 2).unwrap();
    eventually(&one, &fresh.text, &Err(Refused::Revoked));
    forget_all(dir.path());
    eventually(&one, &fresh.text, &Err(Refused::Unknown));
}

fn forget_all(dir: &std::path::Path) {
    let file = rusqlite::Connection::open(dir.join("keys.db")).unwrap();
    file.execute("DELETE FROM keys", []).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_lets_nobody_pass_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(&path, "where a directory should be").unwrap();
    let keys = Keys::open(path.clone()).unwrap();
    assert!(keys.is_failing());
    let text = "tg-0123456789ab-x";
    assert_eq!(pass(&keys, text, 5), Err(Refused::NoStore));
    let made = keys.create(&definition(json!({ "name": "app" })), 1);
    assert!(matches!(made, Err(Failure::Store(_))));
    std::fs::remove_file(path).unwrap();
    eventually(&keys, text, &Err(Refused::Unknown));
    while keys.is_failing() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_definition_that_is_not_understood_lets_nobody_pass() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::open(dir.path().to_owned()).unwrap();
    let (_, fresh) = keys
        .create(&definition(json!({ "name": "app" })), 1)
        .unwrap();
    drop(keys);
    let file = rusqlite::Connection::open(dir.path().join("keys.db")).unwrap();
    let newer = r#"{"name":"app","access":{"moods":["calm"]}}"#;
    file.execute("UPDATE keys SET definition = ?1", [newer])
        .unwrap();
    let keys = Keys::open(dir.path().to_owned()).unwrap();
    assert_eq!(pass(&keys, &fresh.text, 5), Err(Refused::Unreadable));
}

/// Neither the file nor what is printed has a secret.
#[test]
fn no_secret_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::open(dir.path().to_owned()).unwrap();
    let (row, fresh) = keys
        .create(&definition(json!({ "name": "app" })), 1)
        .unwrap();
    let secret = fresh
        .text
        .rsplit_once(&*fresh.id)
        .unwrap()
        .1
        .trim_start_matches('-');
    assert!(!format!("{row:?} {:?}", keys.table()).contains(secret));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none());
    }
}
