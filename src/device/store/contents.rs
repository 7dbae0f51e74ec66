//! Contents: a row with the piece map, and a folder named by infohash with the metainfo and the
//! data. Order matters: the folder is complete before the row exists, the row is gone before the
//! folder is, and a piece is in the map only after its bytes are on the disk.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use nix::{fcntl::OFlag, libc};
use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};

use super::{ContentFile, Store, StoreError, adopt::modified_nanoseconds, data_dir};
use crate::logic::{
    bitfield::Bitfield, infohash::Infohash, metainfo::Metainfo, placement::Part, usage::Usage,
};

pub(super) const DATA: &str = "data";
pub(super) const METAINFO: &str = "metainfo.torrent";

/// What is known of a content without touching its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    pub infohash: Infohash,
    /// From the metainfo; for people only.
    pub name: String,
    pub total_bytes: u64,
    /// What of it is wanted here, and has its space.
    pub part: Part,
    piece_length: Option<u32>,
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
    /// Every piece of the part is there and verified.
    pub fn is_complete(&self) -> bool {
        self.have.is_complete() || self.wanted().is_some_and(|wanted| self.have.has_all_of(&wanted))
    }

    /// `None` when the piece length is not known, which is so for the whole of old contents only.
    fn wanted(&self) -> Option<Bitfield> {
        Some(self.part.pieces(self.piece_length?, self.total_bytes))
    }

    /// Of verified pieces.
    pub fn held_bytes(&self) -> u64 {
        let Some(length) = self.piece_length else {
            let filled = self.web_seed_bytes + self.peer_bytes;
            return if self.have.is_complete() { self.total_bytes } else { filled };
        };
        let has_last = self.have.pieces().checked_sub(1).is_some_and(|last| self.have.has(last));
        let all_bytes = u64::from(self.have.pieces()) * u64::from(length);
        let short_by = if has_last { all_bytes.saturating_sub(self.total_bytes) } else { 0 };
        (u64::from(self.have.held()) * u64::from(length)).saturating_sub(short_by)
    }

    /// Of the pieces that are wanted.
    pub fn wanted_bytes(&self) -> u64 {
        self.piece_length.map_or(self.total_bytes, |length| {
            let space = self.part.space(length, self.total_bytes);
            space.end - space.start
        })
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

    /// Makes room for a part of a content before its first byte: takes the disk space and writes the
    /// row. What has its space already keeps it, so a part only grows; the one that now holds is the
    /// answer.
    pub fn begin(
        &self,
        metainfo: &Metainfo,
        torrent_bytes: &[u8],
        part: Part,
    ) -> Result<Part, StoreError> {
        let infohash = metainfo.infohash;
        if let Some(stored) = self.stored_content(infohash)? {
            return self.grow(metainfo, &stored, part);
        }
        let space = part.space(metainfo.piece_length, metainfo.total_bytes);
        self.check_free(space.end - space.start)?;
        let folder = self.folder(infohash);
        if let Err(e) = self.lay_down(&folder, metainfo, torrent_bytes, space) {
            // Best effort: what stays behind has no row and goes at the next start.
            let _ = fs::remove_dir_all(&folder);
            return Err(e);
        }
        let have = Bitfield::empty(metainfo.piece_count());
        self.0.db.lock().execute(
            "INSERT INTO content
                (infohash, name, total_bytes, pieces, have, part_start, part_end, piece_length)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                infohash.0,
                metainfo.name,
                as_integer(metainfo.total_bytes),
                metainfo.piece_count(),
                have.as_bytes(),
                part_start(part, metainfo),
                part_end(part, metainfo),
                metainfo.piece_length
            ],
        )?;
        Ok(part)
    }

    /// The space first, then the row: a crash in between leaves room that the next try takes.
    fn grow(
        &self,
        metainfo: &Metainfo,
        stored: &StoredContent,
        part: Part,
    ) -> Result<Part, StoreError> {
        let part = stored.part.grown_to(part);
        if part == stored.part && stored.piece_length.is_some() {
            return Ok(part);
        }
        let space = part.space(metainfo.piece_length, metainfo.total_bytes);
        let taken = stored.part.space(metainfo.piece_length, metainfo.total_bytes);
        self.check_free((space.end - space.start).saturating_sub(taken.end - taken.start))?;
        if part != stored.part {
            let file = self.content(metainfo.infohash)?;
            let wanted_bytes = space.end - space.start;
            file.reserve(space).map_err(|e| self.no_space(e, wanted_bytes, file.path()))?;
        }
        self.set_part(metainfo, part)?;
        Ok(part)
    }

    fn set_part(&self, metainfo: &Metainfo, part: Part) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "UPDATE content SET part_start = ?2, part_end = ?3, piece_length = ?4
             WHERE infohash = ?1",
            params![
                metainfo.infohash.0,
                part_start(part, metainfo),
                part_end(part, metainfo),
                metainfo.piece_length
            ],
        )?;
        Ok(())
    }

    fn check_free(&self, needed_bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.disk_free()?;
        match needed_bytes > free_bytes {
            true => Err(StoreError::NoSpace { needed_bytes, free_bytes }),
            false => Ok(()),
        }
    }

    fn no_space(&self, error: io::Error, needed_bytes: u64, path: &Path) -> StoreError {
        match (error.kind(), self.disk_free()) {
            (io::ErrorKind::StorageFull, Ok(free_bytes)) => {
                StoreError::NoSpace { needed_bytes, free_bytes }
            }
            _ => StoreError::io("reserve space in", path)(error),
        }
    }

    fn lay_down(
        &self,
        folder: &Path,
        metainfo: &Metainfo,
        torrent_bytes: &[u8],
        space: Range<u64>,
    ) -> Result<(), StoreError> {
        data_dir::create_private(folder)?;
        data_dir::sync_parent(folder)?;
        data_dir::write_durably(&folder.join(METAINFO), torrent_bytes)?;
        let data = folder.join(DATA);
        let needed_bytes = space.end - space.start;
        match ContentFile::create(data.clone(), metainfo.total_bytes, space) {
            Ok(_) => data_dir::sync_parent(&data),
            Err(e) => Err(self.no_space(e, needed_bytes, &data)),
        }
    }

    /// The `.torrent` file as it came.
    pub fn torrent_bytes(&self, infohash: Infohash) -> Result<Option<Vec<u8>>, StoreError> {
        if self.stored_content(infohash)?.is_none() {
            return Ok(None);
        }
        let mut bytes = vec![];
        let read = self
            .open_beneath(infohash, METAINFO, OFlag::O_RDONLY)
            .and_then(|mut file| io::Read::read_to_end(&mut file, &mut bytes));
        read.map_err(StoreError::io("read", self.folder(infohash).join(METAINFO)))?;
        Ok(Some(bytes))
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
        let file = self
            .open_beneath(infohash, DATA, OFlag::O_RDWR)
            .map_err(StoreError::io("open", &path))?;
        let file = Arc::new(ContentFile::new(file, path));
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

    /// A descriptor of its own for serving, read-only.
    pub fn open_for_serving(&self, infohash: Infohash) -> io::Result<fs::File> {
        self.open_beneath(infohash, DATA, OFlag::O_RDONLY)
    }

    /// For looking at what is really on the disk: what is read goes past the page cache where the
    /// filesystem can do that. Says whether it can.
    pub fn open_past_cache(&self, infohash: Infohash) -> io::Result<(fs::File, bool)> {
        match self.open_beneath(infohash, DATA, OFlag::O_RDONLY | OFlag::O_DIRECT) {
            Ok(file) => Ok((file, true)),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                self.open_for_serving(infohash).map(|file| (file, false))
            }
            Err(e) => Err(e),
        }
    }

    fn open_beneath(&self, infohash: Infohash, name: &str, flags: OFlag) -> io::Result<fs::File> {
        self.0.contents.open(&Path::new(&infohash.to_string()).join(name), flags)
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
            let opened = self.open_for_serving(content.infohash);
            let found = match opened.and_then(|file| file.metadata()) {
                Ok(found) => Some(found),
                Err(e) if is_gone(&e) => None,
                // A disk with trouble has lost nothing yet.
                Err(e) => {
                    tracing::error!("cannot open {}: {e}", data.display());
                    continue;
                }
            };
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
            part: row.run.map_or(Part::whole(), |(start, end)| Part::of(start..end)),
            piece_length: row.piece_length,
            web_seed_bytes: row.web_seed_bytes,
            peer_bytes: row.peer_bytes,
            pinned: row.pinned,
            linked: row.linked_mtime_nanoseconds.is_some(),
        })
    }
}

/// What lay there is not there any more, or is something else, as opposed to a disk that has trouble.
pub fn is_gone(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::InvalidData];
    let codes = [libc::ELOOP, libc::ENOTDIR, libc::EXDEV, libc::ENXIO];
    kinds.contains(&error.kind()) || error.raw_os_error().is_some_and(|e| codes.contains(&e))
}

const SELECT_CONTENT: &str = "SELECT infohash, name, total_bytes, pieces, have, web_seed_bytes,
    peer_bytes, pinned, linked_mtime_nanoseconds, part_start, part_end, piece_length FROM content";

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
    run: Option<(u64, u64)>,
    piece_length: Option<u32>,
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
            run: row
                .get::<_, Option<i64>>(9)?
                .zip(row.get::<_, Option<i64>>(10)?)
                .map(|(start, end)| (start.cast_unsigned(), end.cast_unsigned())),
            piece_length: row.get(11)?,
        })
    }

    fn have(&self) -> Result<Bitfield, StoreError> {
        Bitfield::from_bytes(self.have.clone(), self.pieces).map_err(|e| StoreError::Value {
            name: format!("the piece map of {}", self.infohash),
            detail: e.to_string(),
        })
    }
}

fn part_start(part: Part, metainfo: &Metainfo) -> Option<i64> {
    (!part.is_whole()).then(|| as_integer(part.bytes(metainfo.total_bytes).start))
}

fn part_end(part: Part, metainfo: &Metainfo) -> Option<i64> {
    (!part.is_whole()).then(|| as_integer(part.bytes(metainfo.total_bytes).end))
}

/// SQLite's integers are signed; 8 EiB is more than a device ever counts.
pub(super) fn as_integer(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
