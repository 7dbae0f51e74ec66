//! The database's shape. Migrations go forward only: each entry of `MIGRATIONS` runs once, in its
//! own transaction, and is never edited after a release.

use std::path::Path;

use rusqlite::Connection;

use super::error::StoreError;

/// "Lrdr": SQLite's own mark for whose file this is.
const APPLICATION_ID: u32 = 0x4c72_6472;

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

    CREATE TABLE content (
        infohash BLOB PRIMARY KEY CHECK (length(infohash) = 20),
        name TEXT NOT NULL,
        total_bytes INTEGER NOT NULL,
        pieces INTEGER NOT NULL,
        -- One bit a piece. Set only after the piece's bytes are durable.
        have BLOB NOT NULL,
        web_seed_bytes INTEGER NOT NULL DEFAULT 0,
        peer_bytes INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;

    -- The ledger: sums that only grow. `reported_*` is the part that some report already tells.
    CREATE TABLE usage (
        hour INTEGER NOT NULL,
        infohash BLOB NOT NULL,
        class INTEGER NOT NULL,
        payload_bytes INTEGER NOT NULL,
        wire_bytes INTEGER NOT NULL,
        reported_payload_bytes INTEGER NOT NULL DEFAULT 0,
        reported_wire_bytes INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (hour, infohash, class),
        CHECK (reported_payload_bytes <= payload_bytes),
        CHECK (reported_wire_bytes <= wire_bytes)
    ) WITHOUT ROWID;

    -- Usage from before the time was known; never reported from here.
    CREATE TABLE undated_usage (
        infohash BLOB NOT NULL,
        class INTEGER NOT NULL,
        payload_bytes INTEGER NOT NULL,
        wire_bytes INTEGER NOT NULL,
        PRIMARY KEY (infohash, class)
    ) WITHOUT ROWID;

    CREATE TABLE report (
        number INTEGER PRIMARY KEY,
        payload_hash TEXT NOT NULL,
        payload_bytes INTEGER NOT NULL,
        -- The signed document; dropped once the hub has it. The hash stays for the chain.
        signed TEXT
    );

    CREATE TABLE statement (month TEXT PRIMARY KEY, signed TEXT NOT NULL) WITHOUT ROWID;
",
    "
    -- What was filled, for the guard of the ratio; no money hangs on it.
    CREATE TABLE ingress (hour INTEGER PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
    ",
    "
    ALTER TABLE content ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
    -- For data that is a link to the owner's own file: when that was last changed, in nanoseconds
    -- since 1970. Another time means that the piece map says nothing about it any more.
    ALTER TABLE content ADD COLUMN linked_mtime_nanoseconds INTEGER;
",
    "
    -- What of a content is wanted, if not the whole: a run of its bytes, of which whole pieces count.
    ALTER TABLE content ADD COLUMN part_start INTEGER;
    ALTER TABLE content ADD COLUMN part_end INTEGER;
    -- NULL in rows from before there were parts.
    ALTER TABLE content ADD COLUMN piece_length INTEGER;
",
    "
    -- The journal's frames up to this one are in here. No row: there never was a journal.
    CREATE TABLE journal (
        place INTEGER PRIMARY KEY CHECK (place = 1),
        applied_frame INTEGER NOT NULL
    );
    -- Usage from before the time was known, by the second of the boot in which it happened; never
    -- reported from here.
    CREATE TABLE held_usage (
        boot BLOB NOT NULL,
        seconds INTEGER NOT NULL,
        infohash BLOB NOT NULL,
        class INTEGER NOT NULL,
        payload_bytes INTEGER NOT NULL,
        wire_bytes INTEGER NOT NULL,
        PRIMARY KEY (boot, seconds, infohash, class)
    ) WITHOUT ROWID;
    INSERT INTO held_usage
        SELECT zeroblob(16), 0, infohash, class, payload_bytes, wire_bytes FROM undated_usage;
    DROP TABLE undated_usage;
    ",
    "
    -- The chain: what the lines of an hour were after a change.
    CREATE TABLE entry (
        number INTEGER PRIMARY KEY,
        hour INTEGER NOT NULL,
        lines_hash BLOB NOT NULL,
        -- Over the entry before and this one.
        hash BLOB NOT NULL
    );
    CREATE INDEX entry_hour ON entry (hour);
    -- What was served in hours that are no longer kept.
    CREATE TABLE lifetime (
        infohash BLOB PRIMARY KEY,
        payload_bytes INTEGER NOT NULL,
        wire_bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE total (
        place INTEGER PRIMARY KEY CHECK (place = 1),
        -- Of the hours before this one, lines are missing.
        pruned_before INTEGER NOT NULL DEFAULT 0,
        pruned_reported_bytes INTEGER NOT NULL DEFAULT 0,
        pruned_report_bytes INTEGER NOT NULL DEFAULT 0,
        -- How often the lines did not fit the chain.
        breaks INTEGER NOT NULL DEFAULT 0,
        -- The chain's last entry at the last report, signed.
        head TEXT
    );
    INSERT INTO total (place) VALUES (1);
    ",
];

/// Opens the file and brings it to the current shape.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let mut db = Connection::open(path)?;
    prepare(&mut db, path).map_err(|e| match e {
        Failure::Store(e) => e,
        Failure::Sqlite(e) => explain(e, path),
    })?;
    Ok(db)
}

enum Failure {
    Store(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Failure {
        Failure::Sqlite(e)
    }
}

fn prepare(db: &mut Connection, path: &Path) -> Result<(), Failure> {
    // WAL: one sequential write a transaction. FULL: a commit has reached the disk when it returns;
    // NORMAL may lose the last commits in a power cut, and with them say "reported" or "held" again.
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Small memory, small log: the whole database of a device is a few MiB.
    db.pragma_update(None, "cache_size", -512)?;
    db.pragma_update(None, "journal_size_limit", 1024 * 1024)?;

    let known = MIGRATIONS.len() as u32;
    let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: u32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if found > 0 && application != APPLICATION_ID {
        let detail = "it is not a database of larderd".to_owned();
        return Err(Failure::Store(StoreError::Corrupt { path: path.to_owned(), detail }));
    }
    if found > known {
        return Err(Failure::Store(StoreError::Newer { path: path.to_owned(), found, known }));
    }
    let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Failure::Store(StoreError::Corrupt { path: path.to_owned(), detail: verdict }));
    }
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let step = db.transaction()?;
        step.execute_batch(migration)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", done as u32 + 1)?;
        step.commit()?;
    }
    Ok(())
}

fn explain(error: rusqlite::Error, path: &Path) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            StoreError::Corrupt { path: path.to_owned(), detail: error.to_string() }
        }
        _ => error.into(),
    }
}
