//! A whole fleet of nodes in front of one hub, in virtual time: what the hub's servers notice when all come
//! back at once, and how long a revocation takes where no question is held. How a rate compares with the
//! usual one does not depend on how many devices there are: 100,000 only take longer (LARDER_DEVICES).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::Range,
    time::Duration,
};

use larder::logic::{
    governor::allowance::{self, Traffic},
    hotlist::{Entry, HotList, Policy},
    infohash::Infohash,
    node::{Command, Event, Node, Placing, Settings, Stored},
    now::{Monotonic, Now, UnixSeconds, WallTime},
    placement::Part,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

const CONTENTS: u8 = 2;
const T0: u64 = 1_795_219_200;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
/// By then nothing is left of how it began.
const IN_RHYTHM: u64 = 50 * MINUTE;
/// `max-age` of the timestamp, for which a cache in between may show the old one.
const CACHED_SECONDS: f64 = 5.0;
/// Snapshot, targets and list on a busy line.
const LOADING: Duration = Duration::from_secs(2);
/// Rates are compared over so many seconds: long enough for chance to be small.
const WINDOW: usize = 60;

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    List,
    Report,
    Announce,
    Enrol,
}

struct Fleet {
    nodes: Vec<Node<SmallRng>>,
    due: BinaryHeap<Reverse<(Monotonic, usize)>>,
    now: Monotonic,
    rng: SmallRng,
    /// Requests by second.
    asked: BTreeMap<Kind, Vec<u32>>,
    /// When the hub does not answer.
    down: Range<u64>,
    has_forgotten: bool,
    /// When the list without contents was published.
    revoked: Option<Monotonic>,
    /// How long each device took to evict.
    evicted_after: Vec<Duration>,
}

fn list(epoch: u64, contents: u8) -> HotList {
    let entry = |n: u8| Entry {
        infohash: Infohash([n; 20]),
        name: format!("film-{n}.mp4"),
        size_bytes: 1000,
        score: 1.0,
        lease_end: UnixSeconds(T0 + 30 * 24 * HOUR),
        price_class: "standard".into(),
        replicas: 3,
        private: false,
        metainfo_url: "http://hub.example/x.torrent".parse().expect("a URL"),
        tracker_tiers: vec![vec!["http://hub.example/announce".parse().expect("a URL")]],
        web_seeds: vec![],
        holders: vec![],
    };
    let entries = (0..contents).map(entry).collect();
    HotList { format: 1, epoch, published_at: UnixSeconds(T0), devices: None, entries }
}

/// As `larder-hub` has it by default.
fn policy() -> Policy {
    Policy {
        format: 1,
        currency: "CNY".into(),
        price_per_gb: BTreeMap::new(),
        list_interval_seconds: 50,
        report_interval_seconds: 900,
        statement_keys: vec![],
        reflector: None,
        private_web_seeds: vec![],
    }
}

fn valid_until() -> UnixSeconds {
    UnixSeconds(T0 + 30 * 24 * HOUR)
}

impl Fleet {
    /// All devices have worked before, and begin in this moment.
    fn power_is_back(seed: u64) -> Fleet {
        Fleet::begun_within(Duration::ZERO, seed)
    }

    /// One after the other.
    fn begun_within(time: Duration, seed: u64) -> Fleet {
        let mut fleet = Fleet {
            nodes: vec![],
            due: BinaryHeap::new(),
            now: Monotonic::START,
            rng: SmallRng::seed_from_u64(seed),
            asked: BTreeMap::new(),
            down: 0..0,
            has_forgotten: false,
            revoked: None,
            evicted_after: vec![],
        };
        for device in 0..devices() {
            fleet.now = Monotonic(time.mul_f64(device as f64 / devices() as f64));
            let settings = Settings {
                has_operator: true,
                quota_bytes: 1_000_000,
                enrolled: true,
                allowance: allowance::Settings::with_limit(1_000_000),
                line_traffic: Traffic::default(),
                placing: Placing::default(),
            };
            let held = (0..CONTENTS).map(|n| Stored {
                infohash: Infohash([n; 20]),
                size_bytes: 1000,
                complete: true,
                part: Part::whole(),
                pinned: false,
                linked: false,
            });
            let followed = Some((list(1, CONTENTS), policy(), valid_until()));
            let rng = SmallRng::seed_from_u64(seed * 1_000_003 + device as u64);
            let traffic = Traffic::default();
            let now = fleet.reading();
            let node = Node::new(settings, traffic, held.collect(), followed, rng, now);
            fleet.nodes.push(node);
            fleet.carry_out(device);
        }
        fleet.now = Monotonic::START;
        fleet
    }

    /// All devices in their usual rhythm.
    fn in_rhythm(seed: u64) -> Fleet {
        let mut fleet = Fleet::begun_within(Duration::from_secs(1800), seed);
        fleet.live_until(IN_RHYTHM);
        fleet
    }

    fn reading(&self) -> Now {
        let wall = WallTime::Synced(UnixSeconds(T0 + self.now.0.as_secs()));
        Now { monotonic: self.now, wall }
    }

    fn live_until(&mut self, second: u64) {
        let end = Monotonic(Duration::from_secs(second));
        while let Some(Reverse((at, device))) = self.due.peek().copied()
            && at <= end
        {
            self.due.pop();
            self.now = at;
            let now = self.reading();
            // It may have been woken for something that was put off since.
            if self.nodes[device].poll_timeout(now).is_some_and(|due| due <= at) {
                self.nodes[device].handle_timeout(now);
            }
            self.carry_out(device);
        }
        self.now = end;
    }

    fn carry_out(&mut self, device: usize) {
        while let Some(command) = self.nodes[device].poll_command() {
            let Some(event) = self.answer(&command) else { continue };
            let now = self.reading();
            self.nodes[device].handle_event(event, now);
        }
        if let Some(due) = self.nodes[device].poll_timeout(self.reading()) {
            self.due.push(Reverse((due.max(self.now), device)));
        }
    }

    fn answer(&mut self, command: &Command) -> Option<Event> {
        let is_up = !self.down.contains(&self.now.0.as_secs());
        Some(match command {
            Command::FetchList => {
                self.count(Kind::List);
                if is_up { self.look() } else { Event::ListFailed }
            }
            Command::Report => {
                self.count(Kind::Report);
                match (is_up, self.has_forgotten) {
                    (true, false) => Event::ReportsDelivered,
                    (true, true) => Event::NotEnrolled,
                    (false, _) => Event::ReportsFailed,
                }
            }
            Command::Announce { entry, .. } => {
                self.count(Kind::Announce);
                let interval = Duration::from_secs(1800);
                match is_up {
                    true => Event::Announced { infohash: entry.infohash, interval },
                    false => Event::AnnounceFailed(entry.infohash),
                }
            }
            Command::Enrol => {
                self.count(Kind::Enrol);
                if is_up { Event::Enrolled } else { Event::EnrolFailed }
            }
            Command::Evict(_) => {
                let since = self.revoked.expect("nothing else is evicted");
                self.evicted_after.push(self.now.saturating_since(since) + LOADING);
                return None;
            }
            Command::Fill { .. } | Command::Serve(_) | Command::SetAllowance(_) => return None,
        })
    }

    /// By way of a cache that knows the list of a moment ago.
    fn look(&mut self) -> Event {
        let age = Duration::from_secs_f64(CACHED_SECONDS * self.rng.random::<f64>());
        match self.revoked.is_some_and(|revoked| self.now - age >= revoked) {
            true => Event::ListVerified {
                list: list(2, 0),
                policy: policy(),
                valid_until: valid_until(),
            },
            false => Event::ListUnchanged,
        }
    }

    fn count(&mut self, kind: Kind) {
        let seconds = self.asked.entry(kind).or_default();
        let second = self.now.0.as_secs() as usize;
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }

    /// Requests a second.
    fn average(&self, kind: Kind, seconds: Range<u64>) -> f64 {
        let asked = &self.asked[&kind];
        let end = asked.len().min(seconds.end as usize);
        let requests: u32 = asked[seconds.start as usize..end].iter().sum();
        f64::from(requests) / (seconds.end - seconds.start) as f64
    }

    /// The most that there were in any window, per second.
    fn peak(&self, kind: Kind, seconds: Range<u64>) -> f64 {
        let Some(asked) = self.asked.get(&kind) else { return 0.0 };
        let end = asked.len().min(seconds.end as usize);
        let windows = asked[seconds.start as usize..end].windows(WINDOW);
        let most = windows.map(|window| window.iter().sum::<u32>()).max().unwrap_or_default();
        f64::from(most) / WINDOW as f64
    }

    /// Against what is usual, for each kind and for all together.
    fn assert_no_rush(&self, seconds: Range<u64>, usual: &BTreeMap<Kind, f64>, what: &str) {
        let peak = |kind| self.peak(kind, seconds.clone());
        for (kind, usual) in usual {
            let peak = peak(*kind);
            assert!(peak <= twice(*usual), "{what}: {kind:?} {peak} a second, usual {usual}");
        }
        let kinds = [Kind::List, Kind::Report, Kind::Announce, Kind::Enrol];
        let all: f64 = kinds.into_iter().map(peak).sum();
        let usual: f64 = usual.values().sum();
        assert!(all <= 2.0 * usual, "{what}: {all} a second, usual {usual}");
    }
}

/// What a fleet asks for in a second when all is well.
fn usual() -> BTreeMap<Kind, f64> {
    let devices = devices() as f64;
    let announces = f64::from(CONTENTS) / 1800.0;
    let per_device = [(Kind::List, 1.0 / 37.5), (Kind::Report, 1.0 / 900.0)];
    let per_device = per_device.into_iter().chain([(Kind::Announce, announces)]);
    per_device.map(|(kind, rate)| (kind, rate * devices)).collect()
}

/// And what chance adds to it: three deviations of how many there are in a window.
fn twice(usual: f64) -> f64 {
    2.0 * usual + 3.0 * (2.0 * usual / WINDOW as f64).sqrt()
}

fn devices() -> usize {
    let chosen = std::env::var("LARDER_DEVICES").ok().and_then(|devices| devices.parse().ok());
    chosen.unwrap_or(600)
}

#[test]
fn a_fleet_whose_power_comes_back_asks_no_more_than_twice_as_often_as_ever() {
    let mut fleet = Fleet::power_is_back(1);
    fleet.live_until(HOUR);
    for (kind, usual) in usual() {
        let average = fleet.average(kind, HOUR / 2..HOUR);
        assert!((0.8 * usual..1.2 * usual).contains(&average), "{kind:?}: {average}, not {usual}");
    }
    fleet.assert_no_rush(0..HOUR, &usual(), "power is back");
}

#[test]
fn a_fleet_whose_hub_comes_back_asks_no_more_than_twice_as_often_as_ever() {
    for outage in [3, 2 * MINUTE, 15 * MINUTE] {
        let mut fleet = Fleet::in_rhythm(2 + outage);
        fleet.down = IN_RHYTHM..IN_RHYTHM + outage;
        let end = IN_RHYTHM + outage + 10 * MINUTE;
        fleet.live_until(end);
        fleet.assert_no_rush(IN_RHYTHM..end, &usual(), &format!("{outage} seconds"));
    }
}

#[test]
fn a_fleet_that_the_hub_has_forgotten_enrols_without_a_rush() {
    let mut fleet = Fleet::in_rhythm(5);
    fleet.has_forgotten = true;
    let end = IN_RHYTHM + 20 * MINUTE;
    fleet.live_until(end);
    let enrolling = fleet.peak(Kind::Enrol, IN_RHYTHM..end);
    let most = twice(usual()[&Kind::Report]);
    assert!(enrolling > 0.0 && enrolling <= most, "{enrolling} a second, at most {most}");
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn a_revocation_reaches_a_fleet_that_only_looks_by_itself_within_a_minute() {
    // In the usual rhythm, and in the moment in which a hub is back after some minutes.
    for outage in [0, 10 * MINUTE] {
        let mut fleet = Fleet::in_rhythm(7);
        let published = IN_RHYTHM + outage;
        fleet.down = IN_RHYTHM..published;
        fleet.live_until(published);
        fleet.revoked = Some(fleet.now);
        fleet.live_until(published + 2 * MINUTE);
        assert_eq!(fleet.evicted_after.len(), devices() * usize::from(CONTENTS));
        let p99 = p99(fleet.evicted_after);
        assert!(p99 < Duration::from_secs(60), "{p99:?} with an outage of {outage} seconds");
    }
}
