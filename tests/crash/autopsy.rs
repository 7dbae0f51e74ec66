//! Looks into the data folder of a device that is dead, through a copy that the real store opens: what
//! it would find at its next start.

use std::{fs, os::unix::fs::FileExt, path::Path};

use larder::{device::store::Store, logic::infohash::Infohash};
use tempfile::TempDir;

/// What the store found.
pub struct Found {
    store: Store,
    /// By the whole ledger.
    pub egress_bytes: u64,
    /// In the piece maps; all of them were right.
    pub pieces: u32,
    _copy: TempDir,
}

impl Found {
    pub fn egress_bytes_of(&self, infohash: Infohash) -> u64 {
        self.store.egress(infohash).payload_bytes
    }
}

/// Fails if a piece of the map has a wrong hash, or if the store refuses the folder.
pub fn open(data_dir: &Path) -> Found {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["larder.db", "larder.db-wal", "ledger.journal", "larder-data"] {
        // Not all of them are there at any moment.
        let _ = fs::copy(data_dir.join(name), copy.path().join(name));
    }
    link_content(&data_dir.join("content"), &copy.path().join("content"));
    let store = Store::open(copy.path()).expect("a killed larderd leaves a folder that opens");
    let contents = store.contents().expect("reads");
    let pieces = contents.iter().map(|c| verify(&store, c.infohash)).sum();
    let egress_bytes = store.egress_total().payload_bytes;
    Found { store, egress_bytes, pieces, _copy: copy }
}

/// The store never writes to content when it opens.
fn link_content(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    let Ok(folders) = fs::read_dir(from) else { return };
    for folder in folders {
        let folder = folder.expect("reads");
        let target = to.join(folder.file_name());
        fs::create_dir_all(&target).expect("creates");
        for file in fs::read_dir(folder.path()).expect("reads") {
            let file = file.expect("reads");
            fs::hard_link(file.path(), target.join(file.file_name())).expect("links");
        }
    }
}

/// Fails if a piece in the map is wrong; answers how many there are.
pub fn verify(store: &Store, infohash: Infohash) -> u32 {
    let held = store.stored_content(infohash).expect("reads").expect("held");
    let metainfo = store.metainfo(infohash).expect("parses").expect("held");
    let file = store.open_for_serving(infohash).expect("opens");
    for piece in held.have.iter_held() {
        let mut bytes = vec![0; metainfo.piece_bytes(piece).expect("in the map") as usize];
        file.read_exact_at(&mut bytes, metainfo.piece_offset(piece)).expect("reads");
        assert!(metainfo.verifies(piece, &bytes), "piece {piece} of {infohash} is wrong");
    }
    held.have.held()
}
