//! The data folder itself: created for the owner only, locked against a second larderd, and marked,
//! so that a missing disk or a lost database is never taken for a fresh start.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::error::StoreError;

const DATABASE: &str = "larder.db";
const JOURNAL: &str = "ledger.journal";
const LOCK: &str = "larderd.lock";
const MARKER: &str = "larder-data";
const CONTENT: &str = "content";
/// Scratch files of the fill; emptied at each start.
const SCRATCH: &str = "scratch";
const MARKER_FORMAT: u32 = 1;

pub(super) struct DataDir {
    root: PathBuf,
    /// Held as long as the store lives; the kernel lets go of it however the process ends.
    _lock: File,
}

/// `larder-data`: says that this folder once had a ledger, and which.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// The same random id is in the database.
    data_id: String,
}

/// What the folder looks like before the database is opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No ledger was ever here.
    Fresh,
    /// The database is there; the marker, if it is, has this id. It is not when a first start was
    /// interrupted between the two.
    Ledger { data_id: Option<String> },
}

impl DataDir {
    pub fn open(root: &Path) -> Result<DataDir, StoreError> {
        create_private(root)?;
        // An existing folder may have been made by hand with wider rights: the key is in here.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(StoreError::io("protect", root))?;
        let lock = lock(root)?;
        Ok(DataDir { root: root.to_owned(), _lock: lock })
    }

    pub fn look(&self) -> Result<Found, StoreError> {
        let exists = |name: &str| {
            let path = self.root.join(name);
            path.try_exists().map_err(StoreError::io("look at", path))
        };
        let missing = |missing| Err(StoreError::LedgerMissing { path: self.root.clone(), missing });
        match (self.marker()?, exists(DATABASE)?) {
            (Some(_), false) => missing(DATABASE),
            (None, false) if exists(CONTENT)? => missing(DATABASE),
            (None, false) => Ok(Found::Fresh),
            (marker, true) => Ok(Found::Ledger { data_id: marker.map(|m| m.data_id) }),
        }
    }

    fn marker(&self) -> Result<Option<Marker>, StoreError> {
        let path = self.root.join(MARKER);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("read", path)(e)),
        };
        let marker: Marker = serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::Corrupt { path: path.clone(), detail: e.to_string() })?;
        if marker.format > MARKER_FORMAT {
            return Err(StoreError::Newer { path, found: marker.format, known: MARKER_FORMAT });
        }
        Ok(Some(marker))
    }

    /// Whole or not at all: written aside, synced, renamed.
    pub fn mark(&self, data_id: &str) -> Result<(), StoreError> {
        let marker = Marker { format: MARKER_FORMAT, data_id: data_id.to_owned() };
        let text = serde_json::to_string(&marker).expect("plain values serialise") + "\n";
        let path = self.root.join(MARKER);
        write_durably(&path, text.as_bytes())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    pub fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    pub fn content(&self) -> PathBuf {
        self.root.join(CONTENT)
    }

    pub fn scratch(&self) -> PathBuf {
        self.root.join(SCRATCH)
    }
}

pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(StoreError::io("create", path))
}

/// Writes aside, syncs, renames, syncs the folder: after a crash the old or the new file is there.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(StoreError::io("write", path))?;
    sync_parent(path)
}

/// A new or renamed entry is durable only once its folder is.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().expect("paths in the data folder have a parent");
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", parent))
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(e)) => Err(StoreError::io("lock", path)(e)),
    }
}
