//! Everything that larderd keeps: settings, keys, contents and the ledger. The only place with SQL
//! and with paths. Blocking; call it from a blocking thread or for small things. Decides nothing:
//! what goes into a report is `logic::ledger`'s business, what is held is `logic::placement`'s.

mod adopt;
mod beneath;
mod chain;
mod content_file;
mod contents;
mod data_dir;
mod error;
mod journal;
mod ledger;
mod prune;
mod schema;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    adopt::{AdoptError, Adopted, Room, Source},
    chain::LedgerBreak,
    content_file::ContentFile,
    contents::{StoredContent, is_gone},
    error::{DiskTrouble, StoreError},
};
use self::{
    beneath::Beneath,
    data_dir::{DataDir, Found},
    journal::Journal,
};
use crate::logic::{infohash::Infohash, ledger::frame::LedgerId, usage::Usage};

/// A handle; clones share one database and one lock on the folder.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dir: DataDir,
    /// The folder of all contents.
    contents: Beneath,
    db: Mutex<Connection>,
    /// Locked before the database where both are needed. Set before anybody has the store.
    journal: OnceLock<Mutex<Journal>>,
    /// Usage may be waiting for its date. Asked each second by who must not wait for a lock.
    undated: AtomicBool,
    /// Content files that are open for filling: all users of one share a descriptor, and the last one
    /// closes it, since nobody may write to a file while it is served.
    files: Mutex<BTreeMap<Infohash, Weak<ContentFile>>>,
    /// Sum of the ledger by content, kept in memory because the owner's page asks each second.
    egress: Mutex<BTreeMap<Infohash, Usage>>,
}

/// How often the disk was tried, which is only done after trouble.
const DISK_CHECKS: &str = "disk_checks";
/// Ties the database to the folder's marker.
const DATA_ID: &str = "data_id";

impl Store {
    /// Opens the folder, or begins a new one where none was. Cleans up after a crash: content
    /// without a row, and rows whose file is gone.
    pub fn open(data_dir: &Path) -> Result<Store, StoreError> {
        let dir = DataDir::open(data_dir)?;
        let found = dir.look()?;
        let db = schema::open(&dir.database())?;
        let root = dir.content();
        data_dir::create_private(&root)?;
        let contents = Beneath::new(&root).map_err(StoreError::io("open", root))?;
        let store = Store(Arc::new(Inner {
            dir,
            contents,
            db: Mutex::new(db),
            journal: OnceLock::new(),
            undated: AtomicBool::new(true),
            files: Mutex::default(),
            egress: Mutex::default(),
        }));
        let data_id = store.settle_identity(found)?;
        store.begin_chain()?;
        let journal = store.open_journal(store.0.dir.journal(), ledger_id(&data_id))?;
        let _ = store.0.journal.set(Mutex::new(journal));
        store.prepare_scratch()?;
        store.reconcile_contents()?;
        store.load_egress()?;
        Ok(store)
    }

    /// The marker and the database must name the same ledger. A first start that was interrupted
    /// between the two is completed.
    fn settle_identity(&self, found: Found) -> Result<String, StoreError> {
        let in_database: Option<String> = self.setting(DATA_ID)?;
        let root = || self.0.dir.root().to_owned();
        match (found, in_database) {
            (Found::Ledger { data_id: Some(marked) }, Some(ours)) if marked == ours => Ok(ours),
            (Found::Ledger { data_id: Some(_) }, Some(_)) => {
                Err(StoreError::Mixed { path: root() })
            }
            (Found::Ledger { data_id: Some(_) }, None) => {
                Err(StoreError::LedgerMissing { path: root(), missing: "the ledger in larder.db" })
            }
            (Found::Ledger { data_id: None } | Found::Fresh, Some(ours)) => {
                self.0.dir.mark(&ours)?;
                Ok(ours)
            }
            (Found::Ledger { data_id: None } | Found::Fresh, None) => {
                let data_id = format!("{:032x}", rand::random::<u128>());
                self.set_setting(DATA_ID, &data_id)?;
                self.0.dir.mark(&data_id)?;
                Ok(data_id)
            }
        }
    }

    pub fn setting<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = {
            let db = self.0.db.lock();
            let mut query = db.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
            query.query_row([name], |row| row.get(0)).optional()?
        };
        let unreadable = |e: serde_json::Error| StoreError::Value {
            name: name.to_owned(),
            detail: e.to_string(),
        };
        text.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
    }

    /// Writes only when the value is another one, so that callers need not ask first.
    pub fn set_setting<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(value)
            .map_err(|e| StoreError::Value { name: name.to_owned(), detail: e.to_string() })?;
        self.set_setting_text(name, &text)
    }

    /// The same with the value as JSON.
    pub fn set_setting_text(&self, name: &str, text: &str) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "INSERT INTO setting (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = ?2 WHERE value <> ?2",
            params![name, text],
        )?;
        Ok(())
    }

    pub fn remove_setting(&self, name: &str) -> Result<(), StoreError> {
        self.0.db.lock().execute("DELETE FROM setting WHERE name = ?1", [name])?;
        Ok(())
    }

    /// Bytes that must not be shown anywhere, such as the identity key (PKCS#8).
    pub fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.0.db.lock();
        let mut query = db.prepare_cached("SELECT value FROM secret WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    pub fn set_secret(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "INSERT INTO secret (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = ?2 WHERE value <> ?2",
            params![name, value],
        )?;
        Ok(())
    }

    /// Bytes that an unprivileged process may still write to the data folder's filesystem.
    pub fn disk_free(&self) -> Result<u64, StoreError> {
        let root = self.0.dir.root();
        let stat = nix::sys::statvfs::statvfs(root)
            .map_err(|e| StoreError::io("measure the free space of", root)(e.into()))?;
        // The fields' widths differ between targets.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(stat.blocks_available()).saturating_mul(stat.fragment_size().into());
        Ok(free)
    }

    /// Whether the disk takes what it is given: a small file, and a row. Blocks as long as the disk does.
    pub fn try_disk(&self) -> Result<(), StoreError> {
        let path = self.0.dir.scratch().join("disk-check");
        data_dir::write_durably(&path, &[0; 4096])?;
        std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
        let before = self.setting::<u64>(DISK_CHECKS)?.unwrap_or(0);
        self.set_setting(DISK_CHECKS, &(before + 1))
    }

    /// A folder for files that need not survive a restart; emptied when the store is opened.
    pub fn scratch_dir(&self) -> PathBuf {
        self.0.dir.scratch()
    }

    fn prepare_scratch(&self) -> Result<(), StoreError> {
        let path = self.0.dir.scratch();
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("empty", path)(e));
            }
            _ => {}
        }
        data_dir::create_private(&path)
    }
}

/// The journal's frames name the ledger that they belong to.
fn ledger_id(data_id: &str) -> LedgerId {
    u128::from_str_radix(data_id, 16).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests;
