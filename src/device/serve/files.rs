//! Where blocks are taken from: the few content files that are open at a time, and checked pieces in
//! memory. Opens on demand, closes what was used longest ago.

use std::{fs::File, io};

use super::{OpenContent, memory::ProvenBytes};
use crate::logic::{infohash::Infohash, wire::ContentKey};

/// Hot contents are few; a miss costs one `open`. Well below the usual limit of 1024 descriptors.
const OPEN_FILES_MAX: usize = 64;

pub(super) struct OpenFiles {
    opener: Box<dyn OpenContent>,
    /// Most recently used first.
    open: Vec<(ContentKey, File)>,
    /// Comes before the files.
    pub memory: ProvenBytes,
}

impl OpenFiles {
    pub fn new(opener: Box<dyn OpenContent>) -> OpenFiles {
        OpenFiles { opener, open: Vec::new(), memory: ProvenBytes::default() }
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
    use crate::logic::{
        bitfield::Bitfield,
        wire::{Servable, Shelf},
    };

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
        let mut files = OpenFiles::new(Box::new(Counting(opens.clone())));
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
