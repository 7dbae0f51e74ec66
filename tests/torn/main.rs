//! Power cuts: what a real `larderd` did to its data folder is recorded call by call (recorder.c), while it
//! fills, serves, reports and evicts. Then the power fails at random points of that record, on a disk
//! that keeps what was synced and any part of the rest. The real store has to open what is left, every
//! piece in the map has to be right, and the ledger may lack the last five seconds and have no byte too
//! many.
//!
//! `make crash` cuts 1,000 times; `LARDER_TORN_POINTS` and `LARDER_TORN_SEED` choose otherwise.

#[allow(dead_code, reason = "the kills need more of it")]
#[path = "../crash/autopsy.rs"]
mod autopsy;
mod disk;
#[allow(dead_code, reason = "e2e needs more of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod log;
#[path = "../crash/stalls.rs"]
mod stalls;
#[allow(dead_code, reason = "the kills need more of it")]
#[path = "../crash/taker.rs"]
mod taker;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use disk::Disk;
use harness::{Lab, wait_for};
use larder::device::store::Store;
use log::Record;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use rusqlite::Connection;
use stalls::Stalls;
use taker::{Content, Shared, Takers};

/// In CI.
const POINTS: u64 = 300;
const CONTENT_BYTES: usize = 1_000_000;
const ALLOWANCE: u64 = 6_000_000;
/// Rare enough that the journal is synced between two.
const REPORT_INTERVAL_SECONDS: u32 = 6;
/// What is served while it is recorded: three rounds of filling, serving, evicting and stopping.
const ROUNDS: u32 = 3;
const ROUND_BYTES: u64 = 36_000_000;
/// What a power cut may cost.
const LOSS_MAX: Duration = Duration::from_secs(5);
/// A byte may be counted before the one who has it wakes up to write that down.
const NOTED_LATER: Duration = Duration::from_millis(200);

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_power_cut_at_any_point_loses_five_seconds_of_counts_and_nothing_else() {
    let points = setting("LARDER_TORN_POINTS", POINTS);
    let seed = setting("LARDER_TORN_SEED", rand::random());
    println!("LARDER_TORN_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let told = Told::record(&mut rng);
    let mut cuts: Vec<usize> =
        (0..points).map(|_| rng.random_range(0..=told.records.len())).collect();
    cuts.sort_unstable();
    println!("{} calls recorded in {:?}", told.records.len(), told.began.0.elapsed());

    let (mut disk, mut done, mut pieces) = (Disk::default(), 0, 0);
    for cut in cuts {
        while done < cut {
            disk.apply(&told.records[done].change);
            done += 1;
        }
        let found = tempfile::tempdir().expect("a folder");
        disk.cut_power(&mut rng, found.path());
        pieces += told.look(found.path(), cut);
    }
    println!("{points} power cuts; {pieces} pieces were right");
}

#[test]
fn an_idle_device_writes_nothing() {
    let mut lab = Lab::new();
    let log = record_device(&mut lab);
    lab.start_hub();
    lab.start_device();
    let path = lab.path("film.bin");
    harness::random_file(&path, CONTENT_BYTES, 3);
    let infohash = lab.publish(&path).infohash;
    lab.wait_until_served(infohash);
    // It asks for the list and reports every second.
    let mut quiet_since = None;
    wait_for("ten seconds in which nothing is written", || {
        let heard_at = lab.status()?.hub.last_contact?.0;
        let written = fs::metadata(&log).expect("exists").len();
        let (before, since) = *quiet_since.get_or_insert((written, heard_at));
        if before != written {
            quiet_since = None;
        }
        (before == written && heard_at >= since + 10).then_some(())
    });
}

/// All that happened.
struct Told {
    records: Vec<Record>,
    shared: Arc<Shared>,
    /// The same moment on two clocks.
    began: (Instant, u64),
    stall: Duration,
    /// Number, hash, and when the hub had it, in seconds since 1970.
    reports: Vec<(u64, String, u64)>,
}

fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

impl Told {
    fn record(rng: &mut SmallRng) -> Told {
        let (stalls, began) = (Stalls::watch(), (Instant::now(), nanoseconds()));
        let mut lab = Lab::new();
        let (log, root) = (record_device(&mut lab), lab.path("device"));
        lab.report_interval_seconds = REPORT_INTERVAL_SECONDS;
        lab.device_extra = format!("egress_bytes_per_second_max = {ALLOWANCE}");
        lab.start_hub();
        lab.start_device();
        let takers = Takers::start(2, lab.peer(), rng.random());
        for round in 0..ROUNDS {
            play(&mut lab, &takers, round, rng);
        }
        let shared = Arc::clone(&takers.shared);
        shared.contents.lock().expect("nobody panics").clear();
        wait_for("the last downloads", || shared.is_drained().then_some(()));
        lab.device.take().expect("it runs").terminate();
        takers.stop();
        Told {
            records: log::read(&log, &root),
            shared,
            began,
            stall: stalls.longest_since(began.0),
            reports: hub_reports(&lab.path("hub")),
        }
    }

    fn at(&self, nanoseconds: u64) -> Instant {
        self.began.0 + Duration::from_nanos(nanoseconds.saturating_sub(self.began.1))
    }

    /// What the device finds when it is switched on again after the first `cut` calls.
    fn look(&self, folder: &Path, cut: usize) -> u32 {
        let last = cut.checked_sub(1).map_or(0, |last| self.records[last].nanoseconds);
        let store = Store::open(folder).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        let contents = store.contents().expect("reads");
        let pieces = contents.iter().map(|c| autopsy::verify(&store, c.infohash)).sum();

        let ledger = store.egress_total().payload_bytes;
        let slack = 4 * self.stall;
        let most = self.shared.received_by(self.at(last) + NOTED_LATER + slack);
        let later = self.shared.received_at(ledger).map(|then| then.duration_since(self.at(last)));
        assert!(
            ledger <= most,
            "cut {cut}: {ledger} bytes counted, {most} received; so many only {later:?} later"
        );
        let sure = self.at(last).checked_sub(LOSS_MAX + slack);
        let sure = sure.map_or(0, |then| self.shared.received_by(then));
        assert!(
            ledger >= sure,
            "cut {cut}: {ledger} bytes counted, but {sure} were received five seconds before"
        );
        drop(store);
        self.compare_reports(folder, cut, last);
        pieces
    }

    /// What the hub has been told is known here, word for word, and counted as told.
    fn compare_reports(&self, folder: &Path, cut: usize, last: u64) {
        let db = Connection::open(folder.join("larder.db")).expect("opens");
        let mut query =
            db.prepare("SELECT payload_hash FROM report WHERE number = ?1").expect("SQL");
        for (number, hash, received_at) in &self.reports {
            if (received_at + 1) * 1_000_000_000 < last {
                let ours: String = query
                    .query_row([*number as i64], |row| row.get(0))
                    .unwrap_or_else(|e| panic!("cut {cut}: the hub has report {number}: {e}"));
                assert_eq!(ours, *hash, "cut {cut}: report {number}");
            }
        }
        let sum = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("SQL");
        assert_eq!(
            sum("SELECT coalesce(sum(payload_bytes), 0) FROM report"),
            sum("SELECT coalesce(sum(reported_payload_bytes), 0) FROM usage"),
            "cut {cut}: told by reports, and counted as told"
        );
    }
}

/// Publishes, has it filled and taken, revokes an older one, and stops the device.
fn play(lab: &mut Lab, takers: &Takers, round: u32, rng: &mut SmallRng) {
    let path = lab.path(&format!("film-{round}.bin"));
    let mut data = vec![0; CONTENT_BYTES];
    rng.fill_bytes(&mut data);
    fs::write(&path, &data).expect("writes");
    let infohash = lab.publish(&path).infohash;
    let piece_bytes = larder::logic::metainfo::piece_length_for(data.len() as u64);
    let content = Arc::new(Content { infohash, piece_bytes, data });
    let old = {
        let mut contents = takers.shared.contents.lock().expect("nobody panics");
        let old = contents.keys().next().copied();
        old.map(|old| contents.remove(&old));
        contents.insert(infohash, content);
        old
    };
    if let Some(old) = old {
        lab.larder(&["list", "revoke", &old.to_string(), "--reason", "test"]);
    }
    lab.wait_until_served(infohash);
    let enough = takers.shared.received() + ROUND_BYTES;
    wait_for("bytes that are served", || (takers.shared.received() >= enough).then_some(()));
    takers.assert_content();
    if round + 1 < ROUNDS {
        lab.device.take().expect("it runs").terminate();
        lab.start_device();
    }
}

/// Answers where the record will be.
fn record_device(lab: &mut Lab) -> PathBuf {
    let log = lab.path("log");
    lab.device_environment = vec![
        ("LD_PRELOAD", harness::compile_preloaded("tests/torn/recorder.c", lab.folder.path())),
        ("LARDER_RECORD_ROOT", lab.path("device")),
        ("LARDER_RECORD_LOG", log.clone()),
    ];
    log
}

fn hub_reports(hub: &Path) -> Vec<(u64, String, u64)> {
    let db = Connection::open(hub.join("hub.sqlite3")).expect("opens");
    let mut query = db
        .prepare("SELECT number, payload_hash, received_at FROM reports ORDER BY number")
        .expect("SQL");
    let rows = query.query_map([], |row| {
        let number = |n| Ok::<_, rusqlite::Error>(row.get::<_, i64>(n)? as u64);
        Ok((number(0)?, row.get(1)?, number(2)?))
    });
    rows.expect("SQL").map(|row| row.expect("reads")).collect()
}
