//! Takes content that lies on this machine already into the store as the owner's pin: links or copies
//! the data, checks every piece, and only then says that it is held. Never moves or changes the
//! owner's files, never follows a symbolic link to one, and leaves nothing behind when it fails.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc;
use rusqlite::params;

use super::{
    ContentFile, Store, StoreError,
    contents::{DATA, METAINFO, as_integer},
    data_dir,
};
use crate::logic::{bitfield::Bitfield, metainfo::Metainfo, units::HumanBytes};

/// Where one file of a torrent lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// Nothing but zeros: padding (BEP 47), which clients do not write.
    Zeros,
}

/// What the owner lets the cache take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub quota_bytes: u64,
    /// Left free on the filesystem; a link takes nothing of it.
    pub reserve_bytes: u64,
}

/// How a content came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The store and the owner's folder share the file.
    Linked,
    Copied,
    /// It was held already, whole and verified; now it is pinned.
    Held,
}

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    #[error("{} is {what}, not a file of its own; put the file itself there", path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("{} has {found} bytes, but the torrent says {expected}", path.display())]
    Length { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "piece {piece} of {pieces} is not what the torrent says (it begins in {}); have a \
         BitTorrent client check and repair it",
        path.display()
    )]
    Mismatch { piece: u32, pieces: u32, path: PathBuf },
    #[error(
        "its {} and the {} that are pinned already do not fit into the disk quota of {}; raise \
         cache.quota_bytes",
        HumanBytes(*size_bytes), HumanBytes(*pinned_bytes), HumanBytes(*quota_bytes)
    )]
    Quota { size_bytes: u64, pinned_bytes: u64, quota_bytes: u64 },
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Store {
    /// `sources` are the torrent's files, in its order. A single file is linked where the filesystem
    /// can; several become one, as the store keeps one file a content, and so are copied.
    pub fn adopt(
        &self,
        metainfo: &Metainfo,
        torrent_bytes: &[u8],
        sources: &[Source],
        room: Room,
    ) -> Result<Adopted, AdoptError> {
        let infohash = metainfo.infohash;
        self.check_quota(metainfo, room)?;
        if self.stored_content(infohash)?.is_some_and(|held| held.have.is_complete()) {
            self.pin(metainfo)?;
            return Ok(Adopted::Held);
        }
        check_sources(metainfo, sources)?;
        let staging = self.scratch_dir().join(infohash.to_string());
        let staged = self
            .stage(&staging, metainfo, torrent_bytes, sources, room)
            .and_then(|linked| Ok(self.take_in(&staging, metainfo, linked).map(|()| linked)?));
        if staged.is_err() {
            // Best effort: scratch is emptied at the next start.
            let _ = fs::remove_dir_all(&staging);
        }
        Ok(if staged?.is_some() { Adopted::Linked } else { Adopted::Copied })
    }

    fn check_quota(&self, metainfo: &Metainfo, room: Room) -> Result<(), AdoptError> {
        let others = self.contents()?.into_iter().filter(|c| c.infohash != metainfo.infohash);
        let pinned_bytes = others.filter(|c| c.pinned).map(|c| c.total_bytes).sum();
        let (size_bytes, quota_bytes) = (metainfo.total_bytes, room.quota_bytes);
        if size_bytes.saturating_add(pinned_bytes) > quota_bytes {
            return Err(AdoptError::Quota { size_bytes, pinned_bytes, quota_bytes });
        }
        Ok(())
    }

    fn pin(&self, metainfo: &Metainfo) -> Result<(), StoreError> {
        let pin = "UPDATE content SET pinned = 1 WHERE infohash = ?1";
        self.0.db.lock().execute(pin, [metainfo.infohash.0])?;
        Ok(())
    }

    /// Puts a whole, verified and durable folder together. For a link, answers when the owner's file
    /// was last changed.
    fn stage(
        &self,
        folder: &Path,
        metainfo: &Metainfo,
        torrent_bytes: &[u8],
        sources: &[Source],
        room: Room,
    ) -> Result<Option<i64>, AdoptError> {
        data_dir::create_private(folder)?;
        data_dir::write_durably(&folder.join(METAINFO), torrent_bytes)?;
        let data = folder.join(DATA);
        let linked = match sources {
            [Source::File(path)] => fs::hard_link(path, &data).is_ok(),
            _ => false,
        };
        if !linked {
            self.copy(&data, metainfo, sources, room)?;
        }
        let file = open_source(&data)?;
        verify(&file, metainfo, sources)?;
        file.sync_all().map_err(StoreError::io("sync", &data))?;
        data_dir::sync_parent(&data)?;
        if !linked {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(StoreError::io("look at", &data))?;
        Ok(Some(modified_nanoseconds(&metadata)))
    }

    fn copy(
        &self,
        data: &Path,
        metainfo: &Metainfo,
        sources: &[Source],
        room: Room,
    ) -> Result<(), AdoptError> {
        let (needed_bytes, free_bytes) = (metainfo.total_bytes, self.disk_free()?);
        if needed_bytes.saturating_add(room.reserve_bytes) > free_bytes {
            return Err(StoreError::NoSpace { needed_bytes, free_bytes }.into());
        }
        ContentFile::create(data.to_owned(), needed_bytes, 0..needed_bytes)
            .map_err(StoreError::io("reserve space in", data))?;
        let write = || OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(data);
        let mut to = write().map_err(StoreError::io("open", data))?;
        for (source, file) in sources.iter().zip(&metainfo.files) {
            let copied = match source {
                // The kernel copies; where the filesystem can, it only shares the blocks.
                Source::File(path) => io::copy(&mut open_source(path)?, &mut to),
                Source::Zeros => io::Seek::seek_relative(&mut to, file.length.cast_signed())
                    .map(|()| file.length),
            };
            copied.map_err(StoreError::io("copy into", data))?;
        }
        Ok(())
    }

    /// From scratch to the shelf, in the order that a crash may cut anywhere: see `contents`.
    fn take_in(
        &self,
        staging: &Path,
        metainfo: &Metainfo,
        linked: Option<i64>,
    ) -> Result<(), StoreError> {
        // A fill that was begun: here is the whole.
        self.remove(metainfo.infohash)?;
        let folder = self.folder(metainfo.infohash);
        fs::rename(staging, &folder).map_err(StoreError::io("move into", &folder))?;
        data_dir::sync_parent(&folder)?;
        self.0.db.lock().execute(
            "INSERT INTO content
                (infohash, name, total_bytes, pieces, have, pinned, linked_mtime_nanoseconds)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
            params![
                metainfo.infohash.0,
                metainfo.name,
                as_integer(metainfo.total_bytes),
                metainfo.piece_count(),
                Bitfield::full(metainfo.piece_count()).as_bytes(),
                linked
            ],
        )?;
        Ok(())
    }
}

/// In nanoseconds since 1970.
pub(super) fn modified_nanoseconds(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn check_sources(metainfo: &Metainfo, sources: &[Source]) -> Result<(), AdoptError> {
    for (source, file) in sources.iter().zip(&metainfo.files) {
        let Source::File(path) = source else { continue };
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(AdoptError::Missing(path.clone()));
            }
            Err(e) => return Err(StoreError::io("look at", path)(e).into()),
        };
        let path = path.clone();
        if metadata.is_symlink() {
            return Err(AdoptError::NotAFile { path, what: "a symbolic link" });
        }
        if !metadata.is_file() {
            return Err(AdoptError::NotAFile { path, what: "a folder or a device" });
        }
        if metadata.len() != file.length {
            let (found, expected) = (metadata.len(), file.length);
            return Err(AdoptError::Length { path, found, expected });
        }
    }
    Ok(())
}

/// Also when it was exchanged for a link or a pipe since it was looked at.
fn open_source(path: &Path) -> Result<File, AdoptError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(StoreError::io("open", path))?;
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(AdoptError::NotAFile { path: path.to_owned(), what: "a folder or a device" });
    }
    Ok(file)
}

fn verify(file: &File, metainfo: &Metainfo, sources: &[Source]) -> Result<(), AdoptError> {
    let pieces = metainfo.piece_count();
    let mut buffer = vec![0; metainfo.piece_bytes(0).unwrap_or(0) as usize];
    for piece in 0..pieces {
        let length = metainfo.piece_bytes(piece).expect("pieces below the count exist") as usize;
        let data = &mut buffer[..length];
        let read = file.read_exact_at(data, metainfo.piece_offset(piece));
        if read.is_err() || !metainfo.verifies(piece, data) {
            let path = file_at(metainfo, sources, metainfo.piece_offset(piece));
            return Err(AdoptError::Mismatch { piece, pieces, path });
        }
    }
    Ok(())
}

/// Which of the owner's files has the byte at `offset`.
fn file_at(metainfo: &Metainfo, sources: &[Source], offset: u64) -> PathBuf {
    let mut end = 0;
    for (source, file) in sources.iter().zip(&metainfo.files) {
        end += file.length;
        if let Source::File(path) = source
            && offset < end
        {
            return path.clone();
        }
    }
    PathBuf::from(&metainfo.name)
}
