use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::logic::{
    infohash::sha1,
    metainfo::{NewLayout, NewMetainfo},
};

const PIECE: u32 = 16 * 1024;
const ROOM: Room = Room { quota_bytes: 1 << 30, reserve_bytes: 0 };

/// A household's folders, and the store that takes them in.
struct Home {
    folder: TempDir,
    store: Store,
}

impl Home {
    fn new() -> Home {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["torrents", "data"] {
            fs::create_dir(folder.path().join(name)).expect("creates");
        }
        let store = Store::open(&folder.path().join("store")).expect("opens");
        Home { folder, store }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn torrent(&self, name: &str, content: &[u8], layout: NewLayout<'_>) -> PathBuf {
        let hashes: Vec<u8> = content.chunks(PIECE as usize).flat_map(sha1).collect();
        let (torrent, _) = NewMetainfo {
            name,
            piece_length: PIECE,
            pieces: &hashes,
            layout,
            private: false,
            tracker_tiers: &[],
            web_seeds: &[],
        }
        .encode();
        let path =
            self.folder.path().join("torrents").join(format!("{}.torrent", sha1_hex(&hashes)));
        fs::write(&path, torrent).expect("writes");
        path
    }

    /// A film of three pieces, with its file in place.
    fn film(&self) -> (PathBuf, PathBuf) {
        let content = bytes(2 * PIECE as usize + 5000);
        let file = self.data().join("film.mp4");
        fs::write(&file, &content).expect("writes");
        let length = content.len() as u64;
        (self.torrent("film.mp4", &content, NewLayout::Single { length }), file)
    }

    fn preload(&self, torrent: &Path) -> Result<(Metainfo, Adopted), Refused> {
        preload(&self.store, torrent, &self.data(), ROOM)
    }

    /// Why it was refused; and nothing of it stayed.
    fn refusal(&self, torrent: &Path) -> String {
        let refused = self.preload(torrent).expect_err("refused").to_string();
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert_eq!(self.store.contents().expect("reads"), []);
        for folder in ["store/scratch", "store/content"] {
            let left = fs::read_dir(self.folder.path().join(folder)).expect("lists").count();
            assert_eq!(left, 0, "{folder} after: {refused}");
        }
        refused
    }

    /// What a start of larderd finds.
    fn reopened(self) -> Home {
        drop(self.store);
        let store = Store::open(&self.folder.path().join("store")).expect("opens");
        Home { store, folder: self.folder }
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn sha1_hex(bytes: &[u8]) -> String {
    sha1(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn links_a_single_file_and_serves_it_as_a_pin_from_then_on() {
    let home = Home::new();
    let (torrent, file) = home.film();
    let (metainfo, adopted) = home.preload(&torrent).expect("fits");
    assert_eq!(adopted, Adopted::Linked);
    assert_eq!(fs::metadata(&file).expect("still there").nlink(), 2);
    let home = home.reopened();
    let held = home.store.stored_content(metainfo.infohash).expect("reads").expect("held");
    assert!(held.pinned && held.have.is_complete());
    let served = home.store.open_for_serving(metainfo.infohash).expect("opens");
    let inode = |m: fs::Metadata| m.ino();
    assert_eq!(
        inode(served.metadata().expect("a file")),
        inode(fs::metadata(&file).expect("a file"))
    );
    assert_eq!(home.preload(&torrent).expect("again").1, Adopted::Held);
}

#[test]
fn copies_the_files_of_a_folder_into_one_and_knows_padding() {
    let home = Home::new();
    let content = [bytes(20_000), vec![0; 12_768], b"the end".to_vec()].concat();
    let file = |path: &[&str], length| File {
        path: path.iter().map(|s| (*s).to_owned()).collect(),
        length,
    };
    let files =
        [file(&["disc", "a.mkv"], 20_000), file(&[".pad", "12768"], 12_768), file(&["b.txt"], 7)];
    let torrent = home.torrent("Series", &content, NewLayout::Directory { files: &files });
    fs::create_dir_all(home.data().join("Series/disc")).expect("creates");
    fs::write(home.data().join("Series/disc/a.mkv"), &content[..20_000]).expect("writes");
    fs::write(home.data().join("Series/b.txt"), "the end").expect("writes");
    let (metainfo, adopted) = home.preload(&torrent).expect("fits");
    assert_eq!(adopted, Adopted::Copied);
    let mut served = home.store.open_for_serving(metainfo.infohash).expect("opens");
    let mut read = vec![];
    io::Read::read_to_end(&mut served, &mut read).expect("reads");
    assert!(read == content, "the files in order");
}

#[test]
fn names_the_piece_that_is_wrong_and_keeps_nothing() {
    let home = Home::new();
    let (torrent, file) = home.film();
    let mut content = fs::read(&file).expect("reads");
    content[PIECE as usize + 3] ^= 1;
    fs::write(&file, &content).expect("writes");
    let refused = home.refusal(&torrent);
    assert!(refused.starts_with("piece 1 of 3 ") && refused.contains("film.mp4"), "{refused}");
    assert_eq!(fs::read(&file).expect("still there"), content);
}

#[test]
fn says_what_is_missing_short_or_a_link() {
    let home = Home::new();
    let (torrent, file) = home.film();
    let away = home.folder.path().join("elsewhere.mp4");
    fs::rename(&file, &away).expect("moves");
    assert!(home.refusal(&torrent).ends_with("film.mp4 is missing"));
    symlink(&away, &file).expect("links");
    assert!(home.refusal(&torrent).contains("is a symbolic link"));
    fs::remove_file(&file).expect("removes");
    fs::write(&file, "short").expect("writes");
    assert!(home.refusal(&torrent).contains("has 5 bytes, but the torrent says 37768"));
}

#[test]
fn looks_nowhere_but_below_the_data_folder() {
    let home = Home::new();
    let content = bytes(100);
    fs::write(home.folder.path().join("secret"), &content).expect("writes");
    let single = NewLayout::Single { length: 100 };
    let torrent = home.torrent("../secret", &content, single);
    assert!(home.refusal(&torrent).contains("names a file that no folder can have"));
    for path in [&["..", "secret"][..], &["a/../../secret"], &[""], &["."]] {
        let path = path.iter().map(|s| (*s).to_owned()).collect();
        let files = [File { path, length: 100 }];
        let torrent = home.torrent("data", &content, NewLayout::Directory { files: &files });
        assert!(home.refusal(&torrent).contains("names a file that no folder can have"));
    }
    symlink(home.folder.path(), home.data().join("up")).expect("links");
    let files = [File { path: vec!["secret".into()], length: 100 }];
    let torrent = home.torrent("up", &content, NewLayout::Directory { files: &files });
    assert!(home.refusal(&torrent).contains("up is a symbolic link"));
}

#[test]
fn keeps_to_the_quota_with_all_pins_together() {
    let home = Home::new();
    let (film, _) = home.film();
    home.preload(&film).expect("fits");
    let content = bytes(100);
    fs::write(home.data().join("song.ogg"), &content).expect("writes");
    let torrent = home.torrent("song.ogg", &content, NewLayout::Single { length: 100 });
    let full = Room { quota_bytes: 37_867, reserve_bytes: 0 };
    let refused = preload(&home.store, &torrent, &home.data(), full).expect_err("too much");
    assert!(refused.to_string().contains("raise cache.quota_bytes"), "{refused}");
    let enough = Room { quota_bytes: 37_868, reserve_bytes: 0 };
    preload(&home.store, &torrent, &home.data(), enough).expect("fits exactly");
    preload(&home.store, &film, &home.data(), enough).expect("what is pinned counts once");
}

#[test]
fn drops_a_link_whose_file_was_changed_and_takes_it_in_again() {
    let home = Home::new();
    let (torrent, file) = home.film();
    let (metainfo, _) = home.preload(&torrent).expect("fits");
    let changed = fs::File::options().write(true).open(&file).expect("opens");
    changed.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("sets the time");
    let home = home.reopened();
    assert_eq!(home.store.stored_content(metainfo.infohash).expect("reads"), None);
    assert_eq!(home.preload(&torrent).expect("verified again").1, Adopted::Linked);
}

#[test]
fn goes_on_after_a_bad_torrent_and_says_so_at_the_end() {
    let home = Home::new();
    let (torrent, _) = home.film();
    let torrents = torrent.parent().expect("a folder").to_owned();
    fs::write(torrents.join("broken.torrent"), "not bencoded").expect("writes");
    let config = DeviceConfig { data_dir: home.folder.path().join("fresh"), ..Default::default() };
    let args = PreloadArgs { torrents, data: home.data() };
    let code = run(&config, &args).expect("runs");
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(EX_DATAERR)));
    let store = Store::open(&config.data_dir).expect("free again");
    assert_eq!(store.contents().expect("reads").len(), 1);
}
