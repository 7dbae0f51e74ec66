//! `kill -9` on a real `larderd` at random points of filling, evicting, serving and reporting, over and
//! over, with a real hub and downloaders that count. After each: every piece in the map is right, and the
//! ledger has what the downloaders got, never more, and never less than it was a second before.
//!
//! `make crash` does it 1,000 times; `LARDER_CRASH_POINTS` and `LARDER_CRASH_SEED` choose otherwise.

mod autopsy;
#[allow(dead_code, reason = "e2e needs more of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod stalls;
#[allow(dead_code, reason = "the power cuts need more of it")]
mod taker;

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{Lab, wait_for};
use larder::{api::hub::Books, logic::infohash::Infohash};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use stalls::Stalls;
use taker::{Content, Takers};

/// In CI: about a minute. Each takes a second and a half, most of it waiting.
const POINTS: u64 = 160;
/// Devices that are killed at the same time, each with a hub of its own.
const LANES: u64 = 4;
/// Payload of what is published, and what a device sends.
const CONTENT_BYTES: std::ops::Range<usize> = 300_000..3_000_000;
const ALLOWANCE: u64 = 6_000_000;
const TAKERS: u8 = 2;
/// Contents on the list beside the first one, which stays.
const LISTED_MAX: usize = 3;

/// What a kill may cost.
const LOSS_MAX: Duration = Duration::from_secs(1);
/// Whoever takes what is being evicted is cut off, with what it has not acknowledged.
const CUT_BYTES: u64 = 1_000_000;
/// A machine that lets a thread wait for so long says nothing about seconds: `larderd` hands counts
/// through four threads before they are kept.
const STALL_MAX: Duration = Duration::from_millis(100);

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_kill_at_any_point_loses_a_second_of_counts_and_nothing_else() {
    let points = setting("LARDER_CRASH_POINTS", POINTS);
    let seed = setting("LARDER_CRASH_SEED", rand::random());
    println!("LARDER_CRASH_SEED={seed}");
    let stalls = Stalls::watch();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let stalls = &stalls;
            let points = points.div_ceil(LANES);
            scope.spawn(move || Lane::new(lane, seed).run(points, stalls));
        }
    });
}

/// Where the kill comes: each is a moment of the device's work, and then some.
#[derive(Clone, Copy, Debug)]
enum Point {
    Starting,
    Serving,
    Filling,
    Evicting,
    /// The interval of reports and lists is a second: somewhere in it.
    Reporting,
}

struct Lane {
    lab: Lab,
    takers: Takers,
    rng: SmallRng,
    published: Vec<Infohash>,
    number: u64,
    /// By the ledger, and what the kills have cost so far.
    ledger_bytes: u64,
    lost_bytes: u64,
    judged: u32,
    pieces: u32,
    /// Something was revoked since the last kill, and before it: the device may carry that out later.
    evicted: bool,
    evicted_before: bool,
}

impl Lane {
    fn new(lane: u64, seed: u64) -> Lane {
        let mut lab = Lab::new();
        lab.device_extra = format!("egress_bytes_per_second_max = {ALLOWANCE}");
        lab.start_hub();
        lab.start_device();
        let takers = Takers::start(TAKERS, lab.peer(), seed ^ lane << 8);
        let rng = SmallRng::seed_from_u64(seed ^ lane);
        let mut lane = Lane {
            lab,
            takers,
            rng,
            published: vec![],
            number: 0,
            ledger_bytes: 0,
            lost_bytes: 0,
            judged: 0,
            pieces: 0,
            evicted: false,
            evicted_before: false,
        };
        let first = lane.publish();
        lane.lab.wait_until_served(first);
        lane
    }

    fn run(mut self, points: u64, stalls: &Stalls) {
        let mut point = self.choose();
        for n in 0..points {
            let started = Instant::now();
            self.evicted = false;
            self.reach(point);
            self.kill_and_look(&format!("point {n}, {point:?}"), started, stalls);
            point = self.choose();
            match point {
                Point::Starting => self.lab.spawn_device(),
                _ => self.lab.start_device(),
            }
        }
        self.close_the_books();
        println!(
            "{points} kills cost {} of {} bytes; {} of them on a machine that was awake; {} pieces \
             were right",
            self.lost_bytes,
            self.takers.shared.received(),
            self.judged,
            self.pieces
        );
        self.takers.stop();
    }

    fn choose(&mut self) -> Point {
        match self.rng.random_range(0..10) {
            0 => Point::Starting,
            1..=4 => Point::Serving,
            5..=6 => Point::Filling,
            7 => Point::Evicting,
            _ => Point::Reporting,
        }
    }

    /// Waits for the moment at which to kill. The last random bit of it is the point of the matter.
    fn reach(&mut self, point: Point) {
        let shared = Arc::clone(&self.takers.shared);
        match point {
            Point::Starting => {}
            Point::Serving => {
                let enough = shared.received() + self.rng.random_range(1..8_000_000);
                wait_for("bytes that are served", || (shared.received() >= enough).then_some(()));
            }
            Point::Filling => {
                self.device_is_ready();
                let infohash = self.publish();
                let folder = self.lab.path("device/content").join(infohash.to_string());
                wait_for("a fill", || folder.exists().then_some(()));
            }
            Point::Evicting => {
                self.device_is_ready();
                if self.published.len() == 1 {
                    let infohash = self.publish();
                    self.lab.wait_until_served(infohash);
                }
                let which = self.rng.random_range(1..self.published.len());
                let infohash = self.revoke(which);
                let folder = self.lab.path("device/content").join(infohash.to_string());
                if self.rng.random() {
                    wait_for("an eviction", || (!folder.exists()).then_some(()));
                }
            }
            Point::Reporting => self.device_is_ready(),
        }
        let millis = match point {
            Point::Reporting => 1_200,
            Point::Starting => 300,
            _ => 60,
        };
        thread::sleep(Duration::from_micros(self.rng.random_range(0..millis * 1_000)));
    }

    fn device_is_ready(&self) {
        wait_for("the device", || self.lab.status());
    }

    fn publish(&mut self) -> Infohash {
        if self.published.len() > LISTED_MAX {
            self.revoke(1);
        }
        self.number += 1;
        let path = self.lab.path(&format!("film-{}.bin", self.number));
        let mut data = vec![0; self.rng.random_range(CONTENT_BYTES)];
        self.rng.fill_bytes(&mut data);
        fs::write(&path, &data).expect("writes");
        let infohash = self.lab.publish(&path).infohash;
        let piece_bytes = larder::logic::metainfo::piece_length_for(data.len() as u64);
        let content = Arc::new(Content { infohash, piece_bytes, data });
        self.takers.shared.contents.lock().expect("nobody panics").insert(infohash, content);
        self.published.push(infohash);
        infohash
    }

    fn revoke(&mut self, which: usize) -> Infohash {
        let infohash = self.published.remove(which);
        self.evicted = true;
        self.lab.larder(&["list", "revoke", &infohash.to_string(), "--reason", "test"]);
        self.takers.shared.contents.lock().expect("nobody panics").remove(&infohash);
        infohash
    }

    fn kill_and_look(&mut self, point: &str, started: Instant, stalls: &Stalls) {
        let shown = self.lab.status().map_or(vec![], |status| status.cache.contents);
        let killed_at = Instant::now();
        self.lab.kill_device();
        let shared = Arc::clone(&self.takers.shared);
        wait_for("what is on its way", || shared.is_drained().then_some(()));
        self.takers.assert_content();

        let found = autopsy::open(&self.lab.path("device"));
        let received = shared.received();
        let ledger = found.egress_bytes;
        assert!(ledger <= received, "{point}: {ledger} bytes counted, {received} received");
        assert!(ledger >= self.ledger_bytes, "{point}: {ledger}, after {}", self.ledger_bytes);
        for content in shown {
            let (before, after) = (content.egress_bytes, found.egress_bytes_of(content.infohash));
            assert!(after >= before, "{point}: {before} bytes were shown before, now {after}");
        }
        let stall = stalls.longest_since(started);
        let was_evicted = std::mem::replace(&mut self.evicted_before, self.evicted);
        if stall < STALL_MAX {
            let sure = shared.received_by(killed_at - LOSS_MAX - 4 * stall);
            let cut = if self.evicted || was_evicted { CUT_BYTES } else { 0 };
            assert!(
                ledger + self.lost_bytes + cut >= sure,
                "{point}: {ledger} bytes counted, {} lost before, but {sure} were received a second \
                 before the kill",
                self.lost_bytes
            );
            self.judged += 1;
        }
        self.pieces += found.pieces;
        self.ledger_bytes = ledger;
        self.lost_bytes = received - ledger;
    }

    /// Nobody is connected and nothing more is counted.
    fn wait_until_quiet(&self) {
        let mut before = None;
        wait_for("a quiet device", || {
            let status = self.lab.status().filter(|status| status.peers_connected == 0)?;
            let counted: Vec<u64> = status.cache.contents.iter().map(|c| c.egress_bytes).collect();
            let rate = *status.egress_history.last()?;
            (before.replace(counted.clone()) == Some(counted) && rate == 0).then_some(())
        });
    }

    /// What the ledger has is in the hub's books in the end, to the byte.
    fn close_the_books(&mut self) {
        let shared = Arc::clone(&self.takers.shared);
        shared.contents.lock().expect("nobody panics").clear();
        wait_for("the last downloads", || shared.is_drained().then_some(()));
        self.wait_until_quiet();
        let ledger = autopsy::open(&self.lab.path("device")).egress_bytes;
        wait_for("books in agreement", || {
            let books: Books = harness::json(&self.lab.larder(&["books", "--json"]));
            let booked: u64 = books.lines.iter().map(|line| line.payload_bytes).sum();
            assert!(booked <= ledger, "{booked} bytes booked, {ledger} in the ledger");
            (booked == ledger).then_some(())
        });
        assert!(ledger <= shared.received(), "{ledger} counted, {} received", shared.received());
        self.lab.device.take().expect("it runs").terminate();
        assert_eq!(autopsy::open(&self.lab.path("device")).egress_bytes, ledger);
    }
}
