//! Where blocks are taken from: the few content files that are open at a time, and checked pieces in
//! memory. Opens on demand, closes what was used longest ago.

use std::{collections::BTreeMap, fs::File, io, ops::Range, time::Duration};

use super::{OpenContent, blocks::content_file, memory::ProvenBytes};
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
/// Old ones are forgotten when there are so many.
const LATELY_MAX: usize = 1024;

pub(super) struct OpenFiles {
    opener: Box<dyn OpenContent>,
    /// Most recently used first.
    open: Vec<(ContentKey, File)>,
    /// Comes before the files.
    pub memory: ProvenBytes,
    /// Somebody reads pieces for us, so that the serving thread need not wait for the disk.
    has_reader: bool,
    /// When pieces were last read from the disk and checked.
    lately: BTreeMap<(ContentKey, u32), Monotonic>,
}

impl OpenFiles {
    pub fn new(opener: Box<dyn OpenContent>, has_reader: bool) -> OpenFiles {
        let (open, memory, lately) = (Vec::new(), ProvenBytes::default(), BTreeMap::new());
        OpenFiles { opener, open, memory, has_reader, lately }
    }

    /// A piece was read and checked: the page cache has it.
    pub fn handle_read(&mut self, key: ContentKey, piece: u32, now: Monotonic) {
        if self.lately.len() >= LATELY_MAX {
            self.lately.retain(|_, at| now.saturating_since(*at) < RESIDENT_FOR);
        }
        self.lately.insert((key, piece), now);
    }

    /// The piece of the first of these bytes that would have to come from the disk: nobody has checked
    /// what the disk gives, and the serving thread would wait for it. Asks for the first and the last
    /// only; what lies between them was read, and is forgotten, together with them.
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
        let file = content_file(self, shelf, key)?;
        let ends = [bytes.start, bytes.end - 1];
        let Some(cold) = ends.into_iter().find(|at| !sys::is_resident(file, *at)) else {
            return Ok(None);
        };
        let content = shelf.get(key).ok_or(Close::ContentRemoved)?;
        let piece = content.piece_at(cold);
        let read_at = self.lately.get(&(key, piece));
        let lately = read_at.is_some_and(|at| now.saturating_since(*at) < RESIDENT_FOR);
        Ok((!lately).then_some(piece))
    }

    pub fn get(&mut self, key: ContentKey, infohash: Infohash) -> io::Result<&File> {
        match self.open.iter().position(|(k, _)| *k == key) {
            Some(0) => {}
            Some(at) => self.open[..=at].rotate_right(1),
            None => {
                let file = self.opener.open(infohash)?;
                self.open.truncate(OPEN_FILES_MAX - 1);
                self.open.insert(0, (key, file));
            }
        }
        Ok(&self.open[0].1)
    }

    /// Opens the file anew when it is needed again. Until then it does not keep its space on disk.
    pub fn forget(&mut self, key: ContentKey) {
        self.open.retain(|(k, _)| *k != key);
    }

    /// With what is in memory of it.
    pub fn remove(&mut self, key: ContentKey) {
        self.forget(key);
        self.lately.retain(|(of, _), _| *of != key);
        self.memory.forget(key);
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
