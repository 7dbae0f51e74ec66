//! Published content on disk: one blob per infohash, in piece order, and the `info` value beside
//! it. Paths on disk come from infohashes; a torrent's own names only choose a range of the blob.

mod range;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{api::hub::NewUpload, hub::disk, logic::infohash::Infohash};

pub use range::{Wanted, wanted};

pub struct Origin {
    dir: PathBuf,
    /// Bytes sent since they were last written to the books.
    egress: Mutex<BTreeMap<Infohash, u64>>,
}

/// A file of a content as a web seed's URL names it (BEP 19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginFile {
    /// Where in the blob.
    pub range: Range<u64>,
    pub index: usize,
}

/// `path` is what follows `/origin/<infohash>/`, decoded.
pub fn find(layout: &NewUpload, path: &str) -> Option<OriginFile> {
    let inside = match layout.directory {
        false => (path == layout.name).then_some("")?,
        true => path.strip_prefix(layout.name.as_str())?.strip_prefix('/')?,
    };
    let mut start = 0;
    for (index, file) in layout.files.iter().enumerate() {
        let range = start..start + file.length;
        let components = file.path.iter().map(String::as_str);
        if !layout.directory || components.eq(inside.split('/')) {
            return Some(OriginFile { range, index });
        }
        start = range.end;
    }
    None
}

impl Origin {
    pub fn new(dir: PathBuf) -> Origin {
        Origin { dir, egress: Mutex::default() }
    }

    pub fn blob(&self, infohash: Infohash) -> PathBuf {
        self.dir.join(infohash.to_string()).join("data")
    }

    pub fn info(&self, infohash: Infohash) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(infohash.to_string()).join("info"))
    }

    /// Takes over a complete, hashed blob. Doing it again with the same bytes is harmless.
    pub fn adopt(&self, infohash: Infohash, info: &[u8], blob: &Path) -> io::Result<()> {
        let dir = self.dir.join(infohash.to_string());
        fs::create_dir_all(&dir)?;
        disk::replace(&dir.join("info"), info)?;
        fs::File::open(blob)?.sync_all()?;
        fs::rename(blob, dir.join("data"))?;
        disk::sync_dir(&dir)?;
        disk::sync_dir(&self.dir)
    }

    pub fn count(&self, infohash: Infohash, bytes: u64) {
        *self.egress.lock().entry(infohash).or_default() += bytes;
    }

    /// What was counted since the last call.
    pub fn take_counts(&self) -> Vec<(Infohash, u64)> {
        std::mem::take(&mut *self.egress.lock()).into_iter().collect()
    }
}

/// Counts what a response's body hands on to the connection.
pub struct Counter {
    origin: Arc<Origin>,
    infohash: Infohash,
}

impl Counter {
    pub fn new(origin: Arc<Origin>, infohash: Infohash) -> Counter {
        Counter { origin, infohash }
    }

    pub fn count(&self, bytes: usize) {
        self.origin.count(self.infohash, bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::hub::UploadFile;

    fn layout(directory: bool, files: &[(&str, u64)]) -> NewUpload {
        let files = files
            .iter()
            .map(|(path, length)| UploadFile {
                path: path.split('/').map(str::to_owned).collect(),
                length: *length,
            })
            .collect();
        NewUpload { name: "Season 1".into(), directory, files, fingerprint: String::new() }
    }

    #[test]
    fn finds_files_by_the_web_seed_rules() {
        let one = layout(false, &[("Season 1", 10)]);
        assert_eq!(find(&one, "Season 1"), Some(OriginFile { range: 0..10, index: 0 }));
        assert_eq!(find(&one, "Season 2"), None);
        let many = layout(true, &[("a/b.mp4", 10), ("c.srt", 5)]);
        assert_eq!(find(&many, "Season 1/a/b.mp4"), Some(OriginFile { range: 0..10, index: 0 }));
        assert_eq!(find(&many, "Season 1/c.srt"), Some(OriginFile { range: 10..15, index: 1 }));
        for other in ["Season 1", "Season 1/", "Season 1/a", "c.srt", "Season 1/../Season 1/c.srt"]
        {
            assert_eq!(find(&many, other), None, "{other}");
        }
    }
}
