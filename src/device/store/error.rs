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
    Database { message: String, busy_or_full: bool, trouble: Option<DiskTrouble> },
    #[error("the stored value of {name} cannot be read: {detail}")]
    Value { name: String, detail: String },
}

/// What is wrong with the disk, as one sentence for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskTrouble {
    #[error(
        "the disk is full: free some space on it; serving goes on, and so will everything else by itself"
    )]
    Full,
    #[error(
        "the disk has become read-only, as failing disks do: check it or replace it; what is held is \
         still served, but little of what happens now survives a restart"
    )]
    ReadOnly,
    #[error(
        "the disk reports errors: check its cable and its health, and replace it if they go on; what \
         can be read is still served"
    )]
    Failing,
    #[error(
        "the disk takes seconds to answer: it may be failing, or something else keeps it busy; what is \
         in memory is still served"
    )]
    Slow,
}

impl DiskTrouble {
    pub fn of(error: &io::Error) -> DiskTrouble {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskTrouble::Full,
            io::ErrorKind::ReadOnlyFilesystem => DiskTrouble::ReadOnly,
            _ => DiskTrouble::Failing,
        }
    }
}

impl StoreError {
    /// If it is the disk's.
    pub fn disk_trouble(&self) -> Option<DiskTrouble> {
        match self {
            StoreError::Io { source, .. } => Some(DiskTrouble::of(source)),
            StoreError::NoSpace { .. } => Some(DiskTrouble::Full),
            StoreError::Database { trouble, .. } => *trouble,
            _ => None,
        }
    }

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
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure,
        };
        let code = error.sqlite_error_code();
        let busy = matches!(code, Some(DatabaseBusy | DatabaseLocked));
        let trouble = match code {
            Some(DiskFull) => Some(DiskTrouble::Full),
            Some(ReadOnly) => Some(DiskTrouble::ReadOnly),
            Some(SystemIoFailure | CannotOpen) => Some(DiskTrouble::Failing),
            _ => None,
        };
        let busy_or_full = busy || trouble.is_some();
        StoreError::Database { message: error.to_string(), busy_or_full, trouble }
    }
}
