//! One content in the keeper's hands: its open file, its hashes, and whether anybody else could write to
//! the file. Says what a piece is; what follows from that is the keeper's business.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    libc,
};

use crate::{
    device::{
        store::{Store, StoreError},
        sys,
    },
    logic::{
        infohash::{Infohash, Sha1},
        metainfo::Metainfo,
        units::KIB,
    },
};

/// A piece is read in parts of this size when only its hash is wanted.
const PART_BYTES: usize = 256 * KIB as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Anybody may write.
    Open,
    /// Whoever wants to write waits until we let go.
    Leased,
    /// The engine was told to let go.
    Breaking,
}

pub(super) struct Kept {
    pub file: File,
    /// Without what only peers need.
    metainfo: Metainfo,
    pub guard: Guard,
    /// Larder itself writes to it: no use in guarding it.
    pub is_lent: bool,
    /// Checks that wait for the end of `Breaking`.
    pub postponed: Vec<u32>,
    /// At its path lies another file.
    pub replaced: bool,
    /// Somebody may have written after all of it was last checked.
    pub suspect: bool,
    read_some: bool,
}

pub(super) enum Verdict {
    /// With its bytes, if they were asked for.
    Good(Option<Arc<[u8]>>),
    Bad,
    /// The disk does not say.
    Unreadable(io::Error),
}

impl Kept {
    /// `None` for a content that the store does not know.
    pub fn open(store: &Store, infohash: Infohash) -> io::Result<Option<Kept>> {
        let Some(mut metainfo) = store.metainfo(infohash).map_err(as_io)? else { return Ok(None) };
        (metainfo.info_bytes, metainfo.files) = (vec![], vec![]);
        let file = store.open_for_serving(infohash)?;
        Ok(Some(Kept {
            file,
            metainfo,
            guard: Guard::Open,
            is_lent: false,
            postponed: vec![],
            replaced: false,
            suspect: false,
            read_some: false,
        }))
    }

    pub fn piece_bytes(&self, piece: u32) -> u64 {
        self.metainfo.piece_bytes(piece).map_or(0, u64::from)
    }

    pub fn pieces(&self) -> u32 {
        self.metainfo.piece_count()
    }

    /// The disk has given something of it since it was opened.
    pub fn reads_some(&self) -> bool {
        self.read_some
    }

    /// Tries to keep others from writing; true if nobody can.
    pub fn guard(&mut self) -> bool {
        if self.guard == Guard::Open && !self.is_lent && sys::take_read_lease(&self.file).is_ok() {
            self.guard = Guard::Leased;
        }
        self.guard == Guard::Leased
    }

    pub fn unguard(&mut self) {
        // Already gone if we took too long.
        let _ = sys::give_up_lease(&self.file);
        self.guard = Guard::Open;
    }

    pub fn is_wanted(&self) -> bool {
        self.guard == Guard::Leased && sys::lease_is_wanted_back(&self.file)
    }

    /// Whether the file in the store is still this one; an error if there is none.
    pub fn look(&self, store: &Store, infohash: Infohash) -> io::Result<bool> {
        let there = store.open_for_serving(infohash)?.metadata()?;
        let here = self.file.metadata()?;
        Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
    }

    /// Reads the piece as peers will get it, through the page cache.
    pub fn verify(&mut self, piece: u32) -> Verdict {
        let Some(length) = self.metainfo.piece_bytes(piece) else { return Verdict::Bad };
        let (mut at, mut left) = (self.metainfo.piece_offset(piece), length as usize);
        let mut hash = Sha1::default();
        let mut part = vec![0; PART_BYTES.min(left)];
        while left > 0 {
            let part = &mut part[..PART_BYTES.min(left)];
            if let Err(error) = self.file.read_exact_at(part, at) {
                return unread(error);
            }
            hash.update(part);
            at += part.len() as u64;
            left -= part.len();
        }
        self.judge(piece, hash.finish(), None)
    }

    /// The same, with the bytes.
    pub fn read(&mut self, piece: u32) -> Verdict {
        let Some(length) = self.metainfo.piece_bytes(piece) else { return Verdict::Bad };
        let mut bytes = vec![0; length as usize];
        if let Err(error) = self.file.read_exact_at(&mut bytes, self.metainfo.piece_offset(piece)) {
            return unread(error);
        }
        let mut hash = Sha1::default();
        hash.update(&bytes);
        self.judge(piece, hash.finish(), Some(bytes.into()))
    }

    /// What is read next of this piece comes from the disk.
    pub fn forget_cached(&self, piece: u32) {
        let (offset, length) = (self.metainfo.piece_offset(piece), self.piece_bytes(piece));
        forget_cached(&self.file, offset, length);
    }

    fn judge(&mut self, piece: u32, hash: [u8; 20], bytes: Option<Arc<[u8]>>) -> Verdict {
        self.read_some = true;
        match self.metainfo.piece_hash(piece) == Some(&hash[..]) {
            true => Verdict::Good(bytes),
            false => Verdict::Bad,
        }
    }
}

/// A hint; a kernel that does not take it reads what it has.
pub(super) fn forget_cached(file: &File, offset: u64, length: u64) {
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    let _ = posix_fadvise(file, offset as libc::off_t, length as libc::off_t, advice);
}

fn as_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Io { source, .. } => source,
        StoreError::Metainfo { .. } => {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        }
        _ => io::Error::other(error.to_string()),
    }
}

/// A file that ends too early has lost the piece; anything else may pass.
fn unread(error: io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Verdict::Bad,
        _ => Verdict::Unreadable(error),
    }
}
