//! Clients that nobody here wrote take the content from the device, by `.torrent` and by magnet
//! link; what they got is compared by SHA-256, and the books with what they got.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    Lab, Running, free_ports, random_file, sha256, spawn, wait_for, without_web_seeds,
};

pub const TRANSMISSION: &str = "transmission-cli";
const SIZE: usize = 9_000_001;

/// A lab that serves one published file, and what a client needs to get it from the device alone.
struct Served {
    lab: Lab,
    source: PathBuf,
    torrent: PathBuf,
    magnet: String,
    infohash: larder::logic::infohash::Infohash,
}

fn served() -> Served {
    served_in(Lab::new())
}

fn served_in(mut lab: Lab) -> Served {
    lab.device_extra = "egress_bytes_per_second_max = 100_000_000".into();
    lab.start_hub();
    lab.start_device();
    let source = lab.path("film.bin");
    random_file(&source, SIZE, 1);
    let published = lab.publish(&source);
    lab.wait_until_served(published.infohash);
    let torrent = lab.path("film.torrent");
    fs::write(&torrent, without_web_seeds(&lab.metainfo(published.infohash))).expect("writes");
    Served { source, torrent, magnet: published.magnet, infohash: published.infohash, lab }
}

fn aria2c(lab: &Lab, folder: &Path, what: &str) {
    aria2c_with(lab, folder, &[], what);
}

fn aria2c_with(lab: &Lab, folder: &Path, options: &[&str], what: &str) {
    let output = lab.aria2c(folder).args(options).arg(what).output();
    let output = output.expect("aria2c is installed (make setup)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Runs until the client says that it is done, then ends it. `encryption` is 0 for plain, 1 for
/// preferred (its default) and 2 for required. Runs of one test share a `port`: it does not always say
/// goodbye to the tracker, and of two peers on one address it would see only the one that has gone.
fn transmission(lab: &Lab, folder: &Path, port: u16, encryption: u8, what: &str) {
    transmission_by(lab.command(TRANSMISSION), folder, port, encryption, what);
}

/// The same, wherever `command` runs it.
pub fn transmission_by(mut command: Command, folder: &Path, port: u16, encryption: u8, what: &str) {
    let done = folder.join("done");
    let script = folder.join("finished.sh");
    let config = folder.join("config");
    fs::create_dir_all(&config).expect("creates");
    // It tries µTP for a minute before it turns to TCP, which is all that we speak.
    let settings = format!(r#"{{"utp-enabled": false, "encryption": {encryption}}}"#);
    fs::write(config.join("settings.json"), settings).expect("writes");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", done.display())).expect("writes");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("allows");
    let mut client: Running = spawn(
        command
            .arg("--config-dir")
            .arg(&config)
            .arg("--download-dir")
            .arg(folder)
            .args(["--no-portmap", "--port", &port.to_string(), "--finish"])
            .arg(&script)
            .arg(what),
        &folder.join("transmission.log"),
    );
    wait_for("Transmission to finish", || done.exists().then_some(()));
    client.terminate();
}

#[test]
fn aria2c_downloads_by_torrent_and_by_magnet_link_and_the_books_agree() {
    let s = served();
    aria2c(&s.lab, &s.lab.path("by-torrent"), s.torrent.to_str().expect("UTF-8"));
    assert_eq!(sha256(&s.lab.path("by-torrent/film.bin")), sha256(&s.source));
    s.lab.wait_until_booked(s.infohash, SIZE as u64);

    aria2c(&s.lab, &s.lab.path("by-magnet"), &s.magnet);
    assert_eq!(sha256(&s.lab.path("by-magnet/film.bin")), sha256(&s.source));
    s.lab.wait_until_booked(s.infohash, 2 * SIZE as u64);
}

/// In a network of its own: Transmission talks to no peer on 127.0.0.0/8.
#[test]
fn transmission_downloads_by_torrent_and_by_magnet_link_and_the_books_agree() {
    let s = served_in(Lab::in_namespace());
    let [port] = free_ports();
    transmission(&s.lab, &s.lab.path("by-torrent"), port, 1, s.torrent.to_str().expect("UTF-8"));
    assert_eq!(sha256(&s.lab.path("by-torrent/film.bin")), sha256(&s.source));
    s.lab.wait_until_booked(s.infohash, SIZE as u64);

    transmission(&s.lab, &s.lab.path("by-magnet"), port, 1, &s.magnet);
    assert_eq!(sha256(&s.lab.path("by-magnet/film.bin")), sha256(&s.source));
    s.lab.wait_until_booked(s.infohash, 2 * SIZE as u64);
}

/// It refuses to speak plain, so what it gets came encrypted.
#[test]
fn aria2c_that_requires_encryption_downloads_in_both_forms_and_the_books_agree() {
    let s = served();
    let mut downloads = 0;
    for (level, form) in [("plain", "plaintext"), ("arc4", "ARC4")] {
        let level = format!("--bt-min-crypto-level={level}");
        for what in [s.torrent.to_str().expect("UTF-8"), &s.magnet] {
            downloads += 1;
            let folder = s.lab.path(&downloads.to_string());
            let log = s.lab.path(&format!("aria2c-{downloads}.log"));
            let log_option = format!("--log={}", log.display());
            let options = ["--bt-require-crypto=true", &level, &log_option];
            aria2c_with(&s.lab, &folder, &options, what);
            assert_eq!(sha256(&folder.join("film.bin")), sha256(&s.source));
            s.lab.wait_until_booked(s.infohash, downloads * SIZE as u64);
            let said = fs::read_to_string(&log).expect("its log");
            let agreed = format!("peer prefers {form}");
            assert!(said.contains(&agreed), "no `{agreed}` in {}", log.display());
        }
    }
}

/// In a network of its own, as above.
#[test]
fn transmission_that_requires_encryption_downloads_and_the_books_agree() {
    let s = served_in(Lab::in_namespace());
    let [port] = free_ports();
    transmission(&s.lab, &s.lab.path("by-magnet"), port, 2, &s.magnet);
    assert_eq!(sha256(&s.lab.path("by-magnet/film.bin")), sha256(&s.source));
    s.lab.wait_until_booked(s.infohash, SIZE as u64);
}

#[test]
fn aria2c_with_the_published_torrent_takes_from_device_and_web_seed() {
    let s = served();
    let published = s.lab.path("published.torrent");
    fs::write(&published, s.lab.metainfo(s.infohash)).expect("writes");
    aria2c(&s.lab, &s.lab.path("both"), published.to_str().expect("UTF-8"));
    assert_eq!(sha256(&s.lab.path("both/film.bin")), sha256(&s.source));
}

/// On a line of 50 Mbit/s, where the web seed alone does not win before the first device is asked.
#[test]
fn a_second_device_fills_from_the_first() {
    let mut first = Lab::in_namespace();
    first.start_hub();
    first.start_device();
    let source = first.path("film.bin");
    random_file(&source, SIZE, 2);
    let infohash = first.publish(&source).infohash;
    first.wait_until_served(infohash);
    wait_for("the first device's announce", || {
        first.device_log().contains("announced").then_some(())
    });

    first.slow_down(50);
    let second = first.second_device();
    let content = second.wait_until_served(infohash);
    assert_eq!(content.filled_by_web_seed_bytes + content.filled_by_peer_bytes, SIZE as u64);
    assert!(content.filled_by_peer_bytes > 0, "nothing came from the first device: {content:?}");
    // A piece that came from both sides counts for the web seed, if that was sooner.
    wait_for("the first device's books", || {
        let served = first.content(infohash)?.egress_bytes;
        assert!(served <= SIZE as u64, "{served} bytes served of {SIZE}");
        (served >= content.filled_by_peer_bytes && first.books_bytes(infohash) == served)
            .then_some(())
    });
}

#[test]
fn directories_keep_their_structure() {
    let lab = Lab::started();
    let folder = lab.path("season one");
    fs::create_dir_all(folder.join("extras")).expect("creates");
    random_file(&folder.join("one.bin"), 700_000, 3);
    random_file(&folder.join("extras/two.bin"), 300_001, 4);
    let published = lab.publish(&folder);
    lab.wait_until_served(published.infohash);
    let torrent = lab.path("season.torrent");
    fs::write(&torrent, without_web_seeds(&lab.metainfo(published.infohash))).expect("writes");
    aria2c(&lab, &lab.path("copy"), torrent.to_str().expect("UTF-8"));
    for file in ["one.bin", "extras/two.bin"] {
        let copy = lab.path("copy/season one").join(file);
        assert_eq!(sha256(&copy), sha256(&folder.join(file)), "{file}");
    }
    lab.wait_until_booked(published.infohash, 1_000_001);
}
