//! The scrub: reads everything that is held from the disk again and again, slowly and behind everyone
//! else, so that what rots is found while it can still be filled again. Past the page cache, which may
//! long have been right about bytes that the flash has lost. Finds only; the keeper does the rest.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use super::{Desk, kept::forget_cached};
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

/// Where the last run has got to; at most so much is read twice after a restart. A write of a row.
const POSITION: &str = "scrub_position";
const POSITION_INTERVAL: Duration = Duration::from_secs(1800);
/// Nothing held, or a disk that gives nothing: look again then.
const NOTHING_TO_DO: Duration = Duration::from_secs(60);
/// The largest sector that disks have these days; reads past the page cache keep to it.
const SECTOR_BYTES: u64 = 4096;
const FIRST: (Infohash, u32) = (Infohash([0; 20]), 0);
const PART_BYTES: u64 = 256 * KIB;

pub struct Scrub {
    store: Store,
    desk: Desk,
    bytes_per_second: u64,
    /// The piece that comes next, or the first after it that is held.
    position: (Infohash, u32),
    saved_at: Instant,
    buffer: Vec<u8>,
}

impl Scrub {
    /// A thread that ends with the process. None without a rate.
    pub fn start(store: Store, desk: Desk, bytes_per_second: u64) -> io::Result<()> {
        if bytes_per_second == 0 {
            return Ok(());
        }
        let position = store.setting(POSITION).ok().flatten().unwrap_or(FIRST);
        let mut scrub = Scrub {
            store,
            desk,
            bytes_per_second,
            position,
            saved_at: Instant::now(),
            buffer: vec![],
        };
        let run = move || {
            // A refinement: without it the rate alone keeps it out of everyone's way.
            let _ = sys::yield_disk();
            loop {
                let pause = scrub.step().unwrap_or(NOTHING_TO_DO);
                thread::sleep(pause);
            }
        };
        thread::Builder::new().name("larder-scrub".into()).spawn(run)?;
        Ok(())
    }

    /// One piece; answers with how long to rest after it. `None` when there is nothing to look at, or
    /// the disk has trouble, of which others will hear.
    fn step(&mut self) -> Option<Duration> {
        let (infohash, piece) = self.next().ok()??;
        let metainfo = self.store.metainfo(infohash).ok()??;
        let length = u64::from(metainfo.piece_bytes(piece)?);
        self.position = (infohash, piece + 1);
        let looked = self.look_at(infohash, &metainfo, piece);
        if matches!(looked, Ok(false)) && self.is_held(infohash, piece) {
            self.desk.rotten(infohash, piece);
        }
        if self.saved_at.elapsed() >= POSITION_INTERVAL {
            self.saved_at = Instant::now();
            // Lost, it would be read again, no more.
            let _ = self.store.set_setting(POSITION, &self.position);
        }
        looked.ok()?;
        Some(Duration::from_secs_f64(length as f64 / self.bytes_per_second as f64))
    }

    /// In order of infohash and piece, round and round.
    fn next(&self) -> Result<Option<(Infohash, u32)>, StoreError> {
        let contents = self.store.contents()?;
        let from = |(infohash, piece): (Infohash, u32)| {
            contents.iter().filter(move |c| c.infohash >= infohash).find_map(move |c| {
                let first = if c.infohash == infohash { piece } else { 0 };
                let held = c.have.iter_held().find(|piece| *piece >= first)?;
                Some((c.infohash, held))
            })
        };
        Ok(from(self.position).or_else(|| from(FIRST)))
    }

    /// Whether the disk has what it should have. Bad news is read twice.
    fn look_at(&mut self, infohash: Infohash, metainfo: &Metainfo, piece: u32) -> io::Result<bool> {
        let (file, past_cache) = self.store.open_past_cache(infohash)?;
        let offset = metainfo.piece_offset(piece);
        let length = u64::from(metainfo.piece_bytes(piece).unwrap_or(0));
        for _ in 0..2 {
            if !past_cache {
                forget_cached(&file, offset, length);
            }
            let hash = hash(&file, offset, length, &mut self.buffer)?;
            if hash.is_some_and(|hash| metainfo.piece_hash(piece) == Some(&hash[..])) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_held(&self, infohash: Infohash, piece: u32) -> bool {
        let stored = self.store.stored_content(infohash).ok().flatten();
        stored.is_some_and(|stored| stored.have.has(piece))
    }
}

/// `None` if the file ends before.
fn hash(
    file: &File,
    offset: u64,
    length: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<[u8; 20]>> {
    buffer.resize((PART_BYTES + SECTOR_BYTES) as usize, 0);
    let aligned = buffer.as_ptr().align_offset(SECTOR_BYTES as usize);
    let part = &mut buffer[aligned..][..PART_BYTES as usize];
    let mut sha1 = Sha1::default();
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let start = at - at % SECTOR_BYTES;
        let read = file.read_at(part, start)? as u64;
        let until = end.min(start + read);
        if until <= at {
            return Ok(None);
        }
        sha1.update(&part[(at - start) as usize..(until - start) as usize]);
        at = until;
    }
    Ok(Some(sha1.finish()))
}
