//! The hub's database: SQLite in WAL mode. The only folder of the hub with SQL in it; must not
//! decide anything, only keep what was decided.

mod books;
mod contents;
mod devices;

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::Connection;

pub use books::{BookRow, LastReport, NewReport, ReportSaved};
pub use contents::{Content, NewContent};
pub use devices::{Device, EnrolOutcome};

pub const DATABASE_FILE: &str = "hub.sqlite3";

/// One connection, one writer: SQLite would queue them anyway.
pub struct Store {
    connection: Mutex<Connection>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error(
        "the database has version {found}, newer than version {known} of this program; install the newer larder-hub"
    )]
    FromTheFuture { found: u32, known: u32 },
}

/// Forward only; `user_version` counts how many have been applied.
const MIGRATIONS: &[&str] = &[include_str!("0001.sql")];

impl Store {
    /// Opens, or creates, and brings the schema up to date.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::prepare(Connection::open(path)?)
    }

    #[cfg(test)]
    pub fn in_memory() -> Store {
        Store::prepare(Connection::open_in_memory().expect("memory")).expect("the schema is good")
    }

    fn prepare(mut connection: Connection) -> Result<Store, StoreError> {
        // FULL: a receipt says that a report is in the books, so it must survive a power cut.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 5000;",
        )?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = MIGRATIONS.len() as u32;
        if found > known {
            return Err(StoreError::FromTheFuture { found, known });
        }
        for (version, sql) in (1u32..).zip(MIGRATIONS).skip(found as usize) {
            let change = connection.transaction()?;
            change.execute_batch(sql)?;
            change.pragma_update(None, "user_version", version)?;
            change.commit()?;
        }
        Ok(Store { connection: Mutex::new(connection) })
    }

    /// Whether the database answers.
    pub fn check(&self) -> Result<(), StoreError> {
        Ok(self.connection.lock().query_row("SELECT 1", [], |_| Ok(()))?)
    }
}

/// SQLite's integers are signed; everything that we keep is checked to be far below the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0) as u64)
}

fn parsed<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|e: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_database_of_a_newer_program() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(DATABASE_FILE);
        Store::open(&path).expect("opens");
        Store::open(&path).expect("opens again without migrating twice");
        let connection = Connection::open(&path).expect("opens");
        connection.pragma_update(None, "user_version", 99).expect("writes");
        drop(connection);
        assert!(matches!(Store::open(&path), Err(StoreError::FromTheFuture { found: 99, .. })));
    }
}
