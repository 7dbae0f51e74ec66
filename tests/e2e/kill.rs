//! `kill -9` on the device in the middle of its work: nothing verified is fetched again, nothing
//! served is counted twice.

use crate::harness::{Lab, random_file, sha256, spawn, wait_for, without_web_seeds};

const MIB: usize = 1024 * 1024;

/// On a line of 100 Mbit/s, so that the fill takes long enough to be caught.
#[test]
fn resumes_a_fill_without_fetching_verified_pieces_again() {
    let mut lab = Lab::in_namespace();
    lab.device_extra = "egress_bytes_per_second_max = 100_000_000".into();
    lab.start_hub();
    lab.start_device();
    let source = lab.path("film.bin");
    let size = 64 * MIB;
    random_file(&source, size, 5);
    lab.slow_down(100);
    let infohash = lab.publish(&source).infohash;
    let held = wait_for("the middle of the fill", || {
        lab.content(infohash).map(|c| c.held_bytes).filter(|held| *held > 0)
    });
    lab.kill_device();
    let sent_before = settled_origin_bytes(&lab, infohash);

    lab.start_device();
    let content = lab.wait_until_served(infohash);
    assert_eq!(content.held_bytes, size as u64);
    let (missing, pieces) = resumed_pieces(&lab.device_log());
    let piece = u64::from(larder::logic::metainfo::piece_length_for(size as u64));
    assert!(missing > 0 && (pieces - missing) * piece >= held, "{missing} of {pieces} missing");
    let fetched = settled_origin_bytes(&lab, infohash) - sent_before;
    assert!(fetched <= missing * piece, "{fetched} bytes fetched for {missing} pieces of {piece}");

    let torrent = lab.path("film.torrent");
    std::fs::write(&torrent, without_web_seeds(&lab.metainfo(infohash))).expect("writes");
    let copy = lab.path("copy");
    let status = lab.aria2c(&copy).arg(&torrent).status().expect("runs");
    assert!(status.success());
    assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));
}

#[test]
fn counts_no_byte_twice_when_killed_while_serving() {
    let mut lab = Lab::new();
    let (size, limit) = (12 * MIB, 3 * MIB);
    lab.device_extra = format!("egress_bytes_per_second_max = {limit}");
    lab.start_hub();
    lab.start_device();
    let source = lab.path("film.bin");
    random_file(&source, size, 6);
    let infohash = lab.publish(&source).infohash;
    lab.wait_until_served(infohash);
    let torrent = lab.path("film.torrent");
    std::fs::write(&torrent, without_web_seeds(&lab.metainfo(infohash))).expect("writes");

    let copy = lab.path("copy");
    let log = lab.path("aria2.log");
    let mut client = spawn(lab.aria2c(&copy).arg(&torrent), &log);
    let counted = wait_for("the middle of serving", || {
        lab.content(infohash).map(|c| c.egress_bytes).filter(|bytes| *bytes > 2 * MIB as u64)
    });
    lab.kill_device();
    lab.start_device();
    let status = wait_for("aria2c to finish", || client.0.try_wait().expect("our child"));
    assert!(status.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
    assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));

    // What was on its way when the device died may have to be asked for again: the requests of one
    // connection. What the dead process had not yet written down is lost, one second's worth.
    let again = 4 * MIB as u64;
    let lost = 2 * limit as u64;
    let ledger = wait_for("books in agreement", || {
        let ledger = lab.content(infohash)?.egress_bytes;
        let idle = lab.status()?.peers_connected == 0;
        (idle && ledger + lost >= size as u64 && lab.books_bytes(infohash) == ledger)
            .then_some(ledger)
    });
    assert!(ledger >= counted, "{ledger} after the restart, {counted} before");
    assert!(ledger <= size as u64 + again, "{ledger} bytes counted for a content of {size}");
}

/// The origin counts when a response ends; wait until it stands still.
fn settled_origin_bytes(lab: &Lab, infohash: larder::logic::infohash::Infohash) -> u64 {
    let mut before = None;
    wait_for("the origin's count to settle", || {
        let bytes = lab.origin_bytes(infohash);
        (before.replace(bytes) == Some(bytes)).then_some(bytes)
    })
}

/// From the last line in which larderd says what a fill lacks.
fn resumed_pieces(log: &str) -> (u64, u64) {
    let line = log.lines().rfind(|l| l.contains("filling") && l.contains("missing="));
    let line = line.expect("larderd says what it fills");
    let field = |name: &str| {
        let start = line.find(name).expect("the field") + name.len();
        let digits: String = line[start..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    (field("missing="), field("pieces="))
}
