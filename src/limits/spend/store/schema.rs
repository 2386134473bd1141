//! The file of budgets: its tables, and how rows are written and read.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::super::account::{AccountId, Scope};
use super::super::state::Figures;
use super::super::window::Window;
use crate::database::{Database, Problem};

/// The file. Rows are some hundred bytes.
const FILE: Database = Database {
    name: "spend.db",
    page_size: 4_096,
    tables: || VERSION_1.to_owned(),
    steps: &[],
};

/// Version 1. Money is in pico-dollars, times are seconds since 1970, values are a JSON array of
/// pairs. `born` is the order in which processes came; `parts` is the share, of 65536, that one has of
/// accounts without a row, once it shares. Changes are numbered within a process.
const VERSION_1: &str = "
    CREATE TABLE processes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        born INTEGER NOT NULL UNIQUE,
        parts INTEGER
    ) STRICT;
    CREATE TABLE accounts (
        process INTEGER NOT NULL, kind TEXT NOT NULL, scope TEXT NOT NULL, rule TEXT NOT NULL,
        partition TEXT NOT NULL,
        window TEXT NOT NULL, most INTEGER NOT NULL,
        start INTEGER NOT NULL, spent INTEGER NOT NULL, previous INTEGER NOT NULL,
        slice INTEGER, change INTEGER NOT NULL,
        PRIMARY KEY (process, kind, scope, rule, partition)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX accounts_changed ON accounts (process, change);
";

/// A process that has rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// By which rows name it.
    pub id: i64,
    /// Its lock's.
    pub name: String,
    /// The larger, the newer.
    pub born: i64,
    /// Its share of accounts without a row; `None`: it shares nothing yet.
    pub parts: Option<u32>,
}

/// What a process has written of an account.
#[derive(Debug, Clone)]
pub struct Written {
    pub id: AccountId,
    pub figures: Figures,
}

/// Opens it to write, and makes it if need be.
pub fn open(dir: &Path) -> Result<Connection, Problem> {
    FILE.open(dir)
}

/// Where it lies.
pub fn path(dir: &Path) -> PathBuf {
    FILE.path(dir)
}

/// Begins to write: others that want to, wait.
pub fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Changes whenever another process has written something.
pub fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// All processes, the oldest first.
pub fn processes(connection: &Connection) -> rusqlite::Result<Vec<Process>> {
    let mut select =
        connection.prepare_cached("SELECT id, name, born, parts FROM processes ORDER BY born")?;
    let read = |row: &Row<'_>| {
        Ok(Process {
            id: row.get(0)?,
            name: row.get(1)?,
            born: row.get(2)?,
            parts: row.get(3)?,
        })
    };
    select.query_map([], read)?.collect()
}

/// A new process, the newest, under the rows of one that is gone or under none.
pub fn register(file: &Connection, name: &str, of: Option<&Process>) -> rusqlite::Result<Process> {
    let newest = "(SELECT COALESCE(MAX(born), 0) + 1 FROM processes)";
    let id = match of {
        None => {
            let insert = format!("INSERT INTO processes (name, born) VALUES (?1, {newest})");
            file.execute(&insert, [name])?;
            file.last_insert_rowid()
        }
        Some(gone) => {
            let update = format!(
                "UPDATE processes SET name = ?1, born = {newest}, parts = NULL WHERE id = ?2"
            );
            file.execute(&update, params![name, gone.id])?;
            let whole = "UPDATE accounts SET slice = NULL WHERE process = ?1 AND slice IS NOT NULL";
            file.execute(whole, [gone.id])?;
            gone.id
        }
    };
    let born = "SELECT born FROM processes WHERE id = ?1";
    Ok(Process {
        id,
        name: name.to_owned(),
        born: file.query_row(born, [id], |row| row.get(0))?,
        parts: None,
    })
}

/// What part a process has of accounts without a row.
pub fn set_parts(file: &Connection, process: i64, parts: Option<u32>) -> rusqlite::Result<()> {
    let update = "UPDATE processes SET parts = ?2 WHERE id = ?1";
    file.execute(update, params![process, parts]).map(drop)
}

/// A process is gone, and its rows with it.
pub fn remove_process(file: &Connection, process: i64) -> rusqlite::Result<()> {
    file.execute("DELETE FROM accounts WHERE process = ?1", [process])?;
    file.execute("DELETE FROM processes WHERE id = ?1", [process])
        .map(drop)
}

/// The last change of a process.
pub fn last_change(file: &Connection, process: i64) -> rusqlite::Result<i64> {
    let select = "SELECT COALESCE(MAX(change), 0) FROM accounts WHERE process = ?1";
    file.query_row(select, [process], |row| row.get(0))
}

/// What a process has written after a change of its.
pub fn written(file: &Connection, process: i64, after: i64) -> rusqlite::Result<Vec<Written>> {
    let mut select = file.prepare_cached(
        "SELECT kind, scope, rule, partition, window, most, start, spent, previous, slice
         FROM accounts WHERE process = ?1 AND change > ?2",
    )?;
    let rows = select.query_map([process, after], read)?;
    // What nobody can read is of a newer version, which would have said so.
    rows.filter_map(Result::transpose).collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Written>> {
    let text = |index| row.get_ref(index)?.as_str().map_err(rusqlite::Error::from);
    let money = |index| row.get(index).map(|money: i64| money.unsigned_abs());
    let scope = Scope::from_words(text(0)?, text(1)?);
    let partition = serde_json::from_str(text(3)?).ok();
    let window = Window::from_word(text(4)?);
    let (Some(scope), Some(partition), Some(window)) = (scope, partition, window) else {
        return Ok(None);
    };
    let id = AccountId {
        scope,
        rule: text(2)?.into(),
        partition,
    };
    let figures = Figures {
        window,
        limit: money(5)?,
        start: row.get(6)?,
        spent: money(7)?,
        previous: money(8)?,
        slice: row.get::<_, Option<i64>>(9)?.map(i64::unsigned_abs),
    };
    Ok(Some(Written { id, figures }))
}

/// Writes what a process has of an account.
pub fn put(
    file: &Connection,
    process: i64,
    change: i64,
    id: &AccountId,
    figures: &Figures,
) -> rusqlite::Result<()> {
    let Figures {
        window,
        limit,
        start,
        spent,
        previous,
        slice,
    } = figures;
    let mut insert = file.prepare_cached(
        "INSERT OR REPLACE INTO accounts
         (process, kind, scope, rule, partition, window, most, start, spent, previous, slice, change)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    insert
        .execute(params![
            process,
            id.scope.kind(),
            id.scope.name(),
            id.rule,
            partition(id),
            window.word(),
            number(*limit),
            start,
            number(*spent),
            number(*previous),
            slice.map(number),
            change,
        ])
        .map(drop)
}

/// Removes what a process has of an account.
pub fn remove(file: &Connection, process: i64, id: &AccountId) -> rusqlite::Result<()> {
    let mut delete = file.prepare_cached(
        "DELETE FROM accounts
         WHERE process = ?1 AND kind = ?2 AND scope = ?3 AND rule = ?4 AND partition = ?5",
    )?;
    let (kind, name) = (id.scope.kind(), id.scope.name());
    delete
        .execute(params![process, kind, name, id.rule, partition(id)])
        .map(drop)
}

fn partition(id: &AccountId) -> String {
    serde_json::to_string(&id.partition).unwrap_or_default()
}

/// Money as SQLite has numbers: what is above nine million dollars stays there.
fn number(money: u64) -> i64 {
    i64::try_from(money).unwrap_or(i64::MAX)
}
