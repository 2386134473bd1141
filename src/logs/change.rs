//! Changes of what is written: feedback on entries, and their removal. Done by the writer's
//! thread, a little at a time, so that new entries are written in between.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Transaction, TransactionBehavior, params_from_iter};
use uuid::Uuid;

use super::filter::Filter;
use super::filter::sql::Sql;
use super::query::{Deletion, Order, Patch};
use super::reader::{Keys, Scope};
use super::redaction::Redaction;
use super::segments::{self, Place};
use super::store::Store;
use super::writer::Database;

/// Entries removed in one step: some tens of milliseconds, most of it for their bodies.
const STEP: u64 = 200;

impl Store {
    /// Changes an entry, also one that was only just offered; `false` when there is none.
    /// Blocks until it is written. The error says why it could not be.
    pub fn patch(&self, scope: &Scope, id: Uuid, patch: Patch) -> Result<bool, String> {
        let (scope, redaction) = (scope.clone(), self.redaction());
        self.run(move |database| {
            apply(database, &scope, id, patch, &redaction).map_err(|error| error.to_string())
        })
    }

    /// Removes entries with their bodies; how many. Blocks until it is done.
    pub fn delete(&self, scope: &Scope, deletion: &Deletion) -> Result<u64, String> {
        let mut removed = 0;
        loop {
            let left = deletion
                .limit
                .map_or(STEP, |limit| STEP.min(limit - removed));
            let (scope, deletion) = (scope.clone(), deletion.clone());
            let step = self.run(move |database| {
                remove(database, &scope, &deletion.filter, deletion.order, left)
                    .map_err(|error| error.to_string())
            })?;
            removed += step;
            if step < left || left == 0 || left < STEP {
                return Ok(removed);
            }
        }
    }
}

fn apply(
    database: &Database,
    scope: &Scope,
    id: Uuid,
    patch: Patch,
    redaction: &Redaction,
) -> rusqlite::Result<bool> {
    let mut changes = vec!["id = id"];
    let mut values = Vec::new();
    if let Some(feedback) = patch.feedback {
        changes.push("feedback = ?");
        values.push(feedback.map_or(Value::Null, |feedback| Value::Integer(feedback.into())));
    }
    if let Some(score) = patch.score {
        changes.push("score = ?");
        values.push(score.map_or(Value::Null, Value::Real));
    }
    if let Some(metadata) = patch.metadata {
        let mut metadata = metadata.unwrap_or_default();
        metadata
            .0
            .iter_mut()
            .for_each(|(_, value)| redaction.metadata_value(value));
        changes.push("metadata = ?");
        values.push(metadata.json().map_or(Value::Null, Value::Text));
    }
    let sql = Sql::new(&database.connection, scope.label(), &Filter::id(id))?;
    let text = format!(
        "UPDATE entries SET {} WHERE {}",
        changes.join(", "),
        sql.text
    );
    values.extend(sql.values);
    Ok(database
        .connection
        .execute(&text, params_from_iter(values))?
        > 0)
}

/// Removes at most `limit` entries. Their bodies are erased first: a row never loses sight of
/// them.
fn remove(
    database: &mut Database,
    scope: &Scope,
    filter: &Filter,
    order: Order,
    limit: u64,
) -> rusqlite::Result<u64> {
    let Database {
        dir, connection, ..
    } = database;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = Sql::new(&transaction, scope.label(), filter)?;
    let mut keys = Vec::new();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Keys {
        sql: &sql,
        order,
        after: None,
        limit,
        offset: 0,
    }
    .read(&transaction, |key| keys.push(key))?;
    let mut blocks: BTreeMap<Place, Vec<Uuid>> = BTreeMap::new();
    for key in &keys {
        if let (id, Some(place)) = remove_row(&transaction, *key)? {
            blocks.entry(place).or_default().push(id);
        }
    }
    for (place, ids) in blocks {
        if let Err(error) = segments::erase(dir, &ids, place) {
            log::error!("the bodies of {ids:?} could not be erased at {place:?}: {error}");
        }
    }
    transaction.commit()?;
    Ok(keys.len() as u64)
}

/// Its id, and where its heads and bodies are.
fn remove_row(transaction: &Transaction, key: i64) -> rusqlite::Result<(Uuid, Option<Place>)> {
    let mut delete = transaction
        .prepare_cached("DELETE FROM entries WHERE key = ?1 RETURNING id, segment, position")?;
    delete.query_row([key], |row| {
        let id: Vec<u8> = row.get(0)?;
        let place = row.get::<_, Option<i64>>(1)?.zip(row.get(2)?);
        let place = place.map(|(segment, position)| Place { segment, position });
        Ok((Uuid::from_slice(&id).unwrap_or_default(), place))
    })
}
