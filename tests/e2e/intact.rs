//! No corrupt byte leaves: cached files are tampered with in every way, again and again, while clients
//! download and compare every block; everything is found and filled again.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use larder::logic::{infohash::Infohash, metainfo::Metainfo};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    harness::{FinishedDownload, Lab, random_file, sha256, wait_for, without_web_seeds},
    leecher::{Content, Leecher},
    preload,
};

const MIB: usize = 1024 * 1024;

/// A content that is served, and its original.
struct Served {
    infohash: Infohash,
    original: PathBuf,
    /// In the device's cache.
    data: PathBuf,
    content: Arc<Content>,
}

impl Served {
    fn publish(lab: &Lab, name: &str, size: usize, seed: u64) -> Served {
        let original = lab.path(name);
        random_file(&original, size, seed);
        let infohash = lab.publish(&original).infohash;
        lab.wait_until_served(infohash);
        let metainfo = Metainfo::parse(&lab.metainfo(infohash)).expect("our own");
        let content = Content {
            infohash,
            piece_length: metainfo.piece_length,
            bytes: fs::read(&original).expect("reads"),
        };
        let data = lab.path("device/content").join(infohash.to_string()).join("data");
        Served { infohash, original, data, content: Arc::new(content) }
    }

    /// Changes `count` places, of a bit or of more than a page. Whoever opens the file waits until
    /// nothing of it is on its way to anybody.
    fn damage(&self, count: usize, rng: &mut SmallRng) {
        let file = open_for_writing(&self.data);
        let length = self.content.bytes.len();
        for n in 0..count {
            let at = rng.random_range(0..length);
            let bytes = if n % 10 == 9 { 5_000.min(length - at) } else { 1 };
            let mut part = self.content.bytes[at..at + bytes].to_vec();
            let bit = 1 << rng.random_range(0..8);
            part.iter_mut().for_each(|byte| *byte ^= bit);
            file.write_all_at(&part, at as u64).expect("writes");
        }
    }

    fn wait_until_mended(&self, lab: &Lab) {
        wait_for("the content to be what it was", || {
            let same = fs::read(&self.data).ok()? == self.content.bytes;
            let held = lab.content(self.infohash)?;
            (same && held.held_bytes == held.size_bytes).then_some(())
        });
    }
}

/// Blocks leave as fast as they are taken, in runs.
fn unlimited() -> Lab {
    let mut lab = Lab::new();
    lab.device_extra = "egress_bytes_per_second_max = 2_000_000_000".into();
    lab.start_hub();
    lab.start_device();
    lab
}

fn open_for_writing(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("opens")
}

fn damaged(lab: &Lab) -> u64 {
    lab.status().expect("it answers").storage.pieces_damaged_total
}

/// Strict clients on each content, with and without BEP 6.
fn leechers(lab: &Lab, contents: &[&Served]) -> Vec<Leecher> {
    let each = contents.iter().enumerate().flat_map(|(n, served)| {
        [true, true, false].map(|fast| (n as u64, served.content.clone(), fast))
    });
    let start =
        |(i, (n, content, fast))| Leecher::start(lab.peer(), content, fast, 100 * n + i as u64);
    each.enumerate().map(start).collect()
}

/// Everyone is served to the end, with at least so many blocks each, and none of them corrupt.
fn expect_served_rightly(leechers: Vec<Leecher>, blocks_min: u64) {
    let blocks: Vec<u64> = leechers.iter().map(Leecher::blocks).collect();
    wait_for("everyone to be served on", || {
        leechers.iter().zip(&blocks).all(|(l, before)| l.blocks() > before + 100).then_some(())
    });
    for account in leechers.into_iter().map(Leecher::stop) {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        eprintln!(
            "{} blocks, {} rejects, {} connections",
            count(&account.blocks),
            count(&account.rejects),
            count(&account.connections)
        );
        assert_eq!(count(&account.corrupt_blocks), 0);
        assert!(count(&account.blocks) > blocks_min);
    }
}

/// Downloads with aria2c, from the device alone, and compares.
fn download(lab: &Lab, served: &Served, name: &str) {
    let torrent = lab.path(&format!("{name}.torrent"));
    fs::write(&torrent, without_web_seeds(&lab.metainfo(served.infohash))).expect("writes");
    let copy = lab.path(name);
    let status = lab.aria2c(&copy).arg(&torrent).status().expect("runs");
    assert!(status.success());
    let file = served.original.file_name().expect("has one");
    assert_eq!(sha256(&copy.join(file)), sha256(&served.original));
}

#[test]
#[ignore = "slow clients on this machine may read what was written after it was theirs: see README"]
fn bit_flips_reach_nobody_and_are_mended_while_clients_download() {
    let lab = unlimited();
    let small = Served::publish(&lab, "small.bin", 4 * MIB + 77_777, 1);
    let large = Served::publish(&lab, "large.bin", 24 * MIB + 1, 2);
    let leechers = leechers(&lab, &[&small, &large]);
    let mut rng = SmallRng::seed_from_u64(3);

    for _ in 0..6 {
        let before = damaged(&lab);
        small.damage(10, &mut rng);
        large.damage(10, &mut rng);
        small.wait_until_mended(&lab);
        large.wait_until_mended(&lab);
        wait_for("it to be counted", || (damaged(&lab) > before).then_some(()));
    }
    // Without waiting, also into what is just being filled again.
    for _ in 0..40 {
        small.damage(1, &mut rng);
        large.damage(2, &mut rng);
    }
    download(&lab, &small, "in-between");
    small.wait_until_mended(&lab);
    large.wait_until_mended(&lab);
    download(&lab, &large, "after");

    expect_served_rightly(leechers, 1_000);
    assert!(lab.device_log().contains("a piece is damaged"));
}

#[test]
fn files_that_are_cut_exchanged_or_deleted_are_filled_again_and_nobody_gets_a_wrong_byte() {
    let lab = unlimited();
    let served = Served::publish(&lab, "film.bin", 6 * MIB + 5, 4);
    let leechers = leechers(&lab, &[&served]);
    let folder = served.data.parent().expect("has one").to_owned();
    let elsewhere = lab.path("elsewhere");
    fs::create_dir(&elsewhere).expect("creates");
    random_file(&elsewhere.join("data"), served.content.bytes.len(), 5);
    fs::copy(folder.join("metainfo.torrent"), elsewhere.join("metainfo.torrent")).expect("copies");

    open_for_writing(&served.data).set_len(2 * MIB as u64 + 7).expect("cuts");
    served.wait_until_mended(&lab);

    random_file(&lab.path("other"), served.content.bytes.len(), 6);
    fs::rename(lab.path("other"), &served.data).expect("exchanges");
    served.wait_until_mended(&lab);

    fs::remove_file(&served.data).expect("deletes");
    served.wait_until_mended(&lab);

    fs::remove_file(&served.data).expect("deletes");
    symlink(elsewhere.join("data"), &served.data).expect("links");
    served.wait_until_mended(&lab);
    assert!(!fs::symlink_metadata(&served.data).expect("is there").is_symlink());

    fs::rename(&folder, lab.path("moved")).expect("moves");
    symlink(&elsewhere, &folder).expect("links");
    served.wait_until_mended(&lab);
    assert!(!fs::symlink_metadata(&folder).expect("is there").is_symlink());

    expect_served_rightly(leechers, 1_000);
}

#[test]
fn what_was_changed_while_larderd_was_stopped_is_found_when_it_is_asked_for() {
    let mut lab = unlimited();
    let served = Served::publish(&lab, "film.bin", 6 * MIB + 5, 7);
    lab.device.take().expect("it runs").terminate();
    served.damage(20, &mut SmallRng::seed_from_u64(8));
    lab.start_device();
    let leechers = leechers(&lab, &[&served]);
    served.wait_until_mended(&lab);
    wait_for("it to be counted", || (damaged(&lab) > 10).then_some(()));
    expect_served_rightly(leechers, 1_000);
}

#[test]
fn what_rots_is_found_by_the_scrub_although_nobody_asks_for_it() {
    let mut lab = unlimited();
    let served = Served::publish(&lab, "film.bin", 6 * MIB + 5, 9);
    lab.device.take().expect("it runs").terminate();
    served.damage(20, &mut SmallRng::seed_from_u64(10));
    lab.device_extra.push_str("\n[cache]\nscrub_bytes_per_second = 100_000_000");
    lab.start_device();
    served.wait_until_mended(&lab);
    wait_for("it to be counted", || (damaged(&lab) > 10).then_some(()));
}

#[test]
fn an_owners_linked_file_is_never_written_to_and_its_owner_is_told() {
    let mut lab = Lab::new();
    lab.device_extra = "egress_bytes_per_second_max = 2_000_000_000".into();
    let FinishedDownload { torrent, infohash, .. } = preload::download(&lab);
    assert!(preload::preload(&mut lab).status.success());
    lab.start_device();
    lab.wait_until_served(infohash);
    let own = lab.path("data/film.bin");
    let bytes = fs::read(&own).expect("reads");
    let piece_length = Metainfo::parse(&torrent).expect("our own").piece_length;
    let content = Arc::new(Content { infohash, piece_length, bytes: bytes.clone() });
    let leecher = Leecher::start(lab.peer(), content, true, 11);
    wait_for("it to be served", || (leecher.blocks() > 100).then_some(()));

    let mut changed = bytes;
    changed[700_000] ^= 4;
    open_for_writing(&own).write_all_at(&changed[700_000..700_001], 700_000).expect("writes");
    let told = wait_for("the owner to be told", || lab.status()?.problem);
    assert!(told.contains("your file is damaged"), "{told}");
    expect_served_rightly(vec![leecher], 100);
    assert!(fs::read(&own).expect("reads") == changed, "as its owner left it");
}
