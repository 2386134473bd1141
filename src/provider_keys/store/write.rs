//! Changing what is kept: a key stored, changed or removed, and all of them encrypted under another
//! master key. Time, ids and chance are the caller's.

use ring::rand::SecureRandom;
use rusqlite::{OptionalExtension, Params, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::{COLUMNS, DATABASE, Entry, MAX_KEYS, Refusal, Store, entry, find, name, sealed};
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
        self.write(with, |writing| match writing.named(&new.name)? {
            Some(_) => Err(Refusal::Exists(new.name.clone())),
            None => writing.insert(new),
        })
    }

    /// Stores a key, in place of the one of this name if there is one; that keeps its id, and its
    /// weight where `keep_weight` says so.
    ///
    /// # Errors
    /// Why nothing was stored.
    pub fn set(
        &self,
        new: &New<'_>,
        keep_weight: bool,
        with: &Entropy<'_>,
    ) -> Result<Entry, Refusal> {
        let weight = (!keep_weight).then_some(new.weight);
        self.write(with, |writing| match writing.named(&new.name)? {
            Some(entry) => writing.replace(entry, Some(new.secret), weight),
            None => writing.insert(new),
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
        self.write(with, |writing| {
            let found = writing.told(find(writing.transaction, scope, id))?;
            let replace = |entry| writing.replace(entry, secret, weight);
            found.map(replace).transpose()
        })
    }

    /// Removes a key, also one that does not open; `None` when it is not there.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn remove(
        &self,
        scope: Option<&str>,
        id: Uuid,
        with: &Entropy<'_>,
    ) -> Result<Option<Entry>, Refusal> {
        if !DATABASE.path(&self.dir).exists() {
            return Ok(None);
        }
        self.write(with, |writing| {
            let found = writing.told(find(writing.transaction, scope, id))?;
            if let Some(entry) = &found {
                writing.execute("DELETE FROM keys WHERE id = ?1", [&entry.id])?;
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
        self.write(with, |writing| {
            let master = writing.master()?;
            let old = writing.told(under_another(writing.transaction, master))?;
            for (id, name, sealed) in &old {
                let secret = seal::open(name, sealed, with.masters);
                let secret = secret.map_err(|_| Refusal::Damaged(name.clone()))?;
                writing.put(id, &writing.seal(name, &secret)?)?;
            }
            Ok(old.len())
        })
    }

    /// Does `work` in one transaction that is there whole or not at all.
    fn write<T>(
        &self,
        with: &Entropy<'_>,
        work: impl FnOnce(&Writing<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut connection = self.open().map_err(Refusal::File)?;
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = self.told(begun).map_err(Refusal::File)?;
        let done = work(&Writing {
            store: self,
            transaction: &transaction,
            with,
        })?;
        self.told(transaction.commit()).map_err(Refusal::File)?;
        Ok(done)
    }
}

/// A transaction that changes something.
struct Writing<'a> {
    store: &'a Store,
    transaction: &'a Transaction<'a>,
    with: &'a Entropy<'a>,
}

impl Writing<'_> {
    fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, Refusal> {
        self.store.told(result).map_err(Refusal::File)
    }

    fn execute(&self, statement: &str, values: impl Params) -> Result<(), Refusal> {
        let done = self.transaction.execute(statement, values);
        self.told(done).map(drop)
    }

    fn count(&self, select: &str, values: impl Params) -> Result<i64, Refusal> {
        let count = self.transaction.query_row(select, values, |row| row.get(0));
        self.told(count)
    }

    /// What to encrypt under. Not while there are keys under a master key that is not there: the
    /// one that is there is then most probably the wrong one.
    fn master(&self) -> Result<&MasterKey, Refusal> {
        let masters = self.with.masters;
        let master = masters.current.as_ref().ok_or(Refusal::NoMasterKey)?;
        let previous = masters.previous.as_ref().unwrap_or(master);
        let strange = "SELECT COUNT(*) FROM keys WHERE key_id NOT IN (?1, ?2)";
        match self.count(strange, [master.id(), previous.id()])? {
            0 => Ok(master),
            count => Err(Refusal::OtherMasterKey(count)),
        }
    }

    fn seal(&self, name: &Name, secret: &Secret) -> Result<Sealed, Refusal> {
        let sealed = seal::seal(name, secret, self.master()?, self.with.random);
        sealed.ok_or(Refusal::NoRandomness)
    }

    fn named(&self, name: &Name) -> Result<Option<Entry>, Refusal> {
        let Name {
            scope,
            provider,
            alias,
        } = name;
        let select =
            format!("SELECT {COLUMNS} FROM keys WHERE scope = ?1 AND provider = ?2 AND alias = ?3");
        let names = (scope, provider, alias);
        let found = self.transaction.query_row(&select, names, entry);
        self.told(found.optional())
    }

    fn insert(&self, new: &New<'_>) -> Result<Entry, Refusal> {
        let sealed = self.seal(&new.name, new.secret)?;
        if self.count("SELECT COUNT(*) FROM keys", [])? >= MAX_KEYS {
            return Err(Refusal::Full);
        }
        let entry = Entry {
            id: new.id.to_string(),
            name: new.name.clone(),
            weight: new.weight,
            preview: preview(new.secret),
            key_id: sealed.key_id.to_string(),
            created_at: self.with.now,
            modified_at: self.with.now,
        };
        self.execute(
            "INSERT INTO keys (id, scope, provider, alias, weight, key_id, nonce, ciphertext,
                               preview, created_at, modified_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
            params![
                entry.id,
                entry.name.scope,
                entry.name.provider,
                entry.name.alias,
                entry.weight,
                sealed.key_id,
                sealed.nonce,
                sealed.ciphertext,
                entry.preview,
                self.with.now,
            ],
        )?;
        Ok(entry)
    }

    fn replace(
        &self,
        mut entry: Entry,
        secret: Option<&Secret>,
        weight: Option<u32>,
    ) -> Result<Entry, Refusal> {
        if let Some(secret) = secret {
            let sealed = self.seal(&entry.name, secret)?;
            self.put(&entry.id, &sealed)?;
            entry.key_id = sealed.key_id.into();
            entry.preview = preview(secret);
        }
        entry.weight = weight.unwrap_or(entry.weight);
        entry.modified_at = self.with.now;
        self.execute(
            "UPDATE keys SET preview = ?2, weight = ?3, modified_at = ?4 WHERE id = ?1",
            (&entry.id, &entry.preview, entry.weight, entry.modified_at),
        )?;
        Ok(entry)
    }

    fn put(&self, id: &str, sealed: &Sealed) -> Result<(), Refusal> {
        self.execute(
            "UPDATE keys SET key_id = ?2, nonce = ?3, ciphertext = ?4 WHERE id = ?1",
            params![id, sealed.key_id, sealed.nonce, sealed.ciphertext],
        )
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
