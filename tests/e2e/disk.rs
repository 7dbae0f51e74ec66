//! A sick disk under the real larderd: full, read-only, failing and slow. It goes on serving, its owner
//! reads one sentence, and it is well again by itself when the disk is.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use larder::logic::{infohash::Infohash, metainfo::Metainfo};

use crate::{
    harness::{Lab, random_file, wait_for},
    leecher::{Content, Leecher},
};

const SIZE: usize = 6 * 1024 * 1024;
/// However long the illness lasts, the log does not fill with it.
const LINES_MAX: usize = 40;

/// A device whose disk falls ill when the test says so.
struct Ward {
    lab: Lab,
    illness: PathBuf,
    infohash: Infohash,
    leecher: Leecher,
}

impl Ward {
    fn new() -> Ward {
        let mut lab = Lab::new();
        let shim = lab.path("sick_disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/sick_disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&shim)
            .arg(source)
            .status();
        assert!(compiled.expect("a C compiler, as Rust needs one too").success());
        let illness = lab.path("illness");
        fs::write(&illness, "").expect("writes");
        lab.device_environment = vec![
            ("LD_PRELOAD", shim),
            ("SICK_DISK_FOLDER", lab.path("device")),
            ("SICK_DISK_ILLNESS", illness.clone()),
        ];
        lab.device_extra = "egress_bytes_per_second_max = 2_000_000_000".into();
        lab.start_hub();
        lab.start_device();
        let film = lab.path("film.bin");
        random_file(&film, SIZE, 21);
        let infohash = lab.publish(&film).infohash;
        lab.wait_until_served(infohash);
        let piece_length = Metainfo::parse(&lab.metainfo(infohash)).expect("our own").piece_length;
        let content = Content { infohash, piece_length, bytes: fs::read(&film).expect("reads") };
        let leecher = Leecher::start(lab.peer(), Arc::new(content), true, 22);
        wait_for("it to be served", || (leecher.blocks() > 1_000).then_some(()));
        Ward { lab, illness, infohash, leecher }
    }

    fn fall_ill(&self, illness: &str) {
        fs::write(&self.illness, illness).expect("writes");
    }

    fn wait_until_told(&self, words: &str) {
        wait_for(words, || {
            let problems = self.lab.status()?.problems;
            problems.iter().any(|p| p.contains(words)).then_some(())
        });
    }

    fn wait_until_served_on(&self) {
        let before = self.leecher.blocks();
        wait_for("it to be served on", || (self.leecher.blocks() > before + 1_000).then_some(()));
    }

    /// Well again: nobody restarts anything, nothing is lost, and what had to wait is done.
    fn recover(self, waiting: Option<Infohash>) {
        self.fall_ill("");
        let Ward { lab, infohash, leecher, .. } = self;
        wait_for("the problem to be gone", || {
            lab.status().is_some_and(|status| status.problems.is_empty()).then_some(())
        });
        waiting.map(|infohash| lab.wait_until_served(infohash));
        let account = leecher.stop();
        assert_eq!(account.corrupt_blocks(), 0);
        wait_for("all that was served to be counted", || {
            (lab.content(infohash)?.egress_bytes >= account.bytes()).then_some(())
        });
        let log = lab.device_log();
        let errors = log.lines().filter(|l| l.contains(" ERROR ") || l.contains(" WARN "));
        assert!(errors.count() <= LINES_MAX, "{log}");
    }

    /// Another film, which cannot be filled now.
    fn publish_another(&self) -> Infohash {
        let another = self.lab.path("another.bin");
        random_file(&another, SIZE, 23);
        self.lab.publish(&another).infohash
    }
}

#[test]
fn a_full_disk_is_survived() {
    let ward = Ward::new();
    ward.fall_ill("full");
    let another = ward.publish_another();
    ward.wait_until_told("the disk is full");
    ward.wait_until_served_on();
    ward.recover(Some(another));
}

#[test]
fn a_disk_that_turns_read_only_is_survived() {
    let ward = Ward::new();
    ward.fall_ill("read-only");
    let another = ward.publish_another();
    ward.wait_until_told("the disk has become read-only");
    ward.wait_until_served_on();
    ward.recover(Some(another));
}

#[test]
fn a_disk_that_reports_errors_is_survived() {
    let ward = Ward::new();
    ward.fall_ill("errors");
    let another = ward.publish_another();
    ward.wait_until_told("the disk reports errors");
    ward.wait_until_served_on();
    ward.recover(Some(another));
}

#[test]
fn a_slow_disk_holds_up_nobody_whose_blocks_are_in_memory() {
    let ward = Ward::new();
    ward.fall_ill("slow");
    ward.wait_until_told("the disk takes seconds to answer");
    ward.wait_until_served_on();
    ward.recover(None);
}
