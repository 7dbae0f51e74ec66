//! Contents: a row with the piece map, and a folder named by infohash with the metainfo and the
//! data. Order matters: the folder is complete before the row exists, the row is gone before the
//! folder is, and a piece is in the map only after its bytes are on the disk.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use nix::libc;
use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};

use super::{ContentFile, Store, StoreError, adopt::modified_nanoseconds, data_dir};
use crate::logic::{bitfield::Bitfield, infohash::Infohash, metainfo::Metainfo, usage::Usage};

pub(super) const DATA: &str = "data";
pub(super) const METAINFO: &str = "metainfo.torrent";

/// What is known of a content without touching its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    pub infohash: Infohash,
    /// From the metainfo; for people only.
    pub name: String,
    pub total_bytes: u64,
    pub have: Bitfield,
    /// Payload of verified pieces, by where they came from.
    pub web_seed_bytes: u64,
    pub peer_bytes: u64,
    /// The owner's: adopted by `larderd preload`, and kept.
    pub pinned: bool,
    /// Its data is the owner's own file, which is only read.
    pub linked: bool,
    /// Everything that the ledger says was served of it, undated usage included.
    pub egress: Usage,
}

impl StoredContent {
    /// Exact unless pieces of it were lost again: the last one may be shorter than the others.
    pub fn held_bytes(&self) -> u64 {
        let (held, pieces) = (u64::from(self.have.held()), u64::from(self.have.pieces().max(1)));
        let by_pieces = self.total_bytes.div_ceil(pieces).saturating_mul(held);
        match self.have.is_complete() {
            true => self.total_bytes,
            false => self.web_seed_bytes.saturating_add(self.peer_bytes).min(by_pieces),
        }
    }
}

impl Store {
    /// In order of infohash.
    pub fn contents(&self) -> Result<Vec<StoredContent>, StoreError> {
        self.rows()?.into_iter().map(|row| self.stored(row)).collect()
    }

    fn rows(&self) -> Result<Vec<ContentRow>, StoreError> {
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(&format!("{SELECT_CONTENT} ORDER BY infohash"))?;
        let rows = query.query_map([], ContentRow::read)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    pub fn stored_content(&self, infohash: Infohash) -> Result<Option<StoredContent>, StoreError> {
        self.row(infohash)?.map(|row| self.stored(row)).transpose()
    }

    fn row(&self, infohash: Infohash) -> Result<Option<ContentRow>, StoreError> {
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(&format!("{SELECT_CONTENT} WHERE infohash = ?1"))?;
        Ok(query.query_row([infohash.0], ContentRow::read).optional()?)
    }

    /// Makes room for a content before its first byte: takes the disk space and writes the row.
    /// Does nothing when it has been done already.
    pub fn begin(&self, metainfo: &Metainfo, torrent_bytes: &[u8]) -> Result<(), StoreError> {
        let infohash = metainfo.infohash;
        if self.stored_content(infohash)?.is_some() {
            return Ok(());
        }
        let free_bytes = self.disk_free()?;
        let needed_bytes = metainfo.total_bytes;
        if needed_bytes > free_bytes {
            return Err(StoreError::NoSpace { needed_bytes, free_bytes });
        }
        let folder = self.folder(infohash);
        if let Err(e) = self.lay_down(&folder, metainfo, torrent_bytes) {
            // Best effort: what stays behind has no row and goes at the next start.
            let _ = fs::remove_dir_all(&folder);
            return Err(e);
        }
        let have = Bitfield::empty(metainfo.piece_count());
        self.0.db.lock().execute(
            "INSERT INTO content (infohash, name, total_bytes, pieces, have)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                infohash.0,
                metainfo.name,
                as_integer(metainfo.total_bytes),
                metainfo.piece_count(),
                have.as_bytes()
            ],
        )?;
        Ok(())
    }

    fn lay_down(
        &self,
        folder: &Path,
        metainfo: &Metainfo,
        torrent_bytes: &[u8],
    ) -> Result<(), StoreError> {
        data_dir::create_private(folder)?;
        data_dir::sync_parent(folder)?;
        data_dir::write_durably(&folder.join(METAINFO), torrent_bytes)?;
        let data = folder.join(DATA);
        match ContentFile::create(data.clone(), metainfo.total_bytes) {
            Ok(_) => data_dir::sync_parent(&data),
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Err(StoreError::NoSpace {
                needed_bytes: metainfo.total_bytes,
                free_bytes: self.disk_free()?,
            }),
            Err(e) => Err(StoreError::io("reserve space in", data)(e)),
        }
    }

    /// The `.torrent` file as it came.
    pub fn torrent_bytes(&self, infohash: Infohash) -> Result<Option<Vec<u8>>, StoreError> {
        if self.stored_content(infohash)?.is_none() {
            return Ok(None);
        }
        let path = self.folder(infohash).join(METAINFO);
        fs::read(&path).map(Some).map_err(StoreError::io("read", path))
    }

    pub fn metainfo(&self, infohash: Infohash) -> Result<Option<Metainfo>, StoreError> {
        let Some(bytes) = self.torrent_bytes(infohash)? else { return Ok(None) };
        Metainfo::parse_expecting(&bytes, infohash)
            .map(Some)
            .map_err(|source| StoreError::Metainfo { infohash, source })
    }

    /// For filling: all callers share one open file. What is a link to the owner's own file is never
    /// written to.
    pub fn content(&self, infohash: Infohash) -> Result<Arc<ContentFile>, StoreError> {
        if let Some(file) = self.0.files.lock().get(&infohash).and_then(Weak::upgrade) {
            return Ok(file);
        }
        match self.row(infohash)? {
            None => return Err(StoreError::UnknownContent(infohash)),
            Some(row) if row.linked_mtime_nanoseconds.is_some() => {
                return Err(StoreError::OwnersFile { name: row.name });
            }
            Some(_) => {}
        }
        let path = self.folder(infohash).join(DATA);
        let file = Arc::new(ContentFile::open(path.clone()).map_err(StoreError::io("open", path))?);
        self.0.files.lock().insert(infohash, Arc::downgrade(&file));
        Ok(file)
    }

    /// Adds pieces whose hashes the caller has checked to the piece map, with the bytes that came
    /// from each source. The data is forced to the disk first: the map never claims what a power
    /// cut could still take away.
    pub fn mark_verified(
        &self,
        infohash: Infohash,
        pieces: &[u32],
        web_seed_bytes: u64,
        peer_bytes: u64,
    ) -> Result<(), StoreError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let file = self.content(infohash)?;
        file.sync().map_err(StoreError::io("sync", file.path()))?;

        self.change_map(infohash, web_seed_bytes, peer_bytes, |have| {
            pieces.iter().for_each(|piece| {
                have.set(*piece);
            });
        })
    }

    /// Takes pieces out of the map again, because their bytes turned out to be wrong.
    pub fn mark_damaged(&self, infohash: Infohash, pieces: &[u32]) -> Result<(), StoreError> {
        self.change_map(infohash, 0, 0, |have| {
            pieces.iter().for_each(|piece| {
                have.clear(*piece);
            });
        })
    }

    fn change_map(
        &self,
        infohash: Infohash,
        web_seed_bytes: u64,
        peer_bytes: u64,
        change: impl FnOnce(&mut Bitfield),
    ) -> Result<(), StoreError> {
        let mut db = self.0.db.lock();
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let row = step
            .prepare_cached(&format!("{SELECT_CONTENT} WHERE infohash = ?1"))?
            .query_row([infohash.0], ContentRow::read)
            .optional()?
            .ok_or(StoreError::UnknownContent(infohash))?;
        let mut have = row.have()?;
        change(&mut have);
        step.execute(
            "UPDATE content SET have = ?2, web_seed_bytes = web_seed_bytes + ?3,
                peer_bytes = peer_bytes + ?4 WHERE infohash = ?1",
            params![
                infohash.0,
                have.as_bytes(),
                as_integer(web_seed_bytes),
                as_integer(peer_bytes)
            ],
        )?;
        Ok(step.commit()?)
    }

    /// Where the data lies, for whoever looks whether it is still the same file.
    pub fn data_path(&self, infohash: Infohash) -> PathBuf {
        self.folder(infohash).join(DATA)
    }

    /// A descriptor of its own for serving, read-only.
    pub fn open_for_serving(&self, infohash: Infohash) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW);
        options.open(self.folder(infohash).join(DATA))
    }

    /// Forgets a content and frees its space. What it served stays in the ledger. Fine to repeat.
    pub fn remove(&self, infohash: Infohash) -> Result<(), StoreError> {
        self.0.files.lock().remove(&infohash);
        self.0.db.lock().execute("DELETE FROM content WHERE infohash = ?1", [infohash.0])?;
        let folder = self.folder(infohash);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", folder)(e))
            }
            _ => Ok(()),
        }
    }

    /// Undoes what a crash left half done: folders without a row go, and rows whose file is gone or
    /// has another length go, so that the content is simply filled again. So do links to files that
    /// their owner has changed since they were verified.
    pub(super) fn reconcile_contents(&self) -> Result<(), StoreError> {
        let root = self.0.dir.content();
        data_dir::create_private(&root)?;
        let held = self.rows()?;
        for content in &held {
            let data = self.folder(content.infohash).join(DATA);
            let found = fs::symlink_metadata(&data).ok().filter(|m| m.is_file());
            let length = found.as_ref().map(|m| m.len());
            let changed = content
                .linked_mtime_nanoseconds
                .zip(found)
                .is_some_and(|(then, found)| then != modified_nanoseconds(&found));
            if changed {
                tracing::warn!(
                    "the owner's file of {:?} has changed since it was preloaded; preload it again",
                    content.name
                );
                self.remove(content.infohash)?;
            } else if length != Some(content.total_bytes) {
                tracing::warn!(
                    "{} is gone or has a wrong length; it will be filled again",
                    data.display()
                );
                self.remove(content.infohash)?;
            }
        }
        for entry in fs::read_dir(&root).map_err(StoreError::io("list", &root))? {
            let entry = entry.map_err(StoreError::io("list", &root))?;
            let name = entry.file_name();
            // Only what we may have made ourselves: an owner's own files are not ours to delete.
            let Some(infohash) = name.to_str().and_then(|n| n.parse::<Infohash>().ok()) else {
                tracing::warn!("{} does not belong here; left alone", entry.path().display());
                continue;
            };
            if !held.iter().any(|c| c.infohash == infohash) {
                tracing::info!("removing {}, which a crash left behind", entry.path().display());
                self.remove(infohash)?;
            }
        }
        Ok(())
    }

    pub(super) fn folder(&self, infohash: Infohash) -> PathBuf {
        self.0.dir.content().join(infohash.to_string())
    }

    fn stored(&self, row: ContentRow) -> Result<StoredContent, StoreError> {
        Ok(StoredContent {
            have: row.have()?,
            egress: self.egress(row.infohash),
            infohash: row.infohash,
            name: row.name,
            total_bytes: row.total_bytes,
            web_seed_bytes: row.web_seed_bytes,
            peer_bytes: row.peer_bytes,
            pinned: row.pinned,
            linked: row.linked_mtime_nanoseconds.is_some(),
        })
    }
}

const SELECT_CONTENT: &str = "SELECT infohash, name, total_bytes, pieces, have, web_seed_bytes,
    peer_bytes, pinned, linked_mtime_nanoseconds FROM content";

struct ContentRow {
    infohash: Infohash,
    name: String,
    total_bytes: u64,
    pieces: u32,
    have: Vec<u8>,
    web_seed_bytes: u64,
    peer_bytes: u64,
    pinned: bool,
    linked_mtime_nanoseconds: Option<i64>,
}

impl ContentRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<ContentRow> {
        Ok(ContentRow {
            infohash: Infohash(row.get(0)?),
            name: row.get(1)?,
            total_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
            pieces: row.get(3)?,
            have: row.get(4)?,
            web_seed_bytes: row.get::<_, i64>(5)?.cast_unsigned(),
            peer_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
            pinned: row.get(7)?,
            linked_mtime_nanoseconds: row.get(8)?,
        })
    }

    fn have(&self) -> Result<Bitfield, StoreError> {
        Bitfield::from_bytes(self.have.clone(), self.pieces).map_err(|e| StoreError::Value {
            name: format!("the piece map of {}", self.infohash),
            detail: e.to_string(),
        })
    }
}

/// SQLite's integers are signed; 8 EiB is more than a device ever counts.
pub(super) fn as_integer(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
