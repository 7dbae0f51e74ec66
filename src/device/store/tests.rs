mod books;
mod chain;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::{
    api::{
        hub::Report,
        signed::{Signed, SigningKey},
    },
    logic::{
        infohash::sha1,
        ledger::{
            self,
            dating::{BootId, BootMoment, KnownTime, Stamp},
        },
        metainfo::{Metainfo, NewLayout, NewMetainfo},
        now::{UnixSeconds, UtcHour, UtcMonth},
        placement::Part,
        usage::{PeerClass, UsageDelta},
    },
};

const PIECE: u32 = 16 * 1024;
const HOUR: UtcHour = UtcHour(500_000);
const BOOT: BootId = BootId([8; 16]);
/// The hour in which the boot began has just ended.
const KNOWN: KnownTime = KnownTime {
    boot: BOOT,
    boot_began: UnixSeconds(500_000 * 3600),
    now: UnixSeconds(500_001 * 3600),
};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path()).expect("opens")
}

/// A content of `pieces` pieces, the last one short.
fn content(name: &str, pieces: u32) -> (Metainfo, Vec<u8>, Vec<u8>) {
    let length = pieces * PIECE - 100;
    let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8 ^ name.len() as u8).collect();
    let hashes: Vec<u8> = data.chunks(PIECE as usize).flat_map(sha1).collect();
    let (torrent, infohash) = NewMetainfo {
        name,
        piece_length: PIECE,
        pieces: &hashes,
        layout: NewLayout::Single { length: u64::from(length) },
        private: false,
        tracker_tiers: &[],
        web_seeds: &[],
    }
    .encode();
    (Metainfo::parse_expecting(&torrent, infohash).expect("own format"), torrent, data)
}

fn served(infohash: Infohash, payload_bytes: u64) -> UsageDelta {
    let usage = Usage { payload_bytes, wire_bytes: payload_bytes + 66 };
    UsageDelta { infohash, class: PeerClass::Wan, usage }
}

fn dated(hour: UtcHour) -> Stamp {
    Stamp { moment: BootMoment { boot: BOOT, seconds: 0 }, hour: Some(hour) }
}

/// From before the time was known.
fn held(seconds: u32) -> Stamp {
    Stamp { moment: BootMoment { boot: BOOT, seconds }, hour: None }
}

/// What a crash at this moment would leave: a copy of every file as the kernel sees it.
fn crashed_copy(dir: &TempDir) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("creates");
        for entry in fs::read_dir(from).expect("lists") {
            let entry = entry.expect("an entry");
            let target = to.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).expect("copies");
            }
        }
    }
    let to = folder();
    copy(dir.path(), to.path());
    to
}

fn write_piece(store: &Store, metainfo: &Metainfo, data: &[u8], piece: u32) {
    let from = metainfo.piece_offset(piece) as usize;
    let to = from + metainfo.piece_bytes(piece).expect("exists") as usize;
    let file = store.content(metainfo.infohash).expect("opens");
    file.write_at(from as u64, &data[from..to]).expect("writes");
}

#[test]
fn keeps_settings_and_secrets() {
    let dir = folder();
    let store = open(&dir);
    assert_eq!(store.setting::<u64>("limit").expect("reads"), None);
    store.set_setting("limit", &7u64).expect("writes");
    store.set_secret("key", &[1, 2, 3]).expect("writes");
    drop(store);
    let store = open(&dir);
    assert_eq!(store.setting("limit").expect("reads"), Some(7u64));
    assert_eq!(store.secret("key").expect("reads"), Some(vec![1, 2, 3]));
    let error = store.setting::<Vec<String>>("limit").expect_err("another type");
    assert!(matches!(error, StoreError::Value { .. }), "{error}");
}

#[test]
fn is_readable_by_its_owner_only() {
    let dir = folder();
    let path = dir.path().join("data");
    fs::create_dir(&path).expect("creates");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("sets");
    let _store = Store::open(&path).expect("opens");
    assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o700);
}

#[test]
fn refuses_a_second_larderd_on_the_same_folder() {
    let dir = folder();
    let first = open(&dir);
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(first);
    open(&dir);
}

#[test]
fn refuses_to_begin_anew_where_a_ledger_was() {
    let dir = folder();
    drop(open(&dir));
    for file in ["larder.db", "larder.db-wal", "larder.db-shm"] {
        let _ = fs::remove_file(dir.path().join(file));
    }
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::LedgerMissing { .. }), "{error}");
    assert!(!dir.path().join("larder.db").exists());
}

#[test]
fn refuses_an_emptied_database_and_one_of_another_device() {
    let (dir, other) = (folder(), folder());
    drop(open(&dir));
    drop(open(&other));
    fs::copy(other.path().join("larder.db"), dir.path().join("larder.db")).expect("copies");
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Mixed { .. }), "{error}");

    fs::write(dir.path().join("larder.db"), b"").expect("empties");
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::LedgerMissing { .. }), "{error}");
}

#[test]
fn completes_a_first_start_that_was_interrupted() {
    let dir = folder();
    drop(open(&dir));
    fs::remove_file(dir.path().join("larder-data")).expect("removes");
    drop(open(&dir));
    assert!(dir.path().join("larder-data").exists());
}

#[test]
fn says_that_a_damaged_database_is_damaged_and_deletes_nothing() {
    let dir = folder();
    drop(open(&dir));
    let path = dir.path().join("larder.db");
    let garbage = vec![0x5a; 8192];
    fs::write(&path, &garbage).expect("damages");
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), garbage);
}

#[test]
fn refuses_a_database_of_a_newer_version() {
    let dir = folder();
    drop(open(&dir));
    let db = Connection::open(dir.path().join("larder.db")).expect("opens");
    db.pragma_update(None, "user_version", 99).expect("sets");
    drop(db);
    let error = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[test]
fn takes_the_space_before_the_first_byte() {
    use std::os::unix::fs::MetadataExt;
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, _) = content("film", 20);
    store.begin(&metainfo, &torrent, Part::whole()).expect("begins");
    store.begin(&metainfo, &torrent, Part::whole()).expect("begins again");
    let file = fs::metadata(store.content(metainfo.infohash).expect("opens").path()).expect("is");
    assert_eq!(file.len(), metainfo.total_bytes);
    assert!(file.blocks() * 512 >= metainfo.total_bytes, "{} blocks", file.blocks());
    assert_eq!(store.metainfo(metainfo.infohash).expect("reads"), Some(metainfo));
}

#[test]
fn takes_the_space_of_a_part_alone_and_more_when_it_grows() {
    use std::os::unix::fs::MetadataExt;
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, data) = content("film", 200);
    let piece = u64::from(PIECE);
    let begin = |part| store.begin(&metainfo, &torrent, part).expect("begins");
    let taken = || {
        let path = store.content(metainfo.infohash).expect("opens").path().to_owned();
        let file = fs::metadata(path).expect("is");
        assert_eq!(file.len(), metainfo.total_bytes);
        file.blocks() * 512
    };
    let first = Part::of(0..20 * piece + 5);
    assert_eq!(begin(first), first);
    assert!((20 * piece..40 * piece).contains(&taken()), "{}", taken());
    write_piece(&store, &metainfo, &data, 3);
    store.mark_verified(metainfo.infohash, &[3], piece, 0).expect("marks");
    let grown = Part::of(0..100 * piece);
    assert_eq!(begin(Part::of(10 * piece..100 * piece)), grown);
    assert!((100 * piece..120 * piece).contains(&taken()), "{}", taken());
    assert_eq!(begin(first), grown, "what has its space keeps it");
    let held = store.stored_content(metainfo.infohash).expect("reads").expect("is there");
    assert_eq!((held.part, held.wanted_bytes(), held.held_bytes()), (grown, 100 * piece, piece));
    assert_eq!(begin(Part::whole()), Part::whole());
    assert!(taken() >= metainfo.total_bytes);
    assert_eq!(
        store.stored_content(metainfo.infohash).expect("reads").expect("is").have,
        held.have
    );
}

#[test]
fn a_part_is_complete_when_its_own_pieces_are_there_also_after_a_restart() {
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, data) = content("film", 10);
    let part = Part::of(u64::from(7 * PIECE)..metainfo.total_bytes);
    store.begin(&metainfo, &torrent, part).expect("begins");
    for piece in [7, 9] {
        write_piece(&store, &metainfo, &data, piece);
    }
    let stored =
        |store: &Store| store.stored_content(metainfo.infohash).expect("reads").expect("is");
    store.mark_verified(metainfo.infohash, &[7, 9], 1, 2).expect("marks");
    assert!(!stored(&store).is_complete());
    assert_eq!(stored(&store).held_bytes(), u64::from(2 * PIECE) - 100, "the last one is short");
    write_piece(&store, &metainfo, &data, 8);
    store.mark_verified(metainfo.infohash, &[8], 1, 2).expect("marks");
    drop(store);
    let held = stored(&open(&dir));
    assert!(held.is_complete() && !held.have.is_complete());
    assert_eq!((held.part, held.held_bytes()), (part, held.wanted_bytes()));
}

#[test]
fn no_name_from_a_torrent_becomes_a_path() {
    let long = "x".repeat(5000);
    for name in ["..", "../../evil", "/evil", "a\0b", "a/b", ".", "", "con\r\nfig", &long] {
        let dir = folder();
        let store = open(&dir);
        let (metainfo, torrent, data) = content(name, 2);
        store.begin(&metainfo, &torrent, Part::whole()).expect("begins");
        write_piece(&store, &metainfo, &data, 0);
        store.mark_verified(metainfo.infohash, &[0], 1, 0).expect("marks");
        let names = |path: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(path).expect("lists");
            entries.map(|e| e.expect("is").file_name().into_string().expect("plain")).collect()
        };
        let contents = dir.path().join("content");
        let infohash = metainfo.infohash.to_string();
        assert_eq!(names(&contents), BTreeSet::from([infohash.clone()]), "{name:?}");
        let both = ["data", "metainfo.torrent"].map(ToOwned::to_owned);
        assert_eq!(names(&contents.join(infohash)), BTreeSet::from(both), "{name:?}");
        let held = store.contents().expect("lists");
        assert_eq!(held[0].name, name, "text stays text");
    }
}

#[test]
fn says_how_much_space_is_missing_and_leaves_nothing_behind() {
    let dir = folder();
    let store = open(&dir);
    let (mut metainfo, torrent, _) = content("film", 1);
    metainfo.total_bytes = u64::MAX / 4;
    let error = store.begin(&metainfo, &torrent, Part::whole()).expect_err("too large");
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert_eq!(store.contents().expect("lists"), []);
    assert_eq!(fs::read_dir(dir.path().join("content")).expect("lists").count(), 0);
}

#[test]
fn remembers_verified_pieces_and_where_they_came_from() {
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, data) = content("film", 4);
    store.begin(&metainfo, &torrent, Part::whole()).expect("begins");
    write_piece(&store, &metainfo, &data, 1);
    write_piece(&store, &metainfo, &data, 3);
    store.mark_verified(metainfo.infohash, &[1, 3], 100, 30).expect("marks");
    drop(store);

    let store = open(&dir);
    let [held] = &store.contents().expect("lists")[..] else { panic!("one content") };
    assert_eq!(held.have.iter_held().collect::<Vec<_>>(), [1, 3]);
    assert_eq!((held.web_seed_bytes, held.peer_bytes), (100, 30));
    let mut read = vec![0; PIECE as usize];
    let file = store.content(metainfo.infohash).expect("opens");
    file.read_at(metainfo.piece_offset(1), &mut read).expect("reads");
    assert!(metainfo.verifies(1, &read));
    store.mark_damaged(metainfo.infohash, &[3]).expect("marks");
    let held = store.stored_content(metainfo.infohash).expect("reads").expect("held");
    assert_eq!(held.have.iter_held().collect::<Vec<_>>(), [1]);
}

#[test]
fn knows_nothing_of_content_that_it_does_not_hold() {
    let dir = folder();
    let store = open(&dir);
    let nobody = Infohash([9; 20]);
    assert_eq!(store.metainfo(nobody).expect("reads"), None);
    assert!(matches!(store.content(nobody), Err(StoreError::UnknownContent(_))));
    assert!(matches!(store.mark_verified(nobody, &[0], 1, 0), Err(StoreError::UnknownContent(_))));
    assert!(store.open_for_serving(nobody).is_err());
    store.remove(nobody).expect("nothing to do");
}

#[test]
fn removes_content_but_not_what_it_earned() {
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, _) = content("film", 4);
    store.begin(&metainfo, &torrent, Part::whole()).expect("begins");
    store.add_usage(dated(HOUR), &[served(metainfo.infohash, 500)]).expect("adds");
    store.remove(metainfo.infohash).expect("removes");
    assert_eq!(store.contents().expect("lists"), []);
    assert_eq!(fs::read_dir(dir.path().join("content")).expect("lists").count(), 0);
    assert_eq!(store.usage_between(HOUR, UtcHour(HOUR.0 + 1)).expect("reads").len(), 1);
}

#[test]
fn cleans_up_what_a_crash_left_half_done() {
    let dir = folder();
    let store = open(&dir);
    let (whole, whole_torrent, _) = content("whole", 2);
    let (lost, lost_torrent, _) = content("lost file", 2);
    store.begin(&whole, &whole_torrent, Part::whole()).expect("begins");
    store.begin(&lost, &lost_torrent, Part::whole()).expect("begins");
    drop(store);

    let contents = dir.path().join("content");
    let orphan = contents.join(Infohash([7; 20]).to_string());
    fs::create_dir(&orphan).expect("creates");
    fs::write(orphan.join("data"), b"never finished").expect("writes");
    fs::write(contents.join("owners-notes.txt"), b"mine").expect("writes");
    fs::remove_file(contents.join(lost.infohash.to_string()).join("data")).expect("removes");

    let store = open(&dir);
    let held: Vec<_> = store.contents().expect("lists").iter().map(|c| c.infohash).collect();
    assert_eq!(held, [whole.infohash]);
    assert!(!orphan.exists());
    assert!(contents.join("owners-notes.txt").exists());
    store.begin(&lost, &lost_torrent, Part::whole()).expect("begins again");
}

#[test]
fn finds_everything_again_after_a_crash() {
    let dir = folder();
    let store = open(&dir);
    let (metainfo, torrent, data) = content("film", 4);
    let key = SigningKey::generate();
    store.begin(&metainfo, &torrent, Part::whole()).expect("begins");
    write_piece(&store, &metainfo, &data, 0);
    store.mark_verified(metainfo.infohash, &[0], 7, 0).expect("marks");
    store.add_usage(dated(HOUR), &[served(metainfo.infohash, 500)]).expect("adds");
    store
        .build_report("device", UnixSeconds(9), &key, &BTreeSet::new())
        .expect("builds")
        .expect("something new");
    store.add_usage(dated(HOUR), &[served(metainfo.infohash, 20)]).expect("adds");

    // The store above is still open: nothing was closed or flushed for the copy's sake.
    let copy = crashed_copy(&dir);
    let after = open(&copy);
    assert_eq!(after.contents().expect("lists"), store.contents().expect("lists"));
    assert_eq!(after.egress(metainfo.infohash).payload_bytes, 520);
    assert_eq!(after.unsent_reports().expect("lists"), store.unsent_reports().expect("lists"));
    let number =
        after.build_report("device", UnixSeconds(10), &key, &BTreeSet::new()).expect("builds");
    assert_eq!(number, Some(2));
    let (_, second) = &after.unsent_reports().expect("lists")[1];
    let report: Report = second.open(&[key.public_hex()]).expect("signed by us");
    assert_eq!(report.lines.iter().map(|l| l.usage.payload_bytes).sum::<u64>(), 20);
}
