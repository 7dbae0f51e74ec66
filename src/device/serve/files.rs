//! Where blocks are taken from: the few content files that are open at a time, and checked pieces in
//! memory. Opens on demand, closes what was used longest ago.

use std::{fs::File, io, ops::Range, time::Duration};

use super::{OpenContent, memory::ProvenBytes};
use crate::{
    device::sys,
    logic::{
        infohash::Infohash,
        now::Monotonic,
        wire::{Close, ContentKey, Shelf},
    },
};

/// Hot contents are few; a miss costs one `open`. Well below the usual limit of 1024 descriptors.
const OPEN_FILES_MAX: usize = 64;
/// After it was checked, a piece leaves even if the memory is too short to keep it for so long, and the
/// disk has to be asked again. Else nothing of it might ever leave.
const RESIDENT_FOR: Duration = Duration::from_secs(10);
/// Asking for each block would cost a fifth of what sending it does.
const LOOKED_FOR: Duration = Duration::from_secs(1);
/// The page cache comes and goes in stretches of about this length.
const SAMPLE_BYTES: usize = 64 * 1024;

pub(super) struct OpenFiles {
    opener: Box<dyn OpenContent>,
    /// Most recently used first.
    open: Vec<Open>,
    /// Comes before the files.
    pub memory: ProvenBytes,
    /// Somebody reads pieces for us, so that the serving thread need not wait for the disk.
    has_reader: bool,
}

struct Open {
    key: ContentKey,
    file: File,
    /// By piece: until when it is taken for being in the page cache.
    resident_until: Vec<Tenths>,
}

/// Of a second, since the engine's start.
type Tenths = u32;

fn tenths(at: Monotonic) -> Tenths {
    u32::try_from(at.0.as_millis() / 100).unwrap_or(u32::MAX)
}

impl OpenFiles {
    pub fn new(opener: Box<dyn OpenContent>, has_reader: bool) -> OpenFiles {
        OpenFiles { opener, open: Vec::new(), memory: ProvenBytes::default(), has_reader }
    }

    pub fn get(&mut self, key: ContentKey, infohash: Infohash) -> io::Result<&File> {
        self.find(key, infohash).map(|open| &open.file)
    }

    /// A piece was read and checked: the page cache has it.
    pub fn handle_read(&mut self, key: ContentKey, infohash: Infohash, piece: u32, now: Monotonic) {
        if let Ok(open) = self.find(key, infohash) {
            open.note(piece, tenths(now + RESIDENT_FOR));
        }
    }

    /// The piece of these bytes that would have to come from the disk: nobody has checked what the disk
    /// gives, and the serving thread would wait for it. It looks at samples of each piece now and then.
    pub fn cold_piece(
        &mut self,
        shelf: &Shelf,
        key: ContentKey,
        bytes: Range<u64>,
        now: Monotonic,
    ) -> Result<Option<u32>, Close> {
        if !self.has_reader || bytes.is_empty() {
            return Ok(None);
        }
        let content = shelf.get(key).ok_or(Close::ContentRemoved)?;
        let open = self.find(key, content.infohash()).map_err(|_| Close::Unreadable)?;
        for piece in content.piece_at(bytes.start)..=content.piece_at(bytes.end - 1) {
            let until = open.resident_until.get(piece as usize).copied().unwrap_or(0);
            if until > tenths(now) {
                continue;
            }
            let (start, end) = (content.piece_offset(piece), content.piece_end(piece));
            let mut samples = (start..end).step_by(SAMPLE_BYTES).chain([end - 1]);
            if !samples.all(|at| sys::is_resident(&open.file, at)) {
                return Ok(Some(piece));
            }
            open.note(piece, tenths(now + LOOKED_FOR));
        }
        Ok(None)
    }

    fn find(&mut self, key: ContentKey, infohash: Infohash) -> io::Result<&mut Open> {
        match self.open.iter().position(|open| open.key == key) {
            Some(0) => {}
            Some(at) => self.open[..=at].rotate_right(1),
            None => {
                let file = self.opener.open(infohash)?;
                self.open.truncate(OPEN_FILES_MAX - 1);
                self.open.insert(0, Open { key, file, resident_until: vec![] });
            }
        }
        Ok(&mut self.open[0])
    }

    /// Opens the file anew when it is needed again. Until then it does not keep its space on disk.
    pub fn forget(&mut self, key: ContentKey) {
        self.open.retain(|open| open.key != key);
    }

    /// With what is in memory of it.
    pub fn remove(&mut self, key: ContentKey) {
        self.forget(key);
        self.memory.forget(key);
    }
}

impl Open {
    fn note(&mut self, piece: u32, until: Tenths) {
        let at = piece as usize;
        if self.resident_until.len() <= at {
            self.resident_until.resize(at + 1, 0);
        }
        self.resident_until[at] = until;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::logic::{bitfield::Bitfield, wire::Servable};

    struct Counting(Arc<AtomicUsize>);

    impl OpenContent for Counting {
        fn open(&self, _infohash: Infohash) -> io::Result<File> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tempfile::tempfile()
        }
    }

    #[test]
    fn keeps_the_recently_used_open() {
        let mut shelf = Shelf::default();
        let mut keys = vec![];
        for n in 0..=OPEN_FILES_MAX as u8 {
            let infohash = Infohash([n; 20]);
            let servable = Servable {
                infohash,
                piece_length: 16384,
                total_bytes: 1,
                info_bytes: Arc::new([]),
                have: Bitfield::full(1),
            };
            keys.push((shelf.add(servable).expect("fits"), infohash));
        }
        let opens = Arc::new(AtomicUsize::new(0));
        let mut files = OpenFiles::new(Box::new(Counting(opens.clone())), false);
        let mut get = |(key, infohash): (ContentKey, Infohash)| {
            files.get(key, infohash).expect("opens");
            opens.load(Ordering::Relaxed)
        };
        keys[..OPEN_FILES_MAX].iter().for_each(|k| {
            get(*k);
        });
        assert_eq!(get(keys[0]), OPEN_FILES_MAX, "still open");
        assert_eq!(get(keys[OPEN_FILES_MAX]), OPEN_FILES_MAX + 1, "one too many: the oldest goes");
        assert_eq!(get(keys[0]), OPEN_FILES_MAX + 1, "used in between, so it stayed");
        assert_eq!(get(keys[1]), OPEN_FILES_MAX + 2, "this one went");
        files.forget(keys[1].0);
        assert!(files.open.len() < OPEN_FILES_MAX);
    }
}
