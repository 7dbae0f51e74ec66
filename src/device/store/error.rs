//! What can go wrong with the data folder. Each error is one sentence that says what to do.

use std::{io, path::PathBuf};

use crate::logic::{fault::Fault, infohash::Infohash, metainfo::MetainfoError, units::HumanBytes};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another larderd; stop that one first", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{} had a ledger, but {} is gone; mount the disk or restore the file (to begin anew, name \
         an empty folder as data_dir)",
        path.display(), missing
    )]
    LedgerMissing { path: PathBuf, missing: &'static str },
    #[error(
        "{} holds files of two different devices (larder-data does not match larder.db); restore \
         the folder as a whole",
        path.display()
    )]
    Mixed { path: PathBuf },
    #[error(
        "{} was written by a newer larderd (format {found}, this one knows {known}); update larderd",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{} is damaged ({detail}); nothing was deleted: restore it from a copy", path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "the disk has {} free, but {} are needed; free some space or lower cache.quota_bytes",
        HumanBytes(*free_bytes), HumanBytes(*needed_bytes)
    )]
    NoSpace { needed_bytes: u64, free_bytes: u64 },
    #[error("the ledger's journal has no room for {contents} contents at once")]
    JournalFull { contents: usize },
    #[error("content {0} is not held here")]
    UnknownContent(Infohash),
    #[error(
        "{name:?} is the owner's own file, which larderd never writes to; mend or restore it, and \
         preload it again"
    )]
    OwnersFile { name: String },
    #[error("content {infohash}: {source}")]
    Metainfo { infohash: Infohash, source: MetainfoError },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// SQLite's own words: its types stay inside this folder.
    #[error("the database failed: {message}")]
    Database { message: String, busy_or_full: bool },
    #[error("the stored value of {name} cannot be read: {detail}")]
    Value { name: String, detail: String },
}

impl StoreError {
    pub fn fault(&self) -> Fault {
        match self {
            StoreError::Metainfo { .. } => Fault::Operator,
            _ => Fault::Local,
        }
    }

    /// Whether the same call may succeed later without anybody doing anything here.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::InUse { .. } | StoreError::NoSpace { .. } | StoreError::Io { .. } => true,
            StoreError::Database { busy_or_full, .. } => *busy_or_full,
            _ => false,
        }
    }

    /// For `map_err` on file operations.
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { doing, path, source }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let busy_or_full = matches!(
            error.sqlite_error_code(),
            Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure)
        );
        StoreError::Database { message: error.to_string(), busy_or_full }
    }
}
