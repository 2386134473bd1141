//! Changing what is kept: a key stored, changed or removed, and all of them encrypted under another
//! master key. Time, ids and chance are the caller's.

use ring::rand::SecureRandom;
use rusqlite::{Transaction, params};
use uuid::Uuid;

use super::{DATABASE, Entry, MAX_KEYS, Refusal, Store, find, name, sealed};
use crate::config::secret::Secret;
use crate::provider_keys::Name;
use crate::provider_keys::master_key::{MasterKey, MasterKeys};
use crate::provider_keys::seal::{self, Sealed};

/// The shortest secret of which anything is shown, in characters.
const SHOWN_FROM: usize = 16;
/// How much of it: the end.
const SHOWN: usize = 4;

/// A key to be stored.
#[derive(Debug)]
pub struct New<'a> {
    /// Its id, of a kind that is never the same twice.
    pub id: Uuid,
    /// Whose it is.
    pub name: Name,
    /// Its share of the pool's requests; 0 when it is not in the pool.
    pub weight: u32,
    /// The key itself.
    pub secret: &'a Secret,
}

/// What writing needs beside what is written.
pub struct Entropy<'a> {
    /// What it is encrypted under.
    pub masters: &'a MasterKeys,
    /// Nonces come from here.
    pub random: &'a dyn SecureRandom,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl Store {
    /// Stores a key whose name is not there yet.
    ///
    /// # Errors
    /// Why nothing was stored.
    pub fn add(&self, new: &New<'_>, with: &Entropy<'_>) -> Result<Entry, Refusal> {
        self.change(|transaction| {
            let master = writable(self, transaction, with.masters)?;
            let count = self.count(transaction, "SELECT COUNT(*) FROM keys")?;
            if count >= MAX_KEYS {
                return Err(Refusal::Full);
            }
            let sealed = seal::seal(&new.name, new.secret, master, with.random);
            let sealed = sealed.ok_or(Refusal::NoRandomness)?;
            let inserted = transaction.execute(
                "INSERT INTO keys (id, scope, provider, alias, weight, key_id, nonce, ciphertext,
                                   preview, created_at, modified_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)
                 ON CONFLICT (scope, provider, alias) DO NOTHING",
                params![
                    new.id.to_string(),
                    new.name.scope,
                    new.name.provider,
                    new.name.alias,
                    new.weight,
                    sealed.key_id,
                    sealed.nonce,
                    sealed.ciphertext,
                    preview(new.secret),
                    with.now,
                ],
            );
            if self.told(inserted).map_err(Refusal::File)? == 0 {
                return Err(Refusal::Exists(new.name.clone()));
            }
            let found = find(transaction, None, new.id);
            let found = self.told(found).map_err(Refusal::File)?;
            found.ok_or_else(|| Refusal::Exists(new.name.clone()))
        })
    }

    /// Gives a key another secret, another weight, or both; `None` when it is not there.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn update(
        &self,
        scope: Option<&str>,
        id: Uuid,
        secret: Option<&Secret>,
        weight: Option<u32>,
        with: &Entropy<'_>,
    ) -> Result<Option<Entry>, Refusal> {
        self.change(|transaction| {
            let get = || {
                self.told(find(transaction, scope, id))
                    .map_err(Refusal::File)
            };
            let Some(entry) = get()? else { return Ok(None) };
            if let Some(secret) = secret {
                let master = writable(self, transaction, with.masters)?;
                let sealed = seal::seal(&entry.name, secret, master, with.random);
                let sealed = sealed.ok_or(Refusal::NoRandomness)?;
                self.put(transaction, &entry.id, &sealed)?;
                let shown = "UPDATE keys SET preview = ?2 WHERE id = ?1";
                let shown = transaction.execute(shown, (&entry.id, preview(secret)));
                self.told(shown).map_err(Refusal::File)?;
            }
            let changed = transaction.execute(
                "UPDATE keys SET weight = ?2, modified_at = ?3 WHERE id = ?1",
                (&entry.id, weight.unwrap_or(entry.weight), with.now),
            );
            self.told(changed).map_err(Refusal::File)?;
            get()
        })
    }

    /// Removes a key, also one that does not open; `None` when it is not there.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn remove(&self, scope: Option<&str>, id: Uuid) -> Result<Option<Entry>, Refusal> {
        if !DATABASE.path(&self.dir).exists() {
            return Ok(None);
        }
        self.change(|transaction| {
            let found = self
                .told(find(transaction, scope, id))
                .map_err(Refusal::File)?;
            if let Some(entry) = &found {
                let removed = transaction.execute("DELETE FROM keys WHERE id = ?1", [&entry.id]);
                self.told(removed).map_err(Refusal::File)?;
            }
            Ok(found)
        })
    }

    /// Encrypts under the current master key what is encrypted under the previous one, all or
    /// nothing; says how many that were.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn reencrypt(&self, with: &Entropy<'_>) -> Result<usize, Refusal> {
        if !DATABASE.path(&self.dir).exists() {
            return Ok(0);
        }
        self.change(|transaction| {
            let master = writable(self, transaction, with.masters)?;
            let old = self.told(under_another(transaction, master));
            let old = old.map_err(Refusal::File)?;
            for (id, name, sealed) in &old {
                let secret = seal::open(name, sealed, with.masters);
                let secret = secret.map_err(|_| Refusal::Damaged(name.clone()))?;
                let sealed = seal::seal(name, &secret, master, with.random);
                self.put(transaction, id, &sealed.ok_or(Refusal::NoRandomness)?)?;
            }
            Ok(old.len())
        })
    }

    fn put(&self, transaction: &Transaction<'_>, id: &str, sealed: &Sealed) -> Result<(), Refusal> {
        let done = transaction.execute(
            "UPDATE keys SET key_id = ?2, nonce = ?3, ciphertext = ?4 WHERE id = ?1",
            params![id, sealed.key_id, sealed.nonce, sealed.ciphertext],
        );
        self.told(done).map(drop).map_err(Refusal::File)
    }

    fn count(&self, transaction: &Transaction<'_>, select: &str) -> Result<i64, Refusal> {
        let count = transaction.query_row(select, [], |row| row.get(0));
        self.told(count).map_err(Refusal::File)
    }
}

/// What to encrypt under. Not while there are keys under a master key that is not there: the one
/// that is there is then most probably the wrong one.
fn writable<'a>(
    store: &Store,
    transaction: &Transaction<'_>,
    masters: &'a MasterKeys,
) -> Result<&'a MasterKey, Refusal> {
    let master = masters.current.as_ref().ok_or(Refusal::NoMasterKey)?;
    let previous = masters.previous.as_ref().unwrap_or(master);
    let strange = transaction.query_row(
        "SELECT COUNT(*) FROM keys WHERE key_id NOT IN (?1, ?2)",
        [master.id(), previous.id()],
        |row| row.get(0),
    );
    match store.told(strange).map_err(Refusal::File)? {
        0 => Ok(master),
        count => Err(Refusal::OtherMasterKey(count)),
    }
}

fn under_another(
    transaction: &Transaction<'_>,
    master: &MasterKey,
) -> rusqlite::Result<Vec<(String, Name, Sealed)>> {
    let mut select = transaction.prepare(
        "SELECT id, scope, provider, alias, key_id, nonce, ciphertext FROM keys WHERE key_id <> ?1",
    )?;
    let rows = select.query_map([master.id()], |row| {
        Ok((row.get(0)?, name(row, 1)?, sealed(row, 4)?))
    })?;
    rows.collect()
}

/// What is shown of a secret, so that people know which one it is. Of a document nothing.
fn preview(secret: &Secret) -> String {
    let text = secret.expose();
    let length = text.chars().count();
    match length >= SHOWN_FROM && !text.trim_start().starts_with('{') {
        true => text.chars().skip(length - SHOWN).collect(),
        false => String::new(),
    }
}
