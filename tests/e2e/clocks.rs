//! A device whose clock says 1970, then jumps by ten years in both directions, while it serves: the books
//! are as if it had been right all the time.

use std::{fs, os::unix::fs::FileExt, path::Path};

use larder::api::{hub::Statement, signed::Signed};

use crate::harness::{Lab, compile_preloaded, random_file, sha256, without_web_seeds};

const MIB: usize = 1024 * 1024;
const TEN_YEARS: i64 = 10 * 365 * 24 * 3600;
/// So far back that it is 1970.
const NO_CLOCK: i64 = i64::MIN / 4;

/// By how much the device's clock is wrong.
struct WrongClock(fs::File);

impl WrongClock {
    fn install(lab: &mut Lab) -> WrongClock {
        let path = lab.path("clock");
        fs::write(&path, [0; 8]).expect("writes");
        let library = compile_preloaded("tests/e2e/clock.c", lab.folder.path());
        lab.device_environment = vec![("LD_PRELOAD", library), ("LARDER_CLOCK_FILE", path.clone())];
        WrongClock(fs::OpenOptions::new().write(true).open(path).expect("opens"))
    }

    fn set(&self, seconds: i64) {
        self.0.write_all_at(&seconds.to_ne_bytes(), 0).expect("writes");
    }
}

#[test]
fn no_jump_of_the_clock_moves_money() {
    let mut lab = Lab::new();
    let clock = WrongClock::install(&mut lab);
    lab.start_hub();
    clock.set(NO_CLOCK);
    lab.start_device();
    let source = lab.path("film.bin");
    random_file(&source, 3 * MIB, 8);
    let infohash = lab.publish(&source).infohash;
    lab.wait_until_served(infohash);
    let torrent = lab.path("film.torrent");
    fs::write(&torrent, without_web_seeds(&lab.metainfo(infohash))).expect("writes");
    let take = |lab: &Lab, name: &str| {
        let copy = lab.path(name);
        let status = lab.aria2c(&copy).arg(&torrent).status().expect("runs");
        assert!(status.success(), "the download with {name}");
        assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));
    };
    take(&lab, "no clock");
    for (n, offset) in [TEN_YEARS, -TEN_YEARS, 0, NO_CLOCK, 7200].into_iter().enumerate() {
        clock.set(offset);
        take(&lab, &format!("an offset of {offset}"));
        lab.wait_until_booked(infohash, (n as u64 + 2) * 3 * MIB as u64);
    }
    // Again from the start, with a clock that was never right in this run.
    lab.kill_device();
    clock.set(TEN_YEARS);
    lab.start_device();
    lab.wait_until_served(infohash);
    take(&lab, "a wrong clock from the start");
    lab.wait_until_booked(infohash, 7 * 3 * MIB as u64);

    let hours = statement_hours(&lab.path("device"));
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let hour = (now.as_secs() / 3600) as u32;
    assert!(hours.iter().all(|h| (hour - 1..=hour).contains(h)), "{hours:?}, and it is {hour}");
}

/// Hours of the statement that the device has kept.
fn statement_hours(data_dir: &Path) -> Vec<u32> {
    let db = rusqlite::Connection::open(data_dir.join("larder.db")).expect("opens");
    let text: String = db
        .query_row("SELECT signed FROM statement ORDER BY month DESC LIMIT 1", [], |row| row.get(0))
        .expect("has a statement");
    let signed: Signed = serde_json::from_str(&text).expect("JSON");
    let statement: Statement = signed.open_self_signed().expect("signed");
    statement.lines.iter().map(|line| line.hour.0).collect()
}
