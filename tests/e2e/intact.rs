//! No corrupt byte leaves: cached files are tampered with in every way, again and again, while clients
//! download and compare every block; everything is found and filled again.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use larder::logic::{infohash::Infohash, metainfo::Metainfo};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    harness::{Lab, random_file, sha256, wait_for, without_web_seeds},
    leecher::{Content, Leecher},
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
fn bit_flips_reach_nobody_and_are_mended_while_clients_download() {
    let lab = unlimited();
    let small = Served::publish(&lab, "small.bin", 4 * MIB + 77_777, 1);
    let large = Served::publish(&lab, "large.bin", 24 * MIB + 1, 2);
    let leechers = leechers(&lab, &[&small, &large]);
    let mut rng = SmallRng::seed_from_u64(3);

    for _ in 0..10 {
        let before = damaged(&lab);
        small.damage(10, &mut rng);
        large.damage(10, &mut rng);
        small.wait_until_mended(&lab);
        large.wait_until_mended(&lab);
        wait_for("it to be counted", || (damaged(&lab) > before).then_some(()));
    }
    // Without waiting, also into what is just being filled again.
    for _ in 0..60 {
        small.damage(1, &mut rng);
        large.damage(2, &mut rng);
    }
    download(&lab, &small, "in-between");
    small.wait_until_mended(&lab);
    large.wait_until_mended(&lab);
    download(&lab, &large, "after");

    let blocks: Vec<u64> = leechers.iter().map(Leecher::blocks).collect();
    wait_for("everyone to be served on", || {
        leechers.iter().zip(&blocks).all(|(l, before)| l.blocks() > before + 100).then_some(())
    });
    for account in leechers.into_iter().map(Leecher::stop) {
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        eprintln!(
            "{} blocks, {} rejects, {} connections",
            count(&account.blocks),
            count(&account.rejects),
            count(&account.connections)
        );
        assert_eq!(count(&account.corrupt_blocks), 0);
        assert!(count(&account.blocks) > 1_000);
    }
    assert!(lab.device_log().contains("a piece is damaged"));
}
