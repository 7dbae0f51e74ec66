//! The ledger's journal on disk: a small file whose blocks are overwritten in place, so that counts
//! can be kept each second without a transaction. A frame that was synced is never touched again until
//! a checkpoint has moved what it says into the database, together with its number: a crash at any
//! moment neither loses what was synced nor counts it twice. What frames say is `logic::ledger`'s.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use nix::libc;
use parking_lot::MutexGuard;
use rusqlite::{OptionalExtension, TransactionBehavior};

use super::{Store, StoreError, chain, contents::as_integer, data_dir, ledger};
use crate::logic::{
    ledger::{
        dating::{Stamp, When},
        frame::{FRAME_BYTES, Frame, LedgerId},
        journal::{KEYS_MAX, Sums, Writer, replay},
    },
    usage::UsageDelta,
};

/// One MiB, about twenty minutes of steady serving; each frame is written about three times an hour.
const FRAMES: u64 = 256;
/// A checkpoint is due when this many are in use, so that there is room while the database is slow.
const FRAMES_BEFORE_CHECKPOINT: u64 = 192;
/// A file longer than this is no journal of ours; the rest of it is not read.
const FILE_BYTES_MAX: u64 = 16 * FRAMES * FRAME_BYTES as u64;

pub(super) struct Journal {
    file: Arc<File>,
    path: PathBuf,
    writer: Writer,
    /// The number of the last frame that is in the database.
    applied: u64,
    /// What all frames after that say.
    pending: Sums,
    /// Something was written since the last sync.
    dirty: bool,
    /// A sync failed. What is on the disk is then unknown, whatever later syncs say: the database
    /// takes over everything.
    distrusted: bool,
}

impl Journal {
    fn frames_used(&self) -> u64 {
        self.writer.sequence() - self.applied
    }

    fn is_checkpoint_due(&self) -> bool {
        self.distrusted
            || self.frames_used() >= FRAMES_BEFORE_CHECKPOINT
            || self.writer.keys() > KEYS_MAX / 2
    }

    /// All or nothing, as far as later frames are concerned: after an error the same frames are
    /// written again. False if there is no room before a checkpoint.
    fn add(&mut self, stamp: Stamp, deltas: &[UsageDelta]) -> Result<bool, StoreError> {
        if self.writer.keys() + deltas.len() > KEYS_MAX {
            return Ok(false);
        }
        let mut writer = self.writer.clone();
        let frames = writer.add(stamp, deltas);
        if writer.sequence() - self.applied > FRAMES {
            return Ok(false);
        }
        for frame in frames {
            let bytes = frame.encode().expect("a writer's frames fit");
            let offset = frame.sequence % FRAMES * FRAME_BYTES as u64;
            let written = self.file.write_all_at(&bytes, offset);
            self.dirty = true;
            written.map_err(StoreError::io("write", &self.path))?;
        }
        self.writer = writer;
        for delta in deltas {
            let line = (stamp.when(), delta.infohash, delta.class);
            self.pending.entry(line).or_default().add(delta.usage);
        }
        Ok(true)
    }

    /// Everything so far is in the database.
    fn restart(&mut self) {
        self.applied = self.writer.sequence();
        self.writer.restart();
        self.pending.clear();
        self.dirty = false;
        self.distrusted = false;
    }
}

impl Store {
    /// Keeps counts so that a killed process does not lose them. A power cut still does, until
    /// [`Store::sync_usage`]. All or nothing; writes nothing when there is nothing to add.
    pub fn add_usage(&self, stamp: Stamp, deltas: &[UsageDelta]) -> Result<(), StoreError> {
        let deltas: Vec<_> = deltas.iter().filter(|d| !d.usage.is_zero()).copied().collect();
        if deltas.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal();
        if stamp.hour.is_none() {
            self.0.undated.store(true, Ordering::Relaxed);
        }
        if !journal.add(stamp, &deltas)? {
            self.checkpoint(&mut journal)?;
            if !journal.add(stamp, &deltas)? {
                return Err(StoreError::JournalFull { contents: deltas.len() });
            }
        }
        drop(journal);
        let mut egress = self.0.egress.lock();
        for delta in deltas {
            egress.entry(delta.infohash).or_default().add(delta.usage);
        }
        Ok(())
    }

    /// Returns when a power cut can no longer take what was added before. Others may go on adding
    /// meanwhile. Now and then it also moves everything into the database.
    pub fn sync_usage(&self) -> Result<(), StoreError> {
        let file = {
            let mut journal = self.journal();
            journal.writer.seal();
            std::mem::take(&mut journal.dirty).then(|| Arc::clone(&journal.file))
        };
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        let mut journal = self.journal();
        if let Err(error) = synced {
            tracing::error!("cannot sync {}: {error}", journal.path.display());
            journal.dirty = true;
            journal.distrusted = true;
        }
        match journal.is_checkpoint_due() {
            true => self.checkpoint(&mut journal),
            false => Ok(()),
        }
    }

    /// Moves everything into the database, for whoever reads there.
    pub fn checkpoint_usage(&self) -> Result<(), StoreError> {
        self.checkpoint(&mut self.journal())
    }

    fn checkpoint(&self, journal: &mut Journal) -> Result<(), StoreError> {
        if !journal.pending.is_empty() {
            self.apply(&journal.pending, journal.writer.sequence())?;
            journal.restart();
        }
        Ok(())
    }

    /// One transaction for the sums and for the number of the last frame that they are from.
    fn apply(&self, sums: &Sums, sequence: u64) -> Result<(), StoreError> {
        let mut db = self.0.db.lock();
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut hours = BTreeSet::new();
        for ((when, infohash, class), usage) in sums {
            let delta = UsageDelta { infohash: *infohash, class: *class, usage: *usage };
            match when {
                When::Hour(hour) => {
                    hours.insert(*hour);
                    ledger::add_dated(&change, *hour, &delta)?;
                }
                When::Held(moment) => ledger::add_undated(&change, *moment, &delta)?,
            }
        }
        chain::append(&change, &hours)?;
        change.execute(
            "INSERT INTO journal (place, applied_frame) VALUES (1, ?1)
             ON CONFLICT DO UPDATE SET applied_frame = ?1",
            [as_integer(sequence)],
        )?;
        Ok(change.commit()?)
    }

    /// Moves what a crash left in the file into the database, then opens it for writing.
    pub(super) fn open_journal(&self, path: PathBuf, id: LedgerId) -> Result<Journal, StoreError> {
        let applied = self.applied_frame()?;
        let frames = read_frames(&path)?;
        if frames.is_none() && applied.is_some() {
            tracing::error!(
                "{} is gone: what was served in the last minutes before the stop may be missing in \
                 the ledger",
                path.display()
            );
        }
        let found = replay(frames.unwrap_or_default(), id, applied.unwrap_or(0));
        if found.nameless_bytes > 0 {
            tracing::error!(
                "{} is damaged: {} bytes that were served are lost, because nothing says of which \
                 content they were",
                path.display(),
                found.nameless_bytes
            );
        }
        if found.sequence > applied.unwrap_or(0) {
            self.apply(&found.sums, found.sequence)?;
        }
        let file = Arc::new(open_for_writing(&path)?);
        if applied.is_none() {
            // The row says that there is a journal from now on.
            self.apply(&Sums::new(), found.sequence)?;
        }
        Ok(Journal {
            file,
            path,
            writer: Writer::new(id, found.sequence),
            applied: found.sequence,
            pending: Sums::new(),
            dirty: false,
            distrusted: false,
        })
    }

    /// The number of the last frame that is in the database; none where there never was a journal.
    fn applied_frame(&self) -> Result<Option<u64>, StoreError> {
        let db = self.0.db.lock();
        let query = "SELECT applied_frame FROM journal";
        Ok(db.query_row(query, [], |row| ledger::bytes(row, 0)).optional()?)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.0.journal.get().expect("opened with the store").lock()
    }
}

/// Every frame that is whole; `None` if there is no file.
fn read_frames(path: &Path) -> Result<Option<Vec<Frame>>, StoreError> {
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(Some(bytes.chunks_exact(FRAME_BYTES).filter_map(Frame::decode).collect()))
}

/// Every block is written once when the file is made: overwriting it later changes nothing but the
/// block, where a merely reserved one would cost a transaction of the filesystem.
fn open_for_writing(path: &Path) -> Result<File, StoreError> {
    let bytes = FRAMES * FRAME_BYTES as u64;
    let found = std::fs::symlink_metadata(path).ok().filter(|m| m.is_file() && m.len() == bytes);
    if found.is_none() {
        data_dir::write_durably(path, &vec![0; bytes as usize])?;
    }
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(StoreError::io("open", path))
}
